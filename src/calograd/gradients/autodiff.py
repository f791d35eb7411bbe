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

from typing import Protocol

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
    checkpointed: bool = True,
    extrapolate: bool = False,
    progress: Progress = silent,
) -> GradientEstimate:
    """Return value and gradient of an objective at ``y`` from the surrogate.

    Args:
        surrogate: generates the showers.
        objective: of the showers; its energies are those generated.
        space: parameters and the design they make.
        y: parameters, shape (p,), cm.
        showers: of every energy in a draw.
        draws: independent draws, at least two.
        seed: of all random numbers; with equal seeds two ``y`` have common random numbers.
        sampler, steps: see `Surrogate.sample`; not ``ddpm``.
        checkpointed: keep memory independent of the number of steps, for a quarter more time.
        extrapolate: warn instead of refusing outside the trained range.
        progress: called with parts done and their number; a draw has one part an energy and one for the gradient.

    Raises:
        RangeError: outside the trained range.
        InputError: fewer than two draws, a number of showers or a sampler that cannot be used.
        UtilityError: a utility without value or gradient, or whose gradient is not finite.
    """
    if draws < 2 or showers < 1:
        raise InputError(f"{draws} draws of {showers} showers: expected 2 draws or more for an error, and showers")
    like, schedule = surrogate.model.condition_mean, surrogate.model.sampling_schedule(sampler, steps)
    values, gradients = np.empty(draws), np.empty((draws, len(y)))
    parts = len(objective.energies) + 1
    progress(0, draws * parts)
    for m in range(draws):
        u = torch.as_tensor(np.log(y), dtype=like.dtype, device=like.device).requires_grad_()
        design, signals = space.design(u.exp()), []
        for i, energy in enumerate(objective.energies):
            generator = generator_for(seed, SHOWERS, m, i)
            signals.append(
                surrogate.sample(
                    design, energy, showers, generator=generator, sampler=schedule.sampler, steps=schedule.steps,
                    extrapolate=extrapolate, checkpointed=checkpointed,
                )
            )  # fmt: skip
            progress(m * parts + i + 1, draws * parts)
        background = objective.draw(showers, design.n_xy, design.n_z, generator_for(seed, BACKGROUND, m), like.dtype)
        value = objective.value(signals, design, background)
        (slope,) = torch.autograd.grad(value, u)
        if not bool(torch.isfinite(slope).all()):
            raise UtilityError(
                f"utility '{name_of(objective.utility)}' is {float(value.detach()):.4g} but its gradient is "
                f"{slope.tolist()}; check it for roots and divisions where energies or spreads are zero"
            )
        values[m], gradients[m] = float(value.detach()), slope.double().cpu().numpy()
        progress((m + 1) * parts, draws * parts)
    about = {
        "source": surrogate.card.name, "mode": surrogate.card.designs.mode, "showers": showers, "draws": draws,
        "seed": seed, **schedule._asdict(), "energies": list(objective.energies),
    }  # fmt: skip
    return GradientEstimate.from_draws(tuple(space.names), np.asarray(y, float), values, gradients, about)
