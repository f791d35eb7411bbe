from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from calograd.detector.configuration import Beam, Energies, SimulationConfig, SiWStack, shower_generator
from calograd.errors import InputError
from calograd.events.ragged import Showers
from calograd.geant4.farm import KernelError, run_kernel
from calograd.geant4.probe import ask
from calograd.geant4.recording import POSITION_GRID
from calograd.geant4.tables import find_tables


def shower(showers: Showers, index: int) -> tuple[np.ndarray, ...]:
    """Deposits of the shower with the given index."""
    row = showers.index.tolist().index(index)
    part = slice(showers.offsets[row], showers.offsets[row + 1])
    return showers.x[part], showers.y[part], showers.z[part], showers.e[part]


def test_seeds_are_those_of_every_earlier_library() -> None:
    """Golden numbers: changing them makes old libraries impossible to continue."""
    seeds = [shower_generator(seed, index)[0] for seed, index in ((0, 0), (1, 0), (1, 1), (2**63, 10**12))]
    assert seeds == [3948308845846928943, 1858688918973179007, 19450782973152619, 2709658108824649324]
    draw = Energies(law="log-uniform", values=(1.0, 100.0)).draw(7, shower_generator(1, 7)[1])
    assert draw == pytest.approx(34.92271859804883, rel=1e-12)


@pytest.mark.geant4
def test_a_shower_depends_on_seed_and_index_alone(make_config, kernel_environment) -> None:
    config = make_config(0.5, 1.0)
    forwards = run_kernel(config, [0, 1, 2, 3], kernel_environment)
    backwards = run_kernel(config, [3, 1], kernel_environment)
    for index in (1, 3):
        for a, b in zip(shower(forwards, index), shower(backwards, index), strict=True):
            np.testing.assert_array_equal(a, b)
    assert forwards.energy.tolist() == [0.5, 1.0, 0.5, 1.0]
    assert not np.array_equal(shower(forwards, 1)[0][:20], shower(forwards, 3)[0][:20])
    other = run_kernel(make_config(0.5, 1.0, seed=2), [1], kernel_environment)
    assert not np.array_equal(shower(forwards, 1)[0][:20], shower(other, 1)[0][:20])


@pytest.mark.geant4
def test_50_gev_photons_in_lead_fluoride(make_config, kernel_environment) -> None:
    """99.8 % contained, 88 % within one Moliere radius, 96 % within two; a late conversion leaks a little more."""
    showers = run_kernel(make_config(50.0), range(6), kernel_environment)
    total = np.add.reduceat(showers.e.astype(float), showers.offsets[:-1])
    assert np.median(total / 50) == pytest.approx(0.998, abs=0.0015)
    r = np.hypot(showers.x, showers.y)
    for radius, share in ((2.24, 0.88), (4.48, 0.96)):
        assert showers.e[r < radius].sum() / showers.e.sum() == pytest.approx(share, abs=0.015)
    assert showers.z.min() >= 0
    assert showers.z.max() <= 76
    assert np.abs(showers.x).max() <= 12.6 + POSITION_GRID
    depth = float((showers.z * showers.e).sum() / showers.e.sum())
    assert depth == pytest.approx(10.1, abs=0.8)


@pytest.mark.geant4
def test_deposits_of_the_silicon_stack_lie_in_its_silicon(kernel_environment) -> None:
    beam = Beam(energies=Energies(law="uniform", values=(4.0, 8.0)), upstream=0.1)
    showers = run_kernel(SimulationConfig(detector=SiWStack(), beam=beam), range(3), kernel_environment)
    fronts = np.concatenate([0.6235 * np.arange(20), 20 * 0.6235 + 0.8335 * np.arange(10)])
    silicon = fronts + np.repeat([0.21, 0.42], [20, 10]) + 0.1
    layer = np.searchsorted(silicon, showers.z + 1e-3) - 1
    inside = showers.z - silicon[layer]
    assert inside.min() > -5e-4
    assert inside.max() < 0.0525 + 5e-4
    assert len(np.unique(layer)) > 20
    assert ((showers.energy > 4) & (showers.energy < 8)).all()
    assert 0.02 < showers.e.sum() / showers.energy.sum() < 0.04


@pytest.mark.geant4
def test_a_kernel_that_fails_says_why(make_config, kernel_environment) -> None:
    config = make_config(1.0)
    record = replace(config.detector.material, geant4_name="G4_NOTHING")
    config = config.model_copy(update={"detector": config.detector.model_copy(update={"material": record})})
    with pytest.raises(KernelError, match=r"the kernel ended .*its last words: .*"):
        run_kernel(config, [0], kernel_environment)


@pytest.mark.geant4
def test_a_kernel_leaves_when_its_worker_is_gone(make_config, kernel_environment, tmp_path) -> None:
    job = {"config": make_config(100.0).model_dump(), "indices": list(range(1000)), "output": str(tmp_path / "out")}
    with subprocess.Popen(
        [sys.executable, "-m", "calograd.geant4.kernel"],
        env=kernel_environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(json.dumps(job).encode() + b"\n")
        process.stdin.close()
        assert process.wait(timeout=30) == 3
    assert not (tmp_path / "out").exists()


@pytest.mark.geant4
def test_geant4_is_asked_for_its_materials() -> None:
    answer = ask(find_tables(), ("G4_PbWO4", "G4_LEAD_OXIDE"))
    assert answer.version.split(".")[0] == "11"
    assert answer.materials["G4_PbWO4"].density == pytest.approx(8.28)
    assert answer.materials["G4_PbWO4"].radiation_length == pytest.approx(0.89, rel=0.02)
    oxide = answer.materials["G4_LEAD_OXIDE"]
    assert oxide.geant4_name == "G4_LEAD_OXIDE"
    assert sum(oxide.mass_fractions.values()) == pytest.approx(1)
    with pytest.raises(InputError, match="Geant4 has no material 'G4_NOTHING'"):
        ask(find_tables(), ("G4_NOTHING",))
