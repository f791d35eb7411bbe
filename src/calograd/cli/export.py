"""``calograd export``."""

from __future__ import annotations

from pathlib import Path

import click

from calograd.cli.common import JSON_OPTION, output_option, print_table, progress, write_json
from calograd.io.hdf5 import refuse_existing


@click.command()
@click.argument("model")
@click.option(
    "--sampler",
    help="trigflow-ab2, ddim, heun or dpmpp-2m: the one inside sampler.onnx. [the surrogate's own]",
)
@click.option("--steps", type=int, help="Of the sampler. [each has its own]")
@output_option("The folder of the ONNX files")
@JSON_OPTION
def export(model: str, sampler: str | None, steps: int | None, output: Path, json_path: Path | None) -> None:
    """Write a surrogate as ONNX files, for C++ and other programs without PyTorch.

    sampler.onnx makes cells in GeV of energy, sizes and unit normal noise; shape.onnx, pattern.onnx and decoder.onnx
    are its parts, for samplers of one's own. Each is compared with PyTorch through ONNX Runtime before it is written.

    \b
    Examples:
      calograd export pbf2-cells -o exported
      calograd export pbwo4 --steps 6 -o exported     an adapted surrogate, with fewer steps
    """
    for path in (output, json_path):
        refuse_existing(path)
    from calograd.export.write import export as write
    from calograd.surrogate import Surrogate

    surrogate = Surrogate.load(model)
    with progress() as bar:
        task = bar.add_task("files", total=None)
        written = write(
            surrogate, output, sampler=sampler, steps=steps,
            report=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    rows = [
        [w.path.name, "; ".join(map(str, w.part.inputs)), w.part.output, f"{w.size / 1e6:.1f}", f"{w.difference:.1g}"]
        for w in written
    ]
    print_table(
        f"{output}: {surrogate.card.name} as ONNX", ["file", "inputs", "output", "MB", "largest difference"], rows
    )
    result = [
        {"path": str(w.path), "inputs": list(map(str, w.part.inputs)), "output": str(w.part.output), "bytes": w.size,
         "largest_difference": w.difference, "rounding_of_pytorch": w.rounding} for w in written
    ]  # fmt: skip
    write_json(json_path, {"model": surrogate.card.name, "files": result})
