"""A look at a cloud surrogate in training: held-out losses, and the mean physics on the validation showers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import numpy as np
import torch

from calograd.learning.cloud_data import CloudData
from calograd.showers.clouds import Clouds
from calograd.showers.readout import read_out
from calograd.surrogate.cloud import CloudModel

MAX_SHOWERS = 200
GROUPS = 512
"""Layers whose points' loss is looked at."""


@dataclass(frozen=True)
class CloudReport:
    """What was seen at a step.

    ``point_loss`` is None of a distilled model. ``bias`` (per cent of Geant4's mean) and ``spread`` (ratio of the
    deviations) are of E_vis / E, the number of hits, the mean radius of the hits (energy-weighted) and the mean layer.
    """

    phase: str
    step: int
    seconds: float
    train_loss: float
    shower_loss: float
    point_loss: float | None
    bias: dict[str, float]
    spread: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain data; None for what is undefined."""
        plain = asdict(self)
        for name in ("bias", "spread"):
            plain[name] = {key: value if isfinite(value) else None for key, value in plain[name].items()}
        return plain


def look(model: CloudModel, data: CloudData, phase: str, step: int, train_loss: float, seconds: float) -> CloudReport:
    """Losses and physics of ``model`` on validation showers; points are made as the architecture says."""
    generator, device = torch.Generator().manual_seed(0), model.unit.device
    rows = data.validation
    chosen = torch.randperm(len(rows), generator=generator)[:MAX_SHOWERS]
    energy = rows.energy[chosen].to(device)
    with torch.no_grad():
        x = model.standardise(rows.features.at(chosen).to(device), energy, generator)
        shower_loss = float(model.shower_loss(x, energy, generator).mean())
        point_loss = None if model.architecture.distilled else _point_loss(model, data, generator)
        made = model.generate(energy, generator)
    ours = _physics(made.clouds("surrogate", {}))
    theirs = _physics(rows.clouds.rows(chosen.numpy()))
    bias = {name: round(100 * float(ours[name].mean() / theirs[name].mean() - 1), 3) for name in ours}
    spread = {name: round(float(ours[name].std() / theirs[name].std()), 4) for name in ours}
    return CloudReport(phase, step, round(seconds, 1), train_loss, shower_loss,
                       point_loss, bias, spread)  # fmt: skip


def _point_loss(model: CloudModel, data: CloudData, generator: torch.Generator) -> float:
    rows, layers = data.validation, model.architecture.layers
    chosen = torch.randint(len(rows.place), (GROUPS,), generator=generator)
    z, group, place = rows.groups(chosen)
    shower, layer = place // layers, place % layers
    device = model.unit.device
    context = model.context(rows.features.at(shower).to(device), rows.energy[shower].to(device))
    own = context[torch.arange(len(layer)), layer.to(device)]
    return float(model.point_loss(z.to(device), own, group.to(device), generator).mean())


def _physics(clouds: Clouds) -> dict[str, np.ndarray]:
    """Per shower, of the hits above the threshold."""
    hits, n = read_out(clouds), len(clouds)
    total = np.maximum(np.bincount(hits.shower, hits.e, n), 1e-12)
    return {
        "E_vis/E": total / clouds.energy,
        "N_hits": np.bincount(hits.shower, minlength=n).astype(np.float64),
        "radius": np.bincount(hits.shower, hits.e * np.hypot(hits.x, hits.y), n) / total,
        "depth": np.bincount(hits.shower, hits.e * hits.layer, n) / total,
    }
