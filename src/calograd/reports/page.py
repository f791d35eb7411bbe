"""Pages of reports: figures as data URIs, and HTML that is one file, needs no network and escapes every string."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from calograd._version import __version__
from calograd.evaluation.timing import short
from calograd.reports.style import png
from calograd.system.progress import StageProgress, silent


@dataclass(frozen=True)
class Picture:
    """A figure in a page.

    Args:
        uri: image as a data URI.
        caption: sentences below the figure.
        alt: text for screen readers.
    """

    uri: str
    caption: str
    alt: str


class Drawing(NamedTuple):
    """A figure to be drawn.

    Attributes:
        draw: function that draws it.
        caption, alt: as in `Picture`.
        group: part of the page that it belongs to.
    """

    draw: Callable[[], Figure]
    caption: str
    alt: str
    group: str = ""


def picture(draw: Callable[[], Figure], caption: str, alt: str) -> Picture:
    """Draw a figure for a page."""
    encoded = base64.b64encode(png(draw, margin=0.06)).decode()
    return Picture(f"data:image/png;base64,{encoded}", caption, alt)


def pictures(drawings: Sequence[Drawing], progress: StageProgress = silent) -> Mapping[str, list[Picture]]:
    """Draw the figures of a page, by group; a group without figures is an empty list."""
    made: dict[str, list[Picture]] = defaultdict(list)
    for number, drawing in enumerate(drawings):
        progress("figures", number, len(drawings))
        made[drawing.group].append(picture(*drawing[:3]))
    progress("figures", len(drawings), len(drawings))
    return made


def render(template: str, package: str = "calograd.reports", **values: Any) -> str:
    """Return a page from a template of a package; it may extend ``page.html.j2`` and import ``figure.html.j2``."""
    made = Environment(
        loader=ChoiceLoader([PackageLoader(package, "."), PackageLoader("calograd.reports", ".")]),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.globals |= {"zip": zip, "norm": np.linalg.norm, "version": __version__}
    made.filters |= {
        "number": _number,
        "percent": lambda value: f"{100 * value:+.2f}" if isfinite(value) else "-",
        "energy": lambda value: f"{value:g} GeV",
        "g3": lambda value: "-" if value is None else short(value),
    }
    return made.get_template(template).render(values)


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}g}" if isfinite(value) else "-"
