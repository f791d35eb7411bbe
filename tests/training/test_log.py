"""The log of a run: half a line at its end is nothing, a damaged one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from calograd.errors import FormatError
from calograd.training.log import LOG, add_to_log, read_log, trim_log


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for step in (1, 2, 3):
        add_to_log(tmp_path, {"phase": "one", "step": step})
    return tmp_path


def test_half_a_line_is_dropped_before_more_is_added(run: Path) -> None:
    with (run / LOG).open("a") as file:
        file.write('{"phase": "one", "step": 4, "lo')
    assert [entry["step"] for entry in read_log(run)] == [1, 2, 3]
    trim_log(run, ["one"], 0, 2)
    add_to_log(run, {"phase": "one", "step": 5})
    assert (run / LOG).read_text().count("\n") == 3
    assert [entry["step"] for entry in read_log(run)] == [1, 2, 5]


def test_another_digit_or_a_missing_checksum_is_noticed(run: Path) -> None:
    (run / LOG).write_text((run / LOG).read_text().replace('"step": 2', '"step": 7'))
    with pytest.raises(FormatError, match=r"log\.jsonl is damaged in line 2: it does not fit its checksum"):
        read_log(run)
    (run / LOG).write_text('{"step": 7}\n')
    with pytest.raises(FormatError, match=r"log\.jsonl is damaged in line 1: it does not fit its checksum"):
        read_log(run)


@pytest.mark.parametrize("line", ["{", "[1]", "\x00", '{"step": 1'])
def test_a_damaged_line_is_named(run: Path, line: str) -> None:
    first, *_, last = (run / LOG).read_text().splitlines()
    (run / LOG).write_text("\n".join([first, line, last, ""]))
    for use in (lambda: read_log(run), lambda: trim_log(run, ["one"], 1, 0)):
        with pytest.raises(FormatError, match=r"log\.jsonl is damaged in line 2.*; remove that line"):
            use()


def test_bytes_that_are_no_text(run: Path) -> None:
    (run / LOG).write_bytes(b'{"step": \xff}\n')
    with pytest.raises(FormatError, match=r"log\.jsonl is damaged in line 1"):
        read_log(run)


def test_an_entry_of_something_else(run: Path) -> None:
    add_to_log(run, {"time": 1})
    with pytest.raises(FormatError, match=r"log\.jsonl is damaged in line 4: no phase and step \('phase'\); remove it"):
        trim_log(run, ["one"], 0, 9)


def test_without_a_log(tmp_path: Path) -> None:
    trim_log(tmp_path, ["one"], 0, 0)
    assert read_log(tmp_path) == []
