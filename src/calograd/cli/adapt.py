"""``calograd adapt``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from calograd.cli.common import (
    COUNT,
    DEVICE_OPTION,
    JSON_OPTION,
    POSITIVE,
    SEED_OPTION,
    THREADS_OPTION,
    Command,
    Finite,
    console,
    output_option,
    print_table,
    text_of,
    use_threads,
    write_json,
)
from calograd.cli.progress import progress
from calograd.errors import InputError

if TYPE_CHECKING:
    from calograd.training.config import AdaptConfig
    from calograd.training.tasks.adapt import Outcome

METHODS = ("lora", "bitfit", "full", "scratch")


@click.command(cls=Command)
@click.argument("model")
@click.option(
    "--data", "files", required=True, multiple=True, type=click.Path(path_type=Path),
    help="Cells file of the new detector; may be repeated.",
)  # fmt: skip
@click.option("--method", type=click.Choice(METHODS), default="lora", show_default=True,
              help="Low-rank changes, biases alone, all weights, or all weights from a random start.")  # fmt: skip
@click.option("--showers", type=COUNT, help="Number of distinct showers used, drawn by the seed. [all]")
@click.option(
    "--validation",
    default=0.1,
    show_default=True,
    type=Finite(min=0, max=1, min_open=True, max_open=True),
    help="Share of the showers held out.",
)
@click.option("--balanced", is_flag=True, help="Give every energy the same weight, however many showers it has.")
@click.option("--rank", type=COUNT, help="Rank of lora. [8]")
@click.option("--alpha", type=POSITIVE, help="Scale of lora: changes are multiplied by alpha / rank. [16]")
@click.option("--targets", help="Layers that change: names or patterns, separated by commas. [all]")
@click.option("--start", type=click.Path(path_type=Path),
              help="Start from this adapter of MODEL, with the same method, rank, alpha and targets.")  # fmt: skip
@click.option("--range", "range_", type=click.Choice(["data", "base"]), default="data", show_default=True,
              help="Range of the result: designs and energies of the data, or all those of MODEL.")  # fmt: skip
@click.option("--steps", type=COUNT, help="Most training steps of the diffusion. [depends on the method]")
@click.option("--learning-rate", type=POSITIVE, help="Learning rate. [depends on the method]")
@click.option("--batch", type=COUNT, help="Rows of a training step. [256]")
@SEED_OPTION
@THREADS_OPTION
@DEVICE_OPTION
@output_option("Folder of the run", folder=True, resumes=True)
@JSON_OPTION
def adapt(
    model: str, files: tuple[Path, ...], showers: int | None, validation: float, start: Path | None, threads: int,
    device: str, output: Path, json_path: Path | None, **options: Any,
) -> None:  # fmt: skip
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
    from calograd.training.data.rows import load_data
    from calograd.training.tasks.adapt import adapt as run

    config = _config(options)
    use_threads(threads)
    base = Surrogate.load(model, device)
    first = Adapter.load(start) if start else None
    data = load_data(list(files), validation, config.seed, showers)
    console.print(
        f"{data.showers} showers of {data.material.name}, {data.held_out} of them held out: {len(data.train)} rows to "
        f"learn from, {len(data.validation)} to validate on"
    )
    with progress("adaptation") as show:

        def on_progress(phase: str, step: int, steps: int, loss: float) -> None:
            show(phase, step, steps, f"loss {loss:.4f}")

        outcome = run(base, config, data, output, start=first, progress=on_progress)
    _print_summary(outcome, config.method, base.card.name)
    write_json(json_path, outcome.to_dict() | {"output": str(output), "method": config.method})
    console.print(f"adapted surrogate in {output}: use it as MODEL")


def _config(options: dict[str, Any]) -> AdaptConfig:
    """The configuration from the options that were given. Raises `InputError` naming an option that does not fit."""
    from pydantic import ValidationError

    from calograd.training.config import AdaptConfig

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
    """Print the result of every phase and of the physics."""
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
            biases = [f"{text_of(b, '+.2f')} +- {text_of(e, '.2f')} %" for b, e in zip(bias, errors, strict=True)]
            rows.append([observable, when, *biases, *(text_of(s, ".3f") for s in spreads)])
    order = list(outcome.physics["after"]["bias"])
    print_table(
        f"{name}: held-out showers",
        ["observable", "", "bias, low E", "middle", "high E", "spread ratio, low E", "middle", "high E"],
        sorted(rows, key=lambda row: order.index(row[0])),
    )
