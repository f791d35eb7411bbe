"""Spectra of the measured energy at two designs, before and after an optimisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from calograd.detector.design import Design
from calograd.gradients.autodiff import BACKGROUND, SHOWERS
from calograd.gradients.estimates import generator_for
from calograd.gradients.finite_differences import scaled_size
from calograd.objective.reference import Reference
from calograd.objective.utility import Objective, totals
from calograd.surrogate import Surrogate
from calograd.system.progress import Progress, silent

BOOTSTRAP = 200
"""Bootstrap samples of a resolution's error."""
DRAW = 10**6
"""Number of the draw in the seeds of showers and backgrounds; a gradient has fewer draws."""


@dataclass(frozen=True)
class Spectrum:
    """Measured energies of showers of one incident energy at the first and the last design.

    Args:
        source: ``Geant4`` or the surrogate's name.
        energy: incident energy, GeV.
        start, end: measured energies, shape (n,), GeV.
    """

    source: str
    energy: float
    start: np.ndarray
    end: np.ndarray

    def resolutions(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return standard deviation over mean of both spectra, each with its bootstrap error."""
        return resolution(self.start), resolution(self.end)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: mean and resolution of both spectra."""
        ends = zip(("start", "result"), (self.start, self.end), self.resolutions(), strict=True)
        return {"source": self.source, "energy": self.energy} | {
            name: {"mean": float(values.mean()), "resolution": value, "resolution_error": error}
            for name, values, (value, error) in ends
        }


def resolution(measured: np.ndarray) -> tuple[float, float]:
    """Return standard deviation over mean of measured energies, shape (n,), and its bootstrap error."""
    rows = np.random.default_rng(0).integers(len(measured), size=(BOOTSTRAP, len(measured)))
    samples = measured[rows]
    spread = samples.std(1, ddof=1) / samples.mean(1)
    return float(measured.std(ddof=1) / measured.mean()), float(spread.std(ddof=1))


def surrogate_spectra(
    surrogate: Surrogate,
    objective: Objective,
    designs: Sequence[Design],
    *,
    showers: int = 1000,
    seed: int = 0,
    sampler: str | None = None,
    steps: int | None = None,
    progress: Progress = silent,
) -> list[Spectrum]:
    """Return the spectra of a surrogate at the first and the last design, with common random numbers.

    The showers of every energy have a seed of their own; ``progress`` is called with energies done.
    """
    made = list[Spectrum]()
    for i, energy in enumerate(objective.energies):
        generator = generator_for(seed, SHOWERS, DRAW, i)
        with torch.no_grad():
            particles = [
                surrogate.particles(each, showers, objective.beam, generator=generator_for(seed, SHOWERS, DRAW, i))
                for each in designs
            ]
            cells = surrogate.sample_designs(
                designs, energy, showers, generator=generator, particles=particles, sampler=sampler, steps=steps
            )  # fmt: skip
        ends = (_measured(objective, each, energy, of, seed, i) for each, of in zip(cells, designs, strict=True))
        made.append(Spectrum(surrogate.card.name, energy, *ends))
        progress(i + 1, len(objective.energies))
    return made


def geant4_spectra(
    reference: Reference, objective: Objective, designs: Sequence[Design], *, seed: int = 0
) -> list[Spectrum]:
    """Return the spectra of Geant4's showers at the first and the last design."""
    made = list[Spectrum]()
    for i, energy in enumerate(objective.energies):
        cells = reference.measure(energy, [scaled_size(design, reference) for design in designs])
        ends = [
            _measured(objective, torch.from_numpy(each), energy, design, seed, i)
            for each, design in zip(cells, designs, strict=True)
        ]
        made.append(Spectrum("Geant4", energy, *ends))
    return made


def _measured(
    objective: Objective, cells: torch.Tensor, energy: float, design: Design, seed: int, number: int
) -> np.ndarray:
    generator = generator_for(seed, BACKGROUND, DRAW, number)
    events = objective.measurement.measure(cells, energy, design, generator=generator)
    return totals(events.measured).cpu().numpy()
