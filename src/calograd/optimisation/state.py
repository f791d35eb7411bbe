"""State and history of an ascent, and the JSON file from which it resumes with the same result.

The file is replaced as a whole after every step. It holds the settings, the state and the history. Numbers are written
so that they are read back exactly.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from calograd.errors import FormatError, InputError
from calograd.io.files import write_whole
from calograd.objective.constraints import Array
from calograd.optimisation.quasi_newton import LOSS, Point

SCHEMA = "calograd/ascent/1"
"""Schema of the file."""

Vector = tuple[float, ...]
Outcome = Literal["moved", "undone", "refused", "stopped", "jumped", "settled"]


@dataclass(frozen=True)
class Check:
    """Comparison of the surrogate's predicted gain between two designs with simulated showers.

    Attributes:
        y: the design checked before, cm; the other one is that of the step.
        predicted, predicted_error: gain of the utility along the path by the gradients.
        simulated, simulated_error: gain on simulated showers.
        showers: simulated for this check.
        agrees: True if both agree, see `calograd.optimisation.ascent`.
    """

    y: Vector
    predicted: float
    predicted_error: float
    simulated: float
    simulated_error: float
    showers: int
    agrees: bool

    @property
    def gained(self) -> bool:
        """True if the gain on simulated showers is certain."""
        return self.simulated > LOSS * self.simulated_error

    @property
    def pull(self) -> float:
        """Simulated minus predicted gain in standard deviations."""
        return (self.simulated - self.predicted) / (
            (self.predicted_error**2 + self.simulated_error**2) ** 0.5 or 1e-300
        )


@dataclass(frozen=True)
class Step:
    """One step of an ascent. Vectors have shape (p,).

    Attributes:
        number: number of the step, from 0.
        y, u: the design, cm, and its logarithms.
        value, value_error: the surrogate's utility.
        gradient, gradient_error: dU/du.
        draws: independent draws the gradient is averaged over.
        outcome: "moved" on; "undone": the step to here lost, back before it; "refused": simulated showers disagree,
            back to the last checked design; "stopped"; "jumped" to a better design elsewhere; "settled": the end was
            compared with the maximum before the jump, and the better one is the result.
        reason: text, unless it just moved on.
        move: the next step, in u.
        gain, gain_error: expected gain to first order, and its standard error.
        radius: longest step.
        limit: limit of the radius that the checks allow.
        simulated: showers simulated so far.
        check: if one was made.
        hits: active bounds and budgets.
        adapter: name of the surrogate's adapter; empty for none.
        adaptation: showers simulated to adapt it for this step, among ``simulated``; 0: the adapter of the step before.
    """

    number: int
    y: Vector
    u: Vector
    value: float
    value_error: float
    gradient: Vector
    gradient_error: Vector
    draws: int
    outcome: Outcome
    reason: str
    move: Vector
    gain: float
    gain_error: float
    radius: float
    limit: float
    simulated: int
    check: Check | None
    hits: tuple[str, ...]
    adapter: str = ""
    adaptation: int = 0


@dataclass(frozen=True)
class PathPoint:
    """A `calograd.optimisation.quasi_newton.Point` as plain data."""

    u: Vector
    gradient: Vector
    error: Vector
    value: float
    value_error: float

    @classmethod
    def of(cls, point: Point) -> PathPoint:
        """Return a point as plain data."""
        return cls(
            to_floats(point.u), to_floats(point.gradient), to_floats(point.error), point.value, point.value_error
        )

    def point(self) -> Point:
        """Return the point."""
        return Point(np.array(self.u), np.array(self.gradient), np.array(self.error), self.value, self.value_error)


@dataclass(frozen=True)
class State:
    """State of an ascent between two steps.

    Attributes:
        y, u: design where the next step begins, cm, and its logarithms; in the end, the result.
        checked: the last design that simulated showers confirmed; the start at first.
        path: estimates of the surrogate since then.
        curvature: curvature of the model, shape (p, p); None if nothing is known.
        radius, limit: longest step and its limit.
        simulated: showers so far.
        history: every step.
        reason: reason why it stopped; empty while it goes on.
        ending: reason why it would have stopped, where a multi-start comes first, or a comparison of the end with
            ``rival``.
        multi_started: True if the multi-start is done.
        rival: local maximum from which it jumped to a better design, in logarithms.
    """

    y: Vector
    u: Vector
    checked: Vector
    path: tuple[PathPoint, ...]
    curvature: tuple[Vector, ...] | None
    radius: float
    limit: float
    simulated: int = 0
    history: tuple[Step, ...] = ()
    reason: str = ""
    ending: str = ""
    multi_started: bool = False
    rival: Vector | None = None


def to_floats(values: Array) -> Vector:
    """Return an array of shape (p,) as plain numbers."""
    return tuple(float(value) for value in values)


_STATE = TypeAdapter(State)


def write_state(path: Path, state: State, setting: dict[str, Any]) -> None:
    """Write a state. Raises `InputError` if it cannot be written."""
    content: dict[str, Any] = {"schema": SCHEMA, "setting": setting, "state": asdict(state)}
    content["digest"] = _digest(json.loads(json.dumps(content, allow_nan=False)))
    then = "; mend this and repeat the command, it goes on from the last step"
    write_whole(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode(), then)


def _digest(content: dict[str, Any]) -> str:
    """Return the SHA-256 of plain data, which reveals damage."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_state(path: Path, setting: dict[str, Any]) -> State | None:
    """Return the state in ``path``, or None if there is no such file.

    Raises:
        FormatError: the file is damaged or of another kind.
        InputError: it is of another setting (configuration, space or start).
    """
    if not path.exists():
        return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["schema"] != SCHEMA:
            raise FormatError(f"{path} has schema '{stored['schema']}', expected '{SCHEMA}'")
        if stored.pop("digest", None) not in (None, _digest(stored)):
            raise ValueError("its contents do not fit its digest")
        state, before = _STATE.validate_python(stored["state"]), dict(stored["setting"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error.errors()[0]["msg"] if isinstance(error, ValidationError) else error).split())
        raise FormatError(f"{path} is damaged ({reason[:120]}); remove it to start anew") from error
    for key, value in json.loads(json.dumps(setting)).items():
        if before.get(key) != value:
            raise InputError(
                f"{path} holds an ascent of another setting: {key} is {value}, was {before.get(key)}; "
                "change it back or choose another output"
            )
    return state
