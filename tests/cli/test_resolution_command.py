from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

from calograd.events.dense import Cells, write_cells

Run = Callable[..., tuple[int, str, str]]

SAMPLE = files("calograd") / "assets" / "pbf2-sample"
FAST = ("--showers", "30", "--steps", "2")


def test_the_bundled_showers_alone(calograd: Run, tmp_path: Path) -> None:
    """Deposited energy in 4 x 10 cm: about 0.45 %/sqrt(E), and next to nothing else."""
    code, _, err = calograd(
        "resolution", "--cell", "4", "10", "--reference", str(SAMPLE / "reference.h5"), "--json", "out.json",
        "--report", "out.html",
    )  # fmt: skip
    assert code == 0, err
    result = json.loads((tmp_path / "out.json").read_text())
    deposited, background = result["stages"]
    curve, fit = deposited["geant4"], deposited["geant4"]["fit"]
    assert curve["energies"] == [1, *range(10, 101, 10)]
    assert set(curve["showers"]) == {200}
    assert fit["a"] == pytest.approx(0.0045, abs=5e-4)
    assert 0 < fit["errors"][0] < 5e-4
    assert fit["chi2"] < 25
    assert background["geant4"]["values"][0] > 10 * curve["values"][0]
    assert "response changes" in err
    page = (tmp_path / "out.html").read_text()
    assert "data:image/png" in page
    assert "standard deviation over mean" in page


def test_a_surrogate_beside_neighbouring_designs(
    tiny: str, neighbours: Cells, calograd: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    twice = neighbours.concatenate(
        [neighbours, neighbours], shower=[*neighbours.shower, *(neighbours.shower + 12)]  # type: ignore[arg-type]
    )  # fmt: skip
    write_cells(tmp_path / "reference.h5", twice)
    code, _, err = calograd(
        "resolution", tiny, "--cell", "2.5", "6", "--energies", "10,50", "--reference", "reference.h5", *FAST,
        "--light-yield", "2000", "--noise", "2", "--definition", "incident", "--terms", "a,c", "--json", "out.json",
        "--report", "out.html",
    )  # fmt: skip
    assert code == 0, err
    result = json.loads((tmp_path / "out.json").read_text())
    assert [s["stage"] for s in result["stages"]] == ["deposited", "with background", "with background and readout"]
    last = result["stages"][-1]
    assert "2000 photo-electrons/GeV, noise 0.002 GeV" in last["measurement"]["readout"]
    assert last["surrogate"]["energies"] == [10, 50]
    assert last["surrogate"]["fit"]["terms"] == ["a", "c"]
    assert set(last["gradient"]["parameters"]) == {"dx", "dz"}
    assert last["geant4_gradient"]["energies"] == [10]
    assert "Gradient in the design" in err
    assert "…" not in err  # broken words, none left out
    assert "d / d ln y of" in (tmp_path / "out.html").read_text()


def test_an_objective_s_file(tiny: str, calograd: Run, tmp_path: Path) -> None:
    (tmp_path / "measured.toml").write_text("[background]\nkind = 'none'\n[readout]\nnoise = 0.01\n")
    common = ("resolution", tiny, "--cell", "2.5", "6", "--energies", "10", "--objective", "measured.toml", *FAST)
    code, _, err = calograd(*common, "--no-gradient", "--json", "out.json")
    assert code == 0, err
    result = json.loads((tmp_path / "out.json").read_text())
    assert [s["stage"] for s in result["stages"]] == ["deposited", "with readout"]
    assert "gradient" not in result["stages"][0]
    assert "no fit: 1 energy" in err
    code, _, err = calograd(*common, "--noise", "2")
    assert code == 2
    assert "do not go with the [readout] of measured.toml" in " ".join(err.split())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "give a MODEL, as pbf2-cells-fast, or --reference FILE"),
        (("pbf2-cells-fast",), "give the design, --cell DX DZ"),
        (("pbf2-cells-fast", "--cell", "9", "6", *FAST[:2]), "dx = 9 cm is outside 1 to 5 cm"),
        (("--reference", str(SAMPLE / "reference.h5")), "holds 3 designs, 1 x 5 cm, 2.5 x 6 cm, 4 x 10 cm"),
        (("--reference", str(SAMPLE / "reference.h5"), "--cell", "3", "6"), "no showers of 3 x 6 cm"),
        (("pbf2-cells-fast", "--cell", "2.5", "6", "--terms", "a,x"), "terms = a,x: expected some of a, b, c"),
        (("siw-cloud-cm", "--cell", "2.5", "6"), "knows no designs"),
    ],
)
def test_what_cannot_be(calograd: Run, arguments: tuple[str, ...], complaint: str) -> None:
    code, _, err = calograd("resolution", *arguments)
    assert code == 2
    assert complaint in " ".join(err.split())
