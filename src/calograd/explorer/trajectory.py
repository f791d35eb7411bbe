"""The designs of an optimisation, from the folder that ``calograd optimise`` wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from calograd.errors import FormatError
from calograd.explorer.selection import Choice
from calograd.optimisation.run import CONFIG, DESCENT
from calograd.optimisation.state import read_state


def read_trajectory(folder: Path, start: Choice) -> list[tuple[Choice, float]]:
    """Designs with their utilities, step by step; energy and material are those of ``start``.

    Raises:
        FormatError: no such folder, or one that holds no descent or a damaged one.
    """
    state = read_state(folder / DESCENT, {})
    if state is None:
        raise FormatError(f"{folder} holds no {DESCENT}; expected a folder written by 'calograd optimise'")
    try:
        names = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["config"]["space"]["parameters"]
        found = []
        for step in state.history:
            y = dict(zip(names, step.y, strict=True))
            dz = (y["dz"],) * len(start.dz) if "dz" in y else tuple(y[f"dz_{k + 1}"] for k in range(len(start.dz)))
            found.append((replace(start, dx=y["dx"], dz=dz), step.value))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{folder / CONFIG} does not fit {DESCENT} ({error}); expected a whole run") from error
    return found
