from __future__ import annotations

import pytest
from pydantic import ValidationError

from calograd.detector.configuration import Beam, Block, Energies, SimulationConfig, beam_direction
from calograd.detector.material import MATERIALS, Material

STORED = (
    '{"detector":{"kind":"block","material":{"name":"PbF2","density":7.77,"mass_fractions":'
    '{"Pb":0.8450382551101975,"F":0.15496174488980247},"geant4_name":null},"size":[25.2,25.2,76.0]},'
    '"beam":{"particle":"gamma","energies":{"law":"discrete","values":[10.0]},"position":[0.0,0.0],"theta":0.0,'
    '"phi":0.0,"upstream":1.0},"seed":1,"range_cut":0.07}'
)
"""The record that libraries have held since their first version."""


def test_records_are_stored_as_they_always_were() -> None:
    beam = Beam(energies=Energies(law="discrete", values=(10.0,)))
    config = SimulationConfig(detector=Block(material=MATERIALS["PbF2"]), beam=beam, seed=1)
    assert config.model_dump_json() == STORED
    assert SimulationConfig.model_validate_json(STORED) == config


def test_a_material_is_given_as_such_or_by_its_name() -> None:
    assert Block(material="BGO") == Block(material=MATERIALS["BGO"])
    assert isinstance(Block(material="BGO").material, Material)


@pytest.mark.parametrize(
    ("material", "complaint"),
    [
        ("cheese", "unknown material 'cheese'"),
        (3, "valid dictionary"),
        ({"name": "x", "density": "heavy", "mass_fractions": {}}, "valid number"),
        ({"name": "x", "density": 1.0, "mass_fractions": {"Pb": 0.5}}, "mass fractions add up to 0.5"),
        ({"name": "x", "density": 1.0, "mass_fractions": {"Pb": 1.0}, "colour": "red"}, "Extra inputs"),
        (MATERIALS["PbF2"].with_numbers(radiation_length=0.9), "PbF2 has a given radiation_length"),
    ],
)
def test_materials_that_cannot_be_simulated(material: object, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Block.model_validate({"material": material})


def test_block_sizes() -> None:
    with pytest.raises(ValidationError, match="1 x 1 x -1 cm, expected positive sizes"):
        Block(material="PbF2", size=(1, 1, -1))


def test_mean_energy() -> None:
    assert Energies(law="discrete", values=(1.0, 10.0)).mean == 5.5
    for law, expected in (("uniform", 50.5), ("log-uniform", 21.4976)):
        assert Energies.model_validate({"law": law, "values": (1, 100)}).mean == pytest.approx(expected, rel=1e-4)


def test_direction_of_the_beam() -> None:
    assert beam_direction(0, 0) == (0, 0, 1)
    assert beam_direction(30, 90) == pytest.approx((0, 0.5, 3**0.5 / 2))
