"""An optimisation of a design: its configuration, its folder, and how it runs.

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

    [descent]                    # see calograd.optimisation.ascent
    steps = 30
    showers = 200                # of every energy in a check
    survey = 24                  # designs elsewhere that the surrogate is asked for in the end

    [check]                      # left out: no check against Geant4
    library = "library.h5"       # or simulate = true

    [adapt]                      # for a detector that the surrogate does not know: see calograd.optimisation.adaptive
    budget = 1000

A run is a folder: ``config.json`` (resolved), ``descent.json`` (state and history), ``report.html``; with adaptation
``adapters/step-NNN``, with simulated checks ``showers``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from calograd.detector.material import Material
from calograd.diffusion.progressive import NAME as PROGRESSIVE_NAME
from calograd.diffusion.samplers import SAMPLERS
from calograd.errors import FormatError, InputError, OutputExistsError
from calograd.events.library.reader import open_library
from calograd.gradients.autodiff import GradientEstimate, surrogate_gradient
from calograd.io.differences import bring_up_to_date, first_difference
from calograd.io.hdf5 import one_writer, write_whole
from calograd.io.toml import Table, parse_table
from calograd.objective.config import ObjectiveConfig
from calograd.objective.constraints import Array
from calograd.objective.reference import LibraryReference
from calograd.objective.space import DesignSpace, SpaceConfig, check_trained_range
from calograd.objective.utility import Objective
from calograd.optimisation.adaptive import AdaptationConfig, AdaptiveSurrogate, Tell
from calograd.optimisation.ascent import Adaptation, Adapted, AscentConfig, ascend
from calograd.optimisation.simulated_objective import SimulatedObjective, Source, from_geant4, from_library
from calograd.optimisation.state import State, Step
from calograd.surrogate import Card, Surrogate

CONFIG, DESCENT = "config.json", "descent.json"
MOVED = {"check.showers": "descent.showers"}
"""Keys of older releases, and where they are now."""


class GradientConfig(Table):
    """How gradients are taken."""

    showers: Annotated[int, Field(gt=0)] = 1000
    """Generated of every energy in a draw."""
    sampler: str | None = None
    """Left out: the surrogate's own."""
    steps: Annotated[int, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _check(self) -> GradientConfig:
        allowed = [*(name for name, sampler in SAMPLERS.items() if sampler.order > 0), PROGRESSIVE_NAME]
        if self.sampler is not None and self.sampler not in allowed:
            raise ValueError(f"sampler = '{self.sampler}': expected one of {', '.join(allowed)}")
        return self


class CheckConfig(Table):
    """What the surrogate's word is checked with."""

    library: Path | None = None
    """A shower library of the spectrum's energies, never trained on."""
    simulate: bool = False
    """Simulate the showers of a check when it comes."""
    workers: Annotated[int, Field(gt=0)] = 1
    replicas: Annotated[int, Field(gt=0)] = 4
    """Backgrounds that each shower is seen with."""

    @model_validator(mode="after")
    def _check(self) -> CheckConfig:
        if (self.library is None) == (not self.simulate):
            raise ValueError("give either library = FILE or simulate = true")
        return self


class OptimiseConfig(ObjectiveConfig):
    """A whole optimisation: an objective with what may change and how."""

    space: SpaceConfig
    gradient: GradientConfig = GradientConfig()
    descent: AscentConfig = AscentConfig()
    check: CheckConfig | None = None
    adapt: AdaptationConfig | None = None
    """The detector, where it is not the surrogate's."""


def parse_optimisation(raw: dict[str, Any], source: str, folder: Path) -> OptimiseConfig:
    """Check a configuration; ``source`` is named in errors, paths are relative to ``folder``.

    Raises:
        InputError: an unknown key (with the nearest valid name) or a value that does not fit.
    """
    config = parse_table(OptimiseConfig, bring_up_to_date(raw, source, MOVED), source)
    changes: dict[str, Any] = {"background": config.located(folder).background}
    if config.check is not None and config.check.library is not None:
        changes["check"] = config.check.model_copy(update={"library": (folder / config.check.library).resolve()})
    return config.model_copy(update=changes)


@dataclass(frozen=True)
class Setup:
    """What a configuration and a surrogate make together.

    Args:
        surrogate: what gives gradients.
        config: of the run.
        objective: to be made large.
        space: of the designs, of the material of their detector.
        start: parameters at the start, cm.
        target: the detector to adapt to on the way; None: the surrogate's own.
    """

    surrogate: Surrogate
    config: OptimiseConfig
    objective: Objective
    space: DesignSpace
    start: Array
    target: AdaptationConfig | None = None

    @classmethod
    def of(cls, surrogate: Surrogate, config: OptimiseConfig, adapt: bool = False) -> Setup:
        """Check that they fit.

        Args:
            surrogate: what gives gradients, or what is adapted.
            config: of the run.
            adapt: follow the detector of its table ``adapt``. A table without that is refused, since the design would
                be of another detector than the table says.

        Raises:
            InputError: a surrogate of maps, a sampler that it cannot take, bounds or energies beyond the trained range,
                budgets that cannot be met, a start outside; adaptation without a table for it, or a table without
                adaptation.
            FormatError: a background map that cannot be used.
        """
        if adapt and config.adapt is None:
            raise InputError("adaptation needs a table [adapt] with the detector and a budget; add it, or omit --adapt")
        if config.adapt is not None and not adapt:
            raise InputError("the configuration has a table [adapt]; add --adapt to follow it, or remove the table")
        a, card, target = surrogate.model.architecture, surrogate.card, config.adapt
        if card.kind != "cells":
            raise InputError(f"{card.name} generates maps; expected a surrogate of cells")
        surrogate.model.walk(config.gradient.sampler, config.gradient.steps)  # complains
        material = (target.detector.material if target else None) or config.space.material
        space = config.space.space(Material.parse(material) if material else card.substance(), a.n_xy, a.n_z)
        check_trained_range(space, surrogate)
        low, high = card.energy
        outside = [f"{e:g}" for e in config.spectrum.energies if not low * (1 - 1e-4) <= e <= high * (1 + 1e-4)]
        if outside:
            raise InputError(
                f"spectrum.energies: {', '.join(outside)} GeV are outside of {low:g} to {high:g} GeV, which "
                f"{card.name} was trained on; leave them out"
            )
        start = config.space.start_values()
        space.check_start(start)
        setup = cls(surrogate, config, config.build(), space, start, target)
        if target is not None:
            setup.follower(Path())  # complains
        return setup

    def gradient(self, y: Array, draws: int, seed: int) -> GradientEstimate:
        """The surrogate's, see `calograd.gradients.estimates.Gradient`."""
        g = self.config.gradient
        return surrogate_gradient(
            self.surrogate, self.objective, self.space, y, showers=g.showers, draws=draws, seed=seed,
            sampler=g.sampler, steps=g.steps,
        )  # fmt: skip

    def trials(self, folder: Path) -> SimulatedObjective | None:
        """Geant4's word, if it is asked for; ``folder`` keeps what is simulated."""
        check = self.config.check
        if check is None:
            return None
        if check.library is not None:
            with open_library(check.library) as library:
                if self.target is not None:
                    self.target.check_library(library, self.space)
                source: Source = from_library(
                    LibraryReference(library, self.objective.energies, self.space.n_xy, self.space.n_z)
                )
        else:
            source = from_geant4(folder, self.objective, self.space, target=self.target, workers=check.workers)
        serves_all = check.library is not None or self.target is None or self.target.serves_all
        return SimulatedObjective(source, self.objective, self.space, check.replicas, serves_all=serves_all)

    def follower(self, folder: Path, price: int = 0, tell: Tell = lambda stage, done, total: None) -> AdaptiveSurrogate:  # noqa: ARG005
        """What adapts the surrogate; of a setup with a target.

        Args:
            folder: of the run.
            price: showers of a check.
            tell: called with what is being done.
        """
        assert self.target is not None
        energies = self.target.energies or self.objective.energies
        return AdaptiveSurrogate(self.surrogate, self.target, self.space, energies, folder, price, tell)


def optimise(
    setup: Setup,
    output: Path,
    trials: SimulatedObjective | None,
    on_step: Callable[[Step], None] | None = None,
    tell: Tell = lambda stage, done, total: None,  # noqa: ARG005
) -> State:
    """Run an optimisation, or go on with the one in ``output``.

    Args:
        setup: what is optimised.
        output: folder of the run.
        trials: that check the surrogate; None: none.
        on_step: called after every step.
        tell: called with what an adaptation is doing.

    Raises:
        OutputExistsError: ``output`` holds a run of another configuration or surrogate.
        InputError: it cannot be written, or what `ascend` refuses.
        Interrupted: Ctrl-C; the same call goes on.
    """
    g = setup.config.gradient
    config = setup.config.model_dump(mode="json", exclude=set() if setup.target else {"adapt"})
    config["gradient"]["sampler"] = setup.surrogate.model.walk(g.sampler, g.steps).sampler
    resolved = {"surrogate": setup.surrogate.card.model_dump(mode="json"), "config": config}
    content = (json.dumps(resolved, indent=1, sort_keys=True) + "\n").encode()
    with one_writer(output):
        _refuse_other(output / CONFIG, resolved)
        write_whole(output / CONFIG, content)
        return _ascend(setup, output, trials, on_step, tell)


def _refuse_other(path: Path, resolved: dict[str, Any]) -> None:
    """Refuse to go on with a run of something else, naming what differs; the file may be of an older release."""
    if not path.exists():
        return
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        tables = bring_up_to_date(stored["config"], str(path), MOVED)
        before = {
            "surrogate": Card.model_validate(stored["surrogate"]).model_dump(mode="json"),
            "config": parse_table(OptimiseConfig, tables, str(path)).model_dump(mode="json"),
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FormatError(f"{path} is damaged or of another release ({reason}); choose another output") from error
    found = first_difference(resolved, before)
    if found:
        raise OutputExistsError(
            f"{path.parent} holds a run of another configuration or surrogate: {found.name} is {found.mine!r}, was "
            f"{found.theirs!r}; choose another output"
        )


def _ascend(
    setup: Setup, output: Path, trials: SimulatedObjective | None, on_step: Callable[[Step], None] | None, tell: Tell
) -> State:
    """See `optimise`."""
    gradient = _adaptation(setup, output, trials, tell) if setup.target else setup.gradient
    return ascend(
        setup.space, setup.start, gradient, setup.config.descent,
        simulate_pair=trials.difference if trials else None, output=output / DESCENT, on_step=on_step,
    )  # fmt: skip


def _adaptation(setup: Setup, output: Path, trials: SimulatedObjective | None, tell: Tell) -> Adaptation:
    """What the descent asks before every gradient."""
    assert setup.target is not None
    price = trials.price(setup.config.descent.showers) if trials else 0
    follower = setup.follower(output, price, tell)

    def prepare(y: Array, state: State) -> Adapted:
        used = follower.again(state.history) if state.ending else follower.at(y, state.history)
        return Adapted(replace(setup, surrogate=used.surrogate).gradient, used.adapter, used.showers)

    return Adaptation(prepare, setup.target.budget, price)
