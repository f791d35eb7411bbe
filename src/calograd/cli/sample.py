"""``calograd sample``."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import numpy as np

from calograd.cli.common import JSON_OPTION, console, output_option, parse_numbers, print_table, progress, write_json
from calograd.detector.material import Material
from calograd.errors import InputError
from calograd.events.cells import Cells
from calograd.events.maps import Maps, write_rows
from calograd.events.shards import read_shards
from calograd.io.hdf5 import refuse_existing

if TYPE_CHECKING:
    from calograd.surrogate import CloudSurrogate, Surrogate

MANY_POINTS = 24
"""With more (design, energy) points than this the summary is of the whole file."""


class _Rows(NamedTuple):
    """What is asked for, one row a shower: energy in GeV, dx and the dz of every layer in cm."""

    energy: np.ndarray
    dx: np.ndarray
    dz: np.ndarray


@click.command()
@click.argument("model")
@click.option(
    "--cell",
    nargs=2,
    metavar="DX DZ",
    help="Pitch and depth, cm; DZ may be one a layer: 4,5,6,8,10. Ranges as 1:5 4:15 give every shower a design.",
)
@click.option("--unequal", type=float, help="Share of designs from ranges whose layers differ in depth. [0]")
@click.option("--energy", help="GeV: values as 1,10,50 (each in turn), or a range as 1:100.")
@click.option("--law", type=click.Choice(["uniform", "log-uniform"]), help="How energies fill a range. [log-uniform]")
@click.option(
    "--material", help="PbF2, BGO, ..., or NAME:DENSITY:FORMULA. [the one trained on; with --like, the file's]"
)
@click.option("-n", "--showers", type=int, help="Showers per energy; of a range, the total. [1000]")
@click.option(
    "--like",
    type=click.Path(path_type=Path),
    help="Instead of --cell and --energy: the rows of this cells or maps file.",
)
@click.option("--repeat", type=int, help="With --like: this many showers for each of its rows. [1]")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Fixes all showers.")
@click.option(
    "--sampler",
    help="trigflow-ab2, ddim, heun, dpmpp-2m or ddpm. [the surrogate's own]",
)
@click.option("--steps", type=int, help="Of the sampler. [each has its own]")
@click.option("--guidance", default=0.0, help="Of classifier-free guidance, for maps trained with dropped conditions.")
@click.option("--threads", default=0, help="CPU threads. [all cores]")
@click.option("--device", default="cpu", show_default=True, help="Any torch device.")
@click.option("--extrapolate", is_flag=True, help="Warn instead of refusing outside the trained range.")
@output_option("The cells file, or maps file (HDF5)")
@JSON_OPTION
def sample(
    model: str, output: Path, json_path: Path | None, threads: int, device: str, seed: int, sampler: str | None,
    steps: int | None, guidance: float, extrapolate: bool, like: Path | None, material: str | None, **wanted: Any,
) -> None:  # fmt: skip
    """Generate showers with a surrogate: a bundled name, or a folder that 'calograd train' wrote.

    \b
    Examples:
      calograd sample pbf2-cells --cell 2.5 6 --energy 50 -n 2000 --seed 0 -o generated.h5
      calograd sample pbf2-cells --cell 2.5 6 --energy 1:100 --law uniform -n 5000 -o spectrum.h5
      calograd sample pbf2-cells --like reference.h5 -o generated.h5
      calograd sample pbf2-cells --cell 1:5 4:15 --unequal 0.5 --energy 1:100 -n 50000 -o designs.h5

    A surrogate of points takes no cell, and writes points (see calograd points).

    \b
    Examples:
      calograd sample siw-cloud --energy 10:90 --law uniform -n 2000 -o points.h5
      calograd sample siw-cloud-cm --like reference-points.h5 -o points.h5
    """
    for path in (output, json_path):
        refuse_existing(path)
        if path is not None and not path.absolute().parent.is_dir():
            raise InputError(f"the folder {path.parent} does not exist; make it or choose another output")
    if threads < 0:
        raise InputError(f"--threads is {threads}, expected at least 1, or 0 for all cores")
    from calograd.surrogate import CloudSurrogate
    from calograd.surrogate.registry import STACK_KINDS
    from calograd.surrogate.storage import kind_of

    options: dict[str, Any]
    if kind_of(model) in STACK_KINDS:
        if guidance:
            raise InputError(f"{model} takes no --guidance; leave it out")
        clouds = CloudSurrogate.load(model, device)
        options = {"seed": seed, "extrapolate": extrapolate, "steps": steps, "sampler": sampler}
        _sample_clouds(clouds, like, wanted | {"material": material}, threads, options, output, json_path)
        return
    reference = _reference(like, wanted | {"material": material})
    chosen = None if material is None else Material.parse(material)
    from calograd.surrogate import load_designs

    surrogate = load_designs(model, device)
    if reference is not None:
        chosen = reference.material if len(surrogate.card.materials) > 1 else None
        rows = _like(reference, surrogate, wanted["repeat"], str(like))
    else:
        rows = _asked(wanted, surrogate.model.architecture.n_z, seed)
    options = {
        "seed": seed, "extrapolate": extrapolate, "sampler": sampler, "steps": steps, "material": chosen,
        "guidance": guidance,
    }  # fmt: skip
    made, seconds = _generate(surrogate, rows, threads, options)
    write_rows(output, made)
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
    return read_shards(like)


def _like(reference: Cells | Maps, surrogate: Surrogate, repeat: int | None, name: str) -> _Rows:
    repeat = 1 if repeat is None else repeat
    if repeat < 1:
        raise InputError(f"--repeat is {repeat}, expected at least 1")
    card, theirs = surrogate.card, reference.material
    if len(card.materials) == 1 and card.substance().name != theirs.name:
        raise InputError(
            f"{name} is of {theirs.name}, {card.name} was trained on {card.substance().name}; expected one"
        )
    a = surrogate.model.architecture
    has = _form(reference.measured.shape[1:], reference.n_xy, reference.dz.shape[1])
    generated = _form(surrogate.model.shape, a.n_xy, a.n_z)
    if has != generated:
        raise InputError(f"{name} has {has} cells, {card.name} generates {generated}")
    return _Rows(*(np.repeat(column, repeat, axis=0) for column in (reference.energy, reference.dx, reference.dz)))


def _form(shape: tuple[int, ...], n_xy: int, n_z: int) -> str:
    """What is measured of a shower, in words."""
    cells, measured = f"{n_xy} x {n_xy} x {n_z}", " x ".join(map(str, shape))
    return measured if measured == cells else f"maps of {measured} pixels over {cells}"


def _asked(wanted: dict[str, Any], n_z: int, seed: int) -> _Rows:
    count = 1000 if wanted["showers"] is None else wanted["showers"]
    if count < 1:
        raise InputError(f"-n is {count}, expected at least 1")
    energy = _energies(wanted["energy"], wanted["law"], count, seed)
    return _Rows(energy, *_sizes_of(wanted["cell"], wanted["unequal"], len(energy), n_z, seed))


def _sizes_of(
    cell: tuple[str, str], unequal: float | None, n: int, n_z: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pitch (n,) and depths (n, n_z), cm: one design for all showers, or one each, log-uniform in ranges."""
    ranges = [text.split(":") for text in cell]
    pitch, depths = (
        parse_numbers(",".join(ends), f"--cell {name}") for ends, name in zip(ranges, ("DX", "DZ"), strict=True)
    )
    drawn = [len(ends) == 2 for ends in ranges]
    sizes = (2 if drawn[0] else 1,), (2,) if drawn[1] else (1, n_z)
    given = all(len(values) in allowed for values, allowed in zip((pitch, depths), sizes, strict=True))
    rising = all(values[0] < values[1] for values, is_range in zip((pitch, depths), drawn, strict=True) if is_range)
    if not (given and rising and all(0 < size < float("inf") for size in pitch + depths)):
        raise InputError(
            f"--cell {' '.join(cell)}: expected one DX, and one DZ or {n_z} (one a layer), positive, in cm, or ranges "
            "LOW:HIGH of both or either"
        )
    if unequal is not None and not (drawn[1] and 0 <= unequal <= 1):
        raise InputError(f"--unequal {unequal:g}: expected a share from 0 to 1, and a range LOW:HIGH of depths")
    rng = np.random.default_rng([seed, 1])
    u, v, chosen = rng.random(n), rng.random((n, n_z)), rng.random(n) < (unequal or 0)
    v = np.where(chosen[:, None], v, v[:, :1])
    dx = pitch[0] * (pitch[-1] / pitch[0]) ** u
    dz = np.array(depths) if not drawn[1] else depths[0] * (depths[1] / depths[0]) ** v
    return dx, np.broadcast_to(dz, (n, n_z))


def _energies(text: str, law: str | None, count: int, seed: int) -> np.ndarray:
    """Incident energies: every value ``count`` times in turn, or ``count`` draws from a range."""
    ends = text.split(":")
    values = np.array(parse_numbers(",".join(ends), "--energy"))
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise InputError(f"--energy '{text}': expected positive numbers in GeV")
    if len(ends) == 1:
        if law:
            raise InputError(f"--law {law} needs a range, as --energy 1:100; '{text}' is none")
        return np.tile(values, count)
    if len(values) != 2 or values[0] >= values[1]:
        raise InputError(f"--energy '{text}' is no range; expected LOW:HIGH in GeV, as 1:100")
    u = np.random.default_rng(seed).random(count)
    low, high = values
    drawn: np.ndarray = low + u * (high - low) if law == "uniform" else low * (high / low) ** u
    return drawn


def _generate(surrogate: Surrogate, rows: _Rows, threads: int, options: dict[str, Any]) -> tuple[Cells | Maps, float]:
    """The showers and the seconds they took; warnings go to the console, one line each."""
    import torch

    from calograd.surrogate.generation import generate

    if threads:
        torch.set_num_threads(threads)
    with progress() as bar, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        task = bar.add_task("showers", total=len(rows.energy))
        started = time.perf_counter()
        made = generate(
            surrogate, rows.energy, rows.dx, rows.dz,
            report=lambda done, total: bar.update(task, completed=done, total=total), **options,
        )  # fmt: skip
        seconds = time.perf_counter() - started
    for message in sorted({str(warning.message) for warning in caught}):
        console.print(f"warning: {message}")
    return made, seconds


def _sample_clouds(
    surrogate: CloudSurrogate, like: Path | None, wanted: dict[str, Any], threads: int, options: dict[str, Any],
    output: Path, json_path: Path | None,
) -> None:  # fmt: skip
    """Points of a layered detector, at the energies that are asked for or those of another file of points."""
    import torch

    from calograd.events.clouds import read_clouds, write_clouds
    from calograd.surrogate.generation import generate_clouds

    for name in ("cell", "unequal", "material", *(("energy", "law", "showers") if like else ("repeat",))):
        if wanted[name] is not None:
            what = "--like takes the energies of the file" if like else "it generates points at given energies"
            raise InputError(f"--{name} does not go with {surrogate.card.name} here: {what}; leave it out")
    if like is None and wanted["energy"] is None:
        raise InputError("give --energy, or --like REFERENCE")
    count = 1000 if wanted["showers"] is None else wanted["showers"]
    repeat = 1 if wanted["repeat"] is None else wanted["repeat"]
    if count < 1 or repeat < 1:
        raise InputError(f"-n is {count}, --repeat is {repeat}; expected at least 1")
    energy = (
        np.repeat(read_clouds(like).energy, repeat) if like
        else _energies(wanted["energy"], wanted["law"], count, options["seed"])
    )  # fmt: skip
    if threads:
        torch.set_num_threads(threads)
    surrogate.model.walk(options["sampler"], options["steps"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        surrogate.check_range(torch.from_numpy(energy), options["extrapolate"])
        with progress() as bar:
            task = bar.add_task("showers", total=len(energy))
            started = time.perf_counter()
            made = generate_clouds(
                surrogate, energy, report=lambda done, total: bar.update(task, completed=done, total=total), **options
            )
            seconds = time.perf_counter() - started
    for message in sorted({str(warning.message) for warning in caught}):
        console.print(f"warning: {message}")
    write_clouds(output, made)
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
