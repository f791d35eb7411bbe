"""The figure of a training: losses, biases and spreads against steps."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from calograd.io.files import write_whole
from calograd.training.log import read_log


def plot_log(run: Path, output: Path) -> None:
    """Draw the log of the run in the folder ``run``; does nothing where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    lines = read_log(run)
    steps = [line["step"] for line in lines]

    def column(what: str, name: str) -> np.ndarray:
        """At the highest energies, by report; what is undefined is NaN."""
        return np.array([line[what][name][-1] for line in lines], dtype=float)

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    loss, bias, spread = figure.subplots(1, 3)
    loss.plot(steps, [line["train_loss"] for line in lines], label="training (weights)")
    loss.plot(steps, [line["validation_loss"] for line in lines], label="validation (EMA)")
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
