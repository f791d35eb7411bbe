"""Reports of gradients: one HTML file with its figures inside, no network, every string escaped."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from calograd import __version__
from calograd.evaluation.style import Picture, picture
from calograd.optimisation.agreement import Z95, Agreement
from calograd.optimisation.figures import draw_gradients, draw_landscapes
from calograd.optimisation.gradient import Estimate
from calograd.optimisation.landscape import Landscape, geant4_landscape, grid, surrogate_landscape
from calograd.optimisation.reference import Reference
from calograd.optimisation.utility import Objective
from calograd.showers.hdf5 import refuse_existing, write_whole
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


def count(both: list[Agreement]) -> Count:
    """Agreement over points."""
    components = [component for each in both for component in each.components]
    precise = [each.cosine for each in both if each.precision < PRECISE]
    return Count(
        len(components), sum(c.known for c in components), sum(c.known and not c.wrong_sign for c in components),
        sum(abs(c.pull) < 2 for c in components), min(precise or [each.cosine for each in both]), bool(precise),
    )  # fmt: skip


def landscapes(
    surrogate: Surrogate, reference: Reference | None, objective: Objective, points: int, seed: int, tell: Tell
) -> list[Landscape]:
    """Of the trained range, Geant4's first if there is a reference."""
    dx, dz = grid(*surrogate.card.dx, points), grid(*surrogate.card.dz, points)
    made = []
    if reference is not None:
        made.append(
            geant4_landscape(
                reference, objective, dx, dz, n_z=surrogate.model.architecture.n_z, seed=seed,
                report=partial(tell, "landscape, Geant4"),
            )
        )  # fmt: skip
    made.append(
        surrogate_landscape(surrogate, objective, dx, dz, seed=seed, report=partial(tell, "landscape, surrogate"))
    )
    return made


def write_gradient_report(
    path: Path,
    energies: list[float],
    ours: list[Estimate],
    both: list[Agreement],
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
    sizes = ", ".join(f"{name} = {value:g} cm" for name, value in zip(first.names, first.y, strict=True))
    about = [each.about for each in ours] + [each.geant4.about for each in both]
    page = environment().get_template("gradient.html.j2").render(
        title="CaloGrad: gradient of a utility", subtitle=f"{first.about['source']} · {sizes}", version=__version__,
        pictures=pictures, rows=gradient_rows(energies, ours, both), count=count(both) if both else None,
        about=json.dumps(about, indent=1),
    )  # fmt: skip
    write_whole(path, page.encode())


def environment() -> Environment:
    """Templates of this package on the page of `calograd.evaluation`."""
    return Environment(
        loader=ChoiceLoader([PackageLoader("calograd.optimisation", "."), PackageLoader("calograd.evaluation", ".")]),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


def gradient_rows(energies: list[float], ours: list[Estimate], both: list[Agreement]) -> list[list[Any]]:
    """Rows of the table: a line a component."""
    rows: list[list[Any]] = []
    for k, (energy, estimate) in enumerate(zip(energies, ours, strict=True)):
        for j, name in enumerate(estimate.names):
            mine, error = float(estimate.gradient[j]), float(estimate.gradient_error[j])
            row: list[Any] = [f"{energy:g}", f"{name} = {estimate.y[j]:g}", f"{mine:.4g}", _interval(mine, error)]
            if both:
                c, each = both[k].components[j], both[k]
                row += [f"{c.geant4:.4g}", _interval(c.geant4, c.geant4_error), f"{c.ratio:.3f} +- {c.ratio_error:.3f}",
                        f"{c.pull:+.2f}", f"{each.cosine:.4f}" if j == 0 else "",
                        f"{each.cosine_raw:.4f}" if j == 0 else ""]  # fmt: skip
            rows.append(row)
    return rows


def _interval(value: float, error: float) -> str:
    return f"{value - Z95 * error:.4g} to {value + Z95 * error:.4g}"
