"""Description of a file of showers: its particles, beam, material and detector, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

PARTICLES = {"gamma": "photons", "e-": "electrons", "e+": "positrons"}
"""Names of particles in sentences."""


def describe_setup(*records: Any) -> str:
    """Return particle, energies, detector and beam in words, as far as one of the records knows them.

    Args:
        records: cells, maps or points; the first whose configuration knows the beam is described.
    """
    known = next((r for r in records if isinstance(find(r.config, "beam"), Mapping)), records[0])
    beam = find(known.config, "beam") or {}
    particle = PARTICLES.get(beam.get("particle", ""), beam.get("particle")) or "particles that the files do not name,"
    low, high = float(np.min(known.energy)), float(np.max(known.energy))
    energies = f"{low:g} GeV" if np.isclose(low, high) else f"{low:.4g} to {high:.4g} GeV"
    return f"{particle[:1].upper()}{particle[1:]} of {energies} in {_detector(known)}{_direction(beam)}"


def _detector(records: Any) -> str:
    """Return the detector in words."""
    if (find(records.config, "detector") or {}).get("kind") == "siw" or not hasattr(records, "material"):
        return f"a silicon-tungsten stack of {records.layers} layers"
    return f"{records.material.name} ({records.material.density:g} g/cm³)"


def _direction(beam: Mapping[str, Any]) -> str:
    """Return how the beam enters, nothing where it is not known."""
    if "theta" not in beam:
        return ""
    theta, position = float(beam["theta"]), tuple(beam.get("position", (0.0, 0.0)))
    angle = "at normal incidence" if not theta else f"at {theta:g}° to the axis"
    place = "" if not any(position) else f", entering at x = {position[0]:g}, y = {position[1]:g} cm"
    return f", {angle}{place}"


def describe_window(records: Any) -> str:
    """Return whether cells or maps show a window into a larger block or the whole of it, from the configuration."""
    if isinstance(mode := find(records.config, "mode"), str):
        return mode
    size = find(records.config, "size")
    if not (isinstance(size, list | tuple) and len(size) == 3):
        return "not stated"
    window = np.column_stack([records.dx * records.n_xy, records.dz.sum(axis=1)])
    whole = np.allclose(window, [size[0], size[2]], rtol=1e-3)
    return "stand-alone block" if whole else "embedded (a window into a larger block)"


def find(config: Any, key: str) -> Any:
    """Return the first value under ``key`` anywhere in nested configuration, None if there is none."""
    if isinstance(config, Mapping):
        if key in config:
            return config[key]
        return next((v for v in (find(c, key) for c in config.values()) if v is not None), None)
    if isinstance(config, list | tuple):
        return next((v for v in (find(c, key) for c in config) if v is not None), None)
    return None
