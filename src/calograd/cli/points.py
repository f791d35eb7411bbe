"""``calograd points``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click

from calograd.cli.common import JSON_OPTION, output_option, print_table, progress, write_json
from calograd.errors import InputError
from calograd.events.clouds import Clouds, read_clouds, write_clouds
from calograd.events.clustering import Clustering, cluster
from calograd.events.library.reader import open_library
from calograd.io.hdf5 import refuse_existing, schema_of, shard_files
from calograd.readers.showerdata import read_showerdata, write_calochallenge, write_showerdata

FORMATS: dict[str, Callable[[Path, Clouds], None]] = {
    "calograd": write_clouds, "showerdata": write_showerdata, "calochallenge": write_calochallenge,
}  # fmt: skip


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--clustering", type=click.Choice(get_args(Clustering)),
    help="What a point of a library is: the passage of a particle through a layer, or a sixth of a cell. [crossings]",
)  # fmt: skip
@click.option("--as", "form", type=click.Choice(list(FORMATS)), default="calograd", show_default=True)
@click.option("--recover", is_flag=True, help="Of a library that was cut off use the showers that are complete.")
@output_option("The file of points, or of grids (HDF5)")
@JSON_OPTION
def points(
    source: Path, clustering: Clustering | None, form: str, recover: bool, output: Path, json_path: Path | None
) -> None:
    """Make points of a layered detector's shower library, or bring a file of points into another format.

    SOURCE is a library of 'calograd simulate --detector siw', a file of points, or one of the package showerdata.

    \b
    Examples:
      calograd points siw.h5 -o siw-points.h5
      calograd points siw.h5 --clustering sub-cells -o siw-sub-cells.h5
      calograd points siw-points.h5 --as showerdata -o for-others.h5
      calograd points siw-points.h5 --as calochallenge -o grids.h5
      calograd points from-others.h5 -o points.h5
    """
    for path in (output, json_path):
        refuse_existing(path)
    clouds = _read(source, clustering, recover)
    FORMATS[form](output, clouds)
    n = max(1, len(clouds))
    summary: dict[str, Any] = {
        "output": str(output), "format": form, "showers": len(clouds), "points": len(clouds.e),
        "empty": int((clouds.counts == 0).sum()), "points_per_shower": len(clouds.e) / n,
        "mean_fraction": float((clouds.layer_sums(clouds.e).sum(1) / clouds.energy).mean()) if len(clouds) else None,
    }  # fmt: skip
    print_table(
        str(output), ["showers", "without points", "points", "points a shower", "size"],
        [[summary["showers"], summary["empty"], summary["points"], f"{summary['points_per_shower']:.1f}",
          f"{output.stat().st_size / 1e6:.1f} MB"]],
    )  # fmt: skip
    write_json(json_path, summary)


def _read(source: Path, clustering: Clustering | None, recover: bool) -> Clouds:
    """The points of a file of any of the kinds that are known."""
    schema = schema_of(shard_files(source)[0])
    if schema is not None and schema.startswith("calograd/library/"):
        with open_library(source, recover=recover) as library, progress() as bar:
            task = bar.add_task("clustering", total=len(library))
            return cluster(
                library, clustering or "crossings", lambda done, total: bar.update(task, completed=done, total=total)
            )
    if clustering is not None or recover:
        raise InputError(f"--clustering and --recover are for shower libraries; {source} holds points already")
    if schema is None and source.is_file():
        return read_showerdata(source)
    return read_clouds(source)  # which says what is wrong with other kinds
