"""Adaptation along an ascent, with made-up showers in place of Geant4's; the real thing once, as a user runs it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.geometries import in_geometry, made_up_geometry
from helpers.toy_library import write_toy_library
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calograd.detector.configuration import CrystalMatrix, SimulationConfig
from calograd.errors import InputError
from calograd.events.library.schema import Provenance, pack
from calograd.events.ragged import Showers
from calograd.optimisation import target as target_module
from calograd.optimisation.adaptive import SHOWERS, AdaptiveSurrogate
from calograd.optimisation.run import CellSetup, OptimisationResult, parse_optimisation
from calograd.optimisation.setup import STATE
from calograd.optimisation.state import State
from calograd.reports.optimisation import write_optimisation_report
from calograd.surrogate import Surrogate
from calograd.surrogate.adapters import Adapter

DEPOSITS = 400


def made_up_showers(config: SimulationConfig, n: int, apart: float = 0.0) -> Showers:
    """Showers that follow from the seed alone; in denser stuff they are shorter.

    With ``apart`` every shower of every seed has an energy of its own, by which its rows are known.
    """
    rng = np.random.default_rng(config.seed)
    detector = config.detector
    energy = np.resize(np.float32(config.beam.energies.values), n)
    energy += np.float32(apart * (np.arange(n) + 100 * config.seed))
    share = rng.gamma(1.0, size=(n, DEPOSITS))
    share *= (0.95 * energy / share.sum(1))[:, None]
    across = rng.normal(0, 2.0, (2, n, DEPOSITS))
    along = rng.gamma(4.0, 16.0 / detector.material.density, (n, DEPOSITS))  # type: ignore[union-attr]
    return Showers(
        x=across[0].ravel().astype(np.float32), y=across[1].ravel().astype(np.float32),
        z=along.ravel().astype(np.float32), e=share.ravel().astype(np.float32),
        offsets=np.arange(0, n * DEPOSITS + 1, DEPOSITS), energy=energy, index=np.arange(n), seed=np.arange(n),
    )  # fmt: skip


class Simulator:
    """Stands for `simulate_library`; knows what it was asked for, and may be killed at a call."""

    def __init__(self) -> None:
        self.calls: list[tuple[Path, SimulationConfig, int]] = []
        self.killed_at = -1

    def __call__(self, path: Path, config: SimulationConfig, showers: int, **_: Any) -> None:
        if len(self.calls) == self.killed_at:
            self.killed_at = -1
            raise Killed
        self.calls.append((path, config, showers))
        path.write_bytes(pack(made_up_showers(config, showers), Provenance(config, "11.4.1", "none")))


class Killed(BaseException):
    """What nothing catches."""


@pytest.fixture
def simulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    made = Simulator()
    monkeypatch.setattr(target_module, "simulate_library", made)
    return made


def raw(**adapt: Any) -> dict[str, Any]:
    few = {"first": 12, "showers": 4, "designs": 3, "steps": 12, "later_steps": 6, "rank": 2, "validation": 0.25}
    return {
        "space": {
            "parameters": ["dx", "dz"], "start": {"dx": 2.5, "dz": 7.0},
            "bounds": {"dx": [1.0, 5.0], "dz": [4.0, 15.0]},
        },
        "utility": {"kind": "squared-error", "truth": "incident"},
        "spectrum": {"energies": [10, 50]},
        "gradient": {"showers": 20, "steps": 2},
        "ascent": {"steps": 4, "draws": 2, "max_draws": 2, "check_every": 2, "tolerance": 1e-4, "showers": 5},
        "check": {"simulate": True, "replicas": 2},
        "adapt": {"budget": 100, "detector": {"kind": "block", "material": "PbWO4"}} | few | adapt,
    }  # fmt: skip


def setup_of(surrogate: Surrogate, changes: dict[str, Any] | None = None, **adapt: Any) -> CellSetup:
    return CellSetup.of(surrogate, parse_optimisation(raw(**adapt) | (changes or {}), "test.toml", Path()), adapt=True)


def run(setup: CellSetup, folder: Path, **options: Any) -> State:
    return setup.run(folder, setup.simulated(folder / "showers"), **options)


def follower_of(surrogate: Surrogate, folder: Path, **adapt: Any) -> AdaptiveSurrogate:
    return setup_of(surrogate, **adapt).follower(folder)


def test_every_step_is_adapted_until_the_budget_is_used_up(
    surrogate: Surrogate, simulator: Simulator, tmp_path: Path
) -> None:
    weights = {name: value.clone() for name, value in surrogate.model.state_dict().items()}
    setup = setup_of(surrogate, budget=24 + 8 + 10 + 8)
    state = run(setup, tmp_path / "run")
    history = state.history
    adapted = [step for step in history if step.adaptation]
    assert [step.adaptation for step in adapted[:2]] == [24, 8]
    assert state.simulated == sum(n for _, _, n in simulator.calls) <= 50
    assert state.simulated == sum(s.adaptation + (s.check.showers if s.check else 0) for s in history)
    assert all(config.detector.material.name == "PbWO4" for _, config, _ in simulator.calls)  # type: ignore[union-attr]
    assert len({config.seed for _, config, _ in simulator.calls}) == len(simulator.calls)
    before: Adapter | None = None
    for step in history:
        if not step.adaptation:
            assert step.adapter == history[step.number - 1].adapter
            continue
        assert step.adapter == f"adapters/step-{step.number:03d}"
        adapter = Adapter.load(tmp_path / "run" / step.adapter)
        assert adapter.card.training.get("start") == (before.identity() if before else None)
        assert adapter.card.training["showers"] == sum(s.adaptation for s in history[: step.number + 1])
        card = surrogate.with_adapter(adapter).card
        assert card.in_cm(card.designs.material) == surrogate.card.in_cm(surrogate.card.designs.material)
        assert card.designs.material.name == "PbWO4"
        before = adapter
    assert any(not step.adaptation for step in history) or len(history) < 4
    for name, value in surrogate.model.state_dict().items():
        assert torch.equal(value, weights[name])
    stored = json.loads((tmp_path / "run" / STATE).read_text())["state"]["history"]
    assert [step["adapter"] for step in stored] == [step.adapter for step in history]
    write_optimisation_report(tmp_path / "report.html", OptimisationResult(setup, state))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "of them to adapt the surrogate" in page
    assert str(adapted[1].adapter) in page


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, surrogate: Surrogate) -> tuple[Path, State, Simulator]:
    """A run that nothing interrupts: its folder, its end and its simulations."""
    folder, made = tmp_path_factory.mktemp("whole"), Simulator()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target_module, "simulate_library", made)
        return folder, run(setup_of(surrogate), folder), made


def test_a_run_killed_anywhere_ends_with_the_same_numbers(
    surrogate: Surrogate, simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    whole: tuple[Path, State, Simulator],
) -> None:  # fmt: skip
    """Killed at five places of its first two steps, and resumed after each."""
    folder, end, uninterrupted = whole
    checks = [number for number, (path, _, _) in enumerate(uninterrupted.calls) if path.parent.name == "showers"]
    calls = {"first showers": 0, "later showers": 1, "a check": checks[0]}
    places = ["first showers", "later showers", "learning", "a check", "before the step is kept"]
    first_written: dict[Path, int] = {}

    def killed(*_: Any) -> None:
        raise Killed

    for where in places:

        def tell(stage: str, done: int, total: int | None, where: str = where) -> None:
            if where == "learning" and stage.endswith(", diffusion") and not stage.startswith("step 0,"):
                raise Killed

        simulator.killed_at = calls.get(where, -1)
        with monkeypatch.context() as patch:
            if where == places[-1]:
                patch.setattr("calograd.optimisation.ascent.write_state", killed)
            with pytest.raises(Killed):
                run(setup_of(surrogate), tmp_path, progress=tell)
        first_written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.h5")} | first_written
    assert run(setup_of(surrogate), tmp_path) == end
    assert len(simulator.calls) == len(uninterrupted.calls)  # nothing was simulated twice
    assert all(path.stat().st_mtime_ns == at for path, at in first_written.items())
    for step in end.history:
        a, b = (Adapter.load(each / step.adapter) for each in (folder, tmp_path))
        assert a.identity() == b.identity()


def test_the_seed_rules_what_is_drawn(surrogate: Surrogate, simulator: Simulator, tmp_path: Path) -> None:
    y = np.array([2.5, 7.0])
    used = [follower_of(surrogate, tmp_path / str(k), seed=seed).at(y, ()) for k, seed in enumerate((0, 0, 1))]
    identities = [each.surrogate.identity for each in used]
    assert identities[0] == identities[1] != identities[2]
    assert [each.showers for each in used] == [24] * 3


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(u=st.tuples(st.floats(0, np.log(5)), st.floats(np.log(4), np.log(15))), number=st.integers(1, 50))
def test_showers_are_measured_around_the_design(
    surrogate: Surrogate, tmp_path_factory: pytest.TempPathFactory, make_config: Callable[..., SimulationConfig],
    u: tuple[float, float], number: int,
) -> None:  # fmt: skip
    """Within reach, within the base's range, every shower at its own; nobody held out is ever learnt from."""
    folder = tmp_path_factory.mktemp("run")
    config = make_config(10.0, 50.0, material="PbWO4")
    for step, n in ((0, 24), (number, 8)):
        path = folder / f"adapters/step-{step:03d}" / SHOWERS
        path.parent.mkdir(parents=True)
        config = config.model_copy(update={"seed": step})
        path.write_bytes(pack(made_up_showers(config, n, 1e-3), Provenance(config, "11.4.1", "none")))
    follower, y = follower_of(surrogate, folder), np.exp(u)
    first, both = follower.data(y, 0, [0]), follower.data(y, number, [0, number])
    for data, showers, held in ((first, 24, 6), (both, 32, 8)):
        assert (data.showers, data.held_out) == (showers, held)
        assert (len(data.train), len(data.validation)) == (3 * (showers - held), 3 * held)
        for values, at, (low, high) in (
            (data.train.dx, y[0], surrogate.card.designs.dx), (data.train.dz[:, 0], y[1], surrogate.card.designs.dz)
        ):  # fmt: skip
            assert bool((np.abs(np.log(values.numpy() / at)) <= 0.15 + 1e-6).all())
            assert low * (1 - 1e-6) <= float(values.min()) <= float(values.max()) <= high * (1 + 1e-6)
        assert len(np.unique(data.train.dz[:, 0])) > 0.9 * len(data.train)
        assert bool((data.train.dz[:, 0] == data.train.dz[:, 1]).all())
    learnt, judged = ({float(e) for e in part.energy} for part in (both.train, both.validation))
    assert not learnt & judged
    assert learnt >= {float(e) for e in first.train.energy}
    assert judged >= {float(e) for e in first.validation.energy}


def test_a_matrix_keeps_its_cells_and_pays_for_every_design(
    surrogate: Surrogate, simulator: Simulator, tmp_path: Path
) -> None:
    detector = {"kind": "matrix", "material": "PbF2", "gap": 0.05}
    setup = setup_of(surrogate, detector=detector, first=16)
    state = run(setup, tmp_path / "run")
    steps = {step.adapter: step.y for step in state.history if step.adaptation}
    for path, config, _ in simulator.calls:
        assert isinstance(config.detector, CrystalMatrix)
        assert (config.detector.gap, config.detector.n_xy) == (0.05, 3)
        if path.name == SHOWERS:
            y = steps[f"adapters/{path.parent.name}"]
            assert (config.detector.dx, *config.detector.dz) == pytest.approx((y[0], y[1], y[1]))
    checks = [step.check for step in state.history if step.check is not None]
    assert all(check.showers == 20 for check in checks)  # 5 of two energies at two designs
    assert len([path for path, _, _ in simulator.calls if path.parent.name == "showers"]) == 2 * len(checks) > 0
    data = setup.follower(tmp_path / "run").data(np.array([2.5, 7.0]), 1, [0, 1])
    assert sorted({round(float(v), 4) for v in data.train.dx}) == sorted(
        {round(step.y[0], 4) for step in state.history[:2]}
    )
    adapted = setup.surrogate.with_adapter(tmp_path / "run" / state.history[-1].adapter)
    assert adapted.card.designs.mode == "crystal matrix"


def test_one_depth_a_layer(surrogate: Surrogate, simulator: Simulator, tmp_path: Path) -> None:
    space = raw()["space"] | {
        "parameters": ["dx", "dz_1", "dz_2"], "start": {"dx": 2.5, "dz_1": 5.0, "dz_2": 9.0}
    }  # fmt: skip
    follower = setup_of(surrogate, {"space": space}).follower(tmp_path)
    y = np.array([2.5, 5.0, 9.0])
    assert follower.at(y, ()).adapter == "adapters/step-000"
    rows = follower.data(y, 0, [0]).train
    ratio = torch.cat([rows.dx[:, None], rows.dz], dim=1).numpy() / y
    assert (np.abs(np.log(ratio)) <= 0.15 + 1e-6).all()
    assert np.abs(np.corrcoef(np.log(ratio).T) - np.eye(3)).max() < 0.5


@pytest.mark.parametrize(
    ("adapt", "complaint"),
    [
        ({"budgt": 3}, "unknown key 'adapt.budgt'; did you mean 'budget'?"),
        ({"detector": {"kind": "matrix", "gab": 1}}, "unknown key 'adapt.detector.gab'; did you mean 'gap'?"),
        ({"beam": {"particle": "mu-"}}, "adapt.beam.particle: Input should be 'gamma', 'e-' or 'e\\+'"),
        ({"beam": {"position": "uniform"}}, "beam.position = uniform: an adaptation is to one beam; expected x and y"),
        ({"beam": {"phi": [0, 90]}}, r"beam.phi = \(0.0, 90.0\): an adaptation is to one beam; expected one angle"),
        ({"beam": {"unit": "pitch"}}, "beam.unit = pitch: an adaptation is to one beam; expected cm"),
        ({"budget": 23}, "adapt.budget = 23 does not pay for the first adaptation: adapt.first = 12 showers of 2 ener"),
        ({"first": 9}, "adapt.first = 9 of 2 energies: 18 showers, 4 of them held out, are too few; expected 20 or"),
        ({"energies": [0.5, 200]}, "adapt.energies: 0.5, 200 GeV are outside of 1 to 100 GeV, which small was trained"),
        ({"detector": {"kind": "block", "material": "PbWO5"}}, "unknown material 'PbWO5'"),
        (
            {"detector": {"kind": "matrix", "gap": 1.0}},
            "adapt.detector.gap = 1 cm leaves no room for crystals in cells",
        ),
    ],
)
def test_adaptations_that_cannot_be(surrogate: Surrogate, adapt: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as refusal:
        setup_of(surrogate, **adapt)
    assert "\n" not in str(refusal.value)


def test_the_table_and_the_flag_go_together(surrogate: Surrogate) -> None:
    config = parse_optimisation(raw(), "test.toml", Path())
    with pytest.raises(
        InputError, match=r"the configuration has a table \[adapt\]; add --adapt to follow it, or remove"
    ):
        CellSetup.of(surrogate, config)
    with pytest.raises(InputError, match=r"adaptation needs a table \[adapt\]"):
        CellSetup.of(surrogate, config.model_copy(update={"adapt": None}), adapt=True)


def test_checks_are_of_the_target(surrogate: Surrogate, library: Path, tmp_path: Path) -> None:
    """The library is of photons in PbF2."""
    check = {"check": {"library": str(library)}}
    for adapt, complaint in (
        ({}, "library.h5 is of PbF2, adapt.detector of PbWO4"),
        ({"detector": {"kind": "block"}, "beam": {"theta": 20.0}}, r"has theta 0\.0, adapt.beam 20\.0; choose showers"),
        ({"detector": {"kind": "matrix"}, "first": 20}, "is of no crystal matrix as adapt.detector is; use simulate"),
    ):
        with pytest.raises(InputError, match=complaint):
            setup_of(surrogate, check, **adapt).simulated(tmp_path)
    others = write_toy_library(tmp_path / "others.h5", in_geometry(made_up_geometry(tmp_path)))
    with pytest.raises(InputError, match=r"is of the geometry made_up\.gdml, adapt\.detector is a block"):
        setup_of(surrogate, {"check": {"library": str(others)}}, detector={"kind": "block"}).simulated(tmp_path)
    trials = setup_of(surrogate, check, detector={"kind": "block"}).simulated(tmp_path)
    assert trials is not None
    assert trials.price(5) == 10
