"""A stack of plates in the demo: derivatives with respect to thicknesses, and the resolution against the absorber's.

The stack is one of tungsten and silicon. Thin absorbers sample a shower well and let it out at the back; thick ones
hold it and sample it badly. Between them sigma/E of the visible energy is smallest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from calograd.detector.particles import ParticleBeam
from calograd.detector.sampling_design import SamplingDesign
from calograd.detector.sampling_stack import SamplingStack
from calograd.events.library.reader import open_plates
from calograd.events.plates import PlateShowers
from calograd.gradients.stacks import StackGradientResult, stack_gradient
from calograd.metrics.resolution import relative_spread
from calograd.objective.stacks import MeanEnergy, StackObjective, VisibleResolution
from calograd.surrogate import Surrogate
from calograd.system.progress import StageProgress

PARTICLE: Literal["e-"] = "e-"
"""Particle of the bundled showers, which come along the normal of the plates."""
ENERGY = 10.0
"""Incident energy of derivatives and scan, GeV."""


class StackSettings(NamedTuple):
    """The sizes of the study of a stack.

    Attributes:
        thicknesses: number of thicknesses of the scan.
        showers: generated showers at each of them.
        draws, draw: draws of a derivative, and showers of a draw.
    """

    thicknesses: int
    showers: int
    draws: int
    draw: int


class StackShowers(NamedTuple):
    """Geant4 showers in stacks of one pair of materials and one number of layers.

    Attributes:
        stack: the stack that is studied.
        reference: showers in it, of several energies.
        neighbours: library of showers of `ENERGY` that each have a stack of their own around it.
        others: showers of `ENERGY` in stacks of other absorbers, one thickness each.
    """

    stack: SamplingStack
    reference: PlateShowers
    neighbours: Path
    others: tuple[PlateShowers, ...]

    @classmethod
    def read(cls, folder: Path) -> StackShowers:
        """Return the showers that ``runs/sampling-sample.sh`` wrote into a folder."""
        with open_plates(folder / "reference.h5") as library:
            stack, reference = library.stack, library.read()
        others = []
        for path in sorted(folder.glob("tungsten-*.h5")):
            with open_plates(path) as library:
                others.append(library.read())
        return cls(stack, reference, folder / "neighbours.h5", tuple(others))


class ScanPoint(NamedTuple):
    """The resolution in a stack of one absorber.

    Attributes:
        thickness: thickness of every absorber, cm.
        value, error: sigma/E of the visible energy, with its standard error.
        showers: number of showers.
    """

    thickness: float
    value: float
    error: float
    showers: int


class StackStudy(NamedTuple):
    """Derivatives of a stack and the scan of its absorbers.

    Attributes:
        design: the stack.
        gradient: derivatives of the visible energy and of its resolution, beside Geant4's.
        scan, geant4: resolution against the thickness of the absorbers.
    """

    design: SamplingDesign
    gradient: StackGradientResult
    scan: list[ScanPoint]
    geant4: list[ScanPoint]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        scan = {name: [each._asdict() for each in getattr(self, name)] for name in ("scan", "geant4")}
        return self.gradient.to_dict() | {"resolution": scan}


def study_stack(
    surrogate: Surrogate, showers: StackShowers, effort: StackSettings, progress: StageProgress
) -> StackStudy:
    """Compute the derivatives at the stack of the showers, and scan its absorbers.

    Args:
        surrogate: a surrogate of stacks of plates.
        showers: Geant4 showers to compare with.
        effort: sizes of derivatives and scan.
        progress: called after each part.
    """
    design, beam = SamplingDesign.of_stack(showers.stack), ParticleBeam(PARTICLE)
    gradient = stack_gradient(
        surrogate, design, (ENERGY,), StackObjective((MeanEnergy(), VisibleResolution()), beam=beam),
        reference=showers.neighbours, showers=effort.draw, draws=effort.draws,
        progress=lambda stage, done, total: progress(f"derivatives: {stage}", done, total),
    )  # fmt: skip
    at_energy = showers.reference.rows(np.flatnonzero(np.isclose(showers.reference.energy, ENERGY)))
    geant4 = sorted(_measure(each.absorber_thickness[0], each.visible) for each in (at_energy, *showers.others))
    scan = []
    for number, thickness in enumerate(np.linspace(geant4[0].thickness, geant4[-1].thickness, effort.thicknesses)):
        progress("scan", number, effort.thicknesses)
        stack = SamplingDesign(
            design.absorber, design.active, float(thickness), design.active_thickness, design.n_layers
        )  # fmt: skip
        with torch.inference_mode():
            made = surrogate.sample(
                stack, ENERGY, effort.showers, particle=PARTICLE, layers_only=True,
                generator=torch.Generator().manual_seed(number),
            )  # fmt: skip
        scan.append(_measure(thickness, made.active.sum(1).numpy()))
    progress("scan", effort.thicknesses, effort.thicknesses)
    return StackStudy(design, gradient, scan, geant4)


def _measure(thickness: float, visible: np.ndarray) -> ScanPoint:
    """Return the resolution of visible energies, shape (n,), GeV."""
    return ScanPoint(float(thickness), *relative_spread(visible), len(visible))
