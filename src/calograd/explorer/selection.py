"""The selection of a page: a design, an energy, a background and a price on depth, as plain numbers.

The utility of a selection is 1 / (alpha^2 + mean (E_meas - E_inc)^2), divided by 1 + price depth / X0. A selection can
be the start of an optimisation: `SelectionLimits.tables` returns the tables that ``calograd optimise`` reads.
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
"""Largest background (MeV/cm3) and price (per radiation length) that the page offers."""
STRETCH = 0.2
"""Largest relative change of the density that the page offers."""


@dataclass(frozen=True)
class Selection:
    """A design and the conditions that it is looked at in.

    Args:
        dx: pitch, cm.
        dz: depth of every layer, cm.
        energy: incident energy, GeV.
        material: name of a material that the surrogate knows.
        density: density of the material, g/cm3.
        background: mean energy density at the front face, MeV/cm3; 0 for none.
        price: price of depth; the utility is divided by 1 + price x radiation lengths.
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
        """Return the mean depth of the layers, cm."""
        return float(np.mean(self.dz))

    @property
    def equal(self) -> bool:
        """Return whether all layers have the same depth."""
        return max(self.dz) - min(self.dz) < 1e-9

    @property
    def depths(self) -> str:
        """Return the depths in words, a single one where all are equal."""
        return f"{self.dz[0]:g}" if self.equal else ", ".join(f"{d:g}" for d in self.dz)

    def __str__(self) -> str:
        return f"{self.dx:g} x {self.depths} cm, {self.energy:g} GeV, {self.material} {self.density:g} g/cm3"


@dataclass(frozen=True)
class SelectionLimits:
    """The selections that a surrogate accepts.

    Args:
        materials: materials by name, at their trained densities.
        dx, dz: ranges of pitch and depth for the first material, cm.
        energy: range of the incident energy, GeV.
        n_xy, n_z: cells across and layers.
        densities: whether other densities are accepted.
        unequal: whether layers may differ in depth.
        card: the surrogate's card.
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
    def of(cls, surrogate: Surrogate) -> SelectionLimits:
        """Return the limits of a surrogate of cells. Raises `InputError` for other surrogates."""
        a = surrogate.design_model.architecture
        if surrogate.design_model.shape != (a.n_xy, a.n_xy, a.n_z):
            raise InputError(f"{surrogate.card.name} generates maps; expected a surrogate of cells, as pbf2-cells")
        materials = {material.name: material for material in surrogate.card.designs.materials}
        first = next(iter(materials.values()))
        card = surrogate.card.in_cm(first)
        known = surrogate.card.material_status(first.at_density((1 + STRETCH) * to_float(first.density)))[0]
        return cls(
            materials, card.dx, card.dz, card.energy, a.n_xy, a.n_z, known,
            surrogate.card.designs.unequal_layers, surrogate.card,
        )  # fmt: skip

    def start(self) -> Selection:
        """Return the selection a page opens with: 2.5 x 6 cm and 50 GeV, or the nearest in the trained range."""
        material = next(iter(self.materials.values()))
        dx, dz, energy = (
            float(np.clip(value, *ends)) for value, ends in ((2.5, self.dx), (6.0, self.dz), (50.0, self.energy))
        )
        return Selection(dx, (dz,) * self.n_z, energy, material.name, to_float(material.density))

    def material(self, selection: Selection) -> Material:
        """Return the material of a selection. Raises `InputError` if the surrogate does not know it."""
        if selection.material not in self.materials:
            raise InputError(
                f"material '{selection.material}' is none of {', '.join(self.materials)}; choose one of them"
            )
        material = self.materials[selection.material]
        same = abs(selection.density / to_float(material.density) - 1) < 1e-6
        return material if same else material.at_density(selection.density)

    def sizes(self, selection: Selection) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return the trained ranges of pitch and depth for the material of a selection, cm."""
        card = self.card.in_cm(self.material(selection))
        return card.dx, card.dz

    def design(self, selection: Selection) -> Design:
        """Return the design of a selection. Raises `InputError` for sizes that are not positive."""
        dz = selection.dz[0] if selection.equal else selection.dz
        return Design(selection.dx, dz, self.material(selection), self.n_xy, self.n_z)

    def tables(self, selection: Selection) -> dict[str, Any]:
        """Return the tables of an optimisation that starts from a selection, as ``calograd optimise`` reads them."""
        names = ("dx", "dz") if selection.equal else ("dx", *(f"dz_{k + 1}" for k in range(len(selection.dz))))
        start = dict(zip(names, (selection.dx, *selection.dz), strict=False))
        dx, dz = self.sizes(selection)
        background = (
            {"kind": "emulator", "b0": 1e-3 * selection.background} if selection.background else {"kind": "none"}
        )
        return {
            "pricing": "relative",
            "space": {
                "parameters": list(names), "start": start, "material": _in_words(self.material(selection)),
                "bounds": {"dx": list(dx), "dz": list(dz)},
            },
            "background": background,
            "utility": {"kind": "squared-error", "truth": "incident"},
            "cost": [{"kind": "depth", "weight": selection.price}],
            "spectrum": {"energies": [selection.energy]},
        }  # fmt: skip

    def objective(self, selection: Selection) -> Objective:
        """Return the objective of a selection. Raises `InputError` for a negative background or price."""
        tables = {key: value for key, value in self.tables(selection).items() if key != "space"}
        return parse_objective(tables, "explorer", Path()).build()


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


def _in_words(material: Material) -> str:
    """Return words that `Material.parse` reads as the same composition and density."""
    counts = {s: share / ELEMENTS[s][1] for s, share in material.mass_fractions.items() if share > 0}
    formula = "".join(f"{symbol}{count / max(counts.values()):.5f}" for symbol, count in counts.items())
    return f"{material.name}:{to_float(material.density):.6g}:{formula}"
