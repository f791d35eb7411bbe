"""Reports on a training: validation losses and the physics of generated showers, on showers that are never trained on.

Every observable is compared with Geant4's in `BINS` bins of the incident energy, with equal numbers of showers:

    bias    100 (mean / mean of Geant4 - 1), per cent, with its standard error
    spread  standard deviation / that of Geant4
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor

from calograd.events.dense import MAPS
from calograd.events.layered_readout import read_out
from calograd.events.point_showers import PointShowers
from calograd.events.points import Points
from calograd.metrics.observables import observe
from calograd.surrogate.model import DesignModel, Options
from calograd.surrogate.plates.model import PlatesModel
from calograd.surrogate.points.model import PointsModel
from calograd.system.random_numbers import RandomNumbers
from calograd.training.data.plate_points import features_of_points
from calograd.training.data.plates import PlatesData, StackRows, layers_of
from calograd.training.data.points import PointsData
from calograd.training.data.rows import MAX_ROWS, Rows, TrainingData

BINS = 3
"""Bins of the incident energy."""
GENERATED = 1000
"""Most showers that are generated at once."""
MAX_SHOWERS = 200
"""Most held-out showers of points that a report looks at."""
MAX_LAYERS = 512
"""Layers whose points' loss a report looks at."""

Losses = Callable[[DesignModel, Tensor, Tensor, Tensor, RandomNumbers], tuple[Tensor, Tensor]]
"""Losses of shape and pattern of a model, given x, y, conditions and random numbers, see `DesignModel.losses`."""
Report = dict[str, Any]
"""Plain data: ``validation_loss``, and ``bias``, ``error``, ``spread`` by observable, a value for every energy bin."""


@torch.no_grad()
def report_rows(model: DesignModel, data: TrainingData, losses: Losses) -> Report:
    """Return validation loss and physics of a surrogate of designs on at most `MAX_ROWS` validation rows."""
    generator = torch.Generator().manual_seed(0)  # the same noise in every report
    device = model.condition_mean.device
    rows = data.validation_sample(generator)
    cells, energy = rows.cells.to(device), rows.energy.to(device)
    conditions = data.conditions(model, rows)
    random = RandomNumbers.from_generator(generator, len(rows))
    x, y = model.standardise(cells, energy, conditions, random)
    most, loss = model.most_rows, 0.0
    for start in range(0, len(x), most):
        part = slice(start, start + most)
        shape, pattern = losses(model, x[part], y[part], conditions[part], random.rows(part))
        loss += float(shape.mean() + pattern.mean()) * (len(shape) / len(x))
    schedule, random = model.sampling_schedule(), RandomNumbers.from_generator(generator, len(x))
    parts = [slice(start, start + min(GENERATED, most)) for start in range(0, len(x), min(GENERATED, most))]
    made = torch.cat([model.generate(conditions[p], energy[p], schedule, random.rows(p)) for p in parts]).cpu()
    ours, theirs = _design_observables(made, rows), _design_observables(rows.cells, rows)
    return {"validation_loss": loss} | compare(ours, theirs, rows.energy, data.held_out)


@torch.no_grad()
def report_points(model: PointsModel, data: PointsData) -> Report:
    """Return validation losses and physics of a surrogate of points on at most `MAX_SHOWERS` validation showers.

    A distilled surrogate has no denoising losses; its ``validation_loss`` is None.
    """
    generator, device, rows = torch.Generator().manual_seed(0), model.unit.device, data.validation
    chosen = torch.randperm(len(rows), generator=generator)[:MAX_SHOWERS]
    energy = rows.energy[chosen].to(device)
    losses = {}
    if not model.distilled:
        random = RandomNumbers.from_generator(generator, len(chosen))
        x = model.standardise(rows.features.at(chosen).to(device), energy, random)
        losses["shower"] = float(model.shower_loss(x, energy, random).mean())
        losses["points"] = _point_loss(model, data, generator)
    loss = sum(losses.values()) if losses else None
    clouds = rows.clouds.rows(chosen.numpy())
    random = RandomNumbers.from_generator(generator, len(energy))
    made = model.generate(model.conditions(energy), energy, model.sampling_schedule(), random)
    ours, theirs = _point_observables(made.numpy("surrogate", {})), _point_observables(clouds)
    if clouds.hits is not None:
        theirs["N_hits"] = torch.from_numpy(clouds.hits.astype(np.float64))
    physics = compare(ours, theirs, torch.from_numpy(clouds.energy), len(clouds))
    return {"validation_loss": loss, "losses": losses} | physics


@torch.no_grad()
def report_plates(model: PlatesModel, data: PlatesData, losses: Callable[..., tuple[Tensor, Tensor]]) -> Report:
    """Return validation losses and physics of a surrogate of plates on at most `MAX_ROWS` validation showers.

    ``losses`` takes the model and the arguments of `PlatesModel.losses`.
    """
    generator, device = torch.Generator().manual_seed(0), model.condition_mean.device
    rows = data.validation.at(torch.randperm(len(data.validation), generator=generator)[:MAX_ROWS]).to(device)
    conditions, random = data.conditions(model, rows), RandomNumbers.from_generator(generator, len(rows))
    g, c, _ = model.encode(rows.energies, conditions, rows.energy, random)
    x, y = model.standardise(g, c, conditions, rows.energy)
    shower, layers = (float(each.mean()) for each in losses(model, x, y, conditions, rows.energy, random))
    random = RandomNumbers.from_generator(generator, len(rows))
    schedule = model.sampling_schedule()._replace(options=Options(layers_only=True))
    made = model.generate(conditions, rows.energy, schedule, random)
    ours = _plate_observables(torch.stack([made.absorbed_energies(), made.layer_energies()], -1), rows)
    physics = compare(ours, _plate_observables(rows.energies, rows), rows.energy.cpu(), len(rows))
    return {"validation_loss": shower + layers, "losses": {"shower": shower, "layers": layers}} | physics


@torch.no_grad()
def report_plate_points(
    model: PlatesModel, data: PlatesData, feature_loss: Callable[..., Tensor], point_loss: Callable[..., Tensor]
) -> Report:
    """Return validation losses and physics of points in plates on at most `MAX_SHOWERS` validation showers.

    Showers are generated in the stacks of Geant4's, from the incident energy on. Positions are those across the
    particle's line.

    Args:
        model: a surrogate with points.
        data: showers with points.
        feature_loss: returns the loss of features of (stage, features, layers, random numbers).
        point_loss: returns the loss of points of (stage, points, features, layers, generator).
    """
    generator, device, known = torch.Generator().manual_seed(0), model.condition_mean.device, data.validation_points
    assert known is not None
    chosen = torch.randperm(len(data.validation), generator=generator)[:MAX_SHOWERS]
    rows, points = data.validation.at(chosen).to(device), known.rows(chosen)
    random = RandomNumbers.from_generator(generator, len(rows))
    stage, layers_known = model.points, layers_of(model, data, rows, random)
    assert stage is not None
    features = features_of_points(stage, points.to(device), layers_known)
    losses = {
        "features": float(feature_loss(stage, features, layers_known, random).mean()),
        "points": float(point_loss(stage, points.to(device), features, layers_known, generator).mean()),
    }
    random = RandomNumbers.from_generator(generator, len(rows))
    made = model.generate(data.conditions(model, rows), rows.energy, model.sampling_schedule(), random)
    assert isinstance(made, Points)
    energy, layers = rows.energy.cpu(), model.architecture.layers
    columns = (points.x, points.y, points.layer, points.e, points.offsets)
    seen = [made.numpy("surrogate", {}), Points(*columns, energy, layers).numpy("geant4", {})]
    ours, theirs = (
        _point_observables(clouds) | {"points": torch.from_numpy(clouds.counts.astype(np.float64))} for clouds in seen
    )
    theirs["N_hits"] = points.hits.double()
    physics = compare(ours, theirs, energy, len(rows))
    return {"validation_loss": sum(losses.values()), "losses": losses} | physics


def compare(ours: dict[str, Tensor], theirs: dict[str, Tensor], energy: Tensor, showers: int) -> Report:
    """Return ``bias``, ``error`` and ``spread`` of observables; None stands for what is undefined.

    Args:
        ours, theirs: values by observable, shape (n,), of generated and of Geant4's showers at the same energies and
            designs; NaN for a shower without energy.
        energy: incident energies, shape (n,), GeV.
        showers: number of distinct showers. Rows of one shower at several designs are far from independent.
    """
    report: dict[str, dict[str, list[float | None]]] = {
        kind: {name: [] for name in ours} for kind in ("bias", "error", "spread")
    }
    for rows in torch.tensor_split(torch.argsort(energy, stable=True), BINS):
        for name in ours:
            a, g = ours[name][rows], theirs[name][rows]
            defined = a.isfinite() & g.isfinite()
            a, g = a[defined], g[defined]
            values = (
                100 * float(a.mean() / g.mean() - 1),
                100 * float((a - g).std() / min(len(a), showers / BINS) ** 0.5 / g.mean()),
                float(a.std() / g.std()),
            )
            for kind, value in zip(report, values, strict=True):
                report[kind][name].append(round(value, 4) if isfinite(value) else None)
    return dict(report)


def _design_observables(measured: Tensor, rows: Rows) -> dict[str, Tensor]:
    """Return observables of cells or maps in units of the cell, so that designs can be averaged, shape (n,) each."""
    if measured.ndim == len(MAPS.axes):  # a map is a shower of one cell in y
        found = observe(measured[:, :, None], 1.0, torch.ones(measured.shape[2]))
        aspect = (rows.dx.double() / rows.dz.double().mean(1))[found.kept]  # pixels are of the window, not square
        radius, across = (found.sigma_x**2 * aspect**2 + found.sigma_z**2).sqrt(), found.sigma_x
    else:
        found = observe(measured, 1.0, torch.ones(measured.shape[3]))
        radius, across = found.R_E, found.sigma_y
    own = {
        "E_tot": found.E_tot / rows.energy[found.kept], "R_E": radius, "sigma_y": across, "z_mean": found.z_mean,
        "z_width": found.sigma_z,
    }  # fmt: skip
    empty = torch.full((len(measured),), float("nan"), dtype=torch.float64)
    return {name: empty.masked_scatter(found.kept, values) for name, values in own.items()}


def _point_observables(clouds: PointShowers) -> dict[str, Tensor]:
    """Return observables of the hits above the threshold, shape (n,) each; radius and depth are energy-weighted."""
    hits, n = read_out(clouds), len(clouds)
    total = np.bincount(hits.owner, hits.e, n)
    weight = np.where(total > 0, total, np.nan)
    own = {
        "E_vis/E": total / clouds.energy,
        "N_hits": np.bincount(hits.owner, minlength=n).astype(np.float64),
        "radius": np.bincount(hits.owner, hits.e * np.hypot(hits.x, hits.y), n) / weight,
        "depth": np.bincount(hits.owner, hits.e * hits.layer, n) / weight,
    }
    return {name: torch.from_numpy(values) for name, values in own.items()}


def _plate_observables(energies: Tensor, rows: StackRows) -> dict[str, Tensor]:
    """Return observables of showers in stacks of their own, shape (n,) each; depths are in layers.

    Args:
        energies: of absorber and active plate of every layer, shape (n, layers, 2), GeV.
        rows: the showers.
    """
    layers, place = energies.double().sum(-1), torch.arange(energies.shape[1], device=energies.device).double()
    total, visible = layers.sum(1), energies[..., 1].double().sum(1)
    mean = (layers * place).sum(1) / total
    width = (layers * (place - mean[:, None]).square()).sum(1).div(total).sqrt()
    thickness = rows.thickness.double()
    own = {
        "E_dep": total / rows.energy, "E_vis": visible / total / (thickness[..., 1].sum(1) / thickness.sum((1, 2))),
        "z_mean": mean, "z_width": width,
    }  # fmt: skip
    return {name: values.cpu() for name, values in own.items()}


def _point_loss(model: PointsModel, data: PointsData, generator: torch.Generator) -> float:
    """Return the mean denoising loss of the points of some layers."""
    rows, layers, device = data.validation, model.architecture.layers, model.unit.device
    z, group, place = rows.groups(torch.randint(len(rows.place), (MAX_LAYERS,), generator=generator))
    shower, layer = place // layers, place % layers
    context = model.context(rows.features.at(shower).to(device), rows.energy[shower].to(device))
    own = context[torch.arange(len(layer)), layer.to(device)]
    random = RandomNumbers.from_generator(generator, len(z))
    return float(model.point_loss(z.to(device), own, group.to(device), random).mean())
