from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.toy_library import made_up_showers, write_library
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calograd.detector.configuration import SimulationConfig
from calograd.errors import FormatError, InputError, OutputExistsError
from calograd.events.library import schema as layout
from calograd.events.library import writer
from calograd.events.library.reader import open_library
from calograd.events.library.schema import CHUNK, DEPOSITS, HEADS, INCIDENT, TIME, Provenance, pack
from calograd.events.library.writer import LibraryWriter, open_writer
from calograd.events.ragged import Showers


def assert_equal(a: Showers, b: Showers) -> None:
    for name, values in vars(a).items():
        other = vars(b)[name]
        assert (values is None) == (other is None), name
        if values is not None:
            np.testing.assert_array_equal(values, other, err_msg=name)
            assert values.dtype == other.dtype, name


@pytest.fixture
def provenance(make_config) -> Provenance:
    return Provenance(make_config(1.0, 2.0, 3.0), "11.4.1", "G4EMLOW8.8 (test)")


@pytest.fixture
def library_file(tmp_path: Path, provenance: Provenance) -> Path:
    return write_library(tmp_path / "library.h5", provenance, 60)


@pytest.fixture
def long_file(tmp_path: Path, provenance: Provenance, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library of many chunks."""
    for module in (layout, writer):
        monkeypatch.setattr(module, "CHUNK", 1 << 10)
    return write_library(tmp_path / "long.h5", provenance, 200)


def test_what_was_written_is_read(library_file: Path, provenance: Provenance) -> None:
    with open_library(library_file) as library:
        assert_equal(library.read(), made_up_showers(range(60)))
        assert library.provenance == provenance
        assert library.wanted is None
        assert (library.deposits == 0).sum() == 12
        assert library.material is not None
        assert library.material.name == "PbF2"
    assert [entry.name for entry in library_file.parent.iterdir()] == ["library.h5"]


def test_incident_particles_are_those_of_the_file(tmp_path: Path, provenance: Provenance) -> None:
    columns = {
        "particle": np.resize(np.int32([22, 11, -11]), 10), "position": np.arange(20, dtype=np.float32).reshape(10, 2),
        "theta": np.arange(10, dtype=np.float32), "phi": 30 * np.arange(10, dtype=np.float32),
    }  # fmt: skip
    path = tmp_path / "mixture.h5"
    with open_writer(path, provenance, 10) as library:
        for rows in (slice(0, 7), slice(7, 10)):
            part = made_up_showers(range(rows.start, rows.stop))
            part = replace(part, **{name: values[rows] for name, values in columns.items()})
            library.add(pack(part, provenance))
        library.finish(lambda done, of: None, threads=1)
    with open_library(path) as opened:
        incident, some = opened.incidence(), opened.read(2, 5)
    for name in INCIDENT:
        np.testing.assert_array_equal(getattr(incident, name), columns[name])
        np.testing.assert_array_equal(getattr(some, name), columns[name][2:5])


def test_version_1_has_the_particles_of_its_beam(
    tmp_path: Path, provenance: Provenance, make_config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(1.0)
    config = config.model_copy(update={"beam": config.beam.model_copy(update={"theta": 20.0, "particle": "e-"})})
    old = replace(made_up_showers(range(6), times=False), **dict.fromkeys(INCIDENT))
    path = tmp_path / "old.h5"
    with monkeypatch.context() as former:
        former.setattr(layout, "DEPOSIT_LIBRARY", replace(layout.DEPOSIT_LIBRARY, schema="calograd/library/1"))
        path.write_bytes(pack(old, replace(provenance, config=config)))
    with h5py.File(path) as file:
        assert file.attrs["schema"] == "calograd/library/1"
        assert not {*INCIDENT, TIME} & set(file)
    with open_library(path) as library:
        assert library.untimed == path
        assert library.read(0, 2).t is None
        assert library.incidence().describe() == "e- on the axis at theta = 20 degrees"
        assert library.read(0, 2).theta is None


def test_libraries_without_times_are_joined_without(tmp_path: Path, provenance: Provenance) -> None:
    path = write_library(tmp_path / "on.h5", provenance, 20, times=False)
    before = replace(made_up_showers(range(30)), t=None)
    with open_writer(path, provenance, 30, append=True) as library:
        assert not library.times
        library.add(pack(made_up_showers(range(20, 30)), provenance, library.times))
        library.publish(force=True)
        with open_library(path) as unfinished:
            assert unfinished.untimed == tmp_path / "on.h5.parts/00-base.h5"
            assert_equal(unfinished.read(), before)
            assert_equal(unfinished.read(22, 24), replace(made_up_showers(range(22, 24)), t=None))
        library.finish(lambda done, of: None, threads=1)
    with h5py.File(path) as file:
        assert TIME not in file
    with open_library(path) as whole:
        assert_equal(whole.read(), before)


def test_a_folder_has_times_if_all_its_libraries_have(tmp_path: Path, provenance: Provenance, make_config) -> None:
    other = replace(provenance, config=make_config(1.0, 2.0, 3.0, seed=2))
    for name, made, times in (("a.h5", provenance, True), ("b.h5", other, True)):
        write_library(tmp_path / name, made, 20, times=times)
    with open_library(tmp_path) as library:
        assert library.untimed is None
        assert library.read().t.shape == library.read().e.shape
    (tmp_path / "b.h5").unlink()
    write_library(tmp_path / "b.h5", other, 20, times=False)
    with open_library(tmp_path) as library:
        assert library.untimed == tmp_path / "b.h5"
        assert library.read(0, 5).t is None
        np.testing.assert_array_equal(library.read(18, 23).e[:10], made_up_showers(range(18, 20)).e[:10])


def test_plain_hdf5_reads_it(library_file: Path) -> None:
    expected = made_up_showers(range(60))
    with h5py.File(library_file) as file:
        assert file.attrs["schema"] == "calograd/library/2"
        assert file.attrs["material"] == "PbF2"
        assert SimulationConfig.model_validate_json(file.attrs["config"]).seed == 1
        for name in (*DEPOSITS, TIME, *HEADS, *INCIDENT):
            np.testing.assert_array_equal(file[name][()], getattr(expected, name))
        assert file["x"].compression == "gzip"


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_slice_is_those_showers(library_file: Path, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, 59))
    stop = data.draw(st.integers(start + 1, 60))
    with open_library(library_file) as library:
        assert_equal(library.read(start, stop), made_up_showers(range(start, stop)))
        assert len(library.read(start, start)) == 0


@pytest.mark.parametrize("most", [1, 700, 5000, 1 << 23])
def test_blocks_are_all_showers_within_the_bound(library_file: Path, most: int) -> None:
    with open_library(library_file) as library:
        blocks = list(library.blocks(most))
        assert np.concatenate([block.index for block in blocks]).tolist() == list(range(60))
        assert all(len(block.e) <= most or len(block) == 1 for block in blocks)
        np.testing.assert_array_equal(np.concatenate([block.e for block in blocks]), made_up_showers(range(60)).e)


def test_file_does_not_depend_on_how_it_was_cut_into_parts(
    tmp_path: Path, library_file: Path, provenance: Provenance
) -> None:
    assert write_library(tmp_path / "other.h5", provenance, 60, step=7).read_bytes() == library_file.read_bytes()


def test_more_deposits_than_a_chunk(tmp_path: Path, provenance: Provenance) -> None:
    path = write_library(tmp_path / "large.h5", provenance, 12, step=5, mean=CHUNK // 3)
    with open_library(path) as library:
        assert library.deposits.sum() > 2 * CHUNK
        assert_equal(library.read(), made_up_showers(range(12), CHUNK // 3))


def test_library_without_any_deposit(tmp_path: Path, provenance: Provenance) -> None:
    with open_writer(tmp_path / "empty.h5", provenance, 1) as library:
        library.add(pack(made_up_showers(range(4, 5)), provenance))
        library.finish(lambda done, of: None, threads=1)
    with open_library(tmp_path / "empty.h5") as read:
        assert [len(block.e) for block in read.blocks()] == [0]


def test_unfinished_library_is_readable_by_plain_hdf5_and_by_us(tmp_path: Path, provenance: Provenance) -> None:
    path = tmp_path / "name with % and space.h5"
    with open_writer(path, provenance, 40) as library:
        with h5py.File(path) as file:
            assert file["energy"].shape == (0,)
        for part in (range(20, 30), range(10)):
            library.add(pack(made_up_showers(part), provenance))
        library.publish(force=True)
        with h5py.File(path) as file:
            np.testing.assert_array_equal(file["index"][()], [*range(10), *range(20, 30)])
            a, b = made_up_showers(range(10)), made_up_showers(range(20, 30))
            np.testing.assert_array_equal(file["e"][()], np.concatenate([a.e, b.e]))
            np.testing.assert_array_equal(np.diff(file["offsets"][()]), [*np.diff(a.offsets), *np.diff(b.offsets)])
        with open_library(path) as read:
            assert read.wanted == 40
            assert_equal(read.read(10, 20), b)
            assert_equal(read.read(0, 10), a)
            assert [len(block) for block in read.blocks(1)] == [1] * 20
        assert library.missing() == [range(10, 20), range(30, 40)]


def test_unfinished_library_is_continued(tmp_path: Path, provenance: Provenance, library_file: Path) -> None:
    path = tmp_path / "on.h5"
    with open_writer(path, provenance, 60) as library:
        library.add(pack(made_up_showers(range(10, 35)), provenance))
    (tmp_path / "on.h5.parts" / "part.tmp").write_bytes(b"half a part")
    with open_writer(path, provenance, 60) as library:
        assert library.done == 25
        for todo in library.missing():
            library.add(pack(made_up_showers(todo), provenance))
        library.finish(lambda done, of: None, threads=2)
    assert path.read_bytes() == library_file.read_bytes()
    assert not (tmp_path / "on.h5.parts").exists()


def test_nothing_is_left_of_a_run_without_a_finished_shower(tmp_path: Path, provenance: Provenance) -> None:
    with pytest.raises(ZeroDivisionError), open_writer(tmp_path / "none.h5", provenance, 60):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_finished_library_is_refused_or_appended_to(tmp_path: Path, provenance: Provenance, library_file: Path) -> None:
    path = write_library(tmp_path / "short.h5", provenance, 25)
    for wanted, append, words in ((25, True, "25 are asked"), (20, False, "25 showers"), (60, False, "--append")):
        with pytest.raises(OutputExistsError, match=words), open_writer(path, provenance, wanted, append):
            pass
    with open_writer(path, provenance, 60, append=True) as library:
        with open_library(path) as read:
            assert_equal(read.read(), made_up_showers(range(25)))
        library.add(pack(made_up_showers(range(25, 60)), provenance))
        library.finish(lambda done, of: None, threads=1)
    assert path.read_bytes() == library_file.read_bytes()


def test_parts_left_by_a_crash_after_joining_are_cleared(
    tmp_path: Path, provenance: Provenance, library_file: Path
) -> None:
    path = write_library(tmp_path / "short.h5", provenance, 25)
    (tmp_path / "short.h5.parts").mkdir()
    (tmp_path / "short.h5.parts/0000000000-0000000024.h5").write_bytes(pack(made_up_showers(range(25)), provenance))
    with open_writer(path, provenance, 60, append=True) as library:
        assert library.missing() == [range(25, 60)]


def test_another_configuration_is_refused_by_its_first_differing_field(
    tmp_path: Path, provenance: Provenance, make_config
) -> None:
    path = tmp_path / "on.h5"
    with open_writer(path, provenance, 60) as library:
        library.add(pack(made_up_showers(range(5)), provenance))
    other = Provenance(make_config(1.0, 2.0, seed=2), provenance.geant4, provenance.tables)
    with pytest.raises(OutputExistsError, match=r"beam\.energies\.values is \(1\.0, 2\.0, 3\.0\), not \(1\.0, 2\.0\)"):
        open_writer(path, other, 60).__enter__()
    other = Provenance(provenance.config, provenance.geant4, "official")
    with pytest.raises(OutputExistsError, match=r"tables is 'G4EMLOW8\.8 \(test\)', not 'official'"):
        open_writer(path, other, 60).__enter__()


def test_two_writers(tmp_path: Path, provenance: Provenance) -> None:
    with open_writer(tmp_path / "one.h5", provenance, 60):
        script = (
            "import sys; from pathlib import Path; from calograd.events.library.writer import open_writer;"
            "from calograd.events.library.schema import Provenance;"
            "from calograd.detector.configuration import SimulationConfig;"
            "p = Provenance(SimulationConfig.model_validate_json(sys.argv[2]), sys.argv[3], sys.argv[4]);"
            "open_writer(Path(sys.argv[1]), p, 60).__enter__()"
        )
        arguments = [str(tmp_path / "one.h5"), provenance.config.model_dump_json(), "11.4.1", provenance.tables]
        second = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
        assert "is being written by another process (process " in second.stderr


def test_full_disk_keeps_what_is_finished(
    tmp_path: Path, provenance: Provenance, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "full.h5"

    def no_space(target: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with open_writer(path, provenance, 60) as library:
        library.add(pack(made_up_showers(range(10)), provenance))
        image = pack(made_up_showers(range(10, 20)), provenance)
        with monkeypatch.context() as patched:
            patched.setattr(writer, "write_synchronised", no_space)
            with pytest.raises(
                InputError, match=r"full\.h5 cannot be written: No space left on device; what is finish"
            ):
                library.add(image)
    with open_library(path) as read:
        assert_equal(read.read(), made_up_showers(range(10)))


def test_joining_without_room_is_refused_beforehand(
    tmp_path: Path, provenance: Provenance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(InputError, match="all 60 showers are finished and readable, but joining"):
        write_library(tmp_path / "full.h5", provenance, 60)
    with open_library(tmp_path / "full.h5") as library:
        assert len(library) == 60


def test_missing_folder(tmp_path: Path, provenance: Provenance) -> None:
    with pytest.raises(InputError, match=r"folder .*/no does not exist; create it first"):
        open_writer(tmp_path / "no" / "library.h5", provenance, 1).__enter__()


@pytest.mark.parametrize("share", [0.2, 0.3, 0.6, 0.95])
def test_truncated_library_is_named_and_its_complete_showers_are_read(long_file: Path, share: float) -> None:
    data = long_file.read_bytes()
    long_file.write_bytes(data[: int(share * len(data))])
    with pytest.raises(FormatError, match=r"long\.h5 is cut off: (\d+) of 200 showers are complete; .*--recover"):
        open_library(long_file)
    with open_library(long_file, recover=True) as library:
        assert library.lost == 200 - len(library)
        assert share - 0.15 < len(library) / 200 < share
        assert_equal(library.read(), made_up_showers(range(len(library))))


def test_truncation_is_noticed_to_the_byte(long_file: Path) -> None:
    data = long_file.read_bytes()
    long_file.write_bytes(data[:-1])
    with pytest.raises(FormatError, match="is cut off"):
        open_library(long_file)


@pytest.mark.parametrize("size", [100, 2000, 10000])
def test_truncated_within_its_index(long_file: Path, size: int) -> None:
    long_file.write_bytes(long_file.read_bytes()[:size])
    for recover in (False, True):
        with pytest.raises(FormatError, match="cut off before its index ends; nothing of it can be recovered"):
            open_library(long_file, recover)


def test_truncated_part(tmp_path: Path, provenance: Provenance) -> None:
    path = tmp_path / "on.h5"
    with open_writer(path, provenance, 60) as library:
        for start in (0, 10):
            library.add(pack(made_up_showers(range(start, start + 10)), provenance))
    part = tmp_path / "on.h5.parts/0000000000-0000000009.h5"
    part.write_bytes(part.read_bytes()[:-5000])
    with pytest.raises(FormatError, match=r"0000000009\.h5 is cut off: 0 of 10 showers are complete"):
        open_library(path)
    with open_library(path, recover=True) as read:
        assert_equal(read.read(), made_up_showers(range(10, 20)))
    with open_writer(path, provenance, 60) as library:
        assert library.missing() == [range(10), range(20, 60)]
        assert len(library.notes) == 1
        assert str(part) in library.notes[0]


def test_missing_part(tmp_path: Path, provenance: Provenance) -> None:
    path = tmp_path / "on.h5"
    with open_writer(path, provenance, 60) as library:
        library.add(pack(made_up_showers(range(10)), provenance))
    with open_library(path) as read:
        part = tmp_path / "on.h5.parts/0000000000-0000000009.h5"
        part.rename(tmp_path / "elsewhere.h5")
        with pytest.raises(FormatError, match="is missing"):
            read.read()
    with pytest.raises(FormatError, match="does not exist"):
        open_library(path)


def change(path: Path, name: str, value: object) -> None:
    with h5py.File(path, "r+") as file:
        if name in file:
            dtype = file[name].dtype
            del file[name]
            if value is not None:
                file[name] = np.asarray(value, dtype)
        elif value is None:
            del file.attrs[name]
        else:
            file.attrs[name] = value


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("schema", "calograd/library/3", r"this version reads up to 'calograd/library/2'; update calograd"),
        ("schema", "calograd/cells/1", r"expected 'calograd/library/2'"),
        ("schema", None, "without a schema"),
        ("config", None, "lacks the attribute config"),
        ("config", '{"beam": 1}', "simulation config cannot be read: detector"),
        ("seed", None, "lacks seed"),
        ("energy", np.ones(59), "do not fit each other"),
        ("theta", np.ones(59), "do not fit each other"),
        ("position", np.ones(60), "do not fit each other"),
        ("energy", np.full(60, np.nan), "incident energy of shower 0 is not a positive number"),
        ("offsets", np.arange(61), "offsets do not fit the deposits"),
    ],
)
def test_foreign_and_damaged_files(library_file: Path, name: str, value: object, words: str) -> None:
    change(library_file, name, value)
    with pytest.raises(FormatError, match=words) as error:
        open_library(library_file)
    assert str(library_file) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "value"), [("e", np.nan), ("x", np.inf), ("e", -1.0), ("t", np.nan)])
def test_invalid_deposits_are_named_by_shower(library_file: Path, name: str, value: float) -> None:
    with h5py.File(library_file, "r+") as file:
        file[name][file["offsets"][7]] = value
    with open_library(library_file) as library:
        library.read(0, 7)
        with pytest.raises(FormatError, match=f"{name} of shower 7 holds NaN"):
            library.read(5, 9)


def test_missing_and_other_files(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="does not exist"):
        open_library(tmp_path / "no.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(FormatError, match="not a readable HDF5 file"):
        open_library(tmp_path / "text.h5")


def test_no_such_showers(library_file: Path) -> None:
    with open_library(library_file) as library, pytest.raises(InputError, match="has 60 showers"):
        library.read(50, 61)


def test_output_that_is_something_else(tmp_path: Path, provenance: Provenance) -> None:
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(OutputExistsError, match="cannot be continued"):
        open_writer(tmp_path / "text.h5", provenance, 60).__enter__()
    assert (tmp_path / "text.h5").read_text() == "hello"


def test_library_is_small_and_shown_at_most_every_few_seconds(
    tmp_path: Path, provenance: Provenance, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    original = LibraryWriter.publish
    monkeypatch.setattr(writer, "_virtual", lambda *a, _f=writer._virtual: calls.append(1) or _f(*a))
    with open_writer(tmp_path / "often.h5", provenance, 60) as library:
        for index in range(30):
            library.add(pack(made_up_showers(range(index, index + 1)), provenance))
        assert len(calls) <= 2
        original(library, force=True)
        assert (tmp_path / "often.h5").stat().st_size < 60000
