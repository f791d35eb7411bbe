"""Adaptation of a surrogate on the way of an ascent, to a detector that it has not seen.

    [adapt]
    budget = 1000                # simulated showers in all, those of checks included
    first = 100                  # showers of every energy before the first gradient
    showers = 20                 # showers of every energy before every later gradient
    designs = 8                  # designs around the present one that measure a shower
    reach = 0.15                 # half the width around it, in ln y
    method = "lora"
    rank = 8
    steps = 1500                 # largest number of steps in a phase of the first adaptation
    later_steps = 300            # and of a later one

The tables of `calograd.optimisation.target` come beside these. Before the gradient at a design y a few showers are
simulated there. The surrogate is adapted to all showers simulated so far, beginning with the last adapter, and gives
the gradient. In a homogeneous block all these showers are measured again, each with designs drawn around y,

    ln y' = ln y + reach (2 xi - 1),  xi uniform for every parameter, within the trained range of the base,

so the adapter learns the showers at y and their change with y. In a crystal matrix a shower keeps the cells that it was
simulated in; the change with y is known from the base and from earlier designs.

Once an adaptation would leave no showers for a check, the last adapter serves to the end. The adapted surrogate has the
detector's material and the base's whole range of energies and sizes, though it was adapted near the path alone. The
radius of the steps and the checks guard against that. A shower that was held out once stays held out, as a warm start
would otherwise be judged by showers that it has learnt.

Every step has a folder ``adapters/step-NNN`` with ``showers.h5`` and the adapter. All random numbers follow from
(seed, step), so an interrupted run resumes with the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field

from calograd.errors import InputError
from calograd.events.dense import Cells
from calograd.events.library.reader import Library, open_library
from calograd.events.segmentation import Designs, measure
from calograd.gradients.estimates import seed_of
from calograd.objective.constraints import Array
from calograd.objective.space import DesignSpace
from calograd.optimisation.state import Step
from calograd.optimisation.target import Target, simulate
from calograd.surrogate import Adapter, Surrogate
from calograd.system.progress import StageProgress, silent
from calograd.training.config import AdaptConfig
from calograd.training.data.rows import Rows, TrainingData
from calograd.training.data.split import MIN_SHOWERS, MIN_VALIDATION
from calograd.training.tasks.adapt import adapt
from calograd.training.tasks.adaptation import refuse_distilled

ADAPTERS, SHOWERS = "adapters", "showers.h5"
PURPOSE = 3
"""Purpose of a seed; the ascent has 0 to 2."""

Positive = Annotated[int, Field(gt=0)]


class AdaptationConfig(Target):
    """Table of the target, the budget and the training."""

    budget: Positive
    """Number of showers to simulate in all, those of checks included."""
    energies: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] | None = None
    """Energies of the showers, GeV, in turn; left out: those of the spectrum."""
    first: Positive = 100
    """Showers of every energy before the first gradient."""
    showers: Positive = 20
    """Showers of every energy before every later gradient."""
    designs: Positive = 8
    """Number of designs that measure a shower; one in a crystal matrix."""
    reach: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Half the width in ln y of the range in which they are drawn."""
    method: Literal["lora", "bitfit", "full"] = "lora"
    rank: Positive = 8
    alpha: Annotated[float, Field(gt=0)] = 16.0
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    steps: Positive = 1500
    later_steps: Positive = 300
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the showers that are held out."""
    workers: Positive = 1
    seed: Annotated[int, Field(ge=0)] = 0

    def training(self, first: bool) -> AdaptConfig:
        """Return the configuration of the first adaptation or of a later one."""
        steps = self.steps if first else self.later_steps
        return AdaptConfig(
            method=self.method, rank=self.rank, alpha=self.alpha, learning_rate=self.learning_rate, range="base",
            steps=steps, location_scale_steps=steps, seed=self.seed,
        )  # fmt: skip


class AdaptedSurrogate(NamedTuple):
    """Surrogate of a step, folder of its adapter within the run's, and number of showers simulated for it."""

    surrogate: Surrogate
    adapter: str
    showers: int


@dataclass(frozen=True)
class AdaptiveSurrogate:
    """A surrogate that is adapted before every gradient of an ascent.

    Args:
        base: surrogate that is adapted.
        config: target, budget and training.
        space: space of the designs, of the target's material.
        energies: energies of the showers, GeV.
        folder: folder of the run.
        price: showers of a check, which adaptation leaves in the budget; 0 without checks.
        progress: called with the stages of simulation and adaptation.

    Raises:
        InputError: a distilled base; a budget, or numbers of showers, that are too small; energies that the base does
            not know; cells without room for crystals.
    """

    base: Surrogate
    config: AdaptationConfig
    space: DesignSpace
    energies: tuple[float, ...]
    folder: Path
    price: int = 0
    progress: StageProgress = silent

    def __post_init__(self) -> None:
        refuse_distilled(self.base)
        c, (low, high) = self.config, self.base.card.energy
        c.detector.check_space(self.space)
        outside = [f"{energy:g}" for energy in self.energies if not low * (1 - 1e-4) <= energy <= high * (1 + 1e-4)]
        if outside:
            raise InputError(
                f"adapt.energies: {', '.join(outside)} GeV are outside of {low:g} to {high:g} GeV, "
                f"which {self.base.card.name} was trained on"
            )
        showers = c.first * len(self.energies)
        if showers > c.budget:
            raise InputError(
                f"adapt.budget = {c.budget} does not pay for the first adaptation: adapt.first = {c.first} showers "
                f"of {len(self.energies)} energies are {showers}"
            )
        if showers < MIN_SHOWERS or self._held(showers) * self._designs < MIN_VALIDATION:
            raise InputError(
                f"adapt.first = {c.first} of {len(self.energies)} energies: {showers} showers, {self._held(showers)} "
                f"of them held out, are too few; expected {MIN_SHOWERS} or more, and {MIN_VALIDATION} rows held out: "
                "raise adapt.first or adapt.validation"
            )

    def at(self, y: Array, history: Sequence[Step]) -> AdaptedSurrogate:
        """Return the surrogate for the gradient at y, shape (p,), cm, after the steps of ``history``.

        Where it is interrupted, simulated showers and the state of training are kept.
        """
        number, adapted = len(history), [step.number for step in history if step.adaptation]
        showers = (self.config.showers if adapted else self.config.first) * len(self.energies)
        spent = history[-1].simulated if history else 0
        if adapted and spent + showers + self.price > self.config.budget:
            return self.again(history)
        folder = self.folder / _name(number)
        config = self.config.simulation(self.space.design(y), self.energies, seed_of(self.config.seed, number, PURPOSE))
        simulate(
            folder / SHOWERS, config, showers, workers=self.config.workers,
            progress=lambda what, done, total: self.progress(f"step {number}, {what}", done, total),
        )  # fmt: skip
        outcome = adapt(
            self.base, self.config.training(first=not adapted), self.data(y, number, [*adapted, number]), folder,
            start=Adapter.load(self.folder / history[-1].adapter) if adapted else None,
            progress=lambda phase, done, total, _: self.progress(f"step {number}, {phase}", done, total),
        )  # fmt: skip
        return AdaptedSurrogate(outcome.surrogate, _name(number), showers)

    def again(self, history: Sequence[Step]) -> AdaptedSurrogate:
        """Return the surrogate of the last step of ``history`` again."""
        return AdaptedSurrogate(self.last(history), history[-1].adapter, 0)

    def last(self, history: Sequence[Step]) -> Surrogate:
        """Return the surrogate that the last step of ``history`` used."""
        return self.base.with_adapter(self.folder / history[-1].adapter)

    @property
    def _designs(self) -> int:
        return self.config.designs if self.config.detector.serves_all else 1

    def _held(self, showers: int) -> int:
        """Return the number of a step's showers that are held out."""
        return round(self.config.validation * showers)

    def data(self, y: Array, number: int, steps: list[int]) -> TrainingData:
        """Return the showers of some steps, measured for the step ``number`` at y, shape (p,), cm."""
        parts, held_out, provenance = list[Cells](), list[np.ndarray](), list[dict[str, Any]]()
        for step in steps:
            path = self.folder / _name(step) / SHOWERS
            with open_library(path) as library:
                n = len(library)
                rows = measure(library, Designs(*self._sizes(library, y, number, step), {}), self.space.n_xy)
            held = np.random.default_rng([self.config.seed, PURPOSE, step]).permutation(n)[: self._held(n)]
            parts.append(rows)
            held_out.append(np.isin(rows.shower, held))
            provenance.append(
                {"file": f"{_name(step)}/{SHOWERS}", "rows": len(rows), "origin": rows.origin, "config": rows.config}
            )
        filled = np.concatenate([part.cells.sum((1, 2, 3)) > 0 for part in parts])
        held_rows = np.concatenate(held_out)
        cells, energy, dx, dz = (
            torch.from_numpy(np.concatenate([getattr(part, name) for part in parts]))
            for name in ("cells", "energy", "dx", "dz")
        )
        everything = Rows(cells, energy, dx, dz)
        counts = [len(np.unique(part.shower)) for part in parts]
        apart = np.flatnonzero(filled & held_rows)
        key = np.concatenate([len(steps) * part.shower + k for k, part in enumerate(parts)])
        return TrainingData(
            train=everything.at(torch.from_numpy(np.flatnonzero(filled & ~held_rows))),
            validation=everything.at(torch.from_numpy(apart)), held_out_showers=torch.from_numpy(key[apart]),
            materials=(parts[0].material,), empty=int((~filled).sum()), showers=sum(counts),
            held_out=sum(map(self._held, counts)), provenance=provenance, n_xy=self.space.n_xy,
            symmetric=all(part.incident.on_axis for part in parts),
        )  # fmt: skip

    def _sizes(self, library: Library, y: Array, number: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return dx (n, designs) and dz (n, designs, n_z), cm, that measure the n showers of a step."""
        n, n_z = len(library), self.space.n_z
        if library.matrix is not None:
            return np.full((n, 1), library.matrix.dx), np.broadcast_to(library.matrix.dz, (n, 1, n_z))
        card, u = self.base.card.in_cm(self.space.material), np.log(y)
        ends = np.log([card.dx, *([card.dz] * (len(y) - 1))]).T
        low, high = np.clip(u - self.config.reach, *ends), np.clip(u + self.config.reach, *ends)
        xi = np.random.default_rng([self.config.seed, PURPOSE, number, step]).random((n, self._designs, len(y)))
        drawn = np.exp(low + xi * (high - low))
        return drawn[..., 0], np.broadcast_to(drawn[..., 1:], (n, self._designs, n_z))


def _name(number: int) -> str:
    """Return the folder of a step's showers and adapter within the run's."""
    return f"{ADAPTERS}/step-{number:03d}"
