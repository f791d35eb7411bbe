"""Write the parts of a surrogate as ONNX files with metadata.

Every file's metadata, which ONNX Runtime gives as text: ``schema``, ``calograd`` (the version that wrote it), ``name``,
``part``, ``sampler``, ``steps``, ``evaluations`` (of the networks of shape and pattern), ``shape_levels`` and
``pattern_levels`` (noise levels that the sampler visits, falling to zero; shape.onnx and pattern.onnx of a distilled
surrogate know these alone), ``cells`` (``5 5 5``), ``noise`` (numbers of shape and pattern),
``energy_range``, ``dx_range`` and ``dz_range`` (two numbers) with ``energy_unit``, ``dx_unit`` and ``dz_unit``,
``unequal_layers``, ``materials`` (names), ``mode``, ``particles`` (PDG numbers, ``22 11 -11``) and ``theta_range`` (two
numbers, degrees) of a surrogate that takes particles, ``inputs`` and ``output`` (with shapes and units), and ``card``:
the whole card of the surrogate as JSON.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from calograd._version import __version__
from calograd.detector.configuration import PDG
from calograd.detector.material import Material
from calograd.diffusion.samplers import SAMPLERS
from calograd.errors import InputError
from calograd.export.graphs import Inputs, Part, example, exportable, parts, window_of
from calograd.export.runtime import SCHEMA, open_session, run
from calograd.io.files import refuse_existing, write_whole, writing
from calograd.surrogate import Surrogate
from calograd.surrogate.model import SamplingSchedule, sampler_of
from calograd.system.extras import require
from calograd.system.progress import Progress, silent

if TYPE_CHECKING:
    from onnx import ModelProto

ROWS = 5
"""Number of rows of the example that a part is traced with."""
CHECKED = 64
"""Number of rows on which a file is compared with PyTorch."""
PARITY = {"cells": 1e-5, "clean": 1e-4}
"""Largest difference allowed by output: of cells in units of the shower's largest, of denoised numbers, which have unit
variance, absolute. Steep steps between empty and filled cells enlarge the rounding of float32 to some 3e-5 there."""
ROUNDING = 4.0
"""Allowed difference in units of PyTorch's own distance from double precision, if that is more than `PARITY`.

The effect of another order of sums on steep networks depends on the machine."""
EXPORTS_WITH = "2.13"
"""The version of torch whose exporter is tested; the graph's loop needs one of the later ones."""
LENGTHS = {"cm": ("cm", "cm"), "scaled": ("Moliere radii", "radiation lengths")}
"""Units of pitch and depth by the units of the card."""


@dataclass(frozen=True)
class Written:
    """A file that was written.

    Args:
        path: path of the file.
        part: part of the surrogate in the file.
        size: number of bytes.
        difference: largest difference from PyTorch, see `PARITY`.
        rounding: largest difference of PyTorch from its own double precision, see `PARITY`.
    """

    path: Path
    part: Part
    size: int
    difference: float
    rounding: float


def export(
    surrogate: Surrogate,
    folder: str | Path,
    *,
    sampler: str | None = None,
    steps: int | None = None,
    cells: tuple[int, int] | None = None,
    material: Material | None = None,
    progress: Progress = silent,
) -> list[Written]:
    """Write ``sampler.onnx``, ``shape.onnx``, ``pattern.onnx`` and ``decoder.onnx``, each checked through ONNX Runtime.

    Args:
        surrogate: surrogate on the CPU.
        folder: folder of the files, which must not exist.
        sampler: name of a deterministic sampler; the surrogate's own if left out.
        steps: number of steps; each sampler has a default, and a distilled surrogate no choice.
        cells: cells across and layers of the window, for a surrogate that serves several; its own if left out.
        material: the only material of the files, for a surrogate of several; if left out, it is an input.
        progress: called after every file.

    Raises:
        OutputExistsError: the folder exists.
        RangeError: a material that was not trained on.
        InputError: a window that is not the surrogate's, a sampler that is unknown, not the surrogate's or adds noise,
            no steps, the extra ``export`` is missing, the folder cannot be written, or a graph does not compute what
            PyTorch does.
    """
    folder = Path(folder)
    refuse_existing(folder)
    schedule = _schedule(surrogate, sampler, steps)
    if material is not None:
        surrogate = Surrogate(surrogate.model, surrogate.card.for_material(material))
    window = window_of(surrogate, cells)
    every = list(parts(surrogate, schedule, window))
    require("export", "export")
    written = []
    with new_folder(folder) as unfinished:
        for number, part in enumerate(every):
            content = _serialised(part, surrogate, schedule, window)
            path = folder / f"{part.name}.onnx"
            difference, rounding = _difference(part, surrogate, schedule, content)
            allowed = max(PARITY[part.output.name], ROUNDING * rounding)
            if not difference <= allowed:
                raise InputError(
                    f"{path} differs from PyTorch by {difference:.2g}, more than {allowed:.2g}; fewer steps "
                    "or another version of onnxscript may do"
                )
            write_whole(unfinished / path.name, content)
            written.append(Written(path, part, len(content), difference, rounding))
            progress(number + 1, len(every))
    return written


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder to write into, which becomes ``folder`` at the end; without an end there is no folder.

    Raises:
        InputError: it cannot be written.
    """
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent)
    with temporary as name:
        unfinished = Path(name) / folder.name
        unfinished.mkdir()
        yield unfinished
        with writing(folder):
            unfinished.rename(folder)


def _serialised(part: Part, surrogate: Surrogate, schedule: SamplingSchedule, window: tuple[int, int]) -> bytes:
    """Return the bytes of a part's file, with what it says of itself."""
    model = _graph(part, surrogate, schedule)
    facts = {"part": part.name, "inputs": "; ".join(map(str, part.inputs)), "output": str(part.output)}
    for key, value in (_metadata(surrogate, schedule, window) | facts).items():
        model.metadata_props.add(key=key, value=value)
    content: bytes = model.SerializeToString()
    return content


def _schedule(surrogate: Surrogate, sampler: str | None, steps: int | None) -> SamplingSchedule:
    schedule = exportable(surrogate).sampling_schedule(sampler, steps)
    if sampler_of(schedule).order == 0:
        known = ", ".join(name for name, of in SAMPLERS.items() if of.order > 0)
        raise InputError(
            f"sampler '{schedule.sampler}' adds noise on its way and cannot be exported; expected one of {known}"
        )
    return schedule


def _graph(part: Part, surrogate: Surrogate, schedule: SamplingSchedule) -> ModelProto:
    """Return the ONNX model of a part. Raises `InputError` for what the installed torch cannot export."""
    inputs = example(part, surrogate, schedule, ROWS, torch.Generator().manual_seed(0))
    try:
        return to_onnx(part.module.eval(), inputs, part.output.name)
    except Exception as error:  # the classes that torch raises have no common base of their own
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"torch {torch.__version__} cannot export the {part.name}: {reason}; torch {EXPORTS_WITH} can"
        ) from error


def to_onnx(module: nn.Module, inputs: Inputs, output: str) -> ModelProto:
    """Return the ONNX model of a module of `Inputs`, for any number of rows of these and of its only output."""
    rows = torch.export.Dim("n")
    with _quiet():
        traced = torch.export.export(module, (inputs,), dynamic_shapes=({name: {0: rows} for name in inputs},),
                                     strict=True)  # fmt: skip
        program = torch.onnx.export(
            traced, input_names=list(inputs), output_names=[output], dynamo=True, external_data=False, verbose=False
        )
    assert program is not None
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's messages about packages that are not needed and about its own future."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _metadata(surrogate: Surrogate, schedule: SamplingSchedule, window: tuple[int, int]) -> dict[str, str]:
    """Return the metadata that all files of a surrogate share."""
    card, (n_xy, n_z), beam = surrogate.card, window, surrogate.card.designs.beam
    units = dict(zip(("dx", "dz"), LENGTHS[card.designs.units], strict=True)) | {"energy": "GeV"}
    levels = zip(("shape", "pattern"), exportable(surrogate).grids(schedule), strict=True)
    ranges = {"energy": card.energy, "dx": card.designs.dx, "dz": card.designs.dz}
    return {
        "schema": SCHEMA,
        "calograd": __version__,
        "name": card.name,
        "sampler": schedule.sampler,
        "steps": str(schedule.steps),
        "evaluations": f"{schedule.shape_evaluations} {schedule.evaluations}",
        **{f"{name}_levels": " ".join(f"{s:.9g}" for s in grid.tolist()) for name, grid in levels},
        "cells": f"{n_xy} {n_xy} {n_z}",
        "noise": " ".join(map(str, exportable(surrogate).noise_dims)),
        **{f"{name}_range": f"{low:g} {high:g}" for name, (low, high) in ranges.items()},
        **{f"{name}_unit": unit for name, unit in units.items()},
        "unequal_layers": "yes" if card.designs.unequal_layers else "no",
        "materials": ", ".join(material.name for material in card.designs.materials),
        "mode": card.designs.mode,
        **({} if beam is None else {
            "particles": " ".join(str(PDG[name]) for name in beam.particles),
            "theta_range": f"{beam.theta[0]:g} {beam.theta[1]:g}",
        }),
        "card": card.model_dump_json(),
    }  # fmt: skip


def _difference(part: Part, surrogate: Surrogate, schedule: SamplingSchedule, content: bytes) -> tuple[float, float]:
    """Return the largest differences of file from PyTorch, and of PyTorch from its double precision, see `PARITY`."""
    inputs = example(part, surrogate, schedule, CHECKED, torch.Generator().manual_seed(1))
    precise = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
    with torch.inference_mode():
        expected = part.module(inputs)
        exact = deepcopy(part.module).double()(precise)
    named = {name: value.numpy() for name, value in inputs.items()}
    found = torch.from_numpy(run(open_session(content, part.name), named))
    scale = exact.flatten(1).amax(1) if part.output.name == "cells" else torch.ones(len(exact))

    def largest(one: Tensor, other: Tensor) -> float:
        return float(((one - other).flatten(1).abs().amax(1) / scale).max())

    return largest(found, expected), largest(expected, exact)
