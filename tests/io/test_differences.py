"""Where two configurations differ is named by table and key."""

from __future__ import annotations

from calograd.io.toml import differences


def test_differences_are_named() -> None:
    assert differences({"a": {"b": 1, "c": None}}, {"a": {"b": 1}}) == []
    assert differences({"a": {"b": 1}}, {"a": {"b": 2}, "d": [3]}) == [("a.b", 1, 2), ("d", None, [3])]
    assert differences({"a": None}, {"a": {"b": 1}}) == [("a.b", None, 1)]
    assert differences({"a": 0, "c": {}}, {"a": {"b": 1}, "c": None}) == [("a", 0, {"b": 1})]
