from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from calograd.surrogate.cells.coordinates import (
    E_0,
    EPS,
    LINE,
    LINE_ROOM,
    LOGIT_BOUND,
    _solve,
    core_cells,
    decode,
    encode,
    layer_energies,
    pattern_cells,
    pattern_dim,
    shape_dim,
    symmetry_permutations,
)
from calograd.surrogate.two_stage import symmetry_classes
from calograd.system.random_numbers import RandomNumbers

DOUBLE = torch.float64


@st.composite
def showers(draw: st.DrawFn) -> tuple[Tensor, Tensor, int]:
    """Cells (n, n_xy, n_xy, n_z) and incident energies: with empty cells and layers, and up to all energy leaked."""
    n_xy, n_z = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    n = 4
    parts = rng.gamma(draw(st.sampled_from([0.1, 0.5, 5.0])), size=(n, n_xy, n_xy, n_z)) + 1e-6
    parts[rng.random(parts.shape) < draw(st.sampled_from([0.0, 0.3, 0.9]))] = 0
    parts *= rng.random((n, 1, 1, n_z)) >= draw(st.sampled_from([0.0, 0.5]))
    parts[parts.sum((1, 2, 3)) == 0, 0, 0, 0] = 1
    energy = np.exp(rng.uniform(0, np.log(100), n))
    fraction = draw(st.sampled_from([1e-3, 0.3, 0.98, 0.99999]))
    cells = parts / parts.sum((1, 2, 3), keepdims=True) * (fraction * energy)[:, None, None, None]
    return torch.from_numpy(cells.astype(np.float32)), torch.from_numpy(energy.astype(np.float32)), seed


@given(showers())
@settings(max_examples=30, deadline=None, derandomize=True)
def test_decoding_undoes_encoding(case: tuple[Tensor, Tensor, int]) -> None:
    cells, energy, seed = case
    n_xy, n_z = cells.shape[2:]
    g, c = encode(cells, energy, RandomNumbers(seed, range(len(cells))))
    assert g.shape == (4, shape_dim(n_xy, n_z))
    assert c.shape == (4, pattern_dim(n_xy, n_z))
    assert torch.isfinite(g).all()
    assert torch.isfinite(c).all()
    back = decode(g, c, energy, n_xy, n_z)
    assert ((back == 0) == (cells == 0)).all()
    # A layer is known to float32's rounding of ln((E_k + eps) / E), a part in 1e6 of it and of eps.
    torch.testing.assert_close(back.sum((1, 2)), cells.sum((1, 2)), rtol=1e-5, atol=5e-6 * EPS)
    torch.testing.assert_close(back.sum((1, 2, 3)), cells.sum((1, 2, 3)), rtol=2e-6, atol=0)
    # The factor that sets the width moves energy between core and rest by the rounding of the width.
    known = 2e-5 * (cells.abs() + cells.sum((1, 2, 3))[:, None, None, None] / 10 + EPS)
    assert ((back - cells).abs() <= known).all()
    second = [second_moment(each) for each in (back, cells)]
    torch.testing.assert_close(*second, rtol=1e-5, atol=1e-5 * EPS)


def second_moment(cells: Tensor) -> Tensor:
    place = torch.arange(cells.shape[1]) - (cells.shape[1] - 1) / 2
    return torch.einsum("nijk,ij->n", cells, place[:, None] ** 2 + place**2)


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100), st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_energy_is_conserved_whatever_is_decoded(seed: int, wild: float, n_xy: int, n_z: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    g = wild * torch.randn(6, shape_dim(n_xy, n_z), generator=generator) - torch.arange(6)[:, None]
    c = wild * torch.randn(6, pattern_dim(n_xy, n_z), generator=generator) - torch.arange(6)[:, None] / 2
    energy = torch.rand(6, generator=generator) * 99 + 1
    cells = decode(g, c, energy, n_xy, n_z)
    total = torch.sigmoid(g[:, 0].clamp(-LOGIT_BOUND, LOGIT_BOUND)) * energy
    assert (cells >= 0).all()
    torch.testing.assert_close(cells.sum((1, 2, 3)), total, rtol=1e-5, atol=0)
    torch.testing.assert_close(cells.sum((1, 2)), layer_energies(g, energy, n_z), rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("small", [0.0, 1e-20, 1e-9, 1e-5, 3e-3])
def test_faint_patterns_keep_their_layer_s_energy(small: float) -> None:
    g = torch.tensor([[3.0, -1.0, -2.0, -0.7, 0.5, -0.5]])
    c = torch.full((1, 16), small)
    cells = decode(g, c, torch.tensor([10.0]), 3, 2)
    torch.testing.assert_close(cells.sum((1, 2, 3)), torch.sigmoid(g[:, 0]) * 10)


def test_a_shower_without_layers_or_cells_goes_to_the_largest() -> None:
    g = torch.tensor([[2.0, -30.0, -25.0, -40.0]])
    c = -torch.ones(1, 12)
    c[0, 4] = -0.5  # cell (0, 1), layer 1
    cells = decode(g, c, torch.tensor([10.0]), 2, 3)
    assert cells[0, 0, 1, 1] == torch.sigmoid(torch.tensor(2.0)) * 10
    assert (cells > 0).sum() == 1


def nasty_coordinates() -> dict[str, tuple[Tensor, Tensor]]:
    """Coordinates of a 4 x 4 x 3 shower of 10 GeV that are hard to differentiate through."""
    generator = torch.Generator().manual_seed(5)
    pattern = torch.rand(1, pattern_dim(4, 3), generator=generator, dtype=DOUBLE)

    def shape(*numbers: float, width: float = 0.4, balance: tuple[float, ...] = (1.0, 0.1, -0.5)) -> Tensor:
        return torch.tensor([[*numbers, width, *balance]], dtype=DOUBLE)

    ordinary = shape(3.0, -1.0, -2.0, -4.0)
    return {
        "ordinary": (ordinary, pattern),
        "nearly all leaked": (shape(-13.0, -8.0, -9.0, -10.0), pattern),
        "nothing leaked": (shape(13.0, -1.0, -2.0, -4.0), pattern),
        "an empty layer": (shape(3.0, -1.0, -2.0, -12.5), pattern),
        "all layers empty": (shape(3.0, -13.0, -12.0, -12.5), pattern),
        "an empty core": (shape(3.0, -1.0, -2.0, -4.0, balance=(1.0, -10.5, -14.0)), pattern),
        "no rest": (shape(3.0, -1.0, -2.0, -4.0, balance=(12.0, 10.5, 14.0)), pattern),
        "no width": (shape(3.0, -1.0, -2.0, -4.0, width=-13.0), pattern),
        "wider than can be": (shape(3.0, -1.0, -2.0, -4.0, width=2.9), pattern),
        "empty cells": (ordinary, pattern - 0.5),
        "all cells empty": (ordinary, pattern - 2),
        "faint cells": (ordinary, 1e-3 * pattern),
        "one cell": (ordinary, pattern - pattern.max() + 0.1),
    }


@pytest.mark.parametrize("name", nasty_coordinates())
def test_decoding_is_differentiable(name: str) -> None:
    g, c = (value.clone().requires_grad_() for value in nasty_coordinates()[name])
    energy = torch.tensor([10.0], dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *v: decode(*v, 4, 3), (g, c, energy), eps=1e-7, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", nasty_coordinates())
@pytest.mark.parametrize("factor", [0.0, 1.0, 1e-7, 1e-30, 1e30])
def test_gradients_stay_finite_in_float32(name: str, factor: float) -> None:
    g, c = (value.float() for value in nasty_coordinates()[name])
    g, c, energy = g.requires_grad_(), (c * factor).requires_grad_(), torch.tensor([10.0], requires_grad=True)
    if factor == 1e30:
        c = c.clamp(-1e5, 1e5).detach().requires_grad_()  # the largest that moments can restore
    decode(g, c, energy, 4, 3).square().sum().backward()
    for value in (g, c, energy):
        assert torch.isfinite(value.grad).all()


SQUARE = [lambda a, k=k, flip=flip: (a.flip(0) if flip else a).rot90(k) for k in range(4) for flip in (False, True)]


@given(showers())
@settings(max_examples=10, deadline=None, derandomize=True)
def test_symmetries_commute_with_encoding(case: tuple[Tensor, Tensor, int]) -> None:
    cells, energy, seed = case
    n_xy, n_z = cells.shape[2:]
    chosen = pattern_cells(n_xy)
    g, c = encode(cells, energy, RandomNumbers(seed, range(len(cells))))
    permuted = [c[:, p] for p in symmetry_permutations(n_xy, n_z)]
    matched = set()
    for turn in SQUARE:
        turned = torch.stack([turn(shower) for shower in cells])
        g_turned, c_turned = encode(turned, energy, RandomNumbers(seed, range(len(cells))))
        torch.testing.assert_close(g_turned[:, 1:], g[:, 1:], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(g_turned[:, 0].sigmoid(), g[:, 0].sigmoid(), rtol=1e-6, atol=1e-6)
        filled = (turned.reshape(4, n_xy * n_xy, n_z)[:, chosen] > 0).reshape(4, -1)
        same = [i for i, p in enumerate(permuted) if torch.allclose(p[filled], c_turned[filled], rtol=1e-5, atol=1e-6)]
        assert same
        matched.update(same)
        assert (c_turned[~filled] <= 0).all()
    assert len(matched) == 8


def test_symmetries_are_the_eight_of_the_square_layer_by_layer() -> None:
    layer = torch.arange(25).reshape(5, 5)
    chosen = pattern_cells(5)
    numbers = (layer.flatten()[chosen, None] * 10 + torch.arange(2)).flatten()
    expected = {
        tuple((turn(layer).flatten()[chosen, None] * 10 + torch.arange(2)).flatten().tolist()) for turn in SQUARE
    }
    assert len(expected) == 8
    assert {tuple(numbers[p].tolist()) for p in symmetry_permutations(5, 2)} == expected


@pytest.mark.parametrize(
    ("n_xy", "core", "distinct"), [(1, 0, 1), (2, 0, 1), (3, 1, 2), (4, 4, 3), (5, 1, 5), (6, 4, 6)]
)
def test_ties_are_the_orbits_of_the_symmetries(n_xy: int, core: int, distinct: int) -> None:
    assert int(core_cells(n_xy).sum()) == core
    classes, permutations = symmetry_classes(symmetry_permutations(n_xy, 2)), symmetry_permutations(n_xy, 2)
    assert len(classes) == pattern_dim(n_xy, 2)
    assert sorted(classes.unique().tolist()) == list(range(2 * distinct))
    for permutation in permutations:
        assert torch.equal(classes[permutation], classes)
    for cell in range(len(classes)):  # and no two orbits share a class
        orbit = set(permutations[:, cell].tolist())
        assert orbit == set(torch.nonzero(classes == classes[cell]).flatten().tolist())


def test_what_is_empty_is_a_cluster_below_zero_as_wide_as_it_is_far() -> None:
    n = 20_000
    cells = torch.zeros(n, 3, 3, 3)
    cells[:, 0, 0, 0] = 5.0
    cells[:, 1, 1, 1] = 4.0
    g, c = encode(cells, torch.full((n,), 10.0), RandomNumbers(0, range(n)))
    empty = torch.log(torch.tensor(EPS / 10.0)) - g[:, 3]
    no_core = torch.log(torch.tensor(EPS / 5.0)) - g[:, 5]
    no_rest = g[:, 6] - torch.log(torch.tensor(4.0 / EPS))
    neither = g[:, 7] + 1
    beside, nothing, _ = -c.reshape(n, 8, 3)[:, 3].T
    clusters = [(1.0, v) for v in (empty, no_core, no_rest, neither)]
    for distance, v in (*clusters, ((E_0 / 5.0) ** (1 / 3), beside), (0.3, nothing)):
        assert float(v.min()) == pytest.approx(0.1 * distance, rel=1e-3)
        assert float(v.mean()) == pytest.approx(distance, rel=0.01)
        assert float(v.std()) == pytest.approx(0.3 * distance, rel=0.02)


def test_absorbed_annihilation_photons_are_no_line_in_the_coordinates() -> None:
    n = 4000
    cells = torch.zeros(n, 3, 3, 1)
    cells[:, 0, 0], cells[:, 1, 1], cells[:, 2, 2] = 0.2, 0.3, LINE
    cells[:, 0, 1, 0] = torch.linspace(0.2e-3, 0.9e-3, n)
    energy = torch.ones(n)
    g, c = encode(cells, energy, RandomNumbers(0, range(n)))
    beside = c.reshape(n, 8)
    rest = cells.sum((1, 2, 3)) - 0.3
    line, continuum = (beside[:, k].pow(3) * rest for k in (7, 1))  # h
    # The line lies evenly over its room; the continuum below it stays, that above makes way.
    position = (line - LINE) / LINE_ROOM
    assert float(position.min()) + 1e-3 >= 0
    assert float(position.max()) <= 1 + 1e-3
    assert float(position.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(position.std()) == pytest.approx(12**-0.5, rel=0.03)
    e = cells[:, 0, 1, 0]
    torch.testing.assert_close(continuum, e + LINE_ROOM * (e > LINE), rtol=1e-5, atol=1e-8)
    assert int(((continuum > LINE + 1e-7) & (continuum < LINE + LINE_ROOM - 1e-7)).sum()) == 0
    # Whatever lies in the room is the line again.
    torch.testing.assert_close(decode(g, c, energy, 3, 1)[:, 2, 2, 0], cells[:, 2, 2, 0], rtol=1e-4, atol=0)


def test_equations_are_solved_in_onnx_as_precisely_as_in_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive definite equations with a last row hundreds of times larger, as that of r^2 is in windows of 7 cells."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(2000, 5, 5, generator=generator, dtype=torch.float64) + 2 * torch.eye(5, dtype=torch.float64)
    units = torch.tensor([1.0, 0.03, 1.0, 0.03, 300.0], dtype=torch.float64)
    matrix, right = (
        units[:, None] * (root @ root.mT) * units,
        torch.randn(2000, 5, generator=generator).double() * units,
    )
    exact = torch.linalg.solve(matrix, right)
    errors = []
    for compiled in (False, True):
        monkeypatch.setattr("torch.compiler.is_compiling", lambda compiled=compiled: compiled)
        found = _solve(matrix.float(), right.float())
        errors.append(((found - exact) * units).norm(dim=1) / (exact * units).norm(dim=1))
    assert errors[1].median() < 1e-5
    assert errors[1].quantile(0.99) < 3 * errors[0].quantile(0.99)
