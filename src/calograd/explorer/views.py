"""The showers, observables and derivatives of a selection, as numbers without a page.

Results come in stages, so that a page shows the first at once and abandons the rest when the selection changes:

    preview      a few showers in a few steps of the sampler
    refined      the same showers with the default sampler, then more
    slope        derivatives at the selection, by back-propagation
    landscape    a quantity over two sizes of the design; its showers are cached

`calograd.explorer.cells` and `calograd.explorer.stacks` compute them. Random numbers are the same at every design, so
that differences come from the design alone; shower i depends on the seed and on i.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from calograd.errors import InputError
from calograd.explorer.cells import CellKind
from calograd.explorer.kinds import EXPECTED, Check, Kind, Selection, few_steps
from calograd.explorer.landscape import LandscapeCache, Surface
from calograd.explorer.stacks import StackKind
from calograd.surrogate import Surrogate

ASCENT_STEPS = 15
"""Largest number of steps of an ascent."""


def kind_of(surrogate: Surrogate, seed: int, reference: Path | None) -> Kind:
    """Return what the explorer computes of a surrogate's designs. Errors are those of `Explorer`."""
    match surrogate.card.trained.designs_of:
        case "cells":
            return CellKind(surrogate, seed, reference)
        case "stacks":
            return StackKind(surrogate, seed, reference)
        case _:
            raise InputError(
                f"{surrogate.card.name} generates {surrogate.card.kind} in one detector, without designs; {EXPECTED}"
            )


class Explorer:
    """Computes everything that pages show of one surrogate. It serves any number of pages.

    Args:
        surrogate: a surrogate of cells, or of stacks of plates.
        seed: seed of all random numbers.
        reference: a file of Geant4 showers to compare with: cells, or a library of plates. None for the bundled ones.

    Attributes:
        kind: what differs between cells and stacks.
        limits: limits of the surrogate.
        reference: Geant4 showers to compare with.

    Raises:
        InputError: a surrogate of maps or points, or a file without showers to compare with.
        FormatError: a file that cannot be read.
    """

    def __init__(self, surrogate: Surrogate, seed: int = 0, reference: Path | None = None) -> None:
        if not isinstance(surrogate, Surrogate):
            raise InputError(f"the explorer got a {type(surrogate).__name__}; {EXPECTED}: Surrogate.load loads both")
        self.surrogate = surrogate
        self.seed = seed
        self.kind = kind_of(surrogate, seed, reference)
        self.limits, self.reference = self.kind.limits, self.kind.reference
        self._landscapes = LandscapeCache(self.kind, surrogate.card.name)

    def start(self) -> Any:
        """Return the selection that a page opens with."""
        return self.limits.start()

    def check(self, selection: Selection) -> None:
        """Raise `RangeError` or `InputError` for a selection that cannot be shown."""
        self.kind.check(selection)

    def preview(self, selection: Selection) -> Any:
        """Return a few showers quickly. Raises `RangeError` outside the trained range."""
        began, (n, steps) = time.perf_counter(), self.kind.preview
        few = few_steps(self.surrogate, steps)
        return self.kind.view(selection, [self.kind.sample(selection, range(n), few)], few, began)

    def refined(self, selection: Selection) -> Iterator[Any]:
        """Yield views of more and more showers with the default sampler; the first has those of the preview."""
        began, n = time.perf_counter(), self.kind.preview[0]
        pieces = [self.kind.sample(selection, range(n), None)]
        yield self.kind.view(selection, pieces, None, began)
        for start in range(n, self.kind.showers, self.kind.batch):
            rows = range(start, min(start + self.kind.batch, self.kind.showers))
            pieces.append(self.kind.sample(selection, rows, None))
            yield self.kind.view(selection, pieces, None, began)

    def slope(self, selection: Selection, check: Check = lambda: None) -> Any:
        """Return the derivatives at a selection.

        Args:
            selection: the selection.
            check: called often; an exception that it raises ends the work.

        Raises:
            UtilityError: there are none.
        """
        return self.kind.slope(selection, check)

    def landscape(self, selection: Selection) -> Iterator[float | Surface]:
        """Yield the share of the work that is done, and finally the surface; at once if its showers are cached."""
        return self._landscapes.compute(selection)

    def ascend(self, selection: Selection, on_step: Callable[[Any, float], None]) -> str:
        """Follow the gradient from a selection, with the same random numbers at every design.

        Args:
            selection: the start.
            on_step: called with every design and the quantity that is improved; an exception that it raises ends the
                ascent.

        Returns:
            The reason of the end.
        """
        from calograd.optimisation.ascent import AscentConfig, ascend

        climb = self.kind.climb(selection)
        config = AscentConfig(
            steps=ASCENT_STEPS, draws=climb.draws, max_draws=climb.draws, radius=0.25, tolerance=0.01, multi_start=0
        )
        state = ascend(
            climb.space, climb.y, climb.gradient, config,
            on_step=lambda step: on_step(climb.selection(step.y), self.limits.shown(step.value)),
        )  # fmt: skip
        return state.reason
