"""Gradient of an objective by back-propagation through the surrogate's showers.

With y the design's parameters, u = ln y, and xi_m all random numbers of draw m (of showers, background, readout):

    V_m = V(y, xi_m)        g_m = dV_m / du        V = mean_m V_m        g = mean_m g_m

A component of g is the change of the objective for a relative change of a parameter. The draws are independent, so
their standard deviation over sqrt(M) is the standard error. A draw has common random numbers at every y. Hence V_m is
a smooth function, and g_m is its exact derivative through reconstruction, decoding, sampler and networks. The seed of
the showers follows from (seed, draw, energy), so results do not depend on how showers are grouped.

The steps of the sampler are checkpointed: memory holds one step of a batch of showers and the beginnings of the steps.
"""

from __future__ import annotations

from itertools import product
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from calograd.detector.design import Design
from calograd.errors import InputError, UtilityError
from calograd.gradients.estimates import GradientEstimate, generator_for
from calograd.objective.utility import Objective, name_of
from calograd.surrogate import Surrogate
from calograd.system.progress import Progress, silent

SHOWERS, BACKGROUND = 0, 1
"""Streams of random numbers, which separate the seeds of showers and backgrounds."""
ROWS = 2000
"""Largest number of showers of an energy that are generated together, so that memory is bounded."""


class Parameters(Protocol):
    """Parameters of a design, as a `calograd.objective.space.DesignSpace` has them."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""
        ...

    def design(self, y: Tensor) -> Design:
        """Return the design of parameters ``y``, shape (p,), differentiable."""
        ...


def surrogate_gradient(
    surrogate: Surrogate,
    objective: Objective,
    space: Parameters,
    y: np.ndarray,
    *,
    showers: int = 1000,
    draws: int = 8,
    seed: int = 0,
    sampler: str | None = None,
    steps: int | None = None,
    **options: Any,
) -> GradientEstimate:
    """Return value and gradient of an objective at y, shape (p,), from the surrogate.

    Args:
        surrogate, objective, space, showers, seed, sampler, steps: see `surrogate_values`.
        y: parameters, shape (p,), cm.
        draws: independent draws, at least two.
        options: other arguments of `surrogate_values`.

    Raises:
        InputError: fewer than two draws, and see `surrogate_values`.
    """
    if draws < 2:
        raise InputError(f"{draws} draws: expected 2 draws or more for an error")
    values, gradients = surrogate_values(
        surrogate, objective, space, np.asarray(y)[None], showers=showers, draws=draws, seed=seed, sampler=sampler,
        steps=steps, **options,
    )  # fmt: skip
    schedule = surrogate.model.sampling_schedule(sampler, steps)._asdict()
    del schedule["options"]  # none was asked for
    about = {
        "source": surrogate.card.name, "mode": surrogate.card.designs.mode, "showers": showers, "draws": draws,
        "seed": seed, **schedule, "energies": list(objective.energies),
    }  # fmt: skip
    return GradientEstimate.from_draws(tuple(space.names), np.asarray(y, float), values[:, 0], gradients[:, 0], about)


def surrogate_values(
    surrogate: Surrogate,
    objective: Objective,
    space: Parameters,
    points: np.ndarray,
    *,
    gradients: bool = True,
    showers: int = 1000,
    draws: int = 1,
    seed: int = 0,
    sampler: str | None = None,
    steps: int | None = None,
    checkpointed: bool = True,
    extrapolate: bool = False,
    progress: Progress = silent,
) -> tuple[np.ndarray, np.ndarray]:
    """Return values, shape (draws, designs), and gradients in ln y, shape (draws, designs, p), of an objective.

    Showers of several designs are generated together, with common random numbers in each draw.

    Args:
        surrogate: generates the showers.
        objective: utility of the showers; its energies are generated.
        space: parameters and the design they make.
        points: parameters of the designs, shape (designs, p), cm.
        gradients: True to take gradients; without them values take a quarter of the time.
        showers: number of showers of every energy in a draw.
        draws: independent draws.
        seed: seed of all random numbers; with equal seeds any two designs have common random numbers.
        sampler, steps: see `Surrogate.sample`; not ``ddpm``.
        checkpointed: keep memory independent of the number of steps, for a quarter more time.
        extrapolate: warn instead of refusing outside the trained range.
        progress: called with parts done and their number; a design has one part an energy and one for the utility.

    Raises:
        RangeError: outside the trained range.
        InputError: a number of showers or a sampler that cannot be used.
        UtilityError: a utility without value or gradient, or whose gradient is not finite.
    """
    if showers < 1:
        raise InputError(f"draws of {showers} showers: expected 1 shower or more")
    like, schedule = surrogate.model.condition_mean, surrogate.model.sampling_schedule(sampler, steps)
    values, slopes = np.empty((draws, len(points))), np.zeros((draws, *points.shape))
    size, parts, done = max(1, ROWS // showers), len(objective.energies) + 1, 0
    groups = [slice(start, start + size) for start in range(0, len(points), size)]
    progress(0, values.size * parts)
    for m, group in product(range(draws), groups):
        u = torch.as_tensor(np.log(points[group]), dtype=like.dtype, device=like.device).requires_grad_(gradients)
        with torch.set_grad_enabled(gradients):
            designs, signals, incident = [space.design(each.exp()) for each in u], [], []
            for i, energy in enumerate(objective.energies):
                particles = [
                    surrogate.particles(each, showers, objective.beam, generator=generator_for(seed, SHOWERS, m, i))
                    for each in designs
                ]
                incident.append(particles)
                made = surrogate.sample_designs(
                    designs, energy, showers, generator=generator_for(seed, SHOWERS, m, i), particles=particles,
                    sampler=schedule.sampler, steps=schedule.steps, extrapolate=extrapolate,
                    checkpointed=checkpointed and gradients,
                )  # fmt: skip
                signals.append(made)
                done += len(designs)
                progress(done, values.size * parts)
            cells, generator = (designs[0].n_xy, designs[0].n_z), generator_for(seed, BACKGROUND, m)
            background = objective.draw(showers, *cells, generator, like.dtype)
            utilities = torch.stack(
                [
                    objective.value([of[k] for of in signals], each, background, particles=[of[k] for of in incident])
                    for k, each in enumerate(designs)
                ]
            )
        values[m, group] = utilities.detach().cpu().numpy()
        if gradients:
            slope = torch.autograd.grad(utilities.sum(), u)[0].double().cpu().numpy()
            _check_slopes(objective, values[m, group], slope)
            slopes[m, group] = slope
        done += len(designs)
        progress(done, values.size * parts)
    return values, slopes


def _check_slopes(objective: Objective, values: np.ndarray, slopes: np.ndarray) -> None:
    """Raise `UtilityError` unless the gradients of all designs, shape (designs, p), are finite."""
    for value, slope in zip(values, slopes, strict=True):
        if not np.isfinite(slope).all():
            raise UtilityError(
                f"utility '{name_of(objective.utility)}' is {value:.4g} but its gradient is {slope.tolist()}; check it "
                "for roots and divisions where energies or spreads are zero"
            )
