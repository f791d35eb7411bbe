"""``calograd evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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
from calograd.errors import InputError
from calograd.system.extras import require

if TYPE_CHECKING:
    from calograd.evaluation.evaluate import Evaluation
    from calograd.evaluation.maps import MapsEvaluation
    from calograd.events.maps import Maps


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
    from calograd.io.hdf5 import schema_of, shard_files

    if classifier:
        require("a classifier test (leave it out with --no-classifier)", "report", "sklearn")
    if report_path is not None:
        require("--report", "report", "jinja2", "matplotlib")
    schema = schema_of(shard_files(generated)[0]) or ""
    if schema.startswith("calograd/clouds/"):
        _evaluate_clouds(generated, reference, json_path, report_path, seed, classifier)
        return
    from calograd.evaluation.evaluate import evaluate as run
    from calograd.events.maps import Maps
    from calograd.events.shards import read_shards

    ours, theirs = read_shards(generated), read_shards(reference)
    names = {"generated": str(generated), "reference": str(reference)}
    title = f"{generated.name} against {reference.name}"
    if isinstance(ours, Maps) or isinstance(theirs, Maps):
        if not (isinstance(ours, Maps) and isinstance(theirs, Maps)):
            raise InputError(f"{title}: one holds cells, the other maps; expected two of a kind")
        _evaluate_maps(ours, theirs, seed, names, title, json_path, report_path)
        return
    with progress("evaluation") as show:
        result = run(ours, theirs, seed=seed, threshold=threshold * 1e-3, classifiers=classifier, progress=show)
        write_json(json_path, {"files": names} | result.to_dict())
        if report_path is not None:
            from calograd.reports.cells import write_report

            write_report(report_path, result, names, show)
    print_notes(result.warnings, "warning")
    _summarise(result, title)


def _evaluate_maps(
    ours: Maps,
    theirs: Maps,
    seed: int,
    names: dict[str, str],
    title: str,
    json_path: Path | None,
    report_path: Path | None,
) -> None:
    from calograd.evaluation.maps import evaluate_maps

    with progress("evaluation") as show:
        result = evaluate_maps(ours, theirs, seed=seed, progress=show)
    write_json(json_path, {"files": names} | result.to_dict())
    if report_path is not None:
        from calograd.reports.maps import write_maps_report

        write_maps_report(report_path, result, names)
    print_notes(result.warnings, "warning")
    _summarise_maps(result, title)


def _summarise_maps(result: MapsEvaluation, title: str) -> None:
    from calograd.evaluation.maps import BIAS_LIMITS

    rows = []
    for p in result.points:
        chosen = [p.quantities[name] for name in BIAS_LIMITS]
        biases = [f"{100 * q.bias:+.2f} +- {100 * q.bias_error:.2f}" for q in chosen]
        rrmse = [f"{100 * q.rrmse:.2f} ({100 * q.rrmse_floor:.2f})" for q in chosen]
        rows.append([str(p.point), *biases, *(f"{q.sigma_ratio:.3f}" for q in chosen), *rrmse])
    print_table(
        f"{title}: maps, {len(result.points)} points, {result.verdict}",
        ["point", *(f"{name} bias, %" for name in BIAS_LIMITS), *(f"{name} spread" for name in BIAS_LIMITS),
         *(f"{name} RRMSE (floor), %" for name in BIAS_LIMITS)],
        rows,
    )  # fmt: skip


def _evaluate_clouds(
    generated: Path, reference: Path, json_path: Path | None, report_path: Path | None, seed: int, classifier: bool
) -> None:
    """Compare points of a layered detector."""
    from calograd.evaluation.points import BATCHES, evaluate_clouds
    from calograd.events.clouds import read_clouds

    ours, theirs = read_clouds(generated), read_clouds(reference)
    with progress("evaluation") as show:
        result = evaluate_clouds(ours, theirs, seed=seed, classifiers=classifier, progress=show)
    names = {"generated": str(generated), "reference": str(reference)}
    write_json(json_path, {"files": names} | result.to_dict())
    if report_path is not None:
        from calograd.reports.points import write_cloud_report

        write_cloud_report(report_path, result, ours, theirs, names)
    print_notes(result.warnings, "warning")
    batches, whole = f"{BATCHES} batches of {result.batch}", f"all {len(result.reference)}"
    print_table(
        f"{generated.name} against {reference.name}: W1 in 10^-2",
        ["observable", batches, "floor", whole, "floor", "ratio"],
        [(s.name, f"{s.value:.2f} +- {s.error:.2f}", f"{s.floor:.2f} +- {s.floor_error:.2f}", f"{s.whole:.2f}",
          f"{s.whole_floor:.2f}", f"{s.over_floor:.1f}") for s in result.scores],
    )  # fmt: skip
    if result.comparisons:
        print_table(
            "Means and spreads over Geant4's", ["energy, GeV", "quantity", "showers", "mean", "spread"],
            [(f"{c.energy:g}", c.name, f"{c.showers[0]} / {c.showers[1]}", f"{c.mean_ratio:.4f} +- {c.mean_error:.4f}",
              f"{c.spread_ratio:.3f} +- {c.spread_error:.3f}") for c in result.comparisons],
        )  # fmt: skip
    if result.told:
        print_table(
            "Classifiers (95 % interval)", ["features", "classifier", "AUC", "Geant4 halves"],
            [(t.features, t.classifier, *(f"{a.value:.3f} ({a.low:.3f} to {a.high:.3f})" for a in (t.auc, t.floor)))
             for t in result.told],
        )  # fmt: skip


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
