"""``calograd demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from calograd.cli.common import JSON_OPTION, Command, console, output_option, print_table, write_json
from calograd.cli.progress import progress
from calograd.system.extras import require

if TYPE_CHECKING:
    from calograd.demo.chain import DemoResult

REPORT = "report.html"


@click.command(cls=Command)
@output_option("New folder of all files", folder=True, default="demo")
@click.option("--quick", is_flag=True, help="Only check that everything runs, in less than a minute.")
@JSON_OPTION
def demo(output: Path, quick: bool, json_path: Path | None) -> None:
    """Run the whole chain on bundled data and write one report.

    The chain samples, evaluates against Geant4, times, trains, adapts to another crystal and follows gradients.

    Takes about three minutes on two cores. Geant4 is timed where geant4-pybind and its tables are found.

    \b
    Example:
      calograd demo -o demo
    """
    from calograd.demo import chain

    require("the demo", "report")
    from calograd.demo.page import write_page
    from calograd.evaluation.timing import find_geant4
    from calograd.surrogate import Surrogate

    surrogate = Surrogate.load(chain.MODEL)
    showers = chain.BundledShowers.bundled()
    with progress("demo") as show:
        result = chain.run(
            output, surrogate, showers, chain.QUICK if quick else chain.FULL,
            student=Surrogate.load(chain.STUDENT), geant4=find_geant4(surrogate),
            progress=show,
        )  # fmt: skip
        write_page(output / REPORT, result, show)
    _summarise(result)
    console.print(f"report: {(output / REPORT).absolute()}", soft_wrap=True)
    head = result.headline()
    write_json(
        json_path,
        {"report": str(output / REPORT), "seconds": result.seconds, "verdict": result.evaluation.verdict,
         "worst_bias_of_E_tot": head.bias, "ms_per_shower": head.best.processor.median},
    )  # fmt: skip


def _summarise(result: DemoResult) -> None:
    from calograd.demo.page import adaptation_rows
    from calograd.evaluation.timing import short

    s = result.study
    e, head, first, last = result.evaluation, result.headline(), result.log[0], result.log[-1]
    faster = ", ".join(f"{short(ratio)} at {energy:g} GeV" for ratio, energy in head.ratios)
    losses = f"{first['validation_loss']:.3f} to {last['validation_loss']:.3f}"
    rows = [
        ("showers compared", f"{len(e.generated)} generated, {len(e.reference)} of Geant4, {len(e.points)} points"),
        ("worst bias of E_tot", f"{100 * head.bias:+.2f} +- {100 * head.error:.2f} % at {head.where}"),
        ("limits", e.verdict),
        ("ms per shower, one thread", f"{head.best.processor}, {head.best.who} in batches of {head.best.batch}"),
        (f"Geant4 / {head.best.who}", faster or result.benchmark.note),
        ("from scratch", f"{last['step']} steps, validation loss {losses}"),
        (
            f"adapted to {result.adaptation.material}",
            f"by {result.adaptation.showers} showers, rms bias of "
            + ", ".join(
                f"{row['name']} {row['before']:.2f} to {row['after']:.2f} %" for row in adaptation_rows(result)[:3]
            ),
        ),
        (
            "gradients beside Geant4's",
            ", ".join(
                f"{c.name} {c.ratio:.2f} +- {c.ratio_error:.2f} at {e:g} GeV"
                for e, g in zip(s.energies, s.gradients, strict=True)
                for c in g.components
            ),
        ),
        (
            "optimisation",
            f"{len(s.state.history)} steps: {_sizes(s.state.history[0].y)} to {_sizes(s.state.y)} cm",
        ),
        ("seconds", ", ".join(f"{stage} {t:.0f}" for stage, t in result.seconds.items())),
    ]
    print_table("demo", ("", ""), rows)


def _sizes(y: tuple[float, ...]) -> str:
    return " x ".join(f"{value:.2f}" for value in y)
