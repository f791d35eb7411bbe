"""``calograd points``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from calograd.cli.common import JSON_OPTION, Command, output_option, print_notes, print_table, write_json
from calograd.cli.progress import progress
from calograd.errors import InputError

if TYPE_CHECKING:
    from calograd.events.clustering import Clustering
    from calograd.events.point_showers import PointShowers


@click.command(cls=Command)
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--clustering", type=click.Choice(("crossings", "sub-cells")),
    help="Points of a library: particle crossings of a layer, or sixths of a cell. [crossings]",
)  # fmt: skip
@click.option("--as", "form", type=click.Choice(("calograd", "showerdata", "calochallenge")), default="calograd",
              show_default=True, help="Format of the output.")  # fmt: skip
@click.option("--recover", is_flag=True, help="Use the complete showers of a library that was cut off.")
@output_option("The file of points, or of grids (HDF5)")
@JSON_OPTION
def points(
    source: Path, clustering: Clustering | None, form: str, recover: bool, output: Path, json_path: Path | None
) -> None:
    """Make points from the shower library of a layered detector, or convert a file of points to another format.

    SOURCE is a library of 'calograd simulate --detector siw', a file of points, or a file of the package showerdata.

    \b
    Examples:
      calograd points siw.h5 -o siw-points.h5
      calograd points siw.h5 --clustering sub-cells -o siw-sub-cells.h5
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
    n = max(1, len(showers))
    summary: dict[str, Any] = {
        "output": str(output), "format": form, "showers": len(showers), "points": len(showers.e),
        "empty": int((showers.counts == 0).sum()), "points_per_shower": len(showers.e) / n,
        "mean_fraction": float((showers.totals / showers.energy).mean()) if len(showers) else None,
        "notes": notes,
    }  # fmt: skip
    print_notes(notes)
    print_table(
        str(output), ["showers", "without points", "points", "points a shower", "size"],
        [[summary["showers"], summary["empty"], summary["points"], f"{summary['points_per_shower']:.1f}",
          f"{output.stat().st_size / 1e6:.1f} MB"]],
    )  # fmt: skip
    write_json(json_path, summary)


def _read(source: Path, clustering: Clustering | None, recover: bool) -> PointShowers:
    """Return the points of a library or of a file in any format."""
    from calograd.events.clustering import cluster
    from calograd.events.library.reader import open_library
    from calograd.events.point_showers import read_points
    from calograd.io.files import shard_files
    from calograd.io.hdf5 import schema_of
    from calograd.readers.showerdata import read_showerdata

    schema = schema_of(shard_files(source)[0])
    if schema is not None and schema.startswith("calograd/library/"):
        with open_library(source, recover=recover) as library, progress("clustering") as show:
            return cluster(library, clustering or "crossings", show.counter("clustering"))
    if clustering is not None or recover:
        raise InputError(f"--clustering and --recover are for shower libraries; {source} holds points already")
    if schema is None and source.is_file():
        return read_showerdata(source)
    return read_points(source)  # which says what is wrong with other kinds
