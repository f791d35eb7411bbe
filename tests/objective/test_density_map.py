from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calograd.errors import FormatError, InputError, OutputExistsError
from calograd.objective.background import (
    BackgroundMap,
    ExponentialBackground,
    read_background_map,
    write_background_map,
)


def double(values: float | list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def uniform(density: float = 2e-3, diffusion: float = 0.1) -> BackgroundMap:
    edges = torch.linspace(-20, 20, 41, dtype=torch.float64)
    return BackgroundMap(
        density=torch.full((40, 40, 15), density), x=edges, y=edges, z=torch.arange(-2.0, 44, 3), diffusion=diffusion
    )


def ramp() -> BackgroundMap:
    """Density a + 1 in voxel a along x, the same elsewhere; voxels of 1 cm."""
    edges = torch.arange(-4.0, 5)
    density = torch.arange(1.0, 9)[:, None, None].expand(8, 8, 4)
    return BackgroundMap(density=density, x=edges, y=edges, z=torch.arange(0.0, 5), diffusion=0.0)


@given(st.floats(0.3, 5.5), st.lists(st.floats(0.5, 10), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_a_constant_density_gives_volumes(dx, dz):
    mean = uniform().moments(double(dx), double(dz), 5).mean
    np.testing.assert_allclose(mean, (2e-3 * dx**2 * double(dz)).expand(5, 5, -1), rtol=1e-6)


def test_an_exponential_density_approaches_the_emulator():
    emulator = ExponentialBackground(b0=5e-3, lam=6.0)
    z = torch.linspace(0, 40, 401, dtype=torch.float64)
    layers = 5e-3 * 6 * (torch.exp(-z[:-1] / 6) - torch.exp(-z[1:] / 6)) / z.diff()
    x = double([-20.0, 0.0, 3.0, 20.0])
    sliced = BackgroundMap(density=layers.expand(3, 1, -1), x=x, y=double([-20.0, 20.0]), z=z)
    dx, dz = double(2.5).requires_grad_(), double([3.03, 7.11, 9.97]).requires_grad_()
    for exact, found in zip(emulator.moments(dx, dz, 5), sliced.moments(dx, dz, 5), strict=True):
        np.testing.assert_allclose(found.detach(), exact.detach(), rtol=2e-3)
        slopes = [torch.autograd.grad(m.sum(), (dx, dz), retain_graph=True) for m in (found, exact)]
        for one, other in zip(*slopes, strict=True):
            np.testing.assert_allclose(one, other, rtol=2e-2)
    numbers = emulator.draw(5, 5, 3, torch.Generator().manual_seed(0), torch.float64)
    np.testing.assert_allclose(
        sliced.energy(numbers, dx, dz).detach(), emulator.energy(numbers, dx, dz).detach(), rtol=2e-3
    )


def test_cells_that_cut_voxels_in_closed_form():
    mean = ramp().moments(double(1.5), double([2.0, 1.0]), 2).mean
    # cells x = -1.5 to 0 and 0 to 1.5: voxels 3 (half), 4 and 5, 6 (half)
    along_x = double([0.5 * 3 + 4, 5 + 0.5 * 6])
    expected = along_x[:, None, None] * 1.5 * double([2.0, 1.0])
    np.testing.assert_allclose(mean, expected.expand(2, 2, 2), rtol=1e-12)


def test_where_an_end_is_on_a_voxel_s_edge_the_slope_is_that_of_central_differences():
    background, dz, step = ramp(), double([2.0]), 1e-6
    dx = double(1.0).requires_grad_()
    last = background.moments(dx, dz, 5).mean[4, 2, 0]  # x = 1.5 to 2.5
    (slope,) = torch.autograd.grad(last, dx)
    dx = double(2.0).requires_grad_()
    last = background.moments(dx, dz, 2).mean[1, 0, 0]  # x = 0 to 2, voxels end there
    (kink,) = torch.autograd.grad(last, dx)
    up, down = (background.moments(double(2.0 + s), dz, 2).mean[1, 0, 0] for s in (step, -step))
    assert kink.item() == pytest.approx(((up - down) / (2 * step)).item(), rel=1e-6)
    up, down = (background.moments(double(1.0 + s), dz, 5).mean[4, 2, 0] for s in (step, -step))
    assert slope.item() == pytest.approx(((up - down) / (2 * step)).item(), rel=1e-6)


def test_the_ring_around_the_window_counts_as_empty_beyond_the_map():
    edges = double([-2.0, 2.0])
    background = BackgroundMap(density=torch.ones(1, 1, 1), x=edges, y=edges, z=double([0.0, 3.0]))
    mean = background.moments(double(2.0), double([3.0]), 2).mean
    # every cell has two neighbours outside, which send nothing
    np.testing.assert_allclose(mean, 12 * (1 - 0.1 * 2 / 4), rtol=1e-12)


def test_empty_cells_have_a_deviation_above_zero():
    empty = uniform(0.0)
    dx = double(2.0).requires_grad_()
    mean, std = empty.moments(dx, double([3.0]), 3)
    assert (mean == 0).all()
    assert (std > 0).all()
    (slope,) = torch.autograd.grad(std.sum(), dx)
    assert slope == 0


@pytest.mark.parametrize(
    ("dx", "dz", "complaint"),
    [
        (9.0, 4.0, "covers x = -20 to 20 cm, the design needs -22.5 to 22.5 cm"),
        (2.0, 15.0, "covers z = -2 to 43 cm, the design needs 0 to 45 cm"),
    ],
)
def test_a_window_beyond_the_map_is_refused_with_the_range(dx, dz, complaint):
    with pytest.raises(InputError, match=complaint):
        uniform().moments(double(dx), double([dz] * 3), 5)


def test_a_window_that_just_fits_in_float32_is_accepted():
    dz = torch.full((5,), 43 / 5)
    assert dz.double().sum() > 43
    assert torch.isfinite(uniform().moments(torch.tensor(8.0), dz, 5).mean).all()


def test_a_map_survives_its_file(tmp_path: Path):
    path = tmp_path / "map.h5"
    background = BackgroundMap(
        density=torch.rand(2, 3, 4), x=double([-5.0, 0, 5]), y=double([-6.0, -1, 2, 6]), z=double([0.0, 1, 2, 4, 30]),
        sigma_event=0.2, shape_cell=3.5, diffusion=0.05,
    )  # fmt: skip
    write_background_map(path, background)
    read = read_background_map(path)
    for name in ("density", "x", "y", "z"):
        assert torch.equal(getattr(read, name), getattr(background, name))
    assert (read.sigma_event, read.shape_cell, read.diffusion) == (0.2, 3.5, 0.05)
    with pytest.raises(OutputExistsError):
        write_background_map(path, background)
    assert [p.name for p in tmp_path.iterdir()] == ["map.h5"]


def spoil(path: Path, name: str, value: object) -> None:
    with h5py.File(path, "r+") as file:
        place = file.attrs if name in ("schema", "sigma_event", "diffusion") else file
        del place[name]
        if value is not None:
            place[name] = value


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("schema", "calograd/cells/1", "is schema 'calograd/cells/1'"),
        ("schema", "calograd/background/2", "update calograd"),
        ("y", None, "lacks y"),
        ("sigma_event", None, "lacks attribute sigma_event"),
        ("sigma_event", -1.0, "sigma_event = -1.0"),
        ("diffusion", "much", "diffusion is of type"),
        ("diffusion", [0.1, 0.2], r"shape \(2,\)"),
        ("x", [0.0, -1.0, 5.0], "edges x are not"),
        ("x", [[0.0, 1.0]], "edges x are not"),
        ("z", [0.0, 1.0], r"density has shape \(2, 2, 2\), expected \(2, 2, 1\)"),
        ("density", np.full((2, 2, 2), -1.0), "density holds"),
        ("density", np.full((2, 2, 2), np.nan), "density holds"),
        ("density", "none", "density is of type"),
    ],
)
def test_bad_files_are_named_in_one_line(tmp_path: Path, name: str, value: object, complaint: str):
    path, edges = tmp_path / "map.h5", torch.tensor([-5.0, 0, 5])
    write_background_map(path, BackgroundMap(density=torch.ones(2, 2, 2), x=edges, y=edges, z=edges))
    spoil(path, name, value)
    with pytest.raises(FormatError, match=complaint) as refusal:
        read_background_map(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_cut_off_and_missing_files(tmp_path: Path):
    path, edges = tmp_path / "map.h5", torch.tensor([-5.0, 0, 5])
    with pytest.raises(FormatError, match="does not exist"):
        read_background_map(path)
    write_background_map(path, BackgroundMap(density=torch.ones(2, 2, 2), x=edges, y=edges, z=edges))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(FormatError, match="is cut off"):
        read_background_map(path)
