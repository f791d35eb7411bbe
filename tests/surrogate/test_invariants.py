"""What holds for every surrogate, bundled or tiny, of every kind."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny import tiny_surrogate
from helpers.tiny_clouds import tiny_clouds
from helpers.tiny_maps import tiny_maps
from helpers.tiny_plates import tiny_plate_points, tiny_plates
from torch import Tensor, nn

from calograd.detector.design import Design
from calograd.detector.sampling_design import SamplingDesign
from calograd.errors import InputError, RangeError
from calograd.events.layer_energies import LayerEnergies
from calograd.surrogate import Points, Surrogate, TrainedStacks
from calograd.surrogate.registry import KINDS
from calograd.surrogate.storage import bundled

TINY: dict[str, Callable[[], Surrogate]] = {
    "tiny cells": tiny_surrogate,
    "tiny cells, distilled": lambda: tiny_surrogate(distilled_steps=(2, 1), sums=True),
    "tiny maps": tiny_maps,
    "tiny maps, distilled": lambda: tiny_maps(distilled_steps=(2, 1)),
    "tiny maps, plain": lambda: tiny_maps(coordinates="plain", schedule="linear", preconditioning="noise"),
    "tiny plates": tiny_plates,
    "tiny plates, points": tiny_plate_points,
    "tiny points": tiny_clouds,
    "tiny points, distilled": lambda: tiny_clouds(sampler="consistency", steps=1, shower_steps=1),
}
ALL = [*TINY, *bundled()]
Change = Callable[[Surrogate], None]


def load(name: str) -> Surrogate:
    return TINY[name]() if name in TINY else Surrogate.load(name)


@pytest.fixture(params=ALL)
def surrogate(request: pytest.FixtureRequest) -> Surrogate:
    return load(request.param)


def design_of(surrogate: Surrogate, dx: Any = None, dz: Any = None) -> Design | SamplingDesign | None:
    """In the middle of the trained range; None for a surrogate of one detector."""
    if not surrogate.card.takes_design:
        return None
    trained = surrogate.card.trained
    if isinstance(trained, TrainedStacks):
        return SamplingDesign("Pb", "lAr", 0.3, 0.4, max(8, trained.layers[0]))
    a, material = surrogate.design_model.architecture, surrogate.card.designs.materials[0]
    ranges = surrogate.card.in_cm(material)
    middle = [(low * high) ** 0.5 for low, high in (ranges.dx, ranges.dz)]
    return Design(middle[0] if dx is None else dx, middle[1] if dz is None else dz, material, a.n_xy, a.n_z)


def showers(surrogate: Surrogate, energy: Any = 50.0, n: int = 3, seed: int = 1, **options: Any) -> Tensor:
    """Numbers of n showers, one row a shower for cells and maps, one row a point for points."""
    generator = torch.Generator().manual_seed(seed)
    if not surrogate.model.distilled:
        options = {"steps": 3} | options
    options |= dict.fromkeys(surrogate.model.required_options, True)
    made = surrogate.sample(design_of(surrogate), energy, n, generator=generator, **options)
    if isinstance(made, Points):
        return torch.stack([made.x, made.y, made.layer.to(made.e), made.e], dim=1)
    if isinstance(made, LayerEnergies):
        return torch.cat([made.layer_energies(), made.absorbed_energies()], dim=1)
    return made.flatten(1)


def test_every_kind_is_among_them() -> None:
    assert {load(name).card.kind for name in TINY} == set(KINDS)


def test_equal_seeds_give_equal_showers_with_energy(surrogate: Surrogate) -> None:
    first, again, other = (showers(surrogate, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert first.shape != other.shape or not torch.equal(first, other)
    assert bool(torch.isfinite(first).all())
    assert float(first.sum()) != 0
    assert not first.is_inference()


def test_shower_i_depends_on_the_seed_and_i_alone(surrogate: Surrogate, monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = showers(surrogate, n=3), showers(surrogate, n=8)
    torch.testing.assert_close(many[: len(few)], few, rtol=1e-3, atol=1e-4)
    monkeypatch.setattr(type(surrogate.model), "batch_size", 3)
    torch.testing.assert_close(showers(surrogate, n=8), many, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_showers_have_the_type_and_device_of_the_weights(surrogate: Surrogate, dtype: torch.dtype) -> None:
    surrogate.model.to(dtype)
    made = showers(surrogate)
    assert (made.dtype, made.device) == (dtype, surrogate.model.condition_mean.device)


def test_an_energy_for_every_shower_equals_a_common_one(surrogate: Surrogate) -> None:
    common, each = showers(surrogate), showers(surrogate, torch.full((3,), 50.0))
    torch.testing.assert_close(common, each, rtol=1e-3, atol=1e-4)


def test_gradients_equal_finite_differences(surrogate: Surrogate) -> None:
    surrogate.model.double()
    smooth = {} if surrogate.card.takes_design else {"smooth": True}

    def total(energy: Tensor) -> Tensor:
        made = showers(surrogate, energy, n=2, **smooth)
        return (made[:, -1] if smooth else made).square().sum()

    energy = torch.tensor(50.0, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(total(energy), energy)
    with torch.no_grad():
        step = 1e-4
        expected = (total(energy + step) - total(energy - step)) / (2 * step)
    torch.testing.assert_close(slope, expected, rtol=2e-4, atol=1e-9)


def test_it_comes_back_from_disk_pickle_and_deep_copy(surrogate: Surrogate, tmp_path: Path) -> None:
    expected = showers(surrogate)
    surrogate.save(tmp_path / "saved")
    for again in (
        Surrogate.load(tmp_path / "saved"), pickle.loads(pickle.dumps(surrogate)), copy.deepcopy(surrogate)
    ):  # fmt: skip
        assert again.card == surrogate.card
        assert again.identity == surrogate.identity
        assert torch.equal(showers(again), expected)


def test_energies_outside_the_trained_range_are_refused(surrogate: Surrogate) -> None:
    low, high = surrogate.card.energy
    for energy in (0.9 * low, 1.1 * high, torch.tensor([low, high, 1.1 * high])):
        with pytest.raises(RangeError, match=rf"{surrogate.card.name}: energy = .* GeV is outside .*extrapolate=True"):
            showers(surrogate, energy)
    with pytest.warns(UserWarning, match="extrapolates: energy"):
        showers(surrogate, 1.05 * high, extrapolate=True)
    for energy in (-1.0, float("nan"), 0.0):
        with pytest.raises(InputError, match="not a positive number"):
            showers(surrogate, energy, extrapolate=True)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"n": 0}, "n = 0: expected at least 1"),
        ({"n": "8"}, "n = '8': expected a whole number"),
        ({"n": 8.0}, r"n = 8\.0: expected a whole number"),
        ({"energy": None}, "energy = None: expected a number"),
        ({"energy": "50"}, "energy = '50': expected a number"),
        ({"energy": torch.ones(2)}, r"energy has shape \(2,\), expected one number or \(3,\)"),
        ({"generator": 0}, r"generator = 0: expected a torch\.Generator"),
        ({"steps": 3.5}, r"steps = 3\.5: expected a whole number"),
        ({"design": (2.5, 6.0)}, "design"),
        ({"guidance": 2.0}, r"has no guidance samples; leave out guidance = 2\.0"),
        ({"sampler": "no such"}, "no such"),
    ],
)
@pytest.mark.parametrize("name", ["tiny cells", "tiny maps", "tiny points"])
def test_wrong_arguments_are_named_in_one_line(name: str, arguments: dict[str, Any], complaint: str) -> None:
    surrogate = load(name)
    with pytest.raises(InputError, match=complaint) as refusal:
        surrogate.sample(**({"design": design_of(surrogate), "energy": 50.0, "n": 3} | arguments))
    assert "\n" not in str(refusal.value)


def test_loading_and_sampling_do_not_depend_on_the_callers_autograd_mode(surrogate: Surrogate, tmp_path: Path) -> None:
    expected = showers(surrogate)
    surrogate.save(tmp_path / "saved")
    with torch.inference_mode():
        loaded = Surrogate.load(tmp_path / "saved")
        torch.testing.assert_close(showers(loaded), expected)
    energy = torch.tensor(50.0, requires_grad=True)
    made = showers(loaded, energy, **({} if surrogate.card.takes_design else {"smooth": True}))
    assert bool(torch.isfinite(torch.autograd.grad(made[:, -1].sum(), energy)[0]))
    with torch.no_grad():
        assert torch.equal(showers(loaded), expected)


def _adam(fused: bool) -> Change:
    def change(surrogate: Surrogate) -> None:
        surrogate.model.requires_grad_(True)
        optimiser = torch.optim.Adam(surrogate.model.parameters(), lr=1e-2, fused=fused)
        for parameter in surrogate.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimiser.step()
        surrogate.model.requires_grad_(False)

    return change


def _data(surrogate: Surrogate) -> None:
    for parameter in surrogate.model.parameters():
        parameter.data.mul_(1.02)


def _vector(surrogate: Surrogate) -> None:
    vector = nn.utils.parameters_to_vector(surrogate.model.parameters()).detach() * 1.02
    nn.utils.vector_to_parameters(vector, surrogate.model.parameters())


def _new_parameters(surrogate: Surrogate) -> None:
    for module in surrogate.model.modules():
        if isinstance(module, nn.Linear):
            module.weight = nn.Parameter(module.weight * 1.02, requires_grad=False)


def _deep_copy(surrogate: Surrogate) -> None:
    surrogate.model = copy.deepcopy(surrogate.model)
    _data(surrogate)


@pytest.mark.parametrize(
    "change", [_adam(False), _adam(True), _data, _vector, _new_parameters, _deep_copy],
    ids=["Adam", "fused Adam", ".data", "vector_to_parameters", "new parameters", "deepcopy"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["tiny cells, distilled", "tiny points, distilled"])
def test_showers_follow_weights_however_they_are_changed(name: str, change: Change) -> None:
    surrogate = load(name)
    before = showers(surrogate)
    change(surrogate)
    after, fresh = showers(surrogate), showers(Surrogate(surrogate.model, surrogate.card))
    assert torch.equal(after, fresh)
    assert after.shape != before.shape or not torch.equal(after, before)


def test_a_functional_call_samples_with_the_given_weights() -> None:
    surrogate = load("tiny cells, distilled")
    weights = {name: 1.02 * value for name, value in surrogate.model.named_parameters()}

    class Sampled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = surrogate.model

        def forward(self) -> Tensor:
            return showers(surrogate)

    given = torch.func.functional_call(Sampled(), {f"model.{name}": value for name, value in weights.items()}, ())
    _data(surrogate)
    torch.testing.assert_close(given, showers(surrogate))


@pytest.mark.parametrize("name", ["tiny cells", "tiny cells, distilled", "tiny maps", "pbf2-cells-fast"])
def test_every_shower_may_have_a_design_of_its_own_with_gradients_to_each(name: str) -> None:
    surrogate = load(name)
    a = surrogate.design_model.architecture
    dx = torch.linspace(1.5, 4.5, 4).requires_grad_()
    dz = torch.linspace(5.0, 14.0, 4)[:, None].expand(4, a.n_z).clone().requires_grad_()
    made = surrogate.sample(
        Design(dx, dz, n_xy=a.n_xy, n_z=a.n_z), 50.0, 4, generator=torch.Generator().manual_seed(0)
    ).flatten(1)
    for row in range(4):
        one = surrogate.sample(
            Design(dx[row], dz[row], n_xy=a.n_xy, n_z=a.n_z), 50.0, 4, generator=torch.Generator().manual_seed(0)
        )
        torch.testing.assert_close(made[row], one.flatten(1)[row], rtol=1e-3, atol=1e-4)
    weights = torch.rand(made.shape[1], generator=torch.Generator().manual_seed(2))
    for gradient in torch.autograd.grad((made[2] * weights).sum(), [dx, dz]):
        rows = gradient.flatten(1).abs().sum(1) if gradient.ndim > 1 else gradient.abs()
        assert (rows > 0).tolist() == [False, False, True, False]
    with pytest.raises(InputError, match="4 designs for 3 showers"):
        surrogate.sample(Design(dx, dz, n_xy=a.n_xy, n_z=a.n_z), 50.0, 3)
    with pytest.raises(RangeError, match=r"dx = 9\.5 cm is outside"):
        surrogate.sample(Design(torch.tensor([2.0, 9.5]), 6.0, n_xy=a.n_xy, n_z=a.n_z), 50.0, 2)


@pytest.mark.parametrize("value", [float("nan"), -1.0, 0.0])
def test_a_design_that_was_changed_in_place_is_checked_again(value: float) -> None:
    dx = torch.tensor(2.5)
    design = Design(dx, 6.0, n_xy=3, n_z=2)
    dx.fill_(value)
    with pytest.raises(InputError, match="expected positive numbers"):
        load("tiny cells").sample(design, 50.0, 2, extrapolate=True)
