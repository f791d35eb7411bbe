"""``calograd train`` and ``calograd adapt``."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from calograd.cli.common import (
    COUNT,
    EXISTING,
    POSITIVE,
    FiniteRange,
    command,
    console,
    device_option,
    errors_name_options,
    json_option,
    option,
    output_option,
    print_table,
    seed_option,
    text_of,
    threads_option,
)
from calograd.cli.progress import progress
from calograd.errors import InputError
from calograd.system.extras import require

if TYPE_CHECKING:
    from calograd.training.config import AdaptConfig

PHYSICS = ("bias, low E", "middle", "high E", "spread ratio, low E", "middle", "high E")
"""Columns of `_physics`."""


@command()
@click.argument("config", type=EXISTING)
@output_option("Folder of the run", folder=True, resumes=True)
@device_option
@option("--processes", default=1, type=COUNT,
        help="Processes on this node that train together, each with its own device.")  # fmt: skip
@option("--nodes", default=1, type=COUNT, help="Nodes that train together; the command runs on each of them.")
@option("--tensorboard", is_flag=True, help="Also write event files for TensorBoard.")
@json_option
def train(
    config: Path, output: Path, device: str, processes: int, nodes: int, tensorboard: bool
) -> dict[str, Any] | None:
    """Train a surrogate as a TOML file describes. The same command resumes a run that was interrupted.

    The key kind of the table [model] chooses what the surrogate generates: cells, maps, points of a layered detector,
    or energies of plates.

    Several processes share every batch of cells or maps, and the result is that of one process. This command starts
    them, or runs in each process that torchrun or srun started.

    \b
    Examples:
      calograd train pbf2-cells.toml -o runs/pbf2-cells
      calograd train siw-cloud.toml -o runs/siw-cloud
      calograd train pbf2-cells.toml -o runs/pbf2-cells --device cuda --processes 4
      srun calograd train pbf2-cells.toml -o runs/pbf2-cells --device cuda --processes 4 --nodes 2
    """
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
            if find_spec("matplotlib") is not None:
                from calograd.reports.training import plot_log

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
        return None
    last = next(iter(read_log(output)[-1:]), None)
    if last is not None:
        print_table(
            f"{settings.name}: {last['phase']}, step {last['step']}, {last['seconds']:.0f} s, validation loss "
            f"{text_of(last['validation_loss'], '.4f')}",
            ["observable", *PHYSICS], [[name, *columns] for name, columns in _physics(last).items()],
        )  # fmt: skip
    console.print(f"surrogate in {output}")
    return last


def _physics(report: dict[str, Any]) -> dict[str, list[str]]:
    """Return biases and spreads of a report in words, by observable."""
    return {
        observable: [
            *(f"{text_of(b, '+.2f')} +- {text_of(e, '.2f')} %" for b, e in
              zip(bias, report["error"][observable], strict=True)),
            *(text_of(spread, ".3f") for spread in report["spread"][observable]),
        ]
        for observable, bias in report["bias"].items()
    }  # fmt: skip


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


@command()
@click.argument("model")
@option("--data", "files", required=True, multiple=True, type=EXISTING,
        help="Cells file of the new detector, or library of plates; may be repeated.")  # fmt: skip
@option("--method", type=click.Choice(("lora", "bitfit", "full", "scratch")), default="lora",
        help="Low-rank changes, biases alone, all weights, or all weights from a random start.")  # fmt: skip
@option("--showers", type=COUNT, help="Number of distinct showers used, drawn by the seed. [all]")
@option("--validation", default=0.1, type=FiniteRange(min=0, max=1, min_open=True, max_open=True),
        help="Share of the showers held out.")  # fmt: skip
@option("--balanced", is_flag=True, help="Give every energy the same weight, however many showers it has.")
@option("--rank", type=COUNT, help="Rank of lora. [8]")
@option("--alpha", type=POSITIVE, help="Scale of lora: changes are multiplied by alpha / rank. [16]")
@option(
    "--targets",
    help="Layers that change: names or patterns, separated by commas. [all; of plates those of the diffusion]",
)
@option("--start", type=EXISTING,
        help="Start from this adapter of MODEL, with the same method, rank, alpha and targets.")  # fmt: skip
@option("--range", type=click.Choice(["data", "base"]), default="data",
        help="Range of the result: designs and energies of the data, or all those of MODEL.")  # fmt: skip
@option("--steps", type=COUNT, help="Most training steps of the diffusion. [depends on the method]")
@option("--learning-rate", type=POSITIVE, help="Learning rate. [depends on the method]")
@option("--batch", type=COUNT, help="Rows of a training step. [256]")
@seed_option
@threads_option
@device_option
@output_option("Folder of the run", folder=True, resumes=True)
@json_option
def adapt(
    model: str, files: tuple[Path, ...], showers: int | None, validation: float, start: Path | None, device: str,
    output: Path, **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """Adapt a surrogate to another detector from few showers of it.

    MODEL is a bundled name, or a folder of 'calograd train' or 'calograd adapt'; it does not change. The same command
    resumes a run that was interrupted.

    \b
    Examples:
      calograd adapt pbf2-cells --data pbwo4-cells.h5 --method lora --showers 1000 -o pbwo4
      calograd adapt pbf2-cells --data pbwo4-cells.h5 --data more.h5 --start pbwo4 -o pbwo4-more
      calograd sample pbwo4 --cell 2.5 6 --energy 50 -n 2000 -o generated.h5
    """
    from calograd.surrogate import Adapter, Surrogate
    from calograd.surrogate.card import TrainedStacks
    from calograd.training.data.plates import PlatesData, load_plates
    from calograd.training.data.rows import TrainingData, load_data
    from calograd.training.tasks.adapt import adapt as run

    config = _config(options)
    base = Surrogate.load(model, device)
    first = Adapter.load(start) if start else None
    data: TrainingData | PlatesData
    if isinstance(base.card.trained, TrainedStacks):
        data = load_plates(files, validation, config.seed, showers)
        console.print(str(data))
    else:
        data = load_data(list(files), validation, config.seed, showers, beams=base.model.takes_particles)
        console.print(
            f"{data.showers} showers of {data.material.name}, {data.held_out} of them held out: {len(data.train)} "
            f"rows to learn from, {len(data.validation)} to validate on"
        )
    with progress("adaptation") as show:

        def on_progress(phase: str, step: int, steps: int, loss: float) -> None:
            show(phase, step, steps, f"loss {loss:.4f}")

        outcome = run(base, config, data, output, start=first, progress=on_progress)
    name = outcome.surrogate.card.name
    print_table(
        f"{name}: {config.method} of {base.card.name}, {outcome.learnt} numbers learnt, {outcome.size / 1e6:.2f} MB, "
        f"{outcome.seconds:.0f} s",
        ["held-out loss", "before", "after", "at step", "of"],
        [[p.name, f"{p.before:.4f}", f"{p.after:.4f}", p.best_step, p.steps] for p in outcome.phases],
    )
    physics = {when: _physics(report) for when, report in outcome.physics.items()}
    print_table(
        f"{name}: held-out showers", ["observable", "", *PHYSICS],
        [[observable, when, *rows[observable]] for observable in physics["after"] for when, rows in physics.items()],
    )  # fmt: skip
    console.print(f"adapted surrogate in {output}: use it as MODEL")
    return outcome.to_dict() | {"output": str(output), "method": config.method}


def _config(options: dict[str, Any]) -> AdaptConfig:
    """Return the configuration from the options. Raises `InputError` naming an option that does not fit."""
    from calograd.training.config import AdaptConfig

    given = {name: value for name, value in options.items() if value is not None}
    method = given["method"]
    for name in ("rank", "alpha"):
        if name in given and method != "lora":
            raise InputError(f"--{name} belongs to --method lora, not to {method}")
    if "targets" in given:
        if method == "scratch":
            raise InputError("--targets and --method scratch exclude each other: from scratch everything is learnt")
        given["targets"] = tuple(word.strip() for word in given["targets"].split(",") if word.strip())
    with errors_name_options():
        return AdaptConfig.model_validate(given)
