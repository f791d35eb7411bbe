from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from helpers.tiny import tiny_surrogate
from torch import Tensor

from calograd.detector.design import Design
from calograd.detector.material import Material
from calograd.diffusion.samplers import SAMPLERS
from calograd.errors import InputError, RangeError
from calograd.surrogate import Surrogate
from calograd.surrogate.model import BATCH

DOUBLE = torch.float64


@pytest.fixture(scope="module")
def surrogate() -> Surrogate:
    return tiny_surrogate()


@pytest.fixture(scope="module")
def precise() -> Surrogate:
    surrogate = tiny_surrogate()
    surrogate.model.double()
    return surrogate


def design(dx: float | Tensor = 2.5, dz: float | Tensor | tuple[float, ...] = 6.0, **other: Any) -> Design:
    return Design(dx, dz, n_xy=3, n_z=2, **other)


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_showers_have_shape_and_positive_energies_within_the_incident_one(surrogate: Surrogate, sampler: str) -> None:
    cells = surrogate.sample(design(), 10.0, 7, generator=seeded(), sampler=sampler, steps=4)
    assert cells.shape == (7, 3, 3, 2)
    assert cells.dtype == torch.float32
    assert (cells >= 0).all()
    total = cells.sum((1, 2, 3))
    assert ((total > 0) & (total < 10)).all()
    assert len(total.unique()) == 7


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_equal_generators_give_equal_showers(surrogate: Surrogate, sampler: str) -> None:
    first, again, other = (
        surrogate.sample(design(), 10.0, 5, generator=seeded(seed), sampler=sampler, steps=3) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_common_random_numbers_make_showers_smooth_in_the_design(precise: Surrogate) -> None:
    """Halving a step in dx halves the change, to the curvature: no new random numbers come in."""

    def at(dx: float) -> Tensor:
        return precise.sample(design(torch.tensor(dx, dtype=DOUBLE)), 10.0, 20, generator=seeded(), steps=4)

    base, half, whole = at(2.5), at(2.5 + 1e-5), at(2.5 + 2e-5)
    change = half - base
    assert 0 < float(change.abs().max()) < 1e-2
    torch.testing.assert_close(whole - base, 2 * change, rtol=0, atol=0.02 * float(change.abs().max()))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_gradients_equal_finite_differences(precise: Surrogate, sampler: str) -> None:
    weights = torch.rand(6, 3, 3, 2, generator=seeded(), dtype=DOUBLE)

    def weighted(dx: Tensor, dz: Tensor, energy: Tensor) -> Tensor:
        cells = precise.sample(design(dx, dz), energy, 6, generator=seeded(), sampler=sampler, steps=3)
        return (cells * weights).sum()

    at = [torch.tensor(v, dtype=DOUBLE, requires_grad=True) for v in (2.5, 6.0, 20.0)]
    assert torch.autograd.gradcheck(weighted, at, eps=1e-6, atol=1e-6, rtol=1e-5)
    assert all(abs(float(g)) > 1e-6 for g in torch.autograd.grad(weighted(*at), at))


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "ddpm"])
def test_checkpoints_change_neither_showers_nor_gradients(surrogate: Surrogate, sampler: str) -> None:
    def sampled(checkpointed: bool) -> tuple[Tensor, Tensor]:
        dx = torch.tensor(2.5, requires_grad=True)
        cells = surrogate.sample(
            design(dx), 20.0, 30, generator=seeded(), sampler=sampler, steps=4, checkpointed=checkpointed
        )
        return cells.detach(), torch.autograd.grad(cells.square().sum(), dx)[0]

    (cells, gradient), (same_cells, same_gradient) = sampled(False), sampled(True)
    assert torch.equal(cells, same_cells)
    torch.testing.assert_close(gradient, same_gradient, rtol=1e-5, atol=0)


def test_checkpoints_keep_the_graph_small(surrogate: Surrogate) -> None:
    def kept(steps: int, checkpointed: bool) -> int:
        numbers = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal numbers
            numbers += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
            dx = torch.tensor(2.5, requires_grad=True)
            surrogate.sample(design(dx), 20.0, 100, generator=seeded(), steps=steps, checkpointed=checkpointed)
        return numbers

    numbers_of_a_sample = 15 * 2 * 100 * (2 * 5 + 16)  # 15 more steps: x and its slope, the shape twice as often
    assert kept(20, True) - kept(5, True) <= numbers_of_a_sample
    assert kept(20, False) - kept(5, False) > 8 * numbers_of_a_sample


def test_gradients_reach_every_layer_and_every_energy(precise: Surrogate) -> None:
    dz = torch.tensor([6.0, 6.0], dtype=DOUBLE, requires_grad=True)
    energy = torch.tensor([5.0, 20.0, 60.0], dtype=DOUBLE, requires_grad=True)

    def totals(depths: Tensor, energies: Tensor) -> Tensor:
        return precise.sample(design(2.5, depths), energies, 3, generator=seeded(), steps=3, extrapolate=True).sum(
            (1, 2, 3)
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # finite differences make layers of different depths
        assert torch.autograd.gradcheck(totals, (dz, energy), eps=1e-6, atol=1e-6, rtol=1e-5)
    (gradient,) = torch.autograd.grad(totals(dz, energy).sum(), dz)
    assert (gradient != 0).all()


def test_energies_of_their_own_equal_a_common_one(surrogate: Surrogate) -> None:
    n = BATCH + 3
    common = surrogate.sample(design(), 10.0, n, generator=seeded(), steps=1)
    each = surrogate.sample(design(), torch.full((n,), 10.0), n, generator=seeded(), steps=1)
    torch.testing.assert_close(each, common, rtol=1e-4, atol=1e-5)


def test_showers_follow_their_own_energies(surrogate: Surrogate) -> None:
    energies = torch.tensor([2.0, 20.0, 90.0])
    cells = surrogate.sample(design(), energies, 3, generator=seeded(), steps=2)
    alone = [surrogate.sample(design(), float(e), 3, generator=seeded(), steps=2)[i] for i, e in enumerate(energies)]
    torch.testing.assert_close(cells, torch.stack(alone), rtol=1e-4, atol=1e-5)


def test_one_depth_equals_equal_depths(surrogate: Surrogate) -> None:
    one, each = (surrogate.sample(design(2.5, dz), 10.0, 3, generator=seeded(), steps=2) for dz in (6.0, (6.0, 6.0)))
    assert torch.equal(one, each)


@pytest.mark.parametrize(
    ("asked", "energy", "complaint"),
    [
        (design(), 0.5, r"energy = 0\.5 GeV is outside 1 to 100 GeV"),
        (design(), torch.tensor([50.0, 150.0]), r"energy = 150 GeV is outside 1 to 100 GeV"),
        (design(0.9), 10.0, r"dx = 0\.9 cm is outside 1 to 5 cm"),
        (design(5.1), 10.0, r"dx = 5\.1 cm is outside 1 to 5 cm"),
        (design(2.5, 16.0), 10.0, r"dz = 16 cm is outside 4 to 15 cm"),
        (design(2.5, (6.0, 7.0)), 10.0, r"layers of different depths"),
        (design(material="BGO"), 10.0, r"material BGO \(7\.13 g/cm3\) was not trained on, PbF2 \(7\.77 g/cm3\) was"),
        (design(material="PbF2:7:PbF2"), 10.0, r"material PbF2 \(7 g/cm3\) was not trained on"),
        (design(0.9, 16.0), 0.5, r"energy.*dx.*dz"),
    ],
)
def test_what_was_not_trained_on_is_refused_or_warned_of(
    surrogate: Surrogate, asked: Design, energy: float | Tensor, complaint: str
) -> None:
    with pytest.raises(RangeError, match=complaint) as refusal:
        surrogate.sample(asked, energy, 2, steps=1)
    assert "extrapolate=True" in str(refusal.value)
    with pytest.warns(UserWarning, match=complaint):
        cells = surrogate.sample(asked, energy, 2, steps=1, extrapolate=True)
    assert torch.isfinite(cells).all()


def test_the_ends_of_the_range_and_the_same_material_by_another_name_are_allowed(surrogate: Surrogate) -> None:
    for dx, dz, energy in ((1.0, 4.0, 1.0), (5.0, 15.0, 100.0), (torch.tensor(5.0), torch.tensor(15.0), 100.0)):
        surrogate.sample(design(dx, dz, material="mine:7.77:PbF2"), energy, 1, steps=1)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"sampler": "euler"}, "unknown sampler 'euler'; expected one of ddpm, ddim"),
        ({"sampler": "ddpm", "checkpointed": True}, "'ddpm' adds noise on its way and cannot be checkpointed"),
        ({"n": 0}, "at least 1"),
        ({"steps": 0}, "at least 1"),
        ({"energy": torch.ones(3)}, r"energy has shape \(3,\), expected one number or \(2,\)"),
        ({"energy": float("nan")}, "not a positive number"),
        ({"energy": -5.0}, "not a positive number"),
        ({"design": Design(2.5, 6.0)}, "5 x 5 x 5 cells, tiny generates 3 x 3 x 2"),
    ],
)
def test_arguments_that_cannot_be_used(surrogate: Surrogate, arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        surrogate.sample(**{"design": design(), "energy": 10.0, "n": 2, "extrapolate": True} | arguments)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"dx": -1.0}, "dx = -1.0 cm, expected positive"),
        ({"dz": float("nan")}, "dz = nan cm, expected positive"),
        ({"dx": torch.ones(2, 2)}, r"dx has shape \(2, 2\), expected \(\)"),
        ({"dz": (1.0, 2.0, 3.0)}, r"dz has shape \(3,\), expected \(2,\)"),
        ({"material": "cheese"}, "unknown material 'cheese'"),
    ],
)
def test_designs_that_cannot_be(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        design(**arguments)


def test_design_needs_cells() -> None:
    with pytest.raises(InputError, match="n_xy = 0: expected at least 1"):
        Design(1.0, 1.0, n_xy=0)


def test_material_reaches_the_networks_as_numbers(precise: Surrogate) -> None:
    def shower(material: str | Material) -> Tensor:
        return precise.sample(design(material=material), 10.0, 2, generator=seeded(), steps=2, extrapolate=True)

    with pytest.warns(UserWarning, match="not trained on"):
        changed = shower("BGO")
    assert not torch.equal(changed, shower("PbF2"))


def test_designs_share_the_random_numbers_of_a_shower(precise: Surrogate) -> None:
    designs = [design(), design(dx=1.5, dz=9.0), design(dx=4.0)]
    together = precise.sample_designs(designs, 10.0, 3, generator=seeded(), steps=2)
    alone = [precise.sample(each, 10.0, 3, generator=seeded(), steps=2) for each in designs]
    torch.testing.assert_close(together, torch.stack(alone))
    chosen = precise.sample(designs[0], 10.0, 2, generator=seeded(), steps=2, shower=[2, 0])
    torch.testing.assert_close(chosen, alone[0][[2, 0]])


@pytest.mark.parametrize("shower", [[0], [0, -1], [0.0, 1.0], "no"])
def test_indices_of_showers_that_cannot_be(surrogate: Surrogate, shower: Any) -> None:
    with pytest.raises(InputError, match="expected the index of each of 2 showers, 0 or more"):
        surrogate.sample(design(), 10.0, 2, shower=shower)
