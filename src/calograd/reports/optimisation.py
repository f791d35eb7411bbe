"""Reports of gradients and optimisations: one HTML file with its figures inside, no network, every string escaped."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from calograd.detector.material import Material
from calograd.gradients.autodiff import GradientEstimate
from calograd.gradients.check import GradientCheck
from calograd.gradients.estimates import SimulatedUtility
from calograd.gradients.landscape import Landscape, geant4_landscape, grid, surrogate_landscape
from calograd.io.hdf5 import refuse_existing, write_whole
from calograd.objective.reference import Reference
from calograd.objective.space import format_parameters, unit
from calograd.objective.utility import Objective
from calograd.optimisation.run import Setup
from calograd.optimisation.state import State
from calograd.reports.gradient_figures import draw_ascent, draw_gradients, draw_landscapes
from calograd.reports.page import templates
from calograd.reports.style import Picture, picture
from calograd.surrogate import Surrogate

PRECISE = 0.05
"""Relative error up to which Geant4's vector is precise."""

Tell = Callable[[str, int, int | None], None]
"""Called as tell(stage, done, total)."""


@dataclass(frozen=True)
class Count:
    """How many components agree.

    Args:
        components: of all points.
        known, right: signs that Geant4 knows, and the right ones of these.
        close: pulls below 2.
        cosine: the smallest in ln y where Geant4's vector is precise, else of all.
        precise: whether any is.
    """

    components: int
    known: int
    right: int
    close: int
    cosine: float
    precise: bool


def count(both: list[GradientCheck]) -> Count:
    """Agreement over points."""
    components = [component for each in both for component in each.components]
    precise = [each.cosine for each in both if each.precision < PRECISE]
    return Count(
        len(components), sum(c.known for c in components), sum(c.known and not c.wrong_sign for c in components),
        sum(abs(c.pull) < 2 for c in components), min(precise or [each.cosine for each in both]), bool(precise),
    )  # fmt: skip


def landscapes(
    surrogate: Surrogate,
    reference: Reference | None,
    objective: Objective,
    points: int,
    seed: int,
    tell: Tell,
    material: Material | None = None,
) -> list[Landscape]:
    """Of the trained range, Geant4's first if there is a reference; ``material`` None: the one trained on."""
    material = material or surrogate.card.substance()
    card = surrogate.card.in_cm(material)
    dx, dz = grid(*card.dx, points), grid(*card.dz, points)
    made = []
    if reference is not None:
        made.append(
            geant4_landscape(
                reference, objective, dx, dz, n_z=surrogate.model.architecture.n_z, seed=seed,
                progress=partial(tell, "landscape, Geant4"),
            )
        )  # fmt: skip
    made.append(
        surrogate_landscape(
            surrogate, objective, dx, dz, material=material, seed=seed, progress=partial(tell, "landscape, surrogate")
        )
    )
    return made


def write_gradient_report(
    path: Path,
    energies: list[float],
    ours: list[GradientEstimate],
    both: list[GradientCheck],
    drawn: list[Landscape],
    landscape_energy: float,
) -> None:
    """Write the report of gradients at one design.

    Args:
        path: of the HTML file.
        energies: GeV, one a gradient.
        ours: the surrogate's.
        both: beside Geant4's; empty without a reference.
        drawn: landscapes; may be none.
        landscape_energy: of the landscapes, GeV.

    Raises:
        OutputExistsError: ``path`` exists.
        InputError: ``path`` cannot be written.
    """
    refuse_existing(path)
    first = ours[0]
    pictures: dict[str, Picture] = {
        "gradient": picture(
            partial(draw_gradients, energies, ours, both or None),
            "Relative change of the utility for a relative change of a parameter, with 95 % bands"
            + ("; below: surrogate over Geant4, green: within 10 %." if both else "."),
            "Gradient against energy",
        )
    }  # fmt: skip
    if drawn:
        at = (float(first.y[0]), float(first.y[1])) if len(first.y) == 2 else None
        pictures["landscape"] = picture(
            partial(draw_landscapes, drawn, f"U at {landscape_energy:g} GeV", at=at),
            f"The utility at {landscape_energy:g} GeV over pitch and depth of equal layers, with arrows along its "
            "gradient in ln y; Geant4's from differences on the grid.",
            "Utility over dx and dz",
        )  # fmt: skip
    sizes = format_parameters(first.names, first.y)
    about = [each.about for each in ours] + [each.geant4.about for each in both]
    page = templates("calograd.reports").get_template("gradient.html.j2").render(
        title="CaloGrad: gradient of a utility", subtitle=f"{first.about['source']} · {sizes}",
        pictures=pictures, rows=gradient_rows(energies, ours, both), count=count(both) if both else None,
        about=json.dumps(about, indent=1),
    )  # fmt: skip
    write_whole(path, page.encode())


def write_optimisation_report(
    path: Path,
    state: State,
    setup: Setup,
    drawn: list[Landscape],
    final: tuple[SimulatedUtility, SimulatedUtility] | None,
) -> None:
    """Write the report of an optimisation; one that is there is replaced, it belongs to the run's folder.

    Args:
        path: of the HTML file.
        state: in the end.
        setup: what was optimised.
        drawn: landscapes of two parameters; may be none.
        final: Geant4's utility at the start, and the gain of the result over it; None without checks.
    """
    names, adapted = setup.space.names, sum(step.adaptation for step in state.history)
    marks = (
        " Triangles mark the steps that the surrogate was adapted for, with showers that count on the right; its "
        "utilities there are of different adapters."
    )
    pictures: dict[str, Picture] = {
        "descent": picture(
            partial(draw_ascent, state.history, names),
            "Left: the parameters. Middle: the surrogate's utility with its 95 % band. Right: the gains that simulated "
            "showers confirmed, added up from the surrogate's first value, beside those that the gradients predicted."
            + (marks if adapted else ""),
            "Course of the optimisation",
        )
    }  # fmt: skip
    if drawn:
        trajectory = np.array([step.y for step in state.history])
        pictures["landscape"] = picture(
            partial(draw_landscapes, drawn, "U", path=trajectory),
            "The utility over pitch and depth with the trajectory; arrows along the gradient in ln y."
            + (" By the last adapter, which has seen showers along the trajectory alone." if adapted else ""),
            "Trajectory on the landscape",
        )  # fmt: skip
    about = setup.surrogate.card.name + (" adapted on the way" if adapted else "")
    page = templates("calograd.reports").get_template("descent.html.j2").render(
        title="CaloGrad: optimisation of a design", pictures=pictures, state=state, names=names, unit=unit,
        subtitle=f"{about} · {len(state.history)} steps · {state.simulated} simulated showers",
        start=setup.start.tolist(), final=final, adapted=adapted, config=setup.config.model_dump_json(indent=1),
    )  # fmt: skip
    write_whole(path, page.encode())


def gradient_rows(energies: list[float], ours: list[GradientEstimate], both: list[GradientCheck]) -> list[list[Any]]:
    """Rows of the table: a line a component."""
    rows: list[list[Any]] = []
    for k, (energy, estimate) in enumerate(zip(energies, ours, strict=True)):
        for j, name in enumerate(estimate.names):
            mine = float(estimate.gradient[j])
            row: list[Any] = [
                f"{energy:g}",
                f"{name} = {estimate.y[j]:g}",
                f"{mine:.4g}",
                _interval(estimate.interval[0][j], estimate.interval[1][j]),
            ]
            if both:
                c, each = both[k].components[j], both[k]
                row += [f"{c.geant4:.4g}", _interval(*c.geant4_interval), f"{c.ratio:.3f} +- {c.ratio_error:.3f}",
                        f"{c.pull:+.2f}", f"{each.cosine:.4f}" if j == 0 else "",
                        f"{each.cosine_raw:.4f}" if j == 0 else ""]  # fmt: skip
            rows.append(row)
    return rows


def _interval(low: float, high: float) -> str:
    return f"{low:.4g} to {high:.4g}"
