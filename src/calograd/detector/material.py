"""Materials as physical numbers.

A surrogate is conditioned on numbers, never on a class id, so that gradients with respect to the material exist. All
numbers follow from density and composition, by the formulas of the Review of Particle Physics ("Passage of particles
through matter"):

    X0_el = 716.408 A / (Z^2 (L_rad - f(Z)) + Z L'_rad)      g/cm2, Tsai (eq. 34.25)
    1/X0  = sum_j w_j / X0_j
    E_c,j = 610 MeV / (Z_j + 1.24)                           Rossi's definition, solids (fig. 34.14)
    1/R_M = (1/E_s) sum_j w_j E_c,j / X0_j                   E_s = 21.2052 MeV (eq. 34.38)
    E_c   = E_s X0 / R_M
    dE/dx = density K (Z/A) / beta^2 (1/2 ln(2 m_e (beta gamma)^2 W / I^2) - beta^2 - delta/2), its minimum  (eq. 34.5)

In the last one Z/A is sum_j w_j Z_j / A_j, ln I the mean of ln I_j with the weights w_j Z_j / A_j, and delta the
density effect as Sternheimer and Peierls generalise it (Phys. Rev. B 3 (1971) 3681). It agrees with the Review's tables
of minimum ionisation within 2.6 %.

Density and numbers may be torch scalars; gradients pass through everything that follows from them. At another density
the same composition has X0 and R_M in proportion to 1 / density and the same E_c, see `Material.at_density`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import exp, inf, isclose, log, log10, sqrt
from typing import TYPE_CHECKING, Any

from calograd.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    Number = float | Tensor

E_S_MEV = 21.2052
"""Scale energy of multiple scattering, MeV."""
ALPHA = 1 / 137.035999
"""Fine-structure constant."""

NUMBERS = ("density", "radiation_length", "moliere_radius", "critical_energy")
"""Attributes of `Material` with which showers scale."""
DESCRIPTORS = (*NUMBERS, "mean_atomic_number", "effective_atomic_number")
"""All attributes of `Material` on which a surrogate may be conditioned."""
UNITS = dict(zip(DESCRIPTORS, ("g/cm3", "cm", "cm", "GeV", "", ""), strict=True))
"""Unit of every descriptor."""
EFFECTIVE_POWER = 4 / 3
"""Power of Z in the effective atomic number, which orders crystals as their showers do: see
`validation/material_numbers.py`."""

SYMBOLS = (
    "H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Ne", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "Ar", "K", "Ca",
    "Sc", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se", "Br", "Kr", "Rb", "Sr", "Y",
    "Zr", "Nb", "Mo", "Tc", "Ru", "Rh", "Pd", "Ag", "Cd", "In", "Sn", "Sb", "Te", "I", "Xe", "Cs", "Ba", "La", "Ce",
    "Pr", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu", "Hf", "Ta", "W", "Re", "Os", "Ir",
    "Pt", "Au", "Hg", "Tl", "Pb", "Bi", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Th", "Pa", "U", "Np", "Pu", "Am", "Cm",
    "Bk", "Cf", "Es", "Fm",
)  # fmt: skip
"""Symbols of the elements by atomic number, from 1."""

# Standard atomic weights of the elements that calorimeters are made of.
WEIGHTS: dict[str, float] = {
    "H": 1.008, "Li": 6.94, "Be": 9.0122, "B": 10.81, "C": 12.011, "N": 14.007, "O": 15.999, "F": 18.998, "Na": 22.990,
    "Mg": 24.305, "Al": 26.982, "Si": 28.085, "P": 30.974, "S": 32.06, "Cl": 35.45, "Ar": 39.948, "K": 39.098,
    "Ca": 40.078, "Ti": 47.867, "Cr": 51.996, "Mn": 54.938, "Fe": 55.845, "Ni": 58.693, "Cu": 63.546, "Zn": 65.38,
    "Ge": 72.630, "Br": 79.904, "Sr": 87.62, "Y": 88.906, "Zr": 91.224, "Mo": 95.95, "Ag": 107.87, "Cd": 112.41,
    "Sn": 118.71, "Te": 127.60, "I": 126.90, "Xe": 131.29, "Cs": 132.91, "Ba": 137.33, "La": 138.91, "Ce": 140.12,
    "Gd": 157.25, "Lu": 174.97, "Ta": 180.95, "W": 183.84, "Pt": 195.08, "Au": 196.97, "Pb": 207.2, "Bi": 208.98,
    "U": 238.03,
}  # fmt: skip
ELEMENTS = {symbol: (SYMBOLS.index(symbol) + 1, weight) for symbol, weight in WEIGHTS.items()}
"""Atomic number and standard atomic weight by symbol."""

# Mean excitation energies of the elements in eV (ICRU 37 and 49; NIST's tables, which Geant4 uses).
EXCITATION: dict[str, float] = {
    "H": 19.2, "Li": 40, "Be": 63.7, "B": 76, "C": 81, "N": 82, "O": 95, "F": 115, "Na": 149, "Mg": 156, "Al": 166,
    "Si": 173, "P": 173, "S": 180, "Cl": 174, "Ar": 188, "K": 190, "Ca": 191, "Ti": 233, "Cr": 257, "Mn": 272,
    "Fe": 286, "Ni": 311, "Cu": 322, "Zn": 330, "Ge": 350, "Br": 343, "Sr": 366, "Y": 379, "Zr": 393, "Mo": 424,
    "Ag": 470, "Cd": 469, "Sn": 488, "Te": 485, "I": 491, "Xe": 482, "Cs": 488, "Ba": 491, "La": 501, "Ce": 523,
    "Gd": 591, "Lu": 694, "Ta": 718, "W": 727, "Pt": 790, "Au": 790, "Pb": 823, "Bi": 823, "U": 890,
}  # fmt: skip

# Radiation logarithms of the lightest elements (Tsai); heavier ones use the Thomas-Fermi forms.
_LIGHT_LOGARITHMS = {1: (5.31, 6.144), 2: (4.79, 5.621), 3: (4.74, 5.805), 4: (4.71, 5.924)}


def element_radiation_length(z: int, a: float) -> float:
    """Return the radiation length of an element in g/cm2 (Tsai, Review of Particle Physics eq. 34.25)."""
    x = (ALPHA * z) ** 2
    coulomb = x * (1 / (1 + x) + 0.20206 - 0.0369 * x + 0.0083 * x**2 - 0.002 * x**3)
    l_rad, l_prime = _LIGHT_LOGARITHMS.get(z, (log(184.15 * z ** (-1 / 3)), log(1194 * z ** (-2 / 3))))
    return 716.408 * a / (z**2 * (l_rad - coulomb) + z * l_prime)


def bethe(beta_gamma: float, z_over_a: float, excitation: float, density: float) -> float:
    """Return the mean mass stopping power of a muon in condensed matter, MeV cm2/g (Bethe, Review eq. 34.5).

    Args:
        beta_gamma: momentum over mass of the muon.
        z_over_a: mean of Z/A by mass, mol/g.
        excitation: mean excitation energy I, eV.
        density: g/cm3, for the density effect.
    """
    electron, muon = 0.51099895, 105.6583755
    gamma = sqrt(1 + beta_gamma**2)
    beta2 = (beta_gamma / gamma) ** 2
    largest = 2 * electron * beta_gamma**2 / (1 + 2 * gamma * electron / muon + (electron / muon) ** 2)
    logarithm = 0.5 * log(2 * electron * beta_gamma**2 * largest / (1e-6 * excitation) ** 2)
    delta = _density_effect(log10(beta_gamma), excitation, 28.816 * sqrt(density * z_over_a))
    return 0.307075 * z_over_a / beta2 * (logarithm - beta2 - delta / 2)


def _density_effect(x: float, excitation: float, plasma: float) -> float:
    """Return Sternheimer's delta at x = log10(beta gamma) by the general parameters of Sternheimer and Peierls.

    Args:
        x: log10(beta gamma).
        excitation: mean excitation energy, eV.
        plasma: plasma energy, eV.
    """
    c = 2 * log(excitation / plasma) + 1
    x1, least, offset = (2.0, 3.681, 1.0) if excitation < 100 else (3.0, 5.215, 1.5)
    x0 = 0.2 if c < least else 0.326 * c - offset
    if x < x0:
        return 0.0
    a = (c - 2 * log(10) * x0) / (x1 - x0) ** 3 if x1 > x0 else 0.0
    return 2 * log(10) * x - c + a * max(x1 - x, 0.0) ** 3


def to_float(value: Number) -> float:
    """Return a number without its gradient."""
    return float(value) if isinstance(value, int | float) else float(value.detach())


@dataclass(frozen=True)
class Material:
    """A homogeneous material.

    Args:
        name: name in files and reports.
        density: g/cm3; a float or a tensor without dimensions, which may require a gradient.
        mass_fractions: share of the mass by element symbol, adding up to one.
        geant4_name: name in Geant4's own list (``G4_PbWO4``), if the simulation takes the material from there.
        given: numbers that are set instead of following from density and composition, each independently:
            ``radiation_length`` and ``moliere_radius`` in cm, ``critical_energy`` in GeV, ``mean_atomic_number``,
            ``effective_atomic_number``; floats or tensors. A material with such numbers can be asked of a surrogate,
            not simulated.

    Raises:
        InputError: an unknown element or number, one that is not positive, fractions that do not add up.
    """

    name: str
    density: Number
    mass_fractions: Mapping[str, float]
    geant4_name: str | None = None
    given: Mapping[str, Number] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < to_float(self.density) < inf:
            raise InputError(
                f"material {self.name}: density is {to_float(self.density)} g/cm3, expected a positive number"
            )
        for name, value in self.given.items():
            if name not in DESCRIPTORS[1:]:
                raise InputError(
                    f"material {self.name}: unknown number '{name}'; expected {', '.join(DESCRIPTORS[1:])}"
                )
            if not 0 < to_float(value) < inf:
                raise InputError(f"material {self.name}: {name} is {to_float(value)}, expected a positive number")
        for symbol, share in self.mass_fractions.items():
            if not share >= 0:
                raise InputError(f"material {self.name}: mass fraction of {symbol} is {share}, expected 0 to 1")
            if symbol not in ELEMENTS:
                raise InputError(f"material {self.name}: unknown element '{symbol}'; known: {' '.join(ELEMENTS)}")
        total = sum(self.mass_fractions.values())
        if not abs(total - 1) <= 1e-3:
            raise InputError(f"material {self.name}: mass fractions add up to {total:.4f}, expected 1")

    def __hash__(self) -> int:
        return hash((self.name, to_float(self.density), tuple(sorted(self.mass_fractions.items())), self.geant4_name))

    def alike(self, other: Material, tolerance: float = 1e-4, numbers: tuple[str, ...] = NUMBERS) -> bool:
        """Return whether ``numbers`` are equal within a relative tolerance; the names may differ."""
        return all(isclose(to_float(getattr(self, n)), to_float(getattr(other, n)), rel_tol=tolerance) for n in numbers)

    def same_composition(self, other: Material, tolerance: float = 1e-4) -> bool:
        """Return whether the mass fractions are equal and neither material has given numbers."""
        mine, theirs = self.mass_fractions, other.mass_fractions
        equal = all(abs(mine.get(s, 0.0) - theirs.get(s, 0.0)) <= tolerance for s in {*mine, *theirs})
        return equal and not self.given and not other.given

    def at_density(self, density: Number) -> Material:
        """Return the same composition at another density, g/cm3: X0 and R_M scale as 1 / density, E_c and Z stay."""
        ratio, lengths = self.density / density, ("radiation_length", "moliere_radius")
        given = {name: v * ratio if name in lengths else v for name, v in self.given.items()}
        return Material(self.name, density, self.mass_fractions, None, given)

    def with_numbers(self, **numbers: Number) -> Material:
        """Return the material with some numbers set, see ``given`` of the class.

        x0 = torch.tensor(0.937, requires_grad=True)
        material = MATERIALS["PbF2"].with_numbers(radiation_length=x0)  # nothing else changes
        material = MATERIALS["PbF2"].with_numbers(density=7.9)          # as `at_density`: X0 and R_M follow
        """
        density = numbers.pop("density", None)
        base = self if density is None else self.at_density(density)
        return replace(base, geant4_name=None, given={**base.given, **numbers})

    @classmethod
    def from_formula(cls, name: str, density: float, formula: str, geant4_name: str | None = None) -> Material:
        """Return a material by its chemical formula, e.g. ``Material.from_formula("BGO", 7.13, "Bi4Ge3O12")``."""
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
        """Return a material by a known name (``PbF2``, ``G4_PbWO4``) or as ``NAME:DENSITY:FORMULA``."""
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

    @property
    def radiation_length(self) -> Number:
        """Radiation length X0, cm."""
        given = self.given.get("radiation_length")
        return 1 / (self.density * self._inverse_lengths[0]) if given is None else given

    @property
    def moliere_radius(self) -> Number:
        """Moliere radius R_M, cm."""
        given = self.given.get("moliere_radius")
        return E_S_MEV / self._inverse_lengths[1] / self.density if given is None else given

    @property
    def critical_energy(self) -> Number:
        """Critical energy E_c by Rossi's definition, GeV."""
        given = self.given.get("critical_energy")
        if given is not None:
            return given
        density, (x, m) = to_float(self.density), self._inverse_lengths
        return 1e-3 * E_S_MEV * (1 / (density * x)) / (E_S_MEV / m / density)

    @property
    def mean_atomic_number(self) -> Number:
        """Mean atomic number sum_j w_j Z_j with the mass fractions w_j."""
        given = self.given.get("mean_atomic_number")
        return sum(w * ELEMENTS[s][0] for s, w in self.mass_fractions.items()) if given is None else given

    @property
    def effective_atomic_number(self) -> Number:
        """Effective atomic number (sum_j w_j Z_j^p)^(1/p), p = 4/3.

        For equal energies in units of E_c and equal cells in units of R_M and X0, showers in different crystals depend
        on this number alone to better than one per cent (``docs/log.md``).
        """
        given = self.given.get("effective_atomic_number")
        if given is not None:
            return given
        powers: float = sum(w * ELEMENTS[s][0] ** EFFECTIVE_POWER for s, w in self.mass_fractions.items())
        return float(powers ** (1 / EFFECTIVE_POWER))

    @property
    def minimum_ionisation(self) -> Number:
        """Energy loss dE/dx of a minimum ionising particle, GeV/cm."""
        return 1e-3 * self.density * self._least_stopping_power

    @cached_property
    def _least_stopping_power(self) -> float:
        """Least mass stopping power of a muon, MeV cm2/g; its minimum lies between beta gamma of 2.5 and 4.5."""
        shares = {s: w * ELEMENTS[s][0] / ELEMENTS[s][1] for s, w in self.mass_fractions.items()}
        z_over_a = sum(shares.values())
        excitation = exp(sum(share * log(EXCITATION[s]) for s, share in shares.items()) / z_over_a)
        density = to_float(self.density)
        return min(bethe(2.5 + 0.1 * k, z_over_a, excitation, density) for k in range(21))

    @cached_property
    def _inverse_lengths(self) -> tuple[float, float]:
        """Sums sum_j w_j / X0_j and sum_j w_j E_c,j / X0_j, in cm2/g and MeV cm2/g."""
        lengths = [(w, ELEMENTS[s][0], element_radiation_length(*ELEMENTS[s])) for s, w in self.mass_fractions.items()]
        return sum(w / x0 for w, _, x0 in lengths), sum(w * 610 / (z + 1.24) / x0 for w, z, x0 in lengths)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Let records have a material as a field: from a `Material`, the name of one, or `to_dict`; stored as that."""
        from pydantic_core import core_schema as schema

        text, number = schema.str_schema(), schema.float_schema(allow_inf_nan=False)
        fields = {
            "name": schema.typed_dict_field(text),
            "density": schema.typed_dict_field(number),
            "mass_fractions": schema.typed_dict_field(schema.dict_schema(text, number)),
            "geant4_name": schema.typed_dict_field(schema.nullable_schema(text), required=False),
        }
        stored = schema.typed_dict_schema(fields, extra_behavior="forbid")
        made = schema.no_info_after_validator_function(lambda data: cls(**data), stored)
        return schema.no_info_before_validator_function(
            _to_record, made, serialization=schema.plain_serializer_function_ser_schema(cls.to_dict)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, without gradients, from which ``Material(**data)`` makes the material again."""
        data = {
            "name": self.name,
            "density": to_float(self.density),
            "mass_fractions": dict(self.mass_fractions),
            "geant4_name": self.geant4_name,
        }
        return data | ({"given": {n: to_float(v) for n, v in self.given.items()}} if self.given else {})


def _to_record(value: Any) -> Any:
    """Return the plain data that a record stores of a material."""
    if isinstance(value, str):
        return Material.parse(value).to_dict()
    if not isinstance(value, Material):
        return value
    if value.given:
        raise ValueError(
            f"{value.name} has a given {', '.join(value.given)}; Geant4 simulates density and composition alone"
        )
    return value.to_dict()


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
        Material.from_formula("lAr", 1.396, "Ar", "G4_lAr"),
        Material.from_formula("polystyrene", 1.06, "C8H8", "G4_POLYSTYRENE"),
        Material.from_formula("PVT", 1.032, "C9H10", "G4_PLASTIC_SC_VINYLTOLUENE"),
        Material("air", 0.00120479, {"C": 0.000124, "N": 0.755268, "O": 0.231781, "Ar": 0.012827}, "G4_AIR"),
    )
}
MATERIALS |= {m.geant4_name: m for m in list(MATERIALS.values()) if m.geant4_name}
