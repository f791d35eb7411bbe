"""Utilities and the objective: a scalar of measured events, to be made as large as possible.

With E_meas the sum of an event's measured cells and `mean` over events, the utilities U are

    SquaredError        1 / (alpha^2 + mean (E_meas - E_true)^2)     E_true deposited or incident, 1/GeV2
    EnergyResolution    - std(E_meas) / mean(E_meas), or - (q84 - q16) / (2 q50)
    Containment         mean (E_dep / E_inc)
    PositionResolution  - rms of the energy-weighted mean y of the measured cells about the shower's axis y = 0, cm

`Objective` averages a utility over a spectrum of energies e with weights p_e,

    V = sum_e p_e U(events of energy e) / sum_e p_e

All are differentiable. Totals are summed in float64, and results are float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

import torch
from torch import Tensor

from calograd.detector.design import Design
from calograd.detector.particles import ON_AXIS, ParticleBeam, Particles
from calograd.errors import InputError, UtilityError
from calograd.objective.measurement import MeasuredEvents, Measurement, RandomDraws

Utility = Callable[[MeasuredEvents], Tensor]
"""A function of measured events that returns a tensor without dimensions."""

ONE_SIGMA = (0.1586553, 0.5, 0.8413447)
"""Probabilities below -1, 0 and 1 standard deviations of a normal distribution."""


def totals(cells: Tensor) -> Tensor:
    """Return the energy of every event, shape (n,), float64, of cells (n, n_xy, n_xy, n_z)."""
    return cells.sum(dim=(1, 2, 3), dtype=torch.float64)


@dataclass(frozen=True)
class SquaredError:
    """1 / (alpha^2 + mean squared error of the energy), 1/GeV2.

    Args:
        alpha: GeV; errors far below it make no difference.
        truth: ``deposited``: the energy deposited without background; ``incident``: the photon's, which counts
            leakage as an error and gives optima inside the range of designs.

    Raises:
        InputError: alpha is not positive, or another truth.
    """

    alpha: float = 0.1
    truth: Literal["deposited", "incident"] = "deposited"
    unit = "1/GeV2"

    def __post_init__(self) -> None:
        if not 0 < self.alpha < inf:
            raise InputError(f"utility: alpha = {self.alpha} GeV, expected a positive number")
        if self.truth not in ("deposited", "incident"):
            raise InputError(f"utility: truth = '{self.truth}', expected 'deposited' or 'incident'")

    def __call__(self, events: MeasuredEvents) -> Tensor:
        """Return the utility."""
        true = totals(events.signal) if self.truth == "deposited" else events.energy.double()
        error = (totals(events.measured) - true).square().mean()
        return (self.alpha**2 + error).reciprocal()

    def __str__(self) -> str:
        return f"squared error of the {self.truth} energy, U = 1 / (({self.alpha:g} GeV)^2 + mean squared error)"


@dataclass(frozen=True)
class EnergyResolution:
    """Minus the relative resolution of the measured energy; it needs two events or more.

    Args:
        robust: take half the central 68 % width over the median, which rare late conversions do not dominate.
    """

    robust: bool = False
    unit = ""

    def __call__(self, events: MeasuredEvents) -> Tensor:
        """Return the utility."""
        measured = totals(events.measured)
        if len(measured) < 2:
            raise InputError(f"utility EnergyResolution: {len(measured)} event, expected two or more")
        if not self.robust:
            return -measured.std() / measured.mean()
        ends = torch.quantile(measured, measured.new_tensor(ONE_SIGMA))
        return -(ends[2] - ends[0]) / (2 * ends[1])

    def __str__(self) -> str:
        width = "half the central 68 % width over the median" if self.robust else "standard deviation over mean"
        return f"energy resolution, U = - {width} of the measured energy"


@dataclass(frozen=True)
class Containment:
    """The share of the incident energy that is deposited in the window, without background."""

    unit = ""

    def __call__(self, events: MeasuredEvents) -> Tensor:
        """Return the utility."""
        return (totals(events.signal) / events.energy.double()).mean()

    def __str__(self) -> str:
        return "containment, U = mean deposited share of the incident energy"


@dataclass(frozen=True)
class PositionResolution:
    """Minus the rms error of the shower's y, cm.

    The error is the energy-weighted mean of the cells' distances in y from the particle's line, taken in the middle of
    each layer.

    Cells of negative energy (noise) count as empty. An event without measured energy is only known to be in the window:
    its squared error is that of a uniform distribution, (n_xy dx)^2 / 12. Where all particles are on the axis the
    figure is that of the best impact point (n_xy even: of the worst); entries drawn over the cell average over them.
    """

    unit = "cm"
    needs_y = True

    def __call__(self, events: MeasuredEvents) -> Tensor:
        """Return the utility."""
        rows = events.measured.clamp(min=0).sum(dim=(1, 3), dtype=torch.float64)
        dx, n_xy = events.design.dx.to(rows)[..., None], rows.shape[1]
        centres = dx * (torch.arange(n_xy, dtype=rows.dtype, device=rows.device) + (1 - n_xy) / 2)
        energy = rows.sum(dim=1)
        seen = energy > 0
        first = (rows * centres).sum(dim=1)
        if events.particles is not None:
            design = events.design
            sizes = design.dx.to(rows).reshape(-1), design.dz.to(rows).reshape(-1, design.n_z)
            residuals, _ = Particles(*(column.to(rows.device) for column in events.particles)).residuals(*sizes)
            layers = events.measured.clamp(min=0).sum(dim=(1, 2), dtype=torch.float64)
            first = first - (layers * residuals[..., 1] * sizes[0][:, None]).sum(1)
        y = first / torch.where(seen, energy, 1.0)
        squared = torch.where(seen, y.square(), (n_xy * dx[..., 0]) ** 2 / 12)
        return -squared.mean().clamp(min=1e-24).sqrt()

    def __str__(self) -> str:
        return "position resolution, U = - rms error of the shower's y"


@dataclass(frozen=True)
class CustomUtility:
    """A utility from any differentiable function of measured cells and design.

    Args:
        function: called as ``function(cells, design)`` with measured cells (n, n_xy, n_xy, n_z), GeV; returns a tensor
            without dimensions.

    Example:
        >>> import torch
        >>> total = CustomUtility(lambda cells, design: cells.sum((1, 2, 3)).mean())
        >>> objective = Objective(Measurement(), total, energies=(50.0,))
        >>> float(objective.value(torch.ones(2, 5, 5, 5), Design(2.5, 6.0)))
        125.0
    """

    function: Callable[[Tensor, Design], Tensor]

    @property
    def name(self) -> str:
        """Name of the function, for errors and reports."""
        return getattr(self.function, "__name__", type(self.function).__name__)

    def __call__(self, events: MeasuredEvents) -> Tensor:
        """Return the utility."""
        return self.function(events.measured, events.design)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Objective:
    """A utility of measured events, averaged over energies.

    Args:
        measurement: background, readout and reconstruction.
        utility: a function of the events of one energy.
        energies: incident energies, GeV.
        weights: p_e, one for every energy; None: all the same.
        beam: particle, entry and direction of the showers.

    Raises:
        InputError: no energies, ones that are not positive, weights that do not fit or are all zero; a
            utility of y for maps.
    """

    measurement: Measurement
    utility: Utility
    energies: tuple[float, ...]
    weights: tuple[float, ...] | None = None
    beam: ParticleBeam = ON_AXIS

    def __post_init__(self) -> None:
        if not self.energies or not all(0 < energy < inf for energy in self.energies):
            raise InputError(f"objective: energies = {list(self.energies)} GeV, expected one or more positive numbers")
        if self.measurement.pixels is not None and getattr(self.utility, "needs_y", False):
            name = name_of(self.utility)
            raise InputError(f"utility {name} is of y, which an x-z map does not show; choose another")
        if self.weights is None:
            return
        if len(self.weights) != len(self.energies):
            raise InputError(f"objective: {len(self.weights)} weights for {len(self.energies)} energies")
        if not (all(0 <= weight < inf for weight in self.weights) and sum(self.weights) > 0):
            raise InputError(f"objective: weights = {list(self.weights)}, expected zero or more and not all zero")

    def draw(
        self, n: int, n_xy: int, n_z: int, generator: torch.Generator, dtype: torch.dtype = torch.float32
    ) -> tuple[RandomDraws, ...]:
        """Draw the random numbers of ``n`` events of every energy, independent of each other and of the design."""
        return tuple(self.measurement.draw(n, n_xy, n_z, generator, dtype) for _ in self.energies)

    def value(
        self,
        signals: Sequence[Tensor] | Tensor,
        design: Design,
        draws: Sequence[RandomDraws] | None = None,
        *,
        generator: torch.Generator | None = None,
        particles: Sequence[Particles | None] | None = None,
    ) -> Tensor:
        """Return V, a tensor without dimensions, differentiable.

        Args:
            signals: deposited energies (n, n_xy, n_xy, n_z), GeV, for every energy; stacked, or each of its own n. With
                one energy, these cells themselves.
            design: the design that they are cells of, or a batch of n; tensors in it receive gradients.
            draws: background and noise from `draw` with the same n; None: drawn here.
            generator: draws them; None: a new one of seed 0, so that two designs see the same background.
            particles: incident particles of the showers of every energy; None: all on the axis.

        Raises:
            UtilityError: the utility gives no number, or none that a gradient can be taken of.
            InputError: showers or random numbers that do not fit.
        """
        if isinstance(signals, Tensor) and len(self.energies) == 1 and signals.ndim == self.measurement.ndim:
            signals = [signals]
        counts = len(signals), len(self.energies if draws is None else draws)
        if counts != (len(self.energies),) * 2:
            raise InputError(
                f"objective: showers of {counts[0]} and random numbers of {counts[1]} energies, "
                f"expected {len(self.energies)} of each"
            )
        if draws is None:
            source = torch.Generator().manual_seed(0) if generator is None else generator
            cells = design.n_xy, design.n_z
            draws = [self.measurement.draw(len(each), *cells, source, each.dtype) for each in signals]
        measure, incident = self.measurement.measure, particles or [None] * len(signals)
        columns = zip(signals, self.energies, draws, incident, strict=True)
        return self.average([measure(signal, e, design, drawn, particles=p) for signal, e, drawn, p in columns])

    def describe(self) -> dict[str, str]:
        """Return texts for reports: utility, background, readout and mask."""
        beam = {} if self.beam == ON_AXIS else {"beam": str(self.beam)}
        return {"utility": description_of(self.utility)} | beam | self.measurement.describe()

    def average(self, events: Sequence[MeasuredEvents]) -> Tensor:
        """Return V of the events of every energy in turn.

        Raises:
            UtilityError: see `value`.
        """
        weights = self.weights or (1.0,) * len(self.energies)
        values = [weight * evaluate_utility(self.utility, each) for each, weight in zip(events, weights, strict=True)]
        return torch.stack(values).sum() / sum(weights)


def name_of(function: Callable[..., object]) -> str:
    """Return the name of a utility or a cost for errors and reports."""
    return str(getattr(function, "name", None) or getattr(function, "__name__", None) or type(function).__name__)


def description_of(utility: Utility) -> str:
    """Return the formula of a utility of this package, or the name of another."""
    text = str(utility)
    return name_of(utility) if text.startswith("<") else text


def evaluate_utility(utility: Utility, events: MeasuredEvents) -> Tensor:
    """Return the value of a utility; it has a gradient wherever events or design have one.

    Raises:
        UtilityError: see `check_value`.
    """
    design = events.design
    need_grad = any(t.requires_grad for t in (events.measured, design.dx, design.dz))
    return check_value(name_of(utility), utility(events), need_grad and torch.is_grad_enabled())


def check_value(name: str, value: object, need_grad: bool) -> Tensor:
    """Return the ``value`` of the utility ``name``.

    Raises:
        UtilityError: not a tensor of one finite number, or a gradient is needed and it has none.
    """
    if not isinstance(value, Tensor) or value.shape != ():
        found = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise UtilityError(
            f"utility '{name}' returns {found}, expected a tensor without dimensions; reduce with mean()"
        )
    if not bool(torch.isfinite(value.detach())):
        raise UtilityError(
            f"utility '{name}' is {value.item()}; check it for divisions by zero, roots and logarithms of energies "
            "that can be zero or negative, and too few events"
        )
    if need_grad and not value.requires_grad:
        raise UtilityError(
            f"utility '{name}' does not depend on the design through torch, so it has no gradient; check it for "
            "detach(), item(), numpy(), comparisons and counts, and that the showers were made with gradients"
        )
    return value
