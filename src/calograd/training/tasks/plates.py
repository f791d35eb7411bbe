"""Training of a surrogate of stacks of plates.

    phase "shower location and scale"   Student t likelihood of g given the stack and the particle
    phase "layer location and scale"    Student t likelihood of c given the layer, the shower and both
    phase "diffusion"                   denoising losses of x and y with frozen location and scale

The numbers are those of `calograd.surrogate.plates.model`. A surrogate of points has the phases of
`calograd.training.tasks.plates_points` after these, or these phases alone if it starts from trained layers. Then the
points may be distilled from those of a teacher.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from calograd.detector.configuration import PDG, Particle
from calograd.detector.particles import Particles
from calograd.errors import InputError
from calograd.surrogate import Surrogate
from calograd.surrogate.card import TrainedBeam, TrainedStacks
from calograd.surrogate.model import to_device
from calograd.surrogate.plates.model import PlatesModel
from calograd.system.random_numbers import RandomNumbers
from calograd.training.config import PlatesRun
from calograd.training.data.plates import PlatesData, StackRows, initialise, initialise_points
from calograd.training.distributed import ProcessGroup
from calograd.training.loop import Phase, TrainingState, parameters_below
from calograd.training.monitor import Report, report_plates
from calograd.training.tasks.plates_points import Guide, PointPhases, stage_of
from calograd.training.tasks.surrogate import SurrogateTask, check_particles, check_reached, check_shares

State = TrainingState[PlatesModel]
LOCATION_SCALE_PHASES = ("shower location and scale", "layer location and scale")
"""Names of the phases before the diffusion."""
NETWORKS = ("shower_network.", "layer_network.")
"""Beginnings of the names of the weights of the diffusion networks."""
DRAWS = 4
"""Draws of the random numbers with which every shower is encoded."""
CHUNK = 4096
"""Showers that are encoded at once."""
GROUPS = 4
"""Number of groups of showers with like numbers of layers, each padded to its largest, that a step is made of."""
POINT_SIZES = (
    "points", "feature_width", "feature_blocks", "feature_steps", "point_width", "point_blocks", "point_steps",
    "point_sampler", "distilled_point_steps",
)  # fmt: skip
"""Names of the sizes of the second stage."""
PREFIXES = (("shower_location_scale.",), ("layer_location_scale.",), NETWORKS)
"""Beginnings of the names of the weights that each phase learns."""


class PlatesTask(SurrogateTask[PlatesModel]):
    """Training of a surrogate of stacks of plates, see `calograd.training.loop.Task`.

    Args:
        config: configuration of the run.
        data: showers to train on and to validate with.
        group: processes that share the work.
        origins: identities of the surrogates that the run starts from, by their role.

    Raises:
        InputError: the data do not reach over the range, have more layers than the model, a teacher or a start of
            another kind, or there is no such device.
    """

    auxiliary = None

    def __init__(
        self,
        config: PlatesRun,
        data: PlatesData,
        group: ProcessGroup,
        origins: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        wanted, known = config.range, data.known()
        check_reached("range.energy", wanted.energy, "GeV", data.train.energy, "the data")
        check_particles(wanted.particles, wanted.theta, data.train.particles)
        most = config.model.layers
        if known.layers[1] > most:
            raise InputError(f"model.layers = {most}: the data have stacks of up to {known.layers[1]} layers; raise it")
        check_shares(config.training, group.size, groups=GROUPS)
        self.config, self.data, self.group = config, data, group
        beam = TrainedBeam(particles=wanted.particles, theta=wanted.theta)
        self.start = load_start(config, data) if config.training.start else None
        self.points: PointPhases | None = None
        guide = load_guide(config, group.device) if self.start is not None and config.distillation is not None else None
        if config.model.points and (config.distillation is None or guide is not None):
            self.points = PointPhases(config.training, data, guide)
        if self.points is not None and group.size > 1:
            raise InputError(
                "several processes share the energies of plates, not the points; leave --processes and --nodes out, or "
                "train the energies first and add the points to them (training.start)"
            )
        others = {"start": self.start, "teacher": None if guide is None else guide.surrogate}
        origins = dict(origins) | {role: each.identity for role, each in others.items() if each is not None}
        start = None if self.start is None else self.start.card
        super().__init__(config, data, TrainedStacks(**known._asdict(), beam=beam), origins, start)

    @cached_property
    def model(self) -> PlatesModel:
        """Weights from the seed, standardised over the training showers; but for points those of the start, if any."""
        seed = self.config.training.seed
        if self.start is not None and self.config.training.only_match:
            return to_device(start_model(self.start), self.group.device)
        distillation, guide = self.config.distillation, None if self.points is None else self.points.guide
        architecture = self.config.model.architecture(
            distilled_point_steps=distillation.student_steps if guide is not None and distillation else None
        )
        if self.start is not None:
            sizes = {name: getattr(architecture, name) for name in POINT_SIZES}
            architecture = replace(start_model(self.start).architecture, **sizes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = architecture.build()
        if self.start is None:
            initialise(model, self.data, seed)
        else:
            theirs = start_model(self.start).state_dict()
            layers = {name: value for name, value in theirs.items() if not name.startswith("points.")}
            model.load_state_dict(layers, strict=False)
        if guide is not None:
            load_known(model, guide)
        elif self.points is not None:
            initialise_points(model, self.data, seed)
        return to_device(model, self.group.device)

    @cached_property
    def phases(self) -> tuple[Phase[PlatesModel], ...]:
        """Location and scale of showers and layers, then both diffusion models."""
        t, rate = self.config.training, self.config.training.learning_rate
        names = [
            parameters_below(self.model, *prefixes)
            for prefixes in PREFIXES
        ]  # fmt: skip
        steps = t.phase_steps
        of_layers = (
            *(
                Phase(name, steps[k], names[k], self._loss, 0.0, rate, monitored=False)
                for k, name in enumerate(LOCATION_SCALE_PHASES)
            ),
            Phase("diffusion", t.steps, names[2], self._loss, t.ema, rate),
        )
        if self.points is None:
            return of_layers
        of_points = self.points.phases(self.model)
        return of_points if t.start else (*of_layers, *of_points)

    def monitor(self, state: State) -> Report:
        """Return validation losses and physics."""
        if self.points is not None and (self.config.training.start or state.phase >= len(PREFIXES)):
            return self.points.report(state)
        return report_plates(state.ema, self.data, PlatesModel.losses)

    def _loss(self, state: State) -> Tensor:
        """Return the loss of this process's share of random showers.

        They are in groups of like numbers of layers, each padded to its largest.
        """
        t, generator, encoded = self.config.training, state.generator, self._encoded
        batch = t.location_scale_batch if state.phase < len(LOCATION_SCALE_PHASES) else t.batch
        chosen = torch.randint(len(encoded.counts), (batch,), generator=generator)
        draw = torch.randint(DRAWS, (batch,), generator=generator)
        order = encoded.counts[chosen].argsort(stable=True)
        losses = []
        for part in order.chunk(GROUPS):
            mine = part[self.group.rows(len(part))]
            random = RandomNumbers.from_generator(generator, len(part)).rows(self.group.rows(len(part)))
            rows = encoded.at(chosen[mine], draw[mine], self.group.device)
            losses.append(encoded_loss(state.model, state.phase, *rows, random) * (len(part) / batch))
        return torch.stack(losses).sum()

    @cached_property
    def _encoded(self) -> EncodedShowers:
        """All showers to train on in the coordinates of the model, with several draws of their random numbers."""
        rows, model, seed = self.data.train, self.model, self.config.training.seed
        n, parts = len(rows), []
        with torch.no_grad():
            for chosen in torch.split(torch.arange(n), CHUNK):
                some = rows.at(chosen).to(model.condition_mean.device)
                conditions = self.data.conditions(model, some)
                draws = [
                    model.encode(some.energies, conditions, some.energy, RandomNumbers(seed, k * n + chosen.numpy()))
                    for k in range(DRAWS)
                ]
                g = torch.stack([draw[0] for draw in draws], 1)
                c = torch.stack([draw[1] for draw in draws], 1)
                c = pad(c, (0, model.architecture.layers - c.shape[3]))
                parts.append(tuple(values.cpu() for values in (g, c, conditions, some.energy)))
        g, c, conditions, energy = (torch.cat(columns) for columns in zip(*parts, strict=True))
        return EncodedShowers(g, c, conditions, energy, rows.counts)


class EncodedShowers(NamedTuple):
    """Showers in the coordinates of the model, each with several draws of its random numbers.

    Args:
        g, c: shapes (n, `DRAWS`, 5) and (n, `DRAWS`, 2, layers).
        conditions: see `PlatesModel.conditions`, shape (n, conditions).
        energy: incident, shape (n,), GeV.
        counts: number of layers, shape (n,).
    """

    g: Tensor
    c: Tensor
    conditions: Tensor
    energy: Tensor
    counts: Tensor

    def at(self, chosen: Tensor, draw: Tensor, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return g, c, conditions and energy of the chosen showers, of these draws, on a device."""
        rows = self.g[chosen, draw], self.c[chosen, draw], self.conditions[chosen], self.energy[chosen]
        g, c, conditions, energy = (values.to(device) for values in rows)
        return g, c, conditions, energy


def load_start(config: PlatesRun, data: PlatesData) -> Surrogate:
    """Return the surrogate to which points are added. Raises `InputError` if it does not fit the data."""
    surrogate = Surrogate.load(config.training.start)
    model, name = surrogate.model, surrogate.card.name
    if not isinstance(model, PlatesModel):
        raise InputError(f"training.start {name} is of {surrogate.card.kind}; expected a surrogate of plates")
    free = ("points",) if config.training.only_match else POINT_SIZES
    own = sorted(config.model.model_fields_set - {"kind", *free})
    if own:
        raise InputError(f"model.{own[0]} is that of training.start; expected no more than {', '.join(free)}")
    deepest = data.known().layers[1]
    if deepest > model.architecture.layers:
        raise InputError(
            f"the data have stacks of {deepest} layers, training.start {name} generates up to "
            f"{model.architecture.layers}"
        )
    if config.training.only_match and model.points is None:
        raise InputError(f"training.start {name} has no points to match; leave training.only_match out to learn them")
    return surrogate


def load_guide(config: PlatesRun, device: str) -> Guide:
    """Return the teacher of the points. Raises `InputError` if it has none, or is distilled itself."""
    assert config.distillation is not None
    surrogate, steps = Surrogate.load(config.distillation.teacher, device), config.distillation.sub_steps
    model, name = surrogate.model, surrogate.card.name
    if not isinstance(model, PlatesModel) or model.points is None:
        raise InputError(f"the teacher {name} has no points in plates; expected a surrogate that generates them")
    if model.points.sizes.distilled_steps is not None:
        raise InputError(
            f"the points of the teacher {name} are distilled themselves; expected those of a diffusion model"
        )
    return Guide(surrogate, model, steps)


def load_known(model: PlatesModel, guide: Guide) -> None:
    """Give the second stage of a model that of its teacher, but for networks of other sizes."""
    stage, theirs = stage_of(model), stage_of(guide.model).state_dict()
    ours, known = stage.state_dict(), dict(theirs)
    for network in ("layer_network.", "point_network."):
        shapes = [
            {name: value.shape for name, value in each.items() if name.startswith(network)} for each in (ours, theirs)
        ]
        if shapes[0] != shapes[1]:
            known = {name: value for name, value in known.items() if not name.startswith(network)}
    stage.load_state_dict(ours | known)


def start_model(surrogate: Surrogate) -> PlatesModel:
    """Return the model of a surrogate of plates."""
    assert isinstance(surrogate.model, PlatesModel)
    return surrogate.model


def batch_loss(model: PlatesModel, data: PlatesData, rows: StackRows, phase: int, random: RandomNumbers) -> Tensor:
    """Return the mean loss of showers in the phase of number ``phase``: a likelihood, or both denoising losses."""
    rows = rows.to(model.condition_mean.device)
    conditions = data.conditions(model, rows)
    with torch.no_grad():
        g, c, _ = model.encode(rows.energies, conditions, rows.energy, random)
    return encoded_loss(model, phase, g, c, conditions, rows.energy, random)


def encoded_loss(
    model: PlatesModel, phase: int, g: Tensor, c: Tensor, conditions: Tensor, energy: Tensor, random: RandomNumbers
) -> Tensor:
    """Return the mean loss of showers of coordinates g and c in the phase of number ``phase``, see `batch_loss`."""
    if phase < len(LOCATION_SCALE_PHASES):
        return model.location_scale_loss(phase, g, c, conditions, energy)
    with torch.no_grad():
        x, y = model.standardise(g, c, conditions, energy)
    shower, layers = model.losses(x, y, conditions, energy, random)
    return shower.mean() + layers.mean()


def beam_of(particles: Particles) -> TrainedBeam:
    """Return particles and angles of showers as a trained range."""
    known: tuple[Particle, ...] = ("gamma", "e-", "e+")
    names = tuple(name for name in known if (particles.particle == PDG[name]).any())
    low, high = (float(end) for end in particles.theta.aminmax())
    return TrainedBeam(particles=names, theta=(low, high))
