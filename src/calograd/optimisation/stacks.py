"""Optimisation of stacks of plates: the thicknesses of absorbers and active plates, for the best energy resolution.

    [space]                      # see calograd.objective.stack_space
    kind = "stack"
    absorber = "Pb"
    active = "lAr"
    layers = 40
    start = { absorber = 0.2, active = 0.4 }
    bounds = { absorber = [0.1, 0.4], active = [0.2, 0.6] }
    max_depth = 24.0             # cm

    [utility]
    kind = "visible-resolution"  # "learnt-resolution": weights of the layers are refitted for every stack

    [beam]
    particle = "e-"              # "gamma", "e+"
    theta = 20                   # degrees

    [spectrum]
    energies = [2, 10]           # GeV
    weights = [1, 1]

    [check]                      # left out: no check against Geant4
    simulate = true
    workers = 2

[gradient] and [ascent] are those of `calograd.optimisation.run`. The utility is minus the mean of the logarithm of
sigma/E over the spectrum, so a difference of 0.1 is a resolution that is better by a tenth.

Geant4's showers of one stack serve that stack alone. A check simulates as many for each of two stacks, from the same
seeds; they have nothing in common after the first plate, so the error of the gain is that of two independent
resolutions: some 1 / sqrt(n) for n showers of every energy and stack. Weights of the layers are refitted to Geant4's
showers of each stack.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field, model_validator

from calograd.detector.configuration import Beam, Energies, SimulationConfig
from calograd.detector.material import to_float
from calograd.detector.particles import ParticleBeam, Particles
from calograd.detector.sampling_design import SamplingDesign
from calograd.errors import InputError
from calograd.events.layer_energies import LayerEnergies
from calograd.events.library.reader import open_plates
from calograd.geant4.production import hold
from calograd.gradients.autodiff import SHOWERS as SHOWER_KEY
from calograd.gradients.estimates import GradientEstimate, GradientFunction, SimulatedUtility
from calograd.gradients.landscape import Landscape
from calograd.gradients.simulated_stacks import StackShowers
from calograd.gradients.spectra import DRAW, GEANT4, Spectrum
from calograd.gradients.stacks import generate_stacks, resolution_utility, resolution_values
from calograd.io.toml import Table, parse_table
from calograd.objective.config import StackObjectiveConfig
from calograd.objective.constraints import Array
from calograd.objective.reference import RELATIVE
from calograd.objective.stack_space import StackSpace, StackSpaceConfig, check_trained_stacks
from calograd.objective.stacks import LearntResolution, StackObjective, reconstruct
from calograd.optimisation.ascent import AscentConfig
from calograd.optimisation.setup import GradientConfig, Setup, Simulated, check_energies
from calograd.optimisation.state import State
from calograd.optimisation.target import simulate
from calograd.surrogate import Surrogate
from calograd.system.progress import StageProgress, silent

BOOTSTRAPS = 200
"""Number of resamples behind the errors of resolutions on Geant4's showers."""
_OF_CELLS = {
    "background": "plates have no background; leave it out",
    "readout": "energies of plates are read as they are; leave it out",
    "mask": "plates have no background; leave it out",
    "cost": "limit the stack in [space] with max_depth, max_absorber or max_active",
    "pricing": "limit the stack in [space] with max_depth, max_absorber or max_active",
    "adapt": "adapt the surrogate to its detector with calograd adapt, and optimise with that",
    "check.library": "Geant4's showers of one stack serve that stack alone; give simulate = true",
    "check.replicas": "plates have no background; leave it out",
    "beam.position": "plates are wide, so the entry changes nothing; leave it out",
    "beam.phi": "plates are wide, so the azimuth changes nothing; leave it out",
    "beam.unit": "plates are wide, so the entry changes nothing; leave it out",
}
"""Tables and keys that are for cells alone, and what to do instead."""


class StackCheckConfig(Table):
    """Table of the checks with simulated showers."""

    simulate: bool = False
    """True: the showers of a check are simulated when it is made, as no others serve."""
    workers: Annotated[int, Field(gt=0)] = 1

    @model_validator(mode="after")
    def _check(self) -> StackCheckConfig:
        if not self.simulate:
            raise ValueError("give simulate = true, or leave the table out for no checks")
        return self


class StackOptimiseConfig(StackObjectiveConfig):
    """Tables of an optimisation of a stack of plates."""

    renamed: ClassVar[dict[str, str]] = {"descent": "ascent"}
    space: StackSpaceConfig
    gradient: GradientConfig = GradientConfig()
    ascent: AscentConfig = AscentConfig()
    check: StackCheckConfig | None = None


def parse_stacks(raw: dict[str, Any], source: str) -> StackOptimiseConfig:
    """Validate a configuration of a stack; ``source`` is named in errors.

    Raises:
        InputError: a table that is for cells alone, an unknown key (with the nearest valid name) or a value that does
            not fit.
    """
    for name, how in _OF_CELLS.items():
        table, _, key = name.partition(".")
        if table in raw and (not key or (isinstance(raw[table], dict) and key in raw[table])):
            raise InputError(f"{source}: {name} is for cells and does not apply to a stack of plates: {how}")
    return parse_table(StackOptimiseConfig, raw, source)


@dataclass(frozen=True)
class StackSetup(Setup):
    """An optimisation of a stack of plates that is ready to run.

    Args:
        surrogate, start, target: see `Setup`; no target.
        config: configuration of the run.
        objective: one resolution, energies and beam.
        space: thicknesses that may change.
    """

    config: StackOptimiseConfig
    objective: StackObjective
    space: StackSpace
    paired = "same seeds"

    @classmethod
    def of(cls, surrogate: Surrogate, config: StackOptimiseConfig) -> StackSetup:
        """Return the setup of a surrogate and a configuration that fit each other.

        Raises:
            InputError: a surrogate of something else than stacks, a sampler that it cannot take, a budget that cannot
                be met, a start or bounds outside, too few showers for learnt weights.
            RangeError: materials, layers, gaps, particles, angles or energies that the surrogate was not trained on.
        """
        if surrogate.card.trained.designs_of != "stacks":
            raise InputError(
                f'{surrogate.card.name} is of no stacks of plates, as [space] asks (kind = "stack"); take a '
                "surrogate of stacks, as sampling-fast"
            )
        surrogate.model.sampling_schedule(config.gradient.sampler, config.gradient.steps)  # raises if they do not fit
        objective, space = config.build(), config.space.space()
        check_energies(surrogate, config.spectrum.energies)
        space.check_start(space.start)
        _check_trained(surrogate, space, objective)
        for table, showers in (("gradient", config.gradient.showers), ("ascent", config.ascent.showers)):
            _check_showers(table, showers, space, objective)
        return cls(surrogate, config, objective, space, space.start)

    @property
    def _sampling(self) -> dict[str, Any]:
        g = self.config.gradient
        return {"showers": g.showers, "sampler": g.sampler, "steps": g.steps, "weights": self.config.spectrum.weights}

    def gradient(self, y: Array, draws: int, seed: int, progress: StageProgress = silent) -> GradientEstimate:
        """Return the surrogate's gradient, see `calograd.gradients.estimates.GradientFunction`."""
        found = resolution_utility(
            self.surrogate, self.space, self.objective, **self._sampling,
            progress=lambda _, done, total: progress("gradient", done, total),
        )(y, draws, seed)  # fmt: skip
        assert isinstance(found, GradientEstimate)
        return found

    def values(self, points: Array, draws: int, seed: int, progress: StageProgress = silent) -> Array:
        """Return the surrogate's utilities, see `calograd.gradients.estimates.ValuesFunction`."""
        values = resolution_values(
            self.surrogate, self.space, self.objective, **self._sampling, progress=partial(progress, "multi-start")
        )
        return values(points, draws, seed)

    def simulated(self, folder: Path, progress: StageProgress = silent) -> SimulatedStacks | None:
        """Return the objective on Geant4's showers, see `Setup.simulated`."""
        check = self.config.check
        if check is None:
            return None
        options = {"workers": check.workers, "progress": progress}
        return SimulatedStacks(folder, self.objective, self.space, self.config.spectrum.weights, options)

    def followed(
        self,
        output: Path,  # noqa: ARG002 - the surrogate stays as it is
        simulated: Simulated | None,  # noqa: ARG002
        progress: StageProgress,
    ) -> GradientFunction:
        """Return the surrogate's gradient."""
        return partial(self.gradient, progress=progress)

    def last_surrogate(self, output: Path, state: State) -> Surrogate:  # noqa: ARG002 - it stays as it is
        """Return the surrogate."""
        return self.surrogate

    def spectra(
        self, surrogate: Surrogate, ends: Sequence[Array], seed: int, progress: StageProgress = silent
    ) -> list[Spectrum]:
        """Return the energies that are reconstructed in some stacks by the surrogate, see `Setup.spectra`."""
        g, measured = self.config.gradient, list[list[np.ndarray]]()
        for number, y in enumerate(ends):
            made = generate_stacks(
                surrogate, self.space.design(y), self.objective, g.showers * self.config.ascent.draws,
                (seed, SHOWER_KEY, DRAW), sampler=g.sampler, steps=g.steps,
            )  # fmt: skip
            measured.append(_reconstructed(self.objective, made)[0])
            progress("spectra", number + 1, len(ends))
        return _spectra(surrogate.card.name, self.objective, measured)

    def landscapes(
        self,
        surrogate: Surrogate,  # noqa: ARG002 - stacks have none
        points: int,  # noqa: ARG002
        progress: StageProgress = silent,  # noqa: ARG002
    ) -> list[Landscape]:
        """Return nothing: a landscape is of pitch and depth."""
        return []

    def sizes(self, y: Array) -> dict[str, Any]:
        """Return the thickness of every absorber and of every active plate, and the depth of the stack, cm."""
        of = {kind: each.tolist() for kind, each in self.profiles(y).items()}
        return of | {"depth": to_float(self.space.design(y).depth)}

    def profiles(self, y: Array) -> dict[str, Array]:
        """Return the thickness of every absorber and of every active plate."""
        return self.space.thicknesses(y)

    def describe(self) -> dict[str, str]:
        """Return utility, beam and stack in words."""
        about = self.objective.describe()
        words = {"utility": f"minus the mean logarithm of {about['quantities']}", "beam": about["beam"]}
        gap = self.space.stack.gap_thickness.max().item()
        gaps = f", gaps of {gap:g} cm of {self.space.stack.gap_material.name}" if gap else ""
        return words | {"stack": f"{self.detector}{gaps}"}

    @property
    def beam(self) -> ParticleBeam:
        """The incident particle."""
        return self.objective.beam

    @property
    def detector(self) -> str:
        """Materials and number of layers."""
        stack = self.space.stack
        return f"{stack.n_layers} layers of {stack.absorber.name} and {stack.active.name}"

    @property
    def measured(self) -> str:
        """See `Setup.measured`."""
        learnt = self.config.utility.kind == "learnt-resolution"
        return "the energy with learnt weights of the layers" if learnt else "the visible energy"

    @property
    def definition(self) -> str:
        """See `Setup.definition`."""
        return "std"

    @property
    def utility_unit(self) -> str:
        """A logarithm has no unit."""
        return ""


@dataclass(frozen=True)
class SimulatedStacks:
    """A resolution on Geant4's showers, which are simulated for every stack.

    Args:
        folder: holds a library for every stack and seed, for a run that is resumed.
        objective: one resolution, energies and beam.
        space: space of the stacks.
        weights: weight of every energy; None: all the same.
        options: of `calograd.geant4.production.simulate_library`.
    """

    folder: Path
    objective: StackObjective
    space: StackSpace
    weights: Sequence[float] | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def price(self, showers: int, designs: int = 2) -> int:
        """Return the number of simulated showers that ``showers`` of every energy cost, by default for a pair."""
        return showers * len(self.objective.energies) * designs

    def value(self, y: Array, showers: int, seed: int) -> SimulatedUtility:
        """Return the utility at y, shape (p,), cm, on ``showers`` showers of every energy; its error by bootstrap."""
        value, samples = self._utility(y, showers, seed)
        return SimulatedUtility(value, float(samples.std(ddof=1)), self.price(showers, 1))

    def difference(self, a: Array, b: Array, showers: int, seed: int) -> SimulatedUtility:
        """Return the utility at b minus that at a, on showers of the same seeds."""
        (before, some), (after, others) = (self._utility(y, showers, seed) for y in (a, b))
        return SimulatedUtility(after - before, float((others - some).std(ddof=1)), self.price(showers))

    def spectra(self, start: Array, end: Array, showers: int, seed: int) -> list[Spectrum]:
        """Return the reconstructed energies in two stacks."""
        measured = [_reconstructed(self.objective, self._showers(y, showers, seed))[0] for y in (start, end)]
        return _spectra(GEANT4, self.objective, measured)

    def _utility(self, y: Array, showers: int, seed: int) -> tuple[float, np.ndarray]:
        """Return the utility at y, and that of resamples of the showers, the same ones at every y."""
        measured, factors = _reconstructed(self.objective, self._showers(y, showers, seed))
        values, samples = list[float](), list[np.ndarray]()
        for number, (energies, factor) in enumerate(zip(measured, factors, strict=True)):
            rows = np.random.default_rng([seed, number]).integers(showers, size=(BOOTSTRAPS, showers))
            values.append(_log_spread(energies).item())
            samples.append(values[-1] + factor * (_log_spread(energies[rows]) - values[-1]))
        return -float(np.average(values, 0, self.weights)), -np.average(samples, 0, self.weights)

    def _showers(self, y: Array, showers: int, seed: int) -> list[LayerEnergies]:
        """Return Geant4's showers of every energy in the stack of y, simulated if the folder does not have them."""
        design, energies = self.space.design(y), self.objective.energies
        sizes = np.concatenate(list(self.space.thicknesses(y).values())).astype(np.float32)
        name = hashlib.sha256(sizes.tobytes()).hexdigest()[:12]
        path = self.folder / f"{seed:020d}-{showers}-{name}.h5"
        simulate(path, self._simulation(design, seed), showers * len(energies), **self.options)
        with open_plates(path) as library:
            made = library.read()
        rows = [np.flatnonzero(np.isclose(made.energy, energy, rtol=RELATIVE)) for energy in energies]
        return [StackShowers.of(path.name, made.rows(of)).energies for of in rows]

    def _simulation(self, design: SamplingDesign, seed: int) -> SimulationConfig:
        beam, spectrum = self.objective.beam, Energies(law="discrete", values=self.objective.energies)
        return SimulationConfig(
            detector=hold(design.to_stack(), beam.theta, (0.0, 0.0)),
            beam=Beam(energies=spectrum, particle=beam.particle, theta=beam.theta), seed=seed % 2**31,
        )  # fmt: skip


def _reconstructed(objective: StackObjective, showers: Sequence[LayerEnergies]) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the reconstructed energies of every energy, (n,), GeV, and their factors, see `reconstruct`."""
    with torch.no_grad():
        sums, factors = reconstruct(objective.quantities[0], showers, objective.energies)
    return [each.cpu().numpy() for each in sums], factors.cpu().numpy()


def _spectra(source: str, objective: StackObjective, measured: Sequence[Sequence[np.ndarray]]) -> list[Spectrum]:
    """Return spectra of energies of every design and incident energy."""
    return [
        Spectrum(source, energy, tuple(of_design[number] for of_design in measured))
        for number, energy in enumerate(objective.energies)
    ]


def _log_spread(energies: np.ndarray) -> np.ndarray:
    """Return the logarithm of standard deviation over mean, of energies (..., n)."""
    return np.asarray(np.log(energies.std(-1, ddof=1) / energies.mean(-1)))


def _check_trained(surrogate: Surrogate, space: StackSpace, objective: StackObjective) -> None:
    """Raise `InputError` if the surrogate was not trained on the stack, thicknesses within the bounds, or the beam."""
    card, stack, beam = surrogate.card, space.stack, objective.beam
    trained = card.stacks.thickness_ranges(stack.absorber, stack.active)
    sizes = [
        np.clip(each, *trained[kind]) for kind, each in space.thicknesses(np.array(space.lower)).items()
    ]  # thicknesses have an error of their own
    smallest = SamplingDesign(
        stack.absorber, stack.active, sizes[0], sizes[1], stack.n_layers, stack.gap_material, stack.gap_thickness
    )
    particles = Particles.of(1, beam.particle, (0.0, 0.0), beam.theta, 0.0, torch.zeros(1, dtype=torch.float64))
    problems = [
        *card.stacks.check(card.name, smallest, card.architecture).problems,
        *card.stacks.check_particles(smallest, particles),
    ]
    if problems:
        raise InputError(f"{card.name}: {'; '.join(problems)}; change [space] or [beam], or train on such showers")
    check_trained_stacks(space, surrogate)


def _check_showers(table: str, showers: int, space: StackSpace, objective: StackObjective) -> None:
    """Raise `InputError` if weights of the layers cannot be learnt from the showers of one stack."""
    layers, total = space.stack.n_layers, showers * len(objective.energies)
    if showers < 2 or (isinstance(objective.quantities[0], LearntResolution) and total <= layers):
        least = max(2, -(-(layers + 1) // len(objective.energies)))
        raise InputError(
            f"{table}.showers = {showers} of {len(objective.energies)} energies are too few for a resolution in "
            f"{layers} layers; expected {least} or more"
        )
