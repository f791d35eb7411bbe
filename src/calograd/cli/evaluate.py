"""``calograd evaluate``."""

from __future__ import annotations

from pathlib import Path

import click

from calograd.cli.common import (
    JSON_OPTION,
    POSITIVE,
    REPORT_OPTION,
    SEED_OPTION,
    Command,
    print_notes,
    print_table,
    write_json,
)
from calograd.cli.progress import progress
from calograd.system.extras import require


@click.command(cls=Command)
@click.argument("generated", type=click.Path(path_type=Path))
@click.argument("reference", type=click.Path(path_type=Path))
@JSON_OPTION
@REPORT_OPTION
@SEED_OPTION
@click.option(
    "--threshold", default=1.0, show_default=True, type=POSITIVE, help="Readout threshold of a cell, MeV.",
)  # fmt: skip
@click.option(
    "--classifier/--no-classifier", default=True, show_default=True,
    help="Run the classifier tests, which take most of the time.",
)  # fmt: skip
def evaluate(
    generated: Path,
    reference: Path,
    json_path: Path | None,
    report_path: Path | None,
    seed: int,
    threshold: float,
    classifier: bool,
) -> None:
    """Compare generated showers with Geant4's at every design and energy that both files hold, of cells or of maps.

    \b
    Example:
      calograd evaluate generated.h5 reference.h5 --json out.json --report report.html

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
            generated, reference, seed=seed, threshold=threshold * 1e-3, classifiers=classifier, progress=show
        )  # fmt: skip
        write_json(json_path, result.to_dict())
        if report_path is not None:
            from calograd.reports.evaluation import write_report

            write_report(report_path, result, show)
    print_notes(result.warnings, "warning")
    for table in result.tables():
        print_table(*table)
