from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.cards import design_card
from helpers.tiny_maps import tiny_maps
from torch import Tensor

from calograd.detector.design import Design
from calograd.detector.material import MATERIALS
from calograd.diffusion.samplers import SAMPLERS
from calograd.errors import InputError, RangeError
from calograd.events.dense import Maps
from calograd.surrogate import Surrogate
from calograd.surrogate.generation import generate
from calograd.surrogate.maps.model import MapsArchitecture
from calograd.system.random_numbers import RandomNumbers

PROTOCOLS = [{}, {"coordinates": "plain", "schedule": "linear", "preconditioning": "noise"}]


def draw(surrogate: Surrogate, dx: Any = 2.5, dz: Any = 6.0, energy: Any = 10.0, n: int = 3, **options: Any) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return surrogate.sample(Design(dx=dx, dz=dz), energy, n, generator=generator, **({"steps": 4} | options))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_gives_maps_in_gev(protocol: dict[str, Any], sampler: str) -> None:
    maps = draw(tiny_maps(**protocol), sampler=sampler)
    assert maps.shape == (3, 8, 8)
    assert bool(torch.isfinite(maps).all())
    assert float(maps.min()) >= 0


def test_shares_keep_the_energy_below_the_incident_one() -> None:
    maps = draw(tiny_maps(), energy=torch.tensor([1.0, 10.0, 100.0]))
    fraction = maps.sum((1, 2)) / torch.tensor([1.0, 10.0, 100.0])
    assert bool(((fraction > 0) & (fraction < 1)).all())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_gradients_of_the_design_agree_with_differences(protocol: dict[str, Any]) -> None:
    surrogate = tiny_maps(**protocol)
    surrogate.model.double()
    weight = torch.linspace(-1, 1, 64, dtype=torch.float64).reshape(8, 8)

    def total(dx: Tensor, dz: Tensor) -> Tensor:
        return (draw(surrogate, dx, dz, n=2, sampler="ddim") * weight).sum()

    dx, dz = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (2.5, 6.0))
    gradient = torch.autograd.grad(total(dx, dz), (dx, dz))
    for number, step in enumerate(((1e-5, 0.0), (0.0, 1e-5))):
        with torch.no_grad():
            up, down = (total(dx + sign * step[0], dz + sign * step[1]) for sign in (1, -1))
        assert float(gradient[number]) == pytest.approx(float((up - down) / 2e-5), rel=1e-4, abs=1e-9)
        assert float(gradient[number]) != 0


def test_gradients_of_a_materials_numbers() -> None:
    lead_fluoride = MATERIALS["PbF2"]
    x0 = torch.tensor(float(lead_fluoride.radiation_length), requires_grad=True)
    material = lead_fluoride.with_numbers(radiation_length=x0)
    generator = torch.Generator().manual_seed(1)
    maps = tiny_maps().sample(Design(2.5, 6.0, material), 10.0, 3, generator=generator, steps=2)
    (gradient,) = torch.autograd.grad(maps[:, :3].sum(), x0)
    assert float(gradient) != 0


def test_checkpoints_give_the_same_gradient() -> None:
    surrogate = tiny_maps()
    gradients = []
    for checkpointed in (False, True):
        dx = torch.tensor(2.5, requires_grad=True)
        draw(surrogate, dx, checkpointed=checkpointed)[:, :3].sum().backward()
        gradients.append(float(dx.grad))
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-5)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_stored_generates_the_same(protocol: dict[str, Any], tmp_path: Path) -> None:
    surrogate = tiny_maps(**protocol)
    surrogate.save(tmp_path / "stored")
    again = Surrogate.load(tmp_path / "stored")
    assert again.card == surrogate.card
    assert torch.equal(draw(again), draw(surrogate))


def test_only_the_depth_of_the_window_counts() -> None:
    surrogate = tiny_maps()
    surrogate.card = design_card("tiny-maps", surrogate.design_model.architecture, "maps", unequal_layers=True)
    torch.testing.assert_close(draw(surrogate, dz=(4.0, 5.0, 6.0, 7.0, 8.0)), draw(surrogate, dz=6.0))


def test_guidance_needs_dropped_conditions() -> None:
    with pytest.raises(InputError, match=r"has no guidance samples; leave out guidance = 1\.0"):
        draw(tiny_maps(), guidance=1.0)
    surrogate = tiny_maps(dropped=0.1)
    plain, guided = draw(surrogate), draw(surrogate, guidance=1.5)
    assert not torch.allclose(plain, guided)
    torch.testing.assert_close(draw(surrogate, guidance=0.0), plain)


def test_conditions_are_dropped_in_training_alone() -> None:
    model = tiny_maps(coordinates="plain", dropped=0.5).model
    y, conditions = torch.zeros(64, 64), torch.zeros(64, 7)
    model.pattern_network.null.requires_grad_(True)

    def loss() -> Tensor:
        x = torch.zeros(64, 0)
        return model.losses(x, y, conditions, RandomNumbers(0, range(64)))[1].mean()

    loss().backward()
    assert float(model.pattern_network.null.grad.abs().max()) > 0
    with torch.no_grad():
        model.pattern_network.null.add_(1)
        first = loss()
        model.pattern_network.null.add_(1)
        assert torch.equal(loss(), first)


def test_rows_of_many_designs_become_a_maps_record() -> None:
    dx, dz, energy = np.array([1.0, 5.0, 2.5]), np.array([5.0, 15.0, 6.0]), np.array([1.0, 100.0, 10.0])
    maps = generate(tiny_maps(), energy, dx, np.repeat(dz[:, None], 5, 1), seed=3, steps=2)
    assert isinstance(maps, Maps)
    assert maps.maps.shape == (3, 8, 8)
    assert (maps.n_xy, maps.origin) == (5, "tiny-maps")
    np.testing.assert_allclose(maps.width, 5 * dx)


def test_what_it_was_not_trained_on_is_refused() -> None:
    with pytest.raises(RangeError, match="energy = 200 GeV is outside"):
        draw(tiny_maps(), energy=200.0)
    with pytest.raises(InputError, match="the design has 3 x 3 x 5 cells"):
        tiny_maps().sample(Design(2.5, 6.0, n_xy=3), 10.0, 1)


@pytest.mark.parametrize("sizes", [{"slabs": 3}, {"multipliers": (1, 2, 4, 4, 4)}, {"multipliers": ()}])
def test_pixels_that_cannot_be_divided(sizes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="8 pixels: expected"):
        MapsArchitecture(**({"pixels": 8, "slabs": 4} | sizes))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_without_symmetry_the_function_is_the_same(protocol: dict[str, Any]) -> None:
    surrogate = tiny_maps(**protocol)
    free = Surrogate(surrogate.model.asymmetric(), surrogate.card)
    torch.testing.assert_close(draw(free), draw(surrogate))
    assert free.model.architecture.symmetric == ("coordinates" in protocol)
    assert free.model.asymmetric() is free.model
