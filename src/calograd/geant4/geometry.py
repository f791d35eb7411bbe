"""Build detectors as Geant4 volumes.

The front face is z = 0, the axis x = y = 0, the beam runs along +z, and vacuum surrounds the detector. Deposits are
recorded in the logical volumes named `SENSITIVE`; the active plates of a stack are named `ACTIVE`. A geometry of a GDML
file is the exception: it is built as the file says, with its own names, and its front face is z = ``front``.

**Stacks of plates** change between showers. Volumes are made once, as many as the largest stack has; `Built.arrange`
gives each its length, place and material. Plates that a shower's stack does not have are thin, of vacuum, and lie
behind it. Geant4 has to be told of the change (``GeometryHasBeenModified``) before the next run; it then closes the
geometry anew and gives every volume the production cuts of its material. These are computed once, at the start, because
a small cube of every material lies in a far corner of the world. So a shower does not depend on those before it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from calograd.detector.configuration import Beam, Block, CrystalMatrix, SimulationConfig, SiWStack
from calograd.detector.gdml import Geometry, setup_of
from calograd.detector.material import Material, to_float
from calograd.detector.sampling_stack import SamplingStack, Stack

SENSITIVE = "sensitive"
"""Name of the logical volumes in which deposits are recorded."""
ACTIVE = "active"
"""Name of the logical volumes of the active plates of stacks; their other plates are `SENSITIVE` too."""
G_PER_CM3 = 6.241509074e18
"""One g/cm3 in Geant4's internal unit of density."""
SPARE = 1e-3
"""Thickness of the plates that a shower's stack does not have, cm."""
CUBE = 1e-4
"""Size of the cubes that keep the production cuts of all materials, cm."""


class Built(NamedTuple):
    """A detector that was built.

    Attributes:
        kept: all objects, the placed world first; they must be kept as long as Geant4 runs.
        arrange: gives the plates the lengths, places and materials of a shower's stack; nothing for other detectors.
            Geant4 has to be told before its next run.
    """

    kept: list[Any]
    arrange: Callable[[Stack], None]


def build(g4: Any, config: SimulationConfig) -> Built:
    """Build the detector of a simulation, once in a process.

    Args:
        g4: the module ``geant4_pybind``.
        config: the simulation.
    """
    detector = config.detector
    arrange: Callable[[Stack], None] = _nothing
    if isinstance(detector, Geometry):
        return Built(list(read_world(g4, Path(detector.file))), arrange)
    match detector:
        case Block():
            width, depth = max(detector.size[:2]), detector.size[2]
        case SiWStack():
            width, depth = detector.width, float(detector.layer_fronts()[-1]) + detector.pitch[1]
        case CrystalMatrix():
            width, depth = detector.width, sum(detector.layers())
        case SamplingStack():
            width, depth = detector.width, detector.largest_depth() + SPARE * 3 * detector.layers_range[1]
    volumes = _Volumes(g4)
    world = volumes.world(config.beam, width, depth)
    match detector:
        case Block():
            material = volumes.material(detector.material)
            volumes.place(volumes.box(SENSITIVE, detector.size, material), world, detector.size[2] / 2)
        case SiWStack():
            _stack(volumes, world, detector, depth)
        case CrystalMatrix():
            _matrix(volumes, world, detector)
        case SamplingStack():
            arrange = _Plates(g4, volumes, world, detector).arrange
    return Built(volumes.kept, arrange)


def read_world(g4: Any, file: Path) -> tuple[Any, Any]:
    """Read a GDML file, without its schema, which would be fetched from the network.

    Geant4 ends the process if it cannot read the file.

    Args:
        g4: the module ``geant4_pybind``.
        file: the file; files that it includes are relative to its folder.

    Returns:
        The placed world and the parser, which has to be kept; the world is None if the file names none.
    """
    parser, file = g4.G4GDMLParser(), file.absolute()
    with chdir(file.parent):
        parser.Read(file.name, False)
    return parser.GetWorldVolume(setup_of(file)), parser


def sensitive_volumes(config: SimulationConfig) -> tuple[str, ...]:
    """Return the names of the logical volumes in which the deposits of a simulation are recorded."""
    return config.detector.sensitive if isinstance(config.detector, Geometry) else (SENSITIVE,)


def _nothing(stack: Stack) -> None:
    """Leave a detector as it was built."""


class _Plates:
    """The plates of a stack, see the module; the plate of layer k and kind j (absorber, gap, active) is 3 k + j."""

    def __init__(self, g4: Any, volumes: _Volumes, world: Any, detector: SamplingStack) -> None:
        self._g4 = g4
        materials = {material: volumes.material(material) for material in detector.materials}
        self._vacuum = volumes.named("G4_Galactic")
        self._absorbers = [materials[material] for material in detector.absorber]
        self._actives = [materials[material] for material in detector.active]
        self._gap = materials.get(detector.gap_material)
        self._count = 3 * detector.layers_range[1]
        square = (detector.width, detector.width)
        self._parts: list[tuple[Any, Any, Any]] = []
        for number in range(self._count):
            logical = volumes.box(ACTIVE if number % 3 == 2 else SENSITIVE, (*square, SPARE), self._vacuum)
            placed = volumes.place(logical, world, (number + 0.5) * SPARE, copy=number)
            self._parts.append((logical.GetSolid(), logical, placed))
        corner = world.GetSolid()
        x, z = (corner.GetXHalfLength() / 10 - 10 * CUBE), 10 * CUBE - corner.GetZHalfLength() / 10
        for number, material in enumerate(materials.values()):
            volumes.place(volumes.box("cube", (CUBE,) * 3, material), world, z, x, x - 10 * CUBE * number, copy=number)

    def arrange(self, stack: Stack) -> None:
        """Make the plates those of a shower's stack."""
        layers = len(stack.thickness)
        thickness = np.zeros(self._count)
        thickness[: 3 * layers] = stack.thickness.ravel()
        used = thickness > 0
        # Plates of no thickness do not exist: they wait behind the stack.
        lengths = np.where(used, thickness, SPARE)
        order = np.argsort(~used, kind="stable")
        begins = np.empty(self._count)
        begins[order] = np.concatenate([[0.0], np.cumsum(lengths[order])[:-1]])
        middles = begins + lengths / 2
        kinds = (self._absorbers[stack.absorber], self._gap, self._actives[stack.active])
        for number, (solid, logical, placed) in enumerate(self._parts):
            solid.SetZHalfLength(5 * lengths[number])
            placed.SetTranslation(self._g4.G4ThreeVector(0, 0, 10 * middles[number]))
            logical.SetMaterial(kinds[number % 3] if used[number] else self._vacuum)


class _Volumes:
    """Makes boxes, places them (cm) and keeps them, since Geant4 does not own objects made in Python."""

    def __init__(self, g4: Any) -> None:
        self.kept: list[Any] = []
        self._g4 = g4
        self._nist = g4.G4NistManager.Instance()

    def world(self, beam: Beam, width: float, depth: float) -> Any:
        """Return a world of vacuum around a detector and the start of its beam."""
        margin = beam.upstream + 10
        beside = 0.0 if isinstance(beam.position, str) else max(map(abs, beam.position))
        half = width + margin + 2 * beside
        logical = self.box("world", (2 * half, 2 * half, 2 * (depth + margin)), self.named("G4_Galactic"))
        self.kept.insert(0, self._g4.G4PVPlacement(None, self._g4.G4ThreeVector(), logical, "world", None, False, 0))
        return logical

    def box(self, name: str, size: tuple[float, float, float], material: Any) -> Any:
        """Return a logical volume of the given full lengths."""
        box = self._g4.G4Box(name, *(5 * length for length in size))
        logical = self._g4.G4LogicalVolume(box, material, name)
        self.kept.extend((box, logical))
        return logical

    def place(self, logical: Any, mother: Any, z: float, x: float = 0.0, y: float = 0.0, *, copy: int = 0) -> Any:
        """Put the centre of a volume at (x, y, z) of its mother and return the placed volume."""
        centre = self._g4.G4ThreeVector(10 * x, 10 * y, 10 * z)
        self.kept.append(self._g4.G4PVPlacement(None, centre, logical, logical.GetName(), mother, False, copy))
        return self.kept[-1]

    def named(self, name: str) -> Any:
        """Return a material of Geant4's own list."""
        return self._nist.FindOrBuildMaterial(name)

    def material(self, wanted: Material) -> Any:
        """Return Geant4's material: from its own list, or made of density and composition."""
        if wanted.geant4_name:
            return self.named(wanted.geant4_name)
        material = self._g4.G4Material(wanted.name, to_float(wanted.density) * G_PER_CM3, len(wanted.mass_fractions))
        for symbol, fraction in wanted.mass_fractions.items():
            material.AddElement(self._nist.FindOrBuildElement(symbol), float(fraction))
        return material


def _stack(volumes: _Volumes, world: Any, detector: SiWStack, depth: float) -> None:
    square = (detector.width, detector.width)
    stack = volumes.box("stack", (*square, depth), volumes.named("G4_AIR"))
    volumes.place(stack, world, depth / 2)
    tungsten = volumes.named("G4_W")
    wafer = volumes.box(SENSITIVE, (*square, detector.silicon), volumes.named("G4_Si"))
    for layer, (front, plate) in enumerate(zip(detector.layer_fronts(), detector.plate_thicknesses(), strict=True)):
        middle = front + plate / 2 - depth / 2
        volumes.place(volumes.box("tungsten", (*square, plate), tungsten), stack, middle, copy=layer)
        behind = front + plate + detector.gap + detector.silicon / 2
        volumes.place(wafer, stack, behind - depth / 2, copy=layer)


def _matrix(volumes: _Volumes, world: Any, detector: CrystalMatrix) -> None:
    """Place layers of vacuum, each with its crystals at the front and its plane of silicon at the back."""
    vacuum, silicon = volumes.named("G4_Galactic"), volumes.named("G4_Si")
    material = volumes.material(detector.material)
    side, width = detector.dx - detector.gap, detector.width
    centres = detector.centres()
    made: dict[float, Any] = {}
    front = 0.0
    for number, dz in enumerate(detector.layers()):
        if dz not in made:
            made[dz] = layer = volumes.box("layer", (width, width, dz), vacuum)
            length = dz - detector.silicon
            crystal = volumes.box(SENSITIVE, (side, side, length), material)
            for copy, (x, y) in enumerate((x, y) for x in centres for y in centres):
                volumes.place(crystal, layer, length / 2 - dz / 2, x, y, copy=copy)
            if detector.silicon:
                name = SENSITIVE if detector.silicon_signal else "silicon"
                plane = volumes.box(name, (width, width, detector.silicon), silicon)
                volumes.place(plane, layer, (dz - detector.silicon) / 2)
        volumes.place(made[dz], world, front + dz / 2, copy=number)
        front += dz
