"""A task of the training loop on a model of the test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from calograd.training.loop import Identity, LoopConfig, Phase, TrainingState

LOOP = LoopConfig(warmup=1, weight_decay=0.0, report_every=1, checkpoint_minutes=60.0)


@dataclass
class ToyTask:
    model: nn.Module
    phases: Sequence[Phase[Any]] = ()
    loop: LoopConfig = LOOP
    identity: Identity = field(default_factory=lambda: Identity("toy", {}, []))
    auxiliary: nn.Module | None = None
    reports: list[bool] = field(default_factory=list)
    watched: Path | None = None

    @property
    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(0)

    def monitor(self, state: TrainingState[Any]) -> dict[str, Any]:
        self.reports.append(self.watched is not None and self.watched.exists())
        return {}

    def save(self, state: TrainingState[Any], output: Path) -> None:
        pass
