from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.tiny import tiny_surrogate
from helpers.tiny_maps import tiny_maps
from torch import Tensor

from calograd.detector.design import Design
from calograd.surrogate import Surrogate
from calograd.surrogate.cells.fused import FusedCells
from calograd.surrogate.cells.model import CellsModel
from calograd.surrogate.model import numbers_of
from calograd.system.random_numbers import RandomNumbers

DESIGN = Design(2.5, 6.0, n_xy=3, n_z=2)


def student(steps: tuple[int, int] = (2, 1), **sizes: Any) -> Surrogate:
    """Distilled, with weights that all matter."""
    surrogate, generator = tiny_surrogate(distilled_steps=steps, **sizes), torch.Generator().manual_seed(3)
    for name, weight in surrogate.model.named_parameters():
        if "_network" in name:
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.1)
    return surrogate


def made(one: Any, model: CellsModel, rows: int = 1) -> Tensor:
    like = model.condition_mean
    energy = torch.linspace(5, 50, rows).to(like)
    sizes = torch.linspace(2, 3, rows).to(like), torch.linspace(5, 8, rows).to(like)[:, None].expand(-1, 2)
    conditions = model.conditions(energy, *sizes, numbers_of(DESIGN.material, like=energy))
    random = RandomNumbers(1, range(9))
    result: Tensor = one.generate(conditions, energy, model.sampling_schedule(), random)
    return result


@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize(
    ("steps", "sizes"),
    [((2, 1), {}), ((1, 3), {}), ((4, 2), {"sums": True}), ((2, 1), {"sums": True, "local_units": 0}),
     ((1, 1), {"local_units": 2})],
)  # fmt: skip
def test_it_makes_the_showers_of_the_model(steps: tuple[int, int], sizes: dict[str, Any], rows: int) -> None:
    model = student(steps, **sizes).model.double()
    assert isinstance(model, CellsModel)
    wanted = made(model, model, rows)
    torch.testing.assert_close(made(FusedCells(model), model, rows), wanted, rtol=1e-9, atol=1e-12)
    assert float(wanted.std()) > 1e-3


def test_every_weight_of_the_networks_is_in_it() -> None:
    model = student(sums=True).model
    assert isinstance(model, CellsModel)
    before, changed = made(FusedCells(model), model), 0
    for name, weight in model.named_parameters():
        kept = weight.clone()
        weight.mul_(1.05).add_(0.02)
        after = made(FusedCells(model), model)
        torch.testing.assert_close(after, made(model, model), rtol=1e-3, atol=1e-4, msg=name)
        changed += int(not torch.equal(after, before))
        weight.copy_(kept)
    assert changed == len(list(model.parameters()))


@pytest.mark.parametrize("sums", [False, True])
def test_the_fused_form_names_every_weight(sums: bool) -> None:
    model = student(sums=sums).model
    assert isinstance(model, CellsModel)
    named, all_of_them = ({id(weight) for weight in each.parameters()} for each in (FusedCells(model), model))
    assert named == all_of_them


def test_samples_are_fused_where_nothing_is_derived() -> None:
    surrogate = student()

    def showers(energy: float | Tensor = 10.0) -> Tensor:
        return surrogate.sample(DESIGN, energy, 6, generator=torch.Generator().manual_seed(0))

    plain, energy = showers(), torch.tensor(10.0, requires_grad=True)
    derived = showers(energy)
    assert isinstance(surrogate.model.fused(), FusedCells)
    torch.testing.assert_close(plain, derived.detach(), rtol=1e-4, atol=1e-5)
    assert bool(torch.isfinite(torch.autograd.grad(derived.square().sum(), energy)[0]))
    assert not plain.is_inference()
    surrogate.model.pattern_network.out.bias.add_(0.3)
    changed = showers()
    assert not torch.equal(changed, plain)
    torch.testing.assert_close(changed, showers(energy).detach(), rtol=1e-4, atol=1e-5)
    surrogate.model.double()
    assert showers().dtype == torch.float64
    torch.testing.assert_close(showers(), showers(energy).detach())


def test_others_are_left_alone() -> None:
    for surrogate in (tiny_surrogate(), tiny_maps()):
        assert surrogate.model.fused() is surrogate.model
