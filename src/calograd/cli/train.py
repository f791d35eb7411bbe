"""``calograd train``."""

from __future__ import annotations

from collections.abc import Callable
from math import isnan
from pathlib import Path
from typing import Any

import click

from calograd.cli.common import (
    COUNT,
    DEVICE_OPTION,
    JSON_OPTION,
    Command,
    console,
    output_option,
    print_table,
    text_of,
    write_json,
)
from calograd.cli.progress import progress
from calograd.system.extras import require


@click.command(cls=Command)
@click.argument("config", type=click.Path(path_type=Path))
@output_option("Folder of the run", folder=True, resumes=True)
@DEVICE_OPTION
@click.option("--processes", default=1, show_default=True, type=COUNT,
              help="Processes on this node that train together, each with its own device.")  # fmt: skip
@click.option("--nodes", default=1, show_default=True, type=COUNT,
              help="Nodes that train together; the command runs on each of them.")  # fmt: skip
@click.option("--tensorboard", is_flag=True, help="Also write event files for TensorBoard.")
@JSON_OPTION
def train(
    config: Path, output: Path, device: str, processes: int, nodes: int, tensorboard: bool, json_path: Path | None
) -> None:
    """Train a surrogate as a TOML file describes. The same command resumes a run that was interrupted.

    The key kind of the table [model] chooses what the surrogate generates: cells, maps, or points of a layered
    detector ("cloud").

    Several processes share every batch of cells or maps, and the result is that of one process. This command starts
    them, or runs in each process that torchrun or srun started.

    \b
    Examples:
      calograd train pbf2-cells.toml -o runs/pbf2-cells
      calograd train siw-cloud.toml -o runs/siw-cloud
      calograd train pbf2-cells.toml -o runs/pbf2-cells --device cuda --processes 4
      srun calograd train pbf2-cells.toml -o runs/pbf2-cells --device cuda --processes 4 --nodes 2
    """
    from calograd.reports.training import plot_log
    from calograd.training.config import read_config
    from calograd.training.distributed import check_process_group, leader_reports_interrupt, open_process_group
    from calograd.training.log import read_log
    from calograd.training.train import read_data
    from calograd.training.train import train as run

    settings = read_config(config)
    check_process_group(processes, nodes, device)
    data = read_data(settings)
    group = open_process_group(processes, nodes, device)
    console.quiet = not group.leads
    console.print(str(data))
    write_scalars = _tensorboard(output) if tensorboard and group.leads else None
    with progress("training") as show:

        def on_progress(phase: str, step: int, steps: int, loss: float) -> None:
            show(phase, step, steps, "" if isnan(loss) else f"loss {loss:.4f}")

        def on_report(report: dict[str, Any]) -> None:
            plot_log(output, output / "training.png")
            biases = ", ".join(f"{name} {text_of(values[-1], '+.2f')} %" for name, values in report["bias"].items())
            show.say(
                f"{report['phase']}, step {report['step']}: validation loss "
                f"{text_of(report['validation_loss'], '.4f')}, bias at high E of {biases}"
            )
            if write_scalars is not None:
                losses = {"train": report["train_loss"], "validation": report["validation_loss"]}
                write_scalars(report["step"], {name: loss for name, loss in losses.items() if loss is not None})

        with leader_reports_interrupt(group):
            run(settings, output, data=data, progress=on_progress, on_report=on_report, group=group)
    if not group.leads:
        return
    for last in read_log(output)[-1:]:
        _print_summary(settings.name, last)
        write_json(json_path, last)
    console.print(f"surrogate in {output}")


def _print_summary(name: str, last: dict[str, Any]) -> None:
    """Print the physics of the last report."""
    rows = []
    for observable, bias in last["bias"].items():
        errors, spreads = last["error"][observable], last["spread"][observable]
        biases = [f"{text_of(b, '+.2f')} +- {text_of(e, '.2f')} %" for b, e in zip(bias, errors, strict=True)]
        rows.append([observable, *biases, *(text_of(s, ".3f") for s in spreads)])
    print_table(
        f"{name}: {last['phase']}, step {last['step']}, {last['seconds']:.0f} s, validation loss "
        f"{text_of(last['validation_loss'], '.4f')}",
        ["observable", "bias, low E", "middle", "high E", "spread ratio, low E", "middle", "high E"],
        rows,
    )


def _tensorboard(folder: Path) -> Callable[[int, dict[str, float]], None]:
    """Return a function that writes the losses of a step to event files."""
    require("--tensorboard", "tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(folder)  # type: ignore[no-untyped-call, unused-ignore]

    def write(step: int, losses: dict[str, float]) -> None:
        for name, loss in losses.items():
            writer.add_scalar(f"loss/{name}", loss, step)  # type: ignore[no-untyped-call, unused-ignore]
        writer.flush()  # type: ignore[no-untyped-call, unused-ignore]

    return write
