"""Showers in stacks of plates from a law that is known, for comparisons of two samples of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from calograd.detector.incidence import Incidence
from calograd.detector.sampling_stack import SamplingStack, Stacks
from calograd.events.plates import PlateShowers
from calograd.events.point_showers import PointShowers, sort_points
from calograd.surrogate.generation import draw_stacks

ONE = SamplingStack(absorber="Pb", active="lAr", layers=12, absorber_thickness=0.4, active_thickness=0.4)
"""One stack."""
MANY = SamplingStack.model_validate(
    {
        "absorber": ("Pb", "W"), "active": ("lAr", "Si"), "layers": (6, 12),
        "absorber_thickness": {"low": 0.2, "high": 0.8}, "active_thickness": {"low": 0.1, "high": 0.6},
    }
)  # fmt: skip
"""A stack for every shower."""


def toy_showers(
    stacks: Stacks,
    energy: np.ndarray,
    seed: int,
    *,
    origin: str = "geant4",
    visible: float = 1.0,
    spread: float = 1.0,
    deeper: float = 0.0,
    **incident: Any,
) -> PlateShowers:
    """Showers of a gamma profile in depth with independent fluctuations of layers, of the total and of the place.

    Args:
        stacks: the stack of every shower.
        energy: incident energies, GeV.
        seed: seed of all random numbers.
        origin: ``geant4`` or another name.
        visible: factor on all visible energies.
        spread: factor on the relative fluctuation of the visible energy.
        deeper: shift of all showers, X0.
        incident: see `Incidence.of`; electrons along the normal by default.
    """
    rng, n = np.random.default_rng(seed), len(stacks)
    lengths = stacks.radiation_lengths
    middle = lengths.sum(2).cumsum(1) - lengths.sum(2) / 2
    start = deeper + rng.exponential(0.5, n)[:, None]
    t = np.clip(middle - start, 1e-3, None)
    weight = t**3 * np.exp(-0.7 * t) * lengths.sum(2) * rng.gamma(25, 1 / 25, middle.shape)
    total = 0.95 * energy * np.clip(1 - 0.02 * np.abs(rng.standard_normal(n)), 0, 1)
    layers = total[:, None] * weight / weight.sum(1, keepdims=True)
    share = lengths[..., 2] / np.where(lengths[..., 0] > 0, lengths.sum(2), 1)
    noise = 1 + spread * 0.2 / np.sqrt(energy) * rng.standard_normal(n)
    active = layers * 0.5 * share * np.clip(visible * noise, 0, 1.9)[:, None]
    return PlateShowers.of(
        stacks, layers - active, active, energy, Incidence.of(n, **({"particle": "e-"} | incident)), seed=seed,
        origin=origin, config={"seed": seed},
    )  # fmt: skip


def in_one_stack(n: int, seed: int, energies: tuple[float, ...] = (10.0,), **change: Any) -> PlateShowers:
    """Showers in one stack, of the energies in turn."""
    return toy_showers(draw_stacks(ONE, n), np.resize(energies, n), seed, **change)


def in_many_stacks(n: int, seed: int, repeat: int = 1, **change: Any) -> PlateShowers:
    """Showers of 1 to 50 GeV in stacks of their own, the same for every seed; ``repeat`` of each."""
    rows = np.repeat(np.arange(n), repeat)
    energy = np.geomspace(1, 50, n).astype(np.float32)[np.random.default_rng(3).permutation(n)]
    return toy_showers(draw_stacks(MANY, n, seed=1)[rows], energy[rows], seed, **change)


def with_deposits(showers: PlateShowers, seed: int, wide: float = 1.0, per_layer: float = 3.0) -> PlateShowers:
    """The same showers with deposits in their active plates: equal shares, normally distributed about the line.

    Args:
        showers: showers along any lines.
        seed: seed of all random numbers.
        wide: standard deviation in x and in y, cm.
        per_layer: mean number of deposits in a layer, beyond the first.
    """
    rng, layers = np.random.default_rng(seed), int(showers.counts.max())
    number = 1 + rng.poisson(per_layer, len(showers.active_energy))
    shower = np.repeat(np.arange(len(showers)), showers.counts)
    layer = np.arange(len(shower)) - showers.offsets[shower]
    x, y = wide * rng.standard_normal((2, number.sum()))
    e = np.repeat(showers.active_energy / number, number)
    columns = sort_points(x, y, np.repeat(layer, number), e, np.repeat(shower, number), len(showers))
    points = PointShowers(*columns, showers.energy, showers.index, layers)
    return replace(showers, deposits=showers.deposits_at(points))
