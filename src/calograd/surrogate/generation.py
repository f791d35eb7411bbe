"""Files of showers from a surrogate: any mixture of designs and energies, reproducible from a seed."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from calograd._version import __version__
from calograd.detector.design import Design
from calograd.detector.material import Material
from calograd.errors import InputError
from calograd.events.cells import Cells
from calograd.events.clouds import Clouds
from calograd.events.maps import Maps
from calograd.surrogate import BATCH, Surrogate
from calograd.surrogate.base import numbers_of
from calograd.surrogate.points.surrogate import BATCH as CLOUD_BATCH
from calograd.surrogate.points.surrogate import CloudSurrogate, join
from calograd.surrogate.schedule import Walk

Report = Callable[[int, int], None]
"""Called with showers done and their number."""


def generate(
    surrogate: Surrogate,
    energy: np.ndarray,
    dx: np.ndarray,
    dz: np.ndarray,
    *,
    material: Material | None = None,
    seed: int = 0,
    sampler: str | None = None,
    steps: int | None = None,
    extrapolate: bool = False,
    guidance: float = 0.0,
    report: Report = lambda done, total: None,  # noqa: ARG005
) -> Cells | Maps:
    """One shower for every row of designs and energies, in the order of the rows.

    Everything is checked before the first shower is made.

    Args:
        surrogate: what generates.
        energy: incident energy, shape (n,), GeV.
        dx: cell pitch, shape (n,), cm.
        dz: depth of every layer, shape (n, n_z), cm.
        material: of the calorimeter; None: the one that the surrogate was trained on.
        seed: of all random numbers; with the same rows it gives the same showers.
        sampler, steps: see `Surrogate.sample`.
        extrapolate: warn instead of refusing outside the trained range.
        guidance: w of classifier-free guidance, see `Surrogate.sample`.
        report: called with showers done and their number.

    Raises:
        RangeError: a design, material or energy outside the trained range.
        InputError: no material though several were trained on, no rows, rows that are not positive numbers, a
            sampler that is unknown or not the surrogate's, no steps, or guidance that was not learnt.
    """
    table = np.column_stack([dx, dz, energy]).astype(np.float32)
    material = surrogate.card.substance() if material is None else material
    walk = surrogate.model.walk(sampler, steps)
    _check(surrogate, table, material, extrapolate)
    surrogate.check_guidance(guidance)
    model = surrogate.model
    like = model.condition_mean
    measured = np.empty((len(table), *model.shape), dtype=np.float32)
    generator = torch.Generator().manual_seed(seed)
    order = np.lexsort(table.T)
    batch = min(BATCH, model.most_rows)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        part = np.ascontiguousarray(table[rows])
        used = part[:1] if (part == part[0]).all() else part
        pitch, depths, incident = (torch.from_numpy(c).to(like) for c in (used[:, 0], used[:, 1:-1], used[:, -1]))
        with torch.inference_mode():
            conditions = model.conditions(incident, pitch, depths, numbers_of(material, like=like))
            made = model.generate(conditions, incident, len(rows), walk, generator, guidance=guidance)
        measured[rows] = made.cpu().numpy()
        report(start + len(rows), len(table))
    energy, dx, dz, number = table[:, -1], table[:, 0], table[:, 1:-1], np.arange(len(table))
    name, config = surrogate.card.name, _config(surrogate, walk, seed, extrapolate, guidance)
    if surrogate.card.kind == "map32":
        return Maps(measured, energy, dx, dz, model.architecture.n_xy, number, material, name, config)
    return Cells(measured, energy, dx, dz, number, material, name, config)


def generate_clouds(
    surrogate: CloudSurrogate,
    energy: np.ndarray,
    *,
    seed: int = 0,
    sampler: str | None = None,
    steps: int | None = None,
    extrapolate: bool = False,
    report: Report = lambda done, total: None,  # noqa: ARG005
) -> Clouds:
    """One shower of points for every energy (n,), GeV, in their order; other arguments as of `generate`.

    Raises:
        RangeError: an energy outside the trained range.
        InputError: no energies, energies that are not positive numbers, an unknown sampler or no steps.
    """
    if len(energy) < 1:
        raise InputError("no energies; expected at least one")
    incident = torch.from_numpy(np.ascontiguousarray(energy, dtype=np.float32))
    surrogate.check_range(incident, extrapolate)
    generator = torch.Generator().manual_seed(seed)
    parts = []
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said already
        for start in range(0, len(incident), CLOUD_BATCH):
            some = incident[start : start + CLOUD_BATCH]
            parts.append(
                surrogate.sample(some, len(some), generator=generator, sampler=sampler, steps=steps, extrapolate=True)
            )
            report(start + len(some), len(incident))
    walk = surrogate.model.walk(sampler, steps)
    return join(parts).clouds(
        surrogate.card.name,
        {
            "model": surrogate.card.name, "clustering": surrogate.card.clustering,
            "training": surrogate.card.training.get("done", {}), "sampler": walk.sampler,
            "steps": walk.steps, "evaluations": walk.evaluations, "seed": seed, "extrapolate": extrapolate,
            "versions": _versions(),
        },
    )  # fmt: skip


def _check(surrogate: Surrogate, table: np.ndarray, material: Material, extrapolate: bool) -> None:
    """Refuse what cannot be generated."""
    if len(table) < 1:
        raise InputError("no rows; expected at least 1 shower")
    if not (np.isfinite(table).all() and (table > 0).all()):
        row = int(np.argmax(~(np.isfinite(table) & (table > 0)).all(1)))
        *sizes, energy = table[row].tolist()
        raise InputError(f"row {row}: energy = {energy:g} GeV, dx and dz = {sizes} cm; expected positive numbers")
    designs, which = np.unique(table[:, :-1], axis=0, return_inverse=True)
    lowest, highest = np.full(len(designs), np.inf), np.zeros(len(designs))
    np.minimum.at(lowest, which.reshape(-1), table[:, -1])
    np.maximum.at(highest, which.reshape(-1), table[:, -1])
    a = surrogate.model.architecture
    n_z = table.shape[1] - 2
    for number, (dx, *dz) in enumerate(designs.tolist()):
        design = Design(dx, tuple(dz), material, a.n_xy, n_z)
        surrogate.check_range(design, torch.tensor([lowest[number], highest[number]]), extrapolate)


def _config(surrogate: Surrogate, walk: Walk, seed: int, extrapolate: bool, guidance: float) -> dict[str, Any]:
    return {
        "model": surrogate.card.name,
        "mode": surrogate.card.mode,
        "training": surrogate.card.training.get("done", {}),
        **walk._asdict(),
        "seed": seed,
        "extrapolate": extrapolate,
        **({"guidance": guidance} if guidance else {}),
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    """Of what the showers depend on."""
    return {
        "calograd": __version__, "python": platform.python_version(),
        "torch": version("torch"), "numpy": version("numpy"),
    }  # fmt: skip
