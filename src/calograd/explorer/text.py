"""Selections as text: parameters of a page's address, tables as TOML, materials in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from math import isfinite
from typing import Any

from calograd.detector.material import ELEMENTS, Material, to_float
from calograd.errors import InputError

MOST_DIGITS = 3
"""Most digits of a whole number."""


def check_name(name: str, known: Sequence[str]) -> None:
    """Raise `InputError` for the name of a parameter that is not known, with the nearest one that is."""
    if name not in known:
        near = get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"expected {', '.join(known)}"
        raise InputError(f"address: unknown parameter '{name}'; {hint}")


def to_number(name: str, text: str) -> float:
    """Return a number of an address. Raises `InputError` for anything else."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not isfinite(value):
        raise InputError(f"address: {name} = '{text}': expected a number")
    return value


def to_count(name: str, text: str) -> int:
    """Return a whole number of an address. Raises `InputError` for anything else."""
    if not (text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS):
        raise InputError(f"address: {name} = '{text[:20]}': expected a whole number")
    return int(text)


def to_particle(query: Mapping[str, str], usual: str, known: Sequence[str]) -> Any:
    """Return the particle of an address, by default the usual one. Raises `InputError` for one that is not known."""
    particle = query.get("particle", usual).replace(" ", "+")  # a + in an address stands for a space
    if particle not in known:
        raise InputError(f"address: particle = '{particle}' was not trained on; expected one of {', '.join(known)}")
    return particle


def to_toml(tables: dict[str, Any]) -> str:
    """Format tables as TOML. Strings and lists are written as JSON, which is valid TOML."""
    lines = [f"{key} = {_toml(value)}" for key, value in tables.items() if not _is_table(value)]
    for key, value in tables.items():
        if _is_table(value):
            head = f"[[{key}]]" if isinstance(value, list) else f"[{key}]"
            for each in value if isinstance(value, list) else [value]:
                lines += ["", head, *(f"{name} = {_toml(what)}" for name, what in each.items())]
    return "\n".join([*lines, ""])


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and all(isinstance(each, dict) for each in value))


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_toml(each)}' for key, each in value.items())} }}"
    return json.dumps(value)


def in_words(material: Material) -> str:
    """Return words that `Material.parse` reads as the same material, or as the same composition and density."""
    with suppress(InputError):
        if Material.parse(material.name).alike(material):
            return material.name
    counts = {s: share / ELEMENTS[s][1] for s, share in material.mass_fractions.items() if share > 0}
    formula = "".join(f"{symbol}{count / max(counts.values()):.5f}" for symbol, count in counts.items())
    return f"{material.name}:{to_float(material.density):.6g}:{formula}"
