from __future__ import annotations

import numpy as np
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


def mixture(**changes: object) -> SimulationConfig:
    fields = {"particle": ("gamma", "e-", "e+"), "theta": (5.0, 40.0), "phi": (0.0, 360.0)} | changes
    beam = {"energies": {"law": "log-uniform", "values": (1.0, 200.0)}, **fields}
    return SimulationConfig.model_validate({"detector": {"kind": "block", "material": "PbF2"}, "beam": beam, "seed": 7})


def test_a_mixture_is_drawn_from_seed_and_index_alone() -> None:
    config = mixture()
    assert SimulationConfig.model_validate_json(config.model_dump_json()) == config
    assert config.beam.drawn
    draws = [config.draw(index) for index in range(600)]
    assert draws[17] == config.draw(17)
    particles = [incident.particle for _, _, incident in draws]
    assert all(abs(particles.count(name) - 200) < 60 for name in ("gamma", "e-", "e+"))
    theta, phi = np.array([(incident.theta, incident.phi) for _, _, incident in draws]).T
    for values, low, high in ((theta, 5, 40), (phi, 0, 360)):
        assert low <= values.min() < low + (high - low) / 50
        assert high >= values.max() > high - (high - low) / 50
    assert abs(np.corrcoef(theta, phi)[0, 1]) < 0.15


def test_energies_do_not_depend_on_particle_and_direction() -> None:
    one = mixture(particle="gamma", theta=0.0, phi=0.0)
    assert not one.beam.drawn
    for index in range(20):
        assert one.draw(index)[:2] == mixture().draw(index)[:2]
        assert one.draw(index)[2] == ("gamma", (0.0, 0.0), 0.0, 0.0)


def test_positions_are_drawn_in_the_cells_of_a_matrix() -> None:
    with pytest.raises(ValidationError, match="the showers of a block are moved when they are segmented"):
        mixture(position="uniform")
    matrix = {"kind": "matrix", "material": "PbF2", "dx": 1.3, "dz": (3.7,)}
    beam = {"energies": {"law": "discrete", "values": (1.0,)}, "position": "uniform"}
    config = SimulationConfig.model_validate({"detector": matrix, "beam": beam})
    x, y = np.array([config.draw(index)[2].position for index in range(400)]).T
    assert np.abs([x, y]).max() <= 0.65
    assert abs(x.mean()) < 0.1
    assert abs(x.std() - 1.3 / 12**0.5) < 0.05
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.2


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"theta": (10.0, 90.0)}, "Input should be less than 90"),
        ({"theta": -1}, "Input should be greater than or equal to 0"),
        ({"theta": (10.0, 5.0)}, "the two ends of a range, the lower first"),
        ({"theta": (1.0, 2.0, 3.0)}, "the two ends of a range, the lower first"),
        ({"phi": "up"}, "Input should be a valid number"),
        ({"phi": float("inf")}, "Input should be a valid number"),
        ({"particle": ("gamma", "mu-")}, r"Input should be 'gamma', 'e-' or 'e\+'"),
        ({"particle": ("gamma", "gamma")}, r"Input should be 'gamma', 'e-' or 'e\+'"),
        ({"position": 3}, "expected two coordinates in cm, or the word uniform"),
        ({"particle": ()}, r"Input should be 'gamma', 'e-' or 'e\+'"),
    ],
)
def test_beams_that_cannot_be_drawn(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        mixture(**changes)


def test_a_block_holds_the_steepest_of_a_range() -> None:
    assert Block.holding(MATERIALS["PbF2"], (0.0, 40.0)) == Block.holding(MATERIALS["PbF2"], 40.0)
