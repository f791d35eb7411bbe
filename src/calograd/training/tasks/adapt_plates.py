"""Adaptation of a surrogate of stacks of plates to another detector, see `calograd.training.tasks.adaptation`.

Unless layers are named, the diffusion networks alone change. They see how far a shower is from the location of the base
and take on what the base lacks. Another location and scale would change what they see first: after few showers they are
then farther off than they were, though each phase has lowered its own loss.
"""

from __future__ import annotations

import torch
from torch import Tensor

from calograd.errors import InputError
from calograd.surrogate import Surrogate
from calograd.surrogate.adapters import Adapter
from calograd.surrogate.card import TrainedStacks
from calograd.surrogate.plates.model import PlatesModel
from calograd.system.random_numbers import RandomNumbers
from calograd.training.config import AdaptConfig
from calograd.training.data.plates import PlatesData, StackRows, initialise
from calograd.training.monitor import Report, report_plates
from calograd.training.tasks.adaptation import AdaptationTask
from calograd.training.tasks.denoise import DIFFUSION
from calograd.training.tasks.plates import LOCATION_SCALE_PHASES, NETWORKS, PREFIXES, batch_loss, beam_of

MOST_ROWS = 1024
"""Showers whose loss is computed at once."""


class PlatesAdaptation(AdaptationTask[PlatesModel, PlatesData]):
    """Adaptation of a surrogate of plates, see `AdaptationTask`.

    Raises:
        InputError: a base of another kind, or data with more layers than it generates.
    """

    PHASES = (*LOCATION_SCALE_PHASES, DIFFUSION)
    PREFIXES = PREFIXES
    TARGETS = tuple(name.removesuffix(".") for name in NETWORKS)

    def __init__(self, base: Surrogate, config: AdaptConfig, data: PlatesData, first: Adapter | None = None) -> None:
        if not isinstance(base.model, PlatesModel):
            raise InputError(
                f"the data are libraries of plates, {base.card.name} is of {base.card.kind}; expected a surrogate of "
                "plates"
            )
        most, deepest = base.model.architecture.layers, data.known().layers[1]
        if deepest > most:
            raise InputError(f"the data have stacks of {deepest} layers, {base.card.name} generates up to {most}")
        super().__init__(base, config, data, first)

    def _base_model(self) -> PlatesModel:
        """Return the base's model."""
        assert isinstance(self.base.model, PlatesModel)
        return self.base.model

    def _fresh_model(self) -> PlatesModel:
        """Return random weights, standardised over the data; points, which are not adapted, are the base's."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            model = self._base_model().architecture.build()
        initialise(model, self.data, self.config.seed)
        if model.points is not None:
            points = self._base_model().points
            assert points is not None
            model.points.load_state_dict(points.state_dict())
        return model

    @property
    def symmetric(self) -> bool:
        """True: there are no weights that are equal by symmetry."""
        return True

    def _batch_loss(
        self, model: PlatesModel, rows: StackRows, phase: int, random: RandomNumbers, precision: str  # noqa: ARG002
    ) -> Tensor:  # fmt: skip
        """Return the mean loss of rows in a phase, in float32 at any precision."""
        return batch_loss(model, self.data, rows, phase, random)

    def _most_rows(self, model: PlatesModel) -> int:  # noqa: ARG002 - whatever its size
        """Return the largest number of rows at once."""
        return MOST_ROWS

    def report(self, surrogate: Surrogate) -> Report:
        """Return the physics of a surrogate on the held-out showers."""
        assert isinstance(surrogate.model, PlatesModel)
        return report_plates(surrogate.model, self.data, PlatesModel.losses)

    def _trained(self, trusted: bool) -> tuple[tuple[float, float], TrainedStacks]:
        """Return energies and stacks of the data, or those of the base, too."""
        low, high = (float(end) for end in self.data.train.energy.aminmax())
        own = TrainedStacks(**self.data.known()._asdict(), beam=beam_of(self.data.train.particles))
        if not trusted:
            return (low, high), own
        base = self.base.card
        assert isinstance(base.trained, TrainedStacks)
        return (min(low, base.energy[0]), max(high, base.energy[1])), base.trained.joined(own)
