"""The figure of a training: losses, biases and spreads against steps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from calograd.io.files import write_whole
from calograd.reports.style import GEANT4, KEPT, SURROGATE, png
from calograd.training.log import read_log

ALLOWED = (0.9, 1.1)
"""Range of spreads over Geant4's that is marked."""


def plot_log(run: Path, output: Path) -> None:
    """Draw the log of the run in the folder ``run`` at its highest energies."""
    write_whole(output, png(lambda: draw_training(read_log(run)), dpi=110))


def draw_training(lines: Sequence[dict[str, Any]], third: int = -1) -> Figure:
    """Draw losses, biases with their errors at the last report, and spreads against steps.

    Args:
        lines: lines of the log.
        third: energies of biases and spreads: 0 for the lowest third, -1 for the highest.
    """
    steps = np.cumsum([0, *(b["step"] - a["step"] if a["phase"] == b["phase"] else b["step"] for a, b in
                            pairwise(lines))]) + lines[0]["step"]  # fmt: skip
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    loss, bias, spread = figure.subplots(1, 3)
    for name, label, colour in (("train_loss", "training", GEANT4), ("validation_loss", "held out", SURROGATE)):
        loss.plot(steps, np.array([line[name] for line in lines], dtype=float), color=colour, label=label)
    loss.set_ylabel("denoising loss")
    loss.legend()
    reach = 1.0
    names = dict.fromkeys(name for line in lines for name in line["bias"])  # phases differ in what they report
    for number, name in enumerate(names):
        values, errors, ratios = (
            np.array([line[what][name][third] if name in line[what] else np.nan for line in lines], dtype=float)
            for what in ("bias", "error", "spread")
        )
        (drawn,) = bias.plot(steps, values, lw=1.2, label=name)
        bias.errorbar(steps[-1] * (1.03 + 0.02 * number), values[-1], errors[-1], fmt="o", ms=2.5, lw=0.9,
                      color=drawn.get_color())  # fmt: skip
        spread.plot(steps, ratios, lw=1.2, color=drawn.get_color())
        reach = max(reach, 1.3 * float(np.nan_to_num(np.abs(values[len(lines) // 2 :])).max()))
    where = "lowest" if third == 0 else "highest"
    bias.axhline(0, color="0.55", lw=0.7)
    bias.set_ylabel(f"bias of the mean, {where} energies [%]")
    bias.set_ylim(-reach, reach)  # of the later half: first biases are large
    bias.legend(fontsize=7, ncols=2)
    spread.axhspan(*ALLOWED, color=KEPT, lw=0)
    spread.axhline(1, color="0.55", lw=0.7)
    spread.set_ylabel(f"spread over Geant4's, {where} energies")
    spread.set_ylim(0.6, 1.6)
    for axes in (loss, bias, spread):
        axes.set_xlabel("step")
        axes.set_xlim(0, steps[-1] * 1.14)
    return figure
