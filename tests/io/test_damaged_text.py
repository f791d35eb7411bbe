"""Damaged text of attributes, which HDF5 would read for ever, is refused before it does."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest
from helpers.toy_library import made_up_showers

from calograd.errors import FormatError
from calograd.events.library.reader import open_library
from calograd.events.library.schema import Provenance, pack
from calograd.io.hdf5 import existing_file, schema_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file.attrs["schema"], file.attrs["more"], file.attrs["text"] = "calograd/cells/1", "x" * 9000, "y" * 1001
    return tmp_path / "file.h5"


def heaps(content: bytes) -> list[int]:
    return [at for at in range(len(content)) if content.startswith(b"GCOL", at)]


def test_files_as_they_are_written_pass(path: Path) -> None:
    assert heaps(path.read_bytes())
    with existing_file(path, "calograd/cells/1") as file:
        assert file.attrs["text"] == "y" * 1001


def test_objects_without_a_size_are_refused(path: Path) -> None:
    content = bytearray(path.read_bytes())
    start = heaps(content)[0] + 16
    content[start : start + 64] = bytes(64)
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"file\.h5 is damaged: the text of its attributes cannot be read"):
        existing_file(path, "calograd/cells/1").__enter__()
    assert schema_of(path) is None


def test_a_library_that_was_cut_off_in_its_heap(tmp_path: Path, make_config) -> None:
    image = pack(made_up_showers(range(3)), Provenance(make_config(9.0), "11.4.1", "none"))
    for size in range(heaps(image)[0], heaps(image)[0] + 4096, 512):
        (tmp_path / "cut.h5").write_bytes(image[:size])
        with pytest.raises(FormatError, match=r"cut\.h5 is (damaged|cut off)"):
            open_library(tmp_path / "cut.h5")
