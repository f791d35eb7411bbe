"""``calograd benchmark``."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from calograd.cli.common import COUNT, JSON_OPTION, NUMBERS, Command, console, print_table, write_json
from calograd.cli.progress import progress
from calograd.errors import InputError, TablesError

if TYPE_CHECKING:
    from calograd.detector.material import Material
    from calograd.evaluation.timing import Benchmark
    from calograd.surrogate import Surrogate

BUSY = 1.15
"""Ratio of wall time to processor time above which the machine counts as busy."""


@click.command(cls=Command)
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--energies", default="1,10,50,100", show_default=True, type=NUMBERS, help="Incident energies, GeV.")
@click.option(
    "--showers", type=COUNT, help="Geant4 showers at each energy and repetition. [as many as take two seconds]"
)
@click.option("--repeats", default=5, show_default=True, type=COUNT, help="Repetitions of every measurement.")
@click.option("--no-geant4", is_flag=True, help="Leave Geant4 out.")
@JSON_OPTION
def benchmark(
    models: tuple[str, ...],
    energies: tuple[float, ...],
    showers: int | None,
    repeats: int,
    no_geant4: bool,
    json_path: Path | None,
) -> None:
    """Time Geant4 and surrogates (default: pbf2-cells) side by side, each on one thread.

    Geant4 runs in its own process, and its start-up is listed separately. A surrogate is timed at batch 1 and at its
    best batch; one that is not distilled is also timed with every sampler. Results are medians with the extremes.

    \b
    Examples:
      calograd benchmark
      calograd benchmark --energies 10,100 --json out.json pbf2-cells runs/mine

    Surrogates of points are timed on energies drawn evenly from their range, Geant4 on the same (no --energies).

    \b
    Example:
      calograd benchmark siw-cloud siw-cloud-cm
    """
    if len(set(energies)) != len(energies):
        raise InputError(f"--energies {','.join(f'{e:g}' for e in energies)}: expected different energies")
    from calograd.diffusion.samplers import DEFAULT_SAMPLER, SAMPLERS
    from calograd.evaluation.timing import BATCHES
    from calograd.evaluation.timing import benchmark as run
    from calograd.surrogate import Surrogate

    surrogates = [Surrogate.load(model) for model in models or ("pbf2-cells",)]
    if not any(surrogate.card.takes_design for surrogate in surrogates):
        _benchmark_clouds(surrogates, repeats, showers, no_geant4, json_path)
        return
    materials = {s.card.designs.material.name: s.card.designs.material for s in surrogates}
    if len(materials) > 1:
        raise InputError(f"the surrogates are of {', '.join(materials)}; benchmark one material at a time")
    for surrogate in surrogates:
        low, high = surrogate.card.energy
        if not all(low <= e <= high for e in energies):
            raise InputError(f"--energies: {surrogate.card.name} was trained on {low:g} to {high:g} GeV")
    environment, note = (None, "left out (--no-geant4)") if no_geant4 else geant4_environment(*materials.values())
    with progress("benchmark") as show:
        others = [name for name in SAMPLERS if name != DEFAULT_SAMPLER]
        result = run(
            surrogates, energies, environment, repeats=repeats, showers=showers, batches=BATCHES, samplers=others,
            note=note, progress=show,
        )  # fmt: skip
    _print(result)
    write_json(json_path, result.to_dict())


def _benchmark_clouds(
    surrogates: Sequence[Surrogate], repeats: int, showers: int | None, no_geant4: bool, json_path: Path | None
) -> None:
    """Time Geant4's silicon-tungsten stack and surrogates of points."""
    from calograd.evaluation.point_timing import benchmark_clouds, stack_beam
    from calograd.geant4.tables import needed_elements
    left_out = (None, "left out (--no-geant4)")
    environment, note = left_out if no_geant4 else environment_for(needed_elements(stack_beam(10.0, 90.0)))
    with progress("benchmark") as show:
        result = benchmark_clouds(surrogates, environment, repeats=repeats, showers=showers, note=note,
                                  progress=show)  # fmt: skip
    m = result.machine
    print_table(
        f"{m['processor']} ({m['vectors']}, {m['cores']} cores), one thread, torch {m['torch']}; energies evenly from "
        f"{result.energy[0]:g} to {result.energy[1]:g} GeV",
        ["", "sampler", "evaluations", "batch", "ms per shower, processor", "clock", "Geant4 / surrogate"],
        [(t.who, t.sampler, t.evaluations, t.batch, str(t.processor), f"{t.clock.median:.3g}", t.ratio_text)
         for t in result.timings],
    )  # fmt: skip
    if result.note:
        console.print(f"note: {result.note}")
    write_json(json_path, result.to_dict())


def geant4_environment(material: Material) -> tuple[dict[str, str] | None, str]:
    """The environment of Geant4's kernel for a material, or None and why it cannot run."""
    return environment_for({"H", *material.mass_fractions})


def environment_for(elements: set[str]) -> tuple[dict[str, str] | None, str]:
    """The environment of Geant4's kernel for materials of these elements, or None and why it cannot run."""
    if importlib.util.find_spec("geant4_pybind") is None:
        return None, "Geant4 is left out: geant4-pybind is not installed; pip install 'calograd[geant4]'"
    from calograd.geant4.tables import find_tables

    try:
        tables = find_tables()
        tables.check(elements)
    except TablesError as error:
        return None, f"Geant4 is left out: {error}"
    return tables.environment(os.environ), ""


def _print(result: Benchmark) -> None:
    from calograd.evaluation.timing import short

    m = result.machine
    title = f"{m['processor']} ({m['vectors']}, {m['cores']} cores), one thread, torch {m['torch']}"
    rows: list[list[str]] = []
    if result.geant4:
        rows = [["Geant4", "-", f"{t.energy:g}", "-", str(t.processor), short(t.clock.median), ""]
                for t in result.geant4.timings]  # fmt: skip
    for t in result.surrogates:
        ratio = result.ratio(t)
        faster = short(ratio) if ratio is not None else "-"
        how = f"{t.sampler}, {t.shape_evaluations} + {t.evaluations}"
        rows.append([t.who, how, f"{t.energy:g}", str(t.batch), str(t.processor), short(t.clock.median), faster])
    columns = ["", "sampler, evaluations", "GeV", "batch", "ms per shower, processor", "clock", "Geant4 / surrogate"]
    print_table(title, columns, rows)
    if result.samplers:
        print_table(
            "Other samplers", ["", "sampler", "steps", "batch", "ms per shower, processor"],
            [[t.who, t.sampler, t.steps, t.batch, t.processor] for t in result.samplers],
        )  # fmt: skip
    if result.geant4:
        console.print(f"Geant4's start-up, not counted above: {result.geant4.startup_processor:.2f} s a process")
    if result.note:
        console.print(f"note: {result.note}")
    if result.busy > BUSY:
        console.print(
            f"note: the machine did other work ({result.busy:.1f} s on the clock for 1 s of the processor); "
            "ratios are of the processor's times"
        )
