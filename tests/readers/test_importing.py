"""Other programs' showers, in files that uproot writes here."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot

from calograd.detector.configuration import SimulationConfig
from calograd.detector.material import Material
from calograd.errors import CaloGradError, FormatError, InputError, Interrupted, OutputExistsError
from calograd.events.dense import write_cells
from calograd.events.library.reader import Library, open_library
from calograd.events.library.schema import Imported, ImportedBeam, Provenance
from calograd.events.library.writer import open_writer
from calograd.events.segmentation import segment
from calograd.readers import event_builder as gather
from calograd.readers import root
from calograd.readers.event_builder import EventBuilder
from calograd.readers.importing import Import, import_root
from calograd.readers.root import Branches, Reading
from calograd.training.data.rows import load_data

PBF2 = Material.parse("PbF2")
EVENTS = (7, 3, 12, 900, -1)
"""Numbers of the events as they first appear."""

Columns = dict[str, np.ndarray]


def make_steps(showers: int = 5, seed: int = 0) -> Columns:
    """An entry a step in mm and MeV, event by event: 1 or 10 GeV, 200 steps of which some deposit nothing."""
    rng = np.random.default_rng(seed)
    event = np.repeat(np.resize(EVENTS, showers) + 1000 * (np.arange(showers) // len(EVENTS)), 200)
    n = len(event)
    deposit = rng.exponential(1.0, n) * (rng.random(n) < 0.8)
    energy = np.repeat(np.resize([1000.0, 10000.0], showers), 200)
    for shower in range(showers):
        part = slice(200 * shower, 200 * shower + 200)
        deposit[part] *= 0.97 * energy[part] / deposit[part].sum()
    return {
        "event": event.astype(np.int32), "x": rng.normal(0, 10, n), "y": rng.normal(0, 10, n),
        "z": rng.gamma(4, 20, n), "deposit": deposit, "energy": energy,
    }  # fmt: skip


def write_root(path: Path, columns: dict[str, Any], tree: str = "steps") -> Path:
    with uproot.recreate(path) as file:
        file.mktree(tree, {name: ak.type(ak.Array(values)).content for name, values in columns.items()})
        file[tree].extend(columns)
    return path


def write_ntuple(path: Path, columns: dict[str, Any]) -> Path:
    with uproot.recreate(path) as file:
        file.mkrntuple("steps", columns)
    return path


def jagged(columns: Columns) -> dict[str, Any]:
    """The same, an entry an event, with one event that left nothing."""
    lists: dict[str, Any] = {}
    for name in ("x", "y", "z", "deposit"):
        pieces = [column.tolist() for column in np.split(columns[name], len(columns[name]) // 200)]
        lists[name] = ak.values_astype(ak.Array([*pieces, []]), np.float32)
    return {**lists, "energy": np.append(columns["energy"][::200], 500.0)}


def import_all(source: Path, reading: Reading | None = None, **options: Any) -> tuple[Import, Path]:
    output = source.with_suffix(".h5")
    return import_root(source, output, reading or Reading(), PBF2, **options), output


def assert_is(library: Library, columns: Columns) -> None:
    """The library holds the steps of ``columns`` (mm, MeV), events in the order in which they appear."""
    shower = 0
    for event in dict.fromkeys(columns["event"].tolist()):
        rows = (columns["event"] == event) & (columns["deposit"] > 0)
        read = library.read(shower, shower + 1)
        for name, scale in (("x", 0.1), ("y", 0.1), ("z", 0.1), ("deposit", 0.001)):
            values = getattr(read, "e" if name == "deposit" else name)
            np.testing.assert_allclose(values, columns[name][rows] * scale, rtol=1e-6, err_msg=name)
        assert read.energy[0] == pytest.approx(columns["energy"][columns["event"] == event][0] / 1000)
        shower += 1
    assert len(library) == shower
    assert library.index.tolist() == list(range(shower))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many chunks, many blocks, and hardly any memory for what waits."""
    monkeypatch.setattr(root, "CHUNK_BYTES", 20000)
    monkeypatch.setattr(gather, "BLOCK", 1000)
    monkeypatch.setattr(gather, "HELD", 300)


def test_steps_become_showers(tmp_path: Path) -> None:
    columns = make_steps()
    done, output = import_all(write_root(tmp_path / "steps.root", columns))
    assert (done.showers, done.deposits) == (5, (columns["deposit"] > 0).sum())
    assert done.dropped == (columns["deposit"] == 0).sum()
    assert done.fraction == pytest.approx(0.97)
    assert done.energies == (1.0, 10.0)
    assert done.notes == []
    with open_library(output) as library:
        assert_is(library, columns)
        assert library.material == PBF2
        config = library.provenance.config
        assert isinstance(config, Imported)
        assert (config.file, config.reading["tree"], library.provenance.geant4) == ("steps.root", None, "unknown")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["steps.h5", "steps.root"]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("order", ["in order", "events shuffled", "steps shuffled"])
def test_any_order_in_little_memory(tmp_path: Path, order: str) -> None:
    columns = make_steps(23)
    rng = np.random.default_rng(1)
    places = np.arange(23 * 200)
    if order == "events shuffled":
        places = rng.permutation(places.reshape(23, 200)).ravel()
    if order == "steps shuffled":
        places = rng.permutation(places)
    columns = {name: values[places] for name, values in columns.items()}
    done, output = import_all(write_root(tmp_path / "steps.root", columns))
    assert any("lie apart" in note for note in done.notes) == (order == "steps shuffled")
    with open_library(output) as library:
        assert_is(library, columns)


def test_steps_that_wait_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "HELD", 100)
    monkeypatch.setattr(gather, "BLOCK", 50)
    gatherer = EventBuilder(np.ones(40), np.full(40, 25), [range(40)], tmp_path)
    for _ in range(25):
        gatherer.take(np.arange(40), *np.ones((4, 40)))
        assert sum(len(piece) for pieces in gatherer._waiting.values() for piece in pieces) <= 140
        assert any(tmp_path.iterdir()) or gatherer._waiting
    showers = list(gatherer.ready())
    assert [len(block) for block in showers] == [2] * 20
    assert sum(len(block.e) for block in showers) == 1000
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small")
def test_an_entry_an_event(tmp_path: Path) -> None:
    columns = make_steps(23)
    done, output = import_all(write_root(tmp_path / "jagged.root", jagged(columns)))
    assert done.showers == 24
    with open_library(output) as library:
        assert library.deposits[23] == 0
        assert library.energy[23] == 0.5
        _, flat = import_all(write_root(tmp_path / "flat.root", columns))
        with open_library(flat) as other:
            np.testing.assert_allclose(library.read(0, 23).e, other.read().e, rtol=1e-6)
            np.testing.assert_allclose(library.read(0, 23).z, other.read().z, rtol=1e-6)


@pytest.mark.usefixtures("small")
def test_ntuples_of_the_new_kind(tmp_path: Path) -> None:
    columns = make_steps(23)
    _, flat = import_all(write_ntuple(tmp_path / "flat.root", columns))
    with open_library(flat) as library:
        assert_is(library, columns)
    done, _ = import_all(write_ntuple(tmp_path / "jagged.root", jagged(columns)))
    assert (done.showers, done.deposits) == (24, (columns["deposit"] > 0).sum())


def test_names_folders_units_and_a_constant_energy(tmp_path: Path) -> None:
    columns = make_steps()
    other = {
        "EventID": columns["event"].astype(float), "pos.x": columns["x"] / 1000, "pos.y": columns["y"] / 1000,
        "pos.z": columns["z"] / 1000, "Edep": columns["deposit"] * 1000,
    }  # fmt: skip
    columns["energy"][:] = 20000.0
    branches = Branches(event="EventID", x="pos.x", y="pos.y", z="pos.z", deposit="Edep")
    reading = Reading(tree="a/b", branches=branches, length_unit="m", energy_unit="keV", incident=20.0)
    _, output = import_all(write_root(tmp_path / "with:colon.root", other, "a/b"), reading)
    with open_library(output) as library:
        assert_is(library, columns)


@pytest.mark.parametrize("axis", ["x", "y", "z", "-x", "-y", "-z"])
def test_axes_are_right_handed_and_the_face_is_at_zero(tmp_path: Path, axis: str) -> None:
    """Steps 1 cm from the origin along each axis of the file."""
    steps = 10 * (np.eye(3) + np.array([1, 2, 3]))
    columns = {"event": np.zeros(3, int), **dict(zip("xyz", steps.T, strict=True)), "deposit": np.ones(3)}
    reading = Reading.model_validate({"axis": axis, "origin": (1, 2, 3), "incident": 1})
    _, output = import_all(write_root(tmp_path / "steps.root", columns), reading)
    with open_library(output) as library:
        read = library.read()
    ours = np.array([read.x, read.y, read.z])
    assert np.linalg.det(ours) == pytest.approx(1)
    assert ours[2]["xyz".index(axis[-1])] == (-1 if "-" in axis else 1)


def changed(name: str, value: float) -> Callable[[Columns], dict[str, Any]]:
    def change(columns: Columns) -> dict[str, Any]:
        columns[name][250] = value
        return columns

    return change


def without(name: str) -> Callable[[Columns], dict[str, Any]]:
    return lambda columns: {other: values for other, values in columns.items() if other != name}


def scaled(name: str, factor: float) -> Callable[[Columns], dict[str, Any]]:
    return lambda columns: columns | {name: columns[name] * factor}


REFUSED = [
    (changed("x", np.nan), "'x' of event 3 is NaN or infinite, expected a finite number"),
    (changed("z", np.inf), "'z' of event 3 is NaN or infinite"),
    (changed("deposit", np.nan), "'deposit' of event 3 is NaN"),
    (changed("deposit", -1.0), "'deposit' of event 3 is -0.001 GeV, expected zero or more"),
    (changed("energy", 0.0), "'energy' of event 3 is 0 GeV, expected a positive incident energy"),
    (changed("energy", 77.0), "energy of event 3 is 0.077 and 10 GeV, expected one; are event numbers repeated"),
    (scaled("deposit", 1000.0), "5 of 5 events .* 970 times as much; are --energy-unit .* deposits in keV it is 0.97"),
    (scaled("deposit", 1.1), "in the median 1.07 times as much; are event numbers repeated, as in files that hadd"),
    (scaled("deposit", 0.0), "none of its 1000 steps has a deposit"),
    (without("deposit"), "no branch 'deposit' for deposit; its branches: event x y z energy"),
    (lambda c: without("deposit")(c) | {"deposits": c["deposit"]}, "did you mean 'deposits'?"),
    (lambda c: c | {"event": c["event"] + 0.5}, "'event' is no event number"),
    (lambda c: c | {"x": ak.Array([["a"]] * 1000)[:, 0]}, "'x' is of type .*string; expected numbers"),
    (lambda c: c | {"x": np.zeros((1000, 2))}, "'x' is of type 1000 . 2 . float64; expected a number in every entry"),
    (lambda c: {name: values[:0] for name, values in c.items()}, "the tree steps has no entries"),
    (lambda c: jagged(c) | {"x": ak.Array([[1.0]] * 6)}, "'x' and 'deposit' differ in length in entry 0"),
    (lambda c: jagged(c) | {"energy": ak.Array([[1.0]] * 6)}, "'energy' is of type .*; expected numbers"),
]


@pytest.mark.parametrize(("change", "words"), REFUSED)
def test_refused_files_leave_nothing(tmp_path: Path, change: Callable[[Columns], dict[str, Any]], words: str) -> None:
    source = write_root(tmp_path / "steps.root", change(make_steps()))
    with pytest.raises(FormatError, match=words) as error:
        import_all(source)
    assert str(source) in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == [source]


def test_files_that_are_no_trees(tmp_path: Path) -> None:
    source = tmp_path / "steps.root"
    with pytest.raises(FormatError, match="does not exist"):
        import_all(source)
    for content in (b"", b"something else" * 100, write_root(source, make_steps()).read_bytes()[:3000]):
        source.write_bytes(content)
        with pytest.raises(FormatError, match=r"steps\.root is no ROOT file, or damaged: "):
            import_all(source)
    data = bytearray(write_root(source, make_steps()).read_bytes())
    data[1500:6000] = bytes(4500)
    source.write_bytes(data)
    with pytest.raises(FormatError, match=r"steps\.root"):
        import_all(source)
    with uproot.recreate(source) as file:
        file.mktree("one", {"x": "f8"})
        file.mktree("two", {"x": "f8"})
    with pytest.raises(FormatError, match=r"has not just one tree: name it; its trees: one two"):
        import_all(source)
    with pytest.raises(FormatError, match=r"no tree 'tw'; did you mean 'two'\?; its trees: one two"):
        import_all(source, Reading(tree="tw"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c | {"z": c["z"] / 10}, r"mean depth of deposits is 0\.7.* usual in PbF2 is about .*--length-unit"),
        (lambda c: c | {"z": c["z"] - 60}, "of the energy lies in front of the face"),
        (lambda c: c | {"deposit": c["deposit"] / 1000}, r"showers deposit 0\.00097 of their incident energy"),
        (lambda c: c | {"x": c["x"] + 30}, r"at x = (2\.9|3), y = .* away from the beam that is to be at 0, 0 cm: "),
    ],
)
def test_what_looks_odd_is_remarked_on(tmp_path: Path, change: Callable[[Columns], Columns], words: str) -> None:
    done, _ = import_all(write_root(tmp_path / "steps.root", change(make_steps())))
    (note,) = done.notes
    assert re.search(words, note)


def tracks(columns: Columns) -> dict[str, Any]:
    """Return the same with four entries an event, each with lists of 50 steps and the event's number and energy."""
    lists: dict[str, Any] = {
        name: ak.Array(np.split(columns[name], len(columns[name]) // 50)) for name in ("x", "y", "z", "deposit")
    }
    return lists | {name: columns[name][::50] for name in ("event", "energy")}


def test_several_entries_of_an_event(tmp_path: Path) -> None:
    """An event number that is named is used in trees with lists too; one that is not, but repeats, is noted."""
    columns = make_steps()
    source = write_root(tmp_path / "tracks.root", tracks(columns))
    done, output = import_all(source, Reading(branches=Branches(event="event")))
    assert (done.showers, done.notes) == (5, [])
    with open_library(output) as library:
        assert_is(library, columns)
    output.unlink()
    done, _ = import_all(source)
    assert done.showers == 20
    (note,) = done.notes
    assert "'event' repeats numbers, but every entry was taken as an event; if an event has several entries" in note
    with pytest.raises(FormatError, match="no branch 'nothing' for event"):
        import_root(source, tmp_path / "other.h5", Reading(branches=Branches(event="nothing")), PBF2)


@pytest.mark.parametrize(("true", "read"), [("GeV", "MeV"), ("MeV", "GeV"), ("MeV", "keV")])
def test_a_common_factor_in_all_energies_is_noticed_by_the_depth(tmp_path: Path, true: str, read: str) -> None:
    columns = make_steps()
    unit = {"keV": 1e6, "MeV": 1e3, "GeV": 1.0}[true] / 1e3
    changed = columns | {name: columns[name] * unit for name in ("deposit", "energy")}
    source = write_root(tmp_path / "steps.root", changed)
    reading = Reading.model_validate({"energy_unit": true, "incident_unit": true})
    assert import_all(source, reading)[0].notes == []
    source.with_suffix(".h5").unlink()
    reading = Reading.model_validate({"energy_unit": read, "incident_unit": read})
    (note,) = import_all(source, reading)[0].notes
    assert f"with energies in {true} it is about" in note
    assert f"are --energy-unit ({read})" in note


def test_a_positron_may_leave_more_than_its_kinetic_energy(tmp_path: Path) -> None:
    columns = {"event": np.zeros(1, int), "x": [0.0], "y": [0.0], "z": [5.0], "deposit": [11.022]}
    done, _ = import_all(write_root(tmp_path / "steps.root", columns), Reading(incident=0.01))
    assert done.fraction > 1


@pytest.mark.usefixtures("small")
def test_an_interrupted_import_goes_on_to_the_same_file(tmp_path: Path) -> None:
    source = write_root(tmp_path / "steps.root", make_steps(23))
    _, output = import_all(source)
    whole = output.read_bytes()
    output.unlink()

    def stop(what: str, done: int, total: int) -> None:
        if what == "copying" and done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=r"\d+ of 23 showers are finished in .*; the same command goes on"):
        import_all(source, progress=stop)
    with open_library(output) as library:
        assert 5 < len(library) < 23
        assert library.wanted == 23
    with pytest.raises(OutputExistsError, match=r"made otherwise: reading\.axis is 'z', not 'x'"):
        import_all(source, Reading(axis="x", origin=(-100, 0, 0)))
    import_all(source)
    assert output.read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["steps.h5", "steps.root"]


def test_no_simulation_continues_an_import(tmp_path: Path, make_config: Callable[..., SimulationConfig]) -> None:
    source = write_root(tmp_path / "steps.root", make_steps())
    _, output = import_all(source)
    simulation = Provenance(make_config(1.0), "11.4.1", "test")
    for wanted in (5, 9):
        with pytest.raises(OutputExistsError, match=r"made otherwise: it was imported from steps\.root, not simulated"):
            open_writer(output, simulation, wanted, append=True).__enter__()
    with pytest.raises(OutputExistsError, match="exists already"):
        import_all(source)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    source = write_root(tmp_path / "steps.root", make_steps())
    with pytest.raises(InputError, match=r"folder .*/none does not exist; create it first"):
        import_root(source, tmp_path / "none" / "library.h5", Reading(), PBF2)


def test_without_uproot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_root(tmp_path / "steps.root", make_steps())
    monkeypatch.setitem(sys.modules, "uproot", None)
    with pytest.raises(CaloGradError, match=r"pip install 'calograd\[root\]'"):
        import_all(source)


def test_an_imported_library_trains_as_any_other(tmp_path: Path) -> None:
    """Two cells files of one import share its showers."""
    _, output = import_all(write_root(tmp_path / "steps.root", make_steps(60)))
    files = []
    with open_library(output) as library:
        for dx in (1.0, 2.0):
            cells = segment(library, designs=[(dx, 5.0)], n_xy=5, n_z=5)
            assert cells.config["mode"] == "imported"
            files.append(tmp_path / f"{dx}.h5")
            write_cells(files[-1], cells)
    total = cells.cells.sum((1, 2, 3)) / cells.energy
    assert np.median(total) == pytest.approx(0.97, abs=0.02)
    data = load_data(files, 0.2, 0)
    assert (data.showers, data.held_out) == (60, 12)
    assert data.symmetric


def test_a_tilted_beam_is_not_mirrored_in_training(tmp_path: Path) -> None:
    columns = make_steps(60)
    columns["x"] += 0.364 * columns["z"]
    done, output = import_all(write_root(tmp_path / "steps.root", columns), beam=ImportedBeam(theta=20.0))
    assert done.notes == []
    with open_library(output) as library:
        write_cells(tmp_path / "cells.h5", segment(library, designs=[(2.0, 5.0)], n_xy=5, n_z=5))
    assert not load_data([tmp_path / "cells.h5"], 0.2, 0).symmetric
