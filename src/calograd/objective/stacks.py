"""Quantities of showers in stacks of plates, whose derivatives with respect to thicknesses are asked for.

With A_ik and V_ik the energies of shower i in absorber and active plate of layer k (from 0), E_i its incident energy,

    S_i = sum_k (a_k A_ik + v_k V_ik)

    MeanEnergy          mean_i S_i                    a, v given
    VisibleResolution   std_i S_i / mean_i S_i        a = 0, v given, one by default
    LearntResolution    std_i S_i / mean_i S_i / sqrt(1 - f / N)        a = 0, v learnt from the N showers

Learnt weights are those of a ridge regression of the incident energy on the energies of the active plates, without a
constant. Each shower counts with 1/E_i, as the inverse variance of a stochastic term does:

    v = (M + lambda s 1)^-1 b,    M = mean_i V_i V_i^T / E_i,    b = mean_i V_i,    s = trace(M) / layers

f = trace((M + lambda s 1)^-1 M) is the number of weights that the showers determine. Dividing by sqrt(1 - f / N) takes
out that weights which are learnt from N showers make the spread of these same showers too small.

**Derivatives with weights that are refitted.** A stack of other thicknesses has other weights v(t), so

    d r / dt = partial r / partial t + (partial r / partial v) dv/dt.

By the envelope theorem the second term is zero where v minimises r itself: with showers of one energy and
lambda -> 0 the regression's v is parallel to C^-1 b, C the covariance of the V_i, which has the smallest std / mean of
all weights. Then weights may be held fixed (`LearntResolution.fixed`). With a penalty, or with one set of weights for
several energies, v minimises the regression's error and not the resolution at each energy. `LearntResolution` therefore
keeps the second term, and its derivative is that of refitted weights in every case.

Values are float64.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from calograd.checks import as_tensor
from calograd.detector.particles import ON_AXIS, ParticleBeam
from calograd.errors import InputError
from calograd.events.layer_energies import LayerEnergies

Weights = float | tuple[float, ...]
"""One weight for all layers, or one a layer."""


class StackQuantity(Protocol):
    """A quantity of showers in stacks of plates.

    Attributes:
        name: a word for its kind.
        symbol: a symbol for it, for tables.
        unit: its unit; empty for a pure number.
        relative: True if derivatives of its logarithm are compared, False if those of itself are.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    relative: ClassVar[bool]

    @property
    def symbol(self) -> str:
        """See the class."""
        ...

    def __call__(self, showers: Sequence[LayerEnergies], energies: Sequence[float]) -> Tensor:
        """Return its value for the showers of every energy, shape (energies,), differentiable."""
        ...

    def fixed(self, showers: Sequence[LayerEnergies], energies: Sequence[float]) -> LinearQuantity:
        """Return the same with its weights as numbers, those of these showers."""
        ...


class LinearQuantity(StackQuantity, Protocol):
    """A quantity whose weights are given."""

    def sums(self, showers: LayerEnergies) -> Tensor:
        """Return S of every shower, shape (n,), GeV."""
        ...


@dataclass(frozen=True)
class MeanEnergy:
    """Mean of a weighted sum of the energies of plates, GeV: by default of the visible energy.

        MeanEnergy()                                       # energy in all active plates
        MeanEnergy(absorber=1.0, layers=(5, 18))           # in both plates of the layers 5 to 18
        MeanEnergy(active=(1.0, 0.9, 0.8, 0.8))            # a weight for every layer

    Args:
        absorber, active: weights of the absorbers and of the active plates, one for all or one a layer.
        layers: first and last layer that count, from 0, both included; None: all.

    Raises:
        InputError: weights that are none or all zero, or layers in the wrong order.
    """

    absorber: Weights = 0.0
    active: Weights = 1.0
    layers: tuple[int, int] | None = None
    name: ClassVar[str] = "mean"
    unit: ClassVar[str] = "GeV"
    relative: ClassVar[bool] = False

    def __post_init__(self) -> None:
        absorber, active = (_as_weights(f"MeanEnergy: {name}", getattr(self, name)) for name in ("absorber", "active"))
        object.__setattr__(self, "absorber", absorber)
        object.__setattr__(self, "active", active)
        _check_any("MeanEnergy", *_several(absorber), *_several(active))
        if self.layers is not None and not 0 <= self.layers[0] <= self.layers[1]:
            raise InputError(f"MeanEnergy: layers = {self.layers}, expected the first and the last layer, from 0")

    def __call__(self, showers: Sequence[LayerEnergies], energies: Sequence[float]) -> Tensor:  # noqa: ARG002
        """Return the mean of every energy, shape (energies,), GeV."""
        return torch.stack([self.sums(each).mean() for each in showers])

    def fixed(self, showers: Sequence[LayerEnergies], energies: Sequence[float]) -> MeanEnergy:  # noqa: ARG002
        """Return the quantity itself: its weights are numbers."""
        return self

    def sums(self, showers: LayerEnergies) -> Tensor:
        """Return the weighted sum of every shower, shape (n,), GeV."""
        counted = showers.active.new_ones(showers.active.shape[1], dtype=torch.float64)
        if self.layers is not None:
            first, last = self.layers
            if last >= len(counted):
                raise InputError(
                    f"MeanEnergy: layers up to {last}, but the last of {len(counted)} layers is {len(counted) - 1}"
                )
            counted[:first] = 0.0
            counted[last + 1 :] = 0.0
        parts = ((self.absorber, showers.absorber), (self.active, showers.active))
        return torch.stack([_weighted(plates, weights, counted) for weights, plates in parts]).sum(0)

    @property
    def symbol(self) -> str:
        """Symbol for tables: E_vis, or E of several kinds of plates."""
        where = "" if self.layers is None else f", {self.layers[0]}-{self.layers[1]}"
        if not any(_several(self.absorber)):
            return f"E_vis{where}"
        return f"E_{'abs+vis' if any(_several(self.active)) else 'abs'}{where}"

    def __str__(self) -> str:
        plates = [
            f"{name}{'' if set(_several(weights)) == {1.0} else ' with weights'}"
            for name, weights in (("absorbers", self.absorber), ("active plates", self.active))
            if any(_several(weights))
        ]
        where = "" if self.layers is None else f" of layers {self.layers[0]} to {self.layers[1]}"
        return f"mean energy in the {' and '.join(plates)}{where}"


@dataclass(frozen=True)
class VisibleResolution:
    """Standard deviation over mean of the energy in the active plates.

    Args:
        weights: weight of every layer; one number: all are the same.

    Raises:
        InputError: weights that are none or all zero.
    """

    weights: Weights = 1.0
    name: ClassVar[str] = "resolution"
    unit: ClassVar[str] = ""
    relative: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", _as_weights("VisibleResolution: weights", self.weights))
        _check_any("VisibleResolution", *_several(self.weights))

    def __call__(self, showers: Sequence[LayerEnergies], energies: Sequence[float]) -> Tensor:  # noqa: ARG002
        """Return the resolution at every energy, shape (energies,)."""
        return torch.stack([_resolution(self.sums(each)) for each in showers])

    def fixed(self, showers: Sequence[LayerEnergies], energies: Sequence[float]) -> VisibleResolution:  # noqa: ARG002
        """Return the quantity itself: its weights are numbers."""
        return self

    def sums(self, showers: LayerEnergies) -> Tensor:
        """Return the weighted sum of every shower, shape (n,), GeV."""
        return _weighted(showers.active, self.weights, None)

    @property
    def symbol(self) -> str:
        """Symbol for tables."""
        return "sigma/E" + (", given" if isinstance(self.weights, tuple) else "")

    def __str__(self) -> str:
        return "sigma/E of the visible energy" + (" with given weights" if isinstance(self.weights, tuple) else "")


@dataclass(frozen=True)
class LearntResolution:
    """Standard deviation over mean of the energy that learnt weights of the layers reconstruct; see the module.

    Args:
        penalty: lambda, the penalty of squared weights relative to the mean square of a layer's energy.

    Raises:
        InputError: a penalty below zero.
    """

    penalty: float = 1e-6
    name: ClassVar[str] = "learnt"
    unit: ClassVar[str] = ""
    relative: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.penalty < inf:
            raise InputError(f"LearntResolution: penalty = {self.penalty}, expected zero or more")

    def __call__(self, showers: Sequence[LayerEnergies], energies: Sequence[float]) -> Tensor:
        """Return the resolution at every energy, shape (energies,), with one set of weights for all."""
        weights, determined = self.learn(showers, energies)
        spread = torch.stack([_resolution(each.active.double() @ weights) for each in showers])
        return spread / (1 - determined / sum(map(len, showers))).sqrt()

    def learn(self, showers: Sequence[LayerEnergies], energies: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Return the weight of every layer, shape (layers,), and how many of them the showers determine.

        Both are differentiable.

        Raises:
            InputError: not more showers than layers.
        """
        layers, n = showers[0].active.shape[1], sum(map(len, showers))
        if n <= layers:
            raise InputError(f"LearntResolution: {n} showers for the weights of {layers} layers; expected more showers")
        rows = torch.cat([each.active.double() / e**0.5 for each, e in zip(showers, energies, strict=True)])
        squares, products = rows.T @ rows / n, torch.cat([each.active.double() for each in showers]).mean(0)
        ridge = squares.trace() / layers * self.penalty
        matrix = squares + ridge * torch.eye(layers, dtype=rows.dtype, device=rows.device)
        solved = torch.linalg.solve(matrix, torch.cat([products[:, None], squares], 1))
        return solved[:, 0], solved[:, 1:].trace()

    def fixed(self, showers: Sequence[LayerEnergies], energies: Sequence[float]) -> VisibleResolution:
        """Return the resolution with the weights that these showers give."""
        with torch.no_grad():
            return VisibleResolution(tuple(self.learn(showers, energies)[0].tolist()))

    @property
    def symbol(self) -> str:
        """Symbol for tables."""
        return "sigma/E, learnt"

    def __str__(self) -> str:
        return "sigma/E of the visible energy with learnt weights"


@dataclass(frozen=True)
class StackObjective:
    """Quantities of showers in a stack of plates, and the beam that they are of.

    Args:
        quantities: one, or several.
        energies: incident energies, GeV; empty where they are given with the design.
        beam: particle and direction. Plates are wide, so the entry and the azimuth change nothing.

    Raises:
        InputError: no quantity, or energies that are not positive.
    """

    quantities: tuple[StackQuantity, ...] = field(default_factory=lambda: (MeanEnergy(), VisibleResolution()))
    energies: tuple[float, ...] = ()
    beam: ParticleBeam = ON_AXIS

    def __post_init__(self) -> None:
        several = self.quantities if isinstance(self.quantities, tuple | list) else (self.quantities,)
        object.__setattr__(self, "quantities", tuple(several))
        if not self.quantities:
            raise InputError("objective: no quantity; expected one or more, as VisibleResolution()")
        if not all(0 < energy < inf for energy in self.energies):
            raise InputError(f"objective: energies = {list(self.energies)} GeV, expected positive numbers")

    def describe(self) -> dict[str, str]:
        """Return quantities and beam in words."""
        beam = f"{self.beam.particle}, theta {self.beam.theta:g} degrees"
        return {"quantities": ", ".join(map(str, self.quantities)), "beam": beam}


def reconstruct(
    quantity: StackQuantity, showers: Sequence[LayerEnergies], energies: Sequence[float]
) -> tuple[list[Tensor], Tensor]:
    """Return the energies whose standard deviation over mean is a resolution, of the showers of every energy.

    Args:
        quantity: a resolution.
        showers: of every energy, n of each.
        energies: incident energies, GeV.

    Returns:
        Energies, shape (n,) each, GeV, and a factor for every energy, shape (energies,). The factor is one for weights
        that are given, and 1 / sqrt(1 - f / N) for weights that are learnt from these showers. Deviations from the mean
        have been multiplied by it. A relative error of the resolution that takes the weights as given is multiplied by
        it as well: of N showers, f have gone into the weights.
    """
    fixed = quantity.fixed(showers, energies)
    factors = quantity(showers, energies) / fixed(showers, energies)
    sums = [fixed.sums(each) for each in showers]
    wide = [each.mean() + factor * (each - each.mean()) for each, factor in zip(sums, factors, strict=True)]
    return wide, factors


def _resolution(sums: Tensor) -> Tensor:
    if len(sums) < 2:
        raise InputError(f"resolution of {len(sums)} shower, expected two or more")
    return sums.std() / sums.mean()


def _as_weights(name: str, value: Any) -> Weights:
    """Return weights as numbers. Raises `InputError` for what is neither one finite number nor one a layer."""
    weights = as_tensor(name, value).detach()
    if weights.ndim > 1 or not weights.numel() or not bool(weights.isfinite().all()):
        raise InputError(f"{name} = {reprlib.repr(value)}: expected one finite number, or one a layer")
    return tuple(weights.tolist()) if weights.ndim else float(value)


def _several(weights: Weights) -> tuple[float, ...]:
    return weights if isinstance(weights, tuple) else (weights,)


def _check_any(name: str, *weights: float) -> None:
    if not any(weights):
        raise InputError(f"{name}: all weights are zero; expected one that is not")


def _weighted(plates: Tensor, weights: Weights, counted: Tensor | None) -> Tensor:
    """Return the weighted sum over layers of energies (n, layers) in float64; ``counted`` multiplies the weights."""
    each, layers = _several(weights), plates.shape[1]
    if len(each) not in (1, layers):
        raise InputError(f"{len(each)} weights for {layers} layers; expected one, or one a layer")
    factors = torch.tensor(each, dtype=torch.float64, device=plates.device).expand(layers)
    return plates.double() @ (factors if counted is None else factors * counted)
