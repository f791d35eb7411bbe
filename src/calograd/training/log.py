"""The log of a run: ``log.jsonl`` in its folder, a line of JSON a report.

``crc32`` of a line is that of the line without it; lines of before there was one are read unchecked.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from calograd.errors import FormatError
from calograd.io.files import write_whole, writing

LOG = "log.jsonl"
_CRC = "crc32"


def add_to_log(output: Path, entry: Mapping[str, Any]) -> None:
    """Add a line to the log of the run in ``output``. Raises `InputError` if it cannot be written."""
    with writing(output / LOG), (output / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps(dict(entry) | {_CRC: _checksum(entry)}, allow_nan=False) + "\n")


def read_log(output: Path) -> list[dict[str, Any]]:
    """The reports of the run in ``output``, as plain data, in order. Raises `FormatError` if a line is damaged."""
    return [entry for entry, _ in _entries(output / LOG)]


def trim_log(output: Path, kept: Callable[[dict[str, Any]], bool]) -> None:
    """Drop what was logged after the checkpoint was written, which will be logged again, and half a line at the end.

    Args:
        output: folder of the run.
        kept: whether an entry belongs to what the checkpoint has.

    Raises:
        FormatError: a line is damaged.
        InputError: it cannot be written.
    """
    path = output / LOG
    if not path.exists():
        return
    before = _entries(path)
    try:
        after = [line for entry, line in before if kept(entry)]
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path} is damaged: an entry lacks {error}; remove it") from error
    content = "".join(after).encode()
    if content != path.read_bytes():
        write_whole(path, content)


def _entries(path: Path) -> list[tuple[dict[str, Any], str]]:
    """Whole lines, and what they say."""
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
        if entry.pop(_CRC, None) not in (None, _checksum(entry)):
            raise FormatError(f"{path} is damaged in line {number}: it does not fit its checksum; remove that line")
        found.append((entry, text))
    return found


def _checksum(entry: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(entry, allow_nan=False).encode()):08x}"
