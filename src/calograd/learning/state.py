"""What changes in a training, and how it is kept on disk so that it goes on to the same result.

``checkpoint.pt`` holds the weights, their moving average (EMA), the optimiser, the random generator and where the run
is; it is read without unpickling objects and replaced as a whole, always between two steps.
"""

from __future__ import annotations

import copy
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from calograd.errors import FormatError, InputError
from calograd.learning.config import RunConfig, TrainingConfig
from calograd.learning.data import TrainingData
from calograd.learning.pairs import DifferenceScale
from calograd.showers.hdf5 import write_whole
from calograd.surrogate.kinds import architecture
from calograd.surrogate.model import Architecture, Model, TwoStage, place

CHECKPOINT = "checkpoint.pt"
PHASES = ("shape moments", "pattern moments", "diffusion")
DIFFUSION = PHASES.index("diffusion")
PREFIXES = (("shape_moments.",), ("pattern_moments.",), ("shape_network.", "pattern_network."))
"""What is learnt in each of them; a surrogate may have nothing of some."""


@dataclass
class State:
    """Everything that changes in a run.

    Attributes:
        model, ema: the weights and their moving average.
        generator: of every random number.
        phase: index in `PHASES`; their number once the run has ended.
        step: steps done in the phase.
        seconds: since the run began, over all phases.
        running: running mean of the loss in the phase.
        optimiser: of the phase; None before its first step.
        difference: scale of the differences of rows of one shower, beside the shape's moments; None where there are
            no such rows.
    """

    model: Model
    ema: Model
    generator: torch.Generator
    phase: int = 0
    step: int = 0
    seconds: float = 0.0
    running: Tensor = field(default_factory=lambda: torch.zeros(()))
    optimiser: torch.optim.Optimizer | None = None
    difference: DifferenceScale | None = None

    def parameters(self) -> list[nn.Parameter]:
        """What the phase trains."""
        prefixes = PREFIXES[self.phase]
        own = [parameter for name, parameter in self.model.named_parameters() if name.startswith(prefixes)]
        return own + (list(self.difference.parameters()) if self.difference else [])

    def next_phase(self) -> None:
        """Go on to the first step of the next phase."""
        self.phase, self.step, self.optimiser, self.running = self.phase + 1, 0, None, torch.zeros(())
        self.difference = None


def start(config: RunConfig, data: TrainingData, device: str) -> State:
    """A new run: weights from the seed, conditions standardised over the training rows."""
    generator = torch.Generator().manual_seed(config.training.seed)
    if config.model.kind != data.kind:
        raise InputError(
            f"the data are for a surrogate of kind '{data.kind}', model.kind is '{config.model.kind}'; change one"
        )
    form = config.model.architecture(data.n_xy, data.train.dz.shape[1], len(data.materials))
    model = place(initial_model(form, data, config.training.seed), device)
    state = State(model, copy.deepcopy(model).requires_grad_(False), generator)
    if data.partner is not None and isinstance(model, TwoStage):
        state.difference = _difference(model, config.training.seed).to(device)
    return state


def _difference(model: TwoStage, seed: int) -> DifferenceScale:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DifferenceScale(model.n_conditions, len(model.shape_moments.tie))


def initial_model(form: Architecture, data: TrainingData, seed: int) -> Model:
    """Weights from a seed, conditions standardised over the training rows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = form.build()
    raw = data.conditions(model, data.train)
    scale = raw.std(0)
    model.condition_mean.copy_(raw.mean(0))
    model.condition_scale.copy_(torch.where(scale > 1e-3, scale, torch.ones_like(scale)))
    model.calibrate(data.train.cells)
    return model


def make_optimiser(parameters: list[nn.Parameter], t: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW; the rate is set before every step."""
    return torch.optim.AdamW(parameters, lr=t.learning_rate, weight_decay=t.weight_decay, fused=True)


def write_checkpoint(state: State, config: RunConfig, data: TrainingData, output: Path) -> None:
    """Keep the state, which has to be between two steps. Raises `InputError` if it cannot be written."""
    content = io.BytesIO()
    torch.save(
        {
            "config": config.model_dump_json(),
            "data": data_fingerprint(data),
            "phase": state.phase,
            "step": state.step,
            "seconds": state.seconds,
            "running": state.running,
            "architecture": state.model.architecture.to_dict(),
            "model": state.model.state_dict(),
            "ema": state.ema.state_dict(),
            "optimiser": state.optimiser.state_dict() if state.optimiser else None,
            "difference": state.difference.state_dict() if state.difference else None,
            "generator": state.generator.get_state(),
        },
        content,
    )
    then = "; mend this and repeat the command, it goes on from the last checkpoint"
    write_whole(output / CHECKPOINT, content.getvalue(), then)


def read_checkpoint(config: RunConfig, data: TrainingData, output: Path, device: str) -> State | None:
    """The state of the run in ``output``, or None if there is none.

    Raises:
        FormatError: the checkpoint is damaged.
        InputError: it is of another configuration or of other data.
    """
    path = output / CHECKPOINT
    if not path.exists():
        return None
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        _refuse_other(stored, config, data, output)
        return _restore(stored, config, device)
    except InputError:
        raise
    except Exception as error:  # whatever torch raises for a damaged file, or for one of another version
        reason = " ".join(str(error).split())[:120]
        raise FormatError(f"{path} is damaged ({reason}); remove {output} to start anew") from error


def _restore(stored: dict[str, Any], config: RunConfig, device: str) -> State:
    with torch.random.fork_rng(devices=[]):  # the first weights, which are replaced, are random
        model = architecture(config.model.kind, stored["architecture"]).build()
    ema = copy.deepcopy(model).requires_grad_(False)
    model.load_state_dict(stored["model"])
    ema.load_state_dict(stored["ema"])
    generator = torch.Generator()
    generator.set_state(stored["generator"])
    state = State(
        place(model, device),
        place(ema, device),
        generator,
        stored["phase"],
        stored["step"],
        stored["seconds"],
        stored.get("running", torch.zeros(())),
    )
    if stored.get("difference") is not None:
        assert isinstance(state.model, TwoStage)
        state.difference = _difference(state.model, 0).to(device)
        state.difference.load_state_dict(stored["difference"])
    if stored["optimiser"] is not None:
        state.optimiser = make_optimiser(state.parameters(), config.training)
        state.optimiser.load_state_dict(stored["optimiser"])
    return state


def _refuse_other(stored: dict[str, Any], config: RunConfig, data: TrainingData, output: Path) -> None:
    """Raise `InputError` if a checkpoint is not of this configuration and these data."""
    old, new = (_flat(c) for c in (RunConfig.model_validate_json(stored["config"]), config))
    changed = [key for key in new if new[key] != old[key]]
    if changed:
        key = changed[0]
        more = f" and {', '.join(changed[1:])}" if changed[1:] else ""
        raise InputError(
            f"{output} holds a run of another configuration: {key} is {new[key]}, was {old[key]}{more}; "
            "change it back or choose another output"
        )
    rows = stored.get("data", data_fingerprint(data))
    if rows != data_fingerprint(data):
        raise InputError(f"{output} holds a run on other rows of data; bring them back or choose another output")


def _flat(config: RunConfig) -> dict[str, Any]:
    """Every value of a configuration by its dotted name."""
    tables = config.model_dump()
    tables["data"]["files"] = [str(file.resolve()) for file in config.data.files]
    flat: dict[str, Any] = {}
    for name, value in tables.items():
        flat |= {f"{name}.{key}": v for key, v in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def data_fingerprint(data: TrainingData) -> list[float]:
    """Numbers that differ between different training data."""
    rows = data.train
    return [len(rows), len(data.validation), float(rows.energy.double().sum()), float(rows.dx.double().sum())]
