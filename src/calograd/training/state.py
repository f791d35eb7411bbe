"""Where a training of a surrogate of designs begins, and how it is gone on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError

from calograd.errors import InputError
from calograd.io.differences import refuse_other
from calograd.surrogate import Surrogate
from calograd.surrogate.cells.model import CellsModel, with_material_numbers
from calograd.surrogate.model import DesignArchitecture, DesignModel, to_device
from calograd.surrogate.registry import architecture
from calograd.surrogate.two_stage import TwoStage
from calograd.training import loop as engine
from calograd.training.config import RunConfig, TrainingConfig
from calograd.training.data.paired_designs import DifferenceScale
from calograd.training.data.rows import TrainingData
from calograd.training.loop import Course, Pace, read_stored, resume

C = TypeVar("C", bound=BaseModel)

PHASES = ("shape moments", "pattern moments", "diffusion")
DIFFUSION = PHASES.index("diffusion")
PREFIXES = (("shape_location_scale.",), ("pattern_location_scale.",), ("shape_network.", "pattern_network."))
"""What is learnt in each of them."""


def start(config: RunConfig, data: TrainingData, device: str) -> Course[DesignModel]:
    """A new run: weights from the seed, conditions standardised over the training rows."""
    if config.model.kind != data.kind:
        raise InputError(
            f"the data are for a surrogate of kind '{data.kind}', model.kind is '{config.model.kind}'; change one"
        )
    form = config.model.architecture(data.n_xy, data.train.dz.shape[1], len(data.materials))
    model = initial_model(form, data, config.training.seed)
    if config.training.start:
        model = begun_with(config.training.start, model)
    model = to_device(model, device)
    state = Course.start(model, config.training.seed)
    if data.partner is not None and isinstance(model, TwoStage):
        state.beside = _difference(model, config.training.seed).to(device)
    return state


def _difference(model: TwoStage, seed: int) -> DifferenceScale:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DifferenceScale(model.n_conditions, len(model.shape_location_scale.symmetry_class))


def initial_model(form: DesignArchitecture, data: TrainingData, seed: int) -> DesignModel:
    """Weights from a seed, conditions standardised over the training rows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = (form if data.symmetric else form.asymmetric()).build()
    raw = data.conditions(model, data.standard)
    scale = raw.std(0)
    model.condition_mean.copy_(raw.mean(0))
    model.condition_scale.copy_(torch.where(scale > 1e-3, scale, torch.ones_like(scale)))
    return model


def begun_with(name: str, fresh: DesignModel) -> DesignModel:
    """The weights of a surrogate in a model of the same architecture, which may know the material better.

    Args:
        name: of a bundled surrogate, or its folder.
        fresh: new weights, conditions standardised over the rows to train on.

    Raises:
        InputError: a surrogate of another kind or architecture.
        FormatError: there is none, or it is damaged.
    """
    base = Surrogate.load(name).design_model
    old, new = ({"kind": type(m).__name__} | m.architecture.to_dict() for m in (base, fresh))
    if isinstance(base, CellsModel) and isinstance(fresh, CellsModel) and not old["material_numbers"]:
        old["material_numbers"] = new["material_numbers"]
    if isinstance(base, TwoStage) and not new.get("symmetric", True):
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


def pace_of(t: TrainingConfig) -> Pace:
    """As the configuration has it."""
    return Pace(t.warmup, t.weight_decay, t.report_every, t.checkpoint_minutes)


def write_checkpoint(
    state: Course[DesignModel], config: RunConfig, data: TrainingData, output: Path, teacher: str = ""
) -> None:
    """Keep the state, which has to be between two steps. Raises `InputError` if it cannot be written.

    ``teacher``: identity of what is distilled.
    """
    engine.write_checkpoint(
        state, output,
        {"config": config.model_dump_json(), "data": data_fingerprint(data),
         "architecture": state.model.architecture.to_dict(), "teacher": teacher},
    )  # fmt: skip


def read_checkpoint(
    config: RunConfig, data: TrainingData, output: Path, device: str, teacher: str = ""
) -> Course[DesignModel] | None:
    """The state of the run in ``output``, or None if there is none.

    Raises:
        FormatError: the checkpoint is damaged.
        InputError: it is of another configuration, of other data or of another teacher.
    """

    def read(stored: dict[str, Any]) -> Course[DesignModel]:
        _refuse_other(stored, config, data, output)
        if stored.get("teacher", "") != teacher:
            raise InputError(f"{output} holds a run of another teacher; bring it back or choose another output")
        return _restore(stored, config, device)

    return read_stored(output, read)


def _restore(stored: dict[str, Any], config: RunConfig, device: str) -> Course[DesignModel]:
    with torch.random.fork_rng(devices=[]):  # the first weights, which are replaced, are random
        model = architecture(config.model.kind, stored["architecture"]).build()
    state = Course.start(to_device(model, device), 0)
    if stored.get("difference") is not None:
        assert isinstance(model, TwoStage)
        state.beside = _difference(model, 0).to(device)
    resume(state, stored, PREFIXES, pace_of(config.training))
    return state


def _refuse_other(stored: dict[str, Any], config: RunConfig, data: TrainingData, output: Path) -> None:
    """Raise `InputError` if a checkpoint is not of this configuration and these data."""
    before = read_stored_config(RunConfig, stored["config"], output)
    refuse_other(output, _plain(config), _plain(before))
    rows = stored.get("data", data_fingerprint(data))
    if rows != data_fingerprint(data):
        raise InputError(f"{output} holds a run on other rows of data; bring them back or choose another output")


def read_stored_config(kind: type[C], text: str, output: Path) -> C:
    """A configuration from a checkpoint in ``output``; `InputError` if it is of a release that knew other keys."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise InputError(
            f"{output} holds a run of another release, whose configuration this one does not know ({where}: "
            f"{error.errors()[0]['msg']}); end it with that release or choose another output"
        ) from error


def _plain(config: RunConfig) -> dict[str, Any]:
    """As plain data that does not depend on the folder in which it was read."""
    tables = config.model_dump()
    tables["data"]["files"] = [str(file.resolve()) for file in config.data.files]
    return tables


def data_fingerprint(data: TrainingData) -> list[float]:
    """Numbers that differ between different training data."""
    rows = data.train
    return [len(rows), len(data.validation), float(rows.energy.double().sum()), float(rows.dx.double().sum())]
