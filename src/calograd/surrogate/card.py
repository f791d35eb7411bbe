"""The card of a surrogate: its kind, its trained range, its training, and the check of requests.

Every runtime, in PyTorch or in ONNX, asks `Card.check_range`.
"""

from __future__ import annotations

import reprlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator
from torch import Tensor

from calograd.detector.configuration import PDG, Particle, SiWStack
from calograd.detector.design import Design
from calograd.detector.incidence import Incidence
from calograd.detector.material import DESCRIPTORS, NUMBERS, UNITS, Material, to_float
from calograd.detector.particles import Particles
from calograd.detector.sampling_design import SamplingDesign
from calograd.detector.sampling_stack import SamplingStack, Stacks
from calograd.errors import InputError, RangeError

MARGIN = 1e-4
"""Relative tolerance at the ends of the trained range, for float32 designs."""

MILLIMETRES = 2.0
"""Entry in units of the pitch from which on it was probably meant in mm."""

THIN_GAP = 1e-3
"""Share of a stack's radiation lengths up to which its gaps stop nothing."""

Units = Literal["cm", "scaled"]
"""Units of trained sizes: cm, or pitches in Moliere radii and depths in radiation lengths."""

if TYPE_CHECKING:
    StoredMaterial = Material
else:
    StoredMaterial = Annotated[
        Any,
        PlainValidator(lambda value: value if isinstance(value, Material) else Material(**value)),
        PlainSerializer(Material.to_dict, return_type=dict[str, Any]),
    ]
"""A material that is stored as the table of `Material.to_dict`."""


class Ranges(NamedTuple):
    """Trained ranges of incident energy (GeV), pitch and depth of a layer (cm), least and largest each."""

    energy: tuple[float, float]
    dx: tuple[float, float]
    dz: tuple[float, float]


class Findings(NamedTuple):
    """Result of a check of a request.

    Args:
        problems: clauses that name parameters outside the trained range; the request is refused.
        note: clause that warns of a material between the trained ones; empty if there is none.
    """

    problems: list[str]
    note: str = ""


class _Trained(BaseModel, ABC):
    """Trained range of a surrogate beside its energies."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    designs_of: ClassVar[Literal["cells", "stacks"] | None]
    """Kind of the designs of a request: cells, or stacks of plates; None if there is one detector."""

    @abstractmethod
    def check(self, name: str, design: object, architecture: Mapping[str, Any]) -> Findings:
        """Compare a request's design with what was trained on.

        Args:
            name: name of the surrogate.
            design: `Design` or detector; None if the request has none.
            architecture: architecture of the surrogate, as plain data.

        Raises:
            InputError: a design that the surrogate cannot take at all.
        """

    @abstractmethod
    def check_particles(self, design: Any, particles: Particles) -> list[str]:
        """Return clauses that name what of the particles was not trained on.

        Raises:
            InputError: an entry outside the central cell.
        """

    @abstractmethod
    def cell(self, name: str, design: object) -> Tensor | None:
        """Return the pitch of the cells that entries are drawn in, shape (n,) or (1,), cm; None if there are no cells.

        Args:
            name: name of the surrogate.
            design: design of a request.

        Raises:
            InputError: a design of another class than the surrogate takes.
        """

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Return the trained range as files of showers record it."""

    @abstractmethod
    def facts(self, architecture: Mapping[str, Any]) -> dict[str, str]:
        """Return the rows of the notebook's table."""


class TrainedBeam(BaseModel):
    """Trained particles and directions of a surrogate that knows several; entries are all of the central cell."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    particles: Annotated[tuple[Particle, ...], Field(min_length=1)]
    """Names of the particles."""
    theta: tuple[float, float]
    """Least and largest angle to the normal of the front face, degrees; of any azimuth."""

    def joined(self, other: TrainedBeam) -> TrainedBeam:
        """Return the particles and angles of both."""
        names = (*self.particles, *other.particles)
        low, high = zip(self.theta, other.theta, strict=True)
        return TrainedBeam(particles=tuple(name for name in PDG if name in names), theta=(min(low), max(high)))

    def check_directions(self, particles: Particles) -> list[str]:
        """Return clauses that name particles and angles that were not trained on."""
        known = [PDG[name] for name in self.particles]
        names = {number: name for name, number in PDG.items()}
        strange = sorted(set(particles.particle.tolist()) - set(known))
        trained = " and ".join(self.particles)
        problems = [f"particle {names.get(each, each)} was not trained on, {trained} were" for each in strange]
        return [*problems, *outside("theta", "degrees", particles.theta, self.theta)]

    def check(self, design: Design, particles: Particles) -> list[str]:
        """Return clauses that name what of the particles was not trained on.

        Raises:
            InputError: an entry outside the central cell.
        """
        half, entry = design.dx.detach().cpu().reshape(-1, 1) / 2, particles.position.detach().cpu().to(design.dx)
        beyond = (entry.abs() > half * (1 + MARGIN)).any(1)
        if beyond.any():
            at = int(beyond.long().argmax())
            x, y = entry[at % len(entry)].tolist()
            pitch = 2 * float(half[at % len(half)])
            inside = ", ".join(f"{round(value - pitch * round(value / pitch), 4) + 0.0:g}" for value in (x, y))
            hint = "" if max(abs(x), abs(y)) < MILLIMETRES * pitch else "; is it in mm? Give cm"
            raise InputError(
                f"position = ({x:g}, {y:g}) cm is outside the central cell of {pitch:g} cm; expected coordinates up to "
                f"half of the pitch: counted from the middle of the cell that it hits it is ({inside}) cm{hint}"
            )
        return self.check_directions(particles)


class TrainedDesigns(_Trained):
    """Trained range of designs, for cells and maps."""

    designs_of = "cells"

    dx: tuple[float, float]
    """Least and largest pitch, in cm or, with ``units`` scaled, in Moliere radii."""
    dz: tuple[float, float]
    """Least and largest depth of a layer, in cm or, with ``units`` scaled, in radiation lengths."""
    units: Units = "cm"
    """Units of ``dx`` and ``dz``."""
    unequal_layers: bool = False
    """True if layers of different depths were trained on."""
    materials: Annotated[tuple[StoredMaterial, ...], Field(min_length=1)]
    """The materials that were trained on."""
    mode: str
    """Surroundings of the window of cells: ``embedded`` if the material continues, ``stand-alone`` if there is nothing,
    or the kind of the detector: ``crystal matrix``, ``GDML geometry``, ``imported``. ``mixed`` if there were several.
    """
    beam: TrainedBeam | None = None
    """Trained particles and directions where these are conditions; None: there is one beam."""

    @property
    def material(self) -> Material:
        """The only material. Raises `InputError` if there are several."""
        if len(self.materials) > 1:
            names = ", ".join(m.name for m in self.materials)
            raise InputError(f"the surrogate was trained on {names}; name the material (--material)")
        return self.materials[0]

    def scales(self, material_numbers: tuple[str, ...]) -> bool:
        """Return whether the networks know lengths in X0 and R_M only.

        The surrogate then holds at any density of the material.
        """
        return self.units == "scaled" or (len(self.materials) == 1 and not material_numbers)

    def in_cm(self, material: Material, material_numbers: tuple[str, ...]) -> TrainedDesigns:
        """Return the same with ranges in cm, as they are for a detector of ``material``."""
        if not self.scales(material_numbers):
            return self
        unit_x, unit_z = to_float(material.moliere_radius), to_float(material.radiation_length)
        if self.units == "cm":
            trained = self.material
            unit_x, unit_z = unit_x / to_float(trained.moliere_radius), unit_z / to_float(trained.radiation_length)
            if unit_x == unit_z == 1:
                return self
        low_x, high_x, low_z, high_z = (
            size * unit for sizes, unit in ((self.dx, unit_x), (self.dz, unit_z)) for size in sizes
        )
        return self.model_copy(update={"units": "cm", "dx": (low_x, high_x), "dz": (low_z, high_z)})

    def check(self, name: str, design: object, architecture: Mapping[str, Any]) -> Findings:
        """Compare a design with the trained ones, see `Card.check_range`."""
        design = self._design(name, design)
        n_xy, n_z, numbers = architecture["n_xy"], architecture["n_z"], tuple(architecture["material_numbers"])
        if self.beam is not None:
            if design.n_xy > n_xy or design.n_xy % 2 == 0 or design.n_z > n_z:
                raise InputError(
                    f"the design has {design.n_xy} x {design.n_xy} x {design.n_z} cells, {name} generates windows of "
                    f"an odd number of cells across, of up to {n_xy} x {n_xy} x {n_z}"
                )
        elif (design.n_xy, design.n_z) != (n_xy, n_z):
            raise InputError(
                f"the design has {design.n_xy} x {design.n_xy} x {design.n_z} cells, "
                f"{name} generates {n_xy} x {n_xy} x {n_z}"
            )
        design.check()
        trained, depths, material = self.in_cm(design.material, numbers), design.dz.detach(), design.material
        problems = [*outside("dx", "cm", design.dx, trained.dx), *outside("dz", "cm", depths, trained.dz)]
        if not self.unequal_layers and float((depths.amax(-1) / depths.amin(-1)).max()) > 1 + MARGIN:
            problems.append("layers of different depths were not trained on")
        known, why = self.material_status(material, numbers)
        unseen = f"material {_name(material)} was not trained on, {_names(self.materials)}"
        if why:
            problems.append(unseen + (f" ({why})" if len(self.materials) > 1 else ""))
        return Findings(problems, "" if known else f"{unseen}, its numbers are between theirs")

    @staticmethod
    def _design(name: str, design: object) -> Design:
        if not isinstance(design, Design):
            raise InputError(f"design = {reprlib.repr(design)}: {name} expects a Design, as Design(dx=2.5, dz=6.0)")
        return design

    def check_particles(self, design: Any, particles: Particles) -> list[str]:
        """Compare particles, entries and directions with the trained ones."""
        return [] if self.beam is None else self.beam.check(design, particles)

    def cell(self, name: str, design: object) -> Tensor:
        """Return the pitch of the cells."""
        return self._design(name, design).dx.reshape(-1)

    def material_status(self, material: Material, material_numbers: tuple[str, ...]) -> tuple[bool, str]:
        """Return whether a material is as good as a trained one; if not, which of its numbers is outside, in words."""
        compared = {"critical_energy", *material_numbers}
        if not self.scales(material_numbers):
            compared |= {"radiation_length", "moliere_radius"}
        return material_status(material, self.materials, compared)

    def provenance(self) -> dict[str, Any]:
        """Return the trained range as files of showers record it."""
        return {"mode": self.mode}

    def facts(self, architecture: Mapping[str, Any]) -> dict[str, str]:
        """Return the rows of the notebook's table."""
        x, z = ("cm", "cm") if self.units == "cm" else ("Moliere radii", "radiation lengths")
        n_xy, n_z = architecture["n_xy"], architecture["n_z"]
        return {
            "materials": ", ".join(map(_name, self.materials)),
            "cells": f"{n_xy} x {n_xy} x {n_z}",
            "pitch": f"{self.dx[0]:g} to {self.dx[1]:g} {x}",
            "depth of a layer": f"{self.dz[0]:g} to {self.dz[1]:g} {z}"
            + (", each its own" if self.unequal_layers else ", all equal"),
            "mode": self.mode,
            **({} if self.beam is None else {
                "particles": ", ".join(self.beam.particles),
                "angle": f"{self.beam.theta[0]:g} to {self.beam.theta[1]:g} degrees",
            }),
        }  # fmt: skip


class TrainedStacks(_Trained):
    """Trained range of stacks of absorber and active plates."""

    designs_of = "stacks"

    absorbers: Annotated[tuple[StoredMaterial, ...], Field(min_length=1)]
    """Materials of the absorbers that were trained on."""
    actives: Annotated[tuple[StoredMaterial, ...], Field(min_length=1)]
    """Materials of the active plates that were trained on."""
    pairs: tuple[tuple[str, str], ...]
    """Names of absorber and active material that were trained on together."""
    layers: tuple[int, int]
    """Least and largest number of layers."""
    absorber_thickness: tuple[float, float]
    """Least and largest thickness of an absorber, in radiation lengths."""
    active_thickness: tuple[tuple[float, float], ...]
    """Least and largest thickness of an active plate of every one of ``actives``, cm."""
    beam: TrainedBeam
    """Trained particles and directions."""

    def check(self, name: str, design: object, architecture: Mapping[str, Any]) -> Findings:
        """Compare a stack, or the stacks of several showers, with the trained ones, see `Card.check_range`.

        Of several, the problems of the first that has any are returned.
        """
        if not isinstance(design, Stacks):
            return self._check(name, self._stack(name, design), architecture)
        notes = list[str]()
        for _, stacks in SamplingDesign.batches(design):
            found = self._check(name, stacks, architecture)
            if found.problems:
                return found
            notes.append(found.note)
        return Findings([], "; ".join(filter(None, dict.fromkeys(notes))))

    def _check(self, name: str, stack: SamplingDesign, architecture: Mapping[str, Any]) -> Findings:
        if stack.n_layers > architecture["layers"]:
            raise InputError(f"the stack has {stack.n_layers} layers, {name} generates up to {architecture['layers']}")
        stack.check()
        low, high = self.layers
        problems = [] if low <= stack.n_layers <= high else [f"n_layers = {stack.n_layers} is outside {low} to {high}"]
        gap = (stack.gap_thickness.detach() / to_float(stack.gap_material.radiation_length)).sum(-1)
        if bool((gap > THIN_GAP * stack.radiation_lengths.detach()).any()):
            problems.append(f"gaps of {stack.gap_material.name} were not trained on, only those that stop nothing")
        for kind, ends in self.thickness_ranges(stack.absorber, stack.active).items():
            problems += outside(f"{kind}_thickness", "cm", getattr(stack, f"{kind}_thickness"), ends)
        notes = []
        roles = (("absorber", stack.absorber, self.absorbers), ("active", stack.active, self.actives))
        for role, material, known in roles:
            same, why = material_status(material, known, DESCRIPTORS)
            if same:
                continue
            unseen = f"{role} {_name(material)} was not trained on, {_names(known)}"
            notes.append(f"{unseen}, its numbers are between theirs")
            problems += [f"{unseen} ({why})"] if why else []
        pair = stack.absorber.name, stack.active.name
        if not notes and pair not in self.pairs:
            notes.append(f"{pair[0]} with {pair[1]} was not trained on, each of them was with others")
        return Findings(problems, "; ".join(notes))

    def joined(self, other: TrainedStacks) -> TrainedStacks:
        """Return the stacks of both."""
        actives = dict(zip(self.actives, self.active_thickness, strict=True))
        for material, ends in zip(other.actives, other.active_thickness, strict=True):
            actives[material] = _both(actives.get(material, ends), ends)
        return TrainedStacks(
            absorbers=tuple(dict.fromkeys((*self.absorbers, *other.absorbers))), actives=tuple(actives),
            pairs=tuple(dict.fromkeys((*self.pairs, *other.pairs))),
            layers=(min(self.layers[0], other.layers[0]), max(self.layers[1], other.layers[1])),
            absorber_thickness=_both(self.absorber_thickness, other.absorber_thickness),
            active_thickness=tuple(actives.values()), beam=self.beam.joined(other.beam),
        )  # fmt: skip

    def middle(self) -> SamplingStack:
        """Return the stack in the middle of the trained range, of the first pair of materials."""
        absorber, active = (
            next(material for material in several if material.name == name)
            for several, name in zip((self.absorbers, self.actives), self.pairs[0], strict=True)
        )
        ends = self.thickness_ranges(absorber, active).values()
        sizes = [float(f"{(low * high) ** 0.5:.3g}") for low, high in ends]
        return SamplingStack(
            absorber=(absorber,), active=(active,), layers=sum(self.layers) // 2, absorber_thickness=sizes[0],
            active_thickness=sizes[1],
        )  # fmt: skip

    def thickness_ranges(self, absorber: Material, active: Material) -> dict[str, tuple[float, float]]:
        """Return the trained ranges of the thickness of an ``absorber`` and of an ``active`` plate, cm."""
        unit = to_float(absorber.radiation_length)
        low, high = self.absorber_thickness
        return {"absorber": (low * unit, high * unit), "active": self._active_range(active)}

    def _active_range(self, material: Material) -> tuple[float, float]:
        """Return the trained thickness of active plates of a material, cm; of another by its minimum ionisation."""
        for known, ends in zip(self.actives, self.active_thickness, strict=True):
            if material.alike(known, MARGIN, DESCRIPTORS):
                return ends
        losses = [
            tuple(end * to_float(known.minimum_ionisation) for end in ends)
            for known, ends in zip(self.actives, self.active_thickness, strict=True)
        ]
        unit = to_float(material.minimum_ionisation)
        return min(low for low, _ in losses) / unit, max(high for _, high in losses) / unit

    @staticmethod
    def _stack(name: str, design: object) -> SamplingDesign:
        if not isinstance(design, SamplingDesign):
            raise InputError(
                f"design = {reprlib.repr(design)}: {name} expects a SamplingDesign, as "
                "SamplingDesign('Pb', 'lAr', absorber_thickness=0.2, active_thickness=0.4, n_layers=40)"
            )
        return design

    def check_particles(self, design: Any, particles: Particles) -> list[str]:  # noqa: ARG002 - plates are wide
        """Compare particles and directions with the trained ones; the entry changes no energy of a wide plate."""
        return self.beam.check_directions(particles)

    def cell(self, name: str, design: object) -> None:
        """Return None: a stack of plates has no cells."""
        self._stack(name, design)

    def provenance(self) -> dict[str, Any]:
        """Return the trained range as files of showers record it."""
        return {"layers": list(self.layers)}

    def facts(self, architecture: Mapping[str, Any]) -> dict[str, str]:
        """Return the rows of the notebook's table."""
        ends = zip(self.actives, self.active_thickness, strict=True)
        return {
            "layers": f"{self.layers[0]} to {self.layers[1]}",
            "absorbers": f"{', '.join(map(_name, self.absorbers))}: {self.absorber_thickness[0]:.2g} to "
            f"{self.absorber_thickness[1]:.2g} radiation lengths",
            "active plates": ", ".join(f"{_name(m)}: {low:.2g} to {high:.2g} cm" for m, (low, high) in ends),
            "points": "in the active plates" if architecture.get("points") else "none, energies of plates alone",
            "particles": ", ".join(self.beam.particles),
            "angle": f"{self.beam.theta[0]:g} to {self.beam.theta[1]:g} degrees",
        }


class TrainedDetector(_Trained):
    """The one layered detector of a surrogate of points."""

    designs_of = None

    detector: dict[str, Any]
    """Record of the detector, see `calograd.detector.configuration.SiWStack`."""
    clustering: str
    """Definition of a point, see `calograd.events.clustering`."""

    def check(self, name: str, design: object, architecture: Mapping[str, Any]) -> Findings:  # noqa: ARG002
        """Refuse any design but that of the detector itself."""
        if design is None or (isinstance(design, SiWStack) and design.model_dump(mode="json") == self.detector):
            return Findings([])
        raise InputError(
            f"{name} generates showers in one detector ({self.detector.get('kind', 'unknown')}) and takes no other "
            "design; leave the design out"
        )

    def check_particles(self, design: Any, particles: Particles) -> list[str]:  # noqa: ARG002 - of one beam
        """Return no clauses: there is one beam."""
        return []

    def cell(self, name: str, design: object) -> None:
        """Return None: entries are not drawn."""

    def provenance(self) -> dict[str, Any]:
        """Return the trained range as files of showers record it."""
        return {"clustering": self.clustering}

    def facts(self, architecture: Mapping[str, Any]) -> dict[str, str]:
        """Return the rows of the notebook's table."""
        kind = self.detector.get("kind", "unknown")
        return {"detector": f"{kind}, {architecture['layers']} layers", "points": self.clustering}


class Card(BaseModel):
    """Card of a surrogate: its name and kind, its sizes, its trained range and how it was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Name of the surrogate, that of its run or of the bundled one."""
    kind: str
    """Kind of showers that it generates, a key of `calograd.surrogate.registry.KINDS`."""
    architecture: dict[str, Any]
    """Sizes and choices that fix the shapes of the weights, as plain data."""
    energy: tuple[float, float]
    """Least and largest trained incident energy, GeV."""
    trained: TrainedDesigns | TrainedDetector | TrainedStacks
    """Trained range beside energies: a range of designs or of stacks, or one detector."""
    training: dict[str, Any]
    """The resolved configuration, the data's provenance and the steps done."""

    @property
    def designs(self) -> TrainedDesigns:
        """The trained range of designs. Raises `InputError` for a surrogate of one detector."""
        if not isinstance(self.trained, TrainedDesigns):
            what = "energies of plates" if self.takes_design else "points in one detector"
            raise InputError(
                f"{self.name} generates {what} and knows no designs of cells; expected a surrogate of cells or maps, "
                "as pbf2-cells"
            )
        return self.trained

    @property
    def stacks(self) -> TrainedStacks:
        """The trained range of stacks. Raises `InputError` for a surrogate of something else."""
        if not isinstance(self.trained, TrainedStacks):
            raise InputError(f"{self.name} generates {self.kind}; expected a surrogate of stacks of plates")
        return self.trained

    @property
    def detector(self) -> TrainedDetector:
        """The only detector. Raises `InputError` for a surrogate of designs."""
        if not isinstance(self.trained, TrainedDetector):
            raise InputError(
                f"{self.name} generates {self.kind} of designs; expected a surrogate of one detector, as siw-cloud"
            )
        return self.trained

    @property
    def takes_design(self) -> bool:
        """True if a sample needs a design."""
        return self.trained.designs_of is not None

    @property
    def only_material(self) -> Material | None:
        """The material if it is the only one that was trained on."""
        known = self.trained.materials if isinstance(self.trained, TrainedDesigns) else ()
        return known[0] if len(known) == 1 else None

    @property
    def material_numbers(self) -> tuple[str, ...]:
        """Names of the material's numbers that the networks see; see `calograd.detector.material.DESCRIPTORS`."""
        return tuple(self.architecture.get("material_numbers", NUMBERS))

    def check_incidence(self, incident: Incidence, name: str) -> None:
        """Refuse to imitate, or to be compared with, showers of another beam than the trained one.

        Args:
            incident: incident particles of the showers.
            name: name of the showers.

        Raises:
            InputError: another particle, entry or direction.
        """
        if isinstance(self.trained, TrainedDesigns) and self.trained.beam is not None:
            return
        difference = incident.difference(self.trained_incidence())
        if difference:
            raise InputError(
                f"{name} is of {difference} as {self.name} was trained on; choose such showers, or adapt the surrogate "
                "to these (calograd adapt)"
            )

    def refuse_particles(self, names: Sequence[str]) -> None:
        """Raise `InputError` if anything is asked of the particles of a surrogate that knows one beam.

        Args:
            names: names of what is asked.
        """
        if names:
            raise InputError(
                f"{self.name} generates {self.trained_incidence().describe()} alone; leave out {names[0]}, or take a "
                "surrogate that was trained on several particles, entries and directions"
            )

    def for_material(self, material: Material) -> Card:
        """Return the card of the same surrogate for one of its materials alone, with ranges in cm.

        Raises:
            RangeError: a material that was not trained on.
        """
        known, why = self.material_status(material)
        if not known:
            raise RangeError(
                f"{self.name}: material {_name(material)} was not trained on{f' ({why})' if why else ''}, "
                f"{_names(self.designs.materials)}; choose one of these"
            )
        trained = self.designs.in_cm(material, self.material_numbers)
        return self.model_copy(update={"trained": trained.model_copy(update={"materials": (material,)})})

    def in_cm(self, material: Material) -> Ranges:
        """Return the trained ranges in GeV and cm, as they are for a detector of ``material``."""
        trained = self.designs.in_cm(material, self.material_numbers)
        return Ranges(self.energy, trained.dx, trained.dz)

    def material_status(self, material: Material) -> tuple[bool, str]:
        """Return whether a material is as good as a trained one; if not, which of its numbers is outside, in words."""
        return self.designs.material_status(material, self.material_numbers)

    def trained_incidence(self) -> Incidence:
        """Return the particle of a surrogate that knows one beam, as its training data say."""
        data = self.training.get("data")
        known = data[0].get("config") if isinstance(data, list) and data and isinstance(data[0], Mapping) else None
        return Incidence.of_config(known, 1)

    def check_range(
        self,
        design: object,
        energy: Tensor,
        extrapolate: bool = False,
        stacklevel: int = 3,
        particles: Particles | None = None,
    ) -> None:
        """Refuse requests that the surrogate was not trained on.

        Sizes are compared in cm or, if the networks see them so, in the material's Moliere radius and radiation length.
        The compared numbers of the material are E_c and every other number that the networks see. X0 and R_M are
        compared as well unless the networks see lengths in these alone (`TrainedDesigns.scales`). A material that
        agrees with a trained one is accepted: `pbf2-cells` and surrogates with scaled sizes and the usual
        ``material_numbers`` take another density of a trained composition. A material with each number between those of
        the trained ones is accepted with a warning. Any other material is refused.

        Args:
            design: a `Design` or `SamplingDesign`, of one shower or of many, or the `Stacks` of showers; None for a
                surrogate of one detector.
            energy: incident, any shape, GeV.
            extrapolate: warn instead of refusing outside the trained range.
            stacklevel: frame that warnings name, as in `warnings.warn`.
            particles: incident particles; None for those of the only beam.

        Raises:
            RangeError: outside the trained range.
            InputError: an energy that is not a positive number, a design of another number of cells or detector.
        """
        least, most = (float(end) for end in energy.detach().aminmax())  # both are NaN if any is
        if not (least > 0 and isfinite(most)):
            raise InputError("an energy is not a positive number; expected GeV")
        problems, note = self.trained.check(self.name, design, self.architecture)
        problems = [*outside("energy", "GeV", energy, self.energy), *problems]
        if particles is not None:
            problems += self.trained.check_particles(design, particles)
        if problems and not extrapolate:
            how = "allow it with extrapolate=True (--extrapolate), at your own risk"
            raise RangeError(f"{self.name}: {'; '.join(problems)}; {how}")
        if problems:
            warnings.warn(f"{self.name} extrapolates: {'; '.join(problems)}", stacklevel=stacklevel)
        elif note:
            warnings.warn(f"{self.name} interpolates: {note}", stacklevel=stacklevel)


def outside(name: str, unit: str, values: Tensor, ends: tuple[float, float]) -> list[str]:
    """Return a clause that says which value is outside the ends; none if all are inside, with `MARGIN`."""
    (smallest, largest), (low, high) = (float(end) for end in values.detach().aminmax()), ends
    if smallest >= low * (1 - MARGIN) and largest <= high * (1 + MARGIN):
        return []
    worst = smallest if not smallest >= low * (1 - MARGIN) else largest
    return [f"{name} = {worst:g} {unit} is outside {low:g} to {high:g} {unit}"]


def material_status(material: Material, known: Sequence[Material], compared: Iterable[str]) -> tuple[bool, str]:
    """Return whether a material is as good as a known one; if not, which of its numbers is outside, in words.

    Args:
        material: the material asked for.
        known: those that were trained on.
        compared: names of the numbers that are compared, of `calograd.detector.material.DESCRIPTORS`.
    """
    wanted = set(compared)
    if any(material.alike(other, MARGIN, tuple(wanted)) for other in known):
        return True, ""
    for name in (each for each in DESCRIPTORS if each in wanted):
        value = to_float(getattr(material, name))
        values = [to_float(getattr(other, name)) for other in known]
        low, high = min(values), max(values)
        if not low * (1 - MARGIN) <= value <= high * (1 + MARGIN):
            unit = f" {UNITS[name]}".rstrip()
            return False, f"{name.replace('_', ' ')} {value:.3g} is outside {low:.3g} to {high:.3g}{unit}"
    return False, ""


def _name(material: Material) -> str:
    return f"{material.name} ({to_float(material.density):g} g/cm3)"


def _names(materials: tuple[Material, ...]) -> str:
    return f"{', '.join(map(_name, materials))} {'was' if len(materials) == 1 else 'were'}"


def _both(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """Return the range that holds both."""
    return min(one[0], other[0]), max(one[1], other[1])
