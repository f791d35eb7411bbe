from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calograd.detector.material import MATERIALS
from calograd.errors import InputError, OutputExistsError
from calograd.evaluation import evaluate
from calograd.events.dense import Maps
from calograd.metrics.observables import MAP_OBSERVABLES, observe, pixels_as_cells
from calograd.reports.evaluation import write_report

P = 16


def made_up(n: int = 60, energies: tuple[float, ...] = (1.0, 50.0), seed: int = 0, scale: float = 1.0) -> Maps:
    """Gaussian showers with fluctuating energy, place and width in the window of 2.5 x 6 cm."""
    rng, total = np.random.default_rng(seed), n * len(energies)
    energy = np.tile(energies, n)
    x, z = (np.arange(P) + 0.5) / P - 0.5, (np.arange(P) + 0.5) / P
    width, depth = 0.08 * rng.normal(1, 0.03, total), 0.35 * rng.normal(1, 0.03, total)
    across = np.exp(-0.5 * (x[None] / width[:, None]) ** 2)
    along = np.exp(-0.5 * ((z[None] - depth[:, None]) / 0.15) ** 2)
    maps = across[:, :, None] * along[:, None, :]
    maps *= (scale * energy * rng.normal(0.95, 0.01, total) / maps.sum((1, 2)))[:, None, None]
    return Maps(
        maps.astype(np.float32), energy.astype(np.float32), np.full(total, 2.5, np.float32),
        np.full((total, 5), 6, np.float32), 5, np.arange(total), MATERIALS["PbF2"], "geant4",
    )  # fmt: skip


def test_observables_of_two_pixels_are_those_of_the_formulas() -> None:
    maps = np.zeros((2, P, P), np.float32)
    maps[0, 2, 3], maps[0, 10, 3] = 3, 1
    rows = made_up(1).rows(np.array([0, 1]))
    seen = observe(*pixels_as_cells(maps, rows.width, rows.depth))
    table = seen.map_table()
    size_x, size_z = 12.5 / P, 30 / P
    found = dict(zip(MAP_OBSERVABLES, table[0], strict=False))
    assert found["E_tot"] == 4
    assert found["x_mean"] == pytest.approx((3 * 2.5 + 10.5) / 4 * size_x - 6.25)
    assert found["sigma_y"] == pytest.approx(np.sqrt(3 / 16) * 8 * size_x)
    assert found["z_mean"] == pytest.approx(3.5 * size_z)
    assert found["sigma_z"] == pytest.approx(0, abs=1e-6)
    assert found["R_E"] == pytest.approx(found["sigma_y"])
    assert table[0, len(MAP_OBSERVABLES) :].tolist() == [0, 4, 0, 0, 0, 0, 0, 0]
    assert seen.kept.tolist() == [True, False]


def test_profiles_hold_the_energy() -> None:
    maps = made_up(20, (50.0,))
    profiles = evaluate(maps, made_up(20, (50.0,), seed=1)).points[0].profiles
    along, across = profiles["along"][0], profiles["across"][0]
    for profile in (along, across):
        assert (profile.mean * np.diff(profile.edges)).sum() == pytest.approx(maps.totals.mean(), rel=1e-5)
    assert (along.edges[0], along.edges[-1]) == (0, 30)
    assert (across.edges[0], across.edges[-1]) == (-6.25, 6.25)


def test_two_samples_of_one_law_agree_and_the_floor_says_how_well_they_can() -> None:
    result = evaluate(made_up(seed=1), made_up(seed=2))
    assert [p.point.energy for p in result.points] == [1, 50]
    for p in result.points:
        assert (len(p.generated), len(p.reference)) == (60, 60)
        for name in ("E_tot", "R_E", "sigma_y"):
            q = p.quantities[name]
            assert abs(q.bias) < 5 * q.bias_error
            assert q.rrmse == pytest.approx(q.rrmse_floor, rel=0.3)
            assert q.rrmse_floor == pytest.approx(2**0.5 * q.sigma_reference / q.mean_reference, rel=0.05)
    assert result.verdict == "all 3 limits kept"
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["points"][0]["quantities"]["x_mean"]["rrmse"] is None
    assert len(plain["points"][1]["profiles"]["along"]["generated"]["mean"]) == P


def test_a_bias_is_found() -> None:
    result = evaluate(made_up(seed=1, scale=0.97), made_up(seed=2))
    assert [(c.subject, c.where) for c in result.checks if c.significant] == [("E_tot", "2.5 x 6 cm, 50 GeV")]
    assert result.checks_of(result.points[0]) == []  # the limits hold from 10 GeV on
    assert result.verdict.startswith("1 of 3 limits missed, 1 beyond statistics")


def test_maps_without_energy_are_left_out_and_counted() -> None:
    ours = made_up(seed=1)
    ours.maps[1] = 0
    result = evaluate(ours, made_up(seed=2))
    point = result.points[1]
    assert (len(point.generated), len(point.reference)) == (59, 60)
    assert (point.excluded_generated, point.excluded_reference) == (1, 0)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"material": MATERIALS["BGO"]}, r"generated maps are in PbF2 \(7.77 g/cm3\), reference in BGO"),
        ({"maps": np.zeros((120, 8, 8), np.float32)}, "generated showers have 16 x 16 pixels, reference showers 8 x 8"),
        ({"n_xy": 3}, "generated showers have 5 cells across, reference showers 3"),
        ({"dx": np.full(120, 3, np.float32)}, "no point to compare"),
    ],
)
def test_what_cannot_be_compared(change: dict, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        evaluate(made_up(), replace(made_up(), **change))


def test_a_report_shows_every_design_and_escapes_what_files_are_called(tmp_path: Path) -> None:
    a, b = (
        replace(both, dx=np.where(np.arange(len(both)) % 4 < 2, both.dx, 3).astype(np.float32))
        for both in (made_up(seed=seed) for seed in (1, 2))
    )
    result = replace(evaluate(a, b), files={"generated": "<i>a</i>.h5", "reference": "b.h5"})
    path = tmp_path / "report.html"
    write_report(path, result)
    page = path.read_text()
    assert "<i>" not in page
    assert "&lt;i&gt;a&lt;/i&gt;.h5" in page
    assert page.count("<figure>") == 3 + 2 + 2 * 4  # of all designs, two of them of the resolution; of each design
    for design in ("2.5 x 6 cm", "3 x 6 cm"):
        assert f"<h3>{design} " in page
    bias = 100 * result.points[0].quantities["E_tot"].bias
    assert f">{bias:+.2f} ± " in page
    with pytest.raises(OutputExistsError, match=r"report\.html exists"):
        write_report(path, result)
