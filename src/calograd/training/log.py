"""The log of a run: ``log.jsonl`` in its folder, one line of JSON a report with its checksum, ``crc32``."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from calograd.errors import FormatError
from calograd.io.files import write_whole, writing

LOG = "log.jsonl"
_CRC = "crc32"


def add_to_log(output: Path, entry: Mapping[str, Any]) -> None:
    """Append an entry to the log of the run in ``output``. Raises `InputError` if it cannot be written."""
    with writing(output / LOG), (output / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps(dict(entry) | {_CRC: _checksum(entry)}, allow_nan=False) + "\n")


def read_log(output: Path) -> list[dict[str, Any]]:
    """Return the entries of the run's log in order. Raises `FormatError` if a line is damaged."""
    return [entry for entry, _ in _entries(output / LOG)]


def trim_log(output: Path, phases: Sequence[str], phase: int, step: int) -> None:
    """Drop the entries after a position in the run, which will be logged again, and half a line at the end.

    Args:
        output: folder of the run.
        phases: names of all phases.
        phase, step: position of the checkpoint; the report at the beginning of a phase is made again.

    Raises:
        FormatError: a line is damaged.
        InputError: the log cannot be written.
    """
    path = output / LOG
    if not path.exists():
        return
    kept = []
    for number, (entry, line) in enumerate(_entries(path), 1):
        try:
            position = (phases.index(entry["phase"]), entry["step"])
            if position < (phase, step) or (position == (phase, step) and step > 0):
                kept.append(line)
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{path} is damaged in line {number}: no phase and step ({error}); remove it") from error
    content = "".join(kept).encode()
    if content != path.read_bytes():
        write_whole(path, content)


def _entries(path: Path) -> list[tuple[dict[str, Any], str]]:
    """Return the entries of all whole lines, and the lines."""
    found = []
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    for number, line in enumerate(lines, 1):
        if number == len(lines) and not line.endswith(b"\n"):
            break
        try:
            text = line.decode()
            entry = json.loads(text)
        except ValueError as error:
            raise FormatError(f"{path} is damaged in line {number} ({error}); remove that line") from error
        if not isinstance(entry, dict):
            raise FormatError(f"{path} is damaged in line {number}: expected a JSON object; remove that line")
        if entry.pop(_CRC, None) != _checksum(entry):
            raise FormatError(f"{path} is damaged in line {number}: it does not fit its checksum; remove that line")
        found.append((entry, text))
    return found


def _checksum(entry: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(entry, allow_nan=False).encode()):08x}"
