"""Stacks of plates in Geant4: every shower in its own, the same whatever was simulated before or beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.toy_library import write_plates

from calograd import SamplingDesign, open_library, open_plates, read_points, simulate
from calograd.detector.configuration import SPEED_OF_LIGHT, Beam, Energies, SimulationConfig, SiWStack
from calograd.detector.sampling_stack import SamplingStack
from calograd.errors import InputError, OutputExistsError
from calograd.events.clustering import cluster, cluster_plates
from calograd.events.layered_readout import count_hits
from calograd.events.library.schema import Provenance, pack
from calograd.events.library.writer import open_writer
from calograd.events.plates import PlateShowers
from calograd.geant4.farm import plan, run_kernel
from calograd.geant4.production import stack_notes
from calograd.geant4.recording import POSITION_GRID, TIME_GRID
from calograd.geant4.tables import needed_elements

RANDOM: dict[str, Any] = {
    "absorber": ("Pb", "W", "PbWO4"), "active": ("lAr", "Si"), "layers": (10, 60),
    "absorber_thickness": {"low": 0.1, "high": 0.4}, "active_thickness": {"low": 0.05, "high": 0.5},
    "gap_thickness": 0.1, "profile": "smooth",
}  # fmt: skip
COMMAND = (
    "simulate", "--detector", "sampling", "--absorber", "Pb,W", "--active", "lAr", "--layers", "5:30",
    "--absorber-thickness", "0.1:0.4", "--active-thickness", "0.3", "--energies", "0.2:2", "--seed", "3",
)  # fmt: skip


def stack_config(seed: int = 3, **stack: Any) -> SimulationConfig:
    beam = Beam(energies=Energies(law="log-uniform", values=(0.5, 4.0)), particle=("gamma", "e-"), theta=(0.0, 30.0))
    return SimulationConfig(detector=SamplingStack.model_validate(RANDOM | stack), beam=beam, seed=seed)


def assert_same(a: PlateShowers, b: PlateShowers) -> None:
    others = b.columns()
    assert a.columns().keys() == others.keys()
    for name, values in a.columns().items():
        np.testing.assert_array_equal(values, others[name], err_msg=name)


def run(config: SimulationConfig, indices: Any, environment: dict[str, str]) -> PlateShowers:
    showers = run_kernel(config, indices, environment)
    assert isinstance(showers, PlateShowers)
    return showers


@pytest.mark.geant4
def test_a_shower_depends_on_seed_and_index_alone(kernel_environment: dict[str, str]) -> None:
    """Other showers before it, and a process in which its stack is the only one that ever was, change no bit of it."""
    config = stack_config()
    forwards = run(config, range(6), kernel_environment)
    assert len(set(forwards.counts)) > 3
    assert len(set(forwards.absorber)) > 1
    assert len(set(forwards.active)) > 1
    assert_same(run(config, [5, 2], kernel_environment), forwards.rows([5, 2]))
    one = forwards.rows([2])
    thickness = {name: tuple(map(float, getattr(one, name))) for name in PlateShowers.FLAT[3:]}
    fixed = {"absorber": RANDOM["absorber"][one.absorber[0]], "active": RANDOM["active"][one.active[0]]}
    config = stack_config(**fixed, **thickness, layers=int(one.counts[0]), profile="equal")
    alone = run(config, [2], kernel_environment)
    for name in (*PlateShowers.FLAT, "energy", "seed", "particle", "theta"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(one, name), err_msg=name)
    assert (forwards.leakage > -1e-3).all()
    assert (forwards.gap_energy.sum() > 0) & (forwards.gap_energy.sum() < 1e-3 * forwards.totals.sum())


@pytest.mark.geant4
def test_workers_and_resuming_change_nothing(calograd: Any, kernel_environment: dict[str, str], tmp_path: Path) -> None:
    code, _, err = calograd(*COMMAND, "--showers", "6", "--workers", "2", "-o", "two.h5", "--json", "made.json")
    assert code == 0, err
    made = json.loads((tmp_path / "made.json").read_text())
    assert (made["showers"], made["config"]["detector"]["layers"]) == (6, [5, 30])
    with open_plates(tmp_path / "two.h5") as library:
        showers = library.read()
    assert made["leakage, % of the energy"] == pytest.approx(100 * (showers.leakage / showers.energy).mean())
    assert "of the incident energy leaves the stacks on average; add layers" in " ".join(err.split())
    provenance = library.provenance
    with open_writer(tmp_path / "one.h5", provenance, 6) as begun:
        begun.add(pack(run(provenance.config, [1, 2, 3], kernel_environment), provenance))
    code, _, err = calograd(*COMMAND, "--showers", "6", "-o", "one.h5", "--json", "rest.json")
    assert code == 0, err
    assert json.loads((tmp_path / "rest.json").read_text())["simulated"] == 3
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


@pytest.mark.geant4
def test_the_stack_of_the_ild_has_the_energies_of_its_volumes(kernel_environment: dict[str, str]) -> None:
    """Its silicon as plates, summed by Geant4, agrees with the deposits that Python records in its own geometry."""
    stack = SiWStack()
    design = SamplingDesign("W", "Si", stack.plate_thicknesses(), stack.silicon, gap_thickness=0.361)
    beam = Beam(energies=Energies(law="discrete", values=(2.0,)), upstream=0.1)
    seen = []
    for seed, detector in ((1, stack), (2, design.to_stack())):
        showers = run_kernel(SimulationConfig(detector=detector, beam=beam, seed=seed), range(40), kernel_environment)
        if isinstance(showers, PlateShowers):
            layers = showers.energies()[:, :, 2].astype(np.float64)
        else:
            layer = np.searchsorted(stack.layer_fronts(), showers.z, side="right") - 1
            layers = np.bincount(showers.owner * 30 + layer, showers.e, 40 * 30).reshape(40, 30)
        depth = layers @ np.arange(30) / layers.sum(1)
        seen.append(np.stack([layers.sum(1), depth, layers[:, :8].sum(1), layers[:, 14:].sum(1)]))
    error = np.sqrt(sum(each.var(1, ddof=1) for each in seen) / 40)
    assert np.abs((seen[0].mean(1) - seen[1].mean(1)) / error).max() < 4
    assert (error / seen[0].mean(1) < (0.04, 0.07, 0.16, 0.16)).all()  # so it would see an error of a quarter


@pytest.mark.geant4
def test_recorded_points_change_no_energy_and_add_up_to_it(kernel_environment: dict[str, str]) -> None:
    """Particles at angles in stacks of 10 to 60 layers, whose spare plates wait behind them."""
    config, recording = stack_config(), stack_config(record="points")
    alone, showers = (run(each, range(6), kernel_environment) for each in (config, recording))
    deposits = showers.deposits
    assert deposits is not None
    assert_same(replace(showers, deposits=None), alone)
    assert_same(run(recording, [5, 2], kernel_environment), showers.rows([5, 2]))
    row = showers.offsets[deposits.owner] + showers.layers_of(deposits)
    sums = np.bincount(row, deposits.e, len(showers.active_energy))
    np.testing.assert_allclose(sums, showers.active_energy, rtol=3e-7, atol=1e-12)
    assert (sums > 0).sum() > 100
    middle, half = showers.middles()[row], showers.active_thickness[row] / 2
    assert (np.abs(deposits.z - middle) <= half + POSITION_GRID).all()
    assert deposits.t is not None
    assert (deposits.t > deposits.z / SPEED_OF_LIGHT - 2 * TIME_GRID).all()


@pytest.mark.geant4
def test_points_follow_the_line_of_the_particle(calograd: Any, tmp_path: Path) -> None:
    """Electrons that enter beside the axis, at an angle: their points lie about the origin in every layer."""
    command = (*COMMAND, "--record", "points", "--particle", "e-,e+", "--theta", "30", "--phi", "90")
    code, _, err = calograd(*command, "--position", "3,-2", "--showers", "8", "-o", "stacks.h5")
    assert code == 0, err
    code, _, err = calograd("points", "stacks.h5", "-o", "points.h5")
    assert code == 0, err
    points = read_points(tmp_path / "points.h5")
    with open_plates(tmp_path / "stacks.h5", deposits=True) as library:
        showers = library.read()
        sub_cells = cluster_plates(library, "sub-cells")
    assert showers.deposits is not None
    np.testing.assert_array_equal(points.n_layers, showers.counts)
    np.testing.assert_array_equal(points.pdg, showers.particle)
    assert (points.layers, points.shower.tolist()) == (30, list(range(8)))
    assert set(points.incident.particle) == {11, -11}
    np.testing.assert_allclose(points.incident.position, [[3, -2]] * 8)
    np.testing.assert_allclose((points.theta, points.phi), ([30] * 8, [90] * 8), rtol=1e-6)
    active = showers.energies()[:, :, 2]
    np.testing.assert_allclose(points.layer_sums(points.e)[:, : active.shape[1]], active, rtol=1e-5, atol=1e-9)
    assert points.hits is not None
    np.testing.assert_array_equal(points.hits, count_hits(sub_cells))
    early = points.layer < 5
    x, y = (np.average(values[early], weights=points.e[early]) for values in (points.x, points.y))
    assert np.hypot(x, y) < 0.3
    far = np.average(showers.deposits.y, weights=showers.deposits.e) - np.average(points.y, weights=points.e)
    z = np.average(showers.deposits.z, weights=showers.deposits.e)
    assert far == pytest.approx(-2 + z * np.tan(np.radians(30)), abs=0.02)
    code, _, err = calograd("points", "points.h5", "--clustering", "crossings", "-o", "again.h5")
    assert (code, "for shower libraries" in err) == (2, True)


@pytest.mark.geant4
def test_points_of_the_ilds_stack_as_plates_are_those_of_its_volumes(
    kernel_environment: dict[str, str], tmp_path: Path
) -> None:
    """Numbers of points and hits, energy in rings about the axis and mean radius, for 40 photons of 2 GeV each.

    The volumes have all air before their silicon here, as the plates, but for 10 micrometres that tell layers apart.
    With 0.1 cm of it there, more of the energy lies near the axis, and electrons that return from the next plate make
    points of their own.
    """
    stack = SiWStack(gap=0.36)
    design = SamplingDesign("W", "Si", stack.plate_thicknesses(), stack.silicon, gap_thickness=0.361)
    beam = Beam(energies=Energies(law="discrete", values=(2.0,)), upstream=0.1)
    plates = design.to_stack().model_copy(update={"record": "points"})
    seen = []
    for seed, detector in ((1, stack), (2, plates)):
        provenance = Provenance(SimulationConfig(detector=detector, beam=beam, seed=seed), "11.4.1", "none")
        path = tmp_path / f"{seed}.h5"
        path.write_bytes(pack(run_kernel(provenance.config, range(40), kernel_environment), provenance))
        if provenance.points:
            with open_plates(path, deposits=True) as library:
                points = cluster_plates(library, "crossings")
        else:
            with open_library(path) as library:
                points = cluster(library, "crossings")
        assert points.hits is not None
        radius = np.hypot(points.x, points.y)
        rings = [np.bincount(points.owner, points.e * (radius < edge), 40) for edge in (0.3, 1.0, 3.0, np.inf)]
        mean = np.bincount(points.owner, points.e * radius, 40) / rings[-1]
        seen.append(np.stack([points.counts, points.hits, *np.diff(rings, axis=0, prepend=0), mean]))
    error = np.sqrt(sum(each.var(1, ddof=1) for each in seen) / 40)
    pulls = (seen[0].mean(1) - seen[1].mean(1)) / error
    assert np.abs(pulls).max() < 4, pulls
    relative = error / seen[0].mean(1)
    assert (relative < (0.05, 0.05, 0.12, 0.1, 0.1, 0.2, 0.06)).all(), relative  # so it would see a wrong frame


OVERLAPS = """
import json, os, sys
import geant4_pybind as g4
from calograd.detector.configuration import SimulationConfig
from calograd.geant4.geometry import build
config = SimulationConfig.model_validate_json(sys.argv[1])
built = build(g4, config)
placed = [each for each in built.kept if isinstance(each, g4.G4PVPlacement)]
plates = [each for each in placed if each.GetName() in ("sensitive", "active")]
others = [each for each in placed if each.GetName() == "cube"]
answer = []
for index in (0, 1, 2, 0):
    built.arrange(config.draw_stack(index))
    logicals = [each.GetLogicalVolume() for each in plates]
    answer.append([
        sum(each.CheckOverlaps(100, 0.0, False) for each in plates + others),
        [each.GetTranslation().z / 10 for each in plates],
        [each.GetSolid().GetZHalfLength() / 5 for each in logicals],
        [str(each.GetMaterial().GetName()) for each in logicals],
    ])
print("\\nanswer", json.dumps(answer), flush=True)
os._exit(0)
"""


@pytest.mark.geant4
def test_plates_lie_where_their_stack_has_them(kernel_environment: dict[str, str]) -> None:
    config = stack_config(layers=(3, 9))
    words = [sys.executable, "-P", "-c", OVERLAPS, config.model_dump_json()]
    done = subprocess.run(words, env=kernel_environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("answer ")]
    assert lines, done.stderr
    names = {"absorber": ("G4_Pb", "G4_W", "G4_PbWO4"), "active": ("G4_lAr", "G4_Si")}
    for index, (overlaps, z, lengths, materials) in zip((0, 1, 2, 0), json.loads(lines[0][7:]), strict=True):
        stack = config.draw_stack(index)
        used = stack.thickness.size
        assert overlaps == 0
        faces = stack.faces()
        np.testing.assert_allclose(z[:used], (faces[1:] + faces[:-1]) / 2, atol=1e-9)
        np.testing.assert_allclose(lengths[:used], np.diff(faces), atol=1e-9)
        kinds = [names["absorber"][stack.absorber], "G4_AIR", names["active"][stack.active]]
        assert materials == kinds * len(stack.thickness) + ["G4_Galactic"] * (len(z) - used)
        assert min(z[used:], default=np.inf) > faces[-1]


@pytest.mark.geant4
def test_a_design_is_simulated_as_it_is(kernel_environment: dict[str, str], tmp_path: Path) -> None:
    design = SamplingDesign("Pb", "polystyrene", [0.1, 0.2, 0.3], 0.4, gap_thickness=[0.0, 0.0, 0.1])
    beam = Beam(energies=Energies(law="discrete", values=(1.0,)), particle="e-", theta=30)
    config = SimulationConfig(detector=design.to_stack(), beam=beam)
    path = write_plates(tmp_path / "plates.h5", 2, config=config)
    width = 40 + 2 * 1.9 / 3**0.5
    with pytest.raises(OutputExistsError, match=rf"made otherwise: detector.width is 40.0, not {width:.6f}"):
        simulate(path, 1.0, 2, particle="e-", theta=30, detector=design)  # wider for the angle, and else the same
    showers = run(config, [0, 1], kernel_environment)
    np.testing.assert_allclose(showers.thicknesses(), design.thicknesses.expand(2, 3, 3))
    assert not showers.energies()[:, :2, 1].any()
    assert (showers.active_energy > 0).all()


def test_elements_and_chunks_of_stacks() -> None:
    config = stack_config()
    assert needed_elements(config) == {"H", "Pb", "W", "O", "Ar", "Si", "C", "N"}
    assert needed_elements(stack_config(gap_thickness=0.0, active="Si")) == {"H", "Pb", "W", "O", "Si"}
    assert [i for chunk in plan(config, [range(50, 2000)], 2) for i in chunk] == list(range(50, 2000))


def test_energies_of_the_beam_do_not_depend_on_the_stack() -> None:
    one, two = stack_config(), stack_config(layers=20, absorber="Fe", active_thickness=0.3)
    assert [one.draw(i) for i in range(5)] == [two.draw(i) for i in range(5)]
    with pytest.raises(TypeError, match="a siw is no stack of plates"):
        SimulationConfig(detector=SiWStack(), beam=one.beam).draw_stack(0)


def test_notes_say_what_thin_plates_and_leakage_mean() -> None:
    thin = SamplingDesign("W", "Si", 0.21, 0.0525, 30, gap_thickness=0.01).to_stack()
    (note,) = stack_notes(thin, 0.07, 0.01)
    assert note.startswith("plates thinner than the production cut of 0.07 cm (active 0.0525 cm): ")  # not air
    assert "choose --range-cut 0.0525 or below" in note
    assert stack_notes(thin, 0.05, 0.01) == []
    some = SamplingDesign("W", "Si", 0.21, 0.1, 2, gap_material="polystyrene", gap_thickness=[0.0, 0.01]).to_stack()
    assert "(gap 0.01 cm)" in stack_notes(some, 0.05, 0.01)[0]
    (note,) = stack_notes(thin, 0.05, 0.123)
    assert note.startswith("12.3 % of the incident energy leaves the stacks on average; add layers")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"position": "uniform"}, "and plates have no cells"),
        ({"detector": SamplingDesign("Pb", "lAr", [[0.2] * 3] * 2, 0.4, 3)}, "a batch of designs is no detector"),
        ({"detector": SiWStack(), "record": "points"}, "record: points are recorded of stacks of plates; leave it out"),
        ({"record": "tracks"}, "record: Input should be 'energies' or 'points', not tracks"),
        ({"detector": SamplingDesign("Pb", "lAr", 0.1, 0.1, 300), "record": "points"}, "record: 300 layers; points"),
    ],
)
def test_arguments_that_cannot_be_used(tmp_path: Path, arguments: dict[str, Any], complaint: str) -> None:
    design = SamplingDesign("Pb", "lAr", 0.2, 0.4, 3)
    with pytest.raises(InputError, match=complaint):
        simulate(**{"path": tmp_path / "plates.h5", "energies": 1.0, "showers": 1, "detector": design} | arguments)
    assert list(tmp_path.iterdir()) == []
