"""Match the number of hits of a surrogate of points to that of the training showers.

Points are drawn independently of each other. Geant4's crossings are nearly so: at equal energies and E_vis they hit 1 %
fewer cells at 10 GeV and 1 % more at 90. With H hits of showers, Geant4's and generated (t = 0, 1), least squares in

    ln H = a_0 + a_1 s + a_2 s^2 + b ln(E_vis / E) + t (c_0 + c_1 s)            s = standardised ln E

give the difference c, free of the fluctuations of E_vis. Numbers of points are then multiplied by
exp(-(c_0 + c_1 s) / GAIN). A second round corrects the remainder.
"""

from __future__ import annotations

import numpy as np
import torch

from calograd.events.layered_readout import count_hits
from calograd.surrogate.points.model import PointsModel
from calograd.system.random_numbers import RandomNumbers
from calograd.training.data.points import PointsData

BATCH = 16
"""Showers generated at once."""
GAIN = 0.9
"""Approximate d ln H / d ln N, of hits H with the number of points N."""
ROUNDS = 2
"""Rounds of generating showers and correcting."""


@torch.no_grad()
def fit_hits(model: PointsModel, data: PointsData, showers: int, seed: int) -> None:
    """Set the factor on numbers of points from ``showers`` generated showers at energies of training showers."""
    clouds = data.train.clouds
    assert clouds.hits is not None
    known = clouds.hits > 0
    energy, hits = clouds.energy[known], clouds.hits[known]
    visible = np.bincount(clouds.owner, clouds.e, len(clouds))[known] / energy
    generator = torch.Generator().manual_seed(seed)
    schedule = model.sampling_schedule()
    chosen = torch.randint(len(energy), (showers,), generator=generator).numpy()
    for _ in range(ROUNDS):
        made, seen, random = [], [], RandomNumbers.from_generator(generator, showers)
        for start in range(0, showers, BATCH):
            part = slice(start, start + BATCH)
            incident = torch.from_numpy(energy[chosen[part]]).to(model.unit)
            points = model.generate(model.conditions(incident), incident, schedule, random.rows(part))
            record = points.numpy("surrogate", {})
            made.append(count_hits(record))
            seen.append(np.bincount(record.owner, record.e, len(record)) / record.energy)
        found = difference(
            model, (energy, visible, hits), (energy[chosen], np.concatenate(seen), np.concatenate(made))
        )  # fmt: skip
        model.more_points -= torch.from_numpy(found).to(model.more_points) / GAIN


def difference(
    model: PointsModel, theirs: tuple[np.ndarray, ...], ours: tuple[np.ndarray, ...]
) -> np.ndarray:  # fmt: skip
    """Return c, shape (2,), from energies (GeV), E_vis / E and hits of Geant4's and of generated showers."""
    rows, logs = [], []
    for t, (energy, visible, hits) in enumerate((theirs, ours)):
        filled = hits > 0
        s = model.conditions(torch.from_numpy(energy[filled]).to(model.unit))[:, 0].cpu().numpy().astype(np.float64)
        one = np.ones_like(s)
        rows.append(np.column_stack([one, s, s**2, np.log(visible[filled]), t * one, t * s]))
        logs.append(np.log(hits[filled]))
    solution: np.ndarray = np.linalg.lstsq(np.concatenate(rows), np.concatenate(logs))[0]
    return solution[-2:]
