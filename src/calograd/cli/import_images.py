"""``calograd import-images``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from calograd.cli.common import JSON_OPTION, Command, output_option, print_table, write_json
from calograd.cli.progress import progress

if TYPE_CHECKING:
    from calograd.readers.images import Unit


@click.command("import-images", cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--label", help="Label of the material whose images are taken. [the only one]")
@click.option("--material", help="Material of that label: PbWO4, ..., or NAME:DENSITY:FORMULA. [the label's own name]")
@click.option("--unit", type=click.Choice(("GeV", "MeV")), default="GeV", show_default=True, help="Unit of the images.")
@output_option("The maps file (HDF5)")
@JSON_OPTION
def import_images(
    file: Path, output: Path, json_path: Path | None, label: str | None, material: str | None, unit: Unit
) -> None:
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
    write_json(json_path, {"output": str(output), "rows": len(maps), "mean_fraction": fraction})
