"""``calograd segment``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from calograd.cli.common import (
    ANGLE,
    COUNT,
    ENTRY,
    EXISTING,
    NOT_NEGATIVE,
    NUMBERS,
    POSITIVE,
    SHARE,
    cell_size,
    command,
    json_option,
    option,
    output_option,
    print_table,
    recover_option,
    seed_option,
)
from calograd.cli.progress import progress
from calograd.errors import InputError


@command()
@click.argument("library", type=EXISTING)
@option("--cell", "sizes", nargs=2, multiple=True, type=NUMBERS, metavar="DX DZ",
        help="Pitch and depth, cm; DZ may be one a layer: 4,5,6,8,10. May be repeated.")  # fmt: skip
@option("--cells", nargs=2, type=COUNT, default=(5, 5), metavar="N_XY N_Z", help="Cells across and along the beam.")
@option("--designs", type=COUNT, help="Instead of --cell: draw this many designs for every shower, to train on.")
@option("--dx", nargs=2, type=POSITIVE, metavar="LOW HIGH", help="Range of the drawn pitches. [0.9 5.04 cm]")
@option("--dz", nargs=2, type=POSITIVE, metavar="LOW HIGH", help="Range of the drawn depths. [3.7 15.2 cm]")
@option("--scaled", is_flag=True,
        help="Give pitches in Moliere radii and depths in radiation lengths of the library's material instead of cm. "
        "Ranges then default to 0.41 2.31 and 3.9 16.2, those of PbF2.")  # fmt: skip
@option("--unequal", default=0.0, type=SHARE, help="Share of --designs with layers of unequal depths.")
@option("--neighbours", default=0.0, type=NOT_NEGATIVE, metavar="STEP",
        help="Pair every drawn design with a neighbour about STEP away in the logarithm of each size, so that training "
        "learns derivatives.")  # fmt: skip
@option("--position", type=ENTRY, metavar="X,Y|uniform",
        help="Move the showers to this entry, cm, or draw one in the central cell for every row. "
        "[as simulated]")  # fmt: skip
@option("--phi", type=ANGLE, metavar="PHI|LOW:HIGH",
        help="Turn the showers to this azimuth, degrees, or draw one from a range for every row. "
        "[as simulated]")  # fmt: skip
@seed_option
@option("--maps", is_flag=True, help="Write 32 x 32 maps in x and z of the designs' windows instead of cells.")
@option("--times", is_flag=True, help="Measure the mean and the first time of every cell too, ns.")
@recover_option
@output_option("The cells file, or maps file (HDF5)")
@json_option
def segment(
    library: Path, output: Path, sizes: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...],
    cells: tuple[int, int], designs: int | None, recover: bool, **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """Measure a shower library with the cells of a design.

    \b
    Examples:
      calograd segment library.h5 --cell 2.5 6 -o cells.h5
      calograd segment library.h5 --cell 2.5 4,5,6,8,10 -o cells.h5
      calograd segment library.h5 --cell 1 5 --cell 2 4 -o two-designs.h5
      calograd segment library.h5 --designs 32 --unequal 0.5 --seed 1 -o train.h5
      calograd segment library.h5 --designs 16 --unequal 0.5 --neighbours 0.1 --seed 1 -o train.h5
      calograd segment csi.h5 --designs 32 --scaled --dx 0.41 2.31 --dz 3.9 16.2 -o csi-train.h5
      calograd segment library.h5 --cell 2.5 6 --position uniform --seed 1 -o entries.h5
      calograd segment library.h5 --cell 2.5 6 --times -o timed.h5
      calograd segment library.h5 --cell 2.5 6 --maps -o maps.h5

    Windows of cells follow the particle: in every layer the middle cell is that which its straight line crosses in the
    middle of the layer's depth. Showers in a homogeneous block can be moved and turned; see --position and --phi.
    """
    from calograd.events.library.reader import open_library
    from calograd.events.segmentation import segment as segment_library

    if bool(sizes) == (designs is not None):
        raise InputError("give either --cell DX DZ or --designs N")
    if sizes and (options["unequal"] or options["neighbours"]):
        raise InputError("--unequal and --neighbours belong to --designs N; leave them out with --cell")
    n_xy, n_z = cells
    given = designs if designs is not None else [cell_size(size, n_z) for size in sizes]
    with open_library(library, recover=recover) as source, progress("segmenting") as show:
        made = segment_library(
            source, output, designs=given, n_xy=n_xy, n_z=n_z, progress=show.counter("segmenting"), **options
        )
    totals = made.totals
    result = {
        "rows": len(made), "showers": len(source), "lost": source.lost, "empty": int((totals == 0).sum()),
        "mean_fraction": float((totals / made.energy).mean()),
    }  # fmt: skip
    print_table(
        str(output),
        ["showers", "lost", "rows", "without energy", "mean E_tot / E", "size"],
        [[result["showers"], result["lost"], result["rows"], result["empty"], f"{result['mean_fraction']:.4f}",
          f"{output.stat().st_size / 1e6:.1f} MB"]],
    )  # fmt: skip
    return result
