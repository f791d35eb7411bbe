"""The kinds of surrogate there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from calograd.surrogate.cells import CellsArchitecture
from calograd.surrogate.maps import MapsArchitecture
from calograd.surrogate.model import Architecture

Kind = Literal["cells", "map32"]


def architecture(kind: Kind, numbers: Mapping[str, Any]) -> Architecture:
    """The architecture of a kind of surrogate from plain data, as ``to_dict`` gives it."""
    return CellsArchitecture(**numbers) if kind == "cells" else MapsArchitecture(**numbers)
