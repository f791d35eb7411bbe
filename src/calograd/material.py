"""Materials as physical numbers.

A surrogate is conditioned on numbers, never on a class id, so that gradients with respect to the
material exist. All of them follow from density and composition, by the formulas of the Review of
Particle Physics ("Passage of particles through matter"):

    X0_el = 716.408 A / (Z^2 (L_rad - f(Z)) + Z L'_rad)      g/cm2, Tsai (eq. 34.25)
    1/X0  = sum_j w_j / X0_j
    E_c,j = 610 MeV / (Z_j + 1.24)                           Rossi's definition, solids (fig. 34.14)
    1/R_M = (1/E_s) sum_j w_j E_c,j / X0_j                   E_s = 21.2052 MeV (eq. 34.38)
    E_c   = E_s X0 / R_M
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import inf, isclose, log
from typing import Any

from calograd.errors import InputError

E_S_MEV = 21.2052
ALPHA = 1 / 137.035999

# Symbol, Z and standard atomic weight of the elements that calorimeters are made of.
ELEMENTS: dict[str, tuple[int, float]] = {
    "H": (1, 1.008), "Li": (3, 6.94), "Be": (4, 9.0122), "B": (5, 10.81), "C": (6, 12.011),
    "N": (7, 14.007), "O": (8, 15.999), "F": (9, 18.998), "Na": (11, 22.990), "Mg": (12, 24.305),
    "Al": (13, 26.982), "Si": (14, 28.085), "P": (15, 30.974), "S": (16, 32.06), "Cl": (17, 35.45),
    "Ar": (18, 39.948), "K": (19, 39.098), "Ca": (20, 40.078), "Ti": (22, 47.867), "Cr": (24, 51.996),
    "Mn": (25, 54.938), "Fe": (26, 55.845), "Ni": (28, 58.693), "Cu": (29, 63.546), "Zn": (30, 65.38),
    "Ge": (32, 72.630), "Br": (35, 79.904), "Sr": (38, 87.62), "Y": (39, 88.906), "Zr": (40, 91.224),
    "Mo": (42, 95.95), "Ag": (47, 107.87), "Cd": (48, 112.41), "Sn": (50, 118.71), "Te": (52, 127.60),
    "I": (53, 126.90), "Xe": (54, 131.29), "Cs": (55, 132.91), "Ba": (56, 137.33), "La": (57, 138.91),
    "Ce": (58, 140.12), "Gd": (64, 157.25), "Lu": (71, 174.97), "Ta": (73, 180.95), "W": (74, 183.84),
    "Pt": (78, 195.08), "Au": (79, 196.97), "Pb": (82, 207.2), "Bi": (83, 208.98), "U": (92, 238.03),
}  # fmt: skip

# Radiation logarithms of the lightest elements (Tsai); heavier ones use the Thomas-Fermi forms.
_LIGHT_LOGARITHMS = {1: (5.31, 6.144), 2: (4.79, 5.621), 3: (4.74, 5.805), 4: (4.71, 5.924)}


def element_radiation_length(z: int, a: float) -> float:
    """Radiation length of an element in g/cm2 (Tsai, Review of Particle Physics eq. 34.25)."""
    x = (ALPHA * z) ** 2
    coulomb = x * (1 / (1 + x) + 0.20206 - 0.0369 * x + 0.0083 * x**2 - 0.002 * x**3)
    l_rad, l_prime = _LIGHT_LOGARITHMS.get(z, (log(184.15 * z ** (-1 / 3)), log(1194 * z ** (-2 / 3))))
    return 716.408 * a / (z**2 * (l_rad - coulomb) + z * l_prime)


@dataclass(frozen=True)
class Material:
    """A homogeneous material.

    Args:
        name: what it is called in files and reports.
        density: g/cm3.
        mass_fractions: share of the mass by element symbol, adding up to one.
        geant4_name: name in Geant4's own list (``G4_PbWO4``), where the simulation takes it from there.

    Raises:
        InputError: an unknown element, a density that is not positive, fractions that do not add up.
    """

    name: str
    density: float
    mass_fractions: Mapping[str, float]
    geant4_name: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.density < inf:
            raise InputError(f"material {self.name}: density is {self.density} g/cm3, expected a positive number")
        for symbol, share in self.mass_fractions.items():
            if not share >= 0:
                raise InputError(f"material {self.name}: mass fraction of {symbol} is {share}, expected 0 to 1")
            if symbol not in ELEMENTS:
                raise InputError(f"material {self.name}: unknown element '{symbol}'; known: {' '.join(ELEMENTS)}")
        total = sum(self.mass_fractions.values())
        if not abs(total - 1) <= 1e-3:
            raise InputError(f"material {self.name}: mass fractions add up to {total:.4f}, expected 1")

    def __hash__(self) -> int:
        return hash((self.name, self.density, tuple(sorted(self.mass_fractions.items())), self.geant4_name))

    def alike(self, other: Material, tolerance: float = 1e-4) -> bool:
        """Whether all numbers that rule showers are equal: density, X0, R_M, E_c; the names may differ."""
        names = ("density", "radiation_length", "moliere_radius", "critical_energy")
        return all(isclose(getattr(self, n), getattr(other, n), rel_tol=tolerance) for n in names)

    @classmethod
    def from_formula(cls, name: str, density: float, formula: str, geant4_name: str | None = None) -> Material:
        """A material from its chemical formula, e.g. ``Material.from_formula("BGO", 7.13, "Bi4Ge3O12")``."""
        counts: dict[str, float] = {}
        if not re.fullmatch(r"([A-Z][a-z]?(\d+\.?\d*)?)+", formula):
            raise InputError(f"formula '{formula}' cannot be read; expected element symbols with counts, as Bi4Ge3O12")
        for symbol, count in re.findall(r"([A-Z][a-z]?)(\d+\.?\d*)?", formula):
            if symbol not in ELEMENTS:
                raise InputError(f"formula '{formula}': unknown element '{symbol}'; known: {' '.join(ELEMENTS)}")
            counts[symbol] = counts.get(symbol, 0.0) + float(count or 1)
        masses = {symbol: count * ELEMENTS[symbol][1] for symbol, count in counts.items()}
        total = sum(masses.values())
        if not total > 0:
            raise InputError(f"formula '{formula}' has no atoms; expected element symbols with counts, as Bi4Ge3O12")
        return cls(name, density, {s: m / total for s, m in masses.items()}, geant4_name)

    @classmethod
    def parse(cls, text: str) -> Material:
        """A material from the command line: a known name (``PbF2``, ``G4_PbWO4``) or ``NAME:DENSITY:FORMULA``."""
        if text in MATERIALS:
            return MATERIALS[text]
        if text.count(":") == 2:
            name, density, formula = text.split(":")
            try:
                return cls.from_formula(name, float(density), formula)
            except ValueError as error:
                if isinstance(error, InputError):
                    raise
                raise InputError(f"material '{text}': density '{density}' is not a number (g/cm3)") from error
        raise InputError(
            f"unknown material '{text}'; expected one of {', '.join(sorted(MATERIALS))}, "
            "or NAME:DENSITY:FORMULA such as BGO:7.13:Bi4Ge3O12"
        )

    @cached_property
    def radiation_length(self) -> float:
        """X0 in cm."""
        return 1 / (self.density * sum(w / element_radiation_length(*ELEMENTS[s]) for s, w in self._fractions))

    @cached_property
    def moliere_radius(self) -> float:
        """R_M in cm."""
        inverse = sum(
            w * 610 / (ELEMENTS[s][0] + 1.24) / element_radiation_length(*ELEMENTS[s]) for s, w in self._fractions
        )
        return E_S_MEV / inverse / self.density

    @cached_property
    def critical_energy(self) -> float:
        """E_c in GeV (Rossi's definition)."""
        return 1e-3 * E_S_MEV * self.radiation_length / self.moliere_radius

    @property
    def _fractions(self) -> list[tuple[str, float]]:
        return list(self.mass_fractions.items())

    def to_dict(self) -> dict[str, Any]:
        """Plain data, from which ``Material(**data)`` makes it again."""
        return {
            "name": self.name,
            "density": self.density,
            "mass_fractions": dict(self.mass_fractions),
            "geant4_name": self.geant4_name,
        }


MATERIALS: dict[str, Material] = {
    material.name: material
    for material in (
        Material.from_formula("PbF2", 7.77, "PbF2"),
        Material.from_formula("PbWO4", 8.28, "PbWO4", "G4_PbWO4"),
        Material.from_formula("BGO", 7.13, "Bi4Ge3O12", "G4_BGO"),
        Material.from_formula("CsI", 4.51, "CsI", "G4_CESIUM_IODIDE"),
        Material.from_formula("NaI", 3.667, "NaI", "G4_SODIUM_IODIDE"),
        Material.from_formula("LYSO", 7.1, "Lu1.8Y0.2Si1O5"),
        Material.from_formula("BaF2", 4.89, "BaF2", "G4_BARIUM_FLUORIDE"),
        Material.from_formula("W", 19.3, "W", "G4_W"),
        Material.from_formula("Pb", 11.35, "Pb", "G4_Pb"),
        Material.from_formula("Fe", 7.874, "Fe", "G4_Fe"),
        Material.from_formula("Cu", 8.96, "Cu", "G4_Cu"),
        Material.from_formula("Si", 2.33, "Si", "G4_Si"),
    )
}
MATERIALS |= {m.geant4_name: m for m in list(MATERIALS.values()) if m.geant4_name}
