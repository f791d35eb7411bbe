"""``calograd segment``."""

from __future__ import annotations

from pathlib import Path

import click

from calograd.cli.common import JSON_OPTION, output_option, parse_cell, print_table, progress, write_json
from calograd.detector.material import to_float
from calograd.errors import InputError
from calograd.events.cells import Cells
from calograd.events.library.reader import Library, open_library
from calograd.events.maps import Maps, write_rows
from calograd.events.measurement import drawn_designs, given_designs, measure_each, measure_maps
from calograd.io.hdf5 import refuse_existing

DRAWN = {False: ((0.9, 5.04), (3.7, 15.2)), True: ((0.41, 2.31), (3.9, 16.2))}
"""Default ranges of drawn pitches and depths, in cm and scaled."""


@click.command()
@click.argument("library", type=click.Path(path_type=Path))
@click.option(
    "--cell", "sizes", nargs=2, multiple=True, metavar="DX DZ",
    help="Pitch and depth, cm; DZ may be one a layer: 4,5,6,8,10. May be repeated.",
)  # fmt: skip
@click.option("--cells", nargs=2, type=int, default=(5, 5), show_default=True, metavar="N_XY N_Z")
@click.option("--designs", type=int, help="Instead of --cell: this many drawn designs a shower, to train on.")
@click.option("--dx", nargs=2, type=float, metavar="LOW HIGH", help="Range of --designs. [0.9 5.04 cm]")
@click.option("--dz", nargs=2, type=float, metavar="LOW HIGH", help="Range of --designs. [3.7 15.2 cm]")
@click.option(
    "--scaled", is_flag=True,
    help="All pitches in Moliere radii and depths in radiation lengths of the library's material, not in cm. Ranges "
    "then default to 0.41 2.31 and 3.9 16.2, those of PbF2.",
)  # fmt: skip
@click.option("--unequal", default=0.0, show_default=True, help="Share of --designs with layers of unequal depths.")
@click.option(
    "--neighbours", default=0.0, show_default=True, metavar="STEP",
    help="After every one of --designs one close to it, about STEP away in the logarithm of every size: what a "
    "training learns derivatives from.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Of --designs.")
@click.option("--maps", is_flag=True, help="Instead of cells write 32 x 32 x-z maps of the designs' windows.")
@click.option("--recover", is_flag=True, help="Of a library that was cut off use the showers that are complete.")
@output_option("The cells file, or maps file (HDF5)")
@JSON_OPTION
def segment(
    library: Path,
    sizes: tuple[tuple[str, str], ...],
    cells: tuple[int, int],
    designs: int | None,
    dx: tuple[float, float] | None,
    dz: tuple[float, float] | None,
    scaled: bool,
    unequal: float,
    neighbours: float,
    seed: int,
    maps: bool,
    recover: bool,
    output: Path,
    json_path: Path | None,
) -> None:
    """Measure a shower library with the cells of a design.

    \b
    Examples:
      calograd segment library.h5 --cell 2.5 6 -o cells.h5
      calograd segment library.h5 --cell 2.5 4,5,6,8,10 -o cells.h5
      calograd segment library.h5 --cell 1 5 --cell 2 4 -o two-designs.h5
      calograd segment library.h5 --designs 32 --unequal 0.5 --seed 1 -o train.h5
      calograd segment library.h5 --designs 16 --unequal 0.5 --neighbours 0.1 --seed 1 -o train.h5
      calograd segment csi.h5 --designs 32 --scaled --dx 0.41 2.31 --dz 3.9 16.2 -o csi-train.h5
      calograd segment library.h5 --cell 2.5 6 --maps -o maps.h5
    """
    refuse_existing(output)
    refuse_existing(json_path)
    if bool(sizes) == (designs is not None):
        raise InputError("give either --cell DX DZ or --designs N")
    if sizes and (unequal or neighbours):
        raise InputError("--unequal and --neighbours are of drawn designs; give them with --designs N")
    n_xy, n_z = cells
    if n_xy < 1 or n_z < 1:
        raise InputError(f"--cells {n_xy} {n_z}: expected at least one cell each way")
    cell = [parse_cell(size, n_z) for size in sizes]
    with open_library(library, recover=recover) as source, progress() as bar:
        task = bar.add_task("segmenting", total=len(source))

        def report(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        unit_x, unit_z = _units(source) if scaled else (1.0, 1.0)
        if cell:
            at = given_designs(source, [(unit_x * pitch, _times(depth, unit_z)) for pitch, depth in cell], n_z)
        else:
            assert designs is not None
            across, along = dx or DRAWN[scaled][0], dz or DRAWN[scaled][1]
            pitches, depths = (across[0] * unit_x, across[1] * unit_x), (along[0] * unit_z, along[1] * unit_z)
            at = drawn_designs(
                source, designs, pitches, depths, seed, n_xy, n_z, unequal=unequal, neighbours=neighbours
            )
        made: Cells | Maps = (
            measure_maps(source, at, n_xy, report)
            if maps
            else measure_each(source, at.dx, at.dz, n_xy, report, at.about)
        )
    write_rows(output, made)
    totals = made.totals
    summary = {
        "rows": len(made),
        "showers": len(source),
        "lost": source.lost,
        "empty": int((totals == 0).sum()),
        "mean_fraction": float((totals / made.energy).mean()),
    }
    print_table(
        str(output),
        ["showers", "lost", "rows", "without energy", "mean E_tot / E", "size"],
        [[summary["showers"], summary["lost"], summary["rows"], summary["empty"], f"{summary['mean_fraction']:.4f}",
          f"{output.stat().st_size / 1e6:.1f} MB"]],
    )  # fmt: skip
    write_json(json_path, summary)


def _units(library: Library) -> tuple[float, float]:
    """Moliere radius and radiation length of a library's material, cm."""
    if library.material is None:
        raise InputError(f"{library.path} is of a layered detector; --scaled needs a homogeneous block")
    return to_float(library.material.moliere_radius), to_float(library.material.radiation_length)


def _times(depth: float | tuple[float, ...], unit: float) -> float | tuple[float, ...]:
    return tuple(unit * value for value in depth) if isinstance(depth, tuple) else unit * depth
