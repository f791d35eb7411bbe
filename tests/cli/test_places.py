"""Outputs in odd places: names that look like markup, and a disk that is full."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from calograd.events.dense import read_cells

Run = Callable[..., tuple[int, str, str]]
SAMPLE = ("--cell", "2.5", "6", "--energy", "10", "-n", "200", "--steps", "2")


def test_names_are_shown_as_they_are(tiny: str, calograd: Run, tmp_path: Path) -> None:
    name = "[" + "/red]<b>.h5"
    (tmp_path / "[").mkdir()
    code, _, err = calograd("sample", tiny, *SAMPLE, "-o", name)
    assert code == 0, err
    assert name in err.replace("\n", "")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte, mounted for the test."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_full_disk_is_one_line_and_leaves_nothing(tiny: str, calograd: Run, small_disk: Path) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 8192))
    output = small_disk / "made.h5"
    code, _, err = calograd("sample", tiny, *SAMPLE, "-o", str(output))
    assert code == 2
    assert err.splitlines()[-1] == f"error: {output} cannot be written: No space left on device"
    assert [path.name for path in small_disk.iterdir()] == ["filler"]
    filler.unlink()
    code, _, err = calograd("sample", tiny, *SAMPLE, "-o", str(output))
    assert code == 0, err
    assert len(read_cells(output)) == 200
