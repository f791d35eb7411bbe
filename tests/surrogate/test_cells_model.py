from __future__ import annotations

import pytest
import torch

from calograd.detector.material import Material
from calograd.nn.location_scale import restore, standardise
from calograd.surrogate.cells.model import CellsArchitecture, CellsModel
from calograd.surrogate.model import numbers_of
from calograd.system.random_numbers import RandomNumbers

SMALL = {"shape_width": 16, "shape_blocks": 1, "pattern_width": 16, "pattern_blocks": 1, "embedding": 8,
         "location_scale_width": 8}  # fmt: skip


def random() -> RandomNumbers:
    return RandomNumbers(2, range(4))


def small_model(**changes: object) -> CellsModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CellsModel(CellsArchitecture(**(SMALL | {"sums": True} | changes)))


@pytest.mark.parametrize(("n_xy", "groups"), [(1, 1), (2, 1), (3, 1), (4, 2), (5, 1)])
def test_a_step_towards_the_sums_keeps_what_is_empty_and_nearly_adds_up(n_xy: int, groups: int) -> None:
    model, n, n_z = small_model(n_xy=n_xy, n_z=3), 50, 3
    generator = torch.Generator().manual_seed(1)
    sizes = [4, n_xy**2 - 4] if n_xy == 4 else [n_xy**2 - (n_xy > 2 and n_xy % 2)]
    assert model.group_sizes == sizes
    parts = []
    for size in sizes:
        shares = torch.rand(n, size, n_z, generator=generator) ** 3 + 1e-3
        shares[:, : int(size > 1)] = 0
        shares = shares / shares.sum(1, keepdim=True) * (1 + 0.1 * torch.randn(n, 1, n_z, generator=generator))
        parts.append(torch.where(shares > 0, shares.pow(1 / 3), -0.2))
    c = torch.cat(parts, 1).flatten(1)
    location, scale = torch.full_like(c, 0.3), torch.full_like(c, 0.2)
    y = standardise(c, location, scale)
    gains = torch.cat([torch.zeros(n, groups * n_z), torch.ones(n, groups * n_z)], 1)
    moved = restore(y + model.towards_sums(y, location, scale, gains, 1.0), location, scale)

    def missing(c: torch.Tensor) -> torch.Tensor:
        cubes = c.reshape(n, -1, n_z).clamp(min=0).pow(3).split(sizes, 1)
        return torch.stack([1 - part.sum(1) for part in cubes]).abs()

    assert float(missing(moved).mean()) < 0.25 * float(missing(c).mean())
    if c.shape[1] > n_z:
        torch.testing.assert_close(moved[:, :n_z], c[:, :n_z])
    still = restore(y + model.towards_sums(y, location, scale, 0 * gains, 1.0), location, scale)
    torch.testing.assert_close(still, c)


@pytest.mark.parametrize("preconditioning", ["edm", "noise"])
def test_a_model_that_sees_the_sums_is_at_first_one_that_does_not(preconditioning: str) -> None:
    model = small_model(preconditioning=preconditioning).requires_grad_(False)
    blind = small_model(preconditioning=preconditioning, sums=False).requires_grad_(False)
    blind.load_state_dict({k: v for k, v in model.state_dict().items() if "gains" not in k})
    dx = torch.tensor([2.5], requires_grad=True)
    energy = torch.tensor([20.0])
    conditions = model.conditions(energy, dx, torch.full((1, 5), 6.0), numbers_of(Material.parse("PbF2"), like=dx))
    one, other = (
        each.generate(conditions, energy, each.sampling_schedule("trigflow-ab2", 3), random())
        for each in (model, blind)
    )
    torch.testing.assert_close(one, other)
    torch.nn.init.normal_(model.pattern_network.gains.weight, std=0.1)
    changed = model.generate(conditions, energy, model.sampling_schedule("trigflow-ab2", 3), random())
    assert not torch.allclose(changed, one)
    changed.square().sum().backward()
    assert dx.grad is not None
    assert torch.isfinite(dx.grad).all()


def test_the_ends_of_layers_are_conditions() -> None:
    plain, model = small_model(n_z=3, n_xy=3), small_model(n_z=3, n_xy=3, ends=True)
    dz = torch.tensor([[4.0, 5.0, 6.0]])
    numbers = numbers_of(Material.parse("PbF2"), like=dz)
    arguments = (torch.tensor([20.0]), torch.tensor([2.0]), dz, numbers)
    without, with_ends = plain.conditions(*arguments), model.conditions(*arguments)
    assert model.n_conditions == with_ends.shape[1] == without.shape[1] + 2
    x0 = numbers[0, 1]
    torch.testing.assert_close(with_ends[0, 5:7], (torch.tensor([9.0, 15.0]) / x0).log())
    torch.testing.assert_close(torch.cat([with_ends[:, :5], with_ends[:, 7:]], dim=1), without)
