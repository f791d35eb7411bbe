"""Derivatives of quantities of a stack of plates with respect to the thickness of every plate, by back-propagation.

With t_p the thickness of plate p (all absorbers, then all active plates), u_p = ln t_p, and xi_m the random numbers of
draw m, one backward pass through the surrogate's showers gives all g_mp = dQ(t, xi_m) / du_p of a quantity Q. Then

    per cm              dQ/dt_p = g_p / t_p
    in logarithms       d ln Q / d ln t_p = g_p / Q
    all plates of a kind by the same factor        sum_p g_p
    all plates of a kind by the same length        sum_p g_p / t_p

The draws are independent showers, so their scatter gives the errors, also those of sums. Showers follow from the seed,
the energy and their index alone, so results do not depend on how draws are grouped. The errors do not contain what the
surrogate has learnt wrongly; `calograd.gradients.simulated_stacks` has Geant4's side.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from calograd.checks import as_count
from calograd.detector.sampling_design import SamplingDesign
from calograd.errors import InputError, UtilityError
from calograd.events.layer_energies import LayerEnergies
from calograd.events.library.reader import PlateLibrary, open_plates
from calograd.gradients.autodiff import ROWS, SHOWERS
from calograd.gradients.check import GradientCheck, compare_gradients
from calograd.gradients.estimates import (
    GradientEstimate,
    GradientFunction,
    ValuesFunction,
    generator_for,
    seed_of,
)
from calograd.gradients.simulated_stacks import regression_gradient, select_showers
from calograd.io.markup import table
from calograd.metrics.resolution import rounded
from calograd.objective.stack_space import KINDS, StackSpace, plate_names
from calograd.objective.stacks import StackObjective, StackQuantity
from calograd.surrogate import Surrogate
from calograd.system.progress import Progress, StageProgress, silent


@dataclass(frozen=True)
class StackGradient:
    """Derivatives of one quantity at one energy with respect to the thickness of every plate.

    Plates are the absorbers of all layers, then the active plates of all layers, p = 2 n_layers in number.

    Args:
        quantity: what is differentiated.
        energy: incident energy, GeV.
        thickness: of the plates, shape (p,), cm.
        values: the quantity in every draw, shape (m,), in its unit.
        draws: its derivative in ln t in every draw, shape (m, p), in its unit.
        about: settings, as plain data.
    """

    quantity: StackQuantity
    energy: float
    thickness: np.ndarray
    values: np.ndarray
    draws: np.ndarray
    about: dict[str, Any]

    def plates(self, relative: bool | None = None) -> GradientEstimate:
        """Return value and derivatives with respect to every plate.

        Args:
            relative: True for those of the logarithm of the quantity, False for those of itself; None: as the
                quantity is compared (`StackQuantity.relative`).

        Returns:
            ``gradient`` is in ln t, ``raw`` per cm.
        """
        return self._estimate(plate_names(len(self.thickness) // 2), self.thickness, self.draws, relative)

    def common(self, relative: bool | None = None) -> GradientEstimate:
        """Return value and derivatives with respect to all absorbers, and to all active plates.

        Args:
            relative: see `plates`.

        Returns:
            ``gradient`` is in ln t where all plates of a kind change by the same factor. ``raw`` is per cm of their
            mean thickness; where they are equal this is the same as `per_cm`.
        """
        sizes = self.thickness.reshape(2, -1).mean(1)
        return self._estimate(KINDS, sizes, self.draws.reshape(len(self.draws), 2, -1).sum(2), relative)

    def per_cm(self, relative: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return derivatives where all plates of a kind change by the same length, with errors, shape (2,) each."""
        scale = self.values[:, None] if relative else 1.0
        draws = (self.draws / self.thickness).reshape(len(self.draws), 2, -1).sum(2) / scale
        return draws.mean(0), draws.std(0, ddof=1) / len(draws) ** 0.5

    def _estimate(
        self, names: tuple[str, ...], y: np.ndarray, draws: np.ndarray, relative: bool | None
    ) -> GradientEstimate:
        relative = self.quantity.relative if relative is None else relative
        values, slopes = self.values, draws
        if relative:
            values, slopes = np.log(self.values), draws / self.values[:, None]
        return GradientEstimate.from_draws(names, y, values, slopes, self.about)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: of every plate and of a common change, per cm and in logarithms, with errors."""
        own, logarithm = self.plates(relative=False), self.plates(relative=True)
        common, (lengths, length_errors) = self.common(relative=True), self.per_cm()
        kinds: dict[str, Any] = {}
        for k, kind in enumerate(KINDS):
            of = slice(k * len(self.thickness) // 2, (k + 1) * len(self.thickness) // 2)
            kinds[kind] = {
                "thickness": self.thickness[of].tolist(),
                "per_cm": own.raw[of].tolist(), "per_cm_error": own.raw_error[of].tolist(),
                "log": logarithm.gradient[of].tolist(), "log_error": logarithm.gradient_error[of].tolist(),
                "common": {
                    "per_cm": float(lengths[k]), "per_cm_error": float(length_errors[k]),
                    "log": float(common.gradient[k]), "log_error": float(common.gradient_error[k]),
                },
            }  # fmt: skip
        return {
            "quantity": self.quantity.name, "description": str(self.quantity), "unit": self.quantity.unit,
            "energy": self.energy, "value": own.value, "value_error": own.value_error, **kinds, "about": self.about,
        }  # fmt: skip


@dataclass(frozen=True)
class StackCheck:
    """Comparison of a quantity's derivatives with Geant4's, of its logarithm where the quantity is relative.

    Args:
        common: of a common relative change of all absorbers, and of all active plates.
        plates: of every plate; None where all plates of a kind have the same thickness in every simulated stack.
    """

    common: GradientCheck
    plates: GradientCheck | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {"common": self.common.to_dict(), "plates": self.plates.to_dict() if self.plates else None}


@dataclass(frozen=True)
class StackGradientResult:
    """Derivatives of quantities of one stack of plates.

    Args:
        surrogate: name of the surrogate.
        design: the stack.
        objective: quantities and beam.
        energies: incident energies, GeV.
        gradients: one for every quantity at every energy, the energies of the first quantity first.
        checks: comparisons with Geant4, one for each of them; empty without a reference.
        reference: name of the library; empty without one.
    """

    surrogate: str
    design: SamplingDesign
    objective: StackObjective
    energies: tuple[float, ...]
    gradients: tuple[StackGradient, ...]
    checks: tuple[StackCheck, ...] = ()
    reference: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        points = [each.to_dict() for each in self.gradients]
        for point, check in zip(points, self.checks, strict=False):
            point["check"] = check.to_dict()
        return {
            "surrogate": self.surrogate, "reference": self.reference, "objective": self.objective.describe(),
            "design": {"absorber": self.design.absorber.name, "active": self.design.active.name,
                       "layers": self.design.n_layers},
            "points": points,
        }  # fmt: skip

    def columns(self) -> list[str]:
        """Return the names of the columns of `rows`; Geant4's derivatives are per cm, of resolutions in logarithms."""
        first = ["quantity", "E, GeV", "value", "plates", "per cm", "d ln / d ln t"]
        return first + (["Geant4", "ratio", "pull"] if self.checks else [])

    def rows(self) -> list[list[str]]:
        """Return the rows of a table: a common change of the absorbers, or of the active plates, at every energy."""
        rows = []
        for number, each in enumerate(self.gradients):
            own, common, (lengths, errors) = each.plates(relative=False), each.common(relative=True), each.per_cm()
            unit = f" {each.quantity.unit}".rstrip()
            for k, kind in enumerate(KINDS):
                about = [each.quantity.symbol, f"{each.energy:g}", f"{rounded(own.value, own.value_error)}{unit}"]
                row = [
                    *(about if k == 0 else ("", "", "")), kind,
                    rounded(lengths[k], errors[k]),
                    rounded(common.gradient[k], common.gradient_error[k]),
                ]  # fmt: skip
                if self.checks:
                    check = self.checks[number].common
                    c, scale = check.components[k], 1.0 if each.quantity.relative else check.geant4.y[k]
                    row += [rounded(c.geant4 / scale, c.geant4_error / scale), rounded(c.ratio, c.ratio_error),
                            f"{c.pull:+.1f}"]  # fmt: skip
                rows.append(row)
        return rows

    def _repr_html_(self) -> str:
        """Return the table that a notebook shows."""
        return table(f"Derivatives by {self.surrogate}", self.columns(), self.rows())


def stack_gradient(
    surrogate: Surrogate,
    design: SamplingDesign,
    energies: Sequence[float],
    objective: StackObjective,
    *,
    reference: PlateLibrary | str | Path | None = None,
    showers: int = 1000,
    draws: int = 8,
    sampler: str | None = None,
    steps: int | None = None,
    seed: int = 0,
    extrapolate: bool = False,
    progress: StageProgress = silent,
) -> StackGradientResult:
    """Return the derivatives of an objective's quantities with respect to the thickness of every plate of a stack.

    Args:
        surrogate: a surrogate of stacks of plates.
        design: one stack.
        energies: incident energies, GeV.
        objective: quantities and beam; its own energies are not used.
        reference: Geant4's showers in random stacks around the design, or their file, see
            `calograd.gradients.simulated_stacks.regression_gradient`.
        showers: generated showers of every energy in a draw.
        draws: independent draws, at least two.
        sampler, steps: see `Surrogate.sample`.
        seed: seed of all random numbers; every energy has its own.
        extrapolate: warn instead of refusing outside the trained range.
        progress: called with the stages "surrogate" and "Geant4".

    Raises:
        RangeError: the stack, the beam or an energy is outside the trained range.
        InputError: a batch of stacks, fewer than two draws, or a library of other showers.
        UtilityError: a derivative that is not finite.
    """
    if "layers_only" not in surrogate.model.options:
        raise InputError(
            f"{surrogate.card.name} generates no energies of plates; expected a surrogate of stacks, or a Design"
        )
    if design.batched:
        raise InputError(f"a gradient is taken at one design, {design.n} are given; take them one by one")
    showers, draws = as_count("showers", showers, 2), as_count("draws", draws, 2)
    opened = open_plates(reference) if isinstance(reference, str | Path) else nullcontext(reference)
    with opened as library:
        simulated = [] if library is None else select_showers(library, design, energies, objective.beam)
        name = "" if library is None else library.path.name
    values, slopes, made = _back_propagate(
        surrogate, design, energies, objective, showers=showers, draws=draws, seed=seed,
        options={"sampler": sampler, "steps": steps, "extrapolate": extrapolate},
        progress=lambda done, total: progress("surrogate", done, total),
    )  # fmt: skip
    schedule = surrogate.model.sampling_schedule(sampler, steps)._asdict()
    del schedule["options"]  # none was asked for
    about = {"source": surrogate.card.name, "showers": showers, "draws": draws, "seed": seed, **schedule}
    thickness, quantities = _thickness(design).numpy(), objective.quantities
    pairs = list(product(enumerate(quantities), enumerate(energies)))
    found = tuple(
        StackGradient(quantity, energy, thickness, values[:, q, e], slopes[:, q, e], about | {"energy": energy})
        for (q, quantity), (e, energy) in pairs
    )
    checks = list[StackCheck]()
    for ours, ((q, quantity), (e, _)) in zip(found, pairs, strict=True) if simulated else ():
        own_seed = seed_of(seed, q, e)
        theirs = regression_gradient(simulated[e], design, quantity.fixed(made, energies), seed=own_seed)
        plates = None if theirs.plates is None else compare_gradients(ours.plates(), theirs.plates, own_seed)
        checks.append(StackCheck(compare_gradients(ours.common(), theirs.common, own_seed), plates))
        progress("Geant4", len(checks), len(pairs))
    return StackGradientResult(surrogate.card.name, design, objective, tuple(energies), found, tuple(checks), name)


def resolution_utility(
    surrogate: Surrogate,
    space: StackSpace,
    objective: StackObjective,
    *,
    showers: int = 1000,
    sampler: str | None = None,
    steps: int | None = None,
    extrapolate: bool = False,
    weights: Sequence[float] | None = None,
    progress: StageProgress = silent,
) -> GradientFunction:
    """Return the gradient of a utility of stacks, for `calograd.optimisation.ascent.ascend`.

    The utility is minus the mean over energies of the logarithm of a quantity, which is to be as small as possible:

        U(y) = - sum_e w_e ln Q_e(y) / sum_e w_e

    Args:
        surrogate: a surrogate of stacks of plates.
        space: parameters of the stack.
        objective: one quantity, for example `LearntResolution`, energies and beam.
        showers, sampler, steps, extrapolate, progress: see `stack_gradient`.
        weights: weight of every energy; None: all the same.

    Raises:
        InputError: several quantities, or no energies.
    """
    if len(objective.quantities) != 1 or not objective.energies:
        raise InputError("the utility of a stack needs one quantity and its energies, as StackObjective(q, (10.0,))")

    def gradient(y: np.ndarray, draws: int, seed: int) -> GradientEstimate:
        made = stack_gradient(
            surrogate, space.design(y), objective.energies, objective, showers=showers, draws=draws, sampler=sampler,
            steps=steps, seed=seed, extrapolate=extrapolate, progress=progress,
        )  # fmt: skip
        values = -np.average([np.log(each.values) for each in made.gradients], 0, weights)
        slopes = -np.average([each.draws / each.values[:, None] for each in made.gradients], 0, weights)
        return GradientEstimate.from_draws(space.names, y, values, space.gathered(slopes), made.gradients[0].about)

    return gradient


def resolution_values(
    surrogate: Surrogate,
    space: StackSpace,
    objective: StackObjective,
    *,
    showers: int = 1000,
    sampler: str | None = None,
    steps: int | None = None,
    weights: Sequence[float] | None = None,
    progress: Progress = silent,
) -> ValuesFunction:
    """Return the function that gives the utility of `resolution_utility` at several stacks, without gradients.

    Args:
        surrogate, space, objective, showers, sampler, steps, weights: see `resolution_utility`.
        progress: called with stacks done and their number.
    """
    quantity, energies = objective.quantities[0], objective.energies

    def values(points: np.ndarray, draws: int, seed: int) -> np.ndarray:
        found = np.empty(len(points))
        for number, y in enumerate(points):
            made = generate_stacks(
                surrogate, space.design(y), objective, showers * draws, (seed, SHOWERS), sampler=sampler, steps=steps
            )
            each = [quantity([of[m * showers : (m + 1) * showers] for of in made], energies) for m in range(draws)]
            found[number] = -np.average(torch.stack(each).log().mean(0).cpu().numpy(), 0, weights)
            progress(number + 1, len(points))
        return found

    return values


def generate_stacks(
    surrogate: Surrogate,
    design: SamplingDesign,
    objective: StackObjective,
    n: int,
    key: tuple[int, ...],
    *,
    sampler: str | None = None,
    steps: int | None = None,
) -> list[LayerEnergies]:
    """Return n showers of every energy of an objective in a stack, without a graph.

    Args:
        surrogate, design, objective, sampler, steps: see `stack_gradient`.
        n: number of showers of every energy.
        key: numbers that all random numbers follow from, with the place of the energy.
    """
    with torch.no_grad():
        return [
            surrogate.sample(
                design, energy, n, generator=generator_for(*key, i), particle=objective.beam.particle,
                theta=objective.beam.theta, layers_only=True, sampler=sampler, steps=steps, shower=range(n),
            )
            for i, energy in enumerate(objective.energies)
        ]  # fmt: skip


def _thickness(design: SamplingDesign) -> Tensor:
    """Return the thicknesses of all absorbers, then of all active plates, shape (2 n_layers,), cm, float64."""
    return torch.cat([design.absorber_thickness, design.active_thickness]).detach().double().cpu()


def _back_propagate(
    surrogate: Surrogate,
    design: SamplingDesign,
    energies: Sequence[float],
    objective: StackObjective,
    *,
    showers: int,
    draws: int,
    seed: int,
    options: dict[str, Any],
    progress: Progress,
) -> tuple[np.ndarray, np.ndarray, list[LayerEnergies]]:
    """Return quantities, shape (draws, quantities, energies), their slopes in ln t, one axis more, and the showers.

    The showers of all draws are returned without their graph, one `LayerEnergies` for every energy.
    """
    layers, like = design.n_layers, surrogate.model.condition_mean
    size = max(1, ROWS // (showers * len(energies)))
    shape = (draws, len(objective.quantities), len(energies))
    values, slopes = np.empty(shape), np.empty((*shape, 2 * layers))
    kept: list[list[LayerEnergies]] = [[] for _ in energies]
    progress(0, draws)
    for start in range(0, draws, size):
        group = slice(start, min(start + size, draws))
        number = group.stop - start
        logs = torch.zeros(number, 2 * layers, dtype=torch.float64, device=like.device, requires_grad=True)
        rows = (_thickness(design).to(like.device) * logs.exp()).repeat_interleave(showers, 0)
        stack = SamplingDesign(
            design.absorber, design.active, rows[:, :layers], rows[:, layers:], layers, design.gap_material,
            design.gap_thickness.detach(),
        )  # fmt: skip
        made = [
            surrogate.sample(
                stack, energy, len(rows), generator=generator_for(seed, SHOWERS, i), particle=objective.beam.particle,
                shower=range(start * showers, group.stop * showers), theta=objective.beam.theta, layers_only=True,
                checkpointed=True, **options,
            )
            for i, energy in enumerate(energies)
        ]  # fmt: skip
        by_draw = [[each[m * showers : (m + 1) * showers] for each in made] for m in range(number)]
        found = torch.stack(
            [torch.stack([quantity(each, energies) for quantity in objective.quantities]) for each in by_draw]
        )
        values[group] = found.detach().cpu().numpy()
        for q, e in product(range(shape[1]), range(shape[2])):
            slope = torch.autograd.grad(found[:, q, e].sum(), logs, retain_graph=True)[0].cpu().numpy()
            _check_slopes(objective.quantities[q], slope)
            slopes[group, q, e] = slope
        for showers_of, each in zip(kept, made, strict=True):
            showers_of.append(LayerEnergies(each.active.detach(), each.absorber.detach()))
        progress(group.stop, draws)
    return values, slopes, [LayerEnergies.concatenate(each) for each in kept]


def _check_slopes(quantity: StackQuantity, slopes: np.ndarray) -> None:
    """Raise `UtilityError` unless the derivatives are finite."""
    if not np.isfinite(slopes).all():
        raise UtilityError(
            f"a derivative of the {quantity} is not a number; take more showers, and a stack and an energy inside the "
            "trained range"
        )
