"""``calograd import``."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from calograd.cli.common import (
    FINITE,
    JSON_OPTION,
    POSITIVE,
    Command,
    output_option,
    print_notes,
    print_table,
    write_json,
)
from calograd.cli.progress import progress
from calograd.errors import InputError

if TYPE_CHECKING:
    from calograd.events.library.schema import ImportedBeam
    from calograd.readers.importing import Import
    from calograd.readers.root import Reading

_AXES = ("x", "y", "z", "-x", "-y", "-z")
_BRANCHES = ("event", "x", "y", "z", "deposit", "energy")
_LENGTHS = ("mm", "cm", "m")
_UNITS = click.Choice(("keV", "MeV", "GeV"))


@click.command("import", cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--tree", help="Name of the tree. [the only one in the file]")
@click.option(
    "--branch", "branches", multiple=True, metavar="WHAT=NAME",
    help=f"A branch with another name than the default; WHAT is {', '.join(_BRANCHES)}. May be repeated.",
)  # fmt: skip
@click.option("--energy", type=POSITIVE, help="Incident energy of all events, GeV, where no branch holds it.")
@click.option("--length-unit", type=click.Choice(_LENGTHS), default="mm", show_default=True, help="Unit of lengths.")
@click.option("--energy-unit", type=_UNITS, default="MeV", show_default=True, help="Unit of deposits.")
@click.option("--incident-unit", type=_UNITS, help="Unit of incident energies. [as --energy-unit]")
@click.option("--axis", type=click.Choice(_AXES), default="z", show_default=True, help="Direction of the beam.")
@click.option(
    "--origin", nargs=3, type=FINITE, default=(0.0, 0.0, 0.0), metavar="X Y Z",
    help="Centre of the calorimeter's front face in the file's coordinates, cm. [0 0 0]",
)  # fmt: skip
@click.option(
    "--material", default="PbF2", show_default=True, help="Material: PbWO4, ..., G4_NAME, or NAME:DENSITY:FORMULA."
)
@click.option("--particle", type=click.Choice(["gamma", "e-", "e+"]), default="gamma", show_default=True,
              help="Incident particle.")  # fmt: skip
@click.option(
    "--position", nargs=2, type=FINITE, default=(0.0, 0.0), metavar="X Y", help="Entry of the beam, cm. [0 0]"
)
@click.option("--theta", default=0.0, show_default=True, type=FINITE, help="Angle of the beam to the normal, degrees.")
@output_option("The shower library (HDF5)", resumes=True)
@JSON_OPTION
def import_(file: Path, output: Path, json_path: Path | None, **options: Any) -> None:
    """Make a shower library from the steps that another Geant4 application wrote to a ROOT tree.

    The tree has one entry a step, with a branch of event numbers in any order. Or it has one entry an event, with lists
    of steps. Showers are numbered as their events first appear. The same command resumes an interrupted import.

    --particle, --position (on the front face, from its centre) and --theta are stored with the showers. Training
    rotates and mirrors showers only where the beam is on the axis and along it.

    \b
    Examples:
      calograd import steps.root --material PbF2 -o library.h5
      calograd import run.root --tree hits/steps --branch event=EventID --branch deposit=Edep --branch energy=E0 \\
        --length-unit cm --incident-unit GeV --axis z --origin 0 0 120 --material PbWO4 -o library.h5
      calograd import steps.root --energy 10 --particle e- -o library.h5
    """
    from calograd.geant4.probe import find_material
    from calograd.readers.importing import import_root

    reading = _reading(options)
    beam = _beam(options)
    material = find_material(options["material"])
    with progress("import") as show:
        done = import_root(file, output, reading, material, beam, show)
    _summary(output, json_path, done)


def _reading(options: dict[str, Any]) -> Reading:
    """Return how the file is read. Raises `InputError` for options that do not go together."""
    from calograd.readers.root import Branches, Reading

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
    if energy is not None and ("energy" in names or options["incident_unit"]):
        raise InputError("--energy gives all events one energy; leave out --branch energy=NAME and --incident-unit")
    return Reading(
        tree=options["tree"], branches=Branches(**names), length_unit=options["length_unit"],
        energy_unit=options["energy_unit"], incident_unit=options["incident_unit"] or options["energy_unit"],
        incident=energy, axis=options["axis"], origin=options["origin"],
    )  # fmt: skip


def _beam(options: dict[str, Any]) -> ImportedBeam:
    from pydantic import ValidationError

    from calograd.events.library.schema import ImportedBeam

    try:
        return ImportedBeam(particle=options["particle"], position=options["position"], theta=options["theta"])
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"--{first['loc'][0]}: {first['msg']}, not {first['input']}") from error


def _summary(output: Path, json_path: Path | None, done: Import) -> None:
    print_notes(done.notes)
    low, high = done.energies
    print_table(
        str(output),
        ["showers", "deposits", "dropped steps", "energies, GeV", "median E_tot / E", "mean depth, cm", "size"],
        [[done.showers, done.deposits, done.dropped, f"{low:g}" if low == high else f"{low:g} to {high:g}",
          f"{done.fraction:.4f}", f"{done.depth:.2f}", f"{output.stat().st_size / 1e6:.1f} MB"]],
    )  # fmt: skip
    write_json(json_path, {"output": str(output)} | done._asdict())
