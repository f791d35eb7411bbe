"""The chain of the demo: sample, evaluate against Geant4, time, train, adapt to another crystal, follow gradients.

``runs/pbf2-sample.sh``, ``runs/crystals-sample.sh`` and ``runs/sampling-sample.sh`` made the bundled Geant4 showers. No
training has seen the showers that are compared with.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from calograd.demo.design import DesignStudy, StudySettings, study_design
from calograd.demo.stack import PARTICLE, StackSettings, StackShowers, StackStudy, study_stack
from calograd.errors import FormatError, Interrupted
from calograd.evaluation import DesignEvaluation, PlatesEvaluation, evaluate, mean_biases
from calograd.evaluation.matching import DesignPoint, group
from calograd.evaluation.timing import Benchmark, Timing, Workload, benchmark, find_geant4
from calograd.events.dense import Cells, read_cells, write_cells
from calograd.events.plates import PlateShowers
from calograd.io.files import refuse_existing, write_whole, writing
from calograd.metrics.resolution import group_by_energy
from calograd.surrogate import Surrogate
from calograd.surrogate.generation import generate
from calograd.system.progress import StageProgress, silent
from calograd.training.config import AdaptConfig, parse_config
from calograd.training.data.rows import load_data
from calograd.training.log import read_log
from calograd.training.tasks.adapt import adapt
from calograd.training.train import train

SAMPLE = "pbf2-sample"
OTHER_SAMPLE = "pbwo4-sample"
ENTRIES_SAMPLE = "crystals-sample"
PLATES_SAMPLE = "sampling-sample"
HELD_OUT = 0.1
"""Share of the showers of a training that is held out."""

Biases = dict[DesignPoint, dict[str, tuple[float, float]]]
"""Relative biases of means with standard errors, by point and observable."""


@dataclass(frozen=True)
class DemoSettings:
    """The sizes of all stages.

    Args:
        repeat: generated showers for each Geant4 shower.
        showers: largest number of reference showers at a point; None for all.
        energies: energies of the reference that are used, GeV; None for all.
        classifier_rows: largest number of rows of each class in a classifier test; 0 leaves the tests out.
        timing: energies (GeV), batches and repetitions of the timing, and whether Geant4 takes part.
        training: tables ``model`` and ``training`` of the short training, where they differ from the defaults.
        adaptation: fields of `calograd.training.config.AdaptConfig`.
        effort: settings of gradients and optimisation.
        stack: settings of the study of a stack of plates.
    """

    repeat: int
    showers: int | None
    energies: tuple[float, ...] | None
    classifier_rows: int
    timing: tuple[tuple[float, ...], tuple[int, ...], int, bool]
    training: dict[str, dict[str, Any]]
    adaptation: dict[str, Any]
    effort: StudySettings
    stack: StackSettings


_SMALL = {"shape_width": 96, "shape_blocks": 3, "pattern_width": 192, "pattern_blocks": 2, "location_scale_width": 64}
FULL = DemoSettings(
    repeat=2, showers=None, energies=None, classifier_rows=6000,
    timing=((1.0, 10.0, 100.0), (1, 100, 4000), 3, True),
    training={
        "model": _SMALL,
        "training": {"steps": 1600, "batch": 512, "location_scale_steps": 500, "location_scale_batch": 2048,
                     "warmup": 100, "ema": 0.995, "report_every": 100},
    },
    adaptation={"steps": 300, "location_scale_steps": 400},
    effort=StudySettings(energies=(1.0, 10.0, 50.0, 100.0), showers=200, draws=3, compared=8, steps=10, landscape=6),
    stack=StackSettings(thicknesses=9, showers=4000, draws=8, draw=1000),
)  # fmt: skip
QUICK = DemoSettings(
    repeat=1, showers=60, energies=(1.0, 10.0, 100.0), classifier_rows=0,
    timing=((10.0,), (1, 100), 1, False),
    training={
        "model": _SMALL | {"pattern_width": 64, "shape_width": 32},
        "training": {"steps": 60, "batch": 128, "location_scale_steps": 60, "location_scale_batch": 512, "warmup": 10,
                     "ema": 0.9, "report_every": 20},
    },
    adaptation={"steps": 10, "location_scale_steps": 10, "batch": 32, "location_scale_batch": 64, "report_every": 5},
    effort=StudySettings(energies=(10.0,), showers=30, draws=2, compared=2, steps=2, landscape=2),
    stack=StackSettings(thicknesses=3, showers=100, draws=2, draw=50),
)  # fmt: skip


class Models(NamedTuple):
    """The surrogates that the chain needs.

    Attributes:
        cells, student: the surrogate of cells that is sampled and compared, and one distilled from it.
        anywhere: the surrogate of particles that enter anywhere and at an angle.
        plates, plates_student: the surrogate of stacks of plates, and one distilled from it.
    """

    cells: Surrogate
    student: Surrogate
    anywhere: Surrogate
    plates: Surrogate
    plates_student: Surrogate

    @classmethod
    def bundled(cls) -> Models:
        """Return the surrogates in the package."""
        names = ("pbf2-cells", "pbf2-cells-fast", "crystals-fast", "sampling", "sampling-fast")
        return cls(*map(Surrogate.load, names))


class Headline(NamedTuple):
    """The few numbers at the top of the report.

    Attributes:
        bias, error, where: the worst bias of the mean of E_tot, its standard error and its point.
        best: the fastest timed surrogate and batch.
        ratios: time of Geant4 over that of the fastest, and the energy in GeV.
    """

    bias: float
    error: float
    where: DesignPoint
    best: Timing
    ratios: list[tuple[float, float]]


class Adaptation(NamedTuple):
    """An adaptation and its biases against Geant4.

    Attributes:
        material: material of the other detector.
        showers: showers used, including those held out.
        judged: other Geant4 showers that the biases refer to.
        learnt, size: numbers of the adapter, and bytes of its file.
        before, after: biases before and after the adaptation.
    """

    material: str
    showers: int
    judged: int
    learnt: int
    size: int
    before: Biases
    after: Biases


@dataclass(frozen=True)
class DemoResult:
    """The results of all stages.

    Args:
        models: the surrogates.
        evaluation: comparison of showers of the surrogate of cells with Geant4's.
        anywhere: the same for particles that enter anywhere in the cell and at an angle, by another surrogate.
        plates: the same in one stack of plates, by a third one.
        stack: derivatives and scan of that stack.
        benchmark, plates_benchmark: the timing, in cells and in the stack.
        showers, rows: showers and rows of the short training.
        log: lines of its log.
        biases: biases of the means at every reference point: of the bundled surrogate and of the one from scratch.
        adaptation: adaptation to another crystal.
        study: gradients and optimisation.
        seconds: time of every stage.
    """

    models: Models
    evaluation: DesignEvaluation
    anywhere: DesignEvaluation
    plates: PlatesEvaluation
    stack: StackStudy
    benchmark: Benchmark
    plates_benchmark: Benchmark
    showers: int
    rows: int
    log: list[dict[str, Any]]
    biases: tuple[Biases, ...]
    adaptation: Adaptation
    study: DesignStudy
    seconds: dict[str, float]

    def headline(self) -> Headline:
        """Return the few numbers at the top of the report."""
        worst = max(self.evaluation.points, key=lambda p: abs(p.quantities["E_tot"].bias))
        times = self.benchmark.surrogates
        best = min(times, key=lambda t: t.processor.median)
        ratios = [(self.benchmark.ratio(t), t.energy) for t in times if (t.who, t.batch) == (best.who, best.batch)]
        known = [(ratio, energy) for ratio, energy in ratios if ratio is not None and isinstance(energy, float | int)]
        total = worst.quantities["E_tot"]
        return Headline(total.bias, total.bias_error, worst.point, best, known)


class BundledShowers(NamedTuple):
    """Geant4 showers that the chain needs.

    Attributes:
        reference: showers that the surrogate is compared with.
        entries: showers of particles that enter anywhere in the cell and at an angle.
        neighbours: showers at the design of the gradient and at its neighbours.
        training: cells file of the short training.
        learn: cells file in another crystal, to adapt to.
        judge: other showers in that crystal.
        stack: showers in stacks of plates.
    """

    reference: Cells
    entries: Cells
    neighbours: Cells
    training: Path
    learn: Path
    judge: Cells
    stack: StackShowers

    @classmethod
    def bundled(cls) -> BundledShowers:
        """Return the showers in the package. Raises `FormatError` if this installation has none."""
        return cls(
            read_cells(bundled("reference.h5")), bundled_entries(), read_cells(bundled("neighbours.h5")),
            bundled("training.h5"),
            bundled("learn.h5", OTHER_SAMPLE), read_cells(bundled("judge.h5", OTHER_SAMPLE)),
            StackShowers.read(bundled("reference.h5", PLATES_SAMPLE).parent),
        )  # fmt: skip


def bundled(name: str, sample: str = SAMPLE) -> Path:
    """Return the path of a file of a bundled sample. Raises `FormatError` if it is missing."""
    path = Path(str(files("calograd") / "assets" / sample / name))
    if not path.is_file():
        raise FormatError(f"{path} is missing; reinstall calograd, or make it with the scripts in runs/")
    return path


def bundled_entries() -> Cells:
    """Return the bundled showers of photons that enter anywhere, at 0 and 25 degrees."""
    parts = [read_cells(bundled(f"theta-{theta}.h5", ENTRIES_SAMPLE)) for theta in (0, 25)]
    return Cells.concatenate(parts, np.arange(sum(map(len, parts))))


def run(
    folder: Path, models: Models, showers: BundledShowers, settings: DemoSettings, *,
    progress: StageProgress = silent,
) -> DemoResult:  # fmt: skip
    """Run the chain and write its files into a new folder.

    Args:
        folder: new folder of the generated showers, the results as JSON and the training.
        models: surrogates.
        showers: Geant4 showers.
        settings: sizes of all stages.
        progress: called after each part of a stage.

    Raises:
        OutputExistsError: ``folder`` exists.
        Interrupted: Ctrl-C.
    """
    refuse_existing(folder)
    with writing(folder):
        folder.mkdir(parents=True)
    try:
        return _run(folder, models, showers, settings, progress)
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted(f"{folder} is incomplete; remove it before the next demo, or choose another -o") from None


def _run(
    folder: Path, models: Models, showers: BundledShowers, settings: DemoSettings, progress: StageProgress
) -> DemoResult:
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        seconds[stage] = time.perf_counter() - began

    def on_step(phase: str, step: int, steps: int, _: float) -> None:
        progress(phase, step, steps)

    surrogate, rows = models.cells, settings.classifier_rows
    reference = _chosen(showers.reference, group(showers.reference).values(), settings)
    with timed("sample"):
        made = _like(surrogate, reference, progress, "sample", settings.repeat)
        write_cells(folder / "generated.h5", made)
    with timed("evaluate"):
        judged: Any = evaluate(made, reference, classifiers=rows > 0, max_rows=max(rows, 1), progress=progress)
        _write_json(folder / "evaluation.json", judged.to_dict())
    with timed("off the axis"):
        entries = _chosen(showers.entries, group(showers.entries).values(), replace(settings, energies=None))
        tilted = _like(models.anywhere, entries, progress, "off the axis", settings.repeat)
        write_cells(folder / "off-axis.h5", tilted)
        judged_anywhere: Any = evaluate(tilted, entries, classifiers=False, progress=progress)
        _write_json(folder / "off-axis.json", judged_anywhere.to_dict())
    with timed("plates"):
        simulated = showers.stack.reference
        simulated = _chosen(simulated, (each.rows for each in group_by_energy(simulated.energy)), settings)
        plates = _like(models.plates, simulated, progress, "plates", settings.repeat)
        plates.write(folder / "plates.h5")
        judged_plates: Any = evaluate(plates, simulated, classifiers=rows > 0, progress=progress)
        _write_json(folder / "plates.json", judged_plates.to_dict())
        stack = study_stack(models.plates, showers.stack, settings.stack, progress)
        _write_json(folder / "plates-gradients.json", stack.to_dict())
    with timed("time"):
        times = _time([surrogate, models.student], Workload(), settings, progress)
        _write_json(folder / "benchmark.json", times.to_dict())
        in_stack = Workload(stack=showers.stack.stack, beam={"particle": PARTICLE}, layers_only=True)
        plate_times = _time([models.plates, models.plates_student], in_stack, settings, progress)
        _write_json(folder / "plates-benchmark.json", plate_times.to_dict())
    with timed("train"):
        card, designs = surrogate.card, surrogate.card.designs
        config = parse_config(settings.training | {
            "name": "from-scratch", "data": {"files": [str(showers.training)], "validation": HELD_OUT},
            "range": {"energy": list(card.energy), "dx": list(designs.dx), "dz": list(designs.dz)},
        }, "the demo's training", folder)  # fmt: skip
        data = load_data(config.data.files, HELD_OUT, config.training.seed)
        train(config, folder / "training", data=data, progress=on_step)
    with timed("sample again"):
        scratch = _like(Surrogate.load(folder / "training"), reference, progress, "sample again")
    with timed("adapt"):
        adaptation = _adapt(surrogate, showers, folder / "pbwo4", settings.adaptation, progress)
    with timed("gradients and optimisation"):
        study = study_design(surrogate, showers.neighbours, settings.effort, progress)
        _write_json(folder / "gradients.json", {"points": [each.to_dict() for each in study.gradients]})
    return DemoResult(
        models, judged, judged_anywhere, judged_plates, stack, times, plate_times, data.showers, len(data.train),
        read_log(folder / "training"), (mean_biases(made, reference), mean_biases(scratch, reference)), adaptation,
        study, seconds,
    )  # fmt: skip


def _chosen(reference: Any, groups: Iterable[np.ndarray], settings: DemoSettings) -> Any:
    """Return the rows of the reference that the settings ask for; showers of a point are a group of rows."""
    keep = np.ones(len(reference), dtype=bool)
    if settings.energies is not None:
        keep = np.isclose(reference.energy[:, None], settings.energies).any(1)
    if settings.showers is not None:
        for rows in groups:
            spread = rows[np.linspace(0, len(rows) - 1, min(settings.showers, len(rows))).astype(int)]  # over all beams
            keep[np.setdiff1d(rows, spread)] = False
    return reference.rows(np.flatnonzero(keep))


def _like(
    surrogate: Surrogate, showers: Any, progress: StageProgress, stage: str, repeat: int = 1, **options: Any
) -> Any:
    """Generate showers with designs, energies and beams of others, ``repeat`` for each; `generate` has the options."""
    which = np.repeat(np.arange(len(showers)), repeat)
    if isinstance(showers, PlateShowers):
        options |= {"stacks": showers.stacks[which], "incident": showers.incident[which], "layers_only": True}
    else:
        options |= {"dx": showers.dx[which], "dz": showers.dz[which]}
        if surrogate.model.takes_particles:
            options |= {"material": showers.material, "incident": showers.incident[which], "n_xy": showers.n_xy}
    return generate(
        surrogate, showers.energy[which], progress=lambda done, total: progress(stage, done, total), **options
    )


def _time(
    surrogates: list[Surrogate], workload: Workload, settings: DemoSettings, progress: StageProgress
) -> Benchmark:
    """Time surrogates beside Geant4, if the settings ask for it and it is found."""
    energies, batches, repeats, with_geant4 = settings.timing
    environment, note = find_geant4(surrogates[0], workload) if with_geant4 else (None, "left out")
    return benchmark(
        surrogates, energies, environment, repeats=repeats, batches=batches, samplers=(), note=note, workload=workload,
        progress=progress,
    )  # fmt: skip


def _adapt(
    surrogate: Surrogate, showers: BundledShowers, folder: Path, effort: dict[str, Any], progress: StageProgress
) -> Adaptation:
    """Adapt to another crystal by LoRA; compare the means with Geant4's before, by extrapolating, and after."""
    data, judge = load_data([showers.learn], HELD_OUT, 0), showers.judge
    result = adapt(
        surrogate, AdaptConfig(method="lora", **effort), data, folder,
        progress=lambda phase, step, steps, _: progress(f"adapt: {phase}", step, steps),
    )  # fmt: skip
    with warnings.catch_warnings(category=UserWarning, action="ignore"):
        before, after = (
            mean_biases(_like(each, judge, progress, "judge", material=judge.material, extrapolate=True), judge)
            for each in (surrogate, result.surrogate)
        )
    return Adaptation(
        data.material.name, data.showers, len(np.unique(judge.shower)), result.learnt, result.size, before, after
    )


def _write_json(path: Path, result: dict[str, Any]) -> None:
    write_whole(path, (json.dumps(result, indent=1, allow_nan=False) + "\n").encode())
