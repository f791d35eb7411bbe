"""Records of showers from a surrogate: any mixture of designs and energies, reproducible from a seed."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import torch

from calograd._version import __version__
from calograd.detector.configuration import stack_generator
from calograd.detector.design import Design
from calograd.detector.incidence import ENTRY_CALL, Incidence, place
from calograd.detector.material import Material
from calograd.detector.particles import Particles
from calograd.detector.sampling_stack import SamplingStack, Stacks
from calograd.errors import InputError
from calograd.events.plates import PlateShowers
from calograd.surrogate.card import Card
from calograd.surrogate.model import Options, Rows, SamplingSchedule
from calograd.surrogate.surrogate import Surrogate
from calograd.system.progress import Progress, silent
from calograd.system.random_numbers import RandomNumbers

TAKEN = {
    "cells": "a pitch and depths for every row", "stacks": "a stack of plates for every row",
    None: "energies alone, it is of one detector",
}  # fmt: skip
"""Arguments that every row needs beside an energy, by the kind of the designs."""
EXPECTED = {
    "cells": "showers of designs: cells or maps", "stacks": "showers in stacks of plates",
    None: "points of its detector",
}  # fmt: skip
"""Showers that a surrogate can imitate, by what its designs describe."""


def generate(
    surrogate: Surrogate,
    energy: np.ndarray,
    dx: np.ndarray | None = None,
    dz: np.ndarray | None = None,
    *,
    material: Material | None = None,
    incident: Incidence | None = None,
    n_xy: int | None = None,
    stacks: Stacks | None = None,
    seed: int = 0,
    sampler: str | None = None,
    steps: int | None = None,
    extrapolate: bool = False,
    guidance: float = 0.0,
    layers_only: bool = False,
    progress: Progress = silent,
) -> Any:
    """Generate one shower for every row of energies and designs, in the order of the rows.

    Everything is checked before the first shower is made.

    Args:
        surrogate: surrogate that generates.
        energy: incident energy, shape (n,), GeV.
        dx: cell pitch, shape (n,), cm; None for a surrogate of one detector, or of stacks.
        dz: depth of every layer, shape (n, n_z), cm; None for a surrogate of one detector, or of stacks.
        material: material of cells; None: the one that the surrogate was trained on.
        incident: incident particles of the rows; None: photons on the axis, or the only ones trained on.
        n_xy: cells across; None: as many as the surrogate generates.
        stacks: the stack of every shower, for a surrogate of stacks of plates.
        seed: seed of all random numbers; the shower of row i depends on the row, the seed and i alone.
        sampler, steps: see `Surrogate.sample`.
        extrapolate: warn instead of refusing outside the trained range.
        guidance: w of classifier-free guidance, see `Surrogate.sample`.
        layers_only: generate energies of plates alone, see `Surrogate.sample`.
        progress: called with showers done and their number.

    Returns:
        The record of the surrogate's kind: `Cells`, `Maps`, points or `PlateShowers`, ready to be written.

    Raises:
        RangeError: a design, material or energy outside the trained range.
        InputError: no material though several were trained on, no rows, rows that are not positive numbers, designs
            of another class than the surrogate takes, a sampler that is unknown or not the surrogate's, no steps, or
            an option that the surrogate does not have or needs.
    """
    model = surrogate.model
    options = Options(guidance=guidance, layers_only=layers_only)
    schedule = model.sampling_schedule(sampler, steps)._replace(options=options)
    rows = _rows(surrogate, Rows(np.asarray(energy), dx, dz, material, stacks=stacks))
    if surrogate.model.takes_particles:
        rows = replace(rows, incident=Incidence.of(len(rows.energy)) if incident is None else incident, n_xy=n_xy)
    elif incident is not None:
        surrogate.card.check_incidence(incident, "the request")
    like = torch.from_numpy(rows.energy)
    surrogate.card.check_range(_design(surrogate, rows), like, extrapolate, particles=_particles(rows, like))
    surrogate.check_options(schedule)
    random, order, parts = RandomNumbers(seed, range(len(rows.energy))), _order(rows), []
    for start in range(0, len(order), model.batch_size):
        chosen = order[start : start + model.batch_size]
        parts.append(_batch(surrogate, rows.at(chosen), schedule, random.rows(chosen)))
        progress(start + len(chosen), len(order))
    showers = model.join(parts)
    if surrogate.card.takes_design:
        showers = showers[torch.from_numpy(np.argsort(order))]
    config = _config(surrogate, schedule, seed, extrapolate)
    return model.record(showers, rows, surrogate.card.name, config)


def rows_like(surrogate: Surrogate, showers: Any, repeat: int = 1, name: str = "the file") -> Rows:
    """Return rows with the energies and designs of other showers.

    Args:
        surrogate: the surrogate that generates.
        showers: a record of the surrogate's kind: `Cells`, `Maps`, `PointShowers` or `PlateShowers`.
        repeat: rows for each shower.
        name: name of the showers in error messages.

    Raises:
        InputError: showers of another kind, window or material than the surrogate's.
    """
    card, energy = surrogate.card, np.repeat(showers.energy, repeat)
    given = "stacks" if isinstance(showers, PlateShowers) else "cells" if hasattr(showers, "dx") else None
    if given != card.trained.designs_of:
        raise InputError(f"{name} does not fit {card.name}; expected {EXPECTED[card.trained.designs_of]}")
    which = np.repeat(np.arange(len(showers)), repeat)
    if isinstance(showers, PlateShowers):
        return Rows(energy, incident=showers.incident[which], stacks=showers.stacks[which])
    card.check_incidence(showers.incident, name)
    if not card.takes_design:
        return Rows(energy)
    if card.only_material is not None and card.only_material.name != showers.material.name:
        raise InputError(f"{name} is of {showers.material.name}, {card.name} was trained on {card.only_material.name}; "
                         "expected one")  # fmt: skip
    model, n_z = surrogate.design_model, showers.dz.shape[1]
    has = _window(showers.measured.shape[1:], showers.n_xy, n_z)
    generated = _window(model.shape, model.architecture.n_xy, model.architecture.n_z)
    takes = model.takes_particles
    if has != generated and not takes:
        raise InputError(f"{name} has {has} cells, {card.name} generates {generated}")
    dx, dz, material = showers.dx[which], showers.dz[which], card.only_material or showers.material
    if not takes:
        return Rows(energy, dx, dz, material)
    return Rows(energy, dx, dz, material, showers.incident[which], showers.n_xy)


def _window(shape: tuple[int, ...], n_xy: int, n_z: int) -> str:
    """Return the shape of a shower's measured cells or pixels, in words."""
    cells, measured = f"{n_xy} x {n_xy} x {n_z}", " x ".join(map(str, shape))
    return measured if measured == cells else f"maps of {measured} pixels over {cells}"


def draw_energies(energies: Sequence[float], n: int, law: str = "discrete", seed: int = 0) -> np.ndarray:
    """Return incident energies of rows, GeV.

    Args:
        energies: values, or with another law than ``discrete`` the two ends of a range, GeV.
        n: rows for each value, or in total for a range.
        law: ``discrete``: the values in turn; ``uniform`` or ``log-uniform``: draws from the range.
        seed: seed of the draws.
    """
    if law == "discrete":
        return np.tile(np.asarray(energies, float), n)
    u, (low, high) = RandomNumbers(seed, range(n)).uniform_array(), energies
    return np.asarray(low + u * (high - low) if law == "uniform" else low * (high / low) ** u)


def draw_designs(
    dx: tuple[float, float], dz: tuple[Any, Any], n: int, n_z: int, unequal: float = 0.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return pitches (n,) and depths (n, n_z) of rows, log-uniform in ranges, cm.

    Args:
        dx: least and largest pitch, cm; equal for one pitch.
        dz: least and largest depth, cm, numbers or one a layer; equal for fixed depths.
        n: number of rows.
        n_z: number of layers.
        unequal: share of the rows whose layers have depths of their own.
        seed: seed of the draws.
    """
    random = RandomNumbers(seed, range(n), calls=1)
    u, v, chosen = random.uniform_array(), random.uniform_array(n_z), random.uniform_array() < unequal
    v = np.where(chosen[:, None], v, v[:, :1])
    low, high = (np.asarray(end, float) for end in dz)
    return dx[0] * (dx[1] / dx[0]) ** u, np.broadcast_to(low * (high / low) ** v, (n, n_z))


def draw_stacks(law: SamplingStack, n: int, seed: int = 0) -> Stacks:
    """Return the stacks of rows, those that a simulation with this detector and seed has.

    Args:
        law: fixed stacks, or the law from which every row draws its own.
        n: number of rows.
        seed: seed of the draws.
    """
    if not law.drawn:
        return Stacks.of(law, [law.draw(stack_generator(seed, 0))])[np.zeros(n, int)]
    return Stacks.of(law, [law.draw(stack_generator(seed, index)) for index in range(n)])


def draw_incidence(
    dx: np.ndarray,
    particle: str | Sequence[str] = "gamma",
    position: tuple[float, float] | Literal["uniform"] = (0.0, 0.0),
    theta: float | tuple[float, float] = 0.0,
    phi: float | tuple[float, float] = 0.0,
    seed: int = 0,
) -> Incidence:
    """Return incident particles of rows.

    Args:
        dx: pitch of every row, shape (n,), cm; ``uniform`` entries are drawn in a cell of this pitch.
        particle: name of the particle, or several of which every row has one.
        position: entry, cm, or ``uniform``.
        theta, phi: angles, degrees, or ranges from which every row draws one.
        seed: seed of the draws.
    """
    n = len(dx)
    u = RandomNumbers(seed, range(n), calls=ENTRY_CALL).uniform_array(5)
    names = np.array([particle] if isinstance(particle, str) else list(particle))
    return Incidence.of(n, names[(u[:, 4] * len(names)).astype(int)], *place(u, dx, position, theta, phi))


def _rows(surrogate: Surrogate, asked: Rows) -> Rows:
    """Return the rows that are asked for in float32. Raises `InputError` unless they are positive numbers."""
    card, (energy, dx, dz) = surrogate.card, (asked.energy, asked.dx, asked.dz)
    given = [name for name, there in (("cells", dx is not None), ("stacks", asked.stacks is not None)) if there]
    if (dx is None) != (dz is None) or given != [name for name in (card.trained.designs_of,) if name]:
        raise InputError(f"rows of designs: {card.name} takes {TAKEN[card.trained.designs_of]}")
    if asked.stacks is not None and len(asked.stacks) != len(energy):
        raise InputError(f"{len(asked.stacks)} stacks for {len(energy)} energies; expected one stack for every row")
    columns = [energy] if dx is None or dz is None else [dx, dz, energy]
    table = np.column_stack(columns).astype(np.float32)
    if len(table) < 1:
        raise InputError("no rows; expected at least 1 shower")
    if not (np.isfinite(table).all() and (table > 0).all()):
        row = int(np.argmax(~(np.isfinite(table) & (table > 0)).all(1)))
        *sizes, incident = table[row].tolist()
        designs = f", dx and dz = {sizes} cm" if sizes else ""
        raise InputError(f"row {row}: energy = {incident:g} GeV{designs}; expected positive numbers")
    if dx is None:
        return Rows(table[:, 0], stacks=asked.stacks)
    material = card.designs.material if asked.material is None else asked.material
    return Rows(table[:, -1], table[:, 0], table[:, 1:-1], material)


def _order(rows: Rows) -> np.ndarray:
    """Return the order in which rows are generated: equal designs and energies together, so that they share work.

    Stacks are ordered by their number of layers, so that those of a batch have nearly as many.
    """
    if rows.stacks is not None:
        return np.argsort(rows.stacks.layers, kind="stable")
    if rows.dx is None or rows.dz is None:
        return np.arange(len(rows.energy))
    return np.lexsort(np.column_stack([rows.dx, rows.dz, rows.energy]).T)


def _batch(surrogate: Surrogate, rows: Rows, schedule: SamplingSchedule, random: RandomNumbers) -> Any:
    """Generate the showers of some rows."""
    model = surrogate.model
    if surrogate.card.takes_design:
        columns = [column for column in (rows.energy, rows.dx, rows.dz) if column is not None]
        columns += [] if rows.incident is None else list(vars(rows.incident).values())
        same = all((column == column[0]).all() for column in columns)
        rows = rows.at(slice(1)) if same and (rows.stacks is None or rows.stacks.alike) else rows
    with torch.inference_mode():
        energy = torch.from_numpy(rows.energy.copy()).to(model.condition_mean)
        design, particles = _design(surrogate, rows), _particles(rows, energy)
        conditions = model.condition(design, energy, particles)
        return model.finish(model.fused().generate(conditions, energy, schedule, random), design, particles)


def _particles(rows: Rows, like: torch.Tensor) -> Particles | None:
    """Return the incident particles of rows as tensors."""
    return None if rows.incident is None else Particles.from_incidence(rows.incident, like)


def _design(surrogate: Surrogate, rows: Rows) -> Design | Stacks | None:
    """Return the designs of rows, one a shower."""
    if rows.stacks is not None:
        return rows.stacks
    if rows.dx is None or rows.dz is None or rows.material is None:
        return None
    dx, dz = (torch.from_numpy(np.ascontiguousarray(column)) for column in (rows.dx, rows.dz))
    n_xy = int(surrogate.card.architecture["n_xy"]) if rows.n_xy is None else rows.n_xy
    return Design(dx, dz, rows.material, n_xy, dz.shape[1])


def _beam(card: Card) -> dict[str, Any]:
    """Return the beam of the simulation that the surrogate was trained on, if the card has it."""
    data = card.training.get("data")
    made = data[0].get("config") if isinstance(data, list) and data and isinstance(data[0], dict) else None
    beam = (made or {}).get("simulation", {}).get("beam")
    return {"beam": {name: beam[name] for name in ("particle", "theta", "phi") if name in beam}} if beam else {}


def _config(surrogate: Surrogate, schedule: SamplingSchedule, seed: int, extrapolate: bool) -> dict[str, Any]:
    """Return the settings that made the showers, as plain data."""
    card, asked = surrogate.card, schedule._asdict()
    options = asked.pop("options")
    return {
        "model": card.name,
        **card.trained.provenance(),
        **_beam(card),
        "training": card.training.get("done", {}),
        **asked,
        "seed": seed,
        "extrapolate": extrapolate,
        **{name: getattr(options, name) for name in ("guidance", "layers_only") if getattr(options, name)},
        "versions": {
            "calograd": __version__, "python": platform.python_version(),
            "torch": version("torch"), "numpy": version("numpy"),
        },
    }  # fmt: skip
