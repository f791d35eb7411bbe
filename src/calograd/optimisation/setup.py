"""Configuration, ascent and run folder of an optimisation, the same for every kind of design.

A kind of designs is a `Setup`: `calograd.optimisation.run.CellSetup` for calorimeters of cells,
`calograd.optimisation.stacks.StackSetup` for stacks of plates.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol

from pydantic import Field, model_validator

from calograd.detector.particles import ParticleBeam
from calograd.diffusion.progressive import NAME as PROGRESSIVE_NAME
from calograd.diffusion.samplers import SAMPLERS
from calograd.errors import FormatError, InputError, OutputExistsError
from calograd.gradients.estimates import GradientEstimate, GradientFunction, SimulatedUtility
from calograd.gradients.landscape import Landscape
from calograd.gradients.spectra import Spectrum
from calograd.io.files import one_writer, write_whole
from calograd.io.toml import Table, first_difference
from calograd.objective.constraints import Array
from calograd.objective.space import ParameterSpace
from calograd.objective.stacks import StackObjective
from calograd.objective.utility import Objective
from calograd.optimisation.adaptive import AdaptationConfig
from calograd.optimisation.ascent import Adaptation, AscentConfig, ascend
from calograd.optimisation.state import State, Step
from calograd.surrogate import Surrogate
from calograd.system.progress import StageProgress, silent

CONFIG, STATE, SHOWERS = "config.json", "ascent.json", "showers"
"""Files and folders of a run: resolved configuration, state with history, simulated showers."""
FORMER_STATE = "descent.json"
"""Name of the state in runs of version 0.1, which are refused."""


class GradientConfig(Table):
    """Table of the surrogate's gradients."""

    showers: Annotated[int, Field(gt=0)] = 1000
    """Showers of every energy generated in a draw."""
    sampler: str | None = None
    """Name of the sampler; left out: the surrogate's own."""
    steps: Annotated[int, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _check(self) -> GradientConfig:
        allowed = [*(name for name, sampler in SAMPLERS.items() if sampler.order > 0), PROGRESSIVE_NAME]
        if self.sampler is not None and self.sampler not in allowed:
            raise ValueError(f"sampler = '{self.sampler}': expected one of {', '.join(allowed)}")
        return self


class RunConfig(Protocol):
    """Tables that the configuration of every optimisation has."""

    @property
    def gradient(self) -> GradientConfig:
        """Gradients of the surrogate."""
        ...

    @property
    def ascent(self) -> AscentConfig:
        """Settings of the ascent."""
        ...

    def model_dump(self, *, mode: str, exclude: set[str]) -> dict[str, Any]:
        """Return plain data."""
        ...

    def model_dump_json(self, *, indent: int) -> str:
        """Return JSON."""
        ...


class Simulated(Protocol):
    """An objective on showers of Geant4."""

    def price(self, showers: int, designs: int = 2) -> int:
        """Return the number of simulated showers that ``showers`` of every energy cost, by default for a pair."""
        ...

    def value(self, y: Array, showers: int, seed: int) -> SimulatedUtility:
        """Return the utility at y, shape (p,), cm, on ``showers`` showers of every energy."""
        ...

    def difference(self, a: Array, b: Array, showers: int, seed: int) -> SimulatedUtility:
        """Return the utility at b minus that at a, on showers of the same seeds."""
        ...

    def spectra(self, start: Array, end: Array, showers: int, seed: int) -> list[Spectrum]:
        """Return the measured energies at two designs."""
        ...


@dataclass(frozen=True)
class Setup(ABC):
    """An optimisation that is ready to run.

    Args:
        surrogate: gives the gradients.
        config: configuration of the run.
        objective: the utility that is made as large as possible.
        space: space of the designs.
        start: parameters at the start, shape (p,), cm.
        target: the detector to adapt to on the way; None: the surrogate's own.
    """

    surrogate: Surrogate
    config: RunConfig
    objective: Objective | StackObjective
    space: ParameterSpace
    start: Array
    target: AdaptationConfig | None = None
    paired: ClassVar[str]
    """Words for the showers of two compared designs: ``same showers`` or ``same seeds``."""

    @abstractmethod
    def gradient(self, y: Array, draws: int, seed: int, progress: StageProgress = silent) -> GradientEstimate:
        """Return the surrogate's gradient, see `calograd.gradients.estimates.GradientFunction`."""

    @abstractmethod
    def values(self, points: Array, draws: int, seed: int, progress: StageProgress = silent) -> Array:
        """Return the surrogate's utilities, see `calograd.gradients.estimates.ValuesFunction`."""

    @abstractmethod
    def simulated(self, folder: Path, progress: StageProgress = silent) -> Simulated | None:
        """Return the objective on Geant4's showers, if checks are asked for; ``folder`` keeps simulated showers."""

    @abstractmethod
    def followed(
        self, output: Path, simulated: Simulated | None, progress: StageProgress
    ) -> GradientFunction | Adaptation:
        """Return the surrogate's gradient, or with a target the adaptation that gives that of every step."""

    @abstractmethod
    def last_surrogate(self, output: Path, state: State) -> Surrogate:
        """Return the surrogate that the last step used."""

    @abstractmethod
    def spectra(
        self, surrogate: Surrogate, ends: Sequence[Array], seed: int, progress: StageProgress = silent
    ) -> list[Spectrum]:
        """Return the energies that are measured at some designs by the surrogate."""

    @abstractmethod
    def landscapes(self, surrogate: Surrogate, points: int, progress: StageProgress = silent) -> list[Landscape]:
        """Return the utility over two parameters, ``points`` along each; empty where there is no such picture."""

    @abstractmethod
    def sizes(self, y: Array) -> dict[str, Any]:
        """Return the sizes of a design as plain data, by their names, cm."""

    @abstractmethod
    def profiles(self, y: Array) -> dict[str, Array]:
        """Return sizes of every layer that a report draws, shape (n_layers,), cm; empty where there are none."""

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """Return what a design is judged by as texts, by their names."""

    @property
    @abstractmethod
    def beam(self) -> ParticleBeam | None:
        """The incident particle; None for photons on the axis."""

    @property
    @abstractmethod
    def detector(self) -> str:
        """The detector in words."""

    @property
    @abstractmethod
    def measured(self) -> str:
        """The energy whose resolution is reported, in words."""

    @property
    @abstractmethod
    def definition(self) -> str:
        """Definition of its resolution, see `calograd.metrics.resolution.DEFINITIONS`."""

    @property
    @abstractmethod
    def utility_unit(self) -> str:
        """Unit of the utility; empty for a pure number."""

    def run(
        self,
        output: Path,
        simulated: Simulated | None,
        on_step: Callable[[Step], None] | None = None,
        progress: StageProgress = silent,
    ) -> State:
        """Run the ascent, or resume the one in ``output``, and return its last state.

        Without ``simulated`` there are no checks. The errors are those of `optimise`.
        """
        g, steps = self.config.gradient, self.config.ascent.steps
        config = self.config.model_dump(mode="json", exclude=set() if self.target else {"adapt"})
        config["gradient"]["sampler"] = self.surrogate.model.sampling_schedule(g.sampler, g.steps).sampler
        resolved = {"surrogate": self.surrogate.card.model_dump(mode="json"), "config": config}
        content = (json.dumps(resolved, indent=1, sort_keys=True) + "\n").encode()

        def stepped(step: Step) -> None:
            progress("steps", step.number + 1, steps)
            if on_step is not None:
                on_step(step)

        if (output / FORMER_STATE).exists():
            raise OutputExistsError(
                f"{output} holds a run of an earlier version ({FORMER_STATE}); choose another output"
            )
        with one_writer(output):
            _refuse_other(output / CONFIG, json.loads(content))
            write_whole(output / CONFIG, content)
            return ascend(
                self.space, self.start, self.followed(output, simulated, progress), self.config.ascent,
                values=partial(self.values, progress=progress),
                simulate_pair=simulated.difference if simulated else None, output=output / STATE, on_step=stepped,
            )  # fmt: skip


def check_energies(surrogate: Surrogate, energies: Sequence[float]) -> None:
    """Raise `InputError` if energies of the spectrum, GeV, are outside of what a surrogate was trained on."""
    low, high = surrogate.card.energy
    outside = [f"{e:g}" for e in energies if not low * (1 - 1e-4) <= e <= high * (1 + 1e-4)]
    if outside:
        raise InputError(
            f"spectrum.energies: {', '.join(outside)} GeV are outside of {low:g} to {high:g} GeV, which "
            f"{surrogate.card.name} was trained on; leave them out"
        )


def _refuse_other(path: Path, resolved: dict[str, Any]) -> None:
    """Refuse to resume a run of another configuration or surrogate, naming the first difference."""
    if not path.exists():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FormatError(f"{path} is damaged ({reason}); choose another output") from error
    if not isinstance(before, dict):
        raise FormatError(f"{path} is damaged (it holds no table); choose another output")
    found = first_difference(resolved, before)
    if found:
        raise OutputExistsError(
            f"{path.parent} holds a run of another configuration or surrogate: {found.name} is {found.mine!r}, was "
            f"{found.theirs!r}; choose another output"
        )
