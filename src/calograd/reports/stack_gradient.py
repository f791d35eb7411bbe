"""Report and figures of the derivatives of a stack of plates."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from calograd.gradients.estimates import GradientEstimate
from calograd.gradients.stacks import StackCheck, StackGradient, StackGradientResult
from calograd.io.files import refuse_existing, write_whole
from calograd.objective.stack_space import KINDS
from calograd.reports.gradient import count
from calograd.reports.page import Drawing, pictures, render
from calograd.reports.style import GEANT4, SURROGATE

TITLES = {"absorber": "absorbers", "active": "active plates"}
"""Words for the plates of a kind."""


def draw_stack_gradient(found: StackGradient, check: StackCheck | None = None) -> Figure:
    """Draw the derivative with respect to every plate against the layer, with 95 % error bars, Geant4's beside it.

    A mean is differentiated per cm, a resolution in logarithms. Where Geant4 knows a common change alone, a band shows
    it over the number of layers: the mean of the derivatives of all plates.
    """
    figure = Figure(figsize=(8.4, 3.1), layout="constrained")
    panels = figure.subplots(1, 2, squeeze=False)[0]
    relative, layers = found.quantity.relative, len(found.thickness) // 2
    number = np.arange(layers)
    theirs = check.plates.geant4 if check is not None and check.plates is not None else None
    for k, (panel, kind) in enumerate(zip(panels, KINDS, strict=True)):
        of, shift = slice(k * layers, (k + 1) * layers), 0.18 if theirs is not None else 0.0
        panel.axhline(0, color="#9aa0a6", lw=0.8)
        if theirs is not None:
            _points(panel, number + shift, theirs, of, relative, GEANT4, "Geant4, regression")
        elif check is not None:
            common = check.common.geant4
            value, reach = (each[k] / layers for each in _numbers(common, relative))
            panel.axhspan(value - reach, value + reach, color="#c9ccd0", alpha=0.7, lw=0)
            panel.axhline(value, color=GEANT4, lw=1, label="Geant4, all plates over their number")
        ours = found.plates()
        _points(panel, number - shift, ours, of, relative, SURROGATE, "surrogate, back-propagation")
        panel.set_title(f"{TITLES[kind]}, {_sizes(found.thickness[of])} cm")
        panel.set_xlabel("layer, from 0")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    unit = "" if relative else f", {found.quantity.unit}/cm"
    panels[0].set_ylabel(
        r"$\partial \ln(\sigma/E)\;/\;\partial \ln t$" if relative else rf"$\partial Q/\partial t${unit}"
    )
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


def _points(
    panel: Axes, x: np.ndarray, estimate: GradientEstimate, of: slice, relative: bool, colour: str, label: str
) -> None:
    values, reach = (each[of] for each in _numbers(estimate, relative))
    panel.errorbar(x, values, reach, fmt="o", ms=3, lw=1, color=colour, label=label)


def _numbers(estimate: GradientEstimate, relative: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return derivatives and the half width of their 95 % intervals: in logarithms, or per cm."""
    scale = 1.0 if relative else estimate.y
    return estimate.gradient / scale, (estimate.interval[1] - estimate.gradient) / scale


def _sizes(thickness: np.ndarray) -> str:
    low, high = float(thickness.min()), float(thickness.max())
    return f"{low:.3g}" if high - low < 1e-6 * high else f"{low:.3g} to {high:.3g}"


def stack_gradient_drawings(result: StackGradientResult) -> list[Drawing]:
    """Return the figures of the derivatives of every quantity with respect to every plate."""
    checks: list[StackCheck | None] = [*result.checks] or [None] * len(result.gradients)
    return [
        Drawing(
            partial(draw_stack_gradient, found, check),
            f"{str(found.quantity)[0].upper()}{str(found.quantity)[1:]}, {found.energy:g} GeV: derivative with respect "
            "to the thickness of every plate, with 95 % error bars. Where it is positive, the quantity grows with the "
            "thickness.",
            f"Derivatives of every plate at {found.energy:g} GeV", "gradient",
        )
        for found, check in zip(result.gradients, checks, strict=True)
    ]  # fmt: skip


def write_stack_gradient_report(path: Path, result: StackGradientResult) -> None:
    """Write the report of derivatives of a stack, an HTML file with its figures inside.

    Raises:
        OutputExistsError: ``path`` exists.
        InputError: ``path`` cannot be written.
    """
    refuse_existing(path)
    compared = [each for check in result.checks for each in (check.common, check.plates) if each is not None]
    design, reference = result.design, f" and {result.reference}" if result.checks else ""
    about = [each.about for each in result.gradients] + [each.common.geant4.about for each in result.checks]
    page = render(
        "stack_gradient.html.j2",
        title=f"CaloGrad: derivatives of a stack of {design.absorber.name} and {design.active.name}",
        subtitle=f"{result.surrogate}{reference} · {design.n_layers} layers, "
        f"{_sizes(design.absorber_thickness.detach().numpy())} and "
        f"{_sizes(design.active_thickness.detach().numpy())} cm",
        pictures=pictures(stack_gradient_drawings(result)), judged=result.objective.describe().items(),
        columns=result.columns(), rows=result.rows(), count=count(compared) if compared else None,
        about=json.dumps(about, indent=1),
    )  # fmt: skip
    write_whole(path, page.encode())
