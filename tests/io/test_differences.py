"""Configurations of older releases: read where their meaning is plain, refused by the name of the key elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calograd.detector.material import MATERIALS
from calograd.errors import InputError
from calograd.events.library.schema import Provenance
from calograd.io.differences import bring_up_to_date, differences
from calograd.surrogate import Card


def test_an_imported_library_names_its_particle_as_it_once_did() -> None:
    config = {"kind": "import", "material": MATERIALS["PbF2"].to_dict(), "particle": "e-", "file": "a", "sha256": "b",
              "reading": {}}  # fmt: skip
    attributes = {"config": json.dumps(config), "geant4": "unknown", "tables": "unknown"}
    assert Provenance.of(attributes, Path("old.h5")).config.beam.particle == "e-"


def test_a_card_with_one_material() -> None:
    material = MATERIALS["PbF2"].to_dict()
    card = Card.model_validate({"name": "x", "architecture": {}, "energy": (1, 2), "dx": (1, 2), "dz": (1, 2),
                                "material": material, "mode": "embedded", "training": {}})  # fmt: skip
    assert card.materials == (material,)


def test_tables_that_are_none_are_left_to_those_who_check_them() -> None:
    raw = {"check": 3, "descent": []}
    assert bring_up_to_date(raw, "x", {"check.showers": "descent.showers"}) == raw
    with pytest.raises(InputError, match=r"'check\.showers' of an older release"):
        bring_up_to_date({"check": {"showers": 3}, "descent": 1}, "x", {"check.showers": "descent.showers"})


def test_differences_are_named() -> None:
    assert differences({"a": {"b": 1, "c": None}}, {"a": {"b": 1}}) == []
    assert differences({"a": {"b": 1}}, {"a": {"b": 2}, "d": [3]}) == [("a.b", 1, 2), ("d", None, [3])]
    assert differences({"a": None}, {"a": {"b": 1}}) == [("a.b", None, 1)]
    assert differences({"a": 0, "c": {}}, {"a": {"b": 1}, "c": None}) == [("a", 0, {"b": 1})]
