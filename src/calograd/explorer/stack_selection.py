"""The selection of a page of stacks of plates: a stack with equal layers, and a beam.

Plates are wide, so the entry and the azimuth change nothing. A selection can be the start of an optimisation:
`StackLimits.tables` returns the tables that ``calograd optimise`` reads. An address can name it: `StackLimits.parse`
reads ``?absorber=Pb&active=lAr&absorber_thickness=0.2&active_thickness=0.4&n_layers=40&energy=10&particle=e-``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp
from typing import Any, ClassVar

import numpy as np
import torch

from calograd.detector.material import Material, to_float
from calograd.detector.particles import ParticleBeam, Particles
from calograd.detector.sampling_design import SamplingDesign
from calograd.detector.sampling_stack import THICKEST
from calograd.errors import FormatError, InputError
from calograd.explorer.kinds import MapAxes, PlotLabels
from calograd.explorer.text import check_name, in_words, to_count, to_number, to_particle
from calograd.objective.stack_space import KINDS
from calograd.surrogate import Card, Surrogate, TrainedStacks

NUMBERS = ("absorber_thickness", "active_thickness", "energy", "theta")
"""Parameters of an address that are numbers."""
NAMES = ("absorber", "active", "absorber_thickness", "active_thickness", "n_layers", "particle", "energy", "theta")
"""Parameters of an address."""
OPENS: dict[str, Any] = {
    "absorber": "Pb", "active": "lAr", "absorber_thickness": 0.2, "active_thickness": 0.4, "n_layers": 40,
    "energy": 10.0, "particle": "e-",
}  # fmt: skip
"""The stack (cm) and the beam (GeV) that a page opens with, where they were trained on."""
MARGIN = 0.999
"""Share of the thickest absorbers of a design that the page offers."""


@dataclass(frozen=True)
class StackSelection:
    """A stack of plates and the beam that it is looked at in.

    Args:
        absorber, active: names of materials that the surrogate knows.
        absorber_thickness, active_thickness: thickness of every absorber and of every active plate, cm.
        n_layers: number of layers.
        energy: incident energy, GeV.
        particle: ``gamma``, ``e-`` or ``e+``.
        theta: angle to the normal of the plates, degrees.
    """

    absorber: str
    active: str
    absorber_thickness: float
    active_thickness: float
    n_layers: int
    energy: float
    particle: str
    theta: float

    @property
    def place(self) -> tuple[float, float]:
        """Return both thicknesses, cm: the place on the map."""
        return self.absorber_thickness, self.active_thickness

    def rounded(self) -> StackSelection:
        """Return the selection with thicknesses of four decimals."""
        sizes = round(self.absorber_thickness, 4), round(self.active_thickness, 4)
        return replace(self, absorber_thickness=sizes[0], active_thickness=sizes[1])

    @property
    def beam(self) -> ParticleBeam:
        """Return the beam."""
        return ParticleBeam(self.particle, theta=self.theta)  # type: ignore[arg-type]

    def __str__(self) -> str:
        plates = f"{self.absorber_thickness:g} cm {self.absorber} and {self.active_thickness:g} cm {self.active}"
        return f"{self.n_layers} layers of {plates}, {self.energy:g} GeV {self.particle}, theta {self.theta:g} degrees"


@dataclass(frozen=True)
class StackLimits:
    """The selections that a surrogate of stacks accepts.

    Args:
        card: the surrogate's card.
    """

    card: Card
    labels: ClassVar[PlotLabels] = PlotLabels(
        {"E_vis": "E_vis / E [%]", "leakage": "leakage / E [%]", "depth_mean": "⟨depth⟩ [X₀]"},
        ("depth [X₀]", "dE/dt, all plates [GeV/X₀]"), lines=2, about=True,
    )  # fmt: skip

    @classmethod
    def of(cls, surrogate: Surrogate) -> StackLimits:
        """Return the limits of a surrogate. Raises `InputError` for one of something else than stacks."""
        _ = surrogate.card.stacks  # complains
        return cls(surrogate.card)

    @property
    def trained(self) -> TrainedStacks:
        """Return the stacks that were trained on."""
        return self.card.stacks

    @property
    def absorbers(self) -> list[str]:
        """Return the names of the absorbers."""
        return [material.name for material in self.trained.absorbers]

    def actives(self, absorber: str) -> list[str]:
        """Return the names of the active materials that were trained on with an absorber."""
        return [active for one, active in self.trained.pairs if one == absorber]

    def start(self) -> StackSelection:
        """Return the selection a page opens with: `OPENS`, or the nearest in range."""
        trained, pair = self.trained, (OPENS["absorber"], OPENS["active"])
        absorber, active = pair if pair in trained.pairs else trained.pairs[0]
        particles = trained.beam.particles
        particle = OPENS["particle"] if OPENS["particle"] in particles else particles[0]
        sizes, layers = (OPENS["absorber_thickness"], OPENS["active_thickness"]), OPENS["n_layers"]
        at = StackSelection(absorber, active, *sizes, layers, OPENS["energy"], particle, trained.beam.theta[0])
        return self.nearest(at)

    def nearest(self, selection: StackSelection) -> StackSelection:
        """Return the selection with thicknesses, number of layers and energy within the trained range."""
        sizes = self.sizes(selection)
        return replace(
            selection,
            absorber_thickness=_clip(selection.absorber_thickness, sizes[0]),
            active_thickness=_clip(selection.active_thickness, sizes[1]),
            n_layers=int(np.clip(selection.n_layers, *self.trained.layers)),
            energy=_clip(selection.energy, self.card.energy),
        )

    def parse(self, query: Mapping[str, str]) -> StackSelection:
        """Return the selection that the parameters of an address name; the others are those of `start`.

        Thicknesses are in cm. Where only materials are named, the usual thicknesses are moved into their range.

        Raises:
            InputError: a parameter that is unknown, or a value that is none.
        """
        for name in query:
            check_name(name, NAMES)
        at = self.start()
        absorber = _known("address: absorber", query.get("absorber", at.absorber), self.trained.absorbers)
        usual = at.active if at.active in self.actives(absorber) else self.actives(absorber)[0]
        active = _known("address: active", query.get("active", usual), self.trained.actives)
        particle = to_particle(query, at.particle, self.trained.beam.particles)
        at = self.nearest(replace(at, absorber=absorber, active=active, particle=particle))
        given: dict[str, Any] = {name: to_number(name, query[name]) for name in NUMBERS if name in query}
        if "n_layers" in query:
            given["n_layers"] = to_count("n_layers", query["n_layers"])
        return replace(at, **given)

    def check(self, selection: StackSelection) -> None:
        """Raise `InputError` or `RangeError` for a selection that the surrogate was not trained on."""
        at, beam = selection, selection.beam
        if (at.absorber, at.active) not in self.trained.pairs:
            raise InputError(
                f"{self.card.name}: {at.absorber} with {at.active} was not trained on; expected {at.absorber} with "
                f"{' or '.join(self.actives(at.absorber))}"
            )
        energy = torch.tensor(at.energy)
        particles = Particles.of(1, beam.particle, (0.0, 0.0), beam.theta, 0.0, like=energy)
        self.card.check_range(self.design(at), energy, particles=particles)

    def known(self, selection: StackSelection) -> bool:
        """Return whether the surrogate was trained on a selection."""
        try:
            self.check(selection)
        except InputError:
            return False
        return True

    def materials(self, selection: StackSelection) -> tuple[Material, Material]:
        """Return the materials of absorber and active plates. Raises `InputError` for others than the trained ones."""
        several = (("absorber", self.trained.absorbers), ("active", self.trained.actives))
        found = []
        for role, known in several:
            name = getattr(selection, role)
            material = next((each for each in known if each.name == name), None)
            if material is None:
                raise InputError(f"{role} '{name}' is none of {_listed(known)}; choose one of them")
            found.append(material)
        return found[0], found[1]

    def sizes(self, selection: StackSelection) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return the trained ranges of the thicknesses of absorber and active plate, cm.

        Absorbers that count as given in mm (`SamplingDesign`) are left out.
        """
        absorber, active = self.materials(selection)
        ranges = self.trained.thickness_ranges(absorber, active)
        low, high = ranges["absorber"]
        return (low, min(high, MARGIN * THICKEST * to_float(absorber.radiation_length))), ranges["active"]

    def deepest(self, selection: StackSelection) -> float:
        """Return the largest depth of a stack in an ascent from a selection, cm: that of the selection itself."""
        sizes = zip(selection.place, self.sizes(selection), strict=True)
        return selection.n_layers * sum(_clip(size, ends) for size, ends in sizes)

    def axes(self, selection: StackSelection) -> MapAxes:
        """Return the axes of the landscape: the resolution over both thicknesses."""
        labels = f"absorber, {selection.absorber} [cm]", f"active plate, {selection.active} [cm]"
        return MapAxes(KINDS, labels, self.sizes(selection), "sigma/E", "%", least=True)

    def moved(self, selection: StackSelection, x: float, y: float) -> StackSelection:
        """Return the selection with other thicknesses, cm, or the nearest within the trained range."""
        return self.nearest(replace(selection, absorber_thickness=x, active_thickness=y).rounded())

    def shown(self, utility: float) -> float:
        """Return sigma/E in percent, whose logarithm is minus the utility of an optimisation of stacks."""
        return 100 * exp(-utility)

    def of_run(self, space: Mapping[str, Any], y: Sequence[float]) -> StackSelection:
        """Return the selection of one design of an optimisation, with mean thicknesses; the beam is that of `start`.

        Raises:
            FormatError: a run of cells, or of materials that the surrogate does not know.
        """
        if "parameters" in space or space["kind"] != "stack":
            raise FormatError(
                f"the run is of cells, and {self.card.name} generates stacks of plates; take a surrogate of cells, as "
                "pbf2-cells"
            )
        try:
            names = [_known(kind, space[kind], getattr(self.trained, f"{kind}s")) for kind in KINDS]
        except InputError as error:
            raise FormatError(f"the run does not fit {self.card.name}: {error}") from error
        sizes = np.reshape(y, (2, -1)).mean(1).tolist()
        return replace(
            self.start(), absorber=names[0], active=names[1], absorber_thickness=sizes[0], active_thickness=sizes[1],
            n_layers=int(space["layers"]),
        )  # fmt: skip

    def design(self, selection: StackSelection) -> SamplingDesign:
        """Return the stack of a selection. Raises `InputError` for thicknesses and numbers of layers that are none."""
        return SamplingDesign(
            *self.materials(selection), selection.absorber_thickness, selection.active_thickness, selection.n_layers
        )

    def tables(self, selection: StackSelection) -> dict[str, Any]:
        """Return the tables of an optimisation that starts from a selection, as ``calograd optimise`` reads them."""
        bounds = dict(zip(KINDS, self.sizes(selection), strict=True))
        names = dict(zip(KINDS, map(in_words, self.materials(selection)), strict=True))
        return {
            "space": {
                "kind": "stack", **names, "layers": selection.n_layers,
                "start": dict(zip(KINDS, selection.place, strict=True)),
                "bounds": {kind: [float(f"{end:.6g}") for end in ends] for kind, ends in bounds.items()},
                "max_depth": float(f"{self.deepest(selection):.12g}"),
            },
            "utility": {"kind": "visible-resolution"},
            "beam": {"particle": selection.particle, "theta": selection.theta},
            "spectrum": {"energies": [selection.energy]},
        }  # fmt: skip


def _known(role: str, text: str, known: Sequence[Material]) -> str:
    """Return the trained name of a material that is named in words. Raises `InputError` for others."""
    names = [material.name for material in known]
    if text in names:
        return text
    try:
        material = Material.parse(text)
    except InputError:
        material = None
    found = next((each.name for each in known if material is not None and each.alike(material)), None)
    if found is None:
        raise InputError(f"{role} = '{text}' was not trained on; expected one of {', '.join(names)}")
    return found


def _listed(materials: Sequence[Material]) -> str:
    return ", ".join(material.name for material in materials)


def _clip(value: float, ends: tuple[float, float]) -> float:
    return float(np.clip(value, *ends))
