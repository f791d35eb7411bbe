"""``calograd sample``."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from calograd.cli.common import (
    COUNT,
    DEVICE_OPTION,
    FINITE,
    JSON_OPTION,
    NUMBERS_OR_RANGE,
    SEED_OPTION,
    SHARE,
    THREADS_OPTION,
    Command,
    Range,
    output_option,
    print_notes,
    print_table,
    use_threads,
    write_json,
)
from calograd.cli.progress import progress
from calograd.errors import InputError

if TYPE_CHECKING:
    from calograd.surrogate import Surrogate
    from calograd.surrogate.model import Rows

MANY_POINTS = 24
"""Number of designs and energies above which the summary is of the whole file."""


@click.command(cls=Command)
@click.argument("model")
@click.option(
    "--cell",
    nargs=2,
    type=NUMBERS_OR_RANGE,
    metavar="DX DZ",
    help="Pitch and depth, cm; DZ may be one a layer: 4,5,6,8,10. Ranges as 1:5 4:15 give every shower its own design.",
)
@click.option("--unequal", type=SHARE, help="Share of designs from ranges whose layers differ in depth. [0]")
@click.option("--energy", type=NUMBERS_OR_RANGE,
              help="Incident energy, GeV: values as 1,10,50 (each in turn), or a range as 1:100.")  # fmt: skip
@click.option("--law", type=click.Choice(["uniform", "log-uniform"]),
              help="Distribution of energies in a range. [log-uniform]")  # fmt: skip
@click.option("--material", help="PbF2, BGO, ..., or NAME:DENSITY:FORMULA. [the trained one; with --like, the file's]")
@click.option("-n", "--showers", type=COUNT, help="Showers for each energy, or in total for a range. [1000]")
@click.option(
    "--like", type=click.Path(path_type=Path),
    help="File of showers; the designs and energies are taken from its rows instead of --cell and --energy.",
)  # fmt: skip
@click.option("--repeat", type=COUNT, help="With --like: showers for each row of the file. [1]")
@SEED_OPTION
@click.option("--sampler", help="trigflow-ab2, ddim, heun, dpmpp-2m or ddpm. [the surrogate's own]")
@click.option("--steps", type=COUNT, help="Steps of the sampler. [each has its own]")
@click.option("--guidance", default=0.0, type=FINITE,
              help="Classifier-free guidance, for maps trained with dropped conditions. [0]")  # fmt: skip
@THREADS_OPTION
@DEVICE_OPTION
@click.option("--extrapolate", is_flag=True, help="Warn instead of refusing outside the trained range.")
@output_option("The file of showers (HDF5)")
@JSON_OPTION
def sample(
    model: str, output: Path, json_path: Path | None, threads: int, device: str, seed: int, sampler: str | None,
    steps: int | None, guidance: float, extrapolate: bool, **asked: Any,
) -> None:  # fmt: skip
    """Generate showers with a surrogate.

    MODEL is a bundled name, or a folder of 'calograd train' or 'calograd adapt'.

    \b
    Examples:
      calograd sample pbf2-cells --cell 2.5 6 --energy 50 -n 2000 --seed 0 -o generated.h5
      calograd sample pbf2-cells --cell 2.5 6 --energy 1:100 --law uniform -n 5000 -o spectrum.h5
      calograd sample pbf2-cells --like reference.h5 -o generated.h5
      calograd sample pbf2-cells --cell 1:5 4:15 --unequal 0.5 --energy 1:100 -n 50000 -o designs.h5

    A surrogate of a layered detector takes no --cell and writes points (see calograd points).

    \b
    Examples:
      calograd sample siw-cloud --energy 10:90 --law uniform -n 2000 -o points.h5
      calograd sample siw-cloud-cm --like reference-points.h5 -o points.h5
    """
    from calograd.surrogate import Surrogate
    from calograd.surrogate.generation import generate

    use_threads(threads)
    surrogate = Surrogate.load(model, device)
    rows = _rows(surrogate, seed, asked)
    with progress("sampling") as show, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        started = time.perf_counter()
        made = generate(
            surrogate, rows.energy, rows.dx, rows.dz, material=rows.material, seed=seed, sampler=sampler, steps=steps,
            extrapolate=extrapolate, guidance=guidance, progress=show.counter("showers"),
        )  # fmt: skip
        seconds = time.perf_counter() - started
    print_notes(sorted({str(warning.message) for warning in caught}), "warning")
    made.write(output)
    _summarise(made, seconds, output, json_path)


def _rows(surrogate: Surrogate, seed: int, asked: dict[str, Any]) -> Rows:
    """Return the energies and designs that are asked for, one a shower. Raises `InputError` naming the option."""
    from calograd.detector.material import Material
    from calograd.events.shards import read_showers
    from calograd.surrogate.generation import draw_designs, draw_energies, rows_like
    from calograd.surrogate.model import Rows

    like, energy, law = asked["like"], asked["energy"], asked["law"]
    designs = ("cell", "unequal", "material")
    if like is not None:
        for name in (*designs, "energy", "law", "showers"):
            if asked[name] is not None:
                raise InputError(f"--{name} and --like exclude each other; the file gives designs and energies")
        return rows_like(surrogate, read_showers(like), asked["repeat"] or 1, str(like))
    takes_design, wanted = surrogate.card.takes_design, "--cell DX DZ and --energy"
    if energy is None or (takes_design and asked["cell"] is None):
        raise InputError(f"give {wanted if takes_design else '--energy'}, or --like FILE")
    if asked["repeat"] is not None:
        raise InputError("--repeat belongs to --like FILE; use -n for the number of showers")
    if law and not isinstance(energy, Range):
        raise InputError(f"--law {law} needs a range, as --energy 1:100")
    law = law or ("log-uniform" if isinstance(energy, Range) else "discrete")
    energies = draw_energies(energy, asked["showers"] or 1000, law, seed)
    if not takes_design:
        for name in designs:
            if asked[name] is not None:
                raise InputError(
                    f"--{name} does not go with {surrogate.card.name}, which has one detector; leave it out"
                )
        return Rows(energies)
    n_z = surrogate.design_model.architecture.n_z
    ranges = _ranges(asked["cell"], asked["unequal"], n_z)
    dx, dz = draw_designs(*ranges, len(energies), n_z, asked["unequal"] or 0.0, seed)
    return Rows(energies, dx, dz, None if asked["material"] is None else Material.parse(asked["material"]))


def _ranges(
    cell: tuple[tuple[float, ...], tuple[float, ...]], unequal: float | None, n_z: int
) -> tuple[tuple[float, float], tuple[Any, Any]]:
    """Return the ends of the ranges of pitch and depth, cm; equal ends for a fixed pitch and fixed depths."""
    dx, dz = cell
    if not (isinstance(dx, Range) or len(dx) == 1) or not (isinstance(dz, Range) or len(dz) in (1, n_z)):
        raise InputError(
            f"--cell: expected one DX, and one DZ or {n_z} (one a layer), in cm, or ranges LOW:HIGH of both or either"
        )
    if unequal is not None and not isinstance(dz, Range):
        raise InputError(f"--unequal {unequal:g} needs a range LOW:HIGH of depths; leave it out or give one")
    return (dx[0], dx[-1]), (dz[0], dz[1]) if isinstance(dz, Range) else (dz, dz)


def _summarise(made: Any, seconds: float, output: Path, json_path: Path | None) -> None:
    """Print what was generated, by design and energy where these are few, and write it as JSON."""
    import numpy as np

    fraction = made.totals / made.energy
    columns = [getattr(made, name) for name in ("dx", "dz", "energy") if hasattr(made, name)]
    points, which = np.unique(np.column_stack(columns), axis=0, return_inverse=True)
    listed = []
    for k, point in enumerate(points.tolist() if len(points) <= MANY_POINTS else []):
        own = fraction[which.reshape(-1) == k]
        error = float(own.std(ddof=1) / len(own) ** 0.5) if len(own) > 1 else None
        design = {"dx": point[0], "dz": point[1:-1]} if len(columns) > 1 else {}
        listed.append(design | {"energy": point[-1], "showers": len(own), "mean_fraction": float(own.mean()),
                                "mean_fraction_error": error})  # fmt: skip
    result = {
        "output": str(output), "rows": len(made), "seconds": seconds, "ms_per_shower": 1e3 * seconds / len(made),
        "mean_fraction": float(fraction.mean()), "empty": int((fraction == 0).sum()), "points": listed,
        "config": made.config,
    }  # fmt: skip
    lines = [
        [_sizes(p), f"{p['energy']:g}", p["showers"], f"{p['mean_fraction']:.4f}"
         + (f" +- {p['mean_fraction_error']:.4f}" if p["mean_fraction_error"] is not None else "")]
        for p in listed
    ] or [["all", f"{made.energy.min():g} to {made.energy.max():g}", len(made), f"{fraction.mean():.4f}"]]  # fmt: skip
    c = made.config
    print_table(
        f"{output}: {len(made)} showers of {made.origin} in {seconds:.1f} s, {result['ms_per_shower']:.3g} ms each "
        f"({c['sampler']}, {c['steps']} steps, seed {c['seed']})",
        ["cell, cm", "energy, GeV", "showers", "mean E_dep / E"], lines,
    )  # fmt: skip
    write_json(json_path, result)


def _sizes(point: dict[str, Any]) -> str:
    """Return the cell of a point in words."""
    if "dx" not in point:
        return "-"
    depths = sorted(set(point["dz"]))
    return f"{point['dx']:g} x " + (f"{depths[0]:g}" if len(depths) == 1 else ",".join(f"{d:g}" for d in point["dz"]))
