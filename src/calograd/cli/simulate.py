"""``calograd simulate``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from calograd.cli.common import (
    JSON_OPTION,
    console,
    output_option,
    parse_cell,
    parse_numbers,
    print_table,
    progress,
    write_json,
)
from calograd.detector.configuration import (
    Beam,
    Block,
    Energies,
    MaterialRecord,
    Matrix,
    SimulationConfig,
    SiWStack,
)
from calograd.detector.material import MATERIALS, Material
from calograd.errors import InputError
from calograd.geant4.probe import ask
from calograd.geant4.production import Production, produce
from calograd.geant4.tables import find_tables
from calograd.io.hdf5 import refuse_existing

_DESCRIBE = {
    "block": ("material", "block", "stand_alone", "cells"),
    "siw": (),
    "matrix": ("material", "cells", "cell", "gap", "silicon", "margin", "silicon_signal"),
}
"""Options that describe a detector."""
_OPTION_OF = {"dx": "cell", "dz": "cell", "n_xy": "cells"}
"""Options that give a field another name."""


@click.command()
@click.option("--energies", required=True, help="GeV: values as 1,10,50 (each in turn), or a range as 1:100.")
@click.option("--law", type=click.Choice(["uniform", "log-uniform"]), help="How energies fill a range. [log-uniform]")
@click.option("--showers", required=True, type=int, help="Showers per energy; of a range, the total.")
@click.option("--seed", default=0, show_default=True, help="Fixes every shower together with its index.")
@click.option("--detector", type=click.Choice(list(_DESCRIBE)), default="block", show_default=True)
@click.option("--material", help="Of block or crystals: PbF2, PbWO4, ..., G4_NAME, or NAME:DENSITY:FORMULA. [PbF2]")
@click.option("--block", nargs=3, type=float, metavar="X Y Z", help="Size of the block, cm. [25.2 25.2 76]")
@click.option("--stand-alone", nargs=2, type=float, metavar="DX DZ", help="A block of just the cells of a design, cm.")
@click.option("--cells", nargs=2, type=int, metavar="N_XY N_Z", help="Cells of --stand-alone or the matrix. [5 5]")
@click.option(
    "--cell", nargs=2, metavar="DX DZ",
    help="Matrix: pitch with its gap and depth with its silicon, cm; DZ may be one a layer: 4,5,6,8,10.",
)  # fmt: skip
@click.option("--gap", type=float, help="Matrix: passive gap between crystals, cm. [0.1]")
@click.option("--silicon", type=float, help="Matrix: silicon plane behind every layer, cm. [0.2]")
@click.option("--margin", type=int, help="Matrix: more cells around and behind --cells. [2]")
@click.option("--silicon-signal", is_flag=True, help="Matrix: record deposits in the silicon too.")
@click.option("--particle", type=click.Choice(["gamma", "e-", "e+"]), default="gamma", show_default=True)
@click.option("--position", nargs=2, type=float, default=(0.0, 0.0), metavar="X Y", help="On the front face, cm. [0 0]")
@click.option("--theta", default=0.0, show_default=True, help="Angle to the normal, degrees.")
@click.option("--phi", default=0.0, show_default=True, help="Azimuth of the tilt, degrees.")
@click.option("--upstream", type=float, help="Where the particle starts, cm before the face. [1; siw 0.1]")
@click.option("--range-cut", default=0.07, show_default=True, help="Production cut, cm.")
@click.option("--workers", default=1, show_default=True, help="Geant4 processes on this machine.")
@click.option("--scheduler", metavar="tcp://HOST:PORT", help="Use this Dask cluster instead.")
@click.option("--append", is_flag=True, help="Continue a finished library up to --showers.")
@output_option("The shower library (HDF5)")
@JSON_OPTION
def simulate(output: Path, json_path: Path | None, **options: Any) -> None:
    """Simulate showers with Geant4 into a shower library.

    The same command resumes a run that was interrupted. A shower depends on --seed and its index alone, not on the
    number of workers. Unless --stand-alone is given the block is large and serves every design ("embedded").

    A matrix is of crystals with gaps and silicon and serves the design of its --cell and --cells alone: cell i covers x
    from (i - N_XY/2) DX on, with its crystal DX - gap wide in the middle; layer k is DZ deep, first the crystals, then
    the silicon. With an even N_XY the axis runs in a gap; see --position.

    \b
    Examples:
      calograd simulate --material PbF2 --energies 1,10,50 --showers 100 --seed 1 --workers 2 -o library.h5
      calograd simulate --energies 1:100 --law log-uniform --showers 5000 --workers 8 -o train.h5
      calograd simulate --stand-alone 1 5 --energies 10 --showers 200 -o alone.h5
      calograd simulate --detector matrix --cell 2.5 6 --gap 0.1 --silicon 0.2 --energies 10 --showers 200 -o matrix.h5
      calograd simulate --theta 20 --particle e- --material PbWO4 --energies 10 --showers 200 -o tilted.h5
      calograd simulate --detector siw --energies 10:90 --law uniform --showers 1000 -o siw.h5
    """
    if json_path is not None:
        refuse_existing(json_path)
    config = _config(options)
    count = options["showers"] * (len(config.beam.energies.values) if config.beam.energies.law == "discrete" else 1)
    for name in ("showers", "workers"):
        if options[name] < 1:
            raise InputError(f"--{name} is {options[name]}, expected at least 1")
    started = time.perf_counter()
    bar = progress()
    tasks: dict[str, Any] = {}

    def report(what: str, done: int, total: int) -> None:
        if what not in tasks:
            bar.start()
            tasks[what] = bar.add_task(what, total=total)
        bar.update(tasks[what], completed=done)

    try:
        production = produce(
            output, config, count, workers=options["workers"], scheduler=options["scheduler"],
            append=options["append"], report=report,
        )  # fmt: skip
    finally:
        if tasks:
            bar.stop()
    _summary(output, json_path, config, production, time.perf_counter() - started)


def _config(options: dict[str, Any]) -> SimulationConfig:
    """The simulation that the options ask for. Raises `InputError` naming what is out of range."""
    kind = options["detector"]
    for name in {name: None for names in _DESCRIBE.values() for name in names if name not in _DESCRIBE[kind]}:
        if not (options[name] is None or options[name] is False):
            raise InputError(f"--{name.replace('_', '-')} is of another detector; leave it out with --detector {kind}")
    upstream = options["upstream"] if options["upstream"] is not None else (0.1 if kind == "siw" else 1.0)
    energies = _energies(options["energies"], options["law"])
    try:
        beam = Beam(
            particle=options["particle"], energies=energies, position=options["position"], theta=options["theta"],
            phi=options["phi"], upstream=upstream,
        )  # fmt: skip
        detector = SiWStack() if kind == "siw" else _matrix(options) if kind == "matrix" else _block(options)
        return SimulationConfig(detector=detector, beam=beam, seed=options["seed"], range_cut=options["range_cut"])
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise InputError(str(first["msg"]).removeprefix("Value error, ")) from error
        name = str(first["loc"][0])
        option = _OPTION_OF.get(name, name).replace("_", "-")
        raise InputError(f"--{option}: {first['msg']}, not {first['input']}") from error


def _energies(text: str, law: str | None) -> Energies:
    ends = text.split(":")
    if len(ends) > 2:
        raise InputError(f"--energies: '{text}' is no range; expected LOW:HIGH in GeV, as 1:100")
    if len(ends) == 1 and law:
        raise InputError(f"--law {law} needs a range, as --energies 1:100; '{text}' is none")
    values = parse_numbers(",".join(ends), "--energies")
    try:
        kind = "discrete" if len(ends) == 1 else law or "log-uniform"
        return Energies(law=kind, values=tuple(values))
    except ValidationError as error:
        message = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise InputError(f"--energies '{text}': {message}") from error


def _matrix(options: dict[str, Any]) -> Matrix:
    if not options["cell"]:
        raise InputError("--detector matrix needs the cells it is made of: --cell DX DZ")
    n_xy, n_z = options["cells"] or (5, 5)
    if n_xy < 1 or n_z < 1:
        raise InputError(f"--cells {n_xy} {n_z}: expected at least one cell each way")
    dx, dz = parse_cell(options["cell"], n_z)
    given = {name: options[name] for name in ("gap", "silicon", "margin") if options[name] is not None}
    return Matrix(
        material=MaterialRecord(**parse_material(options["material"] or "PbF2").to_dict()), dx=dx,
        dz=dz if isinstance(dz, tuple) else (dz,) * n_z, n_xy=n_xy, silicon_signal=options["silicon_signal"], **given,
    )  # fmt: skip


def _block(options: dict[str, Any]) -> Block:
    material = MaterialRecord(**parse_material(options["material"] or "PbF2").to_dict())
    if options["cells"] and not options["stand_alone"]:
        raise InputError("--cells belongs to --stand-alone DX DZ; the large block is free of cells")
    if options["stand_alone"]:
        if options["block"]:
            raise InputError("--block and --stand-alone both give the size; leave one out")
        (dx, dz), (n_xy, n_z) = options["stand_alone"], options["cells"] or (5, 5)
        size = (n_xy * dx, n_xy * dx, n_z * dz)
    else:
        size = options["block"] or Block.model_fields["size"].default
    if not all(0 < length < float("inf") for length in size):
        raise InputError(f"the block is {' x '.join(f'{s:g}' for s in size)} cm, expected positive sizes")
    return Block(material=material, size=size)


def parse_material(text: str) -> Material:
    """A material by our name, by its formula, or from Geant4's own list, whose numbers Geant4 is asked for."""
    if text.startswith("G4_") and text not in MATERIALS:
        return ask(find_tables(), (text,)).materials[text]
    return Material.parse(text)


def _summary(
    output: Path, json_path: Path | None, config: SimulationConfig, production: Production, seconds: float
) -> None:
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
    for note in production.notes:
        console.print(f"note: {note}")
    rows = [(key, f"{value:.4g}" if isinstance(value, float) else value) for key, value in result.items() if value]
    print_table("Shower library", ("", ""), rows)
    write_json(json_path, result | {"config": config.model_dump(mode="json"), "notes": production.notes})
