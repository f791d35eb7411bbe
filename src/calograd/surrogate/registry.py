"""The kinds of surrogate. A new kind is a folder with an architecture and a model, and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from calograd.errors import InputError
from calograd.surrogate.cells.model import CellsArchitecture
from calograd.surrogate.maps.model import MapsArchitecture
from calograd.surrogate.model import Architecture
from calograd.surrogate.plates.model import PlatesArchitecture
from calograd.surrogate.points.model import PointsArchitecture

KINDS: dict[str, type[Architecture]] = {
    "cells": CellsArchitecture,
    "maps": MapsArchitecture,
    "points": PointsArchitecture,
    "plates": PlatesArchitecture,
}
"""Architecture of every kind of surrogate by its name."""


def architecture(kind: str, sizes: Mapping[str, Any]) -> Any:
    """Return the architecture of a kind from plain data, as ``to_dict`` gives it. Raises `InputError` for no kind."""
    if kind not in KINDS:
        raise InputError(f"unknown kind of surrogate '{kind}'; expected one of {', '.join(KINDS)}")
    return KINDS[kind](**sizes)
