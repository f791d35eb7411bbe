"""Training: location and scale of the coordinates first, then the two diffusion models at once.

    phase "shape moments"     Student t likelihood of g given the conditions
    phase "pattern moments"   likewise of c given the conditions and x
    phase "diffusion"         denoising losses of x and y, moments frozen, EMA of the weights

A run is a folder: ``checkpoint.pt`` (everything needed to go on, read without pickle), ``log.jsonl`` (a line a
report), ``model.safetensors`` (the EMA weights so far). A run that is started again goes on from its checkpoint and
ends with the same weights as one that was never interrupted.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from calograd.errors import FormatError, InputError, Interrupted
from calograd.learning.config import RunConfig, TrainingConfig
from calograd.learning.data import Rows, TrainingData
from calograd.learning.monitor import Report, look
from calograd.surrogate.cells import CellsModel
from calograd.surrogate.coordinates import encode
from calograd.surrogate.store import Card, save

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"
PHASES = ("shape moments", "pattern moments", "diffusion")

Progress = Callable[[str, int, int, float], None]
"""Called as progress(phase, step, steps, loss), every few steps."""


@dataclass
class _State:
    """Everything that changes in a run."""

    model: CellsModel
    ema: CellsModel
    generator: torch.Generator
    phase: int = 0
    step: int = 0
    seconds: float = 0.0
    optimiser: torch.optim.Optimizer | None = None


def train(
    config: RunConfig,
    data: TrainingData,
    output: Path,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
    on_report: Callable[[Report], None] | None = None,
) -> CellsModel:
    """Train a surrogate, or go on with the run in ``output``.

    Args:
        config: what to train.
        data: rows, split by shower.
        output: folder of the run.
        device: any torch device.
        progress: called every few steps.
        on_report: called with every report (validation loss and physics).

    Returns:
        The EMA weights.

    Raises:
        InputError: ``output`` holds a run of another configuration, or a loss that is NaN.
        Interrupted: Ctrl-C; a checkpoint was written.
    """
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    output.mkdir(parents=True, exist_ok=True)
    state = _resume(config, output, device) or _start(config, data, device)
    try:
        while state.phase < len(PHASES):
            _run_phase(config, data, state, output, progress, on_report)
            state.phase, state.step, state.optimiser = state.phase + 1, 0, None
        _write_checkpoint(config, state, output)
    except KeyboardInterrupt:
        _write_checkpoint(config, state, output)
        raise Interrupted(f"{output} holds a checkpoint; the same command goes on from it") from None
    save(output, state.ema, _card(config, data, state))
    return state.ema.eval().requires_grad_(False)


def _start(config: RunConfig, data: TrainingData, device: str) -> _State:
    """A new run: weights from the seed, conditions standardised over the training rows."""
    generator = torch.Generator().manual_seed(config.training.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        n_xy, n_z = data.train.cells.shape[2:]
        model = CellsModel(config.model.architecture(n_xy, n_z))
    raw = model.conditions(data.train.energy, data.train.dx, data.train.dz, data.material)
    scale = raw.std(0)
    model.condition_mean.copy_(raw.mean(0))
    model.condition_scale.copy_(torch.where(scale > 1e-3, scale, torch.ones_like(scale)))
    model.to(device)
    return _State(model, copy.deepcopy(model).requires_grad_(False), generator)


def _run_phase(
    config: RunConfig,
    data: TrainingData,
    state: _State,
    output: Path,
    progress: Progress | None,
    on_report: Callable[[Report], None] | None,
) -> None:
    t, model = config.training, state.model
    diffusion = state.phase == 2
    steps, batch = (t.steps, t.batch) if diffusion else (t.moments_steps, t.moments_batch)
    modules = (model.shape_moments, model.pattern_moments, nn.ModuleList([model.shape_network, model.pattern_network]))
    parameters = list(modules[state.phase].parameters())
    if state.optimiser is None:
        state.optimiser = _optimiser(parameters, t)
    started, saved = time.monotonic() - state.seconds, time.monotonic()
    running = torch.zeros(())
    while state.step < steps:
        rate = t.learning_rate * min(1.0, (state.step + 1) / t.warmup) * 0.5 * (1 + cos(pi * state.step / steps))
        for group in state.optimiser.param_groups:
            group["lr"] = rate
        index = torch.randint(len(data.train), (batch,), generator=state.generator)
        loss = _loss(model, data, data.train.at(index), state, t.precision)
        state.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        state.optimiser.step()
        state.step += 1
        _update_ema(state, t.ema if diffusion else 0.0)
        running = running + (loss.detach() - running) / min(state.step, 200)
        if state.step % 20 == 0 and progress is not None:
            progress(PHASES[state.phase], state.step, steps, float(running))
        state.seconds = time.monotonic() - started
        if diffusion and (state.step % t.report_every == 0 or state.step == steps):
            report = look(state.ema, data, state.step, float(running), state.seconds)
            _append(output / LOG, report.to_dict())
            save(output, state.ema, _card(config, data, state))
            if on_report is not None:
                on_report(report)
        if time.monotonic() - saved > 60 * t.checkpoint_minutes:
            _write_checkpoint(config, state, output)
            saved = time.monotonic()


def _loss(model: CellsModel, data: TrainingData, rows: Rows, state: _State, precision: str) -> Tensor:
    """Mean loss of a batch in the phase that the run is in."""
    device = model.condition_mean.device
    generator = state.generator
    cells, energy = rows.cells.to(device), rows.energy.to(device)
    conditions = model.conditions(energy, rows.dx.to(device), rows.dz.to(device), data.material)
    if state.phase == 2:
        with torch.no_grad():
            x, y = model.standardise(cells, energy, conditions, generator)
            turn = torch.randint(len(model.permutations), (len(y),), generator=generator)
            y = y.gather(1, model.permutations[turn.to(device)])
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            shape, pattern = model.losses(x, y, conditions, generator)
        loss = shape.mean() + pattern.mean()
    else:
        g, c = encode(cells, energy, generator)
        if state.phase == 0:
            loss = model.shape_moments.negative_log_likelihood(g, conditions).mean()
        else:
            with torch.no_grad():
                x = model.shape_moments.standardise(g, conditions)
            loss = model.pattern_moments.negative_log_likelihood(c, torch.cat([conditions, x], dim=1)).mean()
    if not bool(torch.isfinite(loss)):
        raise InputError(
            f"the loss is {float(loss)} in phase '{PHASES[state.phase]}', step {state.step}; "
            "check the data, or lower training.learning_rate"
        )
    return loss


def _optimiser(parameters: list[nn.Parameter], t: TrainingConfig) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=t.learning_rate, weight_decay=t.weight_decay, fused=True)


def _update_ema(state: _State, decay: float) -> None:
    """EMA with a short memory at the start of a phase."""
    decay = min(decay, (1 + state.step) / (10 + state.step))
    ours, theirs = list(state.ema.parameters()), list(state.model.parameters())
    with torch.no_grad():
        torch._foreach_lerp_([p.data for p in ours], [p.data for p in theirs], 1 - decay)


def _append(path: Path, record: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def _card(config: RunConfig, data: TrainingData, state: _State) -> Card:
    modes = {str(_mode(p["config"])) for p in data.provenance}
    done = {"phase": min(state.phase, 2), "step": state.step, "seconds": round(state.seconds)}
    resolved = config.model_dump(mode="json")
    resolved["data"]["files"] = [Path(file).name for file in resolved["data"]["files"]]
    return Card(
        name=config.name,
        architecture=state.model.architecture.to_dict(),
        energy=config.range.energy,
        dx=config.range.dx,
        dz=config.range.dz,
        material=data.material.to_dict(),
        mode=modes.pop() if len(modes) == 1 else "mixed",
        training={"config": resolved, "data": data.provenance, "showers": data.showers, "done": done},
    )


def _mode(config: object) -> object:
    return config.get("mode", "embedded") if isinstance(config, dict) else "embedded"


def _write_checkpoint(config: RunConfig, state: _State, output: Path) -> None:
    temporary = output / f".{CHECKPOINT}.tmp"
    torch.save(
        {
            "config": config.model_dump_json(),
            "phase": state.phase,
            "step": state.step,
            "seconds": state.seconds,
            "architecture": state.model.architecture.to_dict(),
            "model": state.model.state_dict(),
            "ema": state.ema.state_dict(),
            "optimiser": state.optimiser.state_dict() if state.optimiser else None,
            "generator": state.generator.get_state(),
        },
        temporary,
    )
    temporary.replace(output / CHECKPOINT)


def _resume(config: RunConfig, output: Path, device: str) -> _State | None:
    """The state of the run in ``output``, or None if there is none."""
    path = output / CHECKPOINT
    if not path.exists():
        return None
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        old = json.loads(stored["config"])
    except Exception as error:  # noqa: BLE001 - whatever torch raises for a damaged file
        raise FormatError(f"{path} is damaged: {str(error).splitlines()[0]}; remove it to start anew") from error
    new = json.loads(config.model_dump_json())
    changed = sorted(
        f"{table}.{key}" if isinstance(new[table], dict) else table
        for table in new
        for key in (new[table] if isinstance(new[table], dict) else [""])
        if (new[table][key] != old[table].get(key) if isinstance(new[table], dict) else new[table] != old[table])
    )
    if changed:
        raise InputError(f"{output} holds a run of another configuration ({', '.join(changed)} differ); use another -o")
    n_xy, n_z = stored["architecture"]["n_xy"], stored["architecture"]["n_z"]
    model = CellsModel(config.model.architecture(n_xy, n_z))
    ema = copy.deepcopy(model).requires_grad_(False)
    model.load_state_dict(stored["model"])
    ema.load_state_dict(stored["ema"])
    generator = torch.Generator()
    generator.set_state(stored["generator"])
    state = _State(
        model.to(device), ema.to(device), generator, stored["phase"], stored["step"], stored["seconds"]
    )
    if stored["optimiser"] is not None:
        modules = (model.shape_moments, model.pattern_moments, nn.ModuleList([model.shape_network, model.pattern_network]))
        state.optimiser = _optimiser(list(modules[state.phase].parameters()), config.training)
        state.optimiser.load_state_dict(stored["optimiser"])
    return state
