"""What an adaptation is and what changes in it, and how it is kept on disk so that it goes on to the same result.

``adaptation.pt`` holds what is learnt, its moving average (EMA) and the best of it so far, the optimiser, the random
generator and where the run is; it is read without unpickling objects and replaced as a whole, between two steps.
"""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from calograd.errors import InputError
from calograd.io.files import write_whole
from calograd.nn.lora import Plan, Table, attach, merge, place, tabulate
from calograd.surrogate import Adapter, Surrogate
from calograd.surrogate.model import DesignModel
from calograd.training.data.rows import TrainingData
from calograd.training.loop import read_stored
from calograd.training.state import PREFIXES, data_fingerprint, initial_model, read_stored_config

CHECKPOINT = "adaptation.pt"

Positive = Annotated[int, Field(gt=0)]


class AdaptConfig(BaseModel):
    """How a surrogate is adapted. What is None has a default of its own for every method, see `Pace`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    method: Literal["lora", "bitfit", "full", "scratch"] = "lora"
    """``scratch``: new weights of the base's architecture, as a control."""
    rank: Positive = 8
    alpha: Annotated[float, Field(gt=0)] = 16.0
    targets: tuple[str, ...] = ("*",)
    """Patterns of names of linear layers; see `calograd.nn.lora.Plan`."""
    balanced: bool = False
    """Whether every energy of the data counts alike, however many showers have it; else every row. Where no two showers
    share an energy both are the same."""
    range: Literal["data", "base"] = "data"
    """What the adapted surrogate accepts: where the data are, or on trust all that its base accepts."""
    steps: Positive | None = None
    """Of the diffusion, at most; it stops when the loss of the held-out showers has ceased to fall."""
    location_scale_steps: Positive | None = None
    """Of either network of location and scale, likewise."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    boost: Annotated[float, Field(ge=1)] | None = None
    """Up to how many times that rate is used in a phase where a look finds that the loss falls quickly; see `State`."""
    batch: Positive = 256
    location_scale_batch: Positive = 1024
    warmup: Positive = 50
    ema: Annotated[float, Field(gt=0, lt=1)] = 0.99
    look_every: Positive = 50
    """Steps between two looks at the held-out showers."""
    patience: Positive = 8
    """Looks without a new best loss before a phase ends."""
    precision: Literal["bf16", "fp32"] = "bf16"
    seed: Annotated[int, Field(ge=0)] = 0
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 2.0

    def plan(self) -> Plan:
        """Of the adapter; from scratch everything is learnt."""
        if self.method == "scratch":
            return Plan("full")
        return Plan(self.method, self.rank, self.alpha, self.targets)

    def resolved(self) -> AdaptConfig:
        """With the method's defaults in place of None."""
        pace = PACES[self.method]
        return self.model_copy(
            update={name: value for name, value in asdict(pace).items() if getattr(self, name) is None}
        )


@dataclass(frozen=True)
class Pace:
    """Defaults of a method."""

    steps: int
    location_scale_steps: int
    learning_rate: float
    boost: float


PACES = {
    "lora": Pace(1500, 1500, 5e-4, 4.0),
    "bitfit": Pace(1500, 1500, 5e-3, 4.0),
    "full": Pace(1500, 1500, 5e-4, 4.0),
    "scratch": Pace(6000, 2500, 2e-3, 1.0),
}
QUICKLY = 0.02
"""A fall of the held-out loss from look to look that tells of a large shift, a number of the shower."""
BOOSTED = 1.5
"""By how much the rate rises then."""


@dataclass(frozen=True)
class PhaseResult:
    """A phase that has ended: loss of the held-out showers at its beginning and at its best, with steps."""

    name: str
    before: float
    after: float
    best_step: int
    steps: int


@dataclass
class State:
    """Everything that changes in a run.

    Attributes:
        start: the weights that the adapter is laid on, which do not change.
        trainee: what is trained, beside them.
        learnt, ema, best: what the trainee learns by name, its moving average, and that at the best look.
        generator: of every random number.
        phase, step: index of the phase and steps done in it.
        seconds: since the run began.
        running: running mean of the loss in the phase.
        first_loss, best_loss, best_step: of the held-out showers in the phase; NaN before the first look.
        results: of the phases that have ended.
        optimiser: of the phase; None before its first step.
        last_loss: at the last look.
        boost: by how much the learning rate has risen: small steps are best for a small shift, which few showers
            show badly, and do not get through a large one, which they show well.
        physics: reports before and after, once everything has ended, as plain data.
        origin: identity of the adapter that it began with; empty if it began with none.
    """

    start: DesignModel
    trainee: DesignModel
    learnt: dict[str, nn.Parameter]
    ema: Table
    best: Table
    generator: torch.Generator
    phase: int = 0
    step: int = 0
    seconds: float = 0.0
    running: Tensor = field(default_factory=lambda: torch.zeros(()))
    first_loss: float = float("nan")
    best_loss: float = float("nan")
    best_step: int = 0
    last_loss: float = float("nan")
    boost: float = 1.0
    results: list[PhaseResult] = field(default_factory=list)
    optimiser: torch.optim.Optimizer | None = None
    physics: dict[str, dict[str, Any]] = field(default_factory=dict)
    origin: str = ""

    def names(self) -> list[str]:
        """What the phase learns."""
        return [name for name in self.learnt if name.startswith(PREFIXES[self.phase])]

    def merged(self, plan: Plan, values: Table) -> DesignModel:
        """The weights with ``values`` of what is learnt."""
        return merge(self.start, plan, tabulate(self.start, plan, values))

    def next_phase(self) -> None:
        """Keep the best and go on to the first step of the next phase."""
        with torch.no_grad():
            for name in self.names():
                self.learnt[name].copy_(self.best[name])
                self.ema[name].copy_(self.best[name])
        self.phase, self.step, self.optimiser, self.running = self.phase + 1, 0, None, torch.zeros(())
        self.first_loss = self.best_loss = self.last_loss = float("nan")
        self.best_step, self.boost = 0, 1.0

    def heed(self, loss: float, most: float) -> bool:
        """Whether the held-out showers' loss at this look is the best so far; the rate rises if it fell quickly."""
        if self.step == 0:
            self.first_loss = self.best_loss = self.last_loss = loss
            return False
        if self.last_loss - loss > QUICKLY:
            self.boost = min(most, BOOSTED * self.boost)
        self.last_loss = loss
        if loss >= self.best_loss:
            return False
        self.best_loss, self.best_step = loss, self.step
        return True


def begin(base: Surrogate, config: AdaptConfig, data: TrainingData, first: Adapter | None = None) -> State:
    """A new run, which begins with the adapter ``first`` of the same base if one is given.

    Raises:
        InputError: a target that no layer is called, or a ``first`` of another base or another plan.
    """
    generator = torch.Generator().manual_seed(config.seed)
    start = base.design_model if data.symmetric else base.design_model.asymmetric()
    if first is not None:
        check_first(first, base, config)
        if first.card.symmetric != start.architecture.symmetric:
            kinds = ("a beam off the axis or not along it", "a beam along the axis")
            raise InputError(
                f"adapter '{first.card.name}' is of {kinds[first.card.symmetric]}, the data are of "
                f"{kinds[start.architecture.symmetric]}; leave it out (--start)"
            )
    if config.method == "scratch":
        device = base.design_model.condition_mean.device
        start = initial_model(base.design_model.architecture, data, config.seed).to(device).requires_grad_(False)
    trainee, learnt = attach(start, config.plan(), generator)
    if first is not None:
        place(learnt, start, config.plan(), first.table)
    ema = {name: value.detach().clone() for name, value in learnt.items()}
    best = {name: value.clone() for name, value in ema.items()}
    return State(start, trainee, learnt, ema, best, generator, origin=first.identity() if first else "")


def check_first(first: Adapter, base: Surrogate, config: AdaptConfig) -> None:
    """Refuse an adapter that an adaptation of ``base`` cannot begin with.

    Raises:
        InputError: it belongs to another base or changes other layers or in another way, or all is learnt from scratch.
    """
    name, card = first.card.name, first.card
    if config.method == "scratch":
        raise InputError(f"from scratch nothing is begun with; leave the adapter '{name}' out (--start)")
    if card.base.identity != base.identity:
        raise InputError(
            f"adapter '{name}' belongs to the base '{card.base.name}' ({card.base.identity[:12]}) and cannot begin an "
            f"adaptation of '{base.card.name}' ({base.identity[:12]}); adapt its base, or leave it out (--start)"
        )
    if card.plan() != config.plan():
        raise InputError(
            f"adapter '{name}' is {_describe(card.plan())}, this adaptation is {_describe(config.plan())}; give the "
            "same --method, --rank, --alpha and --targets, or leave it out (--start)"
        )


def _describe(plan: Plan) -> str:
    how = f"{plan.method} of rank {plan.rank} and alpha {plan.alpha:g}" if plan.method == "lora" else plan.method
    return f"{how} of {', '.join(plan.targets)}"


PLAIN = (
    "phase", "step", "seconds", "running", "first_loss", "best_loss", "best_step", "last_loss", "boost", "physics",
)  # fmt: skip
"""Of a state, what is stored as it is."""


def make_optimiser(state: State, config: AdaptConfig) -> torch.optim.Optimizer:
    """AdamW on what the phase learns; an adapter is not drawn to zero. The rate is set before every step."""
    decay = 1e-4 if config.method == "scratch" else 0.0
    return torch.optim.AdamW([state.learnt[name] for name in state.names()], weight_decay=decay, fused=True)


def write_checkpoint(state: State, config: AdaptConfig, base: Surrogate, data: TrainingData, output: Path) -> None:
    """Keep the state, which has to be between two steps. Raises `InputError` if it cannot be written."""
    content = io.BytesIO()
    stored = {name: getattr(state, name) for name in (*PLAIN, "ema", "best")} | {
        "config": config.model_dump_json(),
        "base": base.identity,
        "origin": state.origin,
        "data": data_fingerprint(data),
        "learnt": {name: value.detach() for name, value in state.learnt.items()},
        "results": [asdict(result) for result in state.results],
        "optimiser": state.optimiser.state_dict() if state.optimiser else None,
        "generator": state.generator.get_state(),
    }
    torch.save(stored, content)
    then = "; mend this and repeat the command, it goes on from the last checkpoint"
    write_whole(output / CHECKPOINT, content.getvalue(), then)


def read_checkpoint(
    config: AdaptConfig, base: Surrogate, data: TrainingData, output: Path, first: Adapter | None = None
) -> State | None:
    """The state of the run in ``output``, or None if there is none.

    Raises:
        FormatError: the checkpoint is damaged.
        InputError: it is of another configuration, another base or other data, or began with another adapter.
    """

    def read(stored: dict[str, Any]) -> State:
        _refuse_other(stored, config, base, data, output, first)
        return _restore(stored, config, base, data, first)

    return read_stored(output, read, CHECKPOINT)


def _restore(
    stored: dict[str, Any], config: AdaptConfig, base: Surrogate, data: TrainingData, first: Adapter | None
) -> State:
    state = begin(base, config, data, first)
    with torch.no_grad():
        for name, value in state.learnt.items():
            value.copy_(stored["learnt"][name])
            state.ema[name].copy_(stored["ema"][name])
            state.best[name].copy_(stored["best"][name])
    state.generator.set_state(stored["generator"])
    for name in PLAIN:
        setattr(state, name, stored.get(name, getattr(state, name)))
    state.results = [PhaseResult(**result) for result in stored["results"]]
    if stored["optimiser"] is not None:
        state.optimiser = make_optimiser(state, config)
        state.optimiser.load_state_dict(stored["optimiser"])
    return state


def _refuse_other(
    stored: dict[str, Any],
    config: AdaptConfig,
    base: Surrogate,
    data: TrainingData,
    output: Path,
    first: Adapter | None,
) -> None:
    """Raise `InputError` if a checkpoint is not of this configuration, base, beginning and these data."""
    before = read_stored_config(AdaptConfig, stored["config"], output)
    old, new = before.model_dump(), config.model_dump()
    changed = [f"{key} is {new[key]}, was {old[key]}" for key in new if new[key] != old[key]]
    if changed:
        raise InputError(
            f"{output} holds an adaptation of another configuration: {', '.join(changed)}; change it back or choose "
            "another output"
        )
    if stored["base"] != base.identity:
        raise InputError(
            f"{output} holds an adaptation of the base {stored['base'][:12]}, '{base.card.name}' is "
            f"{base.identity[:12]}; bring it back or choose another output"
        )
    if stored["data"] != data_fingerprint(data):
        raise InputError(
            f"{output} holds an adaptation to other rows of data; bring them back or choose another output"
        )
    began, begins = stored.get("origin", ""), first.identity() if first else ""
    if began != begins:
        raise InputError(
            f"{output} holds an adaptation that began with {_adapter(began)}, this one begins with "
            f"{_adapter(begins)}; bring it back (--start) or choose another output"
        )


def _adapter(identity: str) -> str:
    return f"the adapter {identity[:12]}" if identity else "no adapter"
