from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from calograd.errors import InputError
from calograd.events.layered_readout import Readout, read_out
from calograd.events.point_showers import PointShowers
from calograd.events.points import Kernel, Points

Make = Callable[..., PointShowers]


def tensors(clouds: PointShowers) -> Points:
    x, y, layer, e, offsets, energy = (
        torch.from_numpy(getattr(clouds, name)) for name in ("x", "y", "layer", "e", "offsets", "energy")
    )
    return Points(x.double(), y.double(), layer, e.double(), offsets, energy.double(), clouds.layers)


def few(n: int = 2) -> Points:
    generator = torch.Generator().manual_seed(0)
    x, y = (0.8 * torch.randn(8, generator=generator).double() for _ in range(2))
    layer = torch.tensor([0, 1, 1, 2, 0, 0, 1, 2])
    e = torch.rand(8, generator=generator).double()
    return Points(x, y, layer, e, torch.tensor([0, 5, 8]), torch.full((n,), 10.0).double(), 3)


@pytest.mark.parametrize("offset", [(0.0, 0.0), (0.2, -0.13)])
def test_cells_are_those_of_the_readout(make_clouds: Make, offset: tuple[float, float]) -> None:
    clouds = make_clouds(4)
    ours = tensors(clouds).to_cells(offset=offset).numpy()
    theirs = read_out(clouds, Readout(offset=offset), 0).grid()
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("kernel", ["none", "linear", "gaussian"])
def test_energy_is_conserved(kernel: Kernel) -> None:
    points = few()
    cells = points.to_cells(n_xy=40, kernel=kernel)
    torch.testing.assert_close(cells.sum((1, 2)), points.layer_energies())


@pytest.mark.parametrize("kernel", ["linear", "gaussian"])
def test_a_narrow_kernel_is_none(kernel: Kernel) -> None:
    torch.testing.assert_close(few().to_cells(kernel=kernel, width=1e-9), few().to_cells())


@pytest.mark.parametrize("kernel", ["linear", "gaussian"])
def test_gradients_by_positions_energies_and_pitch_are_those_of_finite_differences(kernel: Kernel) -> None:
    p = few()
    pitch = torch.tensor(0.5).double().requires_grad_(True)
    x, y, e = (v.clone().requires_grad_(True) for v in (p.x, p.y, p.e))

    def cells(x: torch.Tensor, y: torch.Tensor, e: torch.Tensor, pitch: torch.Tensor) -> torch.Tensor:
        points = Points(x, y, p.layer, e, p.offsets, p.energy, 3)
        return points.to_cells(pitch, n_xy=12, kernel=kernel, width=0.3)

    assert torch.autograd.gradcheck(cells, (x, y, e, pitch), eps=1e-7)


def test_bad_cells_are_refused() -> None:
    with pytest.raises(InputError, match="positive"):
        few().to_cells(-1.0)
    with pytest.raises(InputError, match="kernel"):
        few().to_cells(kernel="linear", width=1.0)
    with pytest.raises(InputError, match="unknown kernel"):
        few().to_cells(kernel="cubic")


def test_points_become_a_file(make_clouds: Make) -> None:
    clouds = make_clouds(4)
    back = tensors(clouds).numpy("me", {"seed": 1})
    np.testing.assert_allclose(back.x, clouds.x)
    np.testing.assert_array_equal(back.offsets, clouds.offsets)
    assert (back.origin, back.config) == ("me", {"seed": 1})
