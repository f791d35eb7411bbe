"""Optimisation of a design: configuration, run folder, result.

    [space]                      # see calograd.objective.space
    parameters = ["dx", "dz"]
    start = { dx = 3.0, dz = 8.0 }
    bounds = { dx = [1.0, 5.0], dz = [4.0, 15.0] }

    [utility]                    # this and the tables beside it: see calograd.objective.config
    kind = "squared-error"
    truth = "incident"

    [spectrum]
    energies = [50]

    [gradient]
    showers = 1000               # generated in a draw

    [ascent]                     # see calograd.optimisation.ascent
    steps = 30
    showers = 200                # of every energy in a check
    multi_start = 24             # other designs that the surrogate judges in the end

    [check]                      # left out: no check against Geant4
    library = "library.h5"       # or simulate = true

    [adapt]                      # for a detector that the surrogate does not know: see calograd.optimisation.adaptive
    budget = 1000

Stacks of plates have a [space] of ``kind = "stack"``, and other tables: see `calograd.optimisation.stacks`.

A run is a folder: ``config.json`` (resolved), ``ascent.json`` (state and history), ``report.html``. With adaptation it
has ``adapters/step-NNN``, with simulated checks ``showers``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from calograd.detector.design import Design
from calograd.detector.material import Material
from calograd.detector.particles import ParticleBeam
from calograd.detector.sampling_design import SamplingDesign
from calograd.errors import InputError, Interrupted
from calograd.events.library.reader import open_library
from calograd.gradients.autodiff import surrogate_gradient, surrogate_values
from calograd.gradients.estimates import GradientEstimate, GradientFunction, SimulatedUtility
from calograd.gradients.gradient import pixels_of
from calograd.gradients.landscape import Landscape, landscapes
from calograd.gradients.spectra import Spectrum, definition_of, surrogate_spectra
from calograd.io.toml import Table, parse_table, read_toml
from calograd.objective.config import ObjectiveConfig
from calograd.objective.constraints import Array
from calograd.objective.reference import LibraryReference
from calograd.objective.space import DesignSpace, SpaceConfig, check_trained_range
from calograd.objective.utility import Objective
from calograd.optimisation.adaptive import AdaptationConfig, AdaptiveSurrogate
from calograd.optimisation.ascent import Adaptation, Adapted, AscentConfig
from calograd.optimisation.setup import SHOWERS, STATE, GradientConfig, Setup, Simulated, check_energies
from calograd.optimisation.simulated_objective import SimulatedObjective, Source, from_geant4, from_library
from calograd.optimisation.stacks import StackOptimiseConfig, StackSetup, parse_stacks
from calograd.optimisation.state import State
from calograd.surrogate import Surrogate, TrainedStacks
from calograd.system.progress import StageProgress, silent

FINAL = 10**6
"""Added to the seed for the comparison of start and result on showers that no check used."""


class CheckConfig(Table):
    """Table of the checks with simulated showers."""

    library: Path | None = None
    """Path of a shower library of the spectrum's energies that no training has used."""
    simulate: bool = False
    """True if the showers of a check are simulated when it is made."""
    workers: Annotated[int, Field(gt=0)] = 1
    replicas: Annotated[int, Field(gt=0)] = 4
    """Number of backgrounds that each shower is seen with."""

    @model_validator(mode="after")
    def _check(self) -> CheckConfig:
        if (self.library is None) == (not self.simulate):
            raise ValueError("give either library = FILE or simulate = true")
        return self


class OptimiseConfig(ObjectiveConfig):
    """Tables of an optimisation: an objective, a space of designs and the method."""

    renamed: ClassVar[dict[str, str]] = {"descent": "ascent"}
    space: SpaceConfig
    gradient: GradientConfig = GradientConfig()
    ascent: AscentConfig = AscentConfig()
    check: CheckConfig | None = None
    adapt: AdaptationConfig | None = None
    """Detector to adapt to, where it is not the surrogate's."""


def parse_optimisation(raw: dict[str, Any], source: str, folder: Path) -> OptimiseConfig:
    """Validate a configuration, see `calograd.objective.config.parse_objective`."""
    config = parse_table(OptimiseConfig, raw, source)
    changes: dict[str, Any] = {"background": config.located(folder).background}
    if config.check is not None and config.check.library is not None:
        changes["check"] = config.check.model_copy(update={"library": (folder / config.check.library).resolve()})
    return config.model_copy(update=changes)


@dataclass(frozen=True)
class CellSetup(Setup):
    """An optimisation of cells that is ready to run.

    Args:
        surrogate, start: see `Setup`.
        config: configuration of the run.
        objective: the utility that is made as large as possible.
        space: space of the designs, with the material of their detector.
        target: the detector to adapt to on the way; None: the surrogate's own.
    """

    config: OptimiseConfig
    objective: Objective
    space: DesignSpace
    paired = "same showers"

    @classmethod
    def of(cls, surrogate: Surrogate, config: OptimiseConfig, adapt: bool = False) -> CellSetup:
        """Return the setup of a surrogate and a configuration that fit each other.

        A table [adapt] without ``adapt`` is refused: the design would be of another detector than the table says.

        Raises:
            InputError: a surrogate of maps, a sampler that it cannot take, bounds or energies beyond the trained range,
                budgets that cannot be met, a start outside; ``adapt`` without a table for it, or the reverse.
            FormatError: a background map that cannot be used.
        """
        if adapt and config.adapt is None:
            raise InputError("adaptation needs a table [adapt] with the detector and a budget; add it, or omit --adapt")
        if config.adapt is not None and not adapt:
            raise InputError("the configuration has a table [adapt]; add --adapt to follow it, or remove the table")
        if isinstance(surrogate.card.trained, TrainedStacks):
            raise InputError(
                f'{surrogate.card.name} is of stacks of plates; give the stack in [space] with kind = "stack", or take '
                "a surrogate of cells, as pbf2-cells"
            )
        a, card, target = surrogate.design_model.architecture, surrogate.card, config.adapt
        if pixels_of(surrogate) is not None:
            raise InputError(f"{card.name} generates maps; expected a surrogate of cells")
        surrogate.model.sampling_schedule(config.gradient.sampler, config.gradient.steps)  # raises if they do not fit
        material = (target.detector.material if target else None) or config.space.material
        cells = config.space.cells or (a.n_xy, a.n_z)
        space = config.space.space(Material.parse(material) if material else card.designs.material, *cells)
        check_trained_range(space, surrogate)
        check_energies(surrogate, config.spectrum.energies)
        start = config.space.start_values()
        space.check_start(start)
        card.designs.check(card.name, space.design(start), card.architecture)  # raises for another window
        setup = cls(surrogate, config, config.build(), space, start, target)
        if target is not None:
            setup.follower(Path())  # raises if the table does not fit
        return setup

    def gradient(self, y: Array, draws: int, seed: int, progress: StageProgress = silent) -> GradientEstimate:
        """Return the surrogate's gradient, see `calograd.gradients.estimates.GradientFunction`."""
        g = self.config.gradient
        return surrogate_gradient(
            self.surrogate, self.objective, self.space, y, showers=g.showers, draws=draws, seed=seed,
            sampler=g.sampler, steps=g.steps, progress=partial(progress, "gradient"),
        )  # fmt: skip

    def values(self, points: Array, draws: int, seed: int, progress: StageProgress = silent) -> Array:
        """Return the surrogate's utilities, see `calograd.gradients.estimates.ValuesFunction`."""
        g = self.config.gradient
        found, _ = surrogate_values(
            self.surrogate, self.objective, self.space, points, gradients=False, showers=g.showers, draws=draws,
            seed=seed, sampler=g.sampler, steps=g.steps, progress=partial(progress, "multi-start"),
        )  # fmt: skip
        mean: Array = found.mean(0)
        return mean

    def simulated(self, folder: Path, progress: StageProgress = silent) -> SimulatedObjective | None:
        """Return the objective on Geant4's showers, see `Setup.simulated`."""
        check = self.config.check
        if check is None:
            return None
        if check.library is not None:
            with open_library(check.library) as library:
                if self.target is not None:
                    self.target.check_library(library, self.space)
                beam = self.objective.beam if self.surrogate.model.takes_particles else None
                source: Source = from_library(
                    LibraryReference(library, self.objective.energies, self.space.n_xy, self.space.n_z, beam=beam)
                )
        else:
            source = from_geant4(
                folder, self.objective, self.space, target=self.target, workers=check.workers, progress=progress
            )
        serves_all = check.library is not None or self.target is None or self.target.detector.serves_all
        return SimulatedObjective(
            source, self.objective, self.space, check.replicas, serves_all=serves_all,
            progress=partial(progress, "check"),
        )  # fmt: skip

    def follower(self, folder: Path, price: int = 0, progress: StageProgress = silent) -> AdaptiveSurrogate:
        """Return the surrogate that adapts to the target on the way, see `AdaptiveSurrogate`."""
        if self.target is None:
            raise InputError("the configuration has no table [adapt]; add one with the detector and a budget")
        energies = self.target.energies or self.objective.energies
        return AdaptiveSurrogate(self.surrogate, self.target, self.space, energies, folder, price, progress)

    def followed(
        self, output: Path, simulated: Simulated | None, progress: StageProgress
    ) -> GradientFunction | Adaptation:
        """Return the surrogate's gradient, or an adaptation, see `Setup.followed`."""
        if self.target is None:
            return partial(self.gradient, progress=progress)
        price = simulated.price(self.config.ascent.showers) if simulated else 0
        follower = self.follower(output, price, progress)

        def prepare(y: Array, state: State) -> Adapted:
            used = follower.again(state.history) if state.ending else follower.at(y, state.history)
            adapted = replace(self, surrogate=used.surrogate)
            gradient, values = (
                partial(adapted.gradient, progress=progress),
                partial(adapted.values, progress=progress),
            )
            return Adapted(gradient, used.adapter, used.showers, values)

        return Adaptation(prepare, self.target.budget, price)

    def last_surrogate(self, output: Path, state: State) -> Surrogate:
        """Return the surrogate that the last step used."""
        return self.surrogate if self.target is None else self.follower(output).last(state.history)

    def spectra(
        self, surrogate: Surrogate, ends: Sequence[Array], seed: int, progress: StageProgress = silent
    ) -> list[Spectrum]:
        """Return the energies that are measured at some designs, see `Setup.spectra`."""
        g = self.config.gradient
        return surrogate_spectra(
            surrogate, self.objective, [self.space.design(y) for y in ends], showers=g.showers, seed=seed,
            sampler=g.sampler, steps=g.steps, progress=partial(progress, "spectra"),
        )  # fmt: skip

    def landscapes(self, surrogate: Surrogate, points: int, progress: StageProgress = silent) -> list[Landscape]:
        """Return the utility over dx and dz, see `Setup.landscapes`."""
        if points < 2 or len(self.space.names) != 2:
            return []
        return landscapes(
            surrogate, self.objective, material=self.space.material, points=points,
            cells=(self.space.n_xy, self.space.n_z), seed=self.config.ascent.seed, progress=progress,
        )  # fmt: skip

    def sizes(self, y: Array) -> dict[str, Any]:
        """Return the parameters by their names."""
        return dict(zip(self.space.names, map(float, y), strict=True))

    def profiles(self, y: Array) -> dict[str, Array]:  # noqa: ARG002 - cells have no such figure
        """Return nothing: see `Setup.profiles`."""
        return {}

    def describe(self) -> dict[str, str]:
        """Return utility, background, readout and mask in words."""
        return self.objective.describe()

    @property
    def beam(self) -> ParticleBeam | None:
        """The incident particle, of the target or of the objective."""
        if self.target is None and not self.surrogate.model.takes_particles:
            return None
        beam: ParticleBeam = self.objective.beam if self.target is None else self.target.beam.build()
        return beam

    @property
    def detector(self) -> str:
        """The material."""
        return self.space.material.name

    @property
    def measured(self) -> str:
        """See `Setup.measured`."""
        return "the measured energy"

    @property
    def definition(self) -> str:
        """See `Setup.definition`."""
        return definition_of(self.objective)

    @property
    def utility_unit(self) -> str:
        """See `Setup.utility_unit`."""
        return str(getattr(self.objective.utility, "unit", ""))


@dataclass(frozen=True)
class OptimisationResult:
    """Result of an optimisation.

    Args:
        setup: surrogate, configuration, objective, space and start.
        state: last state, with the parameters ``y`` of the result and the history.
        start, end: Geant4's utility of the first and the last design; None without checks.
        gain: Geant4's utility of the last design minus that of the first, on showers of the same
            seeds; None without checks.
        spectra: measured energies at the first and the last design.
        landscapes: the utility over dx and dz; empty for more parameters.
    """

    setup: Setup
    state: State
    start: SimulatedUtility | None = None
    end: SimulatedUtility | None = None
    gain: SimulatedUtility | None = None
    spectra: tuple[Spectrum, ...] = ()
    landscapes: tuple[Landscape, ...] = ()

    @property
    def design(self) -> Design | SamplingDesign:
        """The optimised design."""
        made: Design | SamplingDesign = self.setup.space.design(np.array(self.state.y))
        return made

    @property
    def adapted_showers(self) -> int:
        """Number of showers that were simulated to adapt the surrogate."""
        return sum(step.adaptation for step in self.state.history)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        setup, state = self.setup, self.state
        made: dict[str, Any] = {
            "objective": setup.describe(),
            "start": setup.sizes(setup.start), "design": setup.sizes(np.array(state.y)),
            "steps": len(state.history), "reason": state.reason, "simulated_showers": state.simulated,
            "utility": {"first": state.history[0].value, "last": state.history[-1].value},
        }  # fmt: skip
        if setup.target is not None:
            made["adaptation"] = {
                "showers": self.adapted_showers, "budget": setup.target.budget, "adapter": state.history[-1].adapter,
            }  # fmt: skip
        known = {"start": self.start, "result": self.end, "gain": self.gain}
        if self.gain is not None:
            made["geant4"] = {name: each._asdict() for name, each in known.items() if each is not None}
        made["spectra"] = [each.to_dict(("start", "result")) for each in self.spectra]
        return made


def optimise(
    surrogate: Surrogate | str | Path,
    config: OptimiseConfig | StackOptimiseConfig | Mapping[str, Any] | str | Path,
    output: str | Path,
    *,
    adapt: bool = False,
    landscape: int = 9,
    progress: StageProgress = silent,
) -> OptimisationResult:
    """Improve a design along a surrogate's gradients, with checks on Geant4's showers; resume a run in ``output``.

    Args:
        surrogate: a surrogate of cells or of stacks of plates, its bundled name or its folder.
        config: the tables of this module, a TOML file that holds them, or the parsed configuration.
        output: folder of the run.
        adapt: True to adapt the surrogate to the detector of the table [adapt] on the way.
        landscape: points along each axis of the utility over dx and dz; 0: none. Stacks have none.
        progress: called with the stages of the work: "steps", "gradient", "check", "landscape, surrogate", ...

    Raises:
        OutputExistsError: ``output`` holds a run of another configuration or surrogate.
        InputError: a configuration or a surrogate that does not fit, or a folder that cannot be written.
        Interrupted: Ctrl-C; the same call goes on.
    """
    output = Path(output)
    if not isinstance(surrogate, Surrogate):
        surrogate = Surrogate.load(surrogate)
    if isinstance(config, str | Path):
        config = parse_run(read_toml(Path(config)), str(config), Path(config).parent)
    elif isinstance(config, Mapping):
        config = parse_run(dict(config), "configuration", Path())
    setup = set_up(surrogate, config, adapt)
    try:
        return _run(setup, output, landscape, progress)
    except (Interrupted, KeyboardInterrupt):
        if not (output / STATE).exists():
            raise
        raise Interrupted(f"{output} holds what is finished; the same command resumes it") from None


def _run(setup: Setup, output: Path, landscape: int, progress: StageProgress) -> OptimisationResult:
    """Run the ascent, then compare its result with the start."""
    simulated = setup.simulated(output / SHOWERS, progress)
    state = setup.run(output, simulated, progress=progress)
    surrogate = setup.last_surrogate(output, state)
    end, showers, seed = np.array(state.y), setup.config.ascent.showers, setup.config.ascent.seed + FINAL
    result = OptimisationResult(setup, state)
    spectra = setup.spectra(surrogate, (setup.start, end), seed, progress)
    if simulated is not None:
        result = replace(
            result, start=simulated.value(setup.start, showers, seed), end=simulated.value(end, showers, seed),
            gain=simulated.difference(setup.start, end, showers, seed),
        )  # fmt: skip
        spectra += simulated.spectra(setup.start, end, showers, seed)
    drawn = setup.landscapes(surrogate, landscape, progress)
    return replace(result, spectra=tuple(spectra), landscapes=tuple(drawn))


def parse_run(raw: dict[str, Any], source: str, folder: Path) -> OptimiseConfig | StackOptimiseConfig:
    """Validate the configuration of an optimisation of cells or of stacks of plates, as its [space] says.

    Raises:
        InputError: see `calograd.objective.config.parse_objective`.
    """
    space = raw.get("space")
    table = space if isinstance(space, dict) else {}
    if "kind" not in table:
        stack = [key for key in ("absorber", "active", "layers") if key in table]
        if stack:
            raise InputError(f'{source}: space.{stack[0]} is of a stack of plates; add kind = "stack" to [space]')
        return parse_optimisation(raw, source, folder)
    if table["kind"] != "stack":
        raise InputError(f'{source}: space.kind = {table["kind"]!r}: expected "stack"; leave it out for cells')
    return parse_stacks(raw, source)


def set_up(surrogate: Surrogate, config: OptimiseConfig | StackOptimiseConfig, adapt: bool = False) -> Setup:
    """Return the setup of a surrogate and a configuration that fit each other.

    Raises:
        InputError: see `CellSetup.of` and `StackSetup.of`.
        FormatError: a background map that cannot be used.
    """
    if isinstance(config, OptimiseConfig):
        return CellSetup.of(surrogate, config, adapt)
    if adapt:
        raise InputError(
            "--adapt is for cells; adapt a surrogate of stacks to its detector with calograd adapt, and optimise with "
            "that"
        )
    return StackSetup.of(surrogate, config)
