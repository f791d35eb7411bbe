"""Showers with a known S-curve and a known direction, in windows that follow the particle."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

from calograd.detector.incidence import Incidence
from calograd.detector.material import Material
from calograd.events.binning import segment_deposits
from calograd.events.dense import Cells
from calograd.events.ragged import Deposits

LAYERS = np.array([0.1, 0.3, 0.3, 0.2, 0.1])
"""Mean shares of the layers."""


def gaussian_shares(p: np.ndarray, dx: float, offset: np.ndarray, n_xy: int, sigma: float) -> np.ndarray:
    """Return the shares of the cells of a window in a Gaussian about p, shape (..., n_xy)."""
    edges = (np.asarray(offset)[..., None] + np.arange(n_xy + 1) - n_xy / 2) * dx
    return np.diff(ndtr((edges - np.asarray(p)[..., None]) / sigma))


def s_curve(u: np.ndarray, dx: float, n_xy: int, sigma: float) -> np.ndarray:
    """Return the centre of gravity of a Gaussian shower that enters at u pitches from a cell's centre, cm."""
    shares = gaussian_shares(u * dx, dx, np.zeros_like(u), n_xy, sigma)
    return (shares * (np.arange(n_xy) - (n_xy - 1) / 2) * dx).sum(-1) / shares.sum(-1)


def tilted(
    n: int,
    *,
    seed: int,
    theta: float | np.ndarray = 0.0,
    position: tuple[float, float] | None = None,
    particle: object = "gamma",
    energy: float = 5.0,
    dx: float = 1.3,
    dz: float = 3.7,
    n_xy: int = 7,
    sigma: float = 0.4,
    jitter: float = 0.1,
    bend: float = 0.0,
    origin: str = "geant4",
) -> Cells:
    """Return Gaussian showers with entries drawn evenly in the cell and azimuths from 0 to 360 degrees.

    Args:
        position: one entry for all, cm; None draws them.
        jitter: deviation of each shower's distance from its line, cm.
        bend: slope added along the true direction, so that the showers are not as steep as their particles.
    """
    rng = np.random.default_rng(seed)
    entry = rng.uniform(-dx / 2, dx / 2, (n, 2)) if position is None else position
    incident = Incidence.of(n, particle, entry, theta, rng.uniform(0, 360, n))
    sizes = np.full(n, dx, np.float32), np.full((n, len(LAYERS)), dz, np.float32)
    depth = np.cumsum(sizes[1], axis=1) - sizes[1] / 2
    phi = np.radians(incident.phi)
    along = np.stack([np.cos(phi), np.sin(phi)], 1)[:, None]
    at = incident.at(depth) + bend * depth[..., None] * along + jitter * rng.normal(size=(n, 1, 2))
    offsets = incident.window_offsets(*sizes)
    x, y = (gaussian_shares(at[..., k], dx, offsets[..., k], n_xy, sigma) for k in (0, 1))
    layers = energy * 0.9 * LAYERS * rng.gamma(50, 1 / 50, (n, len(LAYERS)))
    cells = np.einsum("nk,nki,nkj->nijk", layers, x, y)
    return Cells(
        cells.astype(np.float32), np.full(n, energy, np.float32), *sizes, np.arange(n), Material.parse("PbF2"), origin,
        {}, incident,
    )  # fmt: skip


def slanted(
    n: int, *, seed: int, theta: float, phi: float | np.ndarray = 30.0, bend: float = 0.0, sigma: float = 0.9,
    points: int = 400, dx: float = 1.3, dz: float = 3.7, n_xy: int = 7, n_z: int = 5,
) -> Cells:  # fmt: skip
    """Return showers that are symmetric about their particle's line: a gamma profile along it, a Gaussian across.

    Args:
        bend: slope added along the true direction, so that the showers are not as steep as their particles.
        sigma: deviation across the line, cm.
        points: deposits of a shower, of equal energies.
    """
    rng = np.random.default_rng(seed)
    incident = Incidence.of(n, "gamma", rng.uniform(-dx / 2, dx / 2, (n, 2)), theta, phi)
    turn = np.radians(incident.phi.astype(np.float64))[:, None]
    tilt = np.arctan(np.tan(np.radians(theta)) + bend)
    along = rng.gamma(4.4, 1.9, (n, points)) + rng.normal(0, 0.9, (n, 1))
    u, v = rng.normal(0, sigma, (2, n, points))
    r = along * np.sin(tilt) + u * np.cos(tilt)
    x, y = r * np.cos(turn) - v * np.sin(turn), r * np.sin(turn) + v * np.cos(turn)
    entry = incident.position.astype(np.float64)
    deposits = Deposits(
        (x + entry[:, :1]).ravel().astype(np.float32), (y + entry[:, 1:]).ravel().astype(np.float32),
        (along * np.cos(tilt) - u * np.sin(tilt)).ravel().astype(np.float32),
        np.full(n * points, 5.0 / points, np.float32), np.arange(n + 1) * points,
    )  # fmt: skip
    sizes = np.full(n, dx, np.float32), np.full((n, n_z), dz, np.float32)
    cells = segment_deposits(deposits, *sizes, n_xy, n_z, incident.window_offsets(*sizes))
    return Cells(
        cells, np.full(n, 5.0, np.float32), *sizes, np.arange(n), Material.parse("PbF2"), "geant4", {}, incident
    )
