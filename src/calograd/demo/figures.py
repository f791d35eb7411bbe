"""Figures of the demo's training and adaptation."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from calograd.demo.adaptation import Biases
from calograd.evaluation.limits import CELL_LIMITS
from calograd.evaluation.matching import Sizes
from calograd.reports.style import GEANT4, KEPT, LABELS, SURROGATE

SHOWN = ("E_tot", "R_E", "sigma_y", "z_mean", "sigma_z")
LOGGED = ("E_tot", "R_E", "sigma_y", "z_mean", "z_width")
"""Names of the same observables in the training's log, where lengths are in units of the cell."""
COLOURS = (GEANT4, SURROGATE, "#2f6f9f", "#6a9a3b", "#8a5aa8")


def draw_training(log: list[dict[str, Any]]) -> Figure:
    """Draw losses, biases and spreads at the lowest energies, where most is to be learnt, against steps."""
    steps = [line["step"] for line in log]
    figure = Figure(figsize=(10.6, 3.1))
    loss, bias, spread = figure.subplots(1, 3, gridspec_kw={"wspace": 0.3})
    loss.plot(steps, [line["train_loss"] for line in log], color=GEANT4, label="training")
    loss.plot(steps, [line["validation_loss"] for line in log], color=SURROGATE, label="held out")
    loss.set_ylabel("denoising loss")
    loss.legend()
    for number, (name, logged, colour) in enumerate(zip(SHOWN, LOGGED, COLOURS, strict=True)):
        values, errors, ratios = (
            np.array([line[what][logged][0] for line in log], dtype=float) for what in ("bias", "error", "spread")
        )
        bias.plot(steps, values, color=colour, lw=1.2, label=LABELS[name])
        beside = steps[-1] * (1.03 + 0.02 * number)
        bias.errorbar(beside, values[-1], errors[-1], fmt="o", ms=2.5, lw=0.9, color=colour)
        spread.plot(steps, ratios, color=colour, lw=1.2)
    bias.axhline(0, color="0.55", lw=0.7)
    bias.set_ylabel("bias of the mean [%]")
    bias.legend(fontsize=7, ncols=2)
    assert CELL_LIMITS.sigma_ratio is not None
    spread.axhspan(*CELL_LIMITS.sigma_ratio, color=KEPT, lw=0)
    spread.axhline(1, color="0.55", lw=0.7)
    spread.set_ylabel(r"$\sigma$ ratio")
    for axes in (loss, bias, spread):
        axes.set_xlabel("step")
        axes.set_xlim(0, steps[-1] * 1.14)
    return figure


def draw_biases(biases: dict[str, Biases], design: Sizes) -> Figure:
    """Draw biases of two surrogates, named as in the legend, against energy at one design."""
    figure = Figure(figsize=(10.6, 2.6))
    panels = figure.subplots(1, 3, gridspec_kw={"wspace": 0.3})
    for axes, name in zip(panels, ("E_tot", "R_E", "sigma_z"), strict=True):
        for (who, found), colour in zip(biases.items(), (GEANT4, SURROGATE), strict=True):
            at = {p.energy: value[name] for p, value in found.items() if p.design == design}
            values = 100 * np.array(list(at.values()))
            axes.errorbar(list(at), values[:, 0], values[:, 1], fmt="o", ms=3.4, lw=0.9, color=colour, label=who)
        axes.axhline(0, color="0.55", lw=0.7)
        axes.set_ylabel(f"bias of {LABELS[name]} [%]")
        axes.set_xlabel("incident energy [GeV]")
    panels[0].legend()
    return figure
