"""The figure of a training: losses, biases and spreads against steps."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from calograd.io.files import write_whole
from calograd.training.log import read_log


def plot_log(run: Path, output: Path) -> None:
    """Draw the log of the run in the folder ``run``; do nothing where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    lines = read_log(run)
    steps = _steps(lines)

    def column(what: str, name: str) -> np.ndarray:
        """Return a quantity at the highest energies by report; NaN stands for what is undefined."""
        return np.array([line[what][name][-1] for line in lines], dtype=float)

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    loss, bias, spread = figure.subplots(1, 3)
    for name, label in (("train_loss", "training (weights)"), ("validation_loss", "validation (EMA)")):
        loss.plot(steps, np.array([line[name] for line in lines], dtype=float), label=label)
    loss.set_ylabel("denoising loss")
    loss.legend(frameon=False)
    for number, name in enumerate(lines[-1]["bias"]):
        bias.errorbar(
            steps, column("bias", name), column("error", name), label=name, color=f"C{number}", capsize=2
        )  # fmt: skip
        spread.plot(steps, column("spread", name), label=name, color=f"C{number}")
    bias.axhline(0, color="k", lw=0.8)
    bias.set_ylim(-5, 5)
    bias.set_ylabel("bias of the mean, highest energies, %")
    bias.legend(frameon=False, fontsize=8)
    spread.axhspan(0.9, 1.1, color="k", alpha=0.08)
    spread.set_ylim(0.6, 1.6)
    spread.set_ylabel("spread / Geant4, highest energies")
    for axes in (loss, bias, spread):
        axes.set_xlabel("step")
        axes.tick_params(direction="in", top=True, right=True)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    write_whole(output, content.getvalue())


def _steps(lines: list[dict[str, Any]]) -> list[int]:
    """Return the step of every report, counted over the phases that have reports."""
    steps, before = [], 0
    for number, line in enumerate(lines):
        if number and line["phase"] != lines[number - 1]["phase"]:
            before += lines[number - 1]["step"]
        steps.append(before + line["step"])
    return steps
