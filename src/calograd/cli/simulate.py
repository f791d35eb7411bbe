"""``calograd tables`` and ``calograd simulate``."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from calograd.cli.common import (
    ANGLE,
    COUNT,
    COUNT_OR_ZERO,
    ENTRY,
    EXISTING,
    FINITE,
    NOT_NEGATIVE,
    NUMBERS,
    NUMBERS_OR_RANGE,
    PARTICLES,
    POSITIVE,
    STACK,
    cell_size,
    command,
    errors_name_options,
    json_option,
    law_of,
    law_option,
    option,
    output_option,
    print_notes,
    print_table,
    stack_of,
    stack_options,
)
from calograd.cli.progress import progress
from calograd.errors import InputError, TablesError

if TYPE_CHECKING:
    from calograd.detector.configuration import Block, CrystalMatrix, Detector
    from calograd.detector.gdml import Geometry
    from calograd.detector.sampling_stack import SamplingStack
    from calograd.geant4.tables import Tables

_DESCRIBE = {
    "block": ("material", "block", "stand_alone", "cells"),
    "siw": (),
    "matrix": ("material", "cells", "cell", "gap", "silicon", "margin", "silicon_signal"),
    "sampling": (*STACK, "width", "record"),
    "gdml": ("geometry", "sensitive", "front", "material"),
}
"""Options that describe each kind of detector."""
_DESCRIPTIONS = tuple(dict.fromkeys(name for names in _DESCRIBE.values() for name in names))
"""Options that describe any detector."""


@click.command()
@option("--check", is_flag=True, help="Check the tables of every material that calograd knows by name.")
@option("--download", is_flag=True, help="Fetch G4EMLOW and G4ENSDFSTATE and check their checksums.")
@option("--url", help="Server of --download, a mirror of CERN's. [CERN]")
def tables(check: bool, download: bool, url: str | None) -> None:
    """Show where Geant4's data tables are, check them, or fetch the two that are needed.

    The search begins with the folder in the variable CALOGRAD_GEANT4_DATA. Geant4's own variables follow, then the
    download folders of geant4-pybind and calograd. A complete (official) set wins over a reduced one.

    \b
    Examples:
      calograd tables
      calograd tables --download
      CALOGRAD_GEANT4_DATA=/data/geant4 calograd tables --check
    """
    from calograd.geant4.download import BASE_URL
    from calograd.geant4.download import download as fetch
    from calograd.geant4.tables import data_home, find_tables

    if download:
        with progress("download") as show:

            def report(archive: str, done: int, total: int | None) -> None:
                show(f"{archive}, MB", done // 10**6, None if total is None else total // 10**6)

            fetch(data_home(), report, base_url=(url or BASE_URL).rstrip("/"))
    found = find_tables()
    binding = "installed" if importlib.util.find_spec("geant4_pybind") else "missing; pip install 'calograd[geant4]'"
    rows = [("set", found.name), ("found through", found.origin), ("G4LEDATA", found.emlow),
            ("G4ENSDFSTATEDATA", found.ensdfstate), ("geant4-pybind", binding)]  # fmt: skip
    print_table("Geant4 tables", ("", ""), [*rows, ("can be simulated", _able(found))] if check else rows)


def _able(found: Tables) -> str:
    """Return the materials whose tables are there. Raises `TablesError` if PbF2 is not among them."""
    from calograd.detector.material import MATERIALS

    found.check({"H", "Pb", "F"})
    able = []
    for name, material in MATERIALS.items():
        try:
            found.check({"H", *material.mass_fractions})
        except TablesError:
            continue
        able += [] if name.startswith("G4_") else [name]
    return ", ".join(able)


@command()
@option("--energies", required=True, type=NUMBERS_OR_RANGE,
        help="Incident energies, GeV: values as 1,10,50 (each in turn), or a range as 1:100.")  # fmt: skip
@law_option
@option("--showers", required=True, type=COUNT, help="Showers for each energy, or in total for a range.")
@option("--seed", default=0, type=COUNT_OR_ZERO, help="Seed; a shower depends on it and on the shower's index alone.")
@option("--detector", type=click.Choice(list(_DESCRIBE)), default="block",
        help="A block, a matrix of crystals, the silicon-tungsten stack, a stack of plates, or the geometry of a GDML "
        "file.")  # fmt: skip
@option("--material", help="Material of block or crystals: PbF2, ..., G4_NAME, or NAME:DENSITY:FORMULA. GDML: the "
        "material that its showers are said to be of. [PbF2; GDML: that of the sensitive volumes]")  # fmt: skip
@option(
    "--block",
    nargs=3,
    type=POSITIVE,
    metavar="X Y Z",
    help="Size of the block, cm. [25.2 25.2 76; wider for a beam at an angle]",
)
@option("--stand-alone", nargs=2, type=POSITIVE, metavar="DX DZ",
        help="A block as large as the cells of one design, cm.")  # fmt: skip
@option("--cells", nargs=2, type=COUNT, metavar="N_XY N_Z", help="Cells of --stand-alone or the matrix. [5 5]")
@option("--cell", nargs=2, type=NUMBERS, metavar="DX DZ",
        help="Matrix: pitch including the gap and depth including the silicon, cm; DZ may be one a layer: "
        "4,5,6,8,10.")  # fmt: skip
@option("--gap", type=NOT_NEGATIVE, help="Matrix: passive gap between crystals, cm. [0.1]")
@option("--silicon", type=NOT_NEGATIVE, help="Matrix: silicon plane behind every layer, cm. [0.2]")
@option("--margin", type=COUNT_OR_ZERO, help="Matrix: cells added around and behind --cells. [2]")
@option("--silicon-signal", is_flag=True, help="Matrix: record deposits in the silicon too.")
@stack_options
@option("--width", type=POSITIVE, help="Sampling: width of the plates, cm. [40; wider for a beam at an angle]")
@option("--record", type=click.Choice(["energies", "points"]),
        help="Sampling: record the energies of all plates, or also the deposits in active plates, for points. "
        "[energies]")  # fmt: skip
@option("--geometry", type=EXISTING, metavar="FILE", help="GDML: the file.")
@option("--sensitive", metavar="NAME,...", help="GDML: logical volumes in which deposits are recorded.")
@option("--front", type=FINITE, metavar="Z", help="GDML: z of the calorimeter's front face in the file, cm. [0]")
@option("--particle", default="gamma", type=PARTICLES, metavar="NAME,...",
        help="Incident particle: gamma, e- or e+; of several each shower has one.")  # fmt: skip
@option("--position", default=(0.0, 0.0), type=ENTRY, metavar="X,Y|uniform",
        help="Entry on the front face, cm; uniform draws it in the central cell of a matrix.")  # fmt: skip
@option("--theta", default=0.0, type=ANGLE, metavar="THETA|LOW:HIGH",
        help="Angle of the beam to the normal, degrees; from a range each shower draws one.")  # fmt: skip
@option("--phi", default=0.0, type=ANGLE, metavar="PHI|LOW:HIGH", help="Azimuth of the tilted beam, degrees.")
@option("--upstream", type=POSITIVE, help="Distance of the particle's start before the face, cm. [1; siw 0.1]")
@option("--range-cut", default=0.07, type=POSITIVE, help="Production cut, cm.")
@option("--workers", default=1, type=COUNT, help="Geant4 processes on this machine.")
@option("--scheduler", metavar="tcp://HOST:PORT", help="Use this Dask cluster instead.")
@option("--append", is_flag=True, help="Continue a finished library up to --showers.")
@output_option("The shower library (HDF5)", resumes=True)
@json_option
def simulate(output: Path, **options: Any) -> dict[str, Any]:
    """Simulate showers with Geant4 and write a shower library.

    The same command resumes a run that was interrupted. A shower depends on --seed and its index alone, not on the
    number of workers. Without --stand-alone the block is so large that it serves every design.

    A matrix has crystals with gaps and silicon, and serves only the design of its --cell and --cells. Cell i begins at
    x = (i - N_XY/2) DX, with a crystal of width DX - gap in its middle. Layer k is DZ deep: first crystals, then
    silicon. With an even N_XY the axis runs in a gap; see --position.

    A sampling stack has layers of an absorber plate, an optional gap and an active plate. The library has the energy of
    every plate and the thicknesses of each shower's stack; with --record points also the deposits in active plates, of
    which 'calograd points' makes points. Ranges and lists of materials give every shower a stack of its own, which
    follows from --seed and the shower's index.

    A GDML geometry is built as its file says, and deposits are recorded in the logical volumes that --sensitive names.
    The front face is the plane z = --front of the file and becomes z = 0; x and y stay those of the file.

    \b
    Examples:
      calograd simulate --material PbF2 --energies 1,10,50 --showers 100 --seed 1 --workers 2 -o library.h5
      calograd simulate --energies 1:100 --law log-uniform --showers 5000 --workers 8 -o train.h5
      calograd simulate --stand-alone 1 5 --energies 10 --showers 200 -o alone.h5
      calograd simulate --detector matrix --cell 2.5 6 --gap 0.1 --silicon 0.2 --energies 10 --showers 200 -o matrix.h5
      calograd simulate --theta 20 --particle e- --material PbWO4 --energies 10 --showers 200 -o tilted.h5
      calograd simulate --particle gamma,e-,e+ --theta 0:40 --energies 1:200 --showers 5000 -o crystals.h5
      calograd simulate --detector gdml --geometry calo.gdml --sensitive CRYSTAL --front -38 --energies 10 \\
        --showers 200 -o others.h5
      calograd simulate --detector siw --energies 10:90 --law uniform --showers 1000 -o siw.h5
      calograd simulate --detector sampling --absorber Pb --active G4_lAr --absorber-thickness 0.2 \\
        --active-thickness 0.4 --layers 40 --particle e- --energies 1,10,50 --showers 200 -o lar.h5
      calograd simulate --detector sampling --absorber Pb,W,Fe --active lAr,Si --layers 10:60 \\
        --absorber-thickness 0.1:0.4 --active-thickness 0.05:0.6 --profile smooth --record points \\
        --energies 1:100 --showers 5000 -o stacks.h5
    """
    from calograd.geant4 import production

    options["law"] = law_of(options["energies"], options["law"])
    options["detector"], started = _detector(options), time.perf_counter()
    arguments = {name: value for name, value in options.items() if name not in _DESCRIPTIONS}
    with progress("simulation") as show, errors_name_options(*arguments):
        made = production.simulate(output, progress=show, **arguments)
    result = {
        "output": str(output),
        "showers": made.showers,
        "simulated": made.simulated,
        "GeV": round(made.gev, 3),
        "seconds": round(time.perf_counter() - started, 2),
        "core seconds": round(made.seconds, 2),
        "seconds per GeV and core": made.seconds / made.gev if made.gev else None,
        "leakage, % of the energy": None if made.leakage is None else 100 * made.leakage,
        "MB": round(output.stat().st_size / 1e6, 3),
        "Geant4": made.geant4,
        "tables": made.tables,
    }
    print_notes(made.notes)
    rows = [(key, f"{value:.4g}" if isinstance(value, float) else value) for key, value in result.items() if value]
    print_table("Shower library", ("", ""), rows)
    return result | {"config": made.config.model_dump(mode="json"), "notes": made.notes}


def _detector(options: dict[str, Any]) -> Detector:
    """Return the detector that the options describe. Raises `InputError` naming the option."""
    from calograd.detector.configuration import SiWStack

    kind = options["detector"]
    for name in _DESCRIPTIONS:
        if name not in _DESCRIBE[kind] and not (options[name] is None or options[name] is False):
            raise InputError(f"--{name.replace('_', '-')} is of another detector; leave it out with --detector {kind}")
    with errors_name_options(dx="cell", dz="cell", n_xy="cells"):
        match kind:
            case "siw":
                return SiWStack()
            case "sampling":
                return _sampling(options)
            case "matrix":
                return _matrix(options)
            case "gdml":
                return _geometry(options)
            case _:
                return _block(options)


def _sampling(options: dict[str, Any]) -> SamplingStack:
    from calograd.geant4.probe import find_material
    from calograd.geant4.production import hold

    stack = stack_of(options, find_material, "--detector sampling", width=options["width"], record=options["record"])
    return stack if options["width"] else hold(stack, options["theta"], options["position"])


def _matrix(options: dict[str, Any]) -> CrystalMatrix:
    from calograd.detector.configuration import CrystalMatrix
    from calograd.geant4.probe import find_material

    if not options["cell"]:
        raise InputError("--detector matrix needs the cells it is made of: --cell DX DZ")
    n_xy, n_z = options["cells"] or (5, 5)
    dx, dz = cell_size(options["cell"], n_z)
    given = {name: options[name] for name in ("gap", "silicon", "margin") if options[name] is not None}
    return CrystalMatrix(
        material=find_material(options["material"] or "PbF2"), dx=dx,
        dz=dz if isinstance(dz, tuple) else (dz,) * n_z, n_xy=n_xy, silicon_signal=options["silicon_signal"], **given,
    )  # fmt: skip


def _geometry(options: dict[str, Any]) -> Geometry:
    from calograd.geant4.gdml import read_geometry

    for name, what in (("geometry", "the GDML file"), ("sensitive", "the volumes in which deposits are recorded")):
        if options[name] is None:
            raise InputError(f"--detector gdml needs {what}: --{name}")
    names = [name.strip() for name in options["sensitive"].split(",")]
    return read_geometry(options["geometry"], names, options["front"] or 0.0, options["material"])


def _block(options: dict[str, Any]) -> Block:
    from calograd.detector.configuration import Block
    from calograd.geant4.probe import find_material

    material, size = find_material(options["material"] or "PbF2"), options["block"]
    if options["cells"] and not options["stand_alone"]:
        raise InputError("--cells belongs to --stand-alone DX DZ; the large block is free of cells")
    if options["stand_alone"]:
        if size:
            raise InputError("--block and --stand-alone both give the size; leave one out")
        (dx, dz), (n_xy, n_z) = options["stand_alone"], options["cells"] or (5, 5)
        size = (n_xy * dx, n_xy * dx, n_z * dz)
    holding = Block.holding(material, options["theta"], options["position"])
    return Block(material=material, size=size) if size else holding
