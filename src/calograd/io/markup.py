"""Small HTML for notebooks: every string is escaped, since it may come from any file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

_CELL = 'style="text-align:left;padding:2px 10px 2px 0"'


def facts(title: str, rows: Mapping[str, object]) -> str:
    """Return a title above a table of names and values."""
    body = "".join(f"<tr><th {_CELL}>{escape(k)}</th><td {_CELL}>{escape(str(v))}</td></tr>" for k, v in rows.items())
    return f"<div><strong>{escape(title)}</strong><table>{body}</table></div>"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a title above a table with named columns."""
    head = "".join(f"<th {_CELL}>{escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td {_CELL}>{escape(str(c))}</td>" for c in row) + "</tr>" for row in rows)
    return f"<div><strong>{escape(title)}</strong><table><tr>{head}</tr>{body}</table></div>"
