"""Record showers: their deposits step by step, or the energies of plates, which Geant4 sums itself.

**Position of a deposit.** Geant4 gives the energy of a step, not a point. A charged particle loses energy all along the
step, so its deposit is put at a uniformly drawn point of the step. A neutral particle deposits where it interacts, at
the end. Putting every deposit at the end instead shifts a 10 GeV shower in PbF2 by 0.03 cm (0.4 %) downstream and
widens it by 0.2 %. Steps shorter than 0.005 cm (half of all) keep their end point.

**Time of a deposit.** The time follows the position: a deposit at a point of its step has the time between those of the
two ends of the step, in proportion.

**Why memory is read.** Geant4 has one step object, which it fills anew thousands of times a GeV. Calling its methods
through Python takes more than half of a simulation's time. So its numbers are read from memory with ctypes.

**Why that is safe.** No layout is assumed. Every process tests itself at its start: it searches the step's memory for
the numbers that the methods return, then compares both on `CHECKS` deposits. At the first difference, or if the search
fails, it uses the methods for good, as may happen with another build of Geant4. Both ways give the same showers, bit
for bit; a test compares them.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable, Iterator, Sequence
from math import inf
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from calograd.detector.configuration import SPEED_OF_LIGHT, SimulationConfig
from calograd.detector.sampling_stack import Stack
from calograd.events.plates import ENERGIES, THICKNESSES, PlateShowers
from calograd.events.ragged import Deposits, Showers, offsets_of
from calograd.geant4.geometry import ACTIVE, SENSITIVE, SPARE, sensitive_volumes

if TYPE_CHECKING:
    from calograd.events.library.schema import Record

POSITION_GRID = 2.0**-12
"""Grid to which positions are rounded, cm (2.4 micrometres); it makes files compress well."""
TIME_GRID = 2.0**-11
"""Grid to which times are rounded, ns (0.5 ps); with it times add a sixth to a file."""
SHORT_STEP_MM = 0.05
"""Length up to which a step keeps its deposit at its end, mm."""
CHECKS = 500
"""Number of deposits on which memory and methods must agree before memory alone is read."""
SEARCHES = 100
"""Number of deposits with which the memory is searched for before the search is given up."""


_Event = ctypes.c_char * 32  # four float64


class StepMemory(NamedTuple):
    """The memory in which a step keeps its numbers.

    Attributes:
        step, ends: Python objects of the step and its two points, kept so that they stay the same objects.
        numbers: the step's memory as float64.
        deposit, length: indices of the energy (MeV) and the length (mm) in ``numbers``.
        begin, end: memory of the positions and times, x, y, z in mm and t in ns, four float64 each.
    """

    step: Any
    ends: tuple[Any, Any]
    numbers: ctypes.Array[ctypes.c_double]
    deposit: int
    length: int
    begin: ctypes.Array[ctypes.c_double]
    end: ctypes.Array[ctypes.c_double]

    @classmethod
    def find(cls, step: Any) -> StepMemory | None:
        """Return the memory of a step, or None if it is not found with the numbers that the step holds now."""
        ends = step.GetPreStepPoint(), step.GetPostStepPoint()
        places = [_find(point, _event(point)) for point in ends]
        for address in _addresses(step):
            numbers = (ctypes.c_double * 8).from_address(address)
            held = list(numbers)
            wanted = [step.GetTotalEnergyDeposit(), step.GetStepLength()]
            if 0 not in wanted and all(held.count(value) == 1 for value in wanted) and None not in places:
                deposit, length = map(held.index, wanted)
                begin, end = ((ctypes.c_double * 4).from_address(place) for place in places if place)
                return cls(step, ends, numbers, deposit, length, begin, end)
        return None

    def agrees(self, step: Any) -> bool:
        """Return whether memory and methods give the same numbers."""
        held = [self.numbers[self.deposit], self.numbers[self.length], *self.begin, *self.end]
        points = step.GetPreStepPoint(), step.GetPostStepPoint()
        said = [step.GetTotalEnergyDeposit(), step.GetStepLength(), *_event(points[0]), *_event(points[1])]
        return step is self.step and points[0] is self.ends[0] and points[1] is self.ends[1] and held == said


def _event(point: Any) -> list[float]:
    """Return position (mm) and time (ns) of an end of a step."""
    at = point.GetPosition()
    return [at.x, at.y, at.z, point.GetGlobalTime()]


def _find(handle: Any, wanted: list[float]) -> int | None:
    """Return the address of these numbers, all different and not zero, in a row at the beginning of an object."""
    if len(set(wanted) - {0.0}) == len(wanted):
        for address in _addresses(handle):
            held = list((ctypes.c_double * 6).from_address(address))
            for first in range(len(held) - len(wanted) + 1):
                if held[first : first + len(wanted)] == wanted:
                    return address + 8 * first
    return None


def _addresses(handle: Any) -> Iterator[int]:
    """Yield addresses at which the C++ object of a pybind11 object may be.

    The first word of the Python object points to it, or to a pointer to it.
    """
    address = id(handle) + object.__basicsize__
    for _ in range(2):
        address = ctypes.c_uint64.from_address(address).value
        if not 1 << 16 <= address < 1 << 47 or address % 8:
            return
        yield address


class DepositRecorder:
    """Records the deposits of one shower after the other.

    Args:
        direct: read steps from memory if the self-test passes.
    """

    def __init__(self, direct: bool = True) -> None:
        self._hits = array("d")  # x, y, z, t, e of every deposit of the shower, at the end of its step
        self._moved = array("q")  # index in these of the deposits to be moved back along their step
        self._begins = array("d")  # x, y, z, t of the beginning of that step
        self._random = Random(0)
        self._direct = direct
        self._memory: StepMemory | None = None
        self._trusted: Any = None
        self._searched = self._agreed = 0

    @property
    def reads_memory(self) -> bool:
        """True if the self-test has passed and steps are read from memory."""
        return self._trusted is not None

    def begin(self, seed: int) -> None:
        """Begin a shower; the places of its deposits along their steps follow from ``seed``."""
        self._random.seed(seed)

    def take(self, step: Any) -> None:
        """Record the deposit of a step."""
        if step is not self._trusted:
            self._ask(step)
            return
        numbers, hits = self._numbers, self._hits
        e = numbers[self._deposit]
        if e:
            if numbers[self._length] > SHORT_STEP_MM and self._charge():
                self._moved.append(len(hits))
                self._begins.frombytes(self._begin)
            hits.frombytes(self._end)
            hits.append(e)

    def end(self) -> NDArray[np.float64]:
        """End the shower and forget it.

        Returns:
            x, y, z in mm, the time in ns since the particle's start, and the energy in MeV, (deposits, 5).
        """
        table = np.array(self._hits).reshape(-1, 5)
        moved = np.array(self._moved, dtype=np.int64) // 5
        shares = np.array([self._random.random() for _ in moved])
        table[moved, :4] -= (table[moved, :4] - np.array(self._begins).reshape(-1, 4)) * shares[:, None]
        for held in (self._hits, self._moved, self._begins):
            del held[:]
        return table

    def _ask(self, step: Any) -> None:
        """Record the deposit of a step by the step's methods, and go on with the self-test."""
        e = step.GetTotalEnergyDeposit()
        if not e:
            return
        end = step.GetPostStepPoint()
        if step.GetStepLength() > SHORT_STEP_MM and end.GetCharge():
            self._moved.append(len(self._hits))
            self._begins.extend(_event(step.GetPreStepPoint()))
        self._hits.extend(_event(end))
        self._hits.append(e)
        if self._direct:
            self._compare(step)

    def _compare(self, step: Any) -> None:
        """Search for the step's memory, or compare with it; then trust it or give it up."""
        if self._memory is None:
            self._memory = StepMemory.find(step)
            self._searched += 1
            self._direct = self._memory is not None or self._searched < SEARCHES
        elif not self._memory.agrees(step):
            self._direct, self._memory = False, None
        else:
            self._agreed += 1
            if self._agreed == CHECKS:
                self._trust(self._memory)

    def _trust(self, memory: StepMemory) -> None:
        self._numbers, self._deposit, self._length = memory.numbers, memory.deposit, memory.length
        self._begin, self._end = (_Event.from_buffer(place) for place in (memory.begin, memory.end))
        self._charge = memory.ends[1].GetCharge
        self._trusted = memory.step


class Recorder(Protocol):
    """Records the showers of a process, one after the other."""

    def sensitive(self, g4: Any) -> list[tuple[Any, tuple[str, ...]]]:
        """Return sensitive detectors, each with the names of the logical volumes whose steps it sees.

        The volumes are named in `calograd.geant4.geometry`, or by the simulation.
        """

    def run(self, manager: Any, arrange: Callable[[Stack], None], indices: Sequence[int]) -> None:
        """Let Geant4's run manager simulate showers; ``arrange`` is that of the detector."""

    def begin(self, seed: int) -> None:
        """Begin a shower; what is drawn in recording it follows from ``seed``."""

    def end(self, event: Any) -> None:
        """End the shower, Geant4's ``event``."""

    def showers(self, **heads: NDArray[Any]) -> Record:
        """Return all showers, with the given columns of one value a shower."""


class VolumeDeposits:
    """Records every deposit in the sensitive volumes, by a call of Python in each step there.

    Args:
        recorder: records the deposits of one shower.
        config: the simulation.
    """

    def __init__(self, recorder: DepositRecorder, config: SimulationConfig) -> None:
        self._recorder = recorder
        self._volumes = sensitive_volumes(config)
        self._front = config.front
        self._before = config.beam.upstream / SPEED_OF_LIGHT
        self._tables: list[NDArray[np.float32]] = []

    def sensitive(self, g4: Any) -> list[tuple[Any, tuple[str, ...]]]:
        """Return a sensitive detector of all sensitive volumes."""
        return [(self.detector(g4), self._volumes)]

    def detector(self, g4: Any) -> Any:
        """Return a sensitive detector that records its steps."""
        recorder = self._recorder

        class Sensitive(g4.G4VSensitiveDetector):  # type: ignore[misc]
            def ProcessHits(self, step: Any, history: Any) -> bool:  # noqa: ARG002, N802
                recorder.take(step)
                return True

        return Sensitive("deposits")

    def run(self, manager: Any, arrange: Callable[[Stack], None], indices: Sequence[int]) -> None:  # noqa: ARG002
        """Simulate all showers in one run."""
        manager.BeamOn(len(indices))

    def begin(self, seed: int) -> None:
        """Begin a shower."""
        self._recorder.begin(seed)

    def end(self, event: Any) -> None:  # noqa: ARG002
        """Keep the deposits of the shower as files hold them."""
        self.keep(inf)

    def keep(self, depth: float) -> None:
        """End the shower and keep its deposits up to a depth (cm) as files hold them."""
        table = self._recorder.end()
        table[:, 2] -= 10 * self._front
        self._tables.append(_stored(table[table[:, 2] <= 10 * depth], self._before))

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the deposits of all showers, as `calograd.events.ragged.Deposits` has them."""
        columns = dict(zip(("x", "y", "z", "t", "e"), np.concatenate(self._tables, axis=1), strict=True))
        return columns | {"offsets": offsets_of(np.array([each.shape[1] for each in self._tables]))}

    def showers(self, **heads: NDArray[Any]) -> Showers:
        """Return the deposits of all showers."""
        return Showers(**self.columns(), **heads)


class PlateEnergies:
    """Records the energies of plates, which Geant4 sums in C++. Each shower is a run.

    No step calls Python, unless the deposits in active plates are recorded too: then those in active plates do.

    Args:
        config: a simulation of stacks of plates.
        plates: number of plates that were built, three a layer.
        deposits: records the deposits in active plates; None leaves them out.
    """

    def __init__(self, config: SimulationConfig, plates: int, deposits: VolumeDeposits | None = None) -> None:
        self._config = config
        self._plates = plates
        self._deposits = deposits
        self._stacks: list[Stack] = []
        self._energies: list[NDArray[np.float32]] = []

    def sensitive(self, g4: Any) -> list[tuple[Any, tuple[str, ...]]]:
        """Return a scorer that sums the energies of a shower by the plates' copy numbers, and what sees deposits."""
        self._scorer = g4.G4PSEnergyDeposit("energy")
        plates = g4.G4MultiFunctionalDetector("plates")
        plates.RegisterPrimitive(self._scorer)
        scorers: list[tuple[Any, tuple[str, ...]]] = [(plates, (SENSITIVE, ACTIVE))]
        return scorers if self._deposits is None else [*scorers, (self._deposits.detector(g4), (ACTIVE,))]

    def run(self, manager: Any, arrange: Callable[[Stack], None], indices: Sequence[int]) -> None:
        """Simulate every shower in its stack."""
        for index in indices:
            self._stacks.append(self._config.draw_stack(index))
            arrange(self._stacks[-1])
            manager.GeometryHasBeenModified()
            manager.BeamOn(1)

    def begin(self, seed: int) -> None:
        """Begin a shower; only the places of deposits are drawn."""
        if self._deposits is not None:
            self._deposits.begin(seed)

    def end(self, event: Any) -> None:
        """Keep the energies of the plates that the shower's stack has, and the deposits in them."""
        sums = np.zeros(self._plates)
        found = list(event.GetHCofThisEvent().GetHC(0))  # pairs of a plate's number and its energy, MeV
        if found:
            numbers, energies = zip(*found, strict=True)
            sums[list(numbers)] = energies
        stack = self._stacks[-1]
        sums = sums.reshape(-1, 3)[: len(stack.thickness)] / 1000
        self._energies.append(np.where(stack.thickness > 0, sums, 0).astype(np.float32))  # vacuum is not quite empty
        if self._deposits is not None:
            self._deposits.keep(stack.faces()[-1] + SPARE / 2)  # a spare active plate lies behind at least one other

    def showers(self, **heads: Any) -> PlateShowers:
        """Return energies and stacks of all showers, and their deposits if they were recorded."""
        thickness = np.concatenate([stack.thickness for stack in self._stacks])
        rows = np.concatenate([np.concatenate(self._energies), thickness], axis=1)
        columns: dict[str, Any] = dict(zip((*ENERGIES, *THICKNESSES), np.ascontiguousarray(rows.T), strict=True))
        for name in ("absorber", "active"):
            columns[name] = np.array([getattr(stack, name) for stack in self._stacks], np.int32)
        if self._deposits is not None:
            columns["deposits"] = Deposits(**self._deposits.columns())
        counts = np.array([len(stack.thickness) for stack in self._stacks])
        return PlateShowers(**columns, offsets=offsets_of(counts), **heads)


def _stored(table: NDArray[np.float64], before: float) -> NDArray[np.float32]:
    """Return x, y, z in cm, t in ns since the particle crossed the front face, and e in GeV of a shower, (5, deposits).

    Args:
        table: see `DepositRecorder.end`, from the front face on.
        before: time that the particle took to the front face, ns.
    """
    stored = np.empty((5, len(table)), dtype=np.float32)
    stored[:3] = np.round(table[:, :3].T * (0.1 / POSITION_GRID)) * POSITION_GRID
    stored[3] = np.round((table[:, 3] - before) / TIME_GRID) * TIME_GRID + 0.0
    stored[4] = table[:, 4] / 1000
    return stored
