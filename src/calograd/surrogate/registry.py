"""The kinds of surrogate: of designs, whose sizes are conditions, and of a stack, a given layered detector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from calograd.surrogate.base import Architecture
from calograd.surrogate.cells.model import CellsArchitecture
from calograd.surrogate.maps.model import MapsArchitecture
from calograd.surrogate.points.base import StackArchitecture
from calograd.surrogate.points.grids import GridArchitecture
from calograd.surrogate.points.model import CloudArchitecture

DesignKind = Literal["cells", "map32"]
StackKind = Literal["cloud", "grid30"]
Kind = DesignKind | StackKind

DESIGN_KINDS: tuple[str, ...] = get_args(DesignKind)
STACK_KINDS: tuple[str, ...] = get_args(StackKind)


def architecture(kind: DesignKind, numbers: Mapping[str, Any]) -> Architecture:
    """The architecture of a kind of surrogate of designs from plain data, as ``to_dict`` gives it."""
    return CellsArchitecture(**numbers) if kind == "cells" else MapsArchitecture(**numbers)


def stack_architecture(kind: StackKind, numbers: Mapping[str, Any]) -> StackArchitecture:
    """Likewise of a kind of surrogate of a layered detector."""
    return CloudArchitecture(**numbers) if kind == "cloud" else GridArchitecture(**numbers)
