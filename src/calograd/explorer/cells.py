"""Cells in the explorer: showers, observables, the utility and its gradient, as numbers without a page."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from calograd._version import __version__
from calograd.detector.design import Design
from calograd.detector.incidence import Incidence
from calograd.detector.particles import ON_AXIS, Particles
from calograd.events.dense import Cells, write_cells
from calograd.explorer.cell_selection import CellLimits, CellSelection
from calograd.explorer.kinds import Check, Climb, Column, few_steps, summary
from calograd.explorer.reference import BundledShowers, Reference
from calograd.gradients.autodiff import BACKGROUND, SHOWERS, surrogate_gradient
from calograd.gradients.estimates import GradientEstimate, generator_for
from calograd.metrics.observables import Observables, Profile, longitudinal_profile, observe
from calograd.objective.space import DesignSpace, space_around
from calograd.surrogate import Surrogate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PREVIEW, PREVIEW_STEPS = 24, 4
"""Showers of a preview, and steps of its sampler."""
BATCH, ALL_SHOWERS = 44, 200
"""Showers that a refinement adds at once, and showers of a refined view."""
SLOPE_SHOWERS, SLOPE_DRAWS = 24, 4
"""Showers of a draw and draws of a gradient."""
EVENTS, STEPS = 48, 8
"""Showers at each point of a landscape, and steps of their sampler."""
UNITS = {"E_tot": "GeV", "R_E": "cm", "sigma_y": "cm", "z_mean": "cm", "sigma_z": "cm", "occupancy": "cells"}
"""Units of the observables that the page shows."""


@dataclass(frozen=True)
class Event:
    """The displayed shower as three arrays of shape (n_xy, n_xy, n_z), GeV.

    Args:
        deposited: energies without background.
        recorded: energies with background.
        kept: energies after the soft mask.
    """

    deposited: np.ndarray
    recorded: np.ndarray
    kept: np.ndarray


@dataclass(frozen=True)
class CellView:
    """Showers at a selection.

    Args:
        selection: the selection.
        cells: showers without background, shape (n, n_xy, n_xy, n_z), GeV.
        observables: observables of the showers.
        steps: steps of the sampler; None for its default.
        milliseconds: time of the computation.
        bundled: Geant4 showers at the same point, or None.
        reference: observables of those, or None.
        incident: incident particles of the showers.
        note: sentence that says why there are no Geant4 showers; empty if there are some.
    """

    selection: CellSelection
    cells: np.ndarray
    observables: Observables
    steps: int | None
    milliseconds: float
    bundled: BundledShowers | None
    reference: Observables | None
    incident: Incidence
    note: str = ""

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def complete(self) -> bool:
        """Return whether no more showers follow."""
        return len(self) >= ALL_SHOWERS

    @property
    def geant4_showers(self) -> int:
        """Return the number of Geant4 showers."""
        return len(self.reference.E_tot) if self.reference else 0

    def describe(self) -> str:
        """Return the incident particles in words."""
        return self.incident.describe()

    def about(self) -> str:
        """Return nothing: the selection says it all."""
        return ""

    def particle(self, number: int) -> Incidence | None:
        """Return the particle of a shower; None on the axis of a surrogate that knows one beam."""
        if self.selection.beam is None and self.incident.on_axis:
            return None
        return self.incident[number : number + 1]

    def columns(self) -> list[Column]:
        """Return the observables that the page shows."""
        return [
            Column(name, unit, summary(getattr(self.observables, name).numpy()),
                   summary(getattr(self.reference, name).numpy()) if self.reference else None)
            for name, unit in UNITS.items()
        ]  # fmt: skip

    def values(self, name: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the values of an observable, of the total energy in percent of the incident energy."""
        unit = 100 / self.selection.energy if name == "E_tot" else 1.0
        theirs = None if self.reference is None else unit * getattr(self.reference, name).numpy()
        return unit * getattr(self.observables, name).numpy(), theirs

    def caption(self, name: str) -> str:  # noqa: ARG002 - the table has the numbers
        """Return nothing: the table has the numbers."""
        return ""

    def profile(self) -> tuple[Profile, Profile | None]:
        """Return dE/dz against the depth."""
        depths, bundled = np.array(self.selection.dz), self.bundled
        theirs = longitudinal_profile(bundled.cells.cells, depths) if bundled else None
        return longitudinal_profile(self.cells, depths), theirs

    def data(self) -> dict[str, Any]:
        """Return the mean energy of every layer, GeV."""
        return {"layers": self.observables.layers.mean(0).tolist()}


@dataclass(frozen=True)
class CellSlope:
    """The utility at a selection and its gradient in ln dx, ln dz_1 ... ln dz_n.

    Args:
        selection: the selection.
        estimate: value and gradient with errors.
    """

    selection: CellSelection
    estimate: GradientEstimate

    @property
    def arrow(self) -> tuple[float, float]:
        """Return d ln U / d ln dx, and d ln U / d ln dz of all depths together."""
        relative = self.estimate.gradient / abs(self.estimate.value)
        return float(relative[0]), float(relative[1:].sum())

    @property
    def arrow_error(self) -> tuple[float, float]:
        """Return the standard errors of `arrow`."""
        draws = self.estimate.draws / abs(self.estimate.value)
        both = np.column_stack([draws[:, 0], draws[:, 1:].sum(1)])
        error = both.std(0, ddof=1) / len(both) ** 0.5
        return float(error[0]), float(error[1])

    def lines(self) -> list[str]:
        """Return the utility and its gradient in one line."""
        (x, z), (dx, dz), e = self.arrow, self.arrow_error, self.estimate
        line = (
            f"U = {e.value:.4g} ± {e.value_error:.1g} 1/GeV² · ∂ln U/∂ln dx = {x:+.2f} ± {dx:.2f}"
            f" · ∂ln U/∂ln dz = {z:+.2f} ± {dz:.2f}"
        )
        return [line]

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return the derivatives with respect to every parameter."""
        e = self.estimate
        parts = zip(e.names, e.y, e.gradient, e.gradient_error, strict=True)
        return ["parameter", "value", "dU / d ln y, 1/GeV²"], [
            [name, f"{y:g} cm", f"{slope:+.4g} ± {error:.2g}"] for name, y, slope, error in parts
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return self.estimate.to_dict()


class CellKind:
    """Computes what the explorer shows of cells, see `calograd.explorer.kinds.Kind`.

    Args:
        surrogate: a surrogate of cells.
        seed: seed of all random numbers.
        reference: a file of Geant4's cells to compare with beside the bundled ones; None for none.

    Raises:
        InputError: a surrogate of maps, or a file without showers to compare with.
        FormatError: a file that cannot be read.
    """

    preview = PREVIEW, PREVIEW_STEPS
    batch, showers = BATCH, ALL_SHOWERS

    def __init__(self, surrogate: Surrogate, seed: int, reference: Path | None = None) -> None:
        self._surrogate = surrogate
        self._seed = seed
        self.limits = CellLimits.of(surrogate)
        self.reference = Reference(self.limits, reference)

    def check(self, selection: CellSelection) -> None:
        """Raise `RangeError` or `InputError` for a selection that cannot be shown."""
        design = self.limits.design(selection)
        self.limits.objective(selection)  # raises what is wrong with it
        particles = self._particles(design, selection, range(1))
        self._surrogate.card.check_range(design, torch.tensor(selection.energy), particles=particles)

    def sample(self, selection: CellSelection, rows: range, steps: int | None) -> tuple[Tensor, Incidence]:
        """Return the showers of some numbers and their incident particles."""
        design, beam, n = self.limits.design(selection), dict[str, Any](), len(rows)
        self.limits.objective(selection)  # raises what is wrong with it
        if (particles := self._particles(design, selection, rows)) is not None:
            beam = particles.expand(n)._asdict()
        with torch.inference_mode():
            made: Tensor = self._surrogate.sample(
                design, selection.energy, n, generator=generator_for(self._seed, SHOWERS, 2, 0), shower=rows,
                steps=steps, **beam,
            )  # fmt: skip
        return made.clone(), self.limits.incident(n) if particles is None else particles.to_incidence(n)

    def view(
        self, selection: CellSelection, pieces: Sequence[tuple[Tensor, Incidence]], steps: int | None, began: float
    ) -> CellView:
        """Return the view of showers with the Geant4 showers to compare with."""
        cells, incident = torch.cat([made for made, _ in pieces]), Incidence.concatenate([each for _, each in pieces])
        bundled, note = self.reference.at(selection)
        reference = bundled.observe() if bundled else None
        found = observe(cells, selection.dx, np.array(selection.dz), incident=incident)
        return CellView(
            selection, cells.numpy(), found, steps, 1e3 * (time.perf_counter() - began), bundled, reference, incident,
            note,
        )  # fmt: skip

    def event(self, view: CellView, number: int) -> Event:
        """Return one of the first `PREVIEW` showers of a view, with its background."""
        design, selection = self.limits.design(view.selection), view.selection
        deposited = torch.from_numpy(view.cells[number][None])
        measurement = self.limits.objective(selection).measurement
        draws = measurement.draw(1, design.n_xy, design.n_z, generator_for(self._seed, BACKGROUND, 2, number))
        kept = measurement.measure(deposited, selection.energy, design, draws).measured[0]
        recorded = deposited[0]
        if measurement.background is not None and draws.background is not None:
            recorded = recorded + measurement.background.energy(draws.background, design.dx, design.dz)[0]
        return Event(deposited[0].numpy(), recorded.numpy(), kept.numpy())

    def slope(self, selection: CellSelection, check: Check) -> CellSlope:
        """Return the gradient of the utility at a selection. Raises `UtilityError` if it has none there."""
        space, y = self._space(selection, selection.dz)
        estimate = surrogate_gradient(
            self._surrogate, self.limits.objective(selection), space, y, showers=SLOPE_SHOWERS, draws=SLOPE_DRAWS,
            seed=self._seed, checkpointed=False, progress=lambda done, total: check(),  # noqa: ARG005
        )  # fmt: skip
        return CellSlope(selection, estimate)

    def climb(self, selection: CellSelection) -> Climb:
        """Return the ascent of the utility; layers of equal depth stay equal."""
        objective = self.limits.objective(selection)
        space, y = self._space(selection, selection.dz[0] if selection.equal else selection.dz)

        def gradient(at: np.ndarray, draws: int, seed: int) -> GradientEstimate:  # noqa: ARG001
            return surrogate_gradient(
                self._surrogate, objective, space, at, showers=SLOPE_SHOWERS, draws=draws, seed=self._seed,
                checkpointed=False,
            )  # fmt: skip

        def step(y: tuple[float, ...]) -> CellSelection:
            dz = (y[1],) * selection.n_z if len(y) == 2 else tuple(y[1:])
            return replace(selection, dx=y[0], dz=dz)

        return Climb(space, y, gradient, SLOPE_DRAWS, step)

    def write(self, view: CellView, path: Path) -> None:
        """Write the showers of a view as a cells file."""
        n, at, model = len(view), view.selection, self._surrogate.card.name
        config = {"model": model, "explorer": __version__, "steps": view.steps}
        cells = Cells(
            view.cells, np.full(n, at.energy, np.float32), np.full(n, at.dx, np.float32),
            np.tile(np.array(at.dz, np.float32), (n, 1)), np.arange(n), self.limits.material(at), model, config,
            incidence=view.incident,
        )  # fmt: skip
        write_cells(path, cells)

    def draw_event(self, view: CellView, number: int, axes: Axes) -> None:
        """Draw a shower from the side."""
        from calograd.reports.plots import plot_event

        at = view.selection
        plot_event(view.cells[number], at.dx, at.dz, axes, "xz", incident=view.particle(number))
        axes.set_title(f"shower {number}, {at.energy:g} GeV in {at.material}")

    def grid_key(self, selection: CellSelection) -> Hashable:
        """Return energy, material, beam, window and proportions of the layers."""
        ratios = tuple((np.array(selection.dz) / selection.depth).round(6).tolist())
        return selection.energy, selection.material, selection.density, ratios, selection.n_xy, selection.beam

    def grid_row(self, selection: CellSelection, x: float, y: np.ndarray) -> Tensor:
        """Return the showers of the designs of one pitch, shape (b, n, n_xy, n_xy, n_z), GeV."""
        row = self._row(selection, x, y)
        particles = [
            self._surrogate.particles(
                each, EVENTS, selection.beam or ON_AXIS, generator=generator_for(self._seed, SHOWERS, 3)
            )
            for each in row
        ]
        with torch.inference_mode():
            made = self._surrogate.sample_designs(
                row, selection.energy, EVENTS, generator=generator_for(self._seed, SHOWERS, 3), particles=particles,
                steps=few_steps(self._surrogate, STEPS),
            )  # fmt: skip
        return made.clone()

    def grid_values(self, selection: CellSelection, x: np.ndarray, y: np.ndarray, rows: Sequence[Tensor]) -> np.ndarray:
        """Return the utility; background and price are applied here."""
        objective = self.limits.objective(selection)
        numbers = objective.draw(EVENTS, selection.n_xy, selection.n_z, generator_for(self._seed, BACKGROUND, 3))
        with torch.no_grad():
            return np.array([
                [float(objective.value([cells], design, numbers))
                 for cells, design in zip(row, self._row(selection, float(at), y), strict=True)]
                for at, row in zip(x, rows, strict=True)
            ])  # fmt: skip

    def _row(self, selection: CellSelection, x: float, y: np.ndarray) -> list[Design]:
        """Return the designs of one pitch and every mean depth; their layers have the selection's proportions."""
        ratios, deep = np.array(selection.dz) / selection.depth, self.limits.sizes(selection)[1]
        material, made = self.limits.material(selection), list[Design]()
        for depth in y:
            depths = np.clip(ratios * depth, *deep)
            dz = float(depths[0]) if selection.equal else tuple(depths.tolist())
            made.append(Design(x, dz, material, selection.n_xy, selection.n_z))
        return made

    def _space(self, selection: CellSelection, depth: float | tuple[float, ...]) -> tuple[DesignSpace, np.ndarray]:
        """Return the space of pitch and depths, one for all layers or one each, and the parameters of the selection."""
        limits = self.limits
        return space_around(
            selection.dx, depth, *limits.sizes(selection), limits.material(selection), selection.n_xy, selection.n_z
        )

    def _particles(self, design: Design, selection: CellSelection, rows: range) -> Particles | None:
        """Return the incident particles of showers; None for a surrogate that knows one beam."""
        return self._surrogate.particles(
            design,
            len(rows),
            selection.beam or ON_AXIS,
            generator=generator_for(self._seed, SHOWERS, 2, 0),
            shower=rows,
        )
