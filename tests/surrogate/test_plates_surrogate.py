"""The surrogate of stacks of plates: gradients to every thickness, stacks of any number of layers, refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny import tiny_surrogate
from helpers.tiny_plates import tiny_plates
from helpers.toy_library import made_up_generated, plates_config
from torch import Tensor

from calograd import Design, SamplingDesign
from calograd.detector.incidence import Incidence
from calograd.detector.sampling_stack import SamplingStack, ThicknessRange
from calograd.errors import InputError, RangeError
from calograd.surrogate import Surrogate
from calograd.surrogate.generation import draw_stacks, generate, rows_like
from calograd.surrogate.plates.model import PlatesModel
from calograd.system.random_numbers import RandomNumbers


@pytest.fixture(scope="module", params=[{}, {"dense": True, "distilled_steps": (2, 1)}], ids=["shared", "dense"])
def plates(request: pytest.FixtureRequest) -> Surrogate:
    """Layers that share a network of a diffusion model, or a student whose network sees all at once."""
    surrogate = tiny_plates(**request.param)
    surrogate.model.double()
    return surrogate


def sample(surrogate: Surrogate, stack: SamplingDesign, energy: Any = 10.0, n: int = 4, **options: Any) -> Tensor:
    """Energies of active plates, then absorbers, shape (n, 2, layers)."""
    options = {"layers_only": True, "particle": "e-", "generator": torch.Generator().manual_seed(5)} | options
    made = surrogate.sample(stack, energy, n, **options)
    return torch.stack([made.layer_energies(), made.absorbed_energies()], 1)


def test_gradients_to_every_thickness_energy_and_angle_equal_finite_differences(plates: Surrogate) -> None:
    weights = torch.rand(4, 2, 6, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    absorber, active = torch.linspace(0.2, 0.5, 6).double(), torch.linspace(0.6, 0.3, 6).double()

    def value(a: Tensor, t: Tensor, energy: Tensor, theta: Tensor) -> Tensor:
        return (sample(plates, SamplingDesign("Pb", "lAr", a, t), energy, theta=theta) * weights).sum()

    at = [x.requires_grad_() for x in (absorber, active, torch.tensor(10.0).double(), torch.tensor(20.0).double())]
    slopes = torch.autograd.grad(value(*at), at)
    assert all(bool((slope != 0).all()) for slope in slopes)
    for number, (x, slope) in enumerate(zip(at, slopes, strict=True)):
        direction = torch.linspace(1, -0.5, max(1, x.numel())).double().reshape(x.shape)
        step = 1e-5 * direction
        ends = [value(*(each + sign * step if k == number else each for k, each in enumerate(at))) for sign in (1, -1)]
        expected = (ends[0] - ends[1]) / 2e-5
        torch.testing.assert_close((slope * direction).sum(), expected, rtol=1e-4, atol=1e-7)


def test_a_batch_of_stacks_equals_each_of_them(plates: Surrogate) -> None:
    absorber = torch.linspace(0.2, 0.6, 4 * 5).double().reshape(4, 5)
    batch = sample(plates, SamplingDesign("W", "Si", absorber, 0.05))
    assert batch.shape == (4, 2, 5)
    for row in range(4):
        one = sample(plates, SamplingDesign("W", "Si", absorber[row], 0.05))
        torch.testing.assert_close(batch[row], one[row])


def test_layers_beyond_the_last_one_change_nothing(plates: Surrogate) -> None:
    model, generator = plates.model, torch.Generator().manual_seed(7)
    assert isinstance(model, PlatesModel)
    energies = torch.rand(3, 12, 2, generator=generator).double() * 0.2
    energies[0, 5:] = 0
    thickness = torch.full((3, 12, 2), 0.3, dtype=torch.float64)
    thickness[0, 5:] = 0
    numbers = [torch.tensor([row], dtype=torch.float64) for row in
               ((0.56, 0.0073, 82.0, 0.0129), (14.0, 0.032, 18.0, 0.0021))]  # fmt: skip
    energy = torch.full((3,), 9.0, dtype=torch.float64)

    def of(rows: slice, layers: int) -> tuple[Tensor, ...]:
        conditions = model.conditions(thickness[rows, :layers], numbers[0], numbers[1], energy[rows], None)
        g, c, _ = model.encode(energies[rows, :layers], conditions, energy[rows], RandomNumbers(1, range(1)))
        x, y = model.standardise(g, c, conditions, energy[rows])
        losses = model.losses(x, y, conditions, energy[rows], RandomNumbers(2, range(1)))
        made = model.generate(conditions, energy[rows], model.sampling_schedule(), RandomNumbers(3, range(1)))
        return x, *losses, made.active[:, :5], made.absorber[:, :5]

    rows = model.conditions(thickness, numbers[0], numbers[1], energy, None)
    made = model.generate(rows, energy, model.sampling_schedule(), RandomNumbers(3, range(3)))
    alone = of(slice(0, 1), 5)
    for one, other in zip(alone, of(slice(0, 1), 12), strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(made.active[:1, :5], alone[-2])
    assert not made.active[0, 5:].any()
    assert made.active[1, 5:].any()


def test_positrons_may_leave_more_than_they_bring() -> None:
    surrogate = tiny_plates()
    surrogate.card = surrogate.card.model_copy(update={"energy": (1e-3, 100)})
    trained = surrogate.card.trained.model_copy(
        update={"beam": surrogate.card.trained.beam.model_copy(update={"particles": ("e-", "e+")})}  # type: ignore[union-attr]
    )
    surrogate.card = surrogate.card.model_copy(update={"trained": trained})
    bias = surrogate.model.shower_location_scale.network[-1].bias
    bias[0] = 12.0  # nothing leaks
    stack = SamplingDesign("Pb", "lAr", 0.5, 0.5, 10)
    for particle, most in (("e-", 0.01), ("e+", 0.01 + 2 * 0.511e-3)):
        total = sample(surrogate, stack, 0.01, 4, particle=particle).sum((1, 2))
        torch.testing.assert_close(total, torch.full((4,), most), rtol=1e-3, atol=0)


STACK = SamplingDesign("Pb", "lAr", 0.3, 0.4, 6)


@pytest.mark.parametrize(
    ("stack", "options", "complaint"),
    [
        (STACK, {"layers_only": False}, "generates layers_only samples alone; add layers_only=True"),
        (STACK, {"position": "uniform"}, "plates have no cells to draw it in; leave position out"),
        (STACK, {"particle": "e+"}, r"particle e\+ was not trained on, gamma and e- were"),
        (STACK, {"theta": 50.0}, "theta = 50 degrees is outside 0 to 40"),
        (STACK, {"smooth": True}, "has no smooth samples"),
        (STACK, {"steps": 0}, "0 steps of 'trigflow-ab2': expected at least 1"),
        (Design(2.5, 6.0), {}, "expects a SamplingDesign, as SamplingDesign"),
        (SamplingDesign("Pb", "lAr", 0.3, 0.4, 3), {}, "n_layers = 3 is outside 4 to 12"),
        (SamplingDesign("Pb", "lAr", 0.3, 0.4, 13), {}, "has 13 layers, tiny-plates generates up to 12"),
        (SamplingDesign("Pb", "lAr", 0.1, 0.4, 6), {}, "absorber_thickness = 0.1 cm is outside 0.112242 to"),
        (SamplingDesign("Pb", "Si", 0.3, 0.4, 6), {}, "active_thickness = 0.4 cm is outside 0.01 to 0.1 cm"),
        (SamplingDesign("Fe", "lAr", 0.5, 0.4, 6), {}, r"absorber Fe .* was not trained on.*density 7.87 is outside"),
        (SamplingDesign("Pb", "lAr", 0.3, 0.4, 6, "W", 0.1), {}, "gaps of W were not trained on"),
    ],
)
def test_what_was_not_trained_on_is_refused_in_one_line(stack: Any, options: dict[str, Any], complaint: str) -> None:
    surrogate = tiny_plates()
    with pytest.raises((InputError, RangeError), match=complaint) as refusal:
        sample(surrogate, stack, **options)
    assert "\n" not in str(refusal.value)


def test_an_unseen_pair_and_a_gap_of_air_are_taken() -> None:
    surrogate = tiny_plates()
    with pytest.warns(UserWarning, match="W with lAr was not trained on, each of them was with others"):
        sample(surrogate, SamplingDesign("W", "lAr", 0.2, 0.4, 6))
    with_air = sample(surrogate, SamplingDesign("Pb", "lAr", 0.3, 0.4, 6, gap_thickness=0.3))
    torch.testing.assert_close(with_air, sample(surrogate, STACK))


LAW = SamplingStack(
    absorber=("Pb", "W"), active="Si", layers=(4, 12), profile="smooth",
    absorber_thickness=ThicknessRange(low=0.2, high=0.6), active_thickness=ThicknessRange(low=0.02, high=0.1),
)  # fmt: skip


def test_files_of_any_mixture_of_stacks_hold_what_sample_gives(plates: Surrogate) -> None:
    surrogate = plates
    stacks, energy = draw_stacks(LAW, 30, seed=2), np.linspace(1, 100, 30).astype(np.float32)
    incident = Incidence.of(30, ["gamma", "e-"] * 15, theta=np.linspace(0, 40, 30))
    seed = RandomNumbers.from_generator(torch.Generator().manual_seed(5), 1).seed
    made = generate(surrogate, energy, stacks=stacks, incident=incident, seed=seed, layers_only=True)
    assert made.stacks.difference(stacks) is None
    assert (made.origin, made.config["layers_only"], made.config["seed"]) == ("tiny-plates", True, seed)
    np.testing.assert_array_equal(made.energy, energy)
    np.testing.assert_array_equal(made.theta, incident.theta)
    assert made.seed.tolist() == [seed] * 30
    seen = 0
    for rows, stack in SamplingDesign.batches(stacks):
        alone = surrogate.sample(
            stack, torch.from_numpy(energy[rows]), len(rows), particle=incident.particle[rows],
            theta=incident.theta[rows], shower=rows, layers_only=True,
            generator=torch.Generator().manual_seed(5),
        )  # fmt: skip
        of_rows = made.rows(rows).energies()
        np.testing.assert_allclose(of_rows[..., 2], alone.layer_energies(), rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(of_rows[..., 0], alone.absorbed_energies(), rtol=1e-6, atol=1e-9)
        assert not of_rows[..., 1].any()
        seen += len(rows)
    assert seen == 30


def test_rows_of_another_class_are_refused() -> None:
    surrogate, energy = tiny_plates(), np.full(2, 10.0)
    stacks = draw_stacks(LAW, 2)
    for rows in ({}, {"dx": energy, "dz": energy[:, None]}, {"stacks": stacks, "dx": energy, "dz": energy[:, None]}):
        with pytest.raises(InputError, match="rows of designs: tiny-plates takes a stack of plates for every row"):
            generate(surrogate, energy, layers_only=True, **rows)
    with pytest.raises(InputError, match="rows of designs: tiny takes a pitch and depths for every row"):
        generate(tiny_surrogate(), energy, stacks=stacks)
    with pytest.raises(InputError, match="2 stacks for 3 energies; expected one stack for every row"):
        generate(surrogate, np.full(3, 10.0), stacks=stacks, layers_only=True)
    with pytest.raises(InputError, match=r"add layers_only=True \(--layers-only\)"):
        generate(surrogate, energy, stacks=stacks)
    thin = replace(stacks, thickness=stacks.thickness / 10)
    with pytest.raises(RangeError, match=r"absorber_thickness = .* cm is outside .*; active_thickness"):
        generate(surrogate, energy, stacks=thin, layers_only=True)
    with pytest.raises(InputError, match="knows no designs of cells"):
        _ = surrogate.design_model
    assert "absorbers" in surrogate._repr_html_()


def test_rows_like_others_are_theirs() -> None:
    showers = made_up_generated(range(6))
    rows = rows_like(tiny_plates(), showers, repeat=2)
    assert rows.stacks is not None
    assert rows.stacks.difference(showers.rows(np.repeat(np.arange(6), 2)).stacks) is None
    np.testing.assert_array_equal(rows.energy, np.repeat(showers.energy, 2))
    with pytest.raises(InputError, match=r"made\.h5 does not fit tiny; expected showers of designs: cells or maps"):
        rows_like(tiny_surrogate(), showers, name="made.h5")


def test_stacks_are_those_of_a_simulation_with_this_seed() -> None:
    config = plates_config(seed=4)
    assert isinstance(config.detector, SamplingStack)
    drawn = draw_stacks(config.detector, 8, seed=4)
    for number in range(8):
        stack = config.draw_stack(number)
        np.testing.assert_array_equal(drawn.thickness[number, : len(stack.thickness)], stack.thickness)
        assert not drawn.thickness[number, len(stack.thickness) :].any()
        assert (drawn.absorber[number], drawn.active[number]) == (stack.absorber, stack.active)
    fixed = SamplingStack(absorber="Pb", active="Si", layers=5, absorber_thickness=0.3, active_thickness=0.05)
    assert draw_stacks(fixed, 3).alike
    assert not drawn.alike
