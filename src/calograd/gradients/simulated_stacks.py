"""Derivatives of quantities of stacks of plates from Geant4's showers, by differences and by regression.

Two showers in stacks of two thicknesses have nothing in common, whatever their random numbers. So there are two ways:

    differences     independent showers at both ends of a step of some plates, (Q(t + h) - Q(t - h)) / 2h
    regression      showers that each have a random stack around the design; slopes at the design of smooth functions
                    of the thicknesses

**Regression.** With t_p the thickness of plate p in a shower's stack, d_p the design's, x_p = ln(t_p / d_p), X and Y
the means of x_p over all absorbers and over all active plates, a polynomial in X and Y is fitted to the energy S of the
showers by least squares. Where the layers of a stack differ (``profile="smooth"``), x_p - X and x_p - Y are further
terms, one for every plate, and so are products of the means, of tilts and of bends of both kinds; tilts and bends are
the shares of the second and third Legendre polynomial in x_p along the layers. The slopes at zero are

    all plates of a kind by the same factor       the coefficient of X, or of Y
    one plate                                     this over the number of layers + the coefficient of x_p - X

For the relative resolution r = sigma/E a normal distribution of S / (fitted mean) - 1 whose ln r is linear in X, Y (and
in all x_p - X, x_p - Y) is fitted by maximum likelihood. Errors are from a bootstrap over showers, which repeats all
fits. Showers that leak make long tails, which a bootstrap sees only as far as the showers have them.

A quantity with learnt weights is taken with these weights held fixed, see `calograd.objective.stacks`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from calograd.detector.configuration import PDG
from calograd.detector.incidence import SAME_ANGLE
from calograd.detector.material import Material, to_float
from calograd.detector.particles import ParticleBeam
from calograd.detector.sampling_design import SamplingDesign
from calograd.errors import InputError
from calograd.events.layer_energies import LayerEnergies
from calograd.events.library.reader import PlateLibrary
from calograd.events.plates import PlateShowers
from calograd.gradients.estimates import GradientEstimate
from calograd.objective.reference import RELATIVE
from calograd.objective.stack_space import KINDS, plate_names
from calograd.objective.stacks import LinearQuantity

DEGREE = 3
"""Degree of the polynomial in the mean logarithms of the thicknesses."""
RESAMPLES = 200
"""Number of resamples of a bootstrap."""
SAME = 1e-5
"""Difference in the logarithm of two thicknesses, or densities, below which they are the same."""
FEWEST = 3
"""Least number of showers for every term of a regression."""
_ROUNDS, _SMALL = 60, 1e-4
"""Most steps of Newton's method, and the last step, after which the next would be of the size of its square."""


@dataclass(frozen=True)
class StackShowers:
    """Simulated showers of one energy and beam in stacks of one pair of materials and one number of layers.

    Args:
        name: name in errors and records.
        energy: incident energy, GeV.
        energies: energies in the plates, float64.
        thickness: of absorber and active plate of every layer, shape (n, layers, 2), cm.
    """

    name: str
    energy: float
    energies: LayerEnergies
    thickness: np.ndarray

    def __len__(self) -> int:
        return len(self.thickness)

    @classmethod
    def of(cls, name: str, showers: PlateShowers) -> StackShowers:
        """Return showers of a library. Raises `InputError` for other than equal energies and numbers of layers."""
        energy, counts = showers.energy, showers.counts
        if not len(showers) or np.ptp(energy) > RELATIVE * energy[0] or np.ptp(counts):
            raise InputError(f"{name}: expected showers of one energy in stacks of one number of layers")
        plates = torch.from_numpy(showers.energies().astype(np.float64))
        thickness = showers.thicknesses()[..., [0, 2]].astype(np.float64)
        return cls(name, float(energy[0]), LayerEnergies(plates[..., 2], plates[..., 0]), thickness)


@dataclass(frozen=True)
class RegressionGradient:
    """Derivatives by regression over random stacks; of the logarithm of a quantity that is relative.

    Args:
        common: of a common relative change of all absorbers, and of all active plates.
        plates: of every plate; None where all plates of a kind have the same thickness in every stack.
    """

    common: GradientEstimate
    plates: GradientEstimate | None


def select_showers(
    library: PlateLibrary, design: SamplingDesign, energies: Sequence[float], beam: ParticleBeam
) -> list[StackShowers]:
    """Return the showers of a library that tell of derivatives at a design, for every energy.

    These have the design's materials, gap and number of layers, and the beam's particle and angle.

    Raises:
        InputError: there are none, or their thicknesses do not surround the design's.
    """
    name, stack = library.path.name, library.stack
    rows = np.ones(len(library), bool)
    for role, material, known, which in (
        ("absorber", design.absorber, library.absorbers, library.heads.absorber),
        ("active", design.active, library.actives, library.heads.active),
    ):
        same = [k for k, other in enumerate(known) if material.alike(other, SAME)]
        mask = np.isin(np.asarray(which), same)
        rows &= _some(mask, rows, name, f"with {role} {material.name}", _names(known))
    layers = library.heads.counts
    rows &= _some(layers == design.n_layers, rows, name, f"in {design.n_layers} layers", _span(layers, ""))
    incident = library.incidence()
    there = " and ".join(sorted(word for word, number in PDG.items() if number in incident.particle))
    rows &= _some(incident.particle == PDG[beam.particle], rows, name, f"of {beam.particle}", there)
    angle = np.abs(incident.theta - beam.theta) <= SAME_ANGLE
    rows &= _some(angle, rows, name, f"at theta = {beam.theta:g} degrees", _span(incident.theta, " degrees"))
    chosen = [
        np.flatnonzero(rows & _some(np.isclose(library.energy, energy, rtol=RELATIVE), rows, name,
                                    f"of {energy:g} GeV", _span(library.energy, " GeV")))
        for energy in energies
    ]  # fmt: skip
    showers, found = library.read(), list[StackShowers]()
    for which in chosen:
        of = showers.rows(which)
        _check_gaps(name, of.thicknesses()[..., 1], stack.gap_material, design)
        found.append(StackShowers.of(name, of))
        _check_surrounding(found[-1], design)
    return found


def _check_gaps(name: str, gaps: np.ndarray, material: Material, design: SamplingDesign) -> None:
    """Raise `InputError` unless gaps, shape (n, layers), are those of the design."""
    asked = design.gap_thickness.detach().double().numpy()
    same = np.allclose(gaps, asked, rtol=SAME, atol=1e-9)
    if not same or (asked.any() and not design.gap_material.alike(material, SAME)):
        raise InputError(
            f"{name} has other gaps than the design; choose a library with its gap_thickness and gap_material"
        )


def _some(mask: np.ndarray, rows: np.ndarray, name: str, what: str, there: str) -> np.ndarray:
    """Return a mask of showers. Raises `InputError` if none of the ``rows`` is in it."""
    if not (mask & rows).any():
        raise InputError(f"{name} has no showers {what} as the gradient asks, but {there}; choose a library of such")
    return mask


def _names(materials: Sequence[Any]) -> str:
    return " and ".join(f"{material.name} ({to_float(material.density):g} g/cm3)" for material in materials)


def _span(values: np.ndarray, unit: str) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:g}{unit}" if low == high else f"{low:g} to {high:g}{unit}"


def _check_surrounding(showers: StackShowers, design: SamplingDesign) -> None:
    """Raise `InputError` unless the thicknesses of random stacks surround the design's."""
    x = _logarithms(showers, design)
    for k, kind in enumerate(KINDS):
        low, high = x[..., k].min(0), x[..., k].max(0)
        beyond = np.maximum(low, -high)
        layer = int(beyond.argmax())
        size = getattr(design, f"{kind}_thickness").detach().double().numpy()[layer]
        where = f"{kind}_thickness of layer {layer}"
        if beyond[layer] >= 0:
            ends = [size * float(np.exp(end[layer])) for end in (low, high)]
            spread = f"{ends[0]:g}" if low[layer] == high[layer] else f"{ends[0]:g} to {ends[1]:g}"
            raise InputError(
                f"{showers.name}: {where} is {spread} cm, which does not surround the design's {size:g} cm; choose a "
                "library of random stacks around the design (LOW:HIGH)"
            )
        steps = x[..., k] - x[..., k].mean(1, keepdims=True)
        if np.ptp(steps, 0).max() <= SAME < np.abs(steps).max():
            raise InputError(
                f"{showers.name}: every stack has equal {kind} plates, the design has not; choose a library of stacks "
                "whose layers scatter (--profile smooth), or one about the design"
            )


def _logarithms(showers: StackShowers, design: SamplingDesign) -> np.ndarray:
    """Return the logarithms of thicknesses over the design's, shape (n, layers, 2), those of one design exactly 0."""
    sizes = torch.stack([design.absorber_thickness, design.active_thickness], 1).detach().double().cpu().numpy()
    x: np.ndarray = np.log(showers.thickness / sizes)
    return np.where(np.abs(x) < 1e-7, 0.0, x)


def regression_gradient(
    showers: StackShowers,
    design: SamplingDesign,
    quantity: LinearQuantity,
    *,
    degree: int = DEGREE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> RegressionGradient:
    """Return the derivatives of a quantity at a design by regression over random stacks; see the module.

    Args:
        showers: in random stacks around the design, see `select_showers`.
        design: one stack.
        quantity: of the showers; if it is ``relative``, derivatives are those of its logarithm.
        degree: degree of the polynomial of the mean.
        resamples: number of resamples of the bootstrap.
        seed: seed of the bootstrap.

    Raises:
        InputError: too few showers for the terms of the regression.
    """
    x = _logarithms(showers, design)
    terms = _Terms.of(x, degree)
    if len(x) < FEWEST * terms.mean.shape[1]:
        raise InputError(
            f"{showers.name} has {len(x)} showers for {terms.mean.shape[1]} terms of a regression; expected at least "
            f"{FEWEST * terms.mean.shape[1]}"
        )
    energy = quantity.sums(showers.energies).numpy()
    fit = _fit_resolution if quantity.relative else _fit_mean
    whole, start = fit(terms, energy, np.ones(len(x)), None)
    rng, samples = np.random.default_rng(seed), []
    for _ in range(resamples):
        counts = np.bincount(rng.integers(len(x), size=len(x)), minlength=len(x)).astype(float)
        samples.append(fit(terms, energy, counts, start)[0])
    layers = x.shape[1]
    about = {
        "source": "geant4", "method": "regression", "file": showers.name, "showers": len(x), "degree": degree,
        "bootstrap": resamples, "seed": seed, "energy": showers.energy,
    }  # fmt: skip
    sizes = torch.stack([design.absorber_thickness, design.active_thickness]).detach().double().cpu().numpy()
    common = _estimate(KINDS, sizes.mean(1), whole[:3], np.array(samples)[:, :3], about)
    if not terms.unequal:
        return RegressionGradient(common, None)
    each = [_each_plate(row, layers) for row in (whole, *samples)]
    plates = _estimate(plate_names(layers), sizes.ravel(), each[0], np.array(each[1:]), about)
    return RegressionGradient(common, plates)


def _estimate(
    names: tuple[str, ...], y: np.ndarray, whole: np.ndarray, samples: np.ndarray, about: dict[str, Any]
) -> GradientEstimate:
    """Return the estimate of a value and slopes, shape (1 + p,), with its resamples, shape (resamples, 1 + p)."""
    errors = samples.std(0, ddof=1)
    return GradientEstimate(names, y, float(whole[0]), float(errors[0]), whole[1:], errors[1:], samples[:, 1:], about)


def _each_plate(row: np.ndarray, layers: int) -> np.ndarray:
    """Return value and slopes of every plate from value, common slopes and coefficients of x_p - X and x_p - Y."""
    return np.concatenate([row[:1], (row[1:3, None] / layers + row[3:].reshape(2, layers)).ravel()])


@dataclass(frozen=True)
class _Terms:
    """Terms of the regressions; the first are 1, X, Y and, where layers differ, x_p - X and x_p - Y of all plates.

    Attributes:
        mean: terms of the mean, shape (n, terms).
        spread: terms of ln r, shape (n, 3) or (n, 3 + plates).
        unequal: whether layers differ.
    """

    mean: np.ndarray
    spread: np.ndarray
    unequal: bool

    @classmethod
    def of(cls, x: np.ndarray, degree: int) -> _Terms:
        """Return the terms of logarithms of thicknesses, shape (n, layers, 2)."""
        n, layers, _ = x.shape
        means = x.mean(1)
        first, steps = np.concatenate([np.ones((n, 1)), means], 1), x - means[:, None]
        unequal = bool(np.abs(steps).max() > SAME)
        if unequal:
            first = np.concatenate([first, steps.transpose(0, 2, 1).reshape(n, -1)], 1)
        powers = [(a, d - a) for d in range(2, degree + 1) for a in range(d + 1)]
        further = [means[:, 0] ** a * means[:, 1] ** b for a, b in powers]
        if unequal:
            place = (2 * np.arange(layers) + 1) / layers - 1
            shapes = np.stack([place, 1.5 * place**2 - 0.5], 1) / layers
            modes = np.concatenate([means, np.einsum("nlk,ls->nsk", steps, shapes).reshape(n, -1)], 1)
            further += [modes[:, i] * modes[:, j] for i in range(6) for j in range(max(i, 2), 6)]
        columns = np.stack(further, 1) if further else np.empty((n, 0))
        return cls(np.concatenate([first, columns], 1), first, unequal)


def _fit_mean(
    terms: _Terms, energy: np.ndarray, counts: np.ndarray, start: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return value and slopes of the mean, in the order of `_Terms`, of showers that count ``counts`` times."""
    weighted = terms.mean.T * counts
    coefficients: np.ndarray = np.linalg.lstsq(weighted @ terms.mean, weighted @ energy, rcond=1e-12)[0]
    return coefficients[: terms.spread.shape[1]], start


def _fit_resolution(
    terms: _Terms, energy: np.ndarray, counts: np.ndarray, start: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return value and slopes of ln r, likewise, by Newton's method, and where the next fit may start."""
    weighted = terms.mean.T * counts
    mean = terms.mean @ np.linalg.lstsq(weighted @ terms.mean, weighted @ energy, rcond=1e-12)[0]
    squares, columns, total = (energy / mean - 1) ** 2, terms.spread, counts.sum()

    def loss(k: np.ndarray) -> float:
        return float(counts @ (columns @ k + squares * np.exp(-2 * columns @ k) / 2) / total)

    k = np.zeros(columns.shape[1]) if start is None else start
    if start is None:
        k[0] = 0.5 * np.log(counts @ squares / total)
    for _ in range(_ROUNDS):
        share = counts * squares * np.exp(-2 * columns @ k)
        step = np.linalg.lstsq((columns.T * share) @ columns * 2, columns.T @ (share - counts), rcond=1e-12)[0]
        now, reach = loss(k), 1.0
        while loss(k + reach * step) > now + 1e-12 * abs(now) and reach > 1e-3:
            reach /= 2
        k = k + reach * step
        if np.abs(reach * step).max() < _SMALL:
            break
    return k, k


def difference_gradient(
    ends: Sequence[tuple[StackShowers, StackShowers]],
    quantity: LinearQuantity,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> GradientEstimate:
    """Return derivatives of a quantity by differences of independent showers at both ends of steps of thicknesses.

    The parameter of a pair is the common factor of the plates whose thickness differs between its ends, for example of
    all absorbers. Errors are from a bootstrap over the showers of both ends. If the quantity is ``relative``,
    derivatives are those of its logarithm.

    Args:
        ends: pairs of showers, each in one stack; all pairs have the same middle.
        quantity: of the showers.
        resamples: number of resamples of the bootstrap.
        seed: seed of the bootstrap.

    Returns:
        One component for every pair. Its ``y`` is the mean thickness of the changed plates midway between the ends, so
        ``raw`` is the difference over the step in cm.

    Raises:
        InputError: showers in more than one stack at an end, or ends whose plates do not differ by one factor.
    """
    rng, names, sizes = np.random.default_rng(seed), list[str](), list[float]()
    wholes, samples = list[tuple[float, float]](), list[np.ndarray]()
    for pair in ends:
        name, size, step = _step(*pair)
        names.append(name)
        sizes.append(size)
        at = [_statistic(quantity, rng, resamples)(quantity.sums(each.energies).numpy()) for each in pair]
        wholes.append(((at[0][0] + at[1][0]) / 2, (at[1][0] - at[0][0]) / step))
        samples.append(np.stack([(at[0][1] + at[1][1]) / 2, (at[1][1] - at[0][1]) / step], 1))
    value, drawn = float(np.mean([each[0] for each in wholes])), np.stack(samples, 2)
    about: dict[str, Any] = {
        "source": "geant4", "method": "differences", "files": [each.name for pair in ends for each in pair],
        "showers": [len(each) for pair in ends for each in pair], "bootstrap": resamples, "seed": seed,
        "energy": ends[0][0].energy,
    }  # fmt: skip
    gradient = np.array([each[1] for each in wholes])
    return GradientEstimate(
        tuple(names), np.array(sizes), value, float(drawn[:, 0].mean(1).std(ddof=1)), gradient,
        drawn[:, 1].std(0, ddof=1), drawn[:, 1], about,
    )  # fmt: skip


def _statistic(
    quantity: LinearQuantity, rng: np.random.Generator, resamples: int
) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """Return a function of sums that returns the quantity, or its logarithm, and that of resamples."""

    def of(sums: np.ndarray) -> Any:
        mean = sums.mean(-1)
        return np.log(sums.std(-1, ddof=1) / mean) if quantity.relative else mean

    def both(sums: np.ndarray) -> tuple[float, np.ndarray]:
        drawn = [of(sums[rng.integers(len(sums), size=len(sums))]) for _ in range(resamples)]
        return float(of(sums)), np.array(drawn)

    return both


def _step(low: StackShowers, high: StackShowers) -> tuple[str, float, float]:
    """Return the plates that differ between two ends in words, their mean thickness (cm), and the relative step."""
    for each in (low, high):
        if np.ptp(np.log(each.thickness), 0).max() > SAME:
            raise InputError(f"{each.name} has stacks that differ; expected all showers in one stack, or a regression")
    one, other = low.thickness[0], high.thickness[0]
    if one.shape != other.shape or low.energy != high.energy:
        raise InputError(f"{low.name} and {high.name} differ in energy or layers; expected different thicknesses alone")
    middle, steps = (one + other) / 2, 2 * (other - one) / (one + other)
    moved = np.abs(steps) > SAME
    if not moved.any() or np.ptp(steps[moved]) > 1e-3 * np.abs(steps).max():
        raise InputError(f"{low.name} and {high.name}: expected plates that differ by one factor")
    parts = []
    for k, kind in enumerate(KINDS):
        chosen = np.flatnonzero(moved[:, k])
        if len(chosen) == len(moved):
            parts.append(kind)
        elif len(chosen):
            parts.append(f"{kind}_{chosen[0]}" + (f"-{chosen[-1]}" if len(chosen) > 1 else ""))
    return "+".join(parts), float(middle[moved].mean()), float(steps[moved].mean())
