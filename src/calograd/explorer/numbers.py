"""The numbers of a view with standard errors, as rows of a table, HTML and plain data."""

from __future__ import annotations

from dataclasses import asdict
from html import escape
from typing import Any

from calograd._version import __version__
from calograd.explorer.kinds import Column, Number, Slope, View
from calograd.explorer.landscape import Surface


def table_html(view: View) -> str:
    """Return the table of the page as HTML."""
    found = view.columns()
    head = "".join(f"<th>{escape(c.name)} [{escape(c.unit)}]</th>" for c in found)
    ours = "".join(_cell(c.ours) for c in found)
    rows = [f'<tr class="ours"><th>surrogate, {len(view)} showers</th>{ours}</tr>']
    if view.geant4_showers:
        theirs = "".join(_cell(c.theirs) for c in found if c.theirs)
        apart = "".join(f"<td>{100 * c.difference[0]:+.2f} ± {100 * c.difference[1]:.2f} %</td>"
                        for c in found if c.difference)  # fmt: skip
        rows.append(f"<tr><th>Geant4, {view.geant4_showers} showers</th>{theirs}</tr>")
        rows.append(f'<tr class="apart"><th>difference{" of means" * _all_means(found)}</th>{apart}</tr>')
    else:
        note = f'<td class="none" colspan="{len(found)}">{escape(view.note)}</td>'
        rows.append(f'<tr class="apart"><th>Geant4</th>{note}</tr>')
    return f'<table class="numbers"><tr><th></th>{head}</tr>{"".join(rows)}</table>'


def slope_html(slope: Slope) -> str:
    """Return the lines of a slope as HTML."""
    return "<br>".join(escape(line) for line in slope.lines())


def to_dict(view: View, slope: Slope | None, surface: Surface | None, model: str) -> dict[str, Any]:
    """Return everything that the page shows as plain data without NaN."""
    return {
        "schema": "calograd/view/1",
        "calograd": __version__,
        "model": model,
        "choice": asdict(view.selection),
        "incident": view.describe(),
        "showers": len(view),
        "observables": {
            c.name: {"unit": c.unit, "surrogate": _named(c.ours), "geant4": _named(c.theirs)} for c in view.columns()
        },
        **view.data(),
        "geant4_showers": view.geant4_showers,
        "gradient": slope.to_dict() if slope else None,
        "landscape": surface.to_dict() if surface else None,
    }


def _cell(number: Number) -> str:
    spread = "" if number.deviation is None else f"<i>std {number.deviation:.3g}</i>"
    return f"<td>{number.value:.4g} ± {number.error:.2g}{spread}</td>"


def _all_means(columns: list[Column]) -> bool:
    return all(column.ours.deviation is not None for column in columns)


def _named(known: Number | None) -> dict[str, float] | None:
    if known is None:
        return None
    named = {"mean" if known.deviation is not None else "value": known.value, "error": known.error}
    return named if known.deviation is None else named | {"deviation": known.deviation}
