"""``calograd adapt``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import TaskID

from calograd.cli.common import JSON_OPTION, console, print_table, progress, write_json
from calograd.errors import InputError
from calograd.io.hdf5 import refuse_existing

if TYPE_CHECKING:
    from calograd.training.adaptation.adapt import Outcome
    from calograd.training.adaptation.state import AdaptConfig

METHODS = ("lora", "bitfit", "full", "scratch")


@click.command()
@click.argument("model")
@click.option(
    "--data", "files", required=True, multiple=True, type=click.Path(path_type=Path),
    help="Cells file of the new detector; may be repeated.",
)  # fmt: skip
@click.option("--method", type=click.Choice(METHODS), default="lora", show_default=True)
@click.option("--showers", type=int, help="Use this many distinct showers, drawn by the seed. [all]")
@click.option("--validation", default=0.1, show_default=True, help="Share of the showers to hold out.")
@click.option("--balanced", is_flag=True, help="Let every energy count alike, however many showers have it.")
@click.option("--rank", type=int, help="Of lora. [8]")
@click.option("--alpha", type=float, help="Of lora; alpha / rank scales the change. [16]")
@click.option("--targets", help="Layers to change: names or patterns, separated by commas. [all]")
@click.option("--start", type=click.Path(path_type=Path),
              help="Begin with this adapter of MODEL, of the same method, rank, alpha and targets.")  # fmt: skip
@click.option("--range", "range_", type=click.Choice(["data", "base"]), default="data", show_default=True,
              help="What the result accepts: designs and energies of the data, or all of the base's.")  # fmt: skip
@click.option("--steps", type=int, help="Of the diffusion, at most. [by method]")
@click.option("--learning-rate", type=float, help="[by method]")
@click.option("--batch", type=int, help="Rows a step of the diffusion. [256]")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Fixes everything drawn.")
@click.option("--threads", default=0, help="CPU threads. [all cores]")
@click.option("--device", default="cpu", show_default=True, help="Any torch device.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@JSON_OPTION
def adapt(
    model: str, files: tuple[Path, ...], showers: int | None, validation: float, start: Path | None, threads: int,
    device: str, output: Path, json_path: Path | None, **options: Any,
) -> None:  # fmt: skip
    """Adapt a surrogate to another detector from few of its showers.

    MODEL is a bundled name or a folder that 'calograd train' or 'adapt' wrote; it stays as it is. The same command
    resumes a run that was interrupted.

    \b
    Examples:
      calograd adapt pbf2-cells --data pbwo4-cells.h5 --method lora --showers 1000 -o pbwo4
      calograd adapt pbf2-cells --data pbwo4-cells.h5 --data more.h5 --start pbwo4 -o pbwo4-more
      calograd sample pbwo4 --cell 2.5 6 --energy 50 -n 2000 -o generated.h5
    """
    refuse_existing(json_path)
    for name, least in (("showers", 1), ("threads", 0)):
        value = {"showers": showers, "threads": threads}[name]
        if value is not None and value < least:
            raise InputError(f"--{name} is {value}, expected at least {least}")
    if not 0 < validation < 1:
        raise InputError(f"--validation is {validation:g}, expected a share between 0 and 1")
    import torch

    from calograd.surrogate import Adapter, load_designs
    from calograd.training.adaptation.adapt import adapt as run
    from calograd.training.data.rows import load_data

    config = _config(options)
    if threads:
        torch.set_num_threads(threads)
    base = load_designs(model, device)
    first = Adapter.load(start) if start else None
    data = load_data(list(files), validation, config.seed, showers)
    console.print(
        f"{data.showers} showers of {data.material.name}, {data.held_out} of them held out: {len(data.train)} rows to "
        f"learn from, {len(data.validation)} to validate on"
    )
    with progress() as bar:
        tasks: dict[str, TaskID] = {}

        def on_progress(phase: str, step: int, steps: int, loss: float) -> None:
            if phase not in tasks:
                tasks[phase] = bar.add_task(phase, total=steps)
            bar.update(tasks[phase], completed=step, description=f"{phase}: loss {loss:.4f}")

        outcome = run(base, config, data, output, start=first, progress=on_progress)
    _print_summary(outcome, config.method, base.card.name)
    write_json(json_path, outcome.to_dict() | {"output": str(output), "method": config.method})
    console.print(f"adapted surrogate in {output}: use it as MODEL")


def _config(options: dict[str, Any]) -> AdaptConfig:
    """The configuration from the options that were given. Raises `InputError` naming an option that does not fit."""
    from pydantic import ValidationError

    from calograd.training.adaptation.state import AdaptConfig

    given = {name.rstrip("_"): value for name, value in options.items() if value is not None}
    if "targets" in given:
        given["targets"] = tuple(word.strip() for word in given["targets"].split(",") if word.strip())
    method = given["method"]
    for name in ("rank", "alpha"):
        if name in given and method != "lora":
            raise InputError(f"--{name} belongs to --method lora, not to {method}")
    if "targets" in given and method == "scratch":
        raise InputError("--targets and --method scratch exclude each other: from scratch everything is learnt")
    try:
        return AdaptConfig.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"--{str(first['loc'][0]).replace('_', '-')}: {first['msg']}") from error


def _print_summary(outcome: Outcome, method: str, base: str) -> None:
    """What every phase and the physics came to."""
    name = outcome.surrogate.card.name
    print_table(
        f"{name}: {method} of {base}, {outcome.learnt} numbers learnt, {outcome.size / 1e6:.2f} MB, "
        f"{outcome.seconds:.0f} s",
        ["held-out loss", "before", "after", "at step", "of"],
        [[p.name, f"{p.before:.4f}", f"{p.after:.4f}", p.best_step, p.steps] for p in outcome.phases],
    )
    rows = []
    for when, physics in outcome.physics.items():
        for observable, bias in physics["bias"].items():
            errors, spreads = physics["error"][observable], physics["spread"][observable]
            biases = [f"{_text(b, '+.2f')} +- {_text(e, '.2f')} %" for b, e in zip(bias, errors, strict=True)]
            rows.append([observable, when, *biases, *(_text(s, ".3f") for s in spreads)])
    order = list(outcome.physics["after"]["bias"])
    print_table(
        f"{name}: held-out showers",
        ["observable", "", "bias, low E", "middle", "high E", "spread ratio, low E", "middle", "high E"],
        sorted(rows, key=lambda row: order.index(row[0])),
    )


def _text(value: float | None, form: str) -> str:
    return "undefined" if value is None else format(value, form)
