"""A look at a surrogate of a layered detector in training: losses and mean physics of showers held out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import numpy as np
import torch

from calograd.events.layered_readout import read_out
from calograd.events.point_showers import PointShowers
from calograd.surrogate.model import Model
from calograd.surrogate.points.model import PointsModel
from calograd.surrogate.randomness import RandomNumbers
from calograd.training.data.points import PointsData

MAX_SHOWERS = 200
GROUPS = 512
"""Layers whose points' loss is looked at."""


@dataclass(frozen=True)
class CloudReport:
    """What was seen at a step.

    ``losses`` of held-out showers are of what the kind of surrogate learns. ``bias`` (per cent of Geant4's mean) and
    ``spread`` (ratio of the deviations) are of E_vis / E, the number of hits, the mean radius of the hits
    (energy-weighted) and the mean layer.
    """

    phase: str
    step: int
    seconds: float
    train_loss: float
    losses: dict[str, float]
    bias: dict[str, float]
    spread: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain data; None for what is undefined."""
        plain = asdict(self)
        for name in ("bias", "spread"):
            plain[name] = {key: value if isfinite(value) else None for key, value in plain[name].items()}
        return plain


def look(model: PointsModel, data: PointsData, phase: str, step: int, train_loss: float, seconds: float) -> CloudReport:
    """Losses and physics of ``model`` on validation showers; points are made as the architecture says."""
    generator, device = torch.Generator().manual_seed(0), model.unit.device
    rows = data.validation
    chosen = some_of(len(rows), generator)
    energy = rows.energy[chosen].to(device)
    losses = {}
    if not model.architecture.distilled:
        with torch.no_grad():
            x = model.standardise(rows.features.at(chosen).to(device), energy, generator)
            losses["shower"] = float(model.shower_loss(x, energy, generator).mean())
            losses["points"] = _point_loss(model, data, generator)
    bias, spread = physics_of(model, rows.clouds.rows(chosen.numpy()), generator)
    return CloudReport(phase, step, round(seconds, 1), train_loss, losses, bias, spread)


def some_of(n: int, generator: torch.Generator) -> torch.Tensor:
    """Numbers of the validation showers that are looked at, of n."""
    return torch.randperm(n, generator=generator)[:MAX_SHOWERS]


def physics_of(
    model: Model, clouds: PointShowers, generator: torch.Generator
) -> tuple[dict[str, float], dict[str, float]]:
    """Bias in per cent and ratio of spreads of showers that ``model`` makes at the energies of Geant4's ``clouds``."""
    with torch.no_grad():
        energy = torch.from_numpy(clouds.energy).to(model.condition_mean)
        conditions, random = model.condition(None, energy), RandomNumbers(generator)
        made = model.generate(conditions, energy, len(energy), model.sampling_schedule(), random)
    ours, theirs = _physics(made.numpy("surrogate", {})), _physics(clouds)
    if clouds.hits is not None:
        theirs["N_hits"] = clouds.hits.astype(np.float64)
    bias = {name: round(100 * float(ours[name].mean() / theirs[name].mean() - 1), 3) for name in ours}
    return bias, {name: round(float(ours[name].std() / theirs[name].std()), 4) for name in ours}


def _point_loss(model: PointsModel, data: PointsData, generator: torch.Generator) -> float:
    rows, layers = data.validation, model.architecture.layers
    chosen = torch.randint(len(rows.place), (GROUPS,), generator=generator)
    z, group, place = rows.groups(chosen)
    shower, layer = place // layers, place % layers
    device = model.unit.device
    context = model.context(rows.features.at(shower).to(device), rows.energy[shower].to(device))
    own = context[torch.arange(len(layer)), layer.to(device)]
    return float(model.point_loss(z.to(device), own, group.to(device), generator).mean())


def _physics(clouds: PointShowers) -> dict[str, np.ndarray]:
    """Per shower, of the hits above the threshold."""
    hits, n = read_out(clouds), len(clouds)
    total = np.maximum(np.bincount(hits.owner, hits.e, n), 1e-12)
    return {
        "E_vis/E": total / clouds.energy,
        "N_hits": np.bincount(hits.owner, minlength=n).astype(np.float64),
        "radius": np.bincount(hits.owner, hits.e * np.hypot(hits.x, hits.y), n) / total,
        "depth": np.bincount(hits.owner, hits.e * hits.layer, n) / total,
    }
