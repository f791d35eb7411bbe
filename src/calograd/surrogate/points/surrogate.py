"""Cloud surrogates: trained models of showers as points, loaded and sampled."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor

from calograd.errors import InputError, RangeError
from calograd.events.points import Points
from calograd.surrogate.base import place
from calograd.surrogate.fused import Folding
from calograd.surrogate.points.base import StackModel
from calograd.surrogate.points.fused import fold_clouds
from calograd.surrogate.storage import StackCard, load_stack, save

__all__ = ["CloudSurrogate", "Points", "StackCard"]

BATCH = 16
"""Showers generated at once: their points stay in the cache."""
MARGIN = 1e-4
"""Relative slack at the ends of the trained range."""


class CloudSurrogate:
    """A trained surrogate of a layered detector.

        surrogate = CloudSurrogate.load("siw-cloud")
        points = surrogate.sample(energy=50.0, n=1000)
        cells = points.to_cells(pitch=0.50883)

    Attributes:
        card: name, trained range and how it was made.
        model: the weights.
    """

    def __init__(self, model: StackModel, card: StackCard) -> None:
        self.model = model
        self.card = card
        self._folding = Folding(model, fold_clouds)

    @classmethod
    def load(cls, name_or_folder: str | Path, device: str | torch.device = "cpu") -> CloudSurrogate:
        """A bundled name, or a folder written by ``train``.

        Raises:
            FormatError: missing, damaged, of another kind or newer.
            InputError: a device that torch does not have.
        """
        model, card = load_stack(name_or_folder)
        return cls(place(model, device), card)

    def save(self, folder: str | Path, *, compact: bool = False) -> None:
        """Write weights and card to a folder; ``compact`` rounds the networks to float16."""
        save(Path(folder), self.model, self.card, compact=compact)

    def sample(
        self,
        energy: float | Tensor,
        n: int,
        *,
        generator: torch.Generator | None = None,
        sampler: str | None = None,
        steps: int | None = None,
        smooth: bool = False,
        extrapolate: bool = False,
    ) -> Points:
        """Showers.

        Args:
            energy: incident energy in GeV, one number or one a shower, shape (n,); a tensor receives gradients.
            n: number of showers.
            generator: of all random numbers.
            sampler: of the points: ``heun``, ``ddpm``, ...; of a distilled surrogate ``consistency``. [the card's]
            steps: of the sampler.
            smooth: count the last point of every layer in part: energies and positions are then smooth in the energy,
                and their gradients those of the expected showers.
            extrapolate: warn instead of refusing outside the trained range.

        Raises:
            RangeError: an energy outside the trained range.
            InputError: an unknown sampler, or numbers that do not fit.
        """
        if n < 1 or (steps is not None and steps < 1):
            raise InputError(f"n = {n} showers in {steps} steps: expected at least 1 of each")
        self.model.walk(sampler, steps)
        energy = torch.as_tensor(energy).to(self.model.unit)
        if energy.shape not in ((), (n,)):
            raise InputError(f"energy has shape {tuple(energy.shape)}, expected one number or ({n},)")
        self.check_range(energy, extrapolate)
        energy = energy.expand(n)
        starts = range(0, n, BATCH)
        derived = self._folding.derived(energy)
        model = self.model if derived else self._folding.latest()
        with nullcontext() if derived else torch.inference_mode():
            parts = [model.generate(energy[at : at + BATCH], generator, sampler, steps, smooth) for at in starts]
        return join(parts)

    def check_range(self, energy: Tensor, extrapolate: bool = False) -> None:
        """Refuse energies (GeV) that the surrogate was not trained on.

        Raises:
            RangeError: outside the trained range; with ``extrapolate`` a warning instead.
            InputError: not a positive number.
        """
        smallest, largest = (float(end) for end in energy.detach().aminmax())  # either is NaN if any is
        if not (smallest > 0 and isfinite(largest)):
            raise InputError("an energy is not a positive number; expected GeV")
        low, high = self.card.energy
        if smallest >= low * (1 - MARGIN) and largest <= high * (1 + MARGIN):
            return
        worst = smallest if smallest < low * (1 - MARGIN) else largest
        problem = f"energy = {worst:g} GeV is outside {low:g} to {high:g} GeV"
        if not extrapolate:
            how = "allow it with extrapolate=True (--extrapolate), at your own risk"
            raise RangeError(f"{self.card.name}: {problem}; {how}")
        warnings.warn(f"{self.card.name} extrapolates: {problem}", stacklevel=3)


def join(parts: list[Points]) -> Points:
    """Showers put one behind the other, in tensors of their own: none of those of inference mode."""
    columns = ("x", "y", "layer", "e", "energy")
    x, y, layer, e, energy = (torch.cat([getattr(part, name) for part in parts]) for name in columns)
    ends = [parts[0].offsets]
    for part in parts[1:]:
        ends.append(part.offsets[1:] + ends[-1][-1])
    return Points(x, y, layer, e, torch.cat(ends), energy, parts[0].layers)
