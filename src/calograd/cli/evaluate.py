"""``calograd evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from calograd.cli.common import JSON_OPTION, console, print_table, progress, stages, write_json
from calograd.showers.hdf5 import refuse_existing

if TYPE_CHECKING:
    from calograd.evaluation.evaluate import Evaluation


@click.command()
@click.argument("generated", type=click.Path(path_type=Path))
@click.argument("reference", type=click.Path(path_type=Path))
@JSON_OPTION
@click.option(
    "--report", "report_path", type=click.Path(path_type=Path, dir_okay=False),
    help="Write a report with figures, one HTML file that needs no network.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of bootstraps and classifiers.")
@click.option(
    "--threshold", default=1.0, show_default=True, type=click.FloatRange(min=0, min_open=True),
    help="Readout threshold of a cell in MeV.",
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
    """Compare generated showers with Geant4's at every design and energy that both cells files hold.

    \b
    Example:
      calograd evaluate generated.h5 reference.h5 --json out.json --report report.html
    """
    for output in (json_path, report_path):
        if output is not None:
            refuse_existing(output)
    from calograd.evaluation.evaluate import evaluate as run
    from calograd.showers.cells import read_cells

    ours, theirs = read_cells(generated), read_cells(reference)
    with progress() as bar:
        tell = stages(bar)

        result = run(ours, theirs, seed=seed, threshold=threshold * 1e-3, classifiers=classifier, progress=tell)
        names = {"generated": str(generated), "reference": str(reference)}
        write_json(json_path, {"files": names} | result.to_dict())
        if report_path is not None:
            from calograd.evaluation.report import write_report

            write_report(report_path, result, names, tell)
    for warning in result.warnings:
        console.print(f"warning: {warning}", markup=False)
    _summarise(result, f"{generated.name} against {reference.name}")


def _summarise(result: Evaluation, title: str) -> None:
    from calograd.evaluation.limits import tally

    if result.separability:
        print_table(
            f"{title}: classifiers, all energies together (95 % interval)",
            ["where", "features", "threshold", "classifier", "AUC", "Geant4 halves"],
            [
                (s.where, s.features, f"{1e3 * s.threshold:g} MeV" if s.threshold else "none", s.classifier,
                 *(f"{auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f})" for auc in (s.auc, s.floor)))
                for s in result.separability
            ],
        )  # fmt: skip
    print_table(
        f"{title}: {len(result.points)} points, {result.verdict}",
        ["limits on", "passed", "perfect would", "beyond statistics", "worst", "at"],
        [
            (
                t.kind, f"{t.passed} of {t.checked}", f"{t.expected:.0f}", t.significant,
                f"{t.worst.value:+.3g} +- {t.worst.error:.1g}", f"{t.worst.subject}, {t.worst.where}",
            )
            for t in tally(result.checks, merge_subjects=True)
        ],
    )  # fmt: skip
