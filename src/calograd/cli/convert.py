"""``calograd import``, ``calograd import-images`` and ``calograd points``."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from calograd.cli.common import (
    EXISTING,
    FINITE,
    POSITIVE,
    command,
    errors_name_options,
    json_option,
    option,
    output_option,
    particle_option,
    position_option,
    print_notes,
    print_table,
    recover_option,
    theta_option,
)
from calograd.cli.progress import progress
from calograd.errors import InputError

if TYPE_CHECKING:
    from calograd.events.clustering import Clustering
    from calograd.events.point_showers import PointShowers
    from calograd.readers.images import Unit

_AXES = ("x", "y", "z", "-x", "-y", "-z")
_BRANCHES = ("event", "x", "y", "z", "deposit", "energy")
_LENGTHS = ("mm", "cm", "m")
_UNITS = click.Choice(("keV", "MeV", "GeV"))


@command("import")
@click.argument("file", type=EXISTING)
@option("--tree", help="Name of the tree. [the only one in the file]")
@option("--branch", "branches", multiple=True, metavar="WHAT=NAME",
        help=f"A branch with another name than the default; WHAT is {', '.join(_BRANCHES)}. May be repeated.",
)  # fmt: skip
@option("--energy", type=POSITIVE, help="Incident energy of all events, GeV, where no branch holds it.")
@option("--length-unit", type=click.Choice(_LENGTHS), default="mm", help="Unit of lengths.")
@option("--energy-unit", type=_UNITS, default="MeV", help="Unit of deposits.")
@option("--incident-unit", type=_UNITS, help="Unit of incident energies. [as --energy-unit]")
@option("--axis", type=click.Choice(_AXES), default="z", help="Direction of the beam.")
@option("--origin", nargs=3, type=FINITE, default=(0.0, 0.0, 0.0), metavar="X Y Z",
        help="Centre of the calorimeter's front face in the file's coordinates, cm.")  # fmt: skip
@option("--material", default="PbF2", help="Material: PbWO4, ..., G4_NAME, or NAME:DENSITY:FORMULA.")
@particle_option
@position_option
@theta_option
@output_option("The shower library (HDF5)", resumes=True)
@json_option
def import_(
    file: Path, output: Path, branches: tuple[str, ...], energy: float | None, incident_unit: str | None,
    material: str, particle: str, position: tuple[float, float], theta: float, **options: Any,
) -> dict[str, Any]:  # fmt: skip
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
    from calograd.events.library.schema import ImportedBeam
    from calograd.geant4.probe import find_material
    from calograd.readers.importing import import_root
    from calograd.readers.root import Branches, Reading

    names = _named(branches)
    if energy is not None and ("energy" in names or incident_unit):
        raise InputError("--energy gives all events one energy; leave out --branch energy=NAME and --incident-unit")
    incident_unit = incident_unit or options["energy_unit"]
    reading = Reading(branches=Branches(**names), incident_unit=incident_unit, incident=energy, **options)
    with errors_name_options():
        beam = ImportedBeam(particle=particle, position=position, theta=theta)
    with progress("import") as show:
        done = import_root(file, output, reading, find_material(material), beam, show)
    print_notes(done.notes)
    low, high = done.energies
    print_table(
        str(output),
        ["showers", "deposits", "dropped steps", "energies, GeV", "median E_tot / E", "mean depth, cm", "size"],
        [[done.showers, done.deposits, done.dropped, f"{low:g}" if low == high else f"{low:g} to {high:g}",
          f"{done.fraction:.4f}", f"{done.depth:.2f}", f"{output.stat().st_size / 1e6:.1f} MB"]],
    )  # fmt: skip
    return {"output": str(output)} | done._asdict()


def _named(branches: tuple[str, ...]) -> dict[str, str]:
    """Return the names of branches from words WHAT=NAME. Raises `InputError` for words that are none."""
    names: dict[str, str] = {}
    for text in branches:
        what, _, name = text.partition("=")
        if what not in _BRANCHES:
            near = get_close_matches(what, _BRANCHES, n=1, cutoff=0.5)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise InputError(f"--branch {text}: '{what}' is none of {', '.join(_BRANCHES)}{hint}")
        if not name or what in names:
            raise InputError(f"--branch {text}: expected one name of a branch for {what}, as --branch {what}=NAME")
        names[what] = name
    return names


@command("import-images")
@click.argument("file", type=EXISTING)
@option("--label", help="Label of the material whose images are taken. [the only one]")
@option("--material", help="Material of that label: PbWO4, ..., or NAME:DENSITY:FORMULA. [the label's own name]")
@option("--unit", type=click.Choice(("GeV", "MeV")), default="GeV", help="Unit of the images.")
@output_option("The maps file (HDF5)")
@json_option
def import_images(file: Path, output: Path, label: str | None, material: str | None, unit: Unit) -> dict[str, Any]:
    """Make a maps file from a data set of arXiv 2601.07859: 100 x 100 images with labels become 32 x 32 maps.

    The energy of every image is kept. Images that were scaled to their own maximum carry no energy and are refused.

    \b
    Examples:
      calograd import-images dataset.h5 -o maps.h5
      calograd import-images dataset.h5 --label 1 --material PbF2 --unit MeV -o maps.h5
    """
    from calograd.detector.material import Material
    from calograd.events.dense import write_maps
    from calograd.readers.images import maps_of_images

    means = None if material is None else Material.parse(material)
    with progress("import") as show:
        maps = maps_of_images(file, label, means, unit, show.counter("images"))
    write_maps(output, maps)
    fraction = float((maps.totals / maps.energy).mean())
    print_table(
        str(output), ["maps", "geometries", "material", "mean E_tot / E"],
        [[len(maps), len({*zip(maps.dx.tolist(), maps.dz[:, 0].tolist(), strict=True)}), maps.material.name,
          f"{fraction:.4f}"]],
    )  # fmt: skip
    return {"output": str(output), "rows": len(maps), "mean_fraction": fraction}


@command()
@click.argument("source", type=EXISTING)
@option("--clustering", type=click.Choice(("crossings", "sub-cells")),
        help="Points of a library: particle crossings of a layer, or sixths of a cell. [crossings]")  # fmt: skip
@option("--as", "form", type=click.Choice(("calograd", "showerdata", "calochallenge")), default="calograd",
        help="Format of the output.")  # fmt: skip
@recover_option
@output_option("The file of points, or of grids (HDF5)")
@json_option
def points(source: Path, clustering: Clustering | None, form: str, recover: bool, output: Path) -> dict[str, Any]:
    """Make points from the shower library of a layered detector, or convert a file of points to another format.

    SOURCE is a library of 'calograd simulate --detector siw' or of '--detector sampling --record points', a file of
    points, or a file of the package showerdata. In stacks of plates a layer's centre is where the particle's straight
    line crosses the middle of its active plate.

    \b
    Examples:
      calograd points siw.h5 -o siw-points.h5
      calograd points siw.h5 --clustering sub-cells -o siw-sub-cells.h5
      calograd points stacks.h5 -o stacks-points.h5
      calograd points siw-points.h5 --as showerdata -o for-others.h5
      calograd points siw-points.h5 --as calochallenge -o grids.h5
      calograd points from-others.h5 -o points.h5
    """
    from calograd.events.point_showers import write_points
    from calograd.readers.showerdata import check_plausible, write_calochallenge, write_showerdata

    showers = _read(source, clustering, recover)
    notes = check_plausible(showers, str(source))
    if form == "showerdata":
        notes += [
            f"the {what} of these showers is unknown and stored as {value}"
            for what, value, known in (("particle", 0, showers.pdg), ("direction", "NaN", showers.theta))
            if known is None
        ]
    write = {"calograd": write_points, "showerdata": write_showerdata, "calochallenge": write_calochallenge}
    write[form](output, showers)
    result: dict[str, Any] = {
        "output": str(output), "format": form, "showers": len(showers), "points": len(showers.e),
        "empty": int((showers.counts == 0).sum()), "points_per_shower": len(showers.e) / max(1, len(showers)),
        "mean_fraction": float((showers.totals / showers.energy).mean()) if len(showers) else None,
        "notes": notes,
    }  # fmt: skip
    print_notes(notes)
    print_table(
        str(output), ["showers", "without points", "points", "points a shower", "size"],
        [[result["showers"], result["empty"], result["points"], f"{result['points_per_shower']:.1f}",
          f"{output.stat().st_size / 1e6:.1f} MB"]],
    )  # fmt: skip
    return result


def _read(source: Path, clustering: Clustering | None, recover: bool) -> PointShowers:
    """Return the points of a library or of a file in any format."""
    from calograd.events.clustering import cluster, cluster_plates
    from calograd.events.library.reader import open_library, open_plates
    from calograd.events.point_showers import read_points
    from calograd.io.files import shard_files
    from calograd.io.hdf5 import schema_of
    from calograd.readers.showerdata import read_showerdata

    schema = schema_of(shard_files(source)[0])
    if schema is not None and schema.startswith("calograd/library/"):
        with open_library(source, recover=recover) as library, progress("clustering") as show:
            return cluster(library, clustering or "crossings", show.counter("clustering"))
    if schema is not None and schema.startswith("calograd/plates/"):
        with open_plates(source, recover=recover, deposits=True) as plates, progress("clustering") as show:
            return cluster_plates(plates, clustering or "crossings", show.counter("clustering"))
    if clustering is not None or recover:
        raise InputError(f"--clustering and --recover are for shower libraries; {source} holds points already")
    if schema is None and source.is_file():
        return read_showerdata(source)
    return read_points(source)  # which says what is wrong with other kinds
