"""Files appear when they are complete, and never in place of another's; a folder has one writer."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from calograd.errors import InputError, OutputExistsError
from calograd.io.files import ABANDONED, one_writer, write_new, write_whole
from calograd.io.hdf5 import new_file, store_checksum


def test_a_file_that_another_process_made_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "file.h5"
    with pytest.raises(OutputExistsError, match=r"file\.h5 exists already"), new_file(path, "calograd/cells/1"):
        path.write_text("another's")
    assert path.read_text() == "another's"
    with pytest.raises(OutputExistsError, match=r"file\.h5 exists already"):
        write_new(path, b"mine")
    write_whole(path, b"replaced")
    assert path.read_text() == "replaced"
    assert [each.name for each in tmp_path.iterdir()] == ["file.h5"]


def test_without_hard_links_nothing_is_replaced_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    write_new(tmp_path / "file", b"mine")
    assert (tmp_path / "file").read_bytes() == b"mine"
    with pytest.raises(OutputExistsError), new_file(tmp_path / "other.h5", "calograd/cells/1"):
        (tmp_path / "other.h5").write_text("another's")
    assert (tmp_path / "other.h5").read_text() == "another's"


def test_what_a_killed_process_left_is_removed_when_nobody_can_be_writing_it(tmp_path: Path) -> None:
    stale, fresh, foreign = (tmp_path / name for name in (".a.1.tmp", ".a.2.tmp", ".b.3.tmp"))
    for path in (stale, fresh, foreign):
        path.touch()
    for path in (stale, foreign):
        os.utime(path, (time.time() - 2 * ABANDONED,) * 2)
    write_new(tmp_path / "a", b"")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.2.tmp", ".b.3.tmp", "a"]


def test_whoever_is_refused_leaves_the_folder_of_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that begin at once both find no folder; the one that comes too late must not remove it."""
    folder = tmp_path / "run"
    monkeypatch.setattr(Path, "exists", lambda path: False)
    with one_writer(folder):
        with pytest.raises(InputError, match="run is being written by another process; wait"), one_writer(folder):
            pass
        write_whole(folder / "file", b"1")
    assert (folder / "file").read_bytes() == b"1"


def test_a_folder_has_one_writer_who_tidies_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".checkpoint.pt.99.tmp").touch()
    with one_writer(folder):
        assert list(folder.iterdir()) == []
        with pytest.raises(InputError, match="run is being written by another process; wait"), one_writer(folder):
            pass
        script = (
            "import sys; from pathlib import Path; from calograd.io import files;"
            "files.one_writer(Path(sys.argv[1])).__enter__()"
        )
        second = subprocess.run([sys.executable, "-c", script, folder], capture_output=True, text=True, check=False)
        assert "is being written by another process" in second.stderr
    with one_writer(folder):
        pass
    assert folder.exists()


def test_a_folder_that_stays_empty_is_not_left_behind(tmp_path: Path) -> None:
    with pytest.raises(InputError), one_writer(tmp_path / "deep" / "run"):
        raise InputError("no")
    assert not (tmp_path / "deep" / "run").exists()
    with one_writer(tmp_path / "run"):
        (tmp_path / "run" / "kept").touch()
    assert (tmp_path / "run" / "kept").exists()
    with pytest.raises(InputError, match="kept cannot be written: File exists"), one_writer(tmp_path / "run" / "kept"):
        pass


@pytest.mark.parametrize("room", [0, 3000, 200_000])
def test_a_disk_that_is_full_at_any_time_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """h5py would complain on standard error too, of every object that HDF5 cannot close."""

    class FullDisk(io.FileIO):
        def write(self, data: memoryview) -> int:
            if self.tell() >= room:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data[: room - self.tell()])

    values = np.random.default_rng(0).random(100_000).astype(np.float32)

    def fill() -> None:
        with new_file(tmp_path / "file.h5", "calograd/cells/1") as file:
            for name in ("a", "b"):
                file.create_dataset(name, data=values, chunks=(10_000,), compression="gzip", shuffle=True)
            store_checksum(file, ("a", "b"))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, mode: io.BufferedWriter(FullDisk(path, mode)))
        with pytest.raises(InputError, match=r"file\.h5 cannot be written: No space left on device$"):
            fill()
    assert list(tmp_path.iterdir()) == []
    fill()
    with h5py.File(tmp_path / "file.h5") as file:
        assert np.array_equal(file["b"][()], values)
