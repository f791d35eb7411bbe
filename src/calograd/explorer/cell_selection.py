"""The selection of a page of cells: a design, a beam, an energy, a background and a price on depth, as plain numbers.

The entry of a fixed beam keeps its place in the cell at every pitch, so it is stored in units of the pitch.

The utility of a selection is 1 / (alpha^2 + mean (E_meas - E_inc)^2), divided by 1 + price depth / X0. A selection can
be the start of an optimisation: `CellLimits.tables` returns the tables that ``calograd optimise`` reads. An address
can name it: `CellLimits.parse` reads ``?dx=1.3&dz=3.7&theta=20``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from calograd.detector.design import Design
from calograd.detector.incidence import Incidence
from calograd.detector.material import Material, to_float
from calograd.detector.particles import ParticleBeam
from calograd.errors import FormatError, InputError
from calograd.explorer.kinds import EXPECTED, MapAxes, PlotLabels
from calograd.explorer.text import check_name, in_words, to_count, to_number, to_particle
from calograd.objective.config import parse_objective
from calograd.objective.utility import Objective
from calograd.surrogate import Card, Surrogate
from calograd.surrogate.card import TrainedBeam

MOST_BACKGROUND, MOST_PRICE = 20.0, 0.1
"""Largest background (MeV/cm3) and price (per radiation length) that the page offers."""
STRETCH = 0.2
"""Largest relative change of the density that the page offers."""
NARROWEST = 3
"""Fewest cells across of a window that the page offers."""
OPENS = 5
"""Cells across and layers of the window that a page opens with, where there are so many."""
NUMBERS = ("dx", "dz", "energy", "density", "background", "price", "x", "y", "theta", "phi")
"""Parameters of an address that are numbers."""
COUNTS = ("n_xy", "n_z")
"""Parameters of an address that are whole numbers."""
OF_PARTICLES = ("particle", "position", "x", "y", "theta", "phi", *COUNTS)
"""Parameters of an address that surrogates have which take particles."""


@dataclass(frozen=True)
class CellSelection:
    """A design and the conditions that it is looked at in.

    Args:
        dx: pitch, cm.
        dz: depth of every layer, cm.
        energy: incident energy, GeV.
        material: name of a material that the surrogate knows.
        density: density of the material, g/cm3.
        background: mean energy density at the front face, MeV/cm3; 0 for none.
        price: price of depth; the utility is divided by 1 + price x radiation lengths.
        n_xy: cells across.
        beam: particle, entry and direction; a fixed entry is in units of the pitch. None for a surrogate that knows one
            beam.
    """

    dx: float
    dz: tuple[float, ...]
    energy: float
    material: str
    density: float
    background: float = 5.0
    price: float = 0.02
    n_xy: int = 5
    beam: ParticleBeam | None = None

    @property
    def n_z(self) -> int:
        """Return the number of layers."""
        return len(self.dz)

    @property
    def entry(self) -> tuple[float, float]:
        """Return the fixed entry, cm; the middle of the cell where entries are drawn."""
        position = self.beam.position_at(self.dx) if self.beam else (0.0, 0.0)
        return (0.0, 0.0) if isinstance(position, str) else position

    @property
    def window(self) -> str:
        """Return the cells of the window in words."""
        return f"{self.n_xy} x {self.n_xy} x {self.n_z} cells"

    @property
    def particle(self) -> str:
        """Return the incident particle with entry and direction in words; empty for a surrogate of one beam."""
        if self.beam is None:
            return ""
        if isinstance(self.beam.position, str):
            return str(self.beam)
        x, y = self.entry
        return str(replace(self.beam, position=(round(x, 3), round(y, 3)), unit="cm"))

    @property
    def depth(self) -> float:
        """Return the mean depth of the layers, cm."""
        return float(np.mean(self.dz))

    @property
    def place(self) -> tuple[float, float]:
        """Return pitch and mean depth, cm: the place on the map."""
        return self.dx, self.depth

    def rounded(self) -> CellSelection:
        """Return the selection with sizes of three decimals."""
        return replace(self, dx=round(self.dx, 3), dz=tuple(round(each, 3) for each in self.dz))

    @property
    def equal(self) -> bool:
        """Return whether all layers have the same depth."""
        return max(self.dz) - min(self.dz) < 1e-9

    @property
    def depths(self) -> str:
        """Return the depths in words, a single one where all are equal."""
        return f"{self.dz[0]:g}" if self.equal else ", ".join(f"{d:g}" for d in self.dz)

    def __str__(self) -> str:
        said = f"{self.dx:g} x {self.depths} cm, {self.energy:g} GeV, {self.material} {self.density:g} g/cm3"
        return f"{said}, {self.window}, {self.particle}" if self.beam else said


@dataclass(frozen=True)
class CellLimits:
    """The selections that a surrogate accepts.

    Args:
        materials: materials by name, at their trained densities.
        dx, dz: ranges of pitch and depth for the first material, cm.
        energy: range of the incident energy, GeV.
        n_xy, n_z: cells across and layers of the largest window.
        densities: whether other densities are accepted.
        unequal: whether layers may differ in depth.
        card: the surrogate's card.
        beam: trained particles and angles; None for a surrogate that knows one beam.
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
    beam: TrainedBeam | None = None
    labels: ClassVar[PlotLabels] = PlotLabels(
        {"E_tot": "E_tot / E [%]", "R_E": "R_E [cm]", "z_mean": "⟨z⟩ [cm]"}, ("z [cm]", "dE/dz [GeV/cm]")
    )

    @classmethod
    def of(cls, surrogate: Surrogate) -> CellLimits:
        """Return the limits of a surrogate of cells. Raises `InputError` for other surrogates."""
        a = surrogate.design_model.architecture
        if surrogate.design_model.shape != (a.n_xy, a.n_xy, a.n_z):
            raise InputError(f"{surrogate.card.name} generates maps; {EXPECTED}")
        materials = {material.name: material for material in surrogate.card.designs.materials}
        first = next(iter(materials.values()))
        card = surrogate.card.in_cm(first)
        known = surrogate.card.material_status(first.at_density((1 + STRETCH) * to_float(first.density)))[0]
        return cls(
            materials, card.dx, card.dz, card.energy, a.n_xy, a.n_z, known,
            surrogate.card.designs.unequal_layers, surrogate.card, surrogate.card.designs.beam,
        )  # fmt: skip

    @property
    def windows(self) -> list[int]:
        """Return the numbers of cells across that are served."""
        return [self.n_xy] if self.beam is None else list(range(min(NARROWEST, self.n_xy), self.n_xy + 1, 2))

    @property
    def layers(self) -> list[int]:
        """Return the numbers of layers that are served."""
        return [self.n_z] if self.beam is None else list(range(1, self.n_z + 1))

    def start(self) -> CellSelection:
        """Return the selection a page opens with: 2.5 x 6 cm, 50 GeV, on the axis, or the nearest in range."""
        material = next(iter(self.materials.values()))
        dx, dz, energy = (
            float(np.clip(value, *ends)) for value, ends in ((2.5, self.dx), (6.0, self.dz), (50.0, self.energy))
        )
        at = CellSelection(dx, (dz,) * self.n_z, energy, material.name, to_float(material.density), n_xy=self.n_xy)
        if self.beam is None:
            return at
        beam = ParticleBeam(self.beam.particles[0], theta=self.beam.theta[0], unit="pitch")
        n_xy, n_z = max(n for n in self.windows if n <= max(OPENS, self.windows[0])), min(OPENS, self.n_z)
        return replace(at, dz=(dz,) * n_z, n_xy=n_xy, beam=beam)

    def parse(self, query: Mapping[str, str]) -> CellSelection:
        """Return the selection that the parameters of an address name; the others are those of `start`.

        Lengths are in cm: ``x`` and ``y`` the entry, ``position=uniform`` draws it in the cell; ``dz`` may be one depth
        or one for every layer, as 4,5,6; ``n_xy`` and ``n_z`` are the cells of the window.

        Raises:
            InputError: a parameter that is unknown or not the surrogate's, or a value that is none.
        """
        at, plain = self.start(), [name for name in NUMBERS if name not in OF_PARTICLES]
        known = [*plain, "material", *(OF_PARTICLES if self.beam else ())]
        for name in query:
            if name in OF_PARTICLES and self.beam is None:
                raise InputError(
                    f"address: {name} is for surrogates that take particles; {self.card.name} knows "
                    f"{self.card.trained_incidence().describe()} alone: leave it out"
                )
            check_name(name, known)
        numbers = {name: to_number(name, query[name]) for name in NUMBERS if name in query and name != "dz"}
        counts = {name: to_count(name, query[name]) for name in COUNTS if name in query}
        depths = [to_number("dz", each) for each in query["dz"].split(",")] if "dz" in query else [at.dz[0]]
        n_xy, n_z = counts.get("n_xy", at.n_xy), counts.get("n_z", len(depths) if len(depths) > 1 else at.n_z)
        for name, value, served in (("n_xy", n_xy, self.windows), ("n_z", n_z, self.layers)):
            if value not in served:
                expected = f"one of {', '.join(map(str, served))}" if len(served) > 1 else str(served[0])
                raise InputError(f"address: {name} = {value}: expected {expected}")
        if len(depths) not in (1, n_z):
            raise InputError(f"address: dz has {len(depths)} depths for {n_z} layers; expected one, or one a layer")
        material = query.get("material", at.material)
        if "density" not in numbers and material in self.materials:
            numbers["density"] = to_float(self.materials[material].density)
        of_design: dict[str, Any] = {name: value for name, value in numbers.items() if name in plain}
        found = replace(
            at, **of_design, material=material, dz=tuple(depths) * (n_z if len(depths) == 1 else 1), n_xy=n_xy
        )  # fmt: skip
        return found if at.beam is None else replace(found, beam=self._beam(query, numbers, found.dx, at.beam))

    def _beam(
        self, query: Mapping[str, str], numbers: Mapping[str, float], dx: float, usual: ParticleBeam
    ) -> ParticleBeam:
        """Return the beam that the parameters of an address name, in cells of a pitch in cm."""
        assert self.beam is not None
        particle = to_particle(query, usual.particle, self.beam.particles)
        if "position" in query and (query["position"] != "uniform" or {"x", "y"} & set(numbers)):
            raise InputError("address: expected position=uniform, or x and y of the entry in cm")
        entry: Any = query.get("position", tuple(numbers.get(name, 0.0) / dx for name in "xy") if dx > 0 else (0, 0))
        angles: dict[str, Any] = {name: numbers[name] for name in ("theta", "phi") if name in numbers}
        return replace(usual, particle=particle, position=entry, **angles)

    def material(self, selection: CellSelection) -> Material:
        """Return the material of a selection. Raises `InputError` if the surrogate does not know it."""
        if selection.material not in self.materials:
            raise InputError(
                f"material '{selection.material}' is none of {', '.join(self.materials)}; choose one of them"
            )
        material = self.materials[selection.material]
        same = abs(selection.density / to_float(material.density) - 1) < 1e-6
        return material if same else material.at_density(selection.density)

    def sizes(self, selection: CellSelection) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return the trained ranges of pitch and depth for the material of a selection, cm."""
        card = self.card.in_cm(self.material(selection))
        return card.dx, card.dz

    def axes(self, selection: CellSelection) -> MapAxes:
        """Return the axes of the landscape: the utility over pitch and depth."""
        labels = "pitch dx [cm]", "depth of a layer dz [cm]"
        return MapAxes(("dx", "dz"), labels, self.sizes(selection), "U", "1/GeV²")

    def moved(self, selection: CellSelection, x: float, y: float) -> CellSelection:
        """Return the selection at a pitch and a mean depth, cm; layers keep their proportions."""
        wide, deep = self.sizes(selection)
        depths = np.clip(np.array(selection.dz) * y / selection.depth, *deep)
        return replace(selection, dx=float(np.clip(x, *wide)), dz=tuple(depths.tolist())).rounded()

    def shown(self, utility: float) -> float:
        """Return the utility itself."""
        return utility

    def of_run(self, space: Mapping[str, Any], y: Sequence[float]) -> CellSelection:
        """Return the selection of one design of an optimisation; energy and material are those of `start`.

        Raises:
            FormatError: a run of a stack of plates.
        """
        if "parameters" not in space and space["kind"] == "stack":
            raise FormatError(
                f"the run is of a stack of plates, and {self.card.name} generates cells; take a surrogate of stacks, "
                "as sampling-fast"
            )
        start, of = self.start(), dict(zip(space["parameters"], y, strict=True))
        layers = len(start.dz) if start.beam is None else len(of) - ("density" in of) - 1
        dz = (of["dz"],) * len(start.dz) if "dz" in of else tuple(of[f"dz_{k + 1}"] for k in range(layers))
        return replace(start, dx=of["dx"], dz=dz)

    def design(self, selection: CellSelection) -> Design:
        """Return the design of a selection. Raises `InputError` for sizes that are not positive."""
        dz = selection.dz[0] if selection.equal else selection.dz
        return Design(selection.dx, dz, self.material(selection), selection.n_xy, selection.n_z)

    def incident(self, n: int) -> Incidence:
        """Return the particles of n showers of a surrogate that knows one beam."""
        return self.card.trained_incidence()[np.zeros(n, int)]

    def tables(self, selection: CellSelection) -> dict[str, Any]:
        """Return the tables of an optimisation that starts from a selection, as ``calograd optimise`` reads them."""
        names = ("dx", "dz") if selection.equal else ("dx", *(f"dz_{k + 1}" for k in range(len(selection.dz))))
        start = dict(zip(names, (selection.dx, *selection.dz), strict=False))
        dx, dz = self.sizes(selection)
        background = (
            {"kind": "emulator", "b0": 1e-3 * selection.background} if selection.background else {"kind": "none"}
        )
        tables: dict[str, Any] = {
            "pricing": "relative",
            "space": {
                "parameters": list(names), "start": start, "material": in_words(self.material(selection)),
                "bounds": {"dx": list(dx), "dz": list(dz)},
            },
            "background": background,
            "utility": {"kind": "squared-error", "truth": "incident"},
            "cost": [{"kind": "depth", "weight": selection.price}],
            "spectrum": {"energies": [selection.energy]},
        }  # fmt: skip
        if selection.beam is not None:
            tables["space"] |= {"cells": [selection.n_xy, selection.n_z]}
            tables["beam"] = _beam_table(selection.beam)
        return tables

    def objective(self, selection: CellSelection) -> Objective:
        """Return the objective of a selection. Raises `InputError` for a negative background or price."""
        tables = {key: value for key, value in self.tables(selection).items() if key != "space"}
        return parse_objective(tables, "explorer", Path()).build()


def _beam_table(beam: ParticleBeam) -> dict[str, Any]:
    """Return the table of a beam; the unit of an entry in the middle, or of entries that are drawn, is left out."""
    entry = beam.position if isinstance(beam.position, str) else list(beam.position)
    unit = {} if isinstance(beam.position, str) or beam.position == (0.0, 0.0) else {"unit": beam.unit}
    return {"particle": beam.particle, "position": entry, **unit, "theta": beam.theta, "phi": beam.phi}
