"""Incident particles, and the windows of designs that follow them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calograd import Design
from calograd.detector.incidence import COLUMNS, Incidence, place
from calograd.errors import InputError

angles = st.floats(0, 60)


def test_windows_follow_the_line() -> None:
    design = Design(dx=1.0, dz=(2.0, 4.0), n_xy=3, n_z=2)
    assert design.window_offsets().tolist() == [[[0, 0], [0, 0]]]
    at_45 = design.window_offsets(theta=45.0)  # the line is at x = 1 and x = 4 in the middles
    assert at_45.tolist() == [[[1, 0], [4, 0]]]
    assert design.window_offsets(position=(0.49, -0.51), theta=45.0, phi=90.0).tolist() == [[[0, 0], [0, 3]]]
    assert design.window_offsets(position=torch.zeros(4, 2), phi=torch.zeros(4)).shape == (4, 2, 2)
    batch = Design(dx=torch.tensor([1.0, 2.0]), dz=torch.full((2, 2), 4.0), n_xy=3, n_z=2)
    assert batch.window_offsets(theta=45.0)[:, :, 0].tolist() == [[2, 6], [1, 3]]


@given(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5), angles, st.floats(-180, 180), st.integers(-3, 3))
def test_a_whole_pitch_moves_the_window_alone(x: float, y: float, theta: float, phi: float, cells: int) -> None:
    design = Design(dx=1.3, dz=3.7, n_xy=7, n_z=5)
    line = Incidence.of(1, position=(x, y), theta=theta, phi=phi).at(np.full((1, 1), 16.65))
    if np.abs(line / 1.3 % 1 - 0.5).min() < 1e-3:  # on an edge, where rounding decides
        return
    there = design.window_offsets((x, y), theta, phi)[0, -1]
    moved = design.window_offsets((x + 1.3 * cells, y), theta, phi)[0, -1]
    assert (moved - there).tolist() == [cells, 0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"particle": "muon"}, "particle = 'muon': expected one of gamma, e-, e+"),
        ({"particle": [22, 13]}, "particle: expected one of gamma, e-, e"),
        (
            {"position": (1.0, 2.0, 3.0)},
            r"position has shape \(3,\), expected finite numbers of shape \(2,\) or \(2, 2\)",
        ),
        ({"position": (6.5, 900.0)}, "position = 900 cm: expected an entry near the axis; is it in mm"),
        ({"theta": 90.0}, "theta = 90: expected degrees from 0 to below 90"),
        ({"theta": [0.0, 1.0, 2.0]}, r"theta has shape \(3,\)"),
        ({"phi": np.nan}, r"phi has shape \(\), expected finite"),
        ({"phi": "east"}, r"phi = 'east': expected finite numbers of shape \(\) or \(2,\)"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Incidence.of(2, **values)


def test_particles_in_words_and_their_differences() -> None:
    photons, spread = Incidence.of(100), Incidence.of(100, position=np.linspace(-1, 1, 200).reshape(100, 2))
    electrons = Incidence.of(100, "e-", theta=np.full(100, 20.0), phi=np.linspace(0, 360, 100))
    assert photons.describe() == "gamma on the axis"
    assert electrons.describe() == "e- on the axis at theta = 20 degrees"
    assert photons.difference(Incidence.of(3, phi=30.0)) is None  # no azimuth at normal incidence
    assert photons.difference(spread) == f"gamma on the axis, not {spread.describe()}"
    assert spread.difference(spread[5:]) is None
    assert electrons.difference(photons) is not None
    assert electrons.difference(electrons[:1]) is not None
    assert photons.on_axis
    assert not spread.on_axis
    joined = Incidence.concatenate([photons, electrons])
    assert len(joined) == 200
    assert all(np.array_equal(getattr(joined[100:], name), getattr(electrons, name)) for name in COLUMNS)


def test_distributions_are_compared_as_such() -> None:
    """Twins of any size agree, whatever their extremes; another shape, direction or set of values does not."""
    rng = np.random.default_rng(0)

    def drawn(n: int, draw=lambda n: rng.uniform(0, 40, n), **values: object) -> Incidence:
        columns = {"particle": rng.choice([22, 11], n), "position": rng.uniform(-0.6, 0.6, (n, 2)),
                   "phi": rng.uniform(0, 360, n)}  # fmt: skip
        return Incidence.of(n, theta=draw(n), **columns | values)

    for n, m in ((30, 2000), (20, 25), (3000, 5000)):
        assert sum(drawn(n).difference(drawn(m)) is not None for _ in range(50)) == 0
    many = drawn(2000)
    for other, words in (
        (drawn(2000, lambda n: 40 * rng.beta(4, 4, n)), "another distribution of angles|not"),
        (drawn(2000, lambda n: rng.uniform(0, 30, n)), "theta"),
        (drawn(2000, phi=rng.uniform(0, 180, 2000)), "another distribution of azimuths|not"),
        (drawn(2000, position=rng.normal(0, 0.15, (2000, 2))), "entering"),
        (drawn(2000, particle="gamma"), "e- and gamma"),
        (many[:1], "theta"),
    ):
        difference = many.difference(other)
        assert difference is not None
        assert words.split("|")[0] in difference or "not" in difference
    shares = [Incidence.of(1000, theta=np.repeat([0.0, 25.0], [k, 1000 - k])) for k in (200, 500)]
    assert shares[0].difference(shares[1]) is None  # each angle is compared apart
    assert shares[0].difference(Incidence.of(1000, theta=np.repeat([0.0, 20.0], 500))) is not None
    assert Incidence.of(50, theta=20.0, phi=30.0).difference(Incidence.of(60, theta=20.0, phi=390.0)) is None


def test_each_number_that_is_drawn_has_a_column_of_its_own() -> None:
    """Arrays and tensors give the same bits; what is fixed is returned as it is."""
    u, dx = np.array([[0.25, 1.0, 0.5, 0.75], [0.5, 0.0, 0.1, 0.2]]), np.array([2.0, 3.0])
    entry, theta, phi = place(u, dx, "uniform", (0.0, 40.0), (-180.0, 180.0))
    assert entry.tolist() == [[-0.5, 1.0], [0.0, -1.5]]
    assert theta.tolist() == [30.0, 8.0]
    assert phi.tolist() == [0.0, -144.0]
    same = place(torch.from_numpy(u), torch.from_numpy(dx), "uniform", (0.0, 40.0), (-180.0, 180.0))
    assert all((mine.numpy() == theirs).all() for mine, theirs in zip(same, (entry, theta, phi), strict=True))
    assert place(u[:, :3], dx, (0.1, 0.2), 20.0, 30.0) == ((0.1, 0.2), 20.0, 30.0)
