"""Steps read in memory and by their methods."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from dataclasses import dataclass, field, replace
from itertools import count, pairwise
from math import cos, radians, sin
from random import Random

import numpy as np
import pytest

from calograd.detector.configuration import SPEED_OF_LIGHT
from calograd.events.library.schema import Provenance, pack
from calograd.events.library.writer import open_writer
from calograd.events.ragged import Showers
from calograd.geant4 import recording as deposits
from calograd.geant4.farm import run_kernel
from calograd.geant4.recording import DepositRecorder, StepMemory

BY_METHODS = """
import sys, numpy as np
from calograd.detector.configuration import SimulationConfig
from calograd.geant4.recording import DepositRecorder
from calograd.geant4 import kernel
made = []
kernel.DepositRecorder = lambda direct: made.append(DepositRecorder(direct=sys.argv[3] == "memory")) or made[-1]
showers = kernel.simulate_showers(SimulationConfig.model_validate_json(sys.argv[1]), [0, 1])
np.savez(sys.argv[2], **vars(showers), reads_memory=made[0].reads_memory)
import os; os._exit(0)
"""


@dataclass
class Vector:
    x: float
    y: float
    z: float


@dataclass
class Point:
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    charge: float = 0.0
    time: float = 0.0

    def GetPosition(self) -> Vector:  # noqa: N802
        return Vector(*self.position)

    def GetCharge(self) -> float:  # noqa: N802
        return self.charge

    def GetGlobalTime(self) -> float:  # noqa: N802
        return self.time


@dataclass
class Step:
    """A step with the methods of Geant4's, but the memory of a Python object."""

    deposit: float = 0.0
    length: float = 0.0
    pre: Point = field(default_factory=Point)
    post: Point = field(default_factory=Point)

    def GetTotalEnergyDeposit(self) -> float:  # noqa: N802
        return self.deposit

    def GetStepLength(self) -> float:  # noqa: N802
        return self.length

    def GetPreStepPoint(self) -> Point:  # noqa: N802
        return self.pre

    def GetPostStepPoint(self) -> Point:  # noqa: N802
        return self.post


@pytest.mark.geant4
def test_memory_is_read_and_gives_the_same_showers(make_config, kernel_environment, tmp_path) -> None:
    config = make_config(0.5, 2.0)
    found = {}
    for way in ("memory", "methods"):
        words = [sys.executable, "-c", BY_METHODS, config.model_dump_json(), str(tmp_path / f"{way}.npz"), way]
        subprocess.run(words, env=kernel_environment, check=True, stdout=subprocess.DEVNULL)
        with np.load(tmp_path / f"{way}.npz") as file:
            assert bool(file["reads_memory"]) == (way == "memory")
            found[way] = Showers(**{name: file[name] for name in file.files if name != "reads_memory"})
    usual = run_kernel(config, [0, 1], kernel_environment)
    assert len(usual.x) > 1000
    for name, values in vars(usual).items():
        np.testing.assert_array_equal(values, getattr(found["memory"], name))
        np.testing.assert_array_equal(values, getattr(found["methods"], name))


def test_long_steps_of_charged_particles_are_spread_along_themselves() -> None:
    recorded = DepositRecorder()
    recorded.begin(7)
    begin, end, at = Point((1.0, 2.0, 3.0), time=0.25), (2.0, 0.0, 7.0), 0.75
    for deposit, length, charge in ((0.5, 1.0, -1.0), (0.25, 1.0, 0.0), (0.125, 0.04, 1.0), (0.0, 1.0, 1.0)):
        recorded.take(Step(deposit, length, begin, Point(end, charge, at)))
    share = Random(7).random()
    ends = zip((*begin.position, begin.time), (*end, at), strict=True)
    spread = [b + (1 - share) * (e - b) for b, e in ends]
    table = recorded.end()
    np.testing.assert_allclose(table, [[*spread, 0.5], [*end, at, 0.25], [*end, at, 0.125]], rtol=1e-12)
    assert len(recorded.end()) == 0


def test_memory_that_is_not_found_or_disagrees_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step(0.5, 1.0, Point((1.0, 2.0, 3.0), time=7.0), Point((4.0, 5.0, 6.0), time=8.0))
    recorded, searches = DepositRecorder(), []
    search = StepMemory.find
    monkeypatch.setattr(StepMemory, "find", lambda of: searches.append(of) or search(of))
    for _ in range(2 * deposits.SEARCHES):
        recorded.take(step)
    assert len(searches) == deposits.SEARCHES

    class Wrong:
        def agrees(self, of: object) -> bool:
            return next(compared) % deposits.CHECKS != deposits.CHECKS - 2

    compared = count()
    monkeypatch.setattr(StepMemory, "find", lambda of: Wrong())
    recorded = DepositRecorder()
    for _ in range(2 * deposits.CHECKS):
        recorded.take(step)
    assert not recorded.reads_memory
    assert len(recorded.end()) == 2 * deposits.CHECKS


def test_memory_with_another_time_is_not_trusted() -> None:
    step = Step(0.5, 1.0, Point((1.0, 2.0, 3.0), time=7.0), Point((4.0, 5.0, 6.0), time=8.0))

    def memory(begin: list[float], end: list[float]) -> StepMemory:
        doubles = ctypes.c_double
        return StepMemory(
            step, (step.pre, step.post), (doubles * 2)(step.deposit, step.length), 0, 1, (doubles * 4)(*begin),
            (doubles * 4)(*end),
        )  # fmt: skip

    pre, post = [*step.pre.position, step.pre.time], [*step.post.position, step.post.time]
    assert memory(pre, post).agrees(step)
    assert not memory([*pre[:3], 7.5], post).agrees(step)
    assert not memory(pre, [*post[:3], 8.5]).agrees(step)


@pytest.mark.geant4
@pytest.mark.parametrize("particle", ["gamma", "e-"])
@pytest.mark.parametrize("theta", [0.0, 30.0])
def test_time_begins_at_the_front_face(make_config, kernel_environment, particle: str, theta: float) -> None:
    config = make_config(5.0)
    beam = config.beam.model_copy(update={"particle": particle, "theta": theta, "phi": 20.0, "upstream": 4.0})
    showers = run_kernel(config.model_copy(update={"beam": beam}), list(range(6)), kernel_environment)
    assert showers.t is not None
    along = sin(radians(theta)) * np.array([cos(radians(20)), sin(radians(20))])
    path = showers.x * along[0] + showers.y * along[1] + showers.z * cos(radians(theta))
    delay = showers.t - path / SPEED_OF_LIGHT
    assert delay.min() > -0.002  # ns: nothing is faster than light; multiple scattering moves ends of steps sideways
    bounds = pairwise(showers.offsets.tolist())
    first = [start + int(np.argmin(showers.t[start:stop])) for start, stop in bounds]
    assert (np.abs(delay[first]) < 0.002).all()  # an electron of 5 GeV, or what its photon made, goes on at c
    core = np.abs(delay) < 0.02
    assert showers.e[core].sum() > 0.5 * showers.e.sum()


@pytest.mark.geant4
def test_times_make_files_less_than_a_quarter_larger(make_config, kernel_environment, tmp_path) -> None:
    config = make_config(2.0)
    showers = run_kernel(config, [0, 1, 2], kernel_environment)
    sizes = []
    for name, some in (("with.h5", showers), ("without.h5", replace(showers, t=None))):
        provenance = Provenance(config, "11.4.1", "none")
        with open_writer(tmp_path / name, provenance, 3) as library:
            library.add(pack(some, provenance))
            library.finish(lambda done, of: None, threads=1)
        sizes.append((tmp_path / name).stat().st_size)
    assert sizes[1] < sizes[0] < 1.25 * sizes[1]
