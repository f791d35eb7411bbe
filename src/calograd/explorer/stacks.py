"""Stacks of plates in the explorer: showers, observables, resolution and derivatives, as numbers without a page.

`calograd.metrics.plates` defines the observables, `calograd.gradients.stacks` the derivatives. The landscape is
sigma/E of the visible energy over the thicknesses of absorber and active plate, at the selection's number of layers.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from calograd._version import __version__
from calograd.detector.incidence import Incidence
from calograd.detector.material import to_float
from calograd.detector.sampling_design import SamplingDesign
from calograd.detector.sampling_stack import Stacks
from calograd.events.layer_energies import LayerEnergies
from calograd.events.plates import PlateShowers
from calograd.explorer.kinds import Check, Climb, Column, Number, few_steps, summary
from calograd.explorer.stack_reference import StackReference
from calograd.explorer.stack_selection import StackLimits, StackSelection
from calograd.gradients.autodiff import SHOWERS
from calograd.gradients.estimates import AnyGradient, generator_for
from calograd.gradients.stacks import StackGradient, resolution_utility, stack_gradient
from calograd.metrics.observables import Profile
from calograd.metrics.plates import PlateObservables, observe_plates
from calograd.metrics.resolution import relative_spread
from calograd.objective.stack_space import StackSpace
from calograd.objective.stacks import MeanEnergy, StackObjective, VisibleResolution
from calograd.surrogate import Surrogate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PREVIEW, PREVIEW_STEPS = 100, 4
"""Showers of a preview, and steps of its sampler."""
BATCH, ALL_SHOWERS = 950, 2000
"""Showers that a refinement adds at once, and showers of a refined view."""
SLOPE_SHOWERS, SLOPE_DRAWS = 250, 8
"""Showers of a draw and draws of a gradient."""
EVENTS, STEPS = 250, 4
"""Showers at each point of a landscape, and steps of their sampler."""
UNITS = {
    "E_vis": "GeV", "sigma/E_vis": "%", "E_vis/E_dep": "%", "E_abs": "GeV", "leakage": "GeV", "depth": "X₀",
}  # fmt: skip
"""Units of the numbers that the page shows."""


@dataclass(frozen=True)
class StackView:
    """Showers at a selection.

    Args:
        selection: the selection.
        design: its stack.
        showers: the showers.
        reference: Geant4 showers in the same stack, or None.
        steps: steps of the sampler; None for its default.
        milliseconds: time of the computation.
        note: sentence that says why there are no Geant4 showers; empty if there are some.
    """

    selection: StackSelection
    design: SamplingDesign
    showers: PlateShowers
    reference: PlateShowers | None
    steps: int | None
    milliseconds: float
    note: str

    @cached_property
    def observables(self) -> PlateObservables:
        """Observables of the showers."""
        return observe_plates(self.showers)

    @cached_property
    def simulated(self) -> PlateObservables | None:
        """Observables of Geant4's showers, or None."""
        return None if self.reference is None else observe_plates(self.reference)

    def __len__(self) -> int:
        return len(self.showers)

    @property
    def complete(self) -> bool:
        """Return whether no more showers follow."""
        return len(self) >= ALL_SHOWERS

    @property
    def geant4_showers(self) -> int:
        """Return the number of Geant4 showers."""
        return 0 if self.reference is None else len(self.reference)

    def describe(self) -> str:
        """Return the incident particles in words."""
        at = self.selection
        return f"{at.particle} at theta = {at.theta:g} degrees"

    def about(self) -> str:
        """Return depth and radiation lengths of the stack, and its sampling fraction."""
        of, at = self.design, self.selection
        lengths = [
            size / to_float(material.radiation_length)
            for size, material in zip(at.place, (of.absorber, of.active), strict=True)
        ]
        mip, seen = to_float(of.sampling_fraction), _fraction(self.observables)
        return (
            f"stack: {to_float(of.depth):.4g} cm, {to_float(of.radiation_lengths):.3g} X₀ · a layer: "
            f"{lengths[0]:.3g} X₀ of {at.absorber} and {lengths[1]:.2g} X₀ of {at.active} · sampling fraction: "
            f"{100 * mip:.3g} % for a minimum ionising particle, {100 * seen:.3g} % for these showers "
            f"(e/mip {seen / mip:.3g})"
        )

    def columns(self) -> list[Column]:
        """Return the observables that the page shows."""
        ours, theirs = (None if of is None else _numbers(of) for of in (self.observables, self.simulated))
        assert ours is not None
        return [
            Column(name, unit, ours[name], None if theirs is None else theirs[name]) for name, unit in UNITS.items()
        ]

    def values(self, name: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the values of an observable; energies are in percent of the incident energy."""
        theirs = None if self.simulated is None else _values(self.simulated, name)
        return _values(self.observables, name), theirs

    def caption(self, name: str) -> str:
        """Return mean and resolution of the visible energy."""
        if name != "E_vis":
            return ""
        values = self.values(name)[0]
        return f"mean {values.mean():.3g} %, sigma/E {100 * relative_spread(values)[0]:.3g} %"

    def profile(self) -> tuple[Profile, Profile | None]:
        """Return the energy in all plates per radiation length against the depth, a bin a layer."""
        edges = self.design.faces_in_radiation_lengths.detach().double().numpy()[::3]
        theirs = None if self.simulated is None else _profile(self.simulated, edges)
        return _profile(self.observables, edges), theirs

    def layers(self, plates: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Return energies of ``visible`` or ``absorbed`` plates, shape (n, layers), GeV, and Geant4's or None."""
        theirs = None if self.simulated is None else getattr(self.simulated, plates)
        return getattr(self.observables, plates), theirs

    @property
    def depths(self) -> np.ndarray:
        """Return the depth of the middle of every active plate, shape (layers,), X0."""
        return np.asarray(self.observables.depths[0])

    def data(self) -> dict[str, Any]:
        """Return stack and energies of the layers."""
        found: dict[str, Any] = {
            "stack": {
                "depth": to_float(self.design.depth), "radiation_lengths": to_float(self.design.radiation_lengths),
                "sampling_fraction": to_float(self.design.sampling_fraction), "layer_depths": self.depths.tolist(),
            }
        }  # fmt: skip
        for plates in ("visible", "absorbed"):
            ours = self.layers(plates)[0]
            found[plates] = {"mean": ours.mean(0).tolist(), "deviation": ours.std(0, ddof=1).tolist()}
        return found


@dataclass(frozen=True)
class StackSlope:
    """Derivatives of the visible energy and of its resolution with respect to both thicknesses.

    Args:
        selection: the selection.
        energy, resolution: derivatives of the mean visible energy and of sigma/E.
    """

    selection: StackSelection
    energy: StackGradient
    resolution: StackGradient

    @property
    def arrow(self) -> tuple[float, float]:
        """Return minus d ln(sigma/E) / d ln t of absorber and active plate: where the resolution improves."""
        slopes = -self.resolution.common(relative=True).gradient
        return float(slopes[0]), float(slopes[1])

    def lines(self) -> list[str]:
        """Return the derivatives of E_vis per cm of all plates of a kind, of sigma/E in logarithms, with errors."""
        (lengths, errors), logs = self.energy.per_cm(), self.resolution.common(relative=True)
        rows = (
            ("∂E_vis/∂t", " GeV/cm", lengths, errors),
            ("∂ln(sigma/E)/∂ln t", "", logs.gradient, logs.gradient_error),
        )
        return [
            f"{symbol} = {_signed(values[0], of[0])}{unit} (absorbers), {_signed(values[1], of[1])}{unit} (active)"
            for symbol, unit, values, of in rows
        ]

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return values and derivatives with respect to all absorbers, and to all active plates."""
        columns = ["quantity", "value", "thickness", "per cm", "d ln / d ln t"]
        rows = []
        for symbol, of in (("E_vis, GeV", self.energy), ("sigma/E", self.resolution)):
            logs, (lengths, errors) = of.common(relative=True), of.per_cm()
            value = f"{of.values.mean():.4g} ± {of.values.std(ddof=1) / len(of.values) ** 0.5:.1g}"
            rows += [
                [symbol, value, f"{kind} {logs.y[k]:g} cm", _signed(lengths[k], errors[k]),
                 _signed(logs.gradient[k], logs.gradient_error[k])]
                for k, kind in enumerate(logs.names)
            ]  # fmt: skip
        return columns, rows

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {"E_vis": self.energy.to_dict(), "resolution": self.resolution.to_dict()}


class StackKind:
    """Computes what the explorer shows of stacks of plates, see `calograd.explorer.kinds.Kind`.

    Args:
        surrogate: a surrogate of stacks.
        seed: seed of all random numbers.
        reference: a library of Geant4's plates to compare with; None for none.

    Raises:
        InputError: a library without showers to compare with.
        FormatError: a library that cannot be read.
    """

    preview = PREVIEW, PREVIEW_STEPS
    batch, showers = BATCH, ALL_SHOWERS

    def __init__(self, surrogate: Surrogate, seed: int, reference: Path | None = None) -> None:
        self._surrogate = surrogate
        self._seed = seed
        self.limits = StackLimits.of(surrogate)
        self.reference = StackReference(self.limits, reference)

    def check(self, selection: StackSelection) -> None:
        """Raise `RangeError` or `InputError` for a selection that cannot be shown."""
        self.limits.check(selection)

    def sample(self, selection: StackSelection, rows: range, steps: int | None) -> LayerEnergies:
        """Return the showers of some numbers."""
        self.limits.check(selection)
        with torch.inference_mode():
            return self._sample(self.limits.design(selection), selection, rows, 2, steps)

    def view(
        self, selection: StackSelection, pieces: Sequence[LayerEnergies], steps: int | None, began: float
    ) -> StackView:
        """Return the view of showers with the Geant4 showers to compare with."""
        made, design = LayerEnergies.concatenate(pieces), self.limits.design(selection)
        n, none = len(made), np.zeros(len(made), np.int32)
        thickness = design.thicknesses.detach().numpy().astype(np.float32)
        stacks = Stacks(
            (design.absorber,), (design.active,), design.gap_material, none, none,
            np.broadcast_to(thickness, (n, *thickness.shape)),
        )  # fmt: skip
        incident = Incidence.of(n, selection.particle, (0.0, 0.0), selection.theta, 0.0)
        config = {"explorer": __version__, "steps": steps, "seed": self._seed}
        showers = PlateShowers.of(
            stacks, made.absorber.numpy(), made.active.numpy(), np.full(n, selection.energy), incident,
            seed=self._seed, origin=self._surrogate.card.name, config=config,
        )  # fmt: skip
        reference, note = self.reference.at(selection)
        return StackView(
            selection, design, showers, reference, steps, 1e3 * (time.perf_counter() - began), note
        )  # fmt: skip

    def slope(self, selection: StackSelection, check: Check) -> StackSlope:
        """Return the derivatives at a selection. Raises `UtilityError` if one is not finite."""
        objective = StackObjective((MeanEnergy(), VisibleResolution()), (), selection.beam)
        found = stack_gradient(
            self._surrogate, self.limits.design(selection), (selection.energy,), objective, showers=SLOPE_SHOWERS,
            draws=SLOPE_DRAWS, seed=self._seed, progress=lambda *_: check(),
        )  # fmt: skip
        return StackSlope(selection, *found.gradients)

    def climb(self, selection: StackSelection) -> Climb:
        """Return the ascent of -ln(sigma/E); the number of layers stays, and the stack gets no deeper."""
        ranges, deepest = self.limits.sizes(selection), self.limits.deepest(selection)
        space = StackSpace.around(self.limits.design(selection), *ranges, per_layer=False, max_depth=deepest)
        objective = StackObjective((VisibleResolution(),), (selection.energy,), selection.beam)
        utility = resolution_utility(self._surrogate, space, objective, showers=SLOPE_SHOWERS)

        def gradient(y: np.ndarray, draws: int, seed: int) -> AnyGradient:  # noqa: ARG001
            return utility(y, draws, self._seed)

        def step(y: tuple[float, ...]) -> StackSelection:
            return replace(selection, absorber_thickness=y[0], active_thickness=y[1])

        start = np.array([np.clip(size, *ends) for size, ends in zip(selection.place, ranges, strict=True)])
        return Climb(space, start, gradient, SLOPE_DRAWS, step)

    def write(self, view: StackView, path: Path) -> None:
        """Write the showers of a view as `calograd sample` does."""
        view.showers.write(path)

    def draw_event(self, view: StackView, number: int, axes: Axes) -> None:
        """Draw visible energies of the layers: mean, spread and one shower."""
        from calograd.reports.style import GEANT4, SINGLE, SURROGATE, SURROGATE_LIGHT

        ours, theirs = view.layers("visible")
        layer, mean, spread = np.arange(1, ours.shape[1] + 1), ours.mean(0), ours.std(0, ddof=1)
        axes.fill_between(layer, np.maximum(mean - spread, 0), mean + spread, color=SURROGATE_LIGHT, alpha=0.5, lw=0)
        axes.plot(layer, mean, color=SURROGATE, label="mean and standard deviation")
        axes.plot(layer, ours[number], ".-", color=SINGLE, lw=0.8, ms=3, label=f"shower {number}")
        if theirs is not None:
            axes.errorbar(layer, theirs.mean(0), theirs.std(0, ddof=1) / len(theirs) ** 0.5, fmt=".", ms=3,
                          color=GEANT4, label="Geant4, mean")  # fmt: skip
        axes.set(xlabel="layer", ylabel="visible energy [GeV]", ylim=(0, None))
        axes.legend()

    def grid_key(self, selection: StackSelection) -> Hashable:
        """Return everything but the thicknesses."""
        return replace(selection, absorber_thickness=1.0, active_thickness=1.0)

    def grid_row(self, selection: StackSelection, x: float, y: np.ndarray) -> np.ndarray:
        """Return visible energies of the stacks of one absorber's thickness, shape (b, n), GeV."""
        active = torch.from_numpy(np.repeat(y, EVENTS)[:, None])
        design = SamplingDesign(
            *self.limits.materials(selection), torch.full_like(active, x), active, selection.n_layers
        )  # fmt: skip
        with torch.inference_mode():
            made = self._sample(design, selection, np.tile(np.arange(EVENTS), len(y)), 3,
                                few_steps(self._surrogate, STEPS))  # fmt: skip
        return np.asarray(made.active.double().sum(1).reshape(len(y), EVENTS).numpy())

    def grid_values(
        self,
        selection: StackSelection,  # noqa: ARG002
        x: np.ndarray,  # noqa: ARG002
        y: np.ndarray,  # noqa: ARG002
        rows: Sequence[np.ndarray],
    ) -> np.ndarray:
        """Return sigma/E of the visible energy, percent."""
        visible = np.stack(rows)
        return np.asarray(100 * visible.std(2, ddof=1) / visible.mean(2))

    def _sample(
        self, design: SamplingDesign, selection: StackSelection, rows: range | np.ndarray, purpose: int,
        steps: int | None,
    ) -> LayerEnergies:  # fmt: skip
        made: LayerEnergies = self._surrogate.sample(
            design, selection.energy, len(rows), generator=generator_for(self._seed, SHOWERS, purpose, 0), shower=rows,
            steps=steps, particle=selection.particle, theta=selection.theta, layers_only=True,
        )  # fmt: skip
        return made


def _fraction(seen: PlateObservables) -> float:
    """Return the share of the deposited energy that is visible."""
    return float(seen.visible.sum() / (seen.visible.sum() + seen.absorbed.sum()))


def _values(seen: PlateObservables, name: str) -> np.ndarray:
    """Return the values of an observable with a histogram: energies over the incident one, percent."""
    if name == "E_vis":
        return 100 * seen.column("E_vis/E_inc")
    if name == "leakage":
        return 100 * (1 - seen.column("E_dep/E_inc"))
    depths = seen.column(name)
    return np.asarray(depths[np.isfinite(depths)])


def _numbers(seen: PlateObservables) -> dict[str, Number]:
    """Return the numbers of the table by their names, see `UNITS`."""
    visible, absorbed = seen.visible.sum(1), seen.absorbed.sum(1)
    value, error = relative_spread(visible)
    per_shower = {
        "E_vis": visible, "E_vis/E_dep": 100 * visible / np.maximum(visible + absorbed, 1e-12), "E_abs": absorbed,
        "leakage": seen.energy * (1 - seen.column("E_dep/E_inc")),
        "depth": _values(seen, "depth_mean"),
    }  # fmt: skip
    found = {name: summary(values) for name, values in per_shower.items()}
    return found | {"sigma/E_vis": Number(100 * value, 100 * error)}


def _profile(seen: PlateObservables, edges: np.ndarray) -> Profile:
    """Return the energy in absorbers and active plates per radiation length, a bin a layer."""
    density = (seen.visible + seen.absorbed) / np.diff(edges)
    return Profile(edges, density.mean(0), density.std(0, ddof=min(len(density) - 1, 1)) / len(density) ** 0.5)


def _signed(value: float, error: float) -> str:
    """Return a number with its sign and error, to the digits of the error."""
    digits = max(0, 1 - int(np.floor(np.log10(error)))) if error > 0 else 3
    return f"{value:+.{digits}f} ± {error:.{digits}f}"
