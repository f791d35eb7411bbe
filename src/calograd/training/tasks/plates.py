"""Training of a surrogate of stacks of plates.

    phase "shower location and scale"   Student t likelihood of g given the stack and the particle
    phase "layer location and scale"    Student t likelihood of c given the layer, the shower and both
    phase "diffusion"                   denoising losses of x and y with frozen location and scale

The numbers are those of `calograd.surrogate.plates.model`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType

import torch
from torch import Tensor

from calograd.detector.configuration import PDG, Particle
from calograd.detector.particles import Particles
from calograd.errors import InputError
from calograd.surrogate.card import TrainedBeam, TrainedStacks
from calograd.surrogate.model import to_device
from calograd.surrogate.plates.model import PlatesModel
from calograd.system.random_numbers import RandomNumbers
from calograd.training.config import PlatesRun
from calograd.training.data.plates import PlatesData, StackRows, initialise
from calograd.training.loop import Phase, TrainingState, parameters_below
from calograd.training.monitor import Report, report_plates
from calograd.training.tasks.surrogate import SurrogateTask, check_particles, check_reached

State = TrainingState[PlatesModel]
LOCATION_SCALE_PHASES = ("shower location and scale", "layer location and scale")
"""Names of the phases before the diffusion."""
NETWORKS = ("shower_network.", "layer_network.")
"""Beginnings of the names of the weights of the diffusion networks."""
GROUPS = 4
"""Number of groups of showers with like numbers of layers, each padded to its largest, that a step is made of."""
PREFIXES = (("shower_location_scale.",), ("layer_location_scale.",), NETWORKS)
"""Beginnings of the names of the weights that each phase learns."""


class PlatesTask(SurrogateTask[PlatesModel]):
    """Training of a surrogate of stacks of plates, see `calograd.training.loop.Task`.

    Args:
        config: configuration of the run.
        data: showers to train on and to validate with.
        device: any torch device.
        origins: identities of the surrogates that the run starts from, by their role.

    Raises:
        InputError: the data do not reach over the range, have more layers than the model, or there is no such device.
    """

    auxiliary = None

    def __init__(
        self, config: PlatesRun, data: PlatesData, device: str, origins: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        wanted, known = config.range, data.known()
        check_reached("range.energy", wanted.energy, "GeV", data.train.energy, "the data")
        check_particles(wanted.particles, wanted.theta, data.train.particles)
        most = config.model.layers
        if known.layers[1] > most:
            raise InputError(f"model.layers = {most}: the data have stacks of up to {known.layers[1]} layers; raise it")
        self.config, self.data, self.device = config, data, device
        beam = TrainedBeam(particles=wanted.particles, theta=wanted.theta)
        super().__init__(config, data, TrainedStacks(**known._asdict(), beam=beam), dict(origins))

    @cached_property
    def model(self) -> PlatesModel:
        """Weights from the seed, standardised over the training showers."""
        seed = self.config.training.seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.config.model.architecture().build()
        initialise(model, self.data, seed)
        return to_device(model, self.device)

    @cached_property
    def phases(self) -> tuple[Phase[PlatesModel], ...]:
        """Location and scale of showers and layers, then both diffusion models."""
        t, rate = self.config.training, self.config.training.learning_rate
        names = [
            parameters_below(self.model, *prefixes)
            for prefixes in PREFIXES
        ]  # fmt: skip
        steps = t.phase_steps
        return (
            *(
                Phase(name, steps[k], names[k], self._loss, 0.0, rate, monitored=False)
                for k, name in enumerate(LOCATION_SCALE_PHASES)
            ),
            Phase("diffusion", t.steps, names[2], self._loss, t.ema, rate),
        )

    def monitor(self, state: State) -> Report:
        """Return validation losses and physics."""
        return report_plates(state.ema, self.data, PlatesModel.losses)

    def _loss(self, state: State) -> Tensor:
        """Return the loss of random showers."""
        t = self.config.training
        batch = t.location_scale_batch if state.phase < len(LOCATION_SCALE_PHASES) else t.batch
        chosen = torch.randint(len(self.data.train), (batch,), generator=state.generator)
        chosen = chosen[self._counts[chosen].argsort(stable=True)]
        return torch.stack([self._loss_of(state, part) * (len(part) / batch) for part in chosen.chunk(GROUPS)]).sum()

    @cached_property
    def _counts(self) -> Tensor:
        """Number of layers of every shower to train on."""
        return self.data.train.counts

    def _loss_of(self, state: State, chosen: Tensor) -> Tensor:
        """Return the loss of the showers of these numbers, padded to the largest number of layers among them."""
        random = RandomNumbers.from_generator(state.generator, len(chosen))
        return batch_loss(state.model, self.data, self.data.train.at(chosen), state.phase, random)


def batch_loss(model: PlatesModel, data: PlatesData, rows: StackRows, phase: int, random: RandomNumbers) -> Tensor:
    """Return the mean loss of showers in the phase of number ``phase``: a likelihood, or both denoising losses."""
    rows = rows.to(model.condition_mean.device)
    conditions = data.conditions(model, rows)
    if phase < len(LOCATION_SCALE_PHASES):
        return model.location_scale_loss(phase, rows.energies, conditions, rows.energy, random)
    with torch.no_grad():
        x, y = model.standardise(rows.energies, conditions, rows.energy, random)
    shower, layers = model.losses(x, y, conditions, rows.energy, random)
    return shower.mean() + layers.mean()


def beam_of(particles: Particles) -> TrainedBeam:
    """Return particles and angles of showers as a trained range."""
    known: tuple[Particle, ...] = ("gamma", "e-", "e+")
    names = tuple(name for name in known if (particles.particle == PDG[name]).any())
    low, high = (float(end) for end in particles.theta.aminmax())
    return TrainedBeam(particles=names, theta=(low, high))
