"""The parts of the explorer that differ between kinds of designs: cells, and stacks of plates.

`calograd.explorer.cells` and `calograd.explorer.stacks` implement the protocols below. Stages, page, downloads and
worker use these alone.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np

from calograd.gradients.estimates import GradientFunction
from calograd.metrics.observables import Profile
from calograd.objective.space import ParameterSpace
from calograd.surrogate import Surrogate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Check = Callable[[], None]
"""Called often during long work; an exception that it raises ends the work."""


def few_steps(surrogate: Surrogate, steps: int) -> int | None:
    """Return how many steps to sample in at most; None for a distilled surrogate, which has its own."""
    return None if surrogate.model.distilled else steps


class Number(NamedTuple):
    """A number with its standard error, and the standard deviation over showers; None if there is no such."""

    value: float
    error: float
    deviation: float | None = None


def summary(values: np.ndarray) -> Number:
    """Return mean, its standard error and standard deviation of one number a shower; zeros if there is none."""
    if not len(values):
        return Number(0.0, 0.0, 0.0)
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return Number(float(values.mean()), spread / len(values) ** 0.5, spread)


@dataclass(frozen=True)
class Column:
    """One observable of generated showers, and of Geant4's or None.

    Args:
        name: symbol.
        unit: unit; empty for a pure number.
        ours, theirs: numbers of the surrogate's and of Geant4's showers.
    """

    name: str
    unit: str
    ours: Number
    theirs: Number | None = None

    @property
    def difference(self) -> tuple[float, float] | None:
        """Return the relative difference of the values and its standard error."""
        if self.theirs is None:
            return None
        a, b = self.ours, self.theirs
        return a.value / b.value - 1, float(np.hypot(a.error, b.error) / abs(b.value))


@dataclass(frozen=True)
class MapAxes:
    """Axes and quantity of a landscape over two sizes of a design.

    Args:
        names: names of the sizes.
        labels: their labels, with units.
        ranges: their ranges, cm.
        quantity: symbol of the quantity.
        unit: its unit.
        least: whether small values are wanted.
    """

    names: tuple[str, str]
    labels: tuple[str, str]
    ranges: tuple[tuple[float, float], tuple[float, float]]
    quantity: str
    unit: str
    least: bool = False


@dataclass(frozen=True)
class PlotLabels:
    """Labels of a page's plots.

    Args:
        histograms: label of every histogram by the name of its observable.
        profile: labels of the axes of the profile.
        lines: lines of derivatives.
        about: whether there is a line with facts of the design.
    """

    histograms: dict[str, str]
    profile: tuple[str, str]
    lines: int = 1
    about: bool = False


class Selection(Protocol):
    """A design and the conditions that it is looked at in."""

    @property
    def energy(self) -> float:
        """Incident energy, GeV."""
        ...

    @property
    def place(self) -> tuple[float, float]:
        """Place on the map, cm."""
        ...

    def rounded(self) -> Self:
        """Return the selection with sizes in round numbers."""
        ...


class Limits(Protocol):
    """The selections that a surrogate accepts."""

    labels: ClassVar[PlotLabels]

    def start(self) -> Any:
        """Return the selection that a page opens with."""
        ...

    def parse(self, query: Mapping[str, str]) -> Any:
        """Return the selection that the parameters of an address name. Raises `InputError`."""
        ...

    def axes(self, selection: Any) -> MapAxes:
        """Return the axes of the landscape about a selection."""
        ...

    def moved(self, selection: Any, x: float, y: float) -> Any:
        """Return the selection at a place of the map, cm, or the nearest within the trained range."""
        ...

    def shown(self, utility: float) -> float:
        """Return the quantity that the page shows of the utility of an optimisation."""
        ...

    def of_run(self, space: Mapping[str, Any], y: Sequence[float]) -> Any:
        """Return the selection of one design of an optimisation.

        Args:
            space: the table of the run's space.
            y: its parameters.

        Raises:
            KeyError, ValueError, TypeError: a table that is not of such a run.
            FormatError: a run of another kind of designs.
        """
        ...

    def tables(self, selection: Any) -> dict[str, Any]:
        """Return the tables of an optimisation that starts from a selection, as ``calograd optimise`` reads them."""
        ...


class View(Protocol):
    """Showers at a selection."""

    @property
    def steps(self) -> int | None:
        """Steps of the sampler; None for its default."""
        ...

    @property
    def milliseconds(self) -> float:
        """Time of the computation."""
        ...

    @property
    def note(self) -> str:
        """Sentence that says why there are no Geant4 showers; empty if there are some."""
        ...

    @property
    def selection(self) -> Any:
        """The selection."""
        ...

    def __len__(self) -> int:
        """Return the number of generated showers."""
        ...

    @property
    def complete(self) -> bool:
        """Return whether no more showers follow."""
        ...

    @property
    def geant4_showers(self) -> int:
        """Return the number of Geant4 showers; 0 if there are none."""
        ...

    def describe(self) -> str:
        """Return the incident particles in words."""
        ...

    def about(self) -> str:
        """Return facts of the design in words; empty if the selection says it all."""
        ...

    def columns(self) -> list[Column]:
        """Return the observables that the page shows."""
        ...

    def values(self, name: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the values of an observable that has a histogram: generated, and Geant4's or None."""
        ...

    def caption(self, name: str) -> str:
        """Return a line that is written into the histogram of an observable; may be empty."""
        ...

    def profile(self) -> tuple[Profile, Profile | None]:
        """Return the longitudinal profile of generated and of Geant4's showers, or None."""
        ...

    def data(self) -> dict[str, Any]:
        """Return what the page shows beside observables as plain data."""
        ...


class Slope(Protocol):
    """Derivatives at a selection."""

    @property
    def selection(self) -> Any:
        """The selection."""
        ...

    @property
    def arrow(self) -> tuple[float, float]:
        """Return the direction of improvement on the map: derivatives in the logarithms of both sizes."""
        ...

    def lines(self) -> list[str]:
        """Return quantities and derivatives with errors, a line of text each."""
        ...

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return the columns and rows of a table of derivatives."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        ...


class Climb(NamedTuple):
    """The problem that an ascent solves.

    Args:
        space: parameters that may change.
        y: their values at the start, shape (p,), cm.
        gradient: gradient of the utility.
        draws: draws of a gradient.
        selection: returns the selection of parameters.
    """

    space: ParameterSpace
    y: np.ndarray
    gradient: GradientFunction
    draws: int
    selection: Callable[[tuple[float, ...]], Any]


class Kind(Protocol):
    """What the explorer computes of a kind of designs.

    Attributes:
        limits: limits of the surrogate.
        reference: Geant4 showers to compare with.
        preview: showers of a preview, and steps of its sampler.
        batch: showers that a refinement adds at once.
        showers: showers of a refined view.
    """

    limits: Any
    reference: Any
    preview: tuple[int, int]
    batch: int
    showers: int

    def check(self, selection: Any) -> None:
        """Raise `RangeError` or `InputError` for a selection that cannot be shown."""
        ...

    def sample(self, selection: Any, rows: range, steps: int | None) -> Any:
        """Return the showers of some numbers."""
        ...

    def view(self, selection: Any, pieces: Sequence[Any], steps: int | None, began: float) -> Any:
        """Return the view of showers that were sampled in pieces, since a time of ``time.perf_counter``."""
        ...

    def slope(self, selection: Any, check: Check) -> Any:
        """Return the derivatives at a selection."""
        ...

    def climb(self, selection: Any) -> Climb:
        """Return the problem of an ascent from a selection."""
        ...

    def write(self, view: Any, path: Path) -> None:
        """Write the showers of a view to a file."""
        ...

    def draw_event(self, view: Any, number: int, axes: Axes) -> None:
        """Draw a shower of a view on matplotlib's axes."""
        ...

    def grid_key(self, selection: Any) -> Hashable:
        """Return what the showers of a landscape depend on."""
        ...

    def grid_row(self, selection: Any, x: float, y: np.ndarray) -> Any:
        """Return the showers of the designs of one row of a landscape, at x (cm) and every y, shape (b,), cm."""
        ...

    def grid_values(self, selection: Any, x: np.ndarray, y: np.ndarray, rows: Sequence[Any]) -> np.ndarray:
        """Return the quantity of a landscape, shape (a, b), from the showers of its rows."""
        ...
