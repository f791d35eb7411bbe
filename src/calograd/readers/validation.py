"""Check the steps of a file before anything is written, and note what looks odd."""

from __future__ import annotations

from math import hypot, log
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from calograd.detector.material import Material, to_float
from calograd.errors import FormatError
from calograd.events.library.schema import ImportedBeam
from calograd.readers.root import EVENT, GEV, Reading, Steps, Tree
from calograd.system.progress import StageProgress, silent

EXCESS = 1e-3
"""Largest share by which an event's deposits may exceed its incident energy: rounding, and nuclei."""
PAIR = 1.1e-3
"""Energy that they may have in addition, GeV: the rest energies of a positron and the electron that it meets."""
EQUAL = 1e-5
"""Relative tolerance within which the incident energies that a file states for one event are equal."""
LITTLE = 0.01
"""Share of the energy that is noted: below it if it is deposited, above it if it lies in front of the face."""
USUAL = 4.0
"""Factor between the mean depth of deposits and the usual one beyond which the depth is noted."""
CONTAINED = 0.5
"""Smallest share of the energy that is deposited for which the mean depth shows the unit of energies."""
FITS = 2.0
"""Distance of the mean depth from the usual one, in radiation lengths, within which another unit explains it."""

_COLUMNS: dict[str, tuple[Any, Any, Any]] = {
    "first": (np.minimum, np.int64, np.iinfo(np.int64).max),
    "last": (np.maximum, np.int64, -1),
    "entries": (np.add, np.int64, 0),
    "low": (np.minimum, np.float64, np.inf),
    "high": (np.maximum, np.float64, -np.inf),
    "kept": (np.add, np.int64, 0),
    "total": (np.add, np.float64, 0.0),
}
"""Columns of an event: the function that joins two parts of it, the type, the value before the first part."""


class EventSummary(NamedTuple):
    """Energies and counts of the n events of a file, in the order in which they first appear.

    Attributes:
        ids: event numbers in the file, ascending, shape (n,).
        order: position of the event with each of ``ids``, shape (n,).
        energy: incident energy, shape (n,), GeV.
        kept: number of steps with a deposit, shape (n,).
        total: deposited energy, shape (n,), GeV.
        dropped: number of steps without a deposit.
        centre: mean x, y and z of all steps, weighted with their energy, cm.
        in_front: share of the energy in front of the face.
        scattered: whether the entries of some event are not consecutive.
    """

    ids: np.ndarray
    order: np.ndarray
    energy: np.ndarray
    kept: np.ndarray
    total: np.ndarray
    dropped: int
    centre: tuple[float, float, float]
    in_front: float
    scattered: bool


class _Tally:
    """Columns of the events met so far, by ascending event number."""

    def __init__(self) -> None:
        self.ids = np.zeros(0, np.int64)
        self.columns = {name: np.zeros(0, kind) for name, (_, kind, _) in _COLUMNS.items()}
        self._rows = 0

    def add(self, steps: Steps) -> None:
        found, of_owner = np.unique(steps.owner, return_inverse=True)
        of_step = np.searchsorted(found, steps.event)
        rows = np.arange(self._rows, self._rows + len(steps.owner))
        self._rows += len(rows)
        values = {
            "first": (of_owner, rows), "last": (of_owner, rows), "entries": (of_owner, 1),
            "low": (of_owner, steps.energy), "high": (of_owner, steps.energy),
            "kept": (of_step, steps.e > 0), "total": (of_step, steps.e),
        }  # fmt: skip
        ids = np.union1d(self.ids, found)
        before, now = np.searchsorted(ids, self.ids), np.searchsorted(ids, found)
        for name, (combine, kind, start) in _COLUMNS.items():
            column = np.full(len(ids), start, kind)
            column[before] = self.columns[name]
            which, value = values[name]
            combine.at(column, now[which], value)
            self.columns[name] = column
        self.ids = ids


def summarise_events(tree: Tree, source: Path, reading: Reading, progress: StageProgress = silent) -> EventSummary:
    """Read, check and count all steps of a tree.

    Raises:
        FormatError: positions or energies that are no numbers, negative deposits, incident energies that are not
            positive or differ within an event, deposits beyond the incident energy or none at all.
    """
    tally = _Tally()
    steps_read, energy, moment, in_front = 0, 0.0, np.zeros(3), 0.0
    for steps, done in tree.steps():
        _check_steps(steps, source, reading)
        tally.add(steps)
        steps_read += len(steps.e)
        energy += float(steps.e.sum())
        moment += [float(steps.e @ coordinate) for coordinate in (steps.x, steps.y, steps.z)]
        in_front += float(steps.e[steps.z < 0].sum())
        progress("checking", done, tree.entries)
    if not energy:
        raise FormatError(f"{source}: none of its {steps_read} steps has a deposit; is --branch deposit=NAME right?")
    columns = tally.columns
    x, y, z = (moment / energy).tolist()
    by_place = np.argsort(columns["first"])
    order = np.empty_like(by_place)
    order[by_place] = np.arange(len(by_place))
    _check_events(tally, source, reading, tree.numbered)
    return EventSummary(
        ids=tally.ids, order=order, energy=columns["high"][by_place], kept=columns["kept"][by_place],
        total=columns["total"][by_place], dropped=steps_read - int(columns["kept"].sum()),
        centre=(x, y, z), in_front=in_front / energy,
        scattered=bool((columns["last"] - columns["first"] + 1 != columns["entries"]).any()),
    )  # fmt: skip


def _check_steps(steps: Steps, source: Path, reading: Reading) -> None:
    branches = reading.branches
    for name, values, lowest, what, of in (
        (branches.x, steps.x, -np.inf, "a finite number", steps.event),
        (branches.y, steps.y, -np.inf, "a finite number", steps.event),
        (branches.z, steps.z, -np.inf, "a finite number", steps.event),
        (branches.deposit, steps.e, 0.0, "zero or more", steps.event),
        (branches.energy, steps.energy, np.finfo(np.float32).tiny, "a positive incident energy", steps.owner),
    ):
        bad = ~(np.isfinite(values) & (values >= lowest))
        if bad.any():
            first = int(np.argmax(bad))
            value = "NaN or infinite" if not np.isfinite(values[first]) else f"{values[first]:g} GeV"
            raise FormatError(f"{source}: '{name}' of event {of[first]} is {value}, expected {what}")


def _check_events(tally: _Tally, source: Path, reading: Reading, numbered: bool) -> None:
    low, high, total = (tally.columns[name] for name in ("low", "high", "total"))
    repeated = "; are event numbers repeated, as in files that hadd put together? import those one by one"
    differ = high > low * (1 + EQUAL)
    if differ.any():
        k = int(np.argmax(differ))
        raise FormatError(
            f"{source}: the incident energy of event {tally.ids[k]} is {low[k]:g} and {high[k]:g} GeV, expected one"
            + repeated
        )
    over = total > high * (1 + EXCESS) + PAIR
    if over.any():
        k = int(np.argmax(over))
        share = float(np.median(total[over] / high[over]))
        hint = repeated if numbered else "; is the incident energy right?"
        for unit, gev in GEV.items():
            other = share * gev / GEV[reading.energy_unit]
            if LITTLE < other < 1 + EXCESS:
                hint = f"; are --energy-unit and the incident energy right? with deposits in {unit} it is {other:.2g}"
        raise FormatError(
            f"{source}: event {tally.ids[k]} deposits {total[k]:g} GeV of {high[k]:g} GeV; {over.sum()} of {len(over)} "
            f"events deposit more than they have, in the median {share:.3g} times as much{hint}"
        )


def notes_of(events: EventSummary, tree: Tree, material: Material, reading: Reading, beam: ImportedBeam) -> list[str]:
    """Return a sentence on everything that looks odd, with the options to check."""
    x, y, _ = events.centre
    notes = []
    share = float(np.median(events.total / events.energy))
    if share < LITTLE:
        notes.append(
            f"showers deposit {share:.2g} of their incident energy, which is little for {material.name}: "
            "are --energy-unit and --incident-unit right?"
        )
    if events.in_front > LITTLE:
        notes.append(
            f"{events.in_front:.1%} of the energy lies in front of the face and so in no cell: "
            "are --origin and --axis right?"
        )
    notes += _depth_note(events, material, reading)
    if hypot(x - beam.position[0], y - beam.position[1]) > to_float(material.moliere_radius) / 2 and not beam.theta:
        notes.append(
            f"the middle of the energy is at x = {x:.2g}, y = {y:.2g} cm, away from the beam that is to be at "
            f"{beam.position[0]:g}, {beam.position[1]:g} cm: are --origin, --position and --theta right?"
        )
    if events.scattered:
        notes.append(
            "steps of an event lie apart in the file and were put together by its number; if runs with repeated "
            "numbers were joined (hadd) import them one by one"
        )
    if tree.repeated:
        notes.append(
            f"the branch '{tree.repeated}' repeats numbers, but every entry was taken as an event; if an event has "
            f"several entries, import with --branch {EVENT}={tree.repeated}"
        )
    return notes


def _depth_note(events: EventSummary, material: Material, reading: Reading) -> list[str]:
    """Return a sentence if the mean depth does not suit the energies, or suits them better in another unit.

    The usual mean depth is (ln(1 + E / E_c) + 1.5) X0. It grows by 6.9 X0 for a factor of 1000, while a common factor
    in deposits and incident energies does not change their ratio: the depth alone shows the unit.
    """
    x0, e_c = to_float(material.radiation_length), to_float(material.critical_energy)
    depth = events.centre[2] / x0

    def usual(unit: float = 1.0) -> float:
        return log(1 + unit * float(np.median(events.energy)) / e_c) + 1.5

    explained = ""
    contained = float(np.median(events.total / events.energy)) > CONTAINED and events.in_front <= LITTLE
    if contained and reading.incident is None and reading.incident_unit == reading.energy_unit:
        off = abs(depth - usual())
        for name, gev in GEV.items():
            other = usual(gev / GEV[reading.energy_unit])
            if abs(depth - other) < min(off, FITS):
                off, explained = abs(depth - other), f"; with energies in {name} it is about {other * x0:.2g} cm"
    if usual() / USUAL < depth < usual() * USUAL and not explained:
        return []
    options = f"--length-unit ({reading.length_unit}), --origin and --axis"
    if explained:
        options = f"--energy-unit ({reading.energy_unit}), {options}"
    note = f"the mean depth of deposits is {events.centre[2]:.3g} cm, usual in {material.name} is about "
    return [f"{note}{usual() * x0:.2g} cm{explained}: are {options} right?"]
