"""Spectra of the measured energy at one design or several, and the energy resolution that they give."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from calograd.detector.design import Design
from calograd.errors import InputError
from calograd.gradients.autodiff import BACKGROUND, SHOWERS
from calograd.gradients.estimates import generator_for
from calograd.gradients.finite_differences import scaled_size
from calograd.metrics.resolution import ResolutionCurve, relative_spread, resolution_curve
from calograd.objective.reference import Reference
from calograd.objective.utility import Objective, totals
from calograd.surrogate import Surrogate
from calograd.system.progress import Progress, silent

GEANT4 = "Geant4"
"""Source of simulated spectra."""
DRAW = 10**6
"""Number of the draw in the seeds of showers and backgrounds; a gradient has fewer draws."""


@dataclass(frozen=True)
class Spectrum:
    """Measured energies of showers of one incident energy at every design.

    Args:
        source: ``Geant4`` or the surrogate's name.
        energy: incident energy, GeV.
        measured: measured energies at each design, each of shape (n,), GeV.
    """

    source: str
    energy: float
    measured: tuple[np.ndarray, ...]

    def resolutions(self) -> list[tuple[float, float]]:
        """Return standard deviation over mean with its standard error, at every design."""
        return [relative_spread(values) for values in self.measured]

    def to_dict(self, designs: Sequence[str]) -> dict[str, Any]:
        """Return plain data: mean and resolution at every design, by the designs' names."""
        each = zip(designs, self.measured, self.resolutions(), strict=True)
        return {"source": self.source, "energy": self.energy} | {
            name: {"mean": float(values.mean()), "resolution": value, "resolution_error": error}
            for name, values, (value, error) in each
        }


def curves_of(
    spectra: Sequence[Spectrum], definition: str, number: int = 0
) -> tuple[ResolutionCurve | None, ResolutionCurve | None]:
    """Return the energy resolution at a design against energy: the surrogate's and Geant4's.

    Args:
        spectra: of one surrogate, and of Geant4 or not.
        definition: one of `calograd.metrics.resolution.DEFINITIONS`, see `definition_of`.
        number: of the design.

    Returns:
        Curves; None for a source that is not there, or that has too few showers or none that differ.
    """
    found = dict[bool, ResolutionCurve]()
    for geant4 in (False, True):
        some = [each for each in spectra if (each.source == GEANT4) == geant4]
        with suppress(InputError):
            if some:
                found[geant4] = resolution_curve(
                    some[0].source, [each.energy for each in some], [each.measured[number] for each in some],
                    definition=definition,
                )  # fmt: skip
    return found.get(False), found.get(True)


def definition_of(objective: Objective) -> str:
    """Return the definition of sigma / E that suits a measurement.

    A measurement with background has the standard deviation over the incident energy, because its mean holds what the
    mask leaves of the background; any other has the standard deviation over the mean.
    """
    return "std" if objective.measurement.background is None else "incident"


def surrogate_spectra(
    surrogate: Surrogate,
    objective: Objective,
    designs: Sequence[Design],
    *,
    showers: int = 1000,
    seed: int = 0,
    sampler: str | None = None,
    steps: int | None = None,
    extrapolate: bool = False,
    progress: Progress = silent,
) -> list[Spectrum]:
    """Return the spectra of a surrogate at several designs, with common random numbers.

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
                designs, energy, showers, generator=generator, particles=particles, sampler=sampler, steps=steps,
                extrapolate=extrapolate,
            )  # fmt: skip
        pairs = zip(cells, designs, strict=True)
        measured = tuple(_measured(objective, each, energy, of, seed, i) for each, of in pairs)
        made.append(Spectrum(surrogate.card.name, energy, measured))
        progress(i + 1, len(objective.energies))
    return made


def geant4_spectra(
    reference: Reference, objective: Objective, designs: Sequence[Design], *, seed: int = 0
) -> list[Spectrum]:
    """Return the spectra of Geant4's showers at several designs."""
    made = list[Spectrum]()
    for i, energy in enumerate(objective.energies):
        cells = reference.measure(energy, [scaled_size(design, reference) for design in designs])
        measured = tuple(
            _measured(objective, torch.from_numpy(each), energy, design, seed, i)
            for each, design in zip(cells, designs, strict=True)
        )
        made.append(Spectrum(GEANT4, energy, measured))
    return made


def _measured(
    objective: Objective, cells: torch.Tensor, energy: float, design: Design, seed: int, number: int
) -> np.ndarray:
    generator = generator_for(seed, BACKGROUND, DRAW, number)
    events = objective.measurement.measure(cells, energy, design, generator=generator)
    return totals(events.measured).cpu().numpy()
