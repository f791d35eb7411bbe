"""``calograd train``."""

from __future__ import annotations

from pathlib import Path

import click

from calograd.cli.common import JSON_OPTION, console, print_table, progress, write_json


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--device", default="cpu", show_default=True, help="Any torch device.")
@click.option("--tensorboard", is_flag=True, help="Write event files too (extra 'tensorboard').")
@JSON_OPTION
def train(config: Path, output: Path, device: str, tensorboard: bool, json_path: Path | None) -> None:
    """Train a surrogate from a TOML file. The same command resumes a run that was interrupted.

    \b
    Example:
      calograd train pbf2-cells.toml -o runs/pbf2-cells
    """
    from calograd.learning.config import read_config
    from calograd.learning.data import load_data
    from calograd.learning.monitor import Report
    from calograd.learning.plots import plot_log
    from calograd.learning.train import LOG
    from calograd.learning.train import train as run

    settings = read_config(config)
    data = load_data(settings.data.files, settings.data.validation, settings.training.seed)
    console.print(
        f"{data.showers} showers: {len(data.train)} rows to train on, {len(data.validation)} of other showers to "
        f"validate on; {data.empty} rows without energy left out"
    )
    writer = None
    if tensorboard:
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(output)  # type: ignore[no-untyped-call]
    reports: list[Report] = []
    with progress() as bar:
        tasks: dict[str, int] = {}

        def on_progress(phase: str, step: int, steps: int, loss: float) -> None:
            if phase not in tasks:
                tasks[phase] = bar.add_task(phase, total=steps)
            bar.update(tasks[phase], completed=step, description=f"{phase}: loss {loss:.4f}")

        def on_report(report: Report) -> None:
            reports.append(report)
            plot_log(output / LOG, output / "training.png")
            bar.console.print(
                f"step {report.step}: validation {report.validation_loss:.4f}, bias of "
                + ", ".join(f"{name} {value[-1]:+.2f} %" for name, value in report.bias.items())
            )
            if writer is not None:
                writer.add_scalar("loss/train", report.train_loss, report.step)
                writer.add_scalar("loss/validation", report.validation_loss, report.step)

        run(settings, data, output, device=device, progress=on_progress, on_report=on_report)
    if reports:
        last = reports[-1]
        print_table(
            f"{settings.name}: {last.step} steps in {last.seconds:.0f} s, validation loss {last.validation_loss:.4f}",
            ["observable", "bias, low E", "middle", "high E", "spread ratio, low E", "middle", "high E"],
            [
                [name, *(f"{b:+.2f} +- {e:.2f} %" for b, e in zip(last.bias[name], last.error[name], strict=True)),
                 *(f"{s:.3f}" for s in last.spread[name])]
                for name in last.bias
            ],
        )  # fmt: skip
        write_json(json_path, last.to_dict())
    console.print(f"surrogate in {output}")
