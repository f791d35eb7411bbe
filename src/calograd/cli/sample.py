"""``calograd sample`` and ``calograd export``."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from calograd.cli.common import (
    BEAM,
    COUNT,
    EXISTING,
    FINITE,
    NUMBERS_OR_RANGE,
    SHARE,
    STACK,
    Range,
    beam_options,
    command,
    device_option,
    errors_name_options,
    extrapolate_option,
    json_option,
    law_of,
    law_option,
    option,
    output_option,
    print_notes,
    print_table,
    sampler_option,
    seed_option,
    stack_of,
    stack_options,
    steps_option,
    threads_option,
    window_option,
)
from calograd.cli.progress import progress
from calograd.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from calograd.surrogate import Surrogate
    from calograd.surrogate.model import Rows

CELLS = ("cell", "unequal", "material", "cells")
"""Names of the options that describe cells."""
MANY_POINTS = 24
"""Number of designs and energies above which the summary is of the whole file."""


@command()
@click.argument("model")
@option("--cell", nargs=2, type=NUMBERS_OR_RANGE, metavar="DX DZ",
        help="Pitch and depth, cm; DZ may be one a layer: 4,5,6,8,10. Ranges as 1:5 4:15 give every shower its own "
        "design.")  # fmt: skip
@option("--unequal", type=SHARE, help="Share of designs from ranges whose layers differ in depth. [0]")
@option("--energy", type=NUMBERS_OR_RANGE,
        help="Incident energy, GeV: values as 1,10,50 (each in turn), or a range as 1:100.")  # fmt: skip
@law_option
@option("--material", help="PbF2, BGO, ..., or NAME:DENSITY:FORMULA. [the trained one; with --like, the file's]")
@stack_options
@option(
    "--layers-only",
    is_flag=True,
    help="Sampling: energies of plates alone, no points. [required if the surrogate has none]",
)
@option("-n", "--showers", type=COUNT, help="Showers for each energy, or in total for a range. [1000]")
@option("--like", type=EXISTING,
        help="File of showers, or library of plates; the designs, energies and particles are taken from its rows "
        "instead of the options.")  # fmt: skip
@option("--repeat", type=COUNT, help="With --like: showers for each row of the file. [1]")
@window_option
@beam_options
@seed_option
@sampler_option
@steps_option
@option("--guidance", default=0.0, type=FINITE,
        help="Classifier-free guidance, for maps trained with dropped conditions.")  # fmt: skip
@threads_option
@device_option
@extrapolate_option
@output_option("The file of showers (HDF5)")
@json_option
def sample(
    model: str, output: Path, device: str, seed: int, sampler: str | None, steps: int | None, guidance: float,
    extrapolate: bool, layers_only: bool, **asked: Any,
) -> dict[str, Any]:  # fmt: skip
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

    A surrogate of stacks of plates takes the options of 'calograd simulate --detector sampling', and gives the same
    stacks with the same seed. It writes the energies of plates and, if it was trained on points, these as deposits in
    the active plates (see calograd.open_plates). --layers-only leaves the points out; it has to be said where there are
    none.

    \b
    Examples:
      calograd sample sampling-fast --absorber Pb --active lAr --absorber-thickness 0.2 --active-thickness 0.4 \\
        --layers 40 --particle e- --energy 1,10,50 -n 2000 --layers-only -o plates.h5
      calograd sample sampling-fast --absorber Pb,W --active Si --absorber-thickness 0.1:0.4 --layers 20:40 \\
        --active-thickness 0.03:0.1 --profile smooth --theta 0:40 --energy 1:100 -n 5000 --layers-only -o stacks.h5
      calograd sample sampling-fast --like library.h5 --repeat 4 --layers-only -o plates.h5
    """
    from calograd.surrogate import Surrogate
    from calograd.surrogate.generation import generate

    surrogate = Surrogate.load(model, device)
    if layers_only and "layers_only" not in surrogate.model.options:
        raise InputError(f"--layers-only is for stacks of plates; leave it out with {surrogate.card.name}")
    if not layers_only and "layers_only" in surrogate.model.required_options:
        raise InputError(
            f"{surrogate.card.name} generates energies of plates and was not trained on points; add --layers-only"
        )
    rows = _rows(surrogate, seed, asked)
    with progress("sampling") as show, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        started = time.perf_counter()
        made = generate(
            surrogate, rows.energy, rows.dx, rows.dz, material=rows.material, incident=rows.incident, n_xy=rows.n_xy,
            stacks=rows.stacks, layers_only=layers_only, seed=seed, sampler=sampler, steps=steps,
            extrapolate=extrapolate, guidance=guidance, progress=show.counter("showers"),
        )  # fmt: skip
        seconds = time.perf_counter() - started
    print_notes(sorted({str(warning.message) for warning in caught}), "warning")
    made.write(output)
    return _summarise(made, rows, seconds, output)


def _rows(surrogate: Surrogate, seed: int, asked: dict[str, Any]) -> Rows:
    """Return the energies and designs that are asked for, one a shower. Raises `InputError` naming the option."""
    from calograd.events.shards import read_showers
    from calograd.surrogate.generation import draw_energies, rows_like
    from calograd.surrogate.model import Rows

    like, energy, kind = asked["like"], asked["energy"], surrogate.card.trained.designs_of
    if like is not None:
        for name in (*CELLS, *STACK, "energy", "law", "showers", *BEAM):
            if asked[name] is not None:
                raise InputError(f"--{name.replace('_', '-')} and --like exclude each other; the file gives them")
        return rows_like(surrogate, read_showers(like), asked["repeat"] or 1, str(like))
    _refuse_others(surrogate, asked)
    required = {"cells": ("cell",), "stacks": STACK[:5], None: ()}[kind]
    wanted = {"cells": "--cell DX DZ and --energy", "stacks": "a stack and --energy", None: "--energy"}[kind]
    if energy is None or (required and all(asked[name] is None for name in required)):
        raise InputError(f"give {wanted}, or --like FILE")
    if asked["repeat"] is not None:
        raise InputError("--repeat belongs to --like FILE; use -n for the number of showers")
    energies = draw_energies(energy, asked["showers"] or 1000, law_of(energy, asked["law"]), seed)
    match kind:
        case "cells":
            return _rows_of_cells(surrogate, energies, seed, asked)
        case "stacks":
            return _rows_of_stacks(surrogate, energies, seed, asked)
        case _:
            return Rows(energies)


def _refuse_others(surrogate: Surrogate, asked: dict[str, Any]) -> None:
    """Raise `InputError` for an option that describes another kind of detector than the surrogate's."""
    name = surrogate.card.name
    others: dict[str | None, tuple[tuple[str, ...], str]] = {
        "cells": (STACK, f"describes a stack of plates, and {name} generates cells or maps; leave it out"),
        "stacks": (CELLS, f"describes cells, and {name} generates stacks of plates; leave it out"),
        None: ((*CELLS, *STACK, *BEAM), f"does not go with {name}, which has one detector; leave it out"),
    }
    unfit, why = others[surrogate.card.trained.designs_of]
    for each in unfit:
        if asked[each] is not None:
            raise InputError(f"--{each.replace('_', '-')} {why}")


def _rows_of_stacks(surrogate: Surrogate, energies: np.ndarray, seed: int, asked: dict[str, Any]) -> Rows:
    """Return rows of the stacks that are asked for."""
    import numpy as np

    from calograd.geant4.probe import find_material
    from calograd.surrogate.generation import draw_incidence, draw_stacks
    from calograd.surrogate.model import Rows

    if asked["position"] == "uniform":
        raise InputError("--position uniform: plates have no cells to draw it in; leave it out")
    law = stack_of(asked, find_material, surrogate.card.name)
    given = {name: asked[name] for name in BEAM if asked[name] is not None}
    incident = draw_incidence(np.ones(len(energies)), **given, seed=seed)
    return Rows(energies, incident=incident, stacks=draw_stacks(law, len(energies), seed))


def _rows_of_cells(surrogate: Surrogate, energies: np.ndarray, seed: int, asked: dict[str, Any]) -> Rows:
    """Return rows of the designs of cells that are asked for."""
    from calograd.detector.material import Material
    from calograd.surrogate.generation import draw_designs, draw_incidence
    from calograd.surrogate.model import Rows

    a = surrogate.design_model.architecture
    n_xy, n_z = asked["cells"] or (a.n_xy, a.n_z)
    ranges = _ranges(asked["cell"], asked["unequal"], n_z)
    dx, dz = draw_designs(*ranges, len(energies), n_z, asked["unequal"] or 0.0, seed)
    material = None if asked["material"] is None else Material.parse(asked["material"])
    given = {name: asked[name] for name in BEAM if asked[name] is not None}
    if not surrogate.model.takes_particles and (given or (n_xy, n_z) != (a.n_xy, a.n_z)):
        name = next(iter(given), "cells")
        raise InputError(
            f"--{name}: {surrogate.card.name} generates {surrogate.card.trained_incidence().describe()}, in {a.n_xy} x "
            f"{a.n_xy} x {a.n_z} cells, alone; leave it out, or take a surrogate that was trained on several"
        )
    incident = draw_incidence(dx, **given, seed=seed) if surrogate.model.takes_particles else None
    return Rows(energies, dx, dz, material, incident, n_xy)


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


def _summarise(made: Any, rows: Rows, seconds: float, output: Path) -> dict[str, Any]:
    """Print what was generated, by design and energy where these are few, and return it as plain data."""
    import numpy as np

    fraction = made.totals / made.energy
    columns = np.column_stack([column for column in (rows.dx, rows.dz, made.energy) if column is not None])
    where = _stack_in_words(rows) if rows.stacks is not None else "-"
    points, which = np.unique(columns.astype(np.float32), axis=0, return_inverse=True)
    listed, lines = [], []
    for k, (*sizes, energy) in enumerate(points.tolist() if len(points) <= MANY_POINTS else []):
        own = fraction[which.reshape(-1) == k]
        mean, error = float(own.mean()), float(own.std(ddof=1) / len(own) ** 0.5) if len(own) > 1 else None
        listed.append(
            ({"dx": sizes[0], "dz": sizes[1:]} if sizes else {})
            | {"energy": energy, "showers": len(own), "mean_fraction": mean, "mean_fraction_error": error}
        )
        depths = ",".join(f"{depth:g}" for depth in (sizes[1:2] if len(set(sizes[1:])) == 1 else sizes[1:]))
        lines.append([f"{sizes[0]:g} x {depths}" if sizes else where, f"{energy:g}", len(own),
                      f"{mean:.4f}" + (f" +- {error:.4f}" if error is not None else "")])  # fmt: skip
    low, high = made.energy.min(), made.energy.max()
    config, each = made.config, 1e3 * seconds / len(made)
    print_table(
        f"{output}: {len(made)} showers of {made.origin} in {seconds:.1f} s, {each:.3g} ms each "
        f"({config['sampler']}, {config['steps']} steps, seed {config['seed']})",
        ["cell, cm" if rows.stacks is None else "stack", "energy, GeV", "showers", "mean E_dep / E"],
        lines or [[where if rows.stacks else "all", f"{low:g} to {high:g}", len(made), f"{fraction.mean():.4f}"]],
    )
    return {
        "output": str(output), "rows": len(made), "seconds": seconds, "ms_per_shower": each,
        "mean_fraction": float(fraction.mean()), "empty": int((fraction == 0).sum()), "points": listed,
        "config": config,
    }  # fmt: skip


def _stack_in_words(rows: Rows) -> str:
    """Return the materials and numbers of layers of stacks."""
    from calograd.detector.sampling_stack import describe_materials

    stacks = rows.stacks
    assert stacks is not None
    ends = " to ".join(map(str, dict.fromkeys((stacks.layers.min(), stacks.layers.max()))))
    names = describe_materials(stacks.absorbers, stacks.actives)
    return f"{ends} layers of {names}" + ("" if stacks.alike else ", one a shower")


@command()
@click.argument("model")
@option("--sampler", help="Sampler inside sampler.onnx: trigflow-ab2, ddim, heun or dpmpp-2m. [the surrogate's own]")
@steps_option
@window_option
@option("--material", help="The one material of the files, for surrogates of several. [the material is an input]")
@output_option("New folder of the ONNX files", folder=True)
@json_option
def export(
    model: str, sampler: str | None, steps: int | None, cells: tuple[int, int] | None, material: str | None,
    output: Path,
) -> dict[str, Any]:  # fmt: skip
    """Write a surrogate as ONNX files, for C++ and other programs without PyTorch.

    sampler.onnx turns energy, cell sizes and unit normal noise into cells in GeV; that of a surrogate which takes
    particles turns each shower's PDG number, entry (cm) and direction (degrees) as well. shape.onnx, pattern.onnx and
    decoder.onnx are its parts, for other samplers. ONNX Runtime checks each file against PyTorch before it is written.

    \b
    Examples:
      calograd export pbf2-cells -o exported
      calograd export pbwo4 --steps 6 -o exported     an adapted surrogate, with fewer steps
      calograd export runs/mine --cells 5 4 -o exported     a smaller window of one that takes particles
    """
    from calograd.detector.material import Material
    from calograd.export.write import export as write
    from calograd.surrogate import Surrogate

    surrogate = Surrogate.load(model)
    only = None if material is None else Material.parse(material)
    with progress("export") as show, errors_name_options("cells"):
        written = write(
            surrogate, output, sampler=sampler, steps=steps, cells=cells, material=only,
            progress=show.counter("files"),
        )  # fmt: skip
    print_table(
        f"{output}: {surrogate.card.name} as ONNX", ["file", "inputs", "output", "MB", "largest difference"],
        [[w.path.name, "; ".join(map(str, w.part.inputs)), w.part.output, f"{w.size / 1e6:.1f}",
          f"{w.difference:.1g}"] for w in written],
    )  # fmt: skip
    files = [
        {"path": str(w.path), "inputs": list(map(str, w.part.inputs)), "output": str(w.part.output), "bytes": w.size,
         "largest_difference": w.difference, "rounding_of_pytorch": w.rounding} for w in written
    ]  # fmt: skip
    return {"model": surrogate.card.name, "files": files}
