"""The showers, observables and utility of a selection, as numbers without a page.

Results come in stages, so that a page shows the first at once and abandons the rest when the selection changes:

    preview      `PREVIEW` showers in `PREVIEW_STEPS` steps
    refined      the same showers with the default sampler, then more, up to `ALL_SHOWERS`
    slope        the utility at the selection and its gradient in ln y, by back-propagation
    landscape    the utility over pitch and depth; its showers are cached for each material and energy

Random numbers are the same at every design, so that differences come from the design alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from calograd.detector.design import Design
from calograd.detector.incidence import Incidence
from calograd.detector.particles import ON_AXIS, Particles
from calograd.errors import InputError
from calograd.explorer.landscape import LandscapeCache, Surface, few_steps
from calograd.explorer.reference import BundledShowers, Reference
from calograd.explorer.selection import Selection, SelectionLimits
from calograd.gradients.autodiff import BACKGROUND, SHOWERS, surrogate_gradient
from calograd.gradients.estimates import GradientEstimate, generator_for
from calograd.metrics.observables import Observables, observe
from calograd.objective.space import DesignSpace, space_around
from calograd.surrogate import Surrogate

PREVIEW, PREVIEW_STEPS = 24, 4
"""Showers of a preview, and steps of its sampler."""
BATCH, BATCHES = 44, 4
"""Showers that a refinement adds at once, and number of such additions."""
ALL_SHOWERS = PREVIEW + BATCH * BATCHES
SLOPE_SHOWERS, SLOPE_DRAWS = 24, 4
"""Showers of a draw and draws of a gradient."""
ASCENT_STEPS = 15
"""Largest number of steps of an ascent."""
SHOWN = ("E_tot", "R_E", "sigma_y", "z_mean", "sigma_z", "occupancy")

Check = Callable[[], None]
"""Called often during long work; an exception that it raises ends the work."""


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
class View:
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

    selection: Selection
    cells: np.ndarray
    observables: Observables
    steps: int | None
    milliseconds: float
    bundled: BundledShowers | None
    reference: Observables | None
    incident: Incidence
    note: str = ""

    @property
    def complete(self) -> bool:
        """Return whether no more showers follow."""
        return len(self.cells) >= ALL_SHOWERS

    def particle(self, number: int) -> Incidence | None:
        """Return the particle of a shower; None on the axis of a surrogate that knows one beam."""
        if self.selection.beam is None and self.incident.on_axis:
            return None
        return self.incident[number : number + 1]


@dataclass(frozen=True)
class LocalGradient:
    """The utility at a selection and its gradient in ln dx, ln dz_1 ... ln dz_n.

    Args:
        selection: the selection.
        estimate: value and gradient with errors.
        milliseconds: time of the computation.
    """

    selection: Selection
    estimate: GradientEstimate
    milliseconds: float

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


class Explorer:
    """Computes everything that pages show of one surrogate. It serves any number of pages.

    Args:
        surrogate: a surrogate of cells.
        seed: seed of all random numbers.

    Raises:
        InputError: a surrogate of maps or points.
    """

    def __init__(self, surrogate: Surrogate, seed: int = 0) -> None:
        if not isinstance(surrogate, Surrogate):
            raise InputError(
                f"the explorer got a {type(surrogate).__name__}; expected a surrogate of cells, as "
                "Surrogate.load('pbf2-cells')"
            )
        self.surrogate = surrogate
        self.seed = seed
        self.limits = SelectionLimits.of(surrogate)
        self.reference = Reference(self.limits)
        self._landscapes = LandscapeCache(surrogate, self.limits, seed)

    def start(self) -> Selection:
        """Return the selection that a page opens with."""
        return self.limits.start()

    def check(self, selection: Selection) -> None:
        """Raise `RangeError` or `InputError` for a selection that cannot be shown."""
        design = self.limits.design(selection)
        self.limits.objective(selection)  # raises what is wrong with it
        particles = self._particles(design, selection, 1)
        self.surrogate.card.check_range(design, torch.tensor(selection.energy), particles=particles)

    def preview(self, selection: Selection) -> View:
        """Return a few showers quickly. Raises `RangeError` outside the trained range."""
        began = time.perf_counter()
        design = self.limits.design(selection)
        self.limits.objective(selection)  # raises what is wrong with it
        steps = few_steps(self.surrogate, PREVIEW_STEPS)
        return self._view(selection, [self._sample(design, selection, 0, PREVIEW, steps)], steps, began)

    def refined(self, selection: Selection) -> Iterator[View]:
        """Yield views of more and more showers with the default sampler; the first has those of the preview."""
        began, design = time.perf_counter(), self.limits.design(selection)
        pieces = [self._sample(design, selection, 0, PREVIEW, None)]
        yield self._view(selection, pieces, None, began)
        for number in range(1, BATCHES + 1):
            pieces.append(self._sample(design, selection, number, BATCH, None))
            yield self._view(selection, pieces, None, began)

    def event(self, view: View, number: int) -> Event:
        """Return one of the first `PREVIEW` showers of a view, with its background."""
        design, selection = self.limits.design(view.selection), view.selection
        deposited = torch.from_numpy(view.cells[number][None])
        measurement = self.limits.objective(selection).measurement
        draws = measurement.draw(1, design.n_xy, design.n_z, generator_for(self.seed, BACKGROUND, 2, number))
        kept = measurement.measure(deposited, selection.energy, design, draws).measured[0]
        recorded = deposited[0]
        if measurement.background is not None and draws.background is not None:
            recorded = recorded + measurement.background.energy(draws.background, design.dx, design.dz)[0]
        return Event(deposited[0].numpy(), recorded.numpy(), kept.numpy())

    def slope(self, selection: Selection, check: Check = lambda: None) -> LocalGradient:
        """Return the gradient of the utility at a selection.

        Args:
            selection: the selection.
            check: called often; an exception that it raises ends the work.

        Raises:
            UtilityError: the utility has no gradient there.
        """
        began = time.perf_counter()
        space, y = self._space(selection, selection.dz)
        estimate = surrogate_gradient(
            self.surrogate, self.limits.objective(selection), space, y, showers=SLOPE_SHOWERS, draws=SLOPE_DRAWS,
            seed=self.seed, checkpointed=False, progress=lambda done, total: check(),  # noqa: ARG005
        )  # fmt: skip
        return LocalGradient(selection, estimate, 1e3 * (time.perf_counter() - began))

    def landscape(self, selection: Selection) -> Iterator[float | Surface]:
        """Yield the share of the work that is done, and finally the surface; at once if its showers are cached."""
        return self._landscapes.compute(selection)

    def ascend(self, selection: Selection, on_step: Callable[[Selection, float], None]) -> str:
        """Follow the gradient from a selection, with the same random numbers at every design.

        Args:
            selection: the start.
            on_step: called with every design and its utility; an exception that it raises ends the ascent.

        Returns:
            The reason of the end.
        """
        from calograd.optimisation.ascent import AscentConfig, ascend

        objective = self.limits.objective(selection)
        space, y = self._space(selection, selection.dz[0] if selection.equal else selection.dz)

        def gradient(at: np.ndarray, draws: int, seed: int) -> GradientEstimate:  # noqa: ARG001
            return surrogate_gradient(
                self.surrogate, objective, space, at, showers=SLOPE_SHOWERS, draws=draws, seed=self.seed,
                checkpointed=False,
            )  # fmt: skip

        def step(y: tuple[float, ...]) -> Selection:
            dz = (y[1],) * selection.n_z if len(y) == 2 else tuple(y[1:])
            return replace(selection, dx=y[0], dz=dz)

        config = AscentConfig(
            steps=ASCENT_STEPS, draws=SLOPE_DRAWS, max_draws=SLOPE_DRAWS, radius=0.25, tolerance=0.01, multi_start=0
        )
        state = ascend(space, y, gradient, config, on_step=lambda s: on_step(step(s.y), s.value))
        return state.reason

    def _space(self, selection: Selection, depth: float | tuple[float, ...]) -> tuple[DesignSpace, np.ndarray]:
        """Return the space of pitch and depths, one for all layers or one each, and the parameters of the selection."""
        limits = self.limits
        return space_around(
            selection.dx, depth, *limits.sizes(selection), limits.material(selection), selection.n_xy, selection.n_z
        )

    def _particles(self, design: Design, selection: Selection, n: int, number: int = 0) -> Particles | None:
        """Return the incident particles of n showers; None for a surrogate that knows one beam."""
        generator = generator_for(self.seed, SHOWERS, 2, number)
        return self.surrogate.particles(design, n, selection.beam or ON_AXIS, generator=generator)

    def _sample(
        self, design: Design, selection: Selection, number: int, n: int, steps: int | None
    ) -> tuple[Tensor, Incidence]:
        """Return showers and their incident particles."""
        particles = self._particles(design, selection, n, number)
        beam: dict[str, Any] = {} if particles is None else particles.expand(n)._asdict()
        with torch.inference_mode():
            made: Tensor = self.surrogate.sample(
                design, selection.energy, n, generator=generator_for(self.seed, SHOWERS, 2, number), steps=steps, **beam
            )
        return made.clone(), self.limits.incident(n) if particles is None else particles.to_incidence(n)

    def _view(
        self, selection: Selection, pieces: list[tuple[Tensor, Incidence]], steps: int | None, began: float
    ) -> View:
        cells, incident = torch.cat([made for made, _ in pieces]), Incidence.concatenate([each for _, each in pieces])
        bundled, note = self.reference.at(selection)
        reference = bundled.observe() if bundled else None
        found = observe(cells, selection.dx, np.array(selection.dz), incident=incident)
        return View(
            selection, cells.numpy(), found, steps, 1e3 * (time.perf_counter() - began), bundled, reference, incident,
            note,
        )  # fmt: skip
