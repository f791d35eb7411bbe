"""``calograd import``."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from calograd.cli.common import JSON_OPTION, console, output_option, print_table, progress, stages, write_json
from calograd.cli.simulate import parse_material
from calograd.errors import InputError
from calograd.events.library.schema import ImportedBeam
from calograd.io.hdf5 import refuse_existing
from calograd.readers.importing import Import, import_root
from calograd.readers.root import CM, GEV, Branches, Reading

_AXES = ("x", "y", "z", "-x", "-y", "-z")
_UNITS = click.Choice(list(GEV))


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--tree", help="Name of the tree. [the only one of the file]")
@click.option(
    "--branch", "branches", multiple=True, metavar="WHAT=NAME",
    help=f"Name of a branch, where it is another one: WHAT is {', '.join(Branches.model_fields)}. May be repeated.",
)  # fmt: skip
@click.option("--energy", type=float, help="Incident energy of all events, GeV, where no branch tells it.")
@click.option("--length-unit", type=click.Choice(list(CM)), default="mm", show_default=True)
@click.option("--energy-unit", type=_UNITS, default="MeV", show_default=True, help="Of the deposits.")
@click.option("--incident-unit", type=_UNITS, help="Of the branch of incident energies. [as --energy-unit]")
@click.option("--axis", type=click.Choice(_AXES), default="z", show_default=True, help="Where the beam goes.")
@click.option(
    "--origin", nargs=3, type=float, default=(0.0, 0.0, 0.0), metavar="X Y Z",
    help="Middle of the calorimeter's front face in the file's coordinates, cm. [0 0 0]",
)  # fmt: skip
@click.option("--material", default="PbF2", show_default=True, help="PbWO4, ..., G4_NAME, or NAME:DENSITY:FORMULA.")
@click.option("--particle", type=click.Choice(["gamma", "e-", "e+"]), default="gamma", show_default=True)
@click.option("--position", nargs=2, type=float, default=(0.0, 0.0), metavar="X Y", help="Of the beam, cm. [0 0]")
@click.option("--theta", default=0.0, show_default=True, help="Of the beam to the normal, degrees.")
@output_option("The shower library (HDF5)")
@JSON_OPTION
def import_(file: Path, output: Path, json_path: Path | None, **options: Any) -> None:
    """Make a shower library of another Geant4 application's steps in a ROOT tree.

    The tree has an entry a step, with a branch that numbers the events (in any order); or an entry an event, with lists
    of steps. Showers are numbered as their events first appear. The same command resumes an interrupted import.
    --particle, --position (on the front face, from its middle) and --theta are stored; training turns and mirrors
    showers only if the beam is on the axis and along it.

    \b
    Examples:
      calograd import steps.root --material PbF2 -o library.h5
      calograd import run.root --tree hits/steps --branch event=EventID --branch deposit=Edep --branch energy=E0 \\
        --length-unit cm --incident-unit GeV --axis z --origin 0 0 120 --material PbWO4 -o library.h5
      calograd import steps.root --energy 10 --particle e- -o library.h5
    """
    refuse_existing(json_path)
    reading = _reading(options)
    beam = _beam(options)
    material = parse_material(options["material"])
    with progress() as bar:
        done = import_root(file, output, reading, material, beam, stages(bar))
    _summary(output, json_path, done)


def _reading(options: dict[str, Any]) -> Reading:
    """How the options want the file to be read. Raises `InputError`."""
    names: dict[str, str] = {}
    for text in options["branches"]:
        what, _, name = text.partition("=")
        if what not in Branches.model_fields:
            near = get_close_matches(what, Branches.model_fields, n=1, cutoff=0.5)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise InputError(f"--branch {text}: '{what}' is none of {', '.join(Branches.model_fields)}{hint}")
        if not name or what in names:
            raise InputError(f"--branch {text}: expected one name of a branch for {what}, as --branch {what}=NAME")
        names[what] = name
    energy = options["energy"]
    if energy is not None and not 0 < energy < float("inf"):
        raise InputError(f"--energy is {energy:g} GeV, expected a positive number")
    if energy is not None and ("energy" in names or options["incident_unit"]):
        raise InputError("--energy gives all events one energy; leave out --branch energy=NAME and --incident-unit")
    if not all(abs(place) < float("inf") for place in options["origin"]):
        raise InputError(f"--origin {' '.join(f'{place:g}' for place in options['origin'])}: expected numbers in cm")
    return Reading(
        tree=options["tree"], branches=Branches(**names), length_unit=options["length_unit"],
        energy_unit=options["energy_unit"], incident_unit=options["incident_unit"] or options["energy_unit"],
        incident=energy, axis=options["axis"], origin=options["origin"],
    )  # fmt: skip


def _beam(options: dict[str, Any]) -> ImportedBeam:
    try:
        return ImportedBeam(particle=options["particle"], position=options["position"], theta=options["theta"])
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"--{first['loc'][0]}: {first['msg']}, not {first['input']}") from error


def _summary(output: Path, json_path: Path | None, done: Import) -> None:
    for note in done.notes:
        console.print(f"note: {note}")
    low, high = done.energies
    print_table(
        str(output),
        ["showers", "deposits", "dropped steps", "energies, GeV", "median E_tot / E", "mean depth, cm", "size"],
        [[done.showers, done.deposits, done.dropped, f"{low:g}" if low == high else f"{low:g} to {high:g}",
          f"{done.fraction:.4f}", f"{done.depth:.2f}", f"{output.stat().st_size / 1e6:.1f} MB"]],
    )  # fmt: skip
    write_json(json_path, {"output": str(output)} | done._asdict())
