from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from calograd import open_plates
from calograd.cli.demo import demo
from calograd.demo import chain
from calograd.demo.stack import StackStudy
from calograd.errors import OutputExistsError
from calograd.system.progress import StageProgress


@pytest.mark.skipif(
    not (Path(chain.__file__).parents[1] / "assets" / chain.SAMPLE / "reference.h5").is_file(),
    reason="no bundled sample",
)
def test_the_bundled_data_carry_the_quick_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, run = tmp_path / "demo", chain.run
    results: list[chain.DemoResult] = []
    arguments: list[Any] = []
    stages = set()

    def watched(*positional: Any, progress: StageProgress, **named: Any) -> chain.DemoResult:
        def shown(stage: str, done: int, total: int) -> None:
            stages.add(stage)
            progress(stage, done, total)

        arguments.extend(positional)
        results.append(run(*positional, progress=shown, **named))
        return results[-1]

    monkeypatch.setattr(chain, "run", watched)
    monkeypatch.setattr(
        chain, "QUICK", replace(chain.QUICK, showers=240)
    )  # enough to reconstruct entries at each point
    assert CliRunner().invoke(demo, ["--quick", "-o", str(folder)], catch_exceptions=False).exit_code == 0
    (result,) = results
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert len(page) > 100_000
    assert page.count("data:image/png;base64,") >= 10
    assert "://" not in page
    assert {p.name for p in folder.iterdir()} == {
        "benchmark.json", "evaluation.json", "generated.h5", "gradients.json", "off-axis.h5", "off-axis.json", "pbwo4",
        "plates-benchmark.json", "plates-gradients.json", "plates.h5", "plates.json", "report.html", "training",
    }  # fmt: skip
    assert {t.who for t in result.benchmark.surrogates} == {"pbf2-cells", "pbf2-cells-fast"}
    assert f"a shower on one thread, {result.headline().best.who} in batches of " in page
    assert len(result.evaluation.points) == 9
    assert [p.point.energy for p in result.anywhere.points] == [5, 5, 50, 50]  # along the axis and at 25 degrees
    assert all(p.reconstruction is not None for p in result.anywhere.points)
    assert "entry: largest difference of bias" in page
    assert [point.energy for point in result.plates.points] == [1, 10]
    assert (len(result.plates.generated), len(result.plates.reference)) == (480, 480)
    assert all(check.where in ("1 GeV", "10 GeV") for check in result.plates.checks)
    assert {t.who for t in result.plates_benchmark.surrogates} == {"sampling", "sampling-fast"}
    check_stack(result.stack, json.loads((folder / "plates-gradients.json").read_text()))
    for check in result.plates.checks:
        assert (f"{check.kind} of {check.subject} at {check.where} (" in page) == (not check.passed)
    assert result.plates_benchmark.workload.layers_only
    assert "Points in the plates are not compared here." in page
    assert result.log[-1]["step"] == 60
    assert result.adaptation.material == "PbWO4"
    assert set(result.adaptation.before) == set(result.adaptation.after)
    assert {point.energy for point in result.adaptation.after} == {1.0, 10.0, 50.0, 100.0}
    assert json.loads((folder / "evaluation.json").read_text())["points"]
    assert {"sample", "points", "diffusion", "gradients", "optimisation"} <= stages
    with pytest.raises(OutputExistsError):
        run(*arguments)


def check_stack(study: StackStudy, written: dict[str, Any]) -> None:
    """Geant4's points are those of the bundled showers; the surrogate's have the thicknesses between their ends."""
    assert [point.thickness for point in study.geant4] == pytest.approx([0.1, 0.15, 0.25, 0.35, 0.5])
    assert [point.showers for point in study.geant4] == [200, 200, 300, 200, 200]
    with open_plates(chain.bundled("tungsten-0.5.h5", chain.PLATES_SAMPLE)) as library:
        visible = library.read().visible
    assert study.geant4[-1].value == pytest.approx(visible.std(ddof=1) / visible.mean())
    assert [point.thickness for point in study.scan] == pytest.approx([0.1, 0.3, 0.5])
    thin, middle, thick = study.scan
    assert min(thin.value, thick.value) > middle.value
    mean, resolution = study.gradient.checks
    assert all(abs(c.ratio - 1) < 5 * c.ratio_error and c.known for c in mean.common.components)
    assert [c.name for c in resolution.common.components] == ["absorber", "active"]
    assert [point["quantity"] for point in written["points"]] == ["mean", "resolution"]
    assert written["resolution"]["geant4"][0]["showers"] == 200


def test_an_existing_folder_is_refused_first(tmp_path: Path) -> None:
    with pytest.raises(OutputExistsError):
        CliRunner().invoke(demo, ["-o", str(tmp_path)], catch_exceptions=False)
