"""Read geometries of GDML files with Geant4.

Geant4 ends its process at a file that it cannot read. So ``python -m calograd.geant4.gdml FILE NAME...`` reads it in a
process of its own and prints what a simulation has to know, as `calograd.geant4.probe` does.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calograd.detector.gdml import Box, Geometry, digest_of
from calograd.detector.material import SYMBOLS, Material
from calograd.errors import InputError
from calograd.geant4.geometry import read_world
from calograd.geant4.probe import find_material, numbers_of, print_answer, run_probe
from calograd.geant4.tables import find_tables

LISTED = 12
"""Number of volumes that an error lists."""
LEAST = 1e-6
"""Length by which sensitive volumes may begin before the front face without an error, cm."""


def read_geometry(
    file: str | Path, sensitive: str | Sequence[str], front: float = 0.0, material: Material | str | None = None
) -> Geometry:
    """Read the geometry of a GDML file, to simulate showers in it.

        detector = read_geometry("calo.gdml", sensitive="CRYSTAL")
        simulate("library.h5", energies=10, showers=100, detector=detector)

    Args:
        file: the GDML file.
        sensitive: names of the logical volumes in which deposits are recorded. GDML may add a pointer to a name, as
            ``CRYSTAL0x55d0``; it can be left out.
        front: z of the calorimeter's front face in the file's world, cm. The beam meets it at x and y of the file.
        material: what the showers are said to be of, which surrogates and sizes in units of the material need: a
            `Material`, its name, ``G4_NAME`` or ``NAME:DENSITY:FORMULA``. It changes no shower. None: the material of
            the sensitive volumes, which must have one.

    Raises:
        InputError: a file that is missing, is no GDML or cannot be read by Geant4; no such volumes; sensitive volumes
            of several materials; a front outside of the world or behind the begin of the sensitive volumes.
        SimulationError: geant4-pybind is not installed or does not start.
        TablesError: there are no Geant4 tables.
    """
    path = Path(file).resolve()
    digest = digest_of(path)
    names = tuple(dict.fromkeys(name.split("0x")[0] for name in _listed(sensitive)))
    try:
        found = run_probe(find_tables(), "calograd.geant4.gdml", str(path), *names)
    except InputError as error:
        raise InputError(f"Geant4 cannot read {file}: {error}") from error
    _check_names(path, names, found["volumes"])
    if found["world"] is None:
        raise InputError(f"{file} names no world; expected <setup> with <world ref=.../>")
    world, extent = _moved(found["world"], front), _moved(found["extent"], front)
    _check_front(path, front, world, extent)
    return Geometry(
        file=str(path), digest=digest, sensitive=names, front=front, elements=tuple(found["elements"]), world=world,
        material=_material(path, material, found["materials"]), extent=extent,
    )  # fmt: skip


def _listed(sensitive: str | Sequence[str]) -> list[str]:
    """Return the names of volumes. Raises `InputError` if there are none."""
    names = [sensitive] if isinstance(sensitive, str) else list(sensitive)
    if not names or not all(isinstance(name, str) and name.split("0x")[0] for name in names):
        raise InputError(f"sensitive = {sensitive!r}: expected the name of a logical volume, or several")
    return names


def _check_names(path: Path, names: Sequence[str], volumes: Sequence[str]) -> None:
    """Raise `InputError` unless all names are among the volumes of a file."""
    for name in names:
        if name not in volumes:
            more = f" and {len(volumes) - LISTED} more" if len(volumes) > LISTED else ""
            raise InputError(
                f"{path.name} has no logical volume '{name}' in its world; it has {', '.join(volumes[:LISTED])}{more}"
            )


def _check_front(path: Path, front: float, world: Box, extent: Box) -> None:
    """Raise `InputError` for a front outside of the world, or that is not before all sensitive volumes."""
    low, high = world[2]
    if not low < 0 < high:
        raise InputError(
            f"front = {front:g} cm is outside of the world of {path.name}, which reaches from z = {low + front:g} to "
            f"{high + front:g} cm"
        )
    low, high = extent[2]
    if low < -LEAST:
        raise InputError(
            f"front = {front:g} cm is not before the sensitive volumes of {path.name}, which reach from z = "
            f"{low + front:g} to {high + front:g} cm; choose the front face of the calorimeter (--front)"
        )


def _material(path: Path, given: Material | str | None, found: Sequence[dict[str, Any]]) -> Material:
    """Return the material of showers: the given one, or the only one of the sensitive volumes."""
    if isinstance(given, str):
        return find_material(given)
    if given is not None:
        return given
    if len(found) > 1:
        names = ", ".join(sorted(each["name"] for each in found))
        raise InputError(f"the sensitive volumes of {path.name} are of {names}; say what showers are of (--material)")
    try:
        return Material(**found[0])
    except InputError as error:
        raise InputError(f"{path.name}: {error}; say what showers are of (--material)") from error


def _moved(box: Sequence[Sequence[float]], front: float) -> Box:
    """Return the bounds of a file's world in the frame of the library, cm."""
    x, y, z = ((float(low), float(high)) for low, high in box)
    return x, y, (z[0] - front, z[1] - front)


class _Tree:
    """The logical volumes below the world of a geometry.

    Args:
        g4: the module ``geant4_pybind``.
        world: the logical volume of the world.
        sensitive: names of volumes.
    """

    def __init__(self, g4: Any, world: Any, sensitive: Sequence[str]) -> None:
        self._g4 = g4
        self._sensitive = frozenset(sensitive)
        self._bounds: dict[int, NDArray[np.float64] | None] = {}
        self.volumes: list[Any] = []
        self.extent = self._visit(world)

    def solid(self, logical: Any) -> NDArray[np.float64]:
        """Return the bounds of a volume in its own frame, least and greatest, shape (2, 3), mm."""
        low, high = self._g4.G4ThreeVector(), self._g4.G4ThreeVector()
        logical.GetSolid().BoundingLimits(low, high)
        return np.array([[low.x, low.y, low.z], [high.x, high.y, high.z]])

    def _visit(self, logical: Any) -> NDArray[np.float64] | None:
        """Return the bounds of the sensitive volumes in a volume, in its own frame, mm; None if there are none."""
        number = logical.GetInstanceID()
        if number in self._bounds:
            return self._bounds[number]
        self.volumes.append(logical)
        boxes = [self.solid(logical)] if str(logical.GetName()) in self._sensitive else []
        for place in range(logical.GetNoDaughters()):
            daughter = logical.GetDaughter(place)
            box = self._visit(daughter.GetLogicalVolume())
            if box is not None:
                # Copies that Geant4 places itself may be anywhere in their mother.
                boxes.append(self.solid(logical) if daughter.IsReplicated() else _placed(daughter, box))
        every = np.concatenate(boxes) if boxes else None
        self._bounds[number] = None if every is None else np.stack([every.min(axis=0), every.max(axis=0)])
        return self._bounds[number]


def _placed(daughter: Any, box: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the corners of a box in the frame of the mother of a volume that is placed there, mm."""
    turn, shift = daughter.GetObjectRotationValue(), daughter.GetObjectTranslation()
    rows = np.array([[turn.xx, turn.xy, turn.xz], [turn.yx, turn.yy, turn.yz], [turn.zx, turn.zy, turn.zz]])
    corners = np.array(list(product(*box.T)))
    placed: NDArray[np.float64] = corners @ rows.T + np.array([shift.x, shift.y, shift.z])
    return placed


def _centimetres(box: NDArray[np.float64] | None) -> list[list[float]] | None:
    """Return bounds in cm, rounded to a nanometre: x, y and z, each least and greatest."""
    return None if box is None else np.round(box.T / 10, 7).tolist()


def main() -> None:
    """Print what a simulation has to know of the GDML file and the volumes that are named on the command line."""
    import geant4_pybind as g4

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a file that cannot be read leaves no core dump
    file, *sensitive = sys.argv[1:]
    world, _parser = read_world(g4, Path(file))
    if world is None:
        print_answer({"volumes": sensitive, "world": None})
    tree = _Tree(g4, world.GetLogicalVolume(), sensitive)
    materials = []
    for logical in tree.volumes:
        if str(logical.GetName()) in sensitive and (one := numbers_of(logical.GetMaterial())) not in materials:
            materials.append(one)
    numbers = {round(element.GetZ()) for element in g4.G4Element.GetElementTable()}
    print_answer(
        {
            "volumes": sorted({str(logical.GetName()) for logical in tree.volumes}),
            "materials": materials,
            "elements": [SYMBOLS[z - 1] for z in sorted(numbers)],
            "world": _centimetres(tree.solid(world.GetLogicalVolume())),
            "extent": _centimetres(tree.extent),
        }
    )


if __name__ == "__main__":
    main()
