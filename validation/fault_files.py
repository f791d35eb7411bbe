"""Read files of every kind that are cut off or have a bit flipped.

What comes back is one of

    refused     an error of `calograd.errors` in one line
    as it was   what was written: the damage was in bytes that mean nothing
    its first   of a log, the lines before the end: half a line is nothing
    WRONG       something else, silently
    TRACEBACK   another exception
    CRASH       the process died, or it took more than a minute
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fault_inputs import make_inputs, run, surrogate

from calograd.errors import CaloGradError
from calograd.events.dense import read_cells, read_maps
from calograd.events.library.reader import open_library
from calograd.events.point_showers import read_points
from calograd.objective.background import read_background_map
from calograd.optimisation.state import read_state
from calograd.surrogate import Adapter, Surrogate
from calograd.training.config import AdaptConfig
from calograd.training.data.rows import load_data
from calograd.training.log import LOG, read_log
from calograd.training.loop import read_checkpoint
from calograd.training.tasks.adapt import adapt

CUTS = 40


def plain(value: Any) -> Any:
    """Return the result of any reader as data that can be compared."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, np.ndarray | torch.Tensor):
        array = np.asarray(value)
        return (array.dtype.str, array.shape, array.tobytes())
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value if isinstance(value, str | int | bool | None) else repr(value)


def _library(path: Path) -> Any:
    with open_library(path) as library:
        return [library.provenance.attributes(), library.wanted, plain(library.read())]


def _surrogate(path: Path) -> Any:
    loaded = Surrogate.load(path.parent)
    return [loaded.card.model_dump_json(), plain(dict(loaded.model.state_dict()))]


def _adapter(path: Path) -> Any:
    adapter = Adapter.load(path)
    return [adapter.card.model_dump_json(), plain(adapter.table)]


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "library": ("library.h5", _library),
    "cells": ("cells.h5", lambda path: plain(read_cells(path))),
    "maps": ("maps.h5", lambda path: plain(read_maps(path))),
    "points": ("points.h5", lambda path: plain(read_points(path))),
    "background map": ("background.h5", lambda path: plain(read_background_map(path))),
    "surrogate": ("model/model.safetensors", _surrogate),
    "adapter": ("adapted/adapter.safetensors", _adapter),
    "checkpoint of train": ("run/checkpoint.pt", lambda path: read_checkpoint(path.parent, plain)),
    "checkpoint of adapt": ("adapted/checkpoint.pt", lambda path: read_checkpoint(path.parent, plain)),
    "state of optimise": ("best/ascent.json", lambda path: plain(read_state(path, {}))),
    "log of train": ("run/log.jsonl", lambda path: read_log(path.parent)),
}


def damage_files(work: Path, flips: int, seed: int) -> dict[str, str]:
    """Return the outcomes of damaged files, by the name of their kind."""
    make_inputs(work)
    for command in (("train", "train.toml", "-o", "run"),
                    ("optimise", "model", "optimise.toml", "--landscape", "0", "-o", "best")):  # fmt: skip
        ended = run(command, work)
        assert ended.code == 0, ended.err
    base = surrogate(3, 2)
    config = AdaptConfig(rank=2, steps=4, location_scale_steps=4, report_every=2)
    adapt(base, config, load_data([work / "cells.h5"], 0.3, 0), work / "adapted")
    found = {}
    for name, (file, read) in READERS.items():
        path, rng = work / file, random.Random(f"{seed} {name}")
        content = path.read_bytes()
        damaged = [content[: rng.randrange(len(content))] for _ in range(CUTS)]
        found[f"cut off: {name}"] = _told(_try(path, content, damaged, read))
        places = [(rng.randrange(len(content)), rng.randrange(8)) for _ in range(flips)]
        damaged = [content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :] for at, bit in places]
        found[f"a flipped bit: {name}"] = _told(_try(path, content, damaged, read))
    shutil.rmtree(work / "adapted")
    return found


def _told(outcomes: list[str]) -> str:
    counts = Counter(outcome.split(":")[0] for outcome in outcomes)
    worst = next((o for o in outcomes if o.split(":")[0] in ("TRACEBACK", "CRASH")), "")
    return f"of {len(outcomes)}: {', '.join(f'{n} {what}' for what, n in counts.most_common())}" + (
        f" ({worst[:200]})" if worst else ""
    )


def _try(path: Path, content: bytes, damaged: list[bytes], read: Callable[[Path], Any]) -> list[str]:
    """Read every damaged content from ``path``, in processes whose death is noticed."""
    expected, outcomes = read(path), list[str]()
    while len(outcomes) < len(damaged):
        out = path.with_name("outcomes.txt")
        out.write_text("")
        child = os.fork()
        if child == 0:
            with out.open("a") as file:
                for each in damaged[len(outcomes) :]:
                    signal.alarm(60)
                    path.write_bytes(each)
                    file.write(json.dumps(_outcome(path, expected, read)) + "\n")
                    file.flush()
            os._exit(0)
        os.waitpid(child, 0)
        told = [json.loads(line) for line in out.read_text().splitlines()]
        outcomes += told
        if len(outcomes) < len(damaged):
            outcomes.append("CRASH")
        out.unlink()
    path.write_bytes(content)
    return outcomes


def _outcome(path: Path, expected: Any, read: Callable[[Path], Any]) -> str:
    try:
        found = read(path)
    except CaloGradError as error:
        return "refused" if "\n" not in str(error) else f"TRACEBACK: of several lines, {error}"
    except Exception as error:  # what should not be
        return f"TRACEBACK: {type(error).__name__} {error}"
    if path.name == LOG and found == expected[: len(found)]:
        return "its first lines" if len(found) < len(expected) else "as it was"
    return "as it was" if found == expected else "WRONG"
