"""Find and check Geant4's data tables, and make the environment of a kernel.

Electromagnetic showers need two of Geant4's twelve datasets, G4EMLOW and G4ENSDFSTATE. They are searched in

1. the folder ``CALOGRAD_GEANT4_DATA`` (it holds ``G4EMLOW*/`` and ``G4ENSDFSTATE*/``), and there alone if it is set,
2. ``G4LEDATA`` and ``G4ENSDFSTATEDATA``,
3. ``GEANT4_DATA_DIR``,
4. ``~/.geant4_pybind``, where geant4-pybind puts its downloads,
5. ``$XDG_DATA_HOME/calograd/geant4``, where ``calograd tables --download`` puts them.

A complete set counts as the official one and wins over a reduced one, which has the tables of some elements only,
in any order. Results name the tables that they were made with.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from calograd.detector.configuration import Block, CrystalMatrix, SimulationConfig, SiWStack
from calograd.detector.gdml import Geometry
from calograd.detector.material import SYMBOLS
from calograd.detector.sampling_stack import SamplingStack
from calograd.errors import TablesError

OTHER_VARIABLES = (
    "G4NEUTRONHPDATA", "G4LEVELGAMMADATA", "G4RADIOACTIVEDATA", "G4PARTICLEXSDATA", "G4PIIDATA", "G4REALSURFACEDATA",
    "G4SAIDXSDATA", "G4ABLADATA", "G4INCLDATA", "G4CHANNELINGDATA",
)  # fmt: skip
"""Variables of the hadronic and optical datasets: never read here, but geant4-pybind asks for them if unset."""

ELEMENT_FILES = (
    "brem_SB/br{z}", "epics2017/phot/pe-cs-{z}.dat", "epics2017/phot/pe-low-{z}.dat", "epics2017/phot/pe-high-{z}.dat",
    "epics2017/rayl/re-cs-{z}.dat",
)  # fmt: skip
"""Files of G4EMLOW that G4EmStandardPhysics reads for every element of a material."""

OFFICIAL_ELEMENTS = 92
"""Least number of elements in the official G4EMLOW: the natural ones."""

ADVICE = (
    "run 'calograd tables --download', or set CALOGRAD_GEANT4_DATA to a folder that contains G4EMLOW8.8 and "
    "G4ENSDFSTATE3.0"
)


@dataclass(frozen=True)
class Tables:
    """The two datasets that are needed.

    Args:
        emlow: folder of G4EMLOW.
        ensdfstate: folder of G4ENSDFSTATE.
        origin: the place in the search that named them, for messages.
    """

    emlow: Path
    ensdfstate: Path
    origin: str

    def elements(self) -> list[int]:
        """Return the atomic numbers of the elements whose tables are all there, in order."""
        numbers = sorted(int(name[2:]) for name in _listing(self.emlow / "brem_SB") if re.fullmatch(r"br\d+", name))
        present = set(_listing(self.emlow / "epics2017/phot")) | set(_listing(self.emlow / "epics2017/rayl"))
        needed = [pattern.rsplit("/", 1)[1] for pattern in ELEMENT_FILES[1:]]
        return [z for z in numbers if all(name.format(z=z) in present for name in needed)]

    @property
    def official(self) -> bool:
        """True if the set is complete, as the official one is, and not a reduced one."""
        levels = self.ensdfstate / "ENSDFSTATE.dat"
        return levels.is_file() and levels.stat().st_size > 0 and len(self.elements()) >= OFFICIAL_ELEMENTS

    @property
    def name(self) -> str:
        """Name of the tables in the libraries made with them."""
        kind = "official" if self.official else f"reduced, {len(self.elements())} elements"
        return f"{self.emlow.name}, {self.ensdfstate.name} ({kind})"

    def check(self, elements: set[str]) -> None:
        """Raise `TablesError` unless the tables of all ``elements`` (symbols) are there and can be read."""
        for symbol in sorted(elements):
            if symbol not in SYMBOLS:
                raise TablesError(f"no Geant4 tables for '{symbol}', which is the symbol of no element")
            z = SYMBOLS.index(symbol) + 1
            for file in (self.emlow / pattern.format(z=z) for pattern in ELEMENT_FILES):
                if not file.is_file():
                    have = "" if self.official else f"; this reduced set has {_symbols(self.elements())}"
                    raise TablesError(f"no Geant4 tables for {symbol}: {file} is missing{have}; {ADVICE}")
                _refuse_unreadable(file)
        levels = self.ensdfstate / "ENSDFSTATE.dat"
        if not levels.is_file():
            raise TablesError(f"the Geant4 table {levels} is missing; {ADVICE}")
        _refuse_unreadable(levels)

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a kernel process: ``base`` with all 12 variables of geant4-pybind set.

        ``CI`` and ``GEANT4_DATA_DIR`` are left out: with ``CI=true`` geant4-pybind deletes files from its download
        folder, and a stale ``GEANT4_DATA_DIR`` only makes Geant4 complain.
        """
        environment = {key: value for key, value in base.items() if key not in ("CI", "GEANT4_DATA_DIR")}
        for variable in OTHER_VARIABLES:
            environment.setdefault(variable, str(self.emlow.parent))
        return environment | {"G4LEDATA": str(self.emlow), "G4ENSDFSTATEDATA": str(self.ensdfstate)}


def needed_elements(config: SimulationConfig) -> set[str]:
    """Return the symbols of the elements in a simulation's volumes; hydrogen stands for vacuum."""
    match config.detector:
        case Block(material=material):
            return {"H", *material.mass_fractions}
        case CrystalMatrix(material=material):
            return {"H", "Si", *material.mass_fractions}
        case SiWStack():
            return {"H", "W", "Si", "C", "N", "O", "Ar"}
        case Geometry(elements=elements):
            return {*elements}
        case SamplingStack():
            return {"H", *(symbol for material in config.detector.materials for symbol in material.mass_fractions)}


def data_home() -> Path:
    """Return the folder of ``calograd tables --download``."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    return Path(base) / "calograd" / "geant4"


def find_tables() -> Tables:
    """Return the tables to use, by the search that the module's docstring states.

    Raises:
        TablesError: there are none, or ``CALOGRAD_GEANT4_DATA`` names a folder without them.
    """
    explicit = os.environ.get("CALOGRAD_GEANT4_DATA")
    if explicit:
        found = _in_folder(Path(explicit), "CALOGRAD_GEANT4_DATA")
        if found is None:
            raise TablesError(
                f"CALOGRAD_GEANT4_DATA is {explicit}, expected a folder that contains G4EMLOW8.8 and G4ENSDFSTATE3.0; "
                "mend the variable or unset it"
            )
        return found
    candidates = list(_candidates())
    for tables in candidates:
        if tables.official:
            return tables
    if candidates:
        return candidates[0]
    raise TablesError(f"Geant4's data tables were not found; {ADVICE}")


def _candidates() -> Iterator[Tables]:
    emlow, levels = os.environ.get("G4LEDATA"), os.environ.get("G4ENSDFSTATEDATA")
    if emlow and levels and Path(emlow).is_dir() and Path(levels).is_dir():
        yield Tables(Path(emlow), Path(levels), "G4LEDATA and G4ENSDFSTATEDATA")
    folders = [
        (Path.home() / ".geant4_pybind", "the download folder of geant4-pybind"),
        (data_home(), "the download folder of calograd"),
    ]
    if os.environ.get("GEANT4_DATA_DIR"):
        folders.insert(0, (Path(os.environ["GEANT4_DATA_DIR"]), "GEANT4_DATA_DIR"))
    for folder, origin in folders:
        found = _in_folder(folder, origin)
        if found is not None:
            yield found


def _in_folder(folder: Path, origin: str) -> Tables | None:
    """Return the newest version of both datasets in ``folder``, if it has both."""
    newest = []
    for dataset in ("G4EMLOW", "G4ENSDFSTATE"):
        versions = [(_version(name), name) for name in _listing(folder) if re.fullmatch(rf"{dataset}\d+(\.\d+)*", name)]
        if not versions:
            return None
        newest.append(folder / max(versions)[1])
    return Tables(newest[0].absolute(), newest[1].absolute(), origin)


def _refuse_unreadable(file: Path) -> None:
    if not os.access(file, os.R_OK):
        raise TablesError(f"the Geant4 table {file} cannot be read; check its permissions")


def _version(name: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", name.removeprefix("G4")))


def _listing(folder: Path) -> list[str]:
    """Return the names in a folder; none if it is missing or cannot be read."""
    try:
        return [entry.name for entry in folder.iterdir()]
    except OSError:
        return []


def _symbols(numbers: list[int]) -> str:
    return " ".join(SYMBOLS[z - 1] if z <= len(SYMBOLS) else f"Z={z}" for z in numbers)
