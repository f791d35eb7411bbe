"""``calograd simulate``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from calograd.cli.common import (
    COUNT,
    FINITE,
    JSON_OPTION,
    NUMBERS,
    NUMBERS_OR_RANGE,
    POSITIVE,
    SEED,
    Command,
    Finite,
    Range,
    cell_size,
    output_option,
    print_notes,
    print_table,
    write_json,
)
from calograd.cli.progress import progress
from calograd.errors import InputError

if TYPE_CHECKING:
    from calograd.detector.configuration import Block, CrystalMatrix, Detector
    from calograd.geant4.production import Production

_DESCRIBE = {
    "block": ("material", "block", "stand_alone", "cells"),
    "siw": (),
    "matrix": ("material", "cells", "cell", "gap", "silicon", "margin", "silicon_signal"),
}
"""Options that describe a detector."""
_OPTION_OF = {"dx": "cell", "dz": "cell", "n_xy": "cells"}
"""Options that give a field another name."""


@click.command(cls=Command)
@click.option(
    "--energies",
    required=True,
    type=NUMBERS_OR_RANGE,
    help="Incident energies, GeV: values as 1,10,50 (each in turn), or a range as 1:100.",
)
@click.option(
    "--law", type=click.Choice(["uniform", "log-uniform"]), help="Distribution of energies in a range. [log-uniform]"
)
@click.option("--showers", required=True, type=COUNT, help="Showers for each energy, or in total for a range.")
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=SEED,
    help="Seed; a shower depends on it and on the shower's index alone.",
)
@click.option("--detector", type=click.Choice(list(_DESCRIBE)), default="block", show_default=True,
              help="A block, a matrix of crystals, or the silicon-tungsten stack.")  # fmt: skip
@click.option("--material", help="Material of block or crystals: PbF2, ..., G4_NAME, or NAME:DENSITY:FORMULA. [PbF2]")
@click.option("--block", nargs=3, type=POSITIVE, metavar="X Y Z", help="Size of the block, cm. [25.2 25.2 76]")
@click.option(
    "--stand-alone", nargs=2, type=POSITIVE, metavar="DX DZ", help="A block as large as the cells of one design, cm."
)
@click.option("--cells", nargs=2, type=COUNT, metavar="N_XY N_Z", help="Cells of --stand-alone or the matrix. [5 5]")
@click.option(
    "--cell", nargs=2, type=NUMBERS, metavar="DX DZ",
    help="Matrix: pitch including the gap and depth including the silicon, cm; DZ may be one a layer: 4,5,6,8,10.",
)  # fmt: skip
@click.option("--gap", type=Finite(min=0), help="Matrix: passive gap between crystals, cm. [0.1]")
@click.option("--silicon", type=Finite(min=0), help="Matrix: silicon plane behind every layer, cm. [0.2]")
@click.option("--margin", type=click.IntRange(min=0), help="Matrix: cells added around and behind --cells. [2]")
@click.option("--silicon-signal", is_flag=True, help="Matrix: record deposits in the silicon too.")
@click.option("--particle", type=click.Choice(["gamma", "e-", "e+"]), default="gamma", show_default=True,
              help="Incident particle.")  # fmt: skip
@click.option(
    "--position", nargs=2, type=FINITE, default=(0.0, 0.0), metavar="X Y", help="Entry on the front face, cm. [0 0]"
)
@click.option("--theta", default=0.0, show_default=True, type=FINITE, help="Angle to the normal, degrees.")
@click.option("--phi", default=0.0, show_default=True, type=FINITE, help="Azimuth of the tilted beam, degrees.")
@click.option("--upstream", type=POSITIVE, help="Distance of the particle's start before the face, cm. [1; siw 0.1]")
@click.option("--range-cut", default=0.07, show_default=True, type=POSITIVE, help="Production cut, cm.")
@click.option("--workers", default=1, show_default=True, type=COUNT, help="Geant4 processes on this machine.")
@click.option("--scheduler", metavar="tcp://HOST:PORT", help="Use this Dask cluster instead.")
@click.option("--append", is_flag=True, help="Continue a finished library up to --showers.")
@output_option("The shower library (HDF5)", resumes=True)
@JSON_OPTION
def simulate(output: Path, json_path: Path | None, **options: Any) -> None:
    """Simulate showers with Geant4 and write a shower library.

    The same command resumes a run that was interrupted. A shower depends on --seed and its index alone, not on the
    number of workers. Without --stand-alone the block is so large that it serves every design.

    A matrix has crystals with gaps and silicon, and serves only the design of its --cell and --cells. Cell i begins at
    x = (i - N_XY/2) DX, with a crystal of width DX - gap in its middle. Layer k is DZ deep: first crystals, then
    silicon. With an even N_XY the axis runs in a gap; see --position.

    \b
    Examples:
      calograd simulate --material PbF2 --energies 1,10,50 --showers 100 --seed 1 --workers 2 -o library.h5
      calograd simulate --energies 1:100 --law log-uniform --showers 5000 --workers 8 -o train.h5
      calograd simulate --stand-alone 1 5 --energies 10 --showers 200 -o alone.h5
      calograd simulate --detector matrix --cell 2.5 6 --gap 0.1 --silicon 0.2 --energies 10 --showers 200 -o matrix.h5
      calograd simulate --theta 20 --particle e- --material PbWO4 --energies 10 --showers 200 -o tilted.h5
      calograd simulate --detector siw --energies 10:90 --law uniform --showers 1000 -o siw.h5
    """
    from calograd.geant4 import production

    law = _law(options)
    detector, started = _detector(options), time.perf_counter()
    names = ("seed", "particle", "position", "theta", "phi", "upstream", "range_cut", "workers", "scheduler", "append")
    with progress("simulation") as show:
        try:
            made = production.simulate(
                output, options["energies"], options["showers"], law=law, detector=detector, progress=show,
                **{name: options[name] for name in names},
            )  # fmt: skip
        except InputError as error:
            raise _about_option(error, options) from error
    _summary(output, json_path, made, time.perf_counter() - started)


def _about_option(error: InputError, options: dict[str, Any]) -> InputError:
    """Name the option in an error that names the argument of `calograd.geant4.production.simulate`."""
    name, colon, problem = str(error).partition(": ")
    return InputError(f"--{name.replace('_', '-')}: {problem}") if colon and name in options else error


def _law(options: dict[str, Any]) -> Literal["discrete", "uniform", "log-uniform"]:
    if isinstance(options["energies"], Range):
        return options["law"] or "log-uniform"
    if options["law"]:
        raise InputError(f"--law {options['law']} needs a range, as --energies 1:100")
    return "discrete"


def _detector(options: dict[str, Any]) -> Detector:
    """Return the detector that the options describe. Raises `InputError` naming the option."""
    from pydantic import ValidationError

    from calograd.detector.configuration import SiWStack

    kind = options["detector"]
    for name in {name: None for names in _DESCRIBE.values() for name in names if name not in _DESCRIBE[kind]}:
        if not (options[name] is None or options[name] is False):
            raise InputError(f"--{name.replace('_', '-')} is of another detector; leave it out with --detector {kind}")
    try:
        return SiWStack() if kind == "siw" else _matrix(options) if kind == "matrix" else _block(options)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise InputError(str(first["msg"]).removeprefix("Value error, ")) from error
        name = str(first["loc"][0])
        option = _OPTION_OF.get(name, name).replace("_", "-")
        raise InputError(f"--{option}: {first['msg']}, not {first['input']}") from error


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


def _block(options: dict[str, Any]) -> Block:
    from calograd.detector.configuration import Block
    from calograd.geant4.probe import find_material

    material = find_material(options["material"] or "PbF2")
    if options["cells"] and not options["stand_alone"]:
        raise InputError("--cells belongs to --stand-alone DX DZ; the large block is free of cells")
    if options["stand_alone"]:
        if options["block"]:
            raise InputError("--block and --stand-alone both give the size; leave one out")
        (dx, dz), (n_xy, n_z) = options["stand_alone"], options["cells"] or (5, 5)
        return Block(material=material, size=(n_xy * dx, n_xy * dx, n_z * dz))
    return Block(material=material, size=options["block"]) if options["block"] else Block(material=material)


def _summary(output: Path, json_path: Path | None, production: Production, seconds: float) -> None:
    size = output.stat().st_size / 1e6
    result = {
        "output": str(output),
        "showers": production.showers,
        "simulated": production.simulated,
        "GeV": round(production.gev, 3),
        "seconds": round(seconds, 2),
        "core seconds": round(production.seconds, 2),
        "seconds per GeV and core": production.seconds / production.gev if production.gev else None,
        "MB": round(size, 3),
        "Geant4": production.geant4,
        "tables": production.tables,
    }
    print_notes(production.notes)
    rows = [(key, f"{value:.4g}" if isinstance(value, float) else value) for key, value in result.items() if value]
    print_table("Shower library", ("", ""), rows)
    write_json(json_path, result | {"config": production.config.model_dump(mode="json"), "notes": production.notes})
