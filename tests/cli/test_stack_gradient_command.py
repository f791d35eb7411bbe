"""``calograd gradient`` at a stack of plates."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.tiny_plates import tiny_plates
from helpers.toy_stacks import LAYERS, write_toy_showers

import calograd as root
from calograd import MeanEnergy, ParticleBeam, SamplingDesign, StackObjective, VisibleResolution

Run = Callable[..., tuple[int, str, str]]

STACK = ("--absorber", "Pb", "--active", "lAr", "--absorber-thickness", "0.3", "--active-thickness", "0.4",
         "--layers", str(LAYERS), "--particle", "e-")  # fmt: skip
FAST = ("--showers", "20", "--draws", "2", "--steps", "1")


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("surrogate") / "plates"
    tiny_plates().save(folder)
    return str(folder)


def test_it_is_that_of_the_library(plates: str, calograd: Run, tmp_path: Path) -> None:
    code, _, err = calograd(
        "gradient", plates, *STACK, "--energies", "3,10", "--theta", "10", "--quantity", "deposited", "--quantity",
        "resolution", "--of-layers", "0", "3", "--weights", "1,1.5,1,1,1", *FAST, "--seed", "4", "--json", "out.json",
    )  # fmt: skip
    assert code == 0, err
    quantities = MeanEnergy(absorber=1.0, layers=(0, 3)), VisibleResolution((1, 1.5, 1, 1, 1))
    expected = root.gradient(
        plates, SamplingDesign("Pb", "lAr", 0.3, 0.4, LAYERS), (3.0, 10.0), showers=20, draws=2, steps=1, seed=4,
        objective=StackObjective(quantities, beam=ParticleBeam("e-", theta=10.0)),
    )  # fmt: skip
    written, wanted = json.loads((tmp_path / "out.json").read_text()), json.loads(json.dumps(expected.to_dict()))
    assert written["objective"] == wanted["objective"]
    for one, other in zip(written["points"], wanted["points"], strict=True):
        for kind in ("absorber", "active"):
            assert one[kind]["per_cm"] == pytest.approx(other[kind]["per_cm"], rel=1e-3)


def test_beside_a_library_with_a_report(plates: str, calograd: Run, tmp_path: Path) -> None:
    for profile in ("equal", "smooth"):
        write_toy_showers(tmp_path / f"{profile}.h5", 400, energies=(3.0,), profile=profile)
        code, _, err = calograd(
            "gradient", plates, *STACK, "--energies", "3", "--reference", f"{profile}.h5", *FAST, "--json", "-",
            "--report", f"{profile}.html",
        )  # fmt: skip
        assert code == 0, err
        page = (tmp_path / f"{profile}.html").read_text(encoding="utf-8")
        assert page.count("data:image/png") == 2
        for text in ("Pb and lAr", "0.3 and 0.4 cm", f"{profile}.h5", "e-, theta 0 degrees",
                     "signs right", "sigma/E of the visible energy"):  # fmt: skip
            assert text in page


def test_what_cannot_be(plates: str, tiny: str, calograd: Run, tmp_path: Path) -> None:
    write_toy_showers(tmp_path / "random.h5", 100, energies=(3.0,))
    at = ("--energies", "3")
    cases: tuple[tuple[tuple[str, ...], str], ...] = (
        ((plates, *at), "give --cell DX DZ, or for a surrogate of stacks of plates --absorber"),
        ((plates, *at, "--quantity", "learnt"), "a stack of plates needs --absorber"),
        ((plates, *STACK, *at, "--density"), "--density does not go with a stack of plates (--absorber); leave it out"),
        ((plates, *STACK, *at, "--objective", "x.toml"), "--objective does not go with a stack of plates"),
        ((plates, *STACK, *at, "--position", "1,1"), "--position does not go with a stack of plates"),
        ((tiny, "--cell", "2.5", "6", *at, "--weights", "1,1"), "--weights does not go with a design of cells"),
        ((plates, "--cell", "2.5", "6", *at), "knows no designs of cells"),
        ((tiny, *STACK, *at), "tiny generates no energies of plates; expected a surrogate of stacks"),
        ((plates, *STACK, *at, "--theta", "0:10"), "a gradient is taken at one stack, of one particle at one angle"),
        ((plates, *STACK, "--layers", "4:9", *at), "a gradient is taken at one stack"),
        ((plates, *STACK, *at, "--weights", "1,1", "--quantity", "visible"), "--weights is for --quantity resolution"),
        ((plates, *STACK, *at, "--weights", "1,1"), "2 weights for 5 layers; expected one, or one a layer"),
        ((plates, *STACK, *at, "--of-layers", "1", "3", "--quantity", "learnt"), "--of-layers is for --quantity"),
        ((plates, *STACK, *at, "--reference", "random.h5", "--absorber-thickness", "0.6"), "does not surround"),
        ((plates, *STACK, *at, "--absorber-thickness", "2.3"), "is this in mm? Give cm"),
    )  # fmt: skip
    for arguments, message in cases:
        code, _, err = calograd("gradient", *arguments, *FAST)
        assert code == 2, arguments
        assert message in " ".join(err.split()), err
        assert "Traceback" not in err
