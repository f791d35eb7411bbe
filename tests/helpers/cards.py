"""Cards of surrogates of designs that were never trained."""

from __future__ import annotations

from typing import Any

from calograd.detector.material import MATERIALS
from calograd.surrogate import Card, TrainedDesigns
from calograd.surrogate.model import Architecture

SIZES: dict[str, Any] = {"dx": (1, 5), "dz": (4, 15), "materials": (MATERIALS["PbF2"],), "mode": "embedded"}


def design_card(name: str, architecture: Architecture, kind: str = "cells", **trained: Any) -> Card:
    """PbF2, 1 to 100 GeV, pitches of 1 to 5 cm, depths of 4 to 15 cm, unless told otherwise."""
    designs = TrainedDesigns(**{**SIZES, **trained})
    return Card(
        name=name, kind=kind, architecture=architecture.to_dict(), energy=(1, 100), trained=designs, training={}
    )
