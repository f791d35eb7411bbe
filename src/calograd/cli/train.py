"""``calograd train``."""

from __future__ import annotations

from collections.abc import Callable
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from calograd.cli.progress import Display, progress
from calograd.errors import InputError
from calograd.system.extras import require

if TYPE_CHECKING:
    from calograd.training.data.points import Source
    from calograd.training.points.config import CloudRunConfig


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
    from calograd.training.config import RunConfig
    from calograd.training.points.config import read_training

    settings = read_training(config)
    if not isinstance(settings, RunConfig):
        if tensorboard:
            raise InputError("--tensorboard is for surrogates of designs; leave it out")
        if processes * nodes > 1:
            raise InputError("several processes are for cells and maps; leave --processes and --nodes out")
        _train_stack(settings, output, device, json_path)
        return
    from calograd.reports.training import plot_log
    from calograd.training.data.rows import load_data
    from calograd.training.distributed import check_team, one_voice, open_team
    from calograd.training.log import read_log
    from calograd.training.monitor import Report
    from calograd.training.train import train as run

    check_team(processes, nodes, device)
    data = load_data(settings.data.files, settings.data.validation, settings.training.seed, memory=settings.data.memory)
    team = open_team(processes, nodes, device)
    console.quiet = not team.leads
    console.print(
        f"{data.showers} showers: {len(data.train)} rows to train on, {len(data.validation)} of other showers to "
        f"validate on; {data.empty} rows without energy left out{f'; {data.window}' if data.window else ''}"
    )
    write_scalars = _tensorboard(output) if tensorboard and team.leads else None
    with progress("training") as show:

        def on_progress(phase: str, step: int, steps: int, loss: float) -> None:
            show(phase, step, steps, "" if isnan(loss) else f"loss {loss:.4f}")

        def on_report(report: Report) -> None:
            plot_log(output, output / "training.png")
            show.say(
                f"step {report.step}: validation {report.validation_loss:.4f}, bias of "
                + ", ".join(f"{name} {value[-1]:+.2f} %" for name, value in report.bias.items())
            )
            if write_scalars is not None:
                write_scalars(report.step, {"train": report.train_loss, "validation": report.validation_loss})

        with one_voice(team):
            run(settings, data, output, progress=on_progress, on_report=on_report, team=team)
    if not team.leads:
        return
    for last in read_log(output)[-1:]:
        _print_summary(settings.name, last)
        write_json(json_path, last)
    console.print(f"surrogate in {output}")


def _train_stack(settings: CloudRunConfig, output: Path, device: str, json_path: Path | None) -> None:
    """Train a surrogate of a layered detector."""
    from calograd.training.data.points import load_points
    from calograd.training.log import read_log
    from calograd.training.points.monitor import CloudReport
    from calograd.training.points.train import train_clouds

    what = settings.data.files, settings.data.validation, settings.range.energy, settings.training.seed
    with progress("training") as show:

        def on_report(report: CloudReport) -> None:
            biases = ", ".join(f"{name} {value:+.2f} %" for name, value in report.bias.items())
            show.say(f"{report.phase}, step {report.step}: bias of {biases}")

        def on_progress(phase: str, step: int, steps: int, loss: float) -> None:  # noqa: ARG001
            show(phase, step, steps)

        clouds = load_points(*what)
        _say(show, len(clouds.train), len(clouds.validation), clouds.source)
        train_clouds(settings, clouds, output, device=device, on_report=on_report, progress=on_progress)
    for last in read_log(output)[-1:]:
        print_table(
            f"{settings.name}: {last['seconds']:.0f} s", ["observable", "bias, %", "spread ratio"],
            [(name, text_of(bias, "+.2f"), text_of(last["spread"][name], ".3f"))
             for name, bias in last["bias"].items()],
        )  # fmt: skip
        write_json(json_path, last)
    console.print(f"surrogate in {output}")


def _say(show: Display, train: int, validation: int, source: Source) -> None:
    show.say(
        f"{train} showers to train on, {validation} others to validate on; points are {source.clustering}; "
        f"{source.empty} showers without a point left out"
    )


def _print_summary(name: str, last: dict[str, Any]) -> None:
    """The physics at the last report."""
    rows = []
    for observable, bias in last["bias"].items():
        errors, spreads = last["error"][observable], last["spread"][observable]
        biases = [f"{text_of(b, '+.2f')} +- {text_of(e, '.2f')} %" for b, e in zip(bias, errors, strict=True)]
        rows.append([observable, *biases, *(text_of(s, ".3f") for s in spreads)])
    print_table(
        f"{name}: {last['step']} steps in {last['seconds']:.0f} s, validation loss {last['validation_loss']:.4f}",
        ["observable", "bias, low E", "middle", "high E", "spread ratio, low E", "middle", "high E"],
        rows,
    )


def _tensorboard(folder: Path) -> Callable[[int, dict[str, float]], None]:
    """What writes losses at a step to event files."""
    require("--tensorboard", "tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(folder)  # type: ignore[no-untyped-call, unused-ignore]

    def write(step: int, losses: dict[str, float]) -> None:
        for name, loss in losses.items():
            writer.add_scalar(f"loss/{name}", loss, step)  # type: ignore[no-untyped-call, unused-ignore]
        writer.flush()  # type: ignore[no-untyped-call, unused-ignore]

    return write
