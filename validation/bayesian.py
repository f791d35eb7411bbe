"""Bayesian optimisation: a Gaussian process and the design with the largest expected improvement.

The model of U over the unit cube of u between its bounds is a Gaussian process with the errors of the simulations as
its noise (botorch's `SingleTaskGP`, values standardised, its priors of length scales for the dimension). The next
design maximises the logarithm of the expected noisy improvement (Ament et al., arXiv 2310.20708). The answer is the
maximum of the posterior mean. Both are allowed designs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import log
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from calograd.errors import InputError
from calograd.objective.constraints import TOLERANCE, Array, Budget
from calograd.objective.space import DesignSpace

if TYPE_CHECKING:
    from botorch.acquisition.acquisition import AcquisitionFunction

STARTS, NEAR, SAMPLES = 3, 32, 64
"""Starts of a maximisation, designs tried near the answer, and samples of the model for the improvement."""
LEAST_NOISE = 1e-3
"""Smallest standard deviation of the noise, as a share of that of the values."""


def propose(
    space: DesignSpace, pool: Array, u: Sequence[Array], values: Sequence[float], errors: Sequence[float], seed: int
) -> tuple[Array, Array]:
    """Return the answer so far and the next design, both allowed u of shape (p,).

    Args:
        space: parameters with bounds and budgets.
        pool: allowed designs all over the space, shape (m, p), to begin the searches at.
        u: evaluated designs, n arrays of shape (p,).
        values, errors: simulated utilities and errors, n of each.
        seed: of all random numbers.

    Raises:
        InputError: botorch is not installed.
    """
    with botorch_ready():
        from botorch.acquisition.analytic import PosteriorMean
        from botorch.acquisition.logei import qLogNoisyExpectedImprovement
        from botorch.fit import fit_gpytorch_mll
        from botorch.models.gp_regression import SingleTaskGP
        from botorch.sampling.normal import SobolQMCNormalSampler
        from gpytorch.mlls import ExactMarginalLogLikelihood

        cube = _Cube(space)
        x = cube.of(np.array(u))
        scale = float(np.std(values)) or 1.0
        targets = torch.as_tensor((np.array(values) - np.mean(values)) / scale)[:, None]
        noise = torch.as_tensor(np.maximum(np.array(errors) / scale, LEAST_NOISE) ** 2)[:, None]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = SingleTaskGP(x, targets, noise, outcome_transform=None)
            fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
            candidates = torch.cat([cube.of(pool), x])
            answer = cube.maximum(PosteriorMean(model), candidates)
            near = cube.near(answer, np.random.default_rng(seed))
            sampler = SobolQMCNormalSampler(torch.Size([SAMPLES]), seed=seed % 2**31)
            improvement = qLogNoisyExpectedImprovement(model, x, sampler=sampler)
            following = cube.maximum(improvement, torch.cat([candidates, near]))
    return cube.back(answer), cube.back(following)


@dataclass(frozen=True)
class _Cube:
    """Unit cube of u between its bounds."""

    space: DesignSpace

    def of(self, u: Array) -> Tensor:
        """Return the points of the cube, shape (n, p), for u of shape (n, p)."""
        feasible = self.space.feasible
        return torch.as_tensor((u - feasible.lower) / (feasible.upper - feasible.lower))

    def back(self, x: Tensor) -> Array:
        """Return the allowed u nearest to a point of shape (p,)."""
        feasible = self.space.feasible
        return self.space.project(feasible.lower + (feasible.upper - feasible.lower) * x.numpy())

    def near(self, x: Tensor, generator: np.random.Generator) -> Tensor:
        """Return allowed points around a point, shape (NEAR, p)."""
        feasible = self.space.feasible
        shifts = generator.normal(scale=0.05, size=(NEAR, len(x))) * (feasible.upper - feasible.lower)
        return self.of(np.array([feasible.shrunk(self.back(x) + shift) for shift in shifts]))

    def maximum(self, function: AcquisitionFunction, candidates: Tensor) -> Tensor:
        """Return the allowed point where a function is largest, shape (p,), searched from the best candidates."""
        from botorch.exceptions.errors import CandidateGenerationError
        from botorch.optim.optimize import optimize_acqf

        with torch.no_grad():
            best = candidates[function(candidates[:, None]).topk(STARTS).indices]
        rules: list[tuple[Callable[..., Any], bool]] = [(partial(self._slack, b), True) for b in self.space.budgets]
        try:
            found, _ = optimize_acqf(
                function,
                torch.tensor([[0.0], [1.0]]).double().expand(2, candidates.shape[1]),
                q=1,
                num_restarts=STARTS,
                batch_initial_conditions=best[:, None],
                nonlinear_inequality_constraints=rules or None,
                options={"maxiter": 100},
            )
        except CandidateGenerationError:  # every search left what is allowed
            return best[0]
        return found[0].detach()

    def _slack(self, budget: Budget, x: Tensor) -> Tensor:
        """Return minus the budget's excess at a point, shape (p,)."""
        feasible = self.space.feasible
        u = torch.as_tensor(feasible.lower) + torch.as_tensor(feasible.upper - feasible.lower) * x
        spent = budget.power * u[0] + torch.logsumexp(u + torch.tensor(budget.weights).double().log(), 0)
        return log(budget.limit) + TOLERANCE - spent


@contextmanager
def botorch_ready() -> Iterator[None]:
    """Ignore the warnings of botorch and its parts when they are imported or fit a model.

    Raises:
        InputError: it is not installed.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
        try:
            from botorch.exceptions.warnings import BotorchWarning
            from gpytorch.utils.warnings import NumericalWarning
        except ImportError as error:
            raise InputError("Bayesian optimisation needs botorch: pip install --group baselines") from error
        for category in (BotorchWarning, NumericalWarning):
            warnings.filterwarnings("ignore", category=category)
        yield
