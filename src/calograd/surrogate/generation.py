"""Files of showers from a surrogate: any mixture of designs and energies, reproducible from a seed."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from calograd._version import __version__
from calograd.detector.design import Design
from calograd.detector.material import Material
from calograd.errors import InputError
from calograd.surrogate.model import Options, Rows, SamplingSchedule
from calograd.surrogate.randomness import RandomNumbers
from calograd.surrogate.surrogate import Surrogate
from calograd.system.progress import Progress, silent


def generate(
    surrogate: Surrogate,
    energy: np.ndarray,
    dx: np.ndarray | None = None,
    dz: np.ndarray | None = None,
    *,
    material: Material | None = None,
    seed: int = 0,
    sampler: str | None = None,
    steps: int | None = None,
    extrapolate: bool = False,
    guidance: float = 0.0,
    progress: Progress = silent,
) -> Any:
    """Generate one shower for every row of energies and designs, in the order of the rows.

    Everything is checked before the first shower is made.

    Args:
        surrogate: what generates.
        energy: incident energy, shape (n,), GeV.
        dx: cell pitch, shape (n,), cm; None for a surrogate of one detector.
        dz: depth of every layer, shape (n, n_z), cm; None for a surrogate of one detector.
        material: of the calorimeter; None: the one that the surrogate was trained on.
        seed: of all random numbers; with the same rows it gives the same showers.
        sampler, steps: see `Surrogate.sample`.
        extrapolate: warn instead of refusing outside the trained range.
        guidance: w of classifier-free guidance, see `Surrogate.sample`.
        progress: called with showers done and their number.

    Returns:
        The record of the surrogate's kind: `Cells`, `Maps` or points, ready to be written.

    Raises:
        RangeError: a design, material or energy outside the trained range.
        InputError: no material though several were trained on, no rows, rows that are not positive numbers, designs
            for a surrogate of one detector, a sampler that is unknown or not the surrogate's, no steps, or guidance
            that was not learnt.
    """
    model, options = surrogate.model, Options(guidance=guidance)
    schedule = model.sampling_schedule(sampler, steps)
    rows = _rows(surrogate, energy, dx, dz, material)
    surrogate.card.check_range(_design(surrogate, rows), torch.from_numpy(rows.energy), extrapolate)
    surrogate.check_options(schedule, options)
    random, order, parts = RandomNumbers(torch.Generator().manual_seed(seed)), _order(rows), []
    for start in range(0, len(order), model.batch_size):
        chosen = order[start : start + model.batch_size]
        parts.append(_batch(surrogate, rows.at(chosen), schedule, random, options))
        progress(start + len(chosen), len(order))
    showers = model.join(parts)
    if surrogate.card.takes_design:
        showers = showers[torch.from_numpy(np.argsort(order))]
    config = _config(surrogate, schedule, seed, extrapolate, guidance)
    return model.record(showers, rows, surrogate.card.name, config)


def _rows(
    surrogate: Surrogate, energy: np.ndarray, dx: np.ndarray | None, dz: np.ndarray | None, material: Material | None
) -> Rows:
    """Return the rows that are asked for in float32. Raises `InputError` unless they are positive numbers."""
    card = surrogate.card
    if (dx is None) != (dz is None) or (dx is None) == card.takes_design:
        wanted = "a pitch and depths for every row" if card.takes_design else "energies alone, it is of one detector"
        raise InputError(f"rows of designs: {card.name} takes {wanted}")
    columns = [np.asarray(energy)] if dx is None or dz is None else [dx, dz, np.asarray(energy)]
    table = np.column_stack(columns).astype(np.float32)
    if len(table) < 1:
        raise InputError("no rows; expected at least 1 shower")
    if not (np.isfinite(table).all() and (table > 0).all()):
        row = int(np.argmax(~(np.isfinite(table) & (table > 0)).all(1)))
        *sizes, incident = table[row].tolist()
        designs = f", dx and dz = {sizes} cm" if sizes else ""
        raise InputError(f"row {row}: energy = {incident:g} GeV{designs}; expected positive numbers")
    if not card.takes_design:
        return Rows(table[:, 0])
    return Rows(table[:, -1], table[:, 0], table[:, 1:-1], card.designs.material if material is None else material)


def _order(rows: Rows) -> np.ndarray:
    """Return the order in which rows are generated: equal designs and energies together, so that they share work."""
    if rows.dx is None or rows.dz is None:
        return np.arange(len(rows.energy))
    return np.lexsort(np.column_stack([rows.dx, rows.dz, rows.energy]).T)


def _batch(
    surrogate: Surrogate, rows: Rows, schedule: SamplingSchedule, random: RandomNumbers, options: Options
) -> Any:
    """Generate the showers of some rows."""
    model, n = surrogate.model, len(rows.energy)
    if rows.dx is not None and rows.dz is not None:
        equal = all((column == column[0]).all() for column in (rows.energy, rows.dx, rows.dz))
        rows = rows.at(slice(1)) if equal else rows
    with torch.inference_mode():
        energy = torch.from_numpy(rows.energy.copy()).to(model.condition_mean)
        conditions = model.condition(_design(surrogate, rows), energy)
        return model.fused().generate(conditions, energy, n, schedule, random, options)


def _design(surrogate: Surrogate, rows: Rows) -> Design | None:
    """Return the designs of rows, one a shower."""
    if rows.dx is None or rows.dz is None or rows.material is None:
        return None
    dx, dz = (torch.from_numpy(np.ascontiguousarray(column)) for column in (rows.dx, rows.dz))
    return Design(dx, dz, rows.material, int(surrogate.card.architecture["n_xy"]), dz.shape[1])


def _config(
    surrogate: Surrogate, schedule: SamplingSchedule, seed: int, extrapolate: bool, guidance: float
) -> dict[str, Any]:
    """Return what made the showers, as plain data."""
    card = surrogate.card
    return {
        "model": card.name,
        **card.trained.provenance(),
        "training": card.training.get("done", {}),
        **schedule._asdict(),
        "seed": seed,
        "extrapolate": extrapolate,
        **({"guidance": guidance} if guidance else {}),
        "versions": {
            "calograd": __version__, "python": platform.python_version(),
            "torch": version("torch"), "numpy": version("numpy"),
        },
    }  # fmt: skip
