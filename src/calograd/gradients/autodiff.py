"""Gradient of an objective by back-propagation through the surrogate's showers.

With y the design's parameters, u = ln y, and xi_m all random numbers of draw m (of showers, background, readout):

    V_m = V(y, xi_m)        g_m = dV_m / du        V = mean_m V_m        g = mean_m g_m

so a component of g is the change of the objective for a relative change of a parameter. The draws are independent:
their standard deviation over sqrt(M) is the standard error. A draw has common random numbers at every y: V_m is a
smooth function, and g_m its exact derivative, through reconstruction, decoding, sampler and networks. A seed belongs
to every (seed, draw, energy), so results do not depend on how showers are grouped.

The walk through the sampler is checkpointed step by step: memory holds one step of `calograd.surrogate.BATCH` showers
and the beginnings of the steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, Protocol

import numpy as np
import torch
from scipy.stats import t as student_t
from torch import Tensor

from calograd.detector.design import Design
from calograd.errors import InputError, UtilityError
from calograd.io.markup import table
from calograd.objective.utility import Objective, name_of
from calograd.surrogate import Surrogate
from calograd.system.progress import Progress, silent

SHOWERS, BACKGROUND = 0, 1
"""Streams of random numbers."""


class Parameters(Protocol):
    """What a gradient has to know of the parameters."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parameters."""
        ...

    def design(self, y: Tensor) -> Design:
        """The design of parameters ``y``, shape (p,), differentiable."""
        ...


@dataclass(frozen=True)
class GradientEstimate:
    """Value and gradient of an objective in logarithmic coordinates, with standard errors.

    Args:
        names: of the parameters.
        y: the parameters, shape (p,), cm.
        value, value_error: of the objective.
        gradient, gradient_error: dV/du, shape (p,).
        draws: estimates of the gradient that the error is from, shape (m, p): the surrogate's independent draws, or
            Geant4's bootstrap replicas.
        about: how it was made: plain data.
        degrees: of freedom that the errors have; infinite for a bootstrap.
    """

    names: tuple[str, ...]
    y: np.ndarray
    value: float
    value_error: float
    gradient: np.ndarray
    gradient_error: np.ndarray
    draws: np.ndarray
    about: dict[str, Any]
    degrees: float = inf

    @classmethod
    def of_draws(
        cls, names: tuple[str, ...], y: np.ndarray, values: np.ndarray, draws: np.ndarray, about: dict[str, Any]
    ) -> GradientEstimate:
        """From independent draws: values, shape (m,), and gradients, shape (m, p)."""
        root = len(values) ** 0.5
        return cls(
            names, y, float(values.mean()), float(values.std(ddof=1) / root), draws.mean(0),
            draws.std(0, ddof=1) / root, draws, about, len(values) - 1,
        )  # fmt: skip

    @property
    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the 95 % intervals of the gradient, each of shape (p,): Student's t with the degrees of freedom."""
        reach = float(student_t.ppf(0.975, self.degrees)) * self.gradient_error
        return self.gradient - reach, self.gradient + reach

    def _repr_html_(self) -> str:
        """What a notebook shows: the components with their 95 % intervals."""
        low, high = self.interval
        rows = [
            (name, f"{self.y[j]:g}", f"{self.gradient[j]:.4g} +- {self.gradient_error[j]:.2g}",
             f"{low[j]:.4g} to {high[j]:.4g}")
            for j, name in enumerate(self.names)
        ]  # fmt: skip
        title = f"V = {self.value:.4g} +- {self.value_error:.2g}"
        return table(title, ("parameter", "y", "dV / d ln y", "95 % interval"), rows)

    @property
    def raw(self) -> np.ndarray:
        """dV/dy, shape (p,), per cm."""
        raw: np.ndarray = self.gradient / self.y
        return raw

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without the draws."""
        return {
            "parameters": dict(zip(self.names, self.y.tolist(), strict=True)),
            "value": self.value, "value_error": self.value_error,
            "gradient": self.gradient.tolist(), "gradient_error": self.gradient_error.tolist(),
            "interval": [end.tolist() for end in self.interval],
            "raw": self.raw.tolist(), "about": self.about,
        }  # fmt: skip


def generator_for(*key: int) -> torch.Generator:
    """A generator that belongs to a tuple of numbers, each zero or more."""
    state = np.random.SeedSequence([len(key), *key]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed((int(state[0]) << 31) ^ int(state[1]))


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
    """Value and gradient of an objective at ``y`` from the surrogate.

    Args:
        surrogate: what generates.
        objective: of the showers; its energies are those generated.
        space: parameters and the design they make.
        y: parameters, shape (p,), cm.
        showers: of every energy in a draw.
        draws: independent ones, at least two.
        seed: of all random numbers; equal ones are common random numbers at another ``y``.
        sampler, steps: see `Surrogate.sample`; not ``ddpm``.
        checkpointed: keep memory independent of the number of steps, for a quarter more time.
        extrapolate: warn instead of refusing outside the trained range.
        progress: called after every draw.

    Raises:
        RangeError: outside the trained range.
        InputError: fewer than two draws, a number of showers or a sampler that cannot be used.
        UtilityError: a utility without value or gradient, or whose gradient is not finite.
    """
    if draws < 2 or showers < 1:
        raise InputError(f"{draws} draws of {showers} showers: expected 2 draws or more for an error, and showers")
    like, walk = surrogate.model.condition_mean, surrogate.model.walk(sampler, steps)
    values, gradients = np.empty(draws), np.empty((draws, len(y)))
    for m in range(draws):
        u = torch.as_tensor(np.log(y), dtype=like.dtype, device=like.device).requires_grad_()
        design = space.design(u.exp())
        signals = [
            surrogate.sample(
                design, energy, showers, generator=generator_for(seed, SHOWERS, m, i), sampler=walk.sampler, steps=walk.steps,
                extrapolate=extrapolate, checkpointed=checkpointed,
            )
            for i, energy in enumerate(objective.energies)
        ]  # fmt: skip
        numbers = objective.draw(showers, design.n_xy, design.n_z, generator_for(seed, BACKGROUND, m), like.dtype)
        value = objective.value(signals, design, numbers)
        (gradient,) = torch.autograd.grad(value, u)
        if not bool(torch.isfinite(gradient).all()):
            raise UtilityError(
                f"utility '{name_of(objective.utility)}' is {float(value.detach()):.4g} but its gradient is "
                f"{gradient.tolist()}; check it for roots and divisions where energies or spreads are zero"
            )
        values[m], gradients[m] = float(value.detach()), gradient.double().cpu().numpy()
        progress(m + 1, draws)
    about = {
        "source": surrogate.card.name, "mode": surrogate.card.mode, "showers": showers, "draws": draws, "seed": seed,
        **walk._asdict(), "energies": list(objective.energies),
    }  # fmt: skip
    return GradientEstimate.of_draws(tuple(space.names), np.asarray(y, float), values, gradients, about)
