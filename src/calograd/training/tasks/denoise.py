"""Training of a surrogate of cells or maps: location and scale of the coordinates first, then both diffusion models.

    phase "shape location and scale"     Student t likelihood of g given the conditions, and of its change with design
    phase "pattern location and scale"   Student t likelihood of c given the conditions and x
    phase "diffusion"                    denoising losses of x and y with frozen location and scale

Maps in plain coordinates have no location and scale, so their first two phases are empty.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from calograd.errors import InputError
from calograd.surrogate import Surrogate
from calograd.surrogate.cells.model import CellsModel, with_material_numbers
from calograd.surrogate.model import DesignArchitecture, DesignModel, to_device
from calograd.system.random_numbers import RandomNumbers
from calograd.training.config import DesignRun
from calograd.training.data.paired_designs import DifferenceScale, pair_loss
from calograd.training.data.rows import Rows, TrainingData
from calograd.training.distributed import ProcessGroup
from calograd.training.loop import Phase, TrainingState, parameters_below
from calograd.training.monitor import Losses, Report, report_rows
from calograd.training.tasks.surrogate import SurrogateTask, check_range, check_shares, trained_designs

DIFFUSION = "diffusion"
PHASES = ("shape location and scale", "pattern location and scale", DIFFUSION)
"""Names of the phases."""
PREFIXES = (("shape_location_scale.",), ("pattern_location_scale.",), ("shape_network.", "pattern_network."))
"""Beginnings of the names of the parameters that each phase trains."""


def denoising(
    model: DesignModel, x: Tensor, y: Tensor, conditions: Tensor, random: RandomNumbers
) -> tuple[Tensor, Tensor]:
    """Return the denoising losses of shape and pattern, see `DesignModel.losses`."""
    return model.losses(x, y, conditions, random)


class DenoisingTask(SurrogateTask[DesignModel]):
    """Training of a surrogate of cells or maps from showers.

    Args:
        config: configuration of the run.
        data: rows, split by shower.
        group: processes that share the work.

    Raises:
        InputError: the data do not reach over the range or are of another kind, a start of another architecture, or
            batches that cannot be shared out.
    """

    def __init__(self, config: DesignRun, data: TrainingData, group: ProcessGroup) -> None:
        super().__init__(config, data, trained_designs(config.range, data), {})
        self.config, self.data, self.group = config, data, group
        check_shares(config.training, group.size)
        check_range(config.range, data)

    @cached_property
    def model(self) -> DesignModel:
        """Weights from the seed or from ``training.start``; conditions standardised over the training rows."""
        config, data = self.config, self.data
        if config.model.kind != data.kind:
            raise InputError(
                f"the data are for a surrogate of kind '{data.kind}', model.kind is '{config.model.kind}'; change one"
            )
        form = config.model.architecture(data.n_xy, data.train.dz.shape[1], len(data.materials))
        model = initial_model(form, data, config.training.seed)
        if config.training.start:
            model = started_from(config.training.start, model)
        return to_device(model, self.group.device)

    @cached_property
    def auxiliary(self) -> DifferenceScale | None:
        """Scale of the differences between neighbouring designs, where showers are segmented at several."""
        if self.data.partner is None or not parameters_below(self.model, *PREFIXES[0]):
            return None
        numbers = len(self.model.two_stage.shape_location_scale.symmetry_class)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.training.seed)
            scale = DifferenceScale(self.model.n_conditions, numbers)
        return scale.to(self.group.device)

    @cached_property
    def phases(self) -> tuple[Phase[DesignModel], ...]:
        """Location and scale of shape and pattern, then both diffusion models."""
        t = self.config.training
        trained = [parameters_below(self.model, *prefixes) for prefixes in PREFIXES]
        rate, loss = t.learning_rate, self._location_scale_loss
        first = [
            Phase(name, steps if names else 0, names, loss, 0.0, rate, monitored=False)
            for name, steps, names in zip(PHASES[:2], t.phase_steps, trained[:2], strict=True)
        ]
        return *first, Phase(DIFFUSION, t.steps, trained[2], self._diffusion_loss, t.ema, t.learning_rate)

    def monitor(self, state: TrainingState[DesignModel]) -> Report:
        """Return validation loss and physics."""
        return report_rows(state.ema, self.data, denoising)

    def _location_scale_loss(self, state: TrainingState[DesignModel]) -> Tensor:
        """Return the likelihood loss of a batch of rows, or of half as many pairs of neighbouring designs."""
        batch, generator, model = self.config.training.location_scale_batch, state.generator, state.model
        if state.auxiliary is None:
            rows, random = drawn_rows(self.data, self.group, state, batch)
            return location_scale_loss(model, self.data, rows, state.phase, random)
        pairs = max(1, batch // 2)
        self.data.move_to(state.phase, state.step, pairs)
        mine = torch.arange(2 * pairs).reshape(2, pairs)[:, self.group.rows(pairs)].flatten()
        rows = self.data.rows(torch.cat(self.data.draw_pairs(pairs, generator))[mine])
        random = RandomNumbers.from_generator(generator, 2 * pairs).rows(mine.numpy())
        conditions = self.data.conditions(model, rows)
        cells, energy = rows.cells.to(conditions.device), rows.energy.to(conditions.device)
        g = model.two_stage.encode_shape(cells, energy, conditions, random)
        return pair_loss(model.two_stage.shape_location_scale, state.auxiliary, g, conditions).mean()

    def _diffusion_loss(self, state: TrainingState[DesignModel]) -> Tensor:
        """Return the denoising loss of a batch of rows."""
        t = self.config.training
        rows, random = drawn_rows(self.data, self.group, state, t.batch)
        return diffusion_loss(state.model, self.data, rows, random, t.precision)


def drawn_rows(
    data: TrainingData, group: ProcessGroup, state: TrainingState[DesignModel], batch: int
) -> tuple[Rows, RandomNumbers]:
    """Return this process's rows of a random batch, and their random numbers."""
    data.move_to(state.phase, state.step, batch)
    mine = group.rows(batch)
    rows = data.rows(data.draw(batch, state.generator)[mine])
    return rows, RandomNumbers.from_generator(state.generator, batch).rows(mine)


def location_scale_loss(
    model: DesignModel, data: TrainingData, rows: Rows, phase: int, random: RandomNumbers
) -> Tensor:
    """Return the mean negative log likelihood of location and scale.

    Args:
        model: the weights.
        data: the data that the rows are from.
        rows: rows of the batch.
        phase: 0 for the shape's, 1 for the pattern's.
        random: random numbers of the rows, which spread empty cells.
    """
    device = model.condition_mean.device
    cells, energy = rows.cells.to(device), rows.energy.to(device)
    return model.two_stage.location_scale_loss(phase, cells, energy, data.conditions(model, rows), random).mean()


def diffusion_loss(
    model: DesignModel,
    data: TrainingData,
    rows: Rows,
    random: RandomNumbers,
    precision: str,
    losses: Losses = denoising,
) -> Tensor:
    """Return the mean loss of the networks of shape and pattern.

    Args:
        model: the weights.
        data: the data that the rows are from.
        rows: rows of the batch.
        random: random numbers of the rows, of noise and symmetries.
        precision: precision of the matrix products, ``bf16`` or ``fp32``.
        losses: losses of a distillation in place of the denoising ones.
    """
    x, y, conditions = standardised(model, data, rows, random)
    with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        shape, pattern = losses(model, x, y, conditions, random)
    return shape.mean() + pattern.mean()


def batch_loss(
    model: DesignModel, data: TrainingData, rows: Rows, phase: int, random: RandomNumbers, precision: str
) -> Tensor:
    """Return the mean loss of a batch in the phase of number ``phase``; see `location_scale_loss`, `diffusion_loss`."""
    if PHASES[phase] == DIFFUSION:
        return diffusion_loss(model, data, rows, random, precision)
    return location_scale_loss(model, data, rows, phase, random)


@torch.no_grad()
def standardised(
    model: DesignModel, data: TrainingData, rows: Rows, random: RandomNumbers
) -> tuple[Tensor, Tensor, Tensor]:
    """Return x, y and conditions of rows, turned and mirrored at random where the beam allows it."""
    device = model.condition_mean.device
    cells, energy = rows.cells.to(device), rows.energy.to(device)
    conditions = data.conditions(model, rows)
    x, y = model.standardise(cells, energy, conditions, random)
    if data.symmetric:
        turn = random.integers(len(model.permutations))
        y = y.gather(1, model.permutations[turn.to(device)])
    return x, y, conditions


def initial_model(form: DesignArchitecture, data: TrainingData, seed: int) -> DesignModel:
    """Return a model with weights from a seed and conditions standardised over the training rows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = (form if data.symmetric else replace(form, symmetric=False)).build()
    raw = data.conditions(model, data.standard)
    scale = raw.std(0)
    model.condition_mean.copy_(raw.mean(0))
    model.condition_scale.copy_(torch.where(scale > 1e-3, scale, torch.ones_like(scale)))
    return model


def started_from(name: str, fresh: DesignModel) -> DesignModel:
    """Return the weights of a surrogate in a model of the same architecture, which may know more of the material.

    Args:
        name: bundled name or folder of the surrogate.
        fresh: new weights, with conditions standardised over the training rows.

    Raises:
        InputError: a surrogate of another kind or architecture.
        FormatError: the surrogate is missing or damaged.
    """
    base = Surrogate.load(name).design_model
    old, new = ({"kind": type(m).__name__} | m.architecture.to_dict() for m in (base, fresh))
    if isinstance(base, CellsModel) and isinstance(fresh, CellsModel) and not old["material_numbers"]:
        old["material_numbers"] = new["material_numbers"]
    if not new.get("symmetric", True):
        base, old["symmetric"] = base.asymmetric(), False
    other = [key for key in old | new if old.get(key) != new.get(key)]
    if other:
        raise InputError(
            f"training.start = '{name}' has {other[0]} = {old.get(other[0])}, this model has {new.get(other[0])}; "
            "give it the same, or leave training.start out"
        )
    if isinstance(base, CellsModel) and isinstance(fresh, CellsModel):
        return with_material_numbers(base, fresh)
    fresh.load_state_dict(base.state_dict())
    return fresh
