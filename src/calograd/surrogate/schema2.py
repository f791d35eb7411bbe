"""Temporary: files of schema 2 as schema 3, until the bundled ones are converted."""

from typing import Any

KINDS = {"map32": "maps", "cloud": "points"}


def convert(card: dict[str, Any]) -> dict[str, Any]:
    """Return a card of schema 3."""
    card = {"kind": "cells"} | card
    card["kind"] = KINDS.get(card["kind"], card["kind"])
    a = card["architecture"]
    if "tied" in a:
        a["symmetric"] = a.pop("tied")
    if "leaps" in a:
        a["distilled_steps"] = a.pop("leaps")
    if a.get("sampler") == "angle":
        a["sampler"] = "trigflow-ab2"
    if card["kind"] == "points":
        card["trained"] = {name: card.pop(name) for name in ("detector", "clustering")}
    else:
        names = ("dx", "dz", "units", "unequal_layers", "materials", "mode")
        card["trained"] = {name: card.pop(name) for name in names}
    return card
