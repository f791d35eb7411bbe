import numpy as np
import pytest
import torch
from helpers.entries import slanted, tilted
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from calograd.detector.incidence import Incidence
from calograd.metrics.observables import (
    OBSERVABLES,
    longitudinal_profile,
    observe,
    quantity_names,
    readout,
    reconstruct,
    transverse_profile,
)

energies = arrays(np.float32, (3, 5, 5, 4), elements=st.floats(0, 10, width=32)).filter(
    lambda c: bool((c.sum((1, 2, 3)) > 1e-3).all())
)
sizes = st.floats(0.5, 20)


def two_points() -> np.ndarray:
    """1 GeV in cell (0, 2, 0) and 3 GeV in cell (4, 2, 1)."""
    cells = np.zeros((1, 5, 5, 3), np.float32)
    cells[0, 0, 2, 0], cells[0, 4, 2, 1] = 1, 3
    return cells


def test_two_points_in_closed_form():
    seen = observe(two_points(), 2.0, np.array([4.0, 6.0, 8.0]))
    # x = -4 and +4 with weights 1/4, 3/4; z = 2 and 7
    assert seen.E_tot.item() == 4
    assert seen.x_mean.item() == pytest.approx(2)
    assert seen.sigma_x.item() == pytest.approx(8 * np.sqrt(3) / 4)
    assert seen.y_mean.item() == seen.sigma_y.item() == 0
    assert seen.R_E.item() == pytest.approx(seen.sigma_x.item())
    assert seen.z_mean.item() == pytest.approx(2 / 4 + 3 * 7 / 4)
    assert seen.sigma_z.item() == pytest.approx(5 * np.sqrt(3) / 4)
    assert seen.layers.tolist() == [[1, 3, 0]]
    assert seen.occupancy.item() == 2


def test_threshold_is_inclusive_and_zero_cells_never_fire():
    cells = np.zeros((1, 2, 2, 1), np.float32)
    cells[0, 0, 0, 0], cells[0, 1, 1, 0] = 1.0, 0.5
    assert observe(cells, 1.0, np.array([1.0]), threshold=1.0).occupancy.item() == 1
    assert observe(cells, 1.0, np.array([1.0]), threshold=0.0).occupancy.item() == 2
    assert readout(cells, 1.0).sum() == 1.0


def test_showers_without_energy_are_excluded_and_counted():
    cells = np.concatenate([two_points(), np.zeros_like(two_points())])
    seen = observe(cells, np.array([2.0, 3.0]), np.ones((2, 3)))
    assert seen.excluded == 1
    assert seen.kept.tolist() == [True, False]
    assert seen.table().shape == (1, len(quantity_names(3)))
    assert np.isfinite(seen.table()).all()


@given(energies, sizes, sizes)
@settings(max_examples=40, deadline=None)
def test_flips_mirror_the_centroid_and_leave_the_rest(cells, dx, dz):
    depths = np.full(4, dz)
    seen, flipped = observe(cells, dx, depths).table(), observe(cells[:, ::-1].copy(), dx, depths).table()
    seen[:, OBSERVABLES.index("x_mean")] *= -1
    np.testing.assert_allclose(flipped, seen, rtol=1e-9, atol=1e-7 * dx)


@given(energies, st.floats(0.01, 100), sizes)
@settings(max_examples=40, deadline=None)
def test_scaling_the_energy_scales_only_energies(cells, factor, dx):
    one = observe(cells.astype(np.float64), dx, np.ones(4))
    two = observe(cells.astype(np.float64) * factor, dx, np.ones(4))
    np.testing.assert_allclose(two.E_tot, factor * one.E_tot, rtol=1e-9)
    np.testing.assert_allclose(two.R_E, one.R_E, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(two.sigma_z, one.sigma_z, rtol=1e-9, atol=1e-9)


@given(arrays(np.float32, (2, 3, 3, 2), elements=st.floats(0.0625, 10, width=32)), sizes)
@settings(max_examples=40, deadline=None)
def test_translation_moves_the_centroid_and_leaves_widths(cells, dx):
    left, right = np.zeros((2, 7, 7, 2), np.float32), np.zeros((2, 7, 7, 2), np.float32)
    left[:, 1:4, 2:5], right[:, 3:6, 2:5] = cells, cells
    one, two = observe(left, dx, np.ones(2)), observe(right, dx, np.ones(2))
    np.testing.assert_allclose(two.x_mean - one.x_mean, 2 * dx, rtol=1e-9)
    np.testing.assert_allclose(two.R_E, one.R_E, rtol=1e-7, atol=1e-7)


def test_gradients_agree_with_finite_differences():
    rng = np.random.default_rng(0)
    cells = torch.tensor(rng.random((2, 3, 3, 2)), requires_grad=True)
    dx = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    dz = torch.tensor([3.0, 4.0], dtype=torch.float64, requires_grad=True)

    def smooth(cells, dx, dz):
        seen = observe(cells, dx, dz)
        return torch.stack([seen.E_tot, seen.x_mean, seen.R_E, seen.sigma_y, seen.z_mean, seen.sigma_z])

    assert torch.autograd.gradcheck(smooth, (cells, dx, dz))


def test_gradients_stay_finite_for_a_shower_in_one_cell():
    cells = torch.zeros(1, 3, 3, 2)
    cells[0, 1, 1, 0] = 1
    cells.requires_grad_()
    seen = observe(cells, 2.0, torch.ones(2))
    (seen.R_E + seen.sigma_x + seen.sigma_z).sum().backward()
    assert torch.isfinite(cells.grad).all()


def test_profiles_integrate_to_the_mean_energy():
    rng = np.random.default_rng(1)
    cells, dz = rng.random((50, 4, 4, 3)).astype(np.float32), np.array([1.0, 2.0, 4.0])
    mean = cells.sum((1, 2, 3)).mean()
    along, across = longitudinal_profile(cells, dz), transverse_profile(cells, 2.5)
    assert (along.mean * np.diff(along.edges)).sum() == pytest.approx(mean, rel=1e-6)
    assert (across.mean * 2.5).sum() == pytest.approx(mean, rel=1e-6)
    assert across.edges.tolist() == [-5, -2.5, 0, 2.5, 5]
    assert along.error == pytest.approx(cells.sum((1, 2)).std(0, ddof=1) / dz / np.sqrt(50), rel=1e-5)


def _lines(n: int = 50):
    return tilted(n, seed=3, theta=np.linspace(0, 45, n))


def test_off_the_axis_positions_are_those_of_the_cells_from_the_line():
    """Against a sum over all cells in absolute coordinates."""
    showers = _lines()
    incident, cells = showers.incident, showers.cells.astype(np.float64)
    depth = np.cumsum(showers.dz, axis=1, dtype=np.float64) - showers.dz / 2
    offsets = incident.window_offsets(showers.dx, showers.dz)
    dx = float(showers.dx[0])
    centres = (offsets[:, None] + (np.arange(7) - 3)[:, None, None]) * dx - incident.at(depth)[:, None]
    total = cells.sum((1, 2, 3))
    seen = observe(cells, showers.dx, showers.dz, incident=incident)
    for axis, mean, sigma in ((0, seen.x_mean, seen.sigma_x), (1, seen.y_mean, seen.sigma_y)):
        weights = cells.sum(2 - axis)
        expected = (weights * centres[..., axis]).sum((1, 2)) / total
        variance = (weights * (centres[..., axis] - expected[:, None, None]) ** 2).sum((1, 2)) / total
        np.testing.assert_allclose(mean, expected, atol=1e-9)
        np.testing.assert_allclose(sigma, np.sqrt(variance), atol=1e-9)
    entry = reconstruct(cells, showers.dx, showers.dz, incident).entry
    np.testing.assert_allclose(entry, np.stack([seen.x_mean, seen.y_mean], 1), atol=1e-9)


def test_on_the_axis_incidence_changes_no_bit():
    showers = _lines()
    one = observe(showers.cells, showers.dx, showers.dz).table()
    assert (one == observe(showers.cells, showers.dx, showers.dz, incident=Incidence.of(50)).table()).all()


@pytest.mark.parametrize("log_weight", [None, 4.0])
def test_a_turn_by_90_degrees_turns_entry_and_slope_and_a_whole_pitch_moves_nothing(log_weight):
    showers = _lines()
    dx, incident = float(showers.dx[0]), showers.incident
    one = reconstruct(showers.cells, showers.dx, showers.dz, incident, log_weight)
    x, y = incident.position.T
    turned = Incidence.of(50, position=np.stack([-y, x], 1), theta=incident.theta, phi=incident.phi + 90)
    two = reconstruct(np.swapaxes(showers.cells, 1, 2)[:, ::-1].copy(), showers.dx, showers.dz, turned, log_weight)
    entry = incident.position + np.array([2 * dx, -dx])
    moved = Incidence.of(50, position=entry, theta=incident.theta, phi=incident.phi)
    three = reconstruct(showers.cells, showers.dx, showers.dz, moved, log_weight)
    for name in ("entry", "slope"):
        before = getattr(one, name).numpy()
        after = np.stack([-before[:, 1], before[:, 0]], 1)
        np.testing.assert_allclose(getattr(two, name), after, atol=2e-5)
        np.testing.assert_allclose(getattr(three, name), before, atol=2e-5)
    observed = [observe(showers.cells, showers.dx, showers.dz, incident=each).table() for each in (incident, moved)]
    np.testing.assert_allclose(*observed, atol=2e-5)


def test_a_point_on_the_line_is_reconstructed_and_one_layer_has_no_slope():
    """Two layers whose energy lies in one cell each: entry and slope in closed form, by both weights.

    The profile is 0.5 and 1.5 GeV/cm, so g is sqrt(3)/2 and (3 - sqrt(3)) / 6 a cm.
    """
    incident = Incidence.of(1, position=(0.1, 0.0), theta=45.0)
    cells = np.zeros((1, 3, 3, 2), np.float32)
    cells[0, 1, 1] = 1.0, 3.0  # windows are about x = 1 and x = 3; the line is at 1.1 and 3.1
    for log_weight in (None, 4.0):
        found = reconstruct(cells, 1.0, np.array([2.0, 2.0]), incident, log_weight)
        np.testing.assert_allclose(found.entry, [[-0.1, 0.0]], atol=1e-7)
        first, second = 3**0.5 / 6, (3 - 3**0.5) / 18  # zeta_k - z_k, with no variance across the axis
        np.testing.assert_allclose(found.slope, [[(first - second) / (2 + second - first), 0.0]], atol=1e-7)
    cells[..., 1] = 0
    assert torch.isnan(reconstruct(cells, 1.0, np.array([2.0, 2.0]), incident).slope).all()


@pytest.mark.parametrize(("theta", "by_middles"), [(10.0, -1.34), (25.0, -3.38), (40.0, -5.7)])
def test_the_slope_of_a_symmetric_shower_is_that_of_its_line(theta, by_middles):
    """The middles of the layers as depths give angles that are too small; first order leaves a third of it."""
    showers = slanted(600, seed=1, theta=theta)
    turn = np.radians(30.0)
    for log_weight in (None, 4.0):
        slope = reconstruct(showers.cells, showers.dx, showers.dz, showers.incident, log_weight).slope.numpy()
        along = np.tan(np.radians(theta)) + slope @ [np.cos(turn), np.sin(turn)]
        error = np.degrees(np.arctan(along)) - theta
        assert 0.35 * by_middles < error.mean() < 0.1
        assert (slope @ [-np.sin(turn), np.cos(turn)]).mean() == pytest.approx(0, abs=0.01)


def test_logarithmic_weights_in_closed_form():
    cells = np.zeros((1, 3, 1, 1), np.float32)
    cells[0, :, 0, 0] = 0.005, 0.9, 0.095
    found = reconstruct(cells, 2.0, np.array([4.0]), Incidence.of(1), log_weight=4.0)
    shares = cells[0, :, 0, 0] / cells.sum()
    weights = np.maximum(0, 4 + np.log(shares))
    assert weights[0] == 0
    assert found.entry[0, 0].item() == pytest.approx(2 * weights[2] / weights.sum(), rel=1e-6)


def test_gradients_of_entry_and_slope_agree_with_finite_differences():
    rng, incident = np.random.default_rng(0), Incidence.of(2, position=(0.2, -0.1), theta=20.0, phi=30.0)
    cells = torch.tensor(rng.random((2, 3, 3, 2)) + 0.1, requires_grad=True)
    dx = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    for log_weight in (None, 6.0):
        for name in ("entry", "slope"):
            assert torch.autograd.gradcheck(
                lambda cells, dx, w=log_weight, of=name: getattr(
                    reconstruct(cells, dx, torch.tensor([3.0, 4.0]), incident, w), of
                ),
                (cells, dx),
            )
