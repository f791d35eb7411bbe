"""Make a shower library from the steps of another Geant4 application.

The file is read twice. First everything is checked and counted (`calograd.readers.validation`), so that a file that
cannot be used leaves nothing behind. Then its events are gathered (`calograd.readers.event_builder`) and written:
showers are numbered in the order in which their events first appear. Memory stays bounded by some 100 bytes an event,
a chunk of the file and `calograd.readers.event_builder.HELD` steps, in any order of the file.

Steps without a deposit are dropped; events without any deposit are kept if the file names them.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from calograd.detector.material import Material
from calograd.errors import FormatError, InputError
from calograd.events.library.schema import Imported, ImportedBeam, Provenance, pack, parts_folder
from calograd.events.library.writer import LibraryWriter, open_interruptible_writer
from calograd.io.files import refuse_existing, writing
from calograd.readers.event_builder import EventBuilder
from calograd.readers.root import Reading, Tree, open_tree
from calograd.readers.validation import EventSummary, notes_of, summarise_events
from calograd.system.progress import StageProgress, silent

UNKNOWN = "unknown"
"""Version of Geant4 and of its tables in a library that was imported: a tree of steps does not state them."""


class Import(NamedTuple):
    """The showers that `import_root` imported.

    Attributes:
        showers: number of showers in the library.
        deposits: number of deposits of all showers.
        dropped: number of steps without a deposit.
        energies: lowest and highest incident energy, GeV.
        fraction: median share of the incident energy that is deposited.
        depth: mean depth of the energy, cm.
        notes: sentences on what looks odd.
    """

    showers: int
    deposits: int
    dropped: int
    energies: tuple[float, float]
    fraction: float
    depth: float
    notes: list[str]


def import_root(
    source: Path,
    output: Path,
    reading: Reading,
    material: Material,
    beam: ImportedBeam | None = None,
    progress: StageProgress = silent,
) -> Import:
    """Make the shower library ``output`` of a ROOT file of steps; an unfinished one of the same file is continued.

    Args:
        source: the ROOT file.
        output: the library to write.
        reading: layout, units and coordinates of the file.
        material: material of the calorimeter.
        beam: the incident particles; None: photons along the axis.
        progress: called with the stage, the entries done and their number.

    Raises:
        FormatError: the file cannot be read, or holds what no shower can be.
        OutputExistsError: there is a library already.
        Interrupted: Ctrl-C; the same call goes on from there.
        InputError: the output cannot be written, or uproot is not installed.
    """
    beam = beam or ImportedBeam()
    if not output.absolute().parent.is_dir():
        raise InputError(f"the folder {output.absolute().parent} does not exist; create it first")
    if not parts_folder(output).is_dir():
        refuse_existing(output)
    with open_tree(source, reading) as tree:
        events = summarise_events(tree, source, reading, progress)
        provenance = _provenance(source, reading, material, beam)
        with open_interruptible_writer(output, provenance, len(events.energy)) as (writer, check):

            def tell(stage: str, done: int, total: int) -> None:
                progress(stage, done, total)
                check()

            _copy(tree, events, writer, tell)
            if writer.missing():
                raise FormatError(f"{source} has changed while it was read; repeat")
            writer.finish(partial(tell, "joining"), threads=1)
    return Import(
        showers=len(events.energy),
        deposits=int(events.kept.sum()),
        dropped=events.dropped,
        energies=(float(events.energy.min()), float(events.energy.max())),
        fraction=float(np.median(events.total / events.energy)),
        depth=events.centre[2],
        notes=notes_of(events, tree, material, reading, beam),
    )


def _copy(tree: Tree, events: EventSummary, writer: LibraryWriter, progress: StageProgress) -> None:
    """Give the writer the showers that it lacks."""
    with _scratch(writer.path) as folder:
        builder = EventBuilder(events.energy, events.kept, writer.missing(), folder)
        for steps, done in tree.steps():
            kept = steps.e > 0
            numbers = events.order[np.searchsorted(events.ids, steps.event[kept])]
            with writing(writer.path):
                builder.take(numbers, steps.x[kept], steps.y[kept], steps.z[kept], steps.e[kept])
            for block in builder.ready():
                writer.add(pack(block, writer.provenance))
            progress("copying", done, tree.entries)


@contextmanager
def _scratch(output: Path) -> Iterator[Path]:
    """Yield an empty folder for temporary files among the parts of the library; it also removes what a crash left."""
    folder = parts_folder(output) / "scratch"
    shutil.rmtree(folder, ignore_errors=True)
    with writing(output):
        folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _provenance(source: Path, reading: Reading, material: Material, beam: ImportedBeam) -> Provenance:
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    record = Imported(
        material=material, beam=beam, file=source.name, sha256=digest,
        reading=reading.model_dump(mode="json"),
    )  # fmt: skip
    return Provenance(record, UNKNOWN, UNKNOWN)
