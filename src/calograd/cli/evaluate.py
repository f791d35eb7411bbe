"""``calograd evaluate`` and ``calograd benchmark``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from calograd.cli.common import (
    BEAM,
    COUNT,
    EXISTING,
    NUMBERS,
    POSITIVE,
    STACK,
    beam_options,
    command,
    console,
    errors_name_options,
    json_option,
    material_option,
    option,
    print_notes,
    print_table,
    report_option,
    seed_option,
    stack_of,
    stack_options,
    window_option,
)
from calograd.cli.progress import progress
from calograd.errors import InputError
from calograd.system.extras import require

if TYPE_CHECKING:
    from calograd.evaluation.timing import Benchmark

BUSY = 1.15
"""Ratio of wall time to processor time above which the machine counts as busy."""


@command()
@click.argument("generated", type=EXISTING)
@click.argument("reference", type=EXISTING)
@json_option
@report_option
@seed_option
@option("--threshold", default=1.0, type=POSITIVE, help="Readout threshold of a cell, MeV.")
@option(
    "--w0",
    default=4.0,
    type=POSITIVE,
    help="Logarithmic weights of the reconstructed entry, Awes et al.: parameter w0.",
)
@option("--classifier/--no-classifier", default=True, help="Run the classifier tests, which take most of the time.")
def evaluate(
    generated: Path, reference: Path, report_path: Path | None, seed: int, threshold: float, w0: float, classifier: bool
) -> dict[str, Any]:
    """Compare generated showers with Geant4's at every design and energy that both files hold, of cells or of maps.

    \b
    Example:
      calograd evaluate generated.h5 reference.h5 --json out.json --report report.html

    Off the axis each particle and band of angles is compared apart, and the reconstructed entry and direction with the
    true ones: S-curve, position and angular resolution.

    Two files of plates are compared at every energy if all showers are in one stack, and row by row if every shower has
    a stack of its own; the generated ones are then made with 'calograd sample --like REFERENCE'. Neither --threshold
    nor --w0 applies.

    \b
    Example:
      calograd evaluate plates.h5 library.h5 --report report.html

    Two files of points of a layered detector are compared by the observables of the CaloClouds papers, hits above
    0.1 MeV; --threshold does not apply.

    \b
    Example:
      calograd evaluate points.h5 reference-points.h5 --json out.json
    """
    if classifier:
        require("a classifier test (leave it out with --no-classifier)", "report", "sklearn")
    if report_path is not None:
        require("--report", "report", "jinja2", "matplotlib")
    from calograd.evaluation import evaluate as run

    with progress("evaluation") as show:
        result = run(
            generated, reference, seed=seed, threshold=threshold * 1e-3, classifiers=classifier, log_weight=w0,
            progress=show,
        )  # fmt: skip
        if report_path is not None:
            from calograd.reports.evaluation import write_report

            write_report(report_path, result, show)
    print_notes(result.warnings, "warning")
    for table in result.tables():
        print_table(*table)
    return result.to_dict()


@command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@option("--energies", type=NUMBERS,
        help="Incident energies, GeV. [1,10,50,100; for surrogates of points energies drawn evenly from their "
        "range]")  # fmt: skip
@option("--showers", type=COUNT, help="Geant4 showers at each energy and repetition. [as many as take two seconds]")
@option("--repeats", default=5, type=COUNT, help="Repetitions of every measurement.")
@option("--no-geant4", is_flag=True, help="Leave Geant4 out.")
@material_option
@window_option
@stack_options
@option("--layers-only", is_flag=True, help="Stacks of plates: energies alone, no points. [points, if MODEL has any]")
@beam_options
@json_option
def benchmark(
    models: tuple[str, ...], energies: tuple[float, ...] | None, showers: int | None, repeats: int, no_geant4: bool,
    material: str | None, cells: tuple[int, int] | None, layers_only: bool, **asked: Any,
) -> dict[str, Any]:  # fmt: skip
    """Time Geant4 and surrogates (default: pbf2-cells) side by side, each on one thread.

    Geant4 runs in its own process, and its start-up is listed separately. A surrogate is timed at batch 1 and at its
    best batch; one that is not distilled is also timed with every sampler. Results are medians with the extremes.

    \b
    Examples:
      calograd benchmark
      calograd benchmark --energies 10,100 --json out.json pbf2-cells runs/mine
      calograd benchmark siw-cloud siw-cloud-cm
      calograd benchmark runs/mine --cells 5 5 --particle e- --position uniform --theta 0:40 --phi 0:360
      calograd benchmark sampling-fast --absorber Pb --active lAr --absorber-thickness 0.2 --active-thickness 0.4 \\
        --layers 40 --particle e- --layers-only

    Surrogates of stacks of plates are timed in one stack, by default that in the middle of the trained range. Geant4
    sums the energies of its plates, and records deposits as well if MODEL generates points, which --layers-only leaves
    out.
    """
    if energies is not None and len(set(energies)) != len(energies):
        raise InputError(f"--energies {','.join(f'{e:g}' for e in energies)}: expected different energies")
    from calograd.detector.material import Material
    from calograd.evaluation import timing
    from calograd.surrogate import Surrogate

    surrogates = [Surrogate.load(model) for model in models or ("pbf2-cells",)]
    given, stack = {name: asked[name] for name in BEAM if asked[name] is not None}, None
    if any(asked[name] is not None for name in STACK):
        from calograd.geant4.probe import find_material

        stack = stack_of(asked, find_material, "a stack of plates")
    workload = timing.Workload(None if material is None else Material.parse(material), cells, given, stack, layers_only)
    with errors_name_options("material", "cells", *BEAM):
        timing.refuse_different(surrogates, workload)
        for surrogate in surrogates:
            workload.check(surrogate)
    environment, note = (None, "left out (--no-geant4)")
    if not no_geant4:
        environment, note = timing.find_geant4(surrogates[0], workload)
    with progress("benchmark") as show:
        result = timing.benchmark(
            surrogates, energies, environment, repeats=repeats, showers=showers, note=note, workload=workload,
            progress=show,
        )  # fmt: skip
    _print(result)
    return result.to_dict()


def _print(result: Benchmark) -> None:
    from calograd.evaluation.timing import short

    m = result.machine
    rows: list[list[str]] = []
    for t in result.geant4.timings if result.geant4 else ():
        rows.append(["Geant4", "-", t.energy_text, "-", str(t.processor), short(t.clock.median), ""])
    for t in result.surrogates:
        ratio, how = result.ratio(t), f"{t.sampler}, {t.shape_evaluations} + {t.evaluations}"
        rows.append([t.who, how, t.energy_text, str(t.batch), str(t.processor), short(t.clock.median),
                     "-" if ratio is None else short(ratio)])  # fmt: skip
    title = f"{m['processor']} ({m['vectors']}, {m['cores']} cores), one thread, torch {m['torch']}"
    print_table(
        "; ".join(filter(None, (title, result.workload.describe()))),
        ["", "sampler, evaluations", "GeV", "batch", "ms per shower, processor", "clock", "Geant4 / surrogate"], rows,
    )  # fmt: skip
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
