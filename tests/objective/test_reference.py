from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from calograd.detector.configuration import Block, SimulationConfig
from calograd.detector.design import Design
from calograd.detector.material import MATERIALS
from calograd.errors import InputError
from calograd.events.library.reader import open_library
from calograd.events.library.schema import pack
from calograd.events.segmentation import segment
from calograd.gradients.check import compare_gradients, cosine
from calograd.gradients.estimates import GradientEstimate
from calograd.gradients.finite_differences import bootstrap_values, finite_difference_gradient, neighbouring_designs
from calograd.objective.background import ExponentialBackground
from calograd.objective.measurement import Measurement
from calograd.objective.reference import CellsReference, LibraryReference
from calograd.objective.utility import Containment, Objective, SquaredError


@dataclass(frozen=True)
class Sizes:
    names: tuple[str, ...] = ("dx", "dz")

    def design(self, y: Tensor) -> Design:
        return Design(y[0], y[1], n_xy=3, n_z=2)


AT = np.array([2.0, 6.0])


def opened(path: Path, energies: tuple[float, ...] = (10.0, 50.0), **options: int) -> LibraryReference:
    with open_library(path) as library:
        return LibraryReference(library, energies, 3, 2, **options)


def test_a_library_gives_the_same_cells_as_segment(library: Path) -> None:
    reference = opened(library)
    with open_library(library) as source:
        cells = segment(source, designs=[(2.0, (5.0, 7.0)), (1.0, 6.0)], n_xy=3, n_z=2)
    for energy in (10.0, 50.0):
        assert reference.count(energy) == 30
        got = reference.measure(energy, [(2.0, (5.0, 7.0)), (1.0, (6.0, 6.0))])
        rows = cells.energy == np.float32(energy)
        np.testing.assert_array_equal(got[0], cells.cells[rows][0::2])
        np.testing.assert_array_equal(got[1], cells.cells[rows][1::2])
    some = opened(library, (50.0,)).block(3, 4)
    assert some.count(50.0) == 4
    np.testing.assert_array_equal(some.measure(50.0, [(1.0, (6.0, 6.0))])[0], got[1][3:7])


def test_a_smooth_utility_has_its_own_derivative(library: Path) -> None:
    """The containment of normal by gamma showers is known in closed form."""
    made = finite_difference_gradient(
        opened(library), Objective(Measurement(None), Containment(), (10.0, 50.0)), Sizes(), AT, step=0.1, bootstrap=60
    )
    normal, gamma = torch.distributions.Normal(0, 2.0), torch.distributions.Gamma(4.0, 0.5)
    depths = torch.linspace(0, 12.0, 20001, dtype=torch.float64)

    def contained(u: np.ndarray) -> float:
        dx, dz = np.exp(u)
        across = float(2 * normal.cdf(torch.tensor(1.5 * dx)) - 1)
        inside = depths[(depths > 0) & (depths <= 2 * dz)]
        if len(inside) < 2:
            return 0.0
        grid = torch.linspace(1e-9, 2 * dz, 20001, dtype=torch.float64)
        return 0.97 * across**2 * float(torch.trapezoid(gamma.log_prob(grid).exp(), grid))

    u = np.log(AT)
    assert made.value == pytest.approx(contained(u), abs=4 * made.value_error)
    for j in range(2):
        step = 0.1 * np.eye(2)[j]
        slope = (contained(u + step) - contained(u - step)) / 0.2
        assert made.gradient[j] == pytest.approx(slope, abs=4 * made.gradient_error[j])
        assert made.gradient_error[j] < 0.1 * abs(slope)


def test_the_bootstrap_s_error_is_that_of_independent_samples(library: Path) -> None:
    objective = Objective(Measurement(ExponentialBackground()), SquaredError(truth="incident"), (50.0,))
    parts = [
        finite_difference_gradient(opened(library, (50.0,)).block(5 * k, 5), objective, Sizes(), AT, seed=k, replicas=8)
        for k in range(6)
    ]
    scatter = np.std([p.gradient for p in parts], axis=0, ddof=1)
    stated = np.mean([p.gradient_error for p in parts], axis=0)
    assert (scatter / stated < 2.5).all()  # 5 degrees of freedom; samples of 5 understate a little
    assert (scatter / stated > 0.3).all()


def test_cells_files_serve_where_they_hold_the_neighbours(library: Path) -> None:
    objective = Objective(Measurement(ExponentialBackground()), SquaredError(), (10.0,))
    whole = finite_difference_gradient(opened(library, (10.0,)), objective, Sizes(), AT, seed=3, bootstrap=5)
    designs = [(float(d.dx), tuple(d.dz.tolist())) for d in neighbouring_designs(Sizes(), AT, 0.04)]
    with open_library(library) as source:
        cells = segment(source, designs=designs, n_xy=3, n_z=2)
        fewer = segment(source, designs=designs[:4], n_xy=3, n_z=2)
    of_cells = finite_difference_gradient(
        CellsReference(cells, "cells.h5"), objective, Sizes(), AT, seed=3, bootstrap=5
    )
    np.testing.assert_allclose(of_cells.gradient, whole.gradient, rtol=1e-5)
    with pytest.raises(InputError, match=r"cells.h5 lacks 1 of 5 designs at 10 GeV: dx = 2 with dz = 5\.76"):
        finite_difference_gradient(CellsReference(fewer, "cells.h5"), objective, Sizes(), AT)
    keep = np.ones(len(cells), bool)
    keep[1] = False
    with pytest.raises(InputError, match="not of the same showers"):
        finite_difference_gradient(CellsReference(cells.rows(keep), "cells.h5"), objective, Sizes(), AT)


@pytest.mark.parametrize(
    ("energies", "options", "complaint"),
    [
        ((10.0, 20.0), {}, "no showers of 20 GeV; its energies are 10, 50 GeV"),
        ((10.0,), {"step": 0.0}, "between 0 and 1"),
        ((10.0,), {"replicas": 0}, "0 replicas"),
        ((10.0,), {"bootstrap": 1}, "1 bootstraps"),
    ],
)
def test_what_cannot_be(library: Path, energies: tuple[float, ...], options: dict, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        finite_difference_gradient(
            opened(library, energies), Objective(Measurement(None), Containment(), energies), Sizes(), AT, **options
        )


@dataclass(frozen=True)
class Tungstate(Sizes):
    def design(self, y: Tensor) -> Design:
        return Design(y[0], y[1], "PbWO4", n_xy=3, n_z=2)


def test_showers_in_another_material_are_refused(library: Path) -> None:
    objective = Objective(Measurement(None), Containment(), (10.0,))
    with pytest.raises(InputError, match=r"library.h5 is of PbF2 \(7\.77 g/cm3\), the design of PbWO4"):
        finite_difference_gradient(opened(library, (10.0,)), objective, Tungstate(), AT)


@dataclass(frozen=True)
class Densities:
    names: tuple[str, ...] = ("dx", "dz", "density")

    def design(self, y: Tensor) -> Design:
        return Design(y[0], y[1], MATERIALS["PbF2"].at_density(y[2]), n_xy=3, n_z=2)


def test_showers_of_another_density_are_those_of_the_library_scaled(library: Path, tmp_path: Path) -> None:
    """Against a library whose deposits lie farther apart by the ratio of densities, as a simulation's would."""
    factor = 1.1
    with open_library(library) as source:
        showers, provenance = source.read(), source.provenance
    assert isinstance(provenance.config, SimulationConfig)
    thin = MATERIALS["PbF2"].at_density(7.77 / factor)
    config = provenance.config.model_copy(update={"detector": Block(material=thin, size=(30, 30, 90))})
    wide = replace(showers, **{axis: (factor * getattr(showers, axis)).astype(np.float32) for axis in "xyz"})
    (tmp_path / "thin.h5").write_bytes(pack(wide, replace(provenance, config=config)))
    objective = Objective(Measurement(ExponentialBackground()), SquaredError(truth="incident"), (10.0,))
    designs = [Densities().design(torch.tensor([2.0, 6.0, 7.77 / factor], dtype=torch.float64))]
    ours, ours_samples = bootstrap_values(opened(library, (10.0,)), objective, designs, bootstrap=5)
    theirs, their_samples = bootstrap_values(opened(tmp_path / "thin.h5", (10.0,)), objective, designs, bootstrap=5)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    np.testing.assert_allclose(ours_samples, their_samples, rtol=1e-5)


def test_the_gradient_in_the_density_is_that_in_all_lengths(library: Path) -> None:
    """Without background a design knows lengths in units of the shower's alone."""
    objective = Objective(Measurement(None), Containment(), (10.0,))
    made = finite_difference_gradient(
        opened(library, (10.0,)), objective, Densities(), np.array([2.0, 6.0, 7.77]), bootstrap=20
    )
    assert made.names == ("dx", "dz", "density")
    assert made.gradient[2] == pytest.approx(made.gradient[0] + made.gradient[1], rel=0.02)
    assert made.gradient_error[2] < 0.1 * made.gradient[2]
    with pytest.raises(InputError, match=r"is of PbF2 \(7\.77 g/cm3\), the design of PbF2 \(12\.\d* g/cm3\)"):
        finite_difference_gradient(
            opened(library, (10.0,)), objective, Densities(), np.array([2.0, 6.0, 12.5]), bootstrap=2
        )


def estimate(gradient: list[float], error: list[float], seed: int = 0) -> GradientEstimate:
    value, spread = np.array(gradient), np.array(error)
    draws = value + spread * np.random.default_rng(seed).standard_normal((200, 2))
    return GradientEstimate(("dx", "dz"), AT, 1.0, 0.1, value, spread, draws, {})


def test_agreement_component_by_component() -> None:
    both = compare_gradients(estimate([1.1, -0.2], [0.03, 0.1]), estimate([1.0, 0.4], [0.04, 0.1]))
    first, second = both.components
    assert first.pull == pytest.approx(2.0)
    assert first.ratio == pytest.approx(1.1)
    assert first.ratio_error == pytest.approx(np.hypot(0.03, 1.1 * 0.04))
    assert first.known
    assert not first.wrong_sign
    assert second.wrong_sign
    assert first.to_dict()["geant4"]["interval"] == pytest.approx([1 - 1.96 * 0.04, 1 + 1.96 * 0.04], rel=1e-4)
    assert both.cosine == pytest.approx((1.1 - 0.08) / np.hypot(1.1, 0.2) / np.hypot(1, 0.4))
    assert both.cosine_raw == pytest.approx(cosine(np.array([0.55, -0.2 / 6]), np.array([0.5, 0.4 / 6])))
    assert both.precision == pytest.approx(np.hypot(0.04, 0.1) / np.hypot(1, 0.4))
    assert 0.01 < both.cosine_error < 0.3


def test_a_gradient_that_is_zero_agrees_with_itself() -> None:
    both = compare_gradients(estimate([0.0, 0.0], [0.0, 0.0]), estimate([0.0, 0.0], [0.0, 0.0]))
    plain = both.to_dict()
    assert plain["components"][0]["ratio"] is None
    assert plain["geant4_precision"] is None
    assert plain["cosine_log"] == 0.0
