"""``calograd demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from calograd.cli.common import command, console, json_option, option, output_option, print_table
from calograd.cli.progress import progress
from calograd.system.extras import require

if TYPE_CHECKING:
    from calograd.demo.chain import DemoResult

REPORT = "report.html"


@command()
@output_option("New folder of all files", folder=True, default="demo")
@option("--quick", is_flag=True, help="Only check that everything runs, in less than a minute.")
@json_option
def demo(output: Path, quick: bool) -> dict[str, Any]:
    """Run the whole chain on bundled data and write one report.

    The chain samples, evaluates against Geant4, on and off the axis and in a stack of plates, times, trains, adapts to
    another crystal and follows gradients.

    Takes some twenty minutes on two cores. Geant4 is timed where geant4-pybind and its tables are found.

    \b
    Example:
      calograd demo -o demo
    """
    from calograd.demo import chain

    require("the demo", "report")
    from calograd.demo.page import write_page

    with progress("demo") as show:
        result = chain.run(
            output, chain.Models.bundled(), chain.BundledShowers.bundled(), chain.QUICK if quick else chain.FULL,
            progress=show,
        )  # fmt: skip
        write_page(output / REPORT, result, show)
    print_table("demo", ("", ""), _rows(result))
    console.print(f"report: {(output / REPORT).absolute()}", soft_wrap=True)
    head = result.headline()
    return {
        "report": str(output / REPORT), "seconds": result.seconds, "verdict": result.evaluation.verdict,
        "worst_bias_of_E_tot": head.bias, "ms_per_shower": head.best.processor.median,
    }  # fmt: skip


def _rows(result: DemoResult) -> list[tuple[str, str]]:
    """Return the results of all stages in words."""
    from calograd.demo.page import adaptation_rows
    from calograd.evaluation.timing import short
    from calograd.metrics.resolution import rounded

    e, study, head, first, last = result.evaluation, result.study, result.headline(), result.log[0], result.log[-1]
    faster = ", ".join(f"{short(ratio)} at {energy:g} GeV" for ratio, energy in head.ratios)
    adapted = adaptation_rows(result)[:3]
    biases = ", ".join(f"{row['name']} {row['before']:.2f} to {row['after']:.2f} %" for row in adapted)
    losses = f"{first['validation_loss']:.3f} to {last['validation_loss']:.3f}"
    ratios = ", ".join(
        f"{c.name} {c.ratio:.2f} +- {c.ratio_error:.2f} at {energy:g} GeV"
        for energy, check in zip(study.energies, study.gradients, strict=True)
        for c in check.components
    )
    resolution = result.stack.gradient.checks[-1].common
    slopes = ", ".join(
        f"{c.name} {rounded(c.surrogate, c.surrogate_error)} (Geant4 {rounded(c.geant4, c.geant4_error)})"
        for c in resolution.components
    )
    start, end = (" x ".join(f"{v:.2f}" for v in y) for y in (study.state.history[0].y, study.state.y))
    return [
        ("showers compared", f"{len(e.generated)} generated, {len(e.reference)} of Geant4, {len(e.points)} points"),
        ("worst bias of E_tot", f"{100 * head.bias:+.2f} +- {100 * head.error:.2f} % at {head.where}"),
        ("limits", e.verdict),
        ("off the axis", f"{result.anywhere.generated.origin}: {result.anywhere.verdict}"),
        ("plates", f"{result.plates.generated.origin}: {result.plates.verdict}"),
        ("d ln(sigma/E) / d ln t there", slopes),
        ("ms per shower, one thread", f"{head.best.processor}, {head.best.who} in batches of {head.best.batch}"),
        (f"Geant4 / {head.best.who}", faster or result.benchmark.note),
        ("from scratch", f"{last['step']} steps, validation loss {losses}"),
        (f"adapted to {result.adaptation.material}", f"by {result.adaptation.showers} showers, rms bias of {biases}"),
        ("gradients beside Geant4's", ratios),
        ("optimisation", f"{len(study.state.history)} steps: {start} to {end} cm"),
        ("seconds", ", ".join(f"{stage} {t:.0f}" for stage, t in result.seconds.items())),
    ]  # fmt: skip
