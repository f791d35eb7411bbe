"""``calograd train``."""

from __future__ import annotations

from collections.abc import Callable
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import TaskID

from calograd.cli.common import JSON_OPTION, console, print_table, progress, stages, write_json
from calograd.errors import InputError
from calograd.io.hdf5 import refuse_existing
from calograd.system.extras import require

if TYPE_CHECKING:
    from calograd.training.data.points import Source
    from calograd.training.points.config import CloudRunConfig, GridRunConfig


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--device", default="cpu", show_default=True, help="Any torch device.")
@click.option("--processes", default=1, show_default=True, help="That train together on this node, a device each.")
@click.option("--nodes", default=1, show_default=True, help="On which this command runs, with as many processes each.")
@click.option("--tensorboard", is_flag=True, help="Write event files too (extra 'tensorboard').")
@JSON_OPTION
def train(
    config: Path, output: Path, device: str, processes: int, nodes: int, tensorboard: bool, json_path: Path | None
) -> None:
    """Train a surrogate from a TOML file. The same command resumes a run that was interrupted.

    With kind = "cloud" in its table [model] the file is of a surrogate of points, with "grid30" of a baseline on grids;
    see calograd.training.points.config.

    Several processes share every batch of cells or maps and give the result of one; this command starts them, or runs
    in each that torchrun or srun has started.

    \b
    Examples:
      calograd train pbf2-cells.toml -o runs/pbf2-cells
      calograd train siw-cloud.toml -o runs/siw-cloud
      calograd train pbf2-cells.toml -o runs/pbf2-cells --device cuda --processes 4
      srun calograd train pbf2-cells.toml -o runs/pbf2-cells --device cuda --processes 4 --nodes 2
    """
    refuse_existing(json_path)
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
    with progress() as bar:
        tasks: dict[str, TaskID] = {}

        def on_progress(phase: str, step: int, steps: int, loss: float) -> None:
            if phase not in tasks:
                tasks[phase] = bar.add_task(phase, total=steps)
            told = phase if isnan(loss) else f"{phase}: loss {loss:.4f}"
            bar.update(tasks[phase], completed=step, description=told)

        def on_report(report: Report) -> None:
            plot_log(output, output / "training.png")
            bar.console.print(
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


def _train_stack(settings: CloudRunConfig | GridRunConfig, output: Path, device: str, json_path: Path | None) -> None:
    """Train a surrogate of a layered detector."""
    from calograd.training.data.points import load_points, split_points
    from calograd.training.log import read_log
    from calograd.training.points.config import CloudRunConfig
    from calograd.training.points.grids import train_grids
    from calograd.training.points.monitor import CloudReport
    from calograd.training.points.train import train_clouds

    what = settings.data.files, settings.data.validation, settings.range.energy, settings.training.seed
    with progress() as bar:
        tell = stages(bar)

        def on_report(report: CloudReport) -> None:
            biases = ", ".join(f"{name} {value:+.2f} %" for name, value in report.bias.items())
            bar.console.print(f"{report.phase}, step {report.step}: bias of {biases}")

        def on_progress(phase: str, step: int, steps: int, loss: float) -> None:  # noqa: ARG001
            tell(phase, step, steps)

        if isinstance(settings, CloudRunConfig):
            clouds = load_points(*what)
            _say(bar.console, len(clouds.train), len(clouds.validation), clouds.source)
            train_clouds(settings, clouds, output, device=device, on_report=on_report, progress=on_progress)
        else:
            split = split_points(*what)
            _say(bar.console, len(split.train), len(split.validation), split.source)
            train_grids(settings, split, output, device=device, on_report=on_report, progress=on_progress)
    for last in read_log(output)[-1:]:
        print_table(
            f"{settings.name}: {last['seconds']:.0f} s", ["observable", "bias, %", "spread ratio"],
            [(name, _text(bias, "+.2f"), _text(last["spread"][name], ".3f")) for name, bias in last["bias"].items()],
        )  # fmt: skip
        write_json(json_path, last)
    console.print(f"surrogate in {output}")


def _say(to: Console, train: int, validation: int, source: Source) -> None:
    to.print(
        f"{train} showers to train on, {validation} others to validate on; points are {source.clustering}; "
        f"{source.empty} showers without a point left out"
    )


def _print_summary(name: str, last: dict[str, Any]) -> None:
    """The physics at the last report."""
    rows = []
    for observable, bias in last["bias"].items():
        errors, spreads = last["error"][observable], last["spread"][observable]
        biases = [f"{_text(b, '+.2f')} +- {_text(e, '.2f')} %" for b, e in zip(bias, errors, strict=True)]
        rows.append([observable, *biases, *(_text(s, ".3f") for s in spreads)])
    print_table(
        f"{name}: {last['step']} steps in {last['seconds']:.0f} s, validation loss {last['validation_loss']:.4f}",
        ["observable", "bias, low E", "middle", "high E", "spread ratio, low E", "middle", "high E"],
        rows,
    )


def _text(value: float | None, form: str) -> str:
    return "undefined" if value is None else format(value, form)


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
