"""Distilled surrogates: how they are sampled, stored, adapted and differentiated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny import TINY, tiny_surrogate
from helpers.tiny_maps import tiny_maps
from test_adapters import made_up_adapter
from torch import Tensor

from calograd.detector.design import Design
from calograd.detector.material import MATERIALS
from calograd.diffusion.progressive import Progressive
from calograd.errors import FormatError, InputError
from calograd.surrogate import Surrogate
from calograd.surrogate.cells.model import CellsArchitecture, CellsModel, without_material_numbers
from calograd.surrogate.generation import generate
from calograd.surrogate.maps.model import MapsArchitecture
from calograd.surrogate.model import SamplingSchedule, numbers_of
from calograd.system.random_numbers import RandomNumbers

DOUBLE = torch.float64
DESIGN = Design(2.5, 6.0, n_xy=3, n_z=2)


def distilled(steps: tuple[int, int] = (3, 2), **sizes: Any) -> Surrogate:
    return tiny_surrogate(distilled_steps=steps, **sizes)


def showers(surrogate: Surrogate, seed: int = 1, design: Design = DESIGN, **options: Any) -> Tensor:
    return surrogate.sample(design, 10.0, 6, generator=torch.Generator().manual_seed(seed), **options)


def test_a_surrogate_knows_its_own_schedule() -> None:
    assert tiny_surrogate().model.sampling_schedule() == SamplingSchedule("trigflow-ab2", 12, 12, 36)
    assert tiny_surrogate().model.sampling_schedule("heun") == SamplingSchedule("heun", 18, 35, 107)
    own = SamplingSchedule("progressive", 2, 2, 3)
    assert distilled().model.sampling_schedule() == distilled().model.sampling_schedule("progressive", 2) == own
    assert tiny_maps(coordinates="plain").model.sampling_schedule() == SamplingSchedule("trigflow-ab2", 12, 12, 0)


def test_without_being_told_a_diffusion_model_takes_12_steps_of_angle() -> None:
    surrogate = tiny_surrogate()
    assert torch.equal(showers(surrogate), showers(surrogate, sampler="trigflow-ab2", steps=12))


@pytest.mark.parametrize("steps", [(1, 1), (3, 2)])
def test_evaluations_are_what_is_announced(steps: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    surrogate, calls = distilled(steps), {"shape": 0, "pattern": 0}
    for name in calls:
        network = getattr(surrogate.model, f"{name}_network")

        def count(module: Any, arguments: Any, name: str = name) -> None:
            calls[name] += 1

        network.register_forward_pre_hook(count)
    surrogate.sample(DESIGN, torch.tensor(10.0, requires_grad=True), 6)  # without derivatives they are fused
    walk = surrogate.model.sampling_schedule()
    assert (calls["shape"], calls["pattern"]) == (walk.shape_evaluations, walk.evaluations) == steps


@pytest.mark.parametrize("sums", [False, True])
def test_showers_are_as_of_any_surrogate_and_follow_from_the_generator(sums: bool) -> None:
    surrogate = distilled(sums=sums)
    first, again, other = (showers(surrogate, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    total = first.sum((1, 2, 3))
    assert ((total > 0) & (total < 10)).all()
    assert torch.equal(first, showers(surrogate, sampler="progressive", steps=2))


@pytest.mark.parametrize(("steps", "sums"), [((1, 1), True), ((3, 2), True), ((2, 3), False)])
def test_gradients_equal_finite_differences(steps: tuple[int, int], sums: bool) -> None:
    surrogate = distilled(steps, sums=sums)
    surrogate.model.double()
    weights = torch.rand(6, 3, 3, 2, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)

    def weighted(dx: Tensor, dz: Tensor, energy: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        cells = surrogate.sample(Design(dx, dz, n_xy=3, n_z=2), energy, 6, generator=generator)
        return (cells * weights).sum()

    at = [torch.tensor(v, dtype=DOUBLE, requires_grad=True) for v in (2.5, 6.0, 20.0)]
    assert torch.autograd.gradcheck(weighted, at, eps=1e-6, atol=1e-6, rtol=1e-5)
    assert all(abs(float(g)) > 1e-6 for g in torch.autograd.grad(weighted(*at), at))


def test_checkpoints_change_neither_showers_nor_gradients() -> None:
    def sampled(checkpointed: bool) -> tuple[Tensor, Tensor]:
        dx = torch.tensor(2.5, requires_grad=True)
        cells = showers(distilled(), design=Design(dx, 6.0, n_xy=3, n_z=2), checkpointed=checkpointed)
        return cells.detach(), torch.autograd.grad(cells.square().sum(), dx)[0]

    (cells, gradient), (same_cells, same_gradient) = sampled(False), sampled(True)
    assert torch.equal(cells, same_cells)
    torch.testing.assert_close(gradient, same_gradient, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("surrogate", "options", "complaint"),
    [
        (
            distilled(),
            {"sampler": "heun"},
            "3 steps of the shape and 2 of the pattern and cannot take 2 steps of 'heun'",
        ),
        (distilled(), {"steps": 12}, "cannot take 12 steps of 'progressive'; leave sampler and steps out"),
        (distilled(), {"steps": 0}, "cannot take 0 steps of 'progressive'"),
        (tiny_surrogate(), {"sampler": "progressive"}, "'progressive' is that of distilled surrogates, this is a"),
        (tiny_surrogate(), {"steps": 0}, "0 steps of 'trigflow-ab2': expected at least 1"),
    ],
)
def test_other_samplers_and_steps_are_refused(surrogate: Surrogate, options: dict[str, Any], complaint: str) -> None:
    columns = (np.array([10.0]), np.array([2.5]), np.full((1, 2), 6.0))
    for attempt in (lambda: showers(surrogate, **options), lambda: generate(surrogate, *columns, **options)):
        with pytest.raises(InputError) as refusal:
            attempt()
        assert complaint in str(refusal.value)
        assert "\n" not in str(refusal.value)


def test_files_of_showers_state_the_sampler_and_its_evaluations() -> None:
    columns = (np.array([10.0, 20.0]), np.full(2, 2.5), np.full((2, 2), 6.0))
    config = generate(distilled(), *columns).config
    assert {"sampler": "progressive", "steps": 2, "evaluations": 2, "shape_evaluations": 3}.items() <= config.items()
    config = generate(tiny_surrogate(), *columns).config
    expected = {"sampler": "trigflow-ab2", "steps": 12, "evaluations": 12, "shape_evaluations": 36}
    assert expected.items() <= config.items()


@pytest.mark.parametrize("compact", [False, True])
def test_a_stored_one_comes_back(tmp_path: Path, compact: bool) -> None:
    original = distilled(sums=True)
    original.save(tmp_path / "fast", compact=compact)
    loaded = Surrogate.load(tmp_path / "fast")
    assert loaded.card.architecture["distilled_steps"] == [3, 2]
    assert loaded.model.architecture.distilled_steps == (3, 2)
    assert isinstance(loaded.model.preconditioning, Progressive)
    if compact:
        assert loaded.model.architecture.material_numbers == ()
        torch.testing.assert_close(showers(loaded), showers(original), rtol=0.05, atol=0.01)
    else:
        assert loaded.identity == original.identity
        assert torch.equal(showers(loaded), showers(original))


def test_an_architecture_comes_back_from_plain_data() -> None:
    assert TINY.to_dict()["distilled_steps"] is None
    assert CellsArchitecture(**TINY.to_dict()) == TINY


@pytest.mark.parametrize("steps", [[2], [2, 0], [1, 2, 3], 4])
def test_steps_that_cannot_be(tmp_path: Path, steps: Any) -> None:
    surrogate = tiny_surrogate()
    card = surrogate.card.model_copy(update={"architecture": surrogate.card.architecture | {"distilled_steps": steps}})
    Surrogate(surrogate.model, card).save(tmp_path)
    with pytest.raises(FormatError, match="card or weights do not fit this version"):
        Surrogate.load(tmp_path)


def test_the_numbers_of_one_material_become_biases_exactly() -> None:
    model = distilled(sums=True).model.double()
    assert isinstance(model, CellsModel)
    folded = without_material_numbers(model, MATERIALS["PbF2"])
    numbers = numbers_of(MATERIALS["PbF2"], like=model.condition_mean)
    energy, dx, dz = (torch.tensor(v, dtype=DOUBLE) for v in ([20.0], [2.5], [[9.0, 8.0]]))
    cells = [
        each.generate(
            each.conditions(energy, dx, dz, numbers),
            energy,
            each.sampling_schedule(),
            RandomNumbers(1, range(4)),
        )
        for each in (model, folded)
    ]
    torch.testing.assert_close(*cells)
    assert folded.sampling_schedule() == model.sampling_schedule()


def test_an_adapter_leaves_the_steps() -> None:
    base = distilled()
    adapted = base.with_adapter(made_up_adapter(base))
    assert adapted.model.sampling_schedule() == base.model.sampling_schedule()
    design = Design(2.5, 6.0, "PbWO4", n_xy=3, n_z=2)
    with pytest.warns(UserWarning, match="extrapolates"):
        others = showers(base, design=design, extrapolate=True)
    assert not torch.equal(showers(adapted, design=design), others)


def test_maps_are_distilled_too() -> None:
    surrogate = tiny_maps(distilled_steps=(2, 1), dropped=0.2)
    maps = surrogate.sample(Design(2.5, 6.0), 10.0, 3, generator=torch.Generator().manual_seed(1))
    again = surrogate.sample(Design(2.5, 6.0), 10.0, 3, generator=torch.Generator().manual_seed(1))
    assert maps.shape == (3, 8, 8)
    assert torch.equal(maps, again)
    assert surrogate.model.sampling_schedule() == SamplingSchedule("progressive", 1, 1, 2)
    with pytest.raises(InputError, match=r"tiny-maps has no guidance samples; leave out guidance = 1\.0"):
        surrogate.sample(Design(2.5, 6.0), 10.0, 3, guidance=1.0)
    with pytest.raises(InputError, match="plain coordinates cannot be distilled"):
        MapsArchitecture(coordinates="plain", distilled_steps=(2, 1))
