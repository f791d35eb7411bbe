"""``calograd benchmark``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from calograd.cli.common import COUNT, JSON_OPTION, NUMBERS, Command, console, print_table, write_json
from calograd.cli.progress import progress
from calograd.errors import InputError

if TYPE_CHECKING:
    from calograd.evaluation.timing import Benchmark

BUSY = 1.15
"""Ratio of wall time to processor time above which the machine counts as busy."""


@click.command(cls=Command)
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--energies", type=NUMBERS,
    help="Incident energies, GeV. [1,10,50,100; for surrogates of points energies drawn evenly from their range]",
)  # fmt: skip
@click.option(
    "--showers", type=COUNT, help="Geant4 showers at each energy and repetition. [as many as take two seconds]"
)
@click.option("--repeats", default=5, show_default=True, type=COUNT, help="Repetitions of every measurement.")
@click.option("--no-geant4", is_flag=True, help="Leave Geant4 out.")
@JSON_OPTION
def benchmark(
    models: tuple[str, ...],
    energies: tuple[float, ...] | None,
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
      calograd benchmark siw-cloud siw-cloud-cm
    """
    if energies is not None and len(set(energies)) != len(energies):
        raise InputError(f"--energies {','.join(f'{e:g}' for e in energies)}: expected different energies")
    from calograd.evaluation import timing
    from calograd.surrogate import Surrogate

    surrogates = [Surrogate.load(model) for model in models or ("pbf2-cells",)]
    timing.refuse_different(surrogates)
    environment, note = (None, "left out (--no-geant4)") if no_geant4 else timing.find_geant4(surrogates[0])
    with progress("benchmark") as show:
        result = timing.benchmark(
            surrogates, energies, environment, repeats=repeats, showers=showers, note=note, progress=show
        )  # fmt: skip
    _print(result)
    write_json(json_path, result.to_dict())


def _print(result: Benchmark) -> None:
    from calograd.evaluation.timing import short

    m = result.machine
    title = f"{m['processor']} ({m['vectors']}, {m['cores']} cores), one thread, torch {m['torch']}"
    rows: list[list[str]] = []
    if result.geant4:
        rows = [["Geant4", "-", t.energy_text, "-", str(t.processor), short(t.clock.median), ""]
                for t in result.geant4.timings]  # fmt: skip
    for t in result.surrogates:
        ratio = result.ratio(t)
        faster = short(ratio) if ratio is not None else "-"
        how = f"{t.sampler}, {t.shape_evaluations} + {t.evaluations}"
        rows.append([t.who, how, t.energy_text, str(t.batch), str(t.processor), short(t.clock.median), faster])
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
