"""What is looked at: a design, an energy, a background and a price on depth, as plain numbers.

A choice is also an optimisation that starts from it: `Choice.tables` are those that ``calograd optimise`` reads, the
utility is 1 / (alpha^2 + mean (E_meas - E_inc)^2) divided by 1 + price depth / X0.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calograd.detector.design import Design
from calograd.detector.material import ELEMENTS, Material, to_float
from calograd.errors import InputError
from calograd.objective.config import parse_objective
from calograd.objective.utility import Objective
from calograd.surrogate import Card, Surrogate

MOST_BACKGROUND, MOST_PRICE = 20.0, 0.1
"""Ends of what the page offers, MeV/cm3 and per radiation length."""
STRETCH = 0.2
"""Of the density, either way."""


@dataclass(frozen=True)
class Choice:
    """What is looked at.

    Args:
        dx: pitch, cm.
        dz: depth of every layer, cm.
        energy: incident, GeV.
        material: name of one that the surrogate knows.
        density: of the material, g/cm3.
        background: mean energy density at the front face, MeV/cm3; 0 for none.
        price: of depth: the utility is divided by 1 + price x radiation lengths.
    """

    dx: float
    dz: tuple[float, ...]
    energy: float
    material: str
    density: float
    background: float = 5.0
    price: float = 0.02

    @property
    def depth(self) -> float:
        """Mean depth of the layers, cm."""
        return float(np.mean(self.dz))

    @property
    def equal(self) -> bool:
        """Whether all layers have the same depth."""
        return max(self.dz) - min(self.dz) < 1e-9

    def __str__(self) -> str:
        depths = f"{self.dz[0]:g}" if self.equal else ", ".join(f"{d:g}" for d in self.dz)
        return f"{self.dx:g} x {depths} cm, {self.energy:g} GeV, {self.material} {self.density:g} g/cm3"


@dataclass(frozen=True)
class Limits:
    """What a surrogate may be asked for.

    Args:
        materials: by name, at the density that each was trained at.
        dx, dz: of the first material, cm.
        energy: GeV.
        n_xy, n_z: cells.
        densities: whether it takes materials of another density.
        unequal: whether layers may have depths of their own.
        card: of the surrogate.
    """

    materials: dict[str, Material]
    dx: tuple[float, float]
    dz: tuple[float, float]
    energy: tuple[float, float]
    n_xy: int
    n_z: int
    densities: bool
    unequal: bool
    card: Card

    @classmethod
    def of(cls, surrogate: Surrogate) -> Limits:
        """Of a surrogate of cells. Raises `InputError` for one of maps."""
        if surrogate.card.kind != "cells":
            raise InputError(f"{surrogate.card.name} generates maps; expected a surrogate of cells, as pbf2-cells")
        materials = {material.name: material for material in surrogate.card.substances()}
        first = next(iter(materials.values()))
        card, a = surrogate.card.in_cm(first), surrogate.model.architecture
        known = surrogate.material_status(first.at_density((1 + STRETCH) * to_float(first.density)))[0]
        return cls(
            materials, card.dx, card.dz, card.energy, a.n_xy, a.n_z, known, card.unequal_layers, surrogate.card
        )  # fmt: skip

    def start(self) -> Choice:
        """Where the page opens: 2.5 x 6 cm and 50 GeV, or the nearest that was trained on."""
        material = next(iter(self.materials.values()))
        dx, dz, energy = (
            float(np.clip(value, *ends)) for value, ends in ((2.5, self.dx), (6.0, self.dz), (50.0, self.energy))
        )
        return Choice(dx, (dz,) * self.n_z, energy, material.name, to_float(material.density))

    def material(self, choice: Choice) -> Material:
        """Of a choice. Raises `InputError` for one that the surrogate does not know."""
        if choice.material not in self.materials:
            raise InputError(f"material '{choice.material}' is none of {', '.join(self.materials)}; choose one of them")
        material = self.materials[choice.material]
        same = abs(choice.density / to_float(material.density) - 1) < 1e-6
        return material if same else material.at_density(choice.density)

    def sizes(self, choice: Choice) -> tuple[tuple[float, float], tuple[float, float]]:
        """Trained ranges of pitch and depth for the material of a choice, cm."""
        card = self.card.in_cm(self.material(choice))
        return card.dx, card.dz

    def design(self, choice: Choice) -> Design:
        """Of a choice. Raises `InputError` for sizes that no design has."""
        dz = choice.dz[0] if choice.equal else choice.dz
        return Design(choice.dx, dz, self.material(choice), self.n_xy, self.n_z)

    def tables(self, choice: Choice) -> dict[str, Any]:
        """An optimisation that starts from a choice, as ``calograd optimise`` reads it."""
        names = ("dx", "dz") if choice.equal else ("dx", *(f"dz_{k + 1}" for k in range(len(choice.dz))))
        start = dict(zip(names, (choice.dx, *choice.dz), strict=False))
        dx, dz = self.sizes(choice)
        background = {"kind": "emulator", "b0": 1e-3 * choice.background} if choice.background else {"kind": "none"}
        return {
            "pricing": "relative",
            "space": {
                "parameters": list(names), "start": start, "material": _in_words(self.material(choice)),
                "bounds": {"dx": list(dx), "dz": list(dz)},
            },
            "background": background,
            "utility": {"kind": "squared-error", "truth": "incident"},
            "cost": [{"kind": "depth", "weight": choice.price}],
            "spectrum": {"energies": [choice.energy]},
        }  # fmt: skip

    def objective(self, choice: Choice) -> Objective:
        """Of a choice. Raises `InputError` for a background or price that is negative."""
        tables = {key: value for key, value in self.tables(choice).items() if key != "space"}
        return parse_objective(tables, "explorer", Path()).build()


def to_toml(tables: dict[str, Any]) -> str:
    """Tables of numbers, words, lists and small tables as TOML; JSON's strings and lists are TOML's."""
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


def _in_words(material: Material) -> str:
    """What `Material.parse` reads as the same composition and density."""
    counts = {s: share / ELEMENTS[s][1] for s, share in material.mass_fractions.items() if share > 0}
    formula = "".join(f"{symbol}{count / max(counts.values()):.5f}" for symbol, count in counts.items())
    return f"{material.name}:{to_float(material.density):.6g}:{formula}"
