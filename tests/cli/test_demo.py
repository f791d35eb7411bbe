from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.tiny import tiny_surrogate_of_particles

from calograd.cli.demo import demo
from calograd.demo import chain
from calograd.demo.page import write_page
from calograd.detector.material import Material
from calograd.errors import OutputExistsError
from calograd.events.dense import Cells, write_cells
from calograd.surrogate import Surrogate
from calograd.surrogate.generation import draw_incidence, generate


def test_the_chain_in_small(tiny: str, tmp_path: Path, make_cells: Callable[..., Cells], neighbours: Cells) -> None:
    rng = np.random.default_rng(1)
    sizes = np.repeat([1.0, 2.5], 90), np.repeat([5.0, 6.0], 90)
    drawn = np.exp(rng.uniform(np.log(0.95), np.log(5.05), 300)), np.exp(rng.uniform(np.log(3.9), np.log(15.2), 300))
    energies = np.exp(rng.uniform(0, np.log(100), 300)).tolist()
    write_cells(tmp_path / "training.h5", make_cells(energies, *drawn, seed=2))
    other = Material.parse("PbWO4")
    learn = replace(make_cells(energies, *drawn, seed=3), material=other)
    write_cells(tmp_path / "learn.h5", learn)
    judge = replace(make_cells([1, 10], np.full(60, 2.5), np.full(60, 6.0)), material=other)
    reference = make_cells([1, 10, 100], *sizes)
    anywhere, pitch = tiny_surrogate_of_particles(), np.full(120, 1.3)
    incident = draw_incidence(pitch, position="uniform", theta=20.0, phi=(0.0, 360.0))
    entries = generate(anywhere, np.repeat([5.0, 50.0], 60), pitch, np.full((120, 5), 3.7), incident=incident, n_xy=7)
    showers = chain.BundledShowers(
        reference, entries, neighbours, tmp_path / "training.h5", tmp_path / "learn.h5", judge
    )
    folder = tmp_path / "demo"
    stages = set()
    result = chain.run(
        folder, Surrogate.load(tiny), anywhere, showers, chain.QUICK, student=Surrogate.load(chain.STUDENT),
        geant4=(None, "no tables"),
        progress=lambda stage, done, total: stages.add(stage),
    )  # fmt: skip
    write_page(folder / "report.html", result)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") >= 10
    assert "://" not in page
    assert {p.name for p in folder.iterdir()} == {
        "benchmark.json", "evaluation.json", "generated.h5", "gradients.json", "off-axis.h5", "off-axis.json", "pbwo4",
        "report.html", "training",
    }  # fmt: skip
    assert {t.who for t in result.benchmark.surrogates} == {result.surrogate.card.name, "pbf2-cells-fast"}
    assert f"a shower on one thread, {result.headline().best.who} in batches of " in page
    assert len(result.evaluation.points) == 6
    assert [p.point.energy for p in result.anywhere.points] == [5, 50]
    assert all(p.reconstruction is not None for p in result.anywhere.points)
    assert "entry: largest difference of bias" in page
    assert result.log[-1]["step"] == 60
    assert result.adaptation.material == "PbWO4"
    assert set(result.adaptation.before) == set(result.adaptation.after)
    assert {point.energy for point in result.adaptation.after} == {1.0, 10.0}
    assert json.loads((folder / "evaluation.json").read_text())["points"]
    assert {"sample", "points", "diffusion", "gradients", "optimisation"} <= stages
    with pytest.raises(OutputExistsError):
        chain.run(folder, result.surrogate, anywhere, showers, chain.QUICK)


def test_an_existing_folder_is_refused_first(tmp_path: Path) -> None:
    with pytest.raises(OutputExistsError):
        CliRunner().invoke(demo, ["-o", str(tmp_path)], catch_exceptions=False)


@pytest.mark.skipif(
    not (Path(chain.__file__).parents[1] / "assets" / chain.SAMPLE / "reference.h5").is_file(),
    reason="no bundled sample",
)
def test_the_bundled_data_carry_the_quick_demo(tmp_path: Path) -> None:
    result = CliRunner().invoke(demo, ["--quick", "-o", str(tmp_path / "demo")], catch_exceptions=False)
    assert result.exit_code == 0
    assert (tmp_path / "demo" / "report.html").stat().st_size > 100_000
