"""``calograd sample``."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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
    import numpy as np

    from calograd.events.dense import Cells, Maps
    from calograd.surrogate import Surrogate

MANY_POINTS = 24
"""With more (design, energy) points than this the summary is of the whole file."""


class _Rows(NamedTuple):
    """What is asked for, one row a shower: energy in GeV, dx and the dz of every layer in cm."""

    energy: np.ndarray
    dx: np.ndarray
    dz: np.ndarray


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
    steps: int | None, guidance: float, extrapolate: bool, like: Path | None, material: str | None, **wanted: Any,
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
    from calograd.detector.material import Material
    from calograd.events.dense import write_dense
    from calograd.surrogate import Surrogate

    options: dict[str, Any]
    surrogate = Surrogate.load(model, device)
    if not surrogate.card.takes_design:
        if guidance:
            raise InputError(f"{model} takes no --guidance; leave it out")
        options = {"seed": seed, "extrapolate": extrapolate, "steps": steps, "sampler": sampler}
        _sample_clouds(surrogate, like, wanted | {"material": material}, threads, options, output, json_path)
        return
    reference = _reference(like, wanted | {"material": material})
    chosen = None if material is None else Material.parse(material)
    if reference is not None:
        chosen = reference.material if len(surrogate.card.designs.materials) > 1 else None
        rows = _like(reference, surrogate, wanted["repeat"], str(like))
    else:
        rows = _asked(wanted, surrogate.design_model.architecture.n_z, seed)
    options = {
        "seed": seed, "extrapolate": extrapolate, "sampler": sampler, "steps": steps, "material": chosen,
        "guidance": guidance,
    }  # fmt: skip
    made, seconds = _generate(surrogate, rows, threads, options)
    write_dense(output, made)
    _summarise(made, seconds, output, json_path)


def _reference(like: Path | None, wanted: dict[str, Any]) -> Cells | Maps | None:
    """The file to imitate, if one was given, after a check that the options go together."""
    if like is None:
        if wanted["cell"] is None or wanted["energy"] is None:
            raise InputError("give --cell DX DZ and --energy, or --like REFERENCE")
        if wanted["repeat"] is not None:
            raise InputError("--repeat belongs to --like REFERENCE; use -n for the number of showers")
        return None
    for name in ("cell", "unequal", "energy", "law", "showers", "material"):
        if wanted[name] is not None:
            raise InputError(f"--{name} and --like exclude each other; --like takes designs and energies from the file")
    from calograd.events.shards import read_shards

    return read_shards(like)


def _like(reference: Cells | Maps, surrogate: Surrogate, repeat: int | None, name: str) -> _Rows:
    import numpy as np

    card, theirs = surrogate.card, reference.material
    if len(card.designs.materials) == 1 and card.designs.material.name != theirs.name:
        raise InputError(
            f"{name} is of {theirs.name}, {card.name} was trained on {card.designs.material.name}; expected one"
        )
    a = surrogate.design_model.architecture
    has = _form(reference.measured.shape[1:], reference.n_xy, reference.dz.shape[1])
    generated = _form(surrogate.design_model.shape, a.n_xy, a.n_z)
    if has != generated:
        raise InputError(f"{name} has {has} cells, {card.name} generates {generated}")
    return _Rows(*(np.repeat(column, repeat or 1, axis=0) for column in (reference.energy, reference.dx, reference.dz)))


def _form(shape: tuple[int, ...], n_xy: int, n_z: int) -> str:
    """What is measured of a shower, in words."""
    cells, measured = f"{n_xy} x {n_xy} x {n_z}", " x ".join(map(str, shape))
    return measured if measured == cells else f"maps of {measured} pixels over {cells}"


def _asked(wanted: dict[str, Any], n_z: int, seed: int) -> _Rows:
    energy = _energies(wanted["energy"], wanted["law"], wanted["showers"] or 1000, seed)
    return _Rows(energy, *_sizes_of(wanted["cell"], wanted["unequal"], len(energy), n_z, seed))


def _sizes_of(
    cell: tuple[tuple[float, ...], tuple[float, ...]], unequal: float | None, n: int, n_z: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return pitch (n,) and depths (n, n_z), cm: one design for all showers, or one each, log-uniform in ranges."""
    import numpy as np

    pitch, depths = cell
    if not (isinstance(pitch, Range) or len(pitch) == 1) or not (isinstance(depths, Range) or len(depths) in (1, n_z)):
        raise InputError(
            f"--cell: expected one DX, and one DZ or {n_z} (one a layer), in cm, or ranges LOW:HIGH of both or either"
        )
    if unequal is not None and not isinstance(depths, Range):
        raise InputError(f"--unequal {unequal:g} needs a range LOW:HIGH of depths; leave it out or give one")
    rng = np.random.default_rng([seed, 1])
    u, v, chosen = rng.random(n), rng.random((n, n_z)), rng.random(n) < (unequal or 0)
    v = np.where(chosen[:, None], v, v[:, :1])
    dx = pitch[0] * (pitch[-1] / pitch[0]) ** u
    dz = depths[0] * (depths[1] / depths[0]) ** v if isinstance(depths, Range) else np.array(depths)
    return dx, np.broadcast_to(dz, (n, n_z))


def _energies(energy: tuple[float, ...], law: str | None, count: int, seed: int) -> np.ndarray:
    """Return incident energies: every value ``count`` times in turn, or ``count`` draws from a range."""
    import numpy as np

    if not isinstance(energy, Range):
        if law:
            raise InputError(f"--law {law} needs a range, as --energy 1:100")
        return np.tile(energy, count)
    u, (low, high) = np.random.default_rng(seed).random(count), energy
    drawn: np.ndarray = low + u * (high - low) if law == "uniform" else low * (high / low) ** u
    return drawn


def _generate(surrogate: Surrogate, rows: _Rows, threads: int, options: dict[str, Any]) -> tuple[Cells | Maps, float]:
    """The showers and the seconds they took; warnings go to the console, one line each."""
    from calograd.surrogate.generation import generate

    use_threads(threads)
    with progress("sampling") as show, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        started = time.perf_counter()
        made = generate(
            surrogate, rows.energy, rows.dx, rows.dz, progress=show.counter("showers"), **options
        )  # fmt: skip
        seconds = time.perf_counter() - started
    print_notes(sorted({str(warning.message) for warning in caught}), "warning")
    return made, seconds


def _sample_clouds(
    surrogate: Surrogate, like: Path | None, wanted: dict[str, Any], threads: int, options: dict[str, Any],
    output: Path, json_path: Path | None,
) -> None:  # fmt: skip
    """Points of a layered detector, at the energies that are asked for or those of another file of points."""
    import numpy as np
    import torch

    from calograd.events.point_showers import read_points, write_points
    from calograd.surrogate.generation import generate

    for name in ("cell", "unequal", "material", *(("energy", "law", "showers") if like else ("repeat",))):
        if wanted[name] is not None:
            what = "--like takes the energies of the file" if like else "it generates points at given energies"
            raise InputError(f"--{name} does not go with {surrogate.card.name} here: {what}; leave it out")
    if like is None and wanted["energy"] is None:
        raise InputError("give --energy, or --like REFERENCE")
    energy = (
        np.repeat(read_points(like).energy, wanted["repeat"] or 1) if like
        else _energies(wanted["energy"], wanted["law"], wanted["showers"] or 1000, options["seed"])
    )  # fmt: skip
    use_threads(threads)
    surrogate.model.sampling_schedule(options["sampler"], options["steps"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        surrogate.check_range(None, torch.from_numpy(energy), options["extrapolate"])
        with progress("sampling") as show:
            started = time.perf_counter()
            made = generate(surrogate, energy, progress=show.counter("showers"), **options)
            seconds = time.perf_counter() - started
    print_notes(sorted({str(warning.message) for warning in caught}), "warning")
    write_points(output, made)
    result = {
        "output": str(output), "showers": len(made), "points": len(made.e), "seconds": seconds,
        "ms_per_shower": 1e3 * seconds / len(made),
        "mean_fraction": float((made.layer_sums(made.e).sum(1) / made.energy).mean()), "config": made.config,
    }  # fmt: skip
    print_table(
        f"{output}: {len(made)} showers of {made.origin} in {seconds:.1f} s ({made.config['sampler']}, "
        f"{made.config['steps']} steps, seed {made.config['seed']})",
        ["showers", "points a shower", "mean E_vis / E", "ms each"],
        [[len(made), f"{len(made.e) / len(made):.1f}", f"{result['mean_fraction']:.5f}",
          f"{result['ms_per_shower']:.3g}"]],
    )  # fmt: skip
    write_json(json_path, result)


def _summarise(made: Cells | Maps, seconds: float, output: Path, json_path: Path | None) -> None:
    import numpy as np

    fraction = made.totals / made.energy
    points, which = np.unique(np.column_stack([made.dx, made.dz, made.energy]), axis=0, return_inverse=True)
    groups = [which.reshape(-1) == k for k in range(len(points))] if len(points) <= MANY_POINTS else []
    listed = []
    for rows in groups:
        of, first = fraction[rows], int(np.argmax(rows))
        error = float(of.std(ddof=1) / len(of) ** 0.5) if len(of) > 1 else None
        listed.append(
            {"dx": float(made.dx[first]), "dz": made.dz[first].tolist(), "energy": float(made.energy[first]),
             "showers": len(of), "mean_fraction": float(of.mean()), "mean_fraction_error": error}
        )  # fmt: skip
    result = {
        "output": str(output), "rows": len(made), "seconds": seconds, "ms_per_shower": 1e3 * seconds / len(made),
        "mean_fraction": float(fraction.mean()), "empty": int((fraction == 0).sum()), "points": listed,
        "config": made.config,
    }  # fmt: skip
    lines = [
        [_sizes(p["dx"], p["dz"]), f"{p['energy']:g}", p["showers"], f"{p['mean_fraction']:.4f}"
         + (f" +- {p['mean_fraction_error']:.4f}" if p["mean_fraction_error"] is not None else "")]
        for p in listed
    ] or [["all", f"{made.energy.min():g} to {made.energy.max():g}", len(made), f"{fraction.mean():.4f}"]]  # fmt: skip
    c = made.config
    print_table(
        f"{output}: {len(made)} showers of {made.origin} in {seconds:.1f} s, {result['ms_per_shower']:.3g} ms each "
        f"({c['sampler']}, {c['steps']} steps, seed {c['seed']})",
        ["cell, cm", "energy, GeV", "showers", "mean E_tot / E"], lines,
    )  # fmt: skip
    write_json(json_path, result)


def _sizes(dx: float, dz: list[float]) -> str:
    depths = f"{dz[0]:g}" if len(set(dz)) == 1 else ",".join(f"{d:g}" for d in dz)
    return f"{dx:g} x {depths}"
