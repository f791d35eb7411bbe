"""Small shower libraries without Geant4."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from calograd.detector.configuration import SPEED_OF_LIGHT, SimulationConfig
from calograd.detector.incidence import Incidence
from calograd.detector.sampling_stack import SamplingStack, Stack
from calograd.events.library.schema import DEPOSITS, TIME, Provenance, pack
from calograd.events.library.writer import open_writer
from calograd.events.plates import PlateShowers
from calograd.events.ragged import Deposits, Showers


def write_toy_library(path: Path, config: SimulationConfig) -> Path:
    """Sixty showers of 10 and 50 GeV in turn: 3 000 deposits each, normal across, gamma along, at z/c and later."""
    rng = np.random.default_rng(5)
    n, each = 60, 3000
    energy = np.resize(np.float32([10.0, 50.0]), n)
    share = rng.gamma(1.0, size=(n, each))
    share *= (0.97 * energy / share.sum(1))[:, None]
    across = rng.normal(0, 2.0, (2, n, each))
    along = rng.gamma(4.0, 2.0, (n, each))
    showers = Showers(
        x=across[0].ravel().astype(np.float32), y=across[1].ravel().astype(np.float32),
        z=along.ravel().astype(np.float32), e=share.ravel().astype(np.float32),
        offsets=np.arange(0, n * each + 1, each), energy=energy, index=np.arange(n), seed=np.arange(n),
        t=(along.ravel() / SPEED_OF_LIGHT + rng.exponential(0.05, n * each)).astype(np.float32),
    )  # fmt: skip
    path.write_bytes(pack(showers, Provenance(config, "11.4.1", "none")))
    return path


def made_up_showers(indices: range, mean: int = 500, *, times: bool = True) -> Showers:
    """Showers whose deposits follow from their index alone, with or without times; every fifth has none."""
    rngs = [np.random.default_rng(i) for i in indices]
    counts = [0 if i % 5 == 4 else int(rng.integers(1, 2 * mean)) for i, rng in zip(indices, rngs, strict=True)]
    columns = [
        np.concatenate([rng.random(n, np.float32) for rng, n in zip(rngs, counts, strict=True)])
        for _ in (*DEPOSITS, TIME)
    ]
    return Showers(
        *columns[:-1],
        t=columns[-1] if times else None,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        energy=np.array([1 + i % 3 for i in indices], np.float32),
        index=np.array(indices, np.int64),
        seed=np.array([i + (1 << 60) for i in indices], np.uint64),
        particle=np.full(len(indices), 22, np.int32),
        position=np.zeros((len(indices), 2), np.float32),
        theta=np.zeros(len(indices), np.float32),
        phi=np.zeros(len(indices), np.float32),
    )


def write_library(
    path: Path, provenance: Provenance, total: int, step: int = 10, mean: int = 500, *, times: bool = True
) -> Path:
    """Write a library of `made_up_showers`, ``step`` showers a part."""
    with open_writer(path, provenance, total) as library:
        for start in range(0, total, step):
            showers = made_up_showers(range(start, min(total, start + step)), mean, times=times)
            library.add(pack(showers, provenance))
        library.finish(lambda done, of: None, threads=1)
    return path


def plates_config(seed: int = 1, **stack: object) -> SimulationConfig:
    """Electrons of 1, 2 and 3 GeV in stacks of one to nine layers of two absorbers."""
    detector = {
        "kind": "sampling", "absorber": ("Pb", "W"), "active": "lAr", "layers": (1, 9),
        "absorber_thickness": {"low": 0.1, "high": 0.4}, "active_thickness": 0.4,
    } | stack  # fmt: skip
    beam = {"energies": {"law": "discrete", "values": (1.0, 2.0, 3.0)}, "particle": "e-"}
    return SimulationConfig.model_validate({"detector": detector, "beam": beam, "seed": seed})


def made_up_plates(indices: range, config: SimulationConfig | None = None) -> PlateShowers:
    """Showers whose energies follow from their index alone, in the stacks that the configuration draws.

    Where points are recorded each has the deposits of `made_up_deposits`.
    """
    config = config or plates_config()
    stacks = [config.draw_stack(i) for i in indices]
    counts = [len(stack.thickness) for stack in stacks]
    shares = [
        np.random.default_rng(i).random((n, 3), np.float32) / (6 * n) for i, n in zip(indices, counts, strict=True)
    ]
    rows = np.concatenate([np.concatenate(shares), np.concatenate([stack.thickness for stack in stacks])], axis=1)
    incident = Incidence.of(len(indices), "e-")
    return PlateShowers(
        **dict(zip(PlateShowers.FLAT, np.ascontiguousarray(rows.T), strict=True)),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        energy=np.array([1 + i % 3 for i in indices], np.float32),
        index=np.array(indices, np.int64),
        seed=np.array([i + (1 << 60) for i in indices], np.uint64),
        **vars(incident),
        absorber=np.array([stack.absorber for stack in stacks], np.int32),
        active=np.array([stack.active for stack in stacks], np.int32),
        deposits=None if config.detector.record == "energies" else made_up_deposits(indices, stacks),  # type: ignore
    )


def made_up_generated(indices: range, config: SimulationConfig | None = None, seed: int = 7) -> PlateShowers:
    """The same showers as if a surrogate had generated them."""
    config = config or plates_config()
    assert isinstance(config.detector, SamplingStack)
    return replace(
        made_up_plates(indices, config), seed=np.full(len(indices), seed, np.uint64), origin="toy",
        config={"model": "toy", "seed": seed}, absorbers=config.detector.absorber, actives=config.detector.active,
    )  # fmt: skip


def made_up_deposits(indices: range, stacks: list[Stack]) -> Deposits:
    """Up to thirty deposits a shower in its active plates, which follow from its index alone; every fifth has none."""
    rngs = [np.random.default_rng([7, i]) for i in indices]
    counts = [0 if i % 5 == 4 else int(rng.integers(1, 30)) for i, rng in zip(indices, rngs, strict=True)]
    depths = [
        rng.choice(stack.faces()[2::3], n) + 0.4 * rng.random(n)
        for stack, rng, n in zip(stacks, rngs, counts, strict=True)
    ]
    x, y, e, t = np.concatenate([rng.random((4, n), np.float32) for rng, n in zip(rngs, counts, strict=True)], axis=1)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Deposits(x, y, np.concatenate(depths).astype(np.float32), e, offsets, t=t)


def write_plates(path: Path, total: int, step: int = 10, config: SimulationConfig | None = None) -> Path:
    """Write a library of `made_up_plates`, ``step`` showers a part."""
    provenance = Provenance(config or plates_config(), "11.4.1", "G4EMLOW8.8 (test)")
    with open_writer(path, provenance, total) as library:
        for start in range(0, total, step):
            showers = made_up_plates(range(start, min(total, start + step)), config)
            library.add(pack(showers, provenance))
        library.finish(lambda done, of: None, threads=1)
    return path
