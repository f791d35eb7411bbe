"""Surrogates: trained models of a calorimeter's response, loaded and sampled."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Literal, overload

import torch
from torch import Tensor

from calograd.detector.design import Design
from calograd.detector.material import DESCRIPTORS, UNITS, Material, to_float
from calograd.errors import InputError, RangeError
from calograd.events.points import Points
from calograd.io.markup import facts
from calograd.surrogate.adapters import Adapter, fingerprint, stack
from calograd.surrogate.base import Model, numbers_of, place, sampler_of
from calograd.surrogate.cells.fused import FoldedCells, fold_cells
from calograd.surrogate.fused import Folding
from calograd.surrogate.points.surrogate import CloudSurrogate
from calograd.surrogate.registry import STACK_KINDS
from calograd.surrogate.storage import Card, StackCard, kind_of, load, save

__all__ = ["Adapter", "Card", "CloudSurrogate", "Points", "StackCard", "Surrogate", "load_designs"]

BATCH = 1000
"""Showers generated at once; larger batches are no faster on a CPU."""
MARGIN = 1e-4
"""Relative slack at the ends of the trained range, for float32 designs."""


class Surrogate:
    """A trained surrogate.

        surrogate = Surrogate.load("pbf2-cells")
        cells = surrogate.sample(Design(dx=2.5, dz=6.0), energy=50.0, n=1000)

    Attributes:
        card: name, trained range, materials and how it was made.
        model: the weights.
        adapters: those on top of a base, in the order in which they were applied; none for a base.
        source: the name or folder it was loaded from; empty if it was made in memory.
    """

    def __init__(self, model: Model, card: Card, *, adapters: tuple[Adapter, ...] = (), source: str = "") -> None:
        self.model = model
        self.card = card
        self.adapters = adapters
        self.source = source

    @overload
    @classmethod
    def load(  # type: ignore[overload-overlap]
        cls, name_or_folder: Literal["siw-cloud", "siw-cloud-cm"], device: str | torch.device = "cpu"
    ) -> CloudSurrogate: ...

    @overload
    @classmethod
    def load(cls, name_or_folder: str | Path, device: str | torch.device = "cpu") -> Surrogate: ...

    @classmethod
    def load(cls, name_or_folder: str | Path, device: str | torch.device = "cpu") -> Surrogate | CloudSurrogate:
        """A bundled name, or a folder written by ``train`` or ``adapt``; an adapted one is found with its base.

        A surrogate of points, as ``siw-cloud``, is a `CloudSurrogate`; see `load_designs` where that will not do.

        Raises:
            FormatError: missing, damaged, of another kind or newer, or an adapter without its base.
            InputError: a device that torch does not have, or an adapter of another base.
        """
        if kind_of(name_or_folder) in STACK_KINDS:
            return CloudSurrogate.load(name_or_folder, device)
        base, adapters = stack(name_or_folder)
        model, card = load(base)
        surrogate = cls(place(model, device), card, source=str(base))
        for adapter in adapters:
            surrogate = surrogate.with_adapter(adapter)
        surrogate.source = str(name_or_folder)
        return surrogate

    def save(self, folder: str | Path, *, compact: bool = False) -> None:
        """Write weights and card to a folder; ``compact`` rounds the denoising networks to float16.

        An adapted surrogate is written with its adapters merged, as one that needs no base.
        """
        save(Path(folder), self.model, self.card, compact=compact)

    def with_adapter(self, adapter: Adapter | str | Path) -> Surrogate:
        """This surrogate for another detector; itself it stays as it is, so that adapters are switched by taking both.

        Args:
            adapter: an `Adapter`, or the folder or file of one.

        Raises:
            FormatError: a file that cannot be used.
            InputError: an adapter of another base.
        """
        source = "" if isinstance(adapter, Adapter) or not Path(adapter).is_dir() else str(adapter)
        adapter = adapter if isinstance(adapter, Adapter) else Adapter.load(adapter)
        model, card = adapter.apply(self.model, self.card, self.identity)
        return Surrogate(model, card, adapters=(*self.adapters, adapter), source=source)

    @cached_property
    def identity(self) -> str:
        """What adapters know this surrogate by: SHA-256 of its weights, or of its base and its adapter."""
        return self.adapters[-1].identity() if self.adapters else fingerprint(self.model)

    @cached_property
    def _folding(self) -> Folding[Model, Model | FoldedCells]:
        return Folding(self.model, fold_cells)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        card, a = self.card, self.model.architecture
        x, z = ("cm", "cm") if card.units == "cm" else ("Moliere radii", "radiation lengths")
        done = card.training.get("done", {})
        return facts(
            f"Surrogate {card.name}",
            {
                "materials": ", ".join(map(_name, card.substances())),
                "cells": f"{a.n_xy} x {a.n_xy} x {a.n_z}",
                "energy": f"{card.energy[0]:g} to {card.energy[1]:g} GeV",
                "pitch": f"{card.dx[0]:g} to {card.dx[1]:g} {x}",
                "depth of a layer": f"{card.dz[0]:g} to {card.dz[1]:g} {z}"
                + (", each its own" if card.unequal_layers else ", all equal"),
                "mode": card.mode,
                "training": f"{card.training.get('showers', 'unknown')} showers, {done.get('step', 'unknown')} steps",
                "numbers": f"{sum(p.numel() for p in self.model.parameters()):,}",
                "adapters": ", ".join(f"{each.card.method} ({each.card.name})" for each in self.adapters) or "none",
            },
        )

    def sample(
        self,
        design: Design,
        energy: float | Tensor,
        n: int,
        *,
        generator: torch.Generator | None = None,
        sampler: str | None = None,
        steps: int | None = None,
        extrapolate: bool = False,
        checkpointed: bool = False,
        guidance: float = 0.0,
    ) -> Tensor:
        """Showers at a design.

        Args:
            design: within the trained range; tensors in it and in its material receive gradients.
            energy: incident energy in GeV, one number or one a shower, shape (n,); a tensor receives gradients.
            n: number of showers.
            generator: of all random numbers; equal ones give common random numbers at any design.
            sampler: ``trigflow-ab2``, ``ddim``, ``heun``, ``dpmpp-2m`` or ``ddpm``; of a distilled surrogate
                ``progressive``. None: the surrogate's own, ``trigflow-ab2`` or ``progressive``.
            steps: of the sampler; each has a default, and a distilled surrogate no choice.
            extrapolate: warn instead of refusing outside the trained range.
            checkpointed: where a gradient is recorded, keep each step's beginning alone and walk it again on the way
                back: memory hardly grows with the number of steps, the gradient costs a quarter more.
            guidance: w of classifier-free guidance, for maps that were trained with dropped conditions; 0 for none.

        Returns:
            Energies, GeV, differentiable in design and energy but for ``ddpm``: cells, shape (n, n_xy, n_xy, n_z), or
            of a surrogate of maps, shape (n, pixels, pixels), see `calograd.events.maps`.

        Raises:
            RangeError: a design, material or energy outside the trained range, see `check_range`.
            InputError: a sampler that is unknown or not the surrogate's, numbers that do not fit, ``ddpm``
                checkpointed, or guidance that was not learnt.
        """
        walk = self.model.walk(sampler, steps)
        if n < 1:
            raise InputError(f"n = {n} showers: expected at least 1")
        if checkpointed and sampler_of(walk).order == 0:
            raise InputError(
                f"'{walk.sampler}' adds noise on its way and cannot be checkpointed; choose another sampler"
            )
        self.check_guidance(guidance)
        like = self.model.condition_mean
        energy = torch.as_tensor(energy).to(like)
        if energy.shape not in ((), (n,)):
            raise InputError(f"energy has shape {tuple(energy.shape)}, expected one number or ({n},)")
        least, most = energy.detach().aminmax()  # both are NaN if any is
        if not (float(least) > 0 and isfinite(float(most))):
            raise InputError("an energy is not a positive number; expected GeV")
        self.check_range(design, energy, extrapolate)
        energy, dx, dz = energy.reshape(-1), design.dx.to(like), design.dz.to(like)
        numbers = numbers_of(design.material, like=like)
        derived = self._folding.derived(energy, dx, dz, numbers)
        model = self.model if derived else self._folding.latest()
        batches = []
        with nullcontext() if derived else torch.inference_mode():
            conditions = self.model.conditions(energy, dx.reshape(1), dz[None], numbers)
            batch = min(BATCH, self.model.most_rows)
            for start in range(0, n, batch):
                rows = slice(start, min(start + batch, n))
                batches.append(
                    model.generate(
                        conditions[rows] if len(conditions) == n else conditions,
                        energy[rows] if len(energy) == n else energy,
                        rows.stop - rows.start, walk, generator, checkpointed and derived, guidance,
                    )
                )  # fmt: skip
        return torch.cat(batches)

    def check_guidance(self, guidance: float) -> None:
        """Raise `InputError` for guidance that it did not learn."""
        if guidance and not self.model.guided:
            raise InputError(
                f"{self.card.name} was not trained with dropped conditions; leave out guidance = {guidance:g}"
            )

    def check_range(self, design: Design, energy: Tensor, extrapolate: bool = False) -> None:
        """Refuse what the surrogate was not trained on: a design, energies in GeV.

        Sizes are compared in cm or, where the networks see them so, in the material's Moliere radius and radiation
        length. Of the material E_c is compared, and every other number that the networks see; also X0 and R_M unless
        the networks see lengths in these alone (`Card.scales`). A material that agrees with a trained one in these is
        as good as it: `pbf2-cells` and surrogates with scaled sizes and the usual ``material_numbers`` take another
        density of a trained composition. One with each of them between those of the trained ones is a new composition
        within reach: allowed with a warning. Any other is refused.

        Raises:
            RangeError: outside the trained range; with ``extrapolate`` a warning instead.
            InputError: other numbers of cells.
        """
        design.check()
        a = self.model.architecture
        if (design.n_xy, design.n_z) != (a.n_xy, a.n_z):
            raise InputError(
                f"the design has {design.n_xy} x {design.n_xy} x {design.n_z} cells, "
                f"{self.card.name} generates {a.n_xy} x {a.n_xy} x {a.n_z}"
            )
        material, problems = design.material, []
        card = self.card.in_cm(material)
        for name, unit, values, (low, high) in (
            ("energy", "GeV", energy, card.energy),
            ("dx", "cm", design.dx, card.dx),
            ("dz", "cm", design.dz, card.dz),
        ):
            smallest, largest = (float(end) for end in values.detach().aminmax())
            if not (smallest >= low * (1 - MARGIN) and largest <= high * (1 + MARGIN)):
                worst = smallest if not smallest >= low * (1 - MARGIN) else largest
                problems.append(f"{name} = {worst:g} {unit} is outside {low:g} to {high:g} {unit}")
        layers = design.dz.detach()
        if float((layers.amax(-1) / layers.amin(-1)).max()) > 1 + MARGIN and not self.card.unequal_layers:
            problems.append("layers of different depths were not trained on")
        known, outside = self.material_status(material)
        unseen = f"material {_name(material)} was not trained on, {_names(self.card.substances())}"
        if outside:
            problems.append(unseen + (f" ({outside})" if len(self.card.materials) > 1 else ""))
        if problems and not extrapolate:
            how = "allow it with extrapolate=True (--extrapolate), at your own risk"
            raise RangeError(f"{self.card.name}: {'; '.join(problems)}; {how}")
        if problems:
            warnings.warn(f"{self.card.name} extrapolates: {'; '.join(problems)}", stacklevel=3)
        elif not known:
            warnings.warn(f"{self.card.name} interpolates: {unseen}, its numbers are between theirs", stacklevel=3)

    def material_status(self, material: Material) -> tuple[bool, str]:
        """Whether a material is as good as a trained one; if not, which of its numbers is outside theirs, in words."""
        a, trained = self.model.architecture, self.card.substances()
        compared = {"critical_energy", *a.material_numbers}
        if not self.card.scales:
            compared |= {"radiation_length", "moliere_radius"}
        if any(material.alike(other, MARGIN, tuple(compared)) for other in trained):
            return True, ""
        for name in (n for n in DESCRIPTORS if n in compared):
            value, values = to_float(getattr(material, name)), [to_float(getattr(other, name)) for other in trained]
            low, high = min(values), max(values)
            if not low * (1 - MARGIN) <= value <= high * (1 + MARGIN):
                unit = f" {UNITS[name]}".rstrip()
                return False, f"{name.replace('_', ' ')} {value:.3g} is outside {low:.3g} to {high:.3g}{unit}"
        return False, ""


def load_designs(name_or_folder: str | Path, device: str | torch.device = "cpu") -> Surrogate:
    """As `Surrogate.load`, but a surrogate of a layered detector is refused with an `InputError`."""
    surrogate = Surrogate.load(name_or_folder, device)
    if not isinstance(surrogate, Surrogate):
        raise InputError(
            f"{name_or_folder} generates points of a layered detector and knows no designs; expected a surrogate of "
            "cells or maps, as pbf2-cells"
        )
    return surrogate


def _name(material: Material) -> str:
    return f"{material.name} ({to_float(material.density):g} g/cm3)"


def _names(materials: tuple[Material, ...]) -> str:
    return f"{', '.join(map(_name, materials))} {'was' if len(materials) == 1 else 'were'}"
