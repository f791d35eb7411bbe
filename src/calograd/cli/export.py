"""``calograd export``."""

from __future__ import annotations

from pathlib import Path

import click

from calograd.cli.common import COUNT, JSON_OPTION, Command, output_option, print_table, write_json
from calograd.cli.progress import progress


@click.command(cls=Command)
@click.argument("model")
@click.option(
    "--sampler",
    help="Sampler inside sampler.onnx: trigflow-ab2, ddim, heun or dpmpp-2m. [the surrogate's own]",
)
@click.option("--steps", type=COUNT, help="Steps of the sampler. [each has its own]")
@output_option("New folder of the ONNX files", folder=True)
@JSON_OPTION
def export(model: str, sampler: str | None, steps: int | None, output: Path, json_path: Path | None) -> None:
    """Write a surrogate as ONNX files, for C++ and other programs without PyTorch.

    sampler.onnx turns energy, cell sizes and unit normal noise into cells in GeV. shape.onnx, pattern.onnx and
    decoder.onnx are its parts, for other samplers. ONNX Runtime checks each file against PyTorch before it is written.

    \b
    Examples:
      calograd export pbf2-cells -o exported
      calograd export pbwo4 --steps 6 -o exported     an adapted surrogate, with fewer steps
    """
    from calograd.export.write import export as write
    from calograd.surrogate import Surrogate

    surrogate = Surrogate.load(model)
    with progress("export") as show:
        written = write(surrogate, output, sampler=sampler, steps=steps, progress=show.counter("files"))
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
