"""What a choice looks like, as numbers: no page, no browser.

Work comes in stages, each better than the one before, so that a page can show the first at once and drop the rest when
the choice changes:

    preview      `PREVIEW` showers in `PREVIEW_STEPS` steps
    refined      the same showers with the default sampler, then more, up to `SHOWERS`
    slope        the utility at the choice and its gradient in ln y, by back-propagation
    landscape    the utility over pitch and depth; its showers are kept for every material and energy

Random numbers are the same at every design: what changes is what the design changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from calograd.detector.design import Design
from calograd.errors import InputError
from calograd.explorer.landscape import Surface, Surveyor
from calograd.explorer.reference import Bundled, Reference
from calograd.explorer.selection import Choice, Limits
from calograd.gradients.autodiff import BACKGROUND, SHOWERS, GradientEstimate, generator_for, surrogate_gradient
from calograd.metrics.observables import Observables, observe
from calograd.objective.space import DesignSpace, space_around
from calograd.surrogate import Surrogate

PREVIEW, PREVIEW_STEPS = 24, 4
"""Showers of a preview, and the steps of its sampler."""
PIECE, PIECES = 44, 4
"""Showers that a refinement adds at once, and how often."""
MOST = PREVIEW + PIECE * PIECES
SLOPE_SHOWERS, SLOPE_DRAWS = 24, 4
"""Of a gradient."""
CLIMB = 15
"""Most steps of a climb."""
SHOWN = ("E_tot", "R_E", "sigma_y", "z_mean", "sigma_z", "occupancy")

Check = Callable[[], None]
"""Called often during long work; what it raises ends the work."""


@dataclass(frozen=True)
class Event:
    """The displayed shower, each of shape (n_xy, n_xy, n_z), GeV.

    Args:
        deposited: without background.
        recorded: with it.
        kept: what the soft mask leaves of that.
    """

    deposited: np.ndarray
    recorded: np.ndarray
    kept: np.ndarray


@dataclass(frozen=True)
class View:
    """Showers at a choice.

    Args:
        choice: what was asked.
        cells: shape (n, n_xy, n_xy, n_z), GeV, without background.
        observables: of the showers.
        steps: of the sampler; None for its default.
        milliseconds: that it took.
        bundled: Geant4's showers at the same point; None where there are none.
        reference: their observables.
    """

    choice: Choice
    cells: np.ndarray
    observables: Observables
    steps: int | None
    milliseconds: float
    bundled: Bundled | None
    reference: Observables | None

    @property
    def complete(self) -> bool:
        """Whether no more showers follow."""
        return len(self.cells) >= MOST


@dataclass(frozen=True)
class Slope:
    """The utility at a choice and its gradient in ln dx, ln dz_1 ... ln dz_n.

    Args:
        choice: where.
        estimate: value and gradient with errors.
        milliseconds: that it took.
    """

    choice: Choice
    estimate: GradientEstimate
    milliseconds: float

    @property
    def arrow(self) -> tuple[float, float]:
        """d ln U / d ln dx, and d ln U / d ln dz of all depths together."""
        relative = self.estimate.gradient / abs(self.estimate.value)
        return float(relative[0]), float(relative[1:].sum())

    @property
    def arrow_error(self) -> tuple[float, float]:
        """Standard errors of `arrow`."""
        draws = self.estimate.draws / abs(self.estimate.value)
        both = np.column_stack([draws[:, 0], draws[:, 1:].sum(1)])
        error = both.std(0, ddof=1) / len(both) ** 0.5
        return float(error[0]), float(error[1])


class Explorer:
    """A surrogate to look at; one serves any number of pages.

    Args:
        surrogate: what generates.
        seed: of all random numbers.

    Raises:
        InputError: a surrogate of maps or points.
    """

    def __init__(self, surrogate: Surrogate, seed: int = 0) -> None:
        if not isinstance(surrogate, Surrogate):
            raise InputError("the explorer shows designs; expected a surrogate of cells, as pbf2-cells")
        self.surrogate = surrogate
        self.seed = seed
        self.limits = Limits.of(surrogate)
        self.reference = Reference(self.limits)
        self._surveyor = Surveyor(surrogate, self.limits, seed)

    def start(self) -> Choice:
        """Where a page opens."""
        return self.limits.start()

    def preview(self, choice: Choice) -> View:
        """A few showers, soon. Raises `RangeError` outside the trained range."""
        began = time.perf_counter()
        design = self.limits.design(choice)
        self.limits.objective(choice)  # complains
        return self._view(choice, self._sample(design, choice, 0, PREVIEW, PREVIEW_STEPS), PREVIEW_STEPS, began)

    def refined(self, choice: Choice) -> Iterator[View]:
        """Views of more and more showers with the default sampler; the first has those of the preview."""
        began, design = time.perf_counter(), self.limits.design(choice)
        pieces = [self._sample(design, choice, 0, PREVIEW, None)]
        yield self._view(choice, pieces[0], None, began)
        for number in range(1, PIECES + 1):
            pieces.append(self._sample(design, choice, number, PIECE, None))
            yield self._view(choice, torch.cat(pieces), None, began)

    def event(self, view: View, number: int) -> Event:
        """One of a view's first `PREVIEW` showers, with its background."""
        design, choice = self.limits.design(view.choice), view.choice
        deposited = torch.from_numpy(view.cells[number][None])
        measurement = self.limits.objective(choice).measurement
        draws = measurement.draw(1, design.n_xy, design.n_z, generator_for(self.seed, BACKGROUND, 2, number))
        kept = measurement.measure(deposited, choice.energy, design, draws).measured[0]
        recorded = deposited[0]
        if measurement.background is not None and draws.background is not None:
            recorded = recorded + measurement.background.energy(draws.background, design.dx, design.dz)[0]
        return Event(deposited[0].numpy(), recorded.numpy(), kept.numpy())

    def slope(self, choice: Choice, check: Check = lambda: None) -> Slope:
        """The utility's gradient at a choice.

        Raises:
            UtilityError: there is none.
        """
        began = time.perf_counter()
        space, y = self._space(choice, choice.dz)
        estimate = surrogate_gradient(
            self.surrogate, self.limits.objective(choice), space, y, showers=SLOPE_SHOWERS, draws=SLOPE_DRAWS,
            seed=self.seed, checkpointed=False, progress=lambda done, total: check(),  # noqa: ARG005
        )  # fmt: skip
        return Slope(choice, estimate, 1e3 * (time.perf_counter() - began))

    def landscape(self, choice: Choice) -> Iterator[float | Surface]:
        """Shares of the work that are done, and in the end the surface; at once where its showers are kept."""
        return self._surveyor.survey(choice)

    def climb(self, choice: Choice, told: Callable[[Choice, float], None]) -> str:
        """Follow the gradient from a choice, with the same random numbers at every design.

        Args:
            choice: where to begin.
            told: hears every design and its utility; what it raises ends the climb.

        Returns:
            Why it ended.
        """
        from calograd.optimisation.ascent import AscentConfig, ascend

        objective = self.limits.objective(choice)
        space, y = self._space(choice, choice.dz[0] if choice.equal else choice.dz)

        def gradient(at: np.ndarray, draws: int, seed: int) -> GradientEstimate:  # noqa: ARG001
            return surrogate_gradient(
                self.surrogate, objective, space, at, showers=SLOPE_SHOWERS, draws=draws, seed=self.seed,
                checkpointed=False,
            )  # fmt: skip

        def step(y: tuple[float, ...]) -> Choice:
            dz = (y[1],) * self.limits.n_z if len(y) == 2 else tuple(y[1:])
            return replace(choice, dx=y[0], dz=dz)

        config = AscentConfig(
            steps=CLIMB, draws=SLOPE_DRAWS, max_draws=SLOPE_DRAWS, radius=0.25, tolerance=0.01, survey=0
        )
        state = ascend(space, y, gradient, config, on_step=lambda s: told(step(s.y), s.value))
        return state.reason

    def _space(self, choice: Choice, depth: float | tuple[float, ...]) -> tuple[DesignSpace, np.ndarray]:
        """Pitch and depths as parameters, one for all or one a layer, and what they are."""
        limits = self.limits
        return space_around(choice.dx, depth, *limits.sizes(choice), limits.material(choice), limits.n_xy, limits.n_z)

    def _sample(self, design: Design, choice: Choice, number: int, n: int, steps: int | None) -> Tensor:
        with torch.inference_mode():
            made = self.surrogate.sample(
                design, choice.energy, n, generator=generator_for(self.seed, SHOWERS, 2, number), steps=steps
            )
        return made.clone()

    def _view(self, choice: Choice, cells: Tensor, steps: int | None, began: float) -> View:
        bundled = self.reference.at(choice)
        reference = observe(bundled.cells.cells, bundled.dx, np.array(bundled.dz)) if bundled else None
        found = observe(cells, choice.dx, np.array(choice.dz))
        return View(
            choice, cells.numpy(), found, steps, 1e3 * (time.perf_counter() - began), bundled, reference
        )  # fmt: skip
