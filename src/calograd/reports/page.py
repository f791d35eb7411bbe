"""The HTML page of reports: one file, no network, every string escaped."""

from __future__ import annotations

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from calograd._version import __version__


def templates(package: str) -> Environment:
    """Return the templates of a package; they may extend ``page.html.j2`` and import from ``figure.html.j2``."""
    made = Environment(
        loader=ChoiceLoader([PackageLoader(package, "."), PackageLoader("calograd.reports", ".")]),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.globals |= {"zip": zip, "norm": np.linalg.norm, "version": __version__}
    return made
