"""The numbers of a view with standard errors, as rows of a table, HTML and plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from html import escape
from typing import Any

import numpy as np

from calograd._version import __version__
from calograd.explorer.landscape import Surface
from calograd.explorer.views import SHOWN, LocalGradient, View

UNITS = {"E_tot": "GeV", "R_E": "cm", "sigma_y": "cm", "z_mean": "cm", "sigma_z": "cm", "occupancy": "cells"}


@dataclass(frozen=True)
class Column:
    """Mean, its standard error and the standard deviation of one observable; ``theirs`` is Geant4's, or None."""

    name: str
    ours: tuple[float, float, float]
    theirs: tuple[float, float, float] | None

    @property
    def difference(self) -> tuple[float, float] | None:
        """Return the relative difference of the means and its standard error."""
        if self.theirs is None:
            return None
        (a, da, _), (b, db, _) = self.ours, self.theirs
        return a / b - 1, float(np.hypot(da, db) / b)


def columns(view: View) -> list[Column]:
    """Return one column for each observable that the page shows."""
    return [
        Column(name, _summary(getattr(view.observables, name)),
               _summary(getattr(view.reference, name)) if view.reference else None)
        for name in SHOWN
    ]  # fmt: skip


def table_html(view: View) -> str:
    """Return the table of the page as HTML."""
    found = columns(view)
    head = "".join(f"<th>{escape(c.name)} [{UNITS[c.name]}]</th>" for c in found)
    ours = "".join(f"<td>{c.ours[0]:.4g} ± {c.ours[1]:.2g}<i>std {c.ours[2]:.3g}</i></td>" for c in found)
    rows = [f'<tr class="ours"><th>surrogate, {len(view.cells)} showers</th>{ours}</tr>']
    if view.reference is not None:
        theirs = "".join(f"<td>{c.theirs[0]:.4g} ± {c.theirs[1]:.2g}<i>std {c.theirs[2]:.3g}</i></td>"
                         for c in found if c.theirs)  # fmt: skip
        apart = "".join(f"<td>{100 * c.difference[0]:+.2f} ± {100 * c.difference[1]:.2f} %</td>"
                        for c in found if c.difference)  # fmt: skip
        rows.append(f"<tr><th>Geant4, {len(view.reference.E_tot)} showers</th>{theirs}</tr>")
        rows.append(f'<tr class="apart"><th>difference of means</th>{apart}</tr>')
    else:
        rows.append(
            f'<tr class="apart"><th>Geant4</th><td class="none" colspan="6">{escape(view.note)}</td></tr>'
        )  # fmt: skip
    return f'<table class="numbers"><tr><th></th>{head}</tr>{"".join(rows)}</table>'


def utility_html(slope: LocalGradient) -> str:
    """Return one line of HTML with the utility and its gradient."""
    (x, z), (dx, dz), e = slope.arrow, slope.arrow_error, slope.estimate
    return (
        f"U = {e.value:.4g} ± {e.value_error:.1g} 1/GeV² &nbsp;·&nbsp; ∂ln U/∂ln dx = {x:+.2f} ± {dx:.2f}"
        f" &nbsp;·&nbsp; ∂ln U/∂ln dz = {z:+.2f} ± {dz:.2f}"
    )


def to_dict(view: View, slope: LocalGradient | None, surface: Surface | None, model: str) -> dict[str, Any]:
    """Return everything that the page shows as plain data without NaN."""
    return {
        "schema": "calograd/view/1",
        "calograd": __version__,
        "model": model,
        "choice": asdict(view.selection),
        "incident": view.incident.describe(),
        "showers": len(view.cells),
        "observables": {
            c.name: {"unit": UNITS[c.name], "surrogate": _named(c.ours), "geant4": _named(c.theirs)}
            for c in columns(view)
        },
        "layers": view.observables.layers.mean(0).tolist(),
        "geant4_showers": len(view.reference.E_tot) if view.reference else 0,
        "gradient": slope.estimate.to_dict() if slope else None,
        "landscape": {"dx": surface.dx.tolist(), "dz": surface.dz.tolist(), "values": surface.values.tolist()}
        if surface
        else None,
    }


def _summary(values: Any) -> tuple[float, float, float]:
    numbers = values.numpy()
    if not len(numbers):
        return 0.0, 0.0, 0.0
    spread = float(numbers.std(ddof=1)) if len(numbers) > 1 else 0.0
    return float(numbers.mean()), spread / len(numbers) ** 0.5, spread


def _named(known: tuple[float, float, float] | None) -> dict[str, float] | None:
    return None if known is None else dict(zip(("mean", "error", "deviation"), known, strict=True))
