from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.hills import Hill, make_space, pair_of, parabola, peak, ridge, tilted
from scipy.optimize import minimize

from calograd.errors import FormatError, InputError, Interrupted
from calograd.gradients.estimates import SimulatedUtility, ValueAndGradient, seed_of
from calograd.io.toml import parse_table
from calograd.objective.constraints import TOLERANCE, Array
from calograd.objective.space import DesignSpace
from calograd.optimisation.ascent import Adaptation, Adapted, AscentConfig, ascend
from calograd.optimisation.state import State

START = {2: np.array([2.5, 6.0]), 6: np.array([2.5, 6.0, 6.0, 6.0, 6.0, 6.0])}


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """SIGINT is ignored where the tests were started in the background; here it raises."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def climb(hill: Hill, p: int = 2, space: DesignSpace | None = None, **settings: Any) -> State:
    return ascend(space or make_space(p), START[p], hill.gradient, AscentConfig(**settings))


def centre(p: int, seed: int = 0) -> Array:
    """Within the bounds of `make_space`, at 0.15 to 0.85 of them."""
    space = make_space(p).feasible
    return space.lower + np.random.default_rng(seed).uniform(0.15, 0.85, p) * (space.upper - space.lower)


def shapes(p: int) -> dict[str, tuple[Array, Hill]]:
    """Tops and hills, ill-conditioned, not concave, bent."""
    top = centre(p)
    hills = {
        "round": parabola(top, np.eye(p)),
        "long": parabola(top, tilted(p, 100)),
        "peak": peak(top, tilted(p, 10), width=0.5),
    }
    if p == 2:
        hills["ridge"] = ridge(top)
    return {name: (top, hill) for name, hill in hills.items()}


@pytest.mark.parametrize(("p", "shape"), [(p, shape) for p in (2, 6) for shape in shapes(p)])
def test_the_top_is_found(p: int, shape: str) -> None:
    top, hill = shapes(p)[shape]
    state = climb(hill, p, steps=60)
    assert state.reason.startswith("converged")
    np.testing.assert_allclose(state.u, top, atol=0.01)
    assert state.y == tuple(make_space(p).from_log(np.array(state.u)))
    assert len(state.history) <= 45
    assert max(np.linalg.norm(s.move) for s in state.history) <= 0.15 * (1 + 1e-9)


@pytest.mark.parametrize("p", [2, 6])
@pytest.mark.parametrize(
    "limits", [{"max_depth": 32.0}, {"max_volume": 4900.0}, {"max_depth": 36.0, "max_volume": 4800.0}, {}]
)
def test_the_best_allowed_design_is_found(p: int, limits: dict[str, float]) -> None:
    """The top is beyond a bound and beyond the budgets; scipy's answer is the reference."""
    space = make_space(p, **limits)
    top = np.log(np.r_[3.0, 17.0, np.linspace(7, 14, p - 2)])
    hill = parabola(top, tilted(p, 20))
    state = climb(hill, p, space, steps=60, tolerance=1e-4)
    feasible = space.feasible
    best = minimize(
        lambda u: -hill.function(u),
        np.log(START[p]),
        jac=lambda u: -hill.slope(u),
        method="SLSQP",
        bounds=list(zip(feasible.lower, feasible.upper, strict=True)),
        constraints=[{"type": "ineq", "fun": lambda u, b=b: -b.excess(u)} for b in space.budgets],
        options={"ftol": 1e-14, "maxiter": 500},
    )
    np.testing.assert_allclose(state.u, best.x, atol=2e-3)
    assert hill.function(np.array(state.u)) >= hill.function(best.x) - 1e-6
    assert space.active_constraints(np.array(state.u)) != ()
    assert state.history[-1].hits == space.active_constraints(np.array(state.u))
    for s in state.history:
        assert feasible.excess(np.array(s.u)) <= TOLERANCE
        assert (np.array(s.y) >= space.lower).all()
        assert (np.array(s.y) <= space.upper).all()


def test_a_start_in_a_corner_moves_along_the_bounds() -> None:
    """Nearly all of the gradient points out of the space."""
    hill = parabola(np.log([1e3, 9.0]), np.diag([100.0, 1.0]))
    state = ascend(make_space(2), np.array([5.0, 4.0]), hill.gradient, AscentConfig())
    np.testing.assert_allclose(state.y, [5, 9], rtol=0.01)
    assert len(state.history) < 20


def test_the_unit_of_the_utility_does_not_matter() -> None:
    states = [climb(parabola(centre(6), tilted(6, 30), unit=unit), 6) for unit in (1.0, 1e-9, 1e9)]
    for state in states[1:]:
        assert len(state.history) == len(states[0].history)
        for a, b in zip(state.history, states[0].history, strict=True):
            np.testing.assert_allclose(a.y, b.y, rtol=1e-4)


def test_noise_ends_the_ascent_near_the_top() -> None:
    losses = []
    for seed in range(10):
        hill = parabola(centre(6), tilted(6, 10), noise=0.5)
        state = climb(hill, 6, seed=seed)
        assert state.reason.startswith("within its noise: the next step would gain ")
        assert state.history[-1].outcome == "stopped"
        losses.append(hill.function(np.array(state.u)) / hill.function(np.log(START[6])))
    assert np.mean(losses) < 0.1


@pytest.mark.parametrize("p", [2, 6])
def test_pure_noise_is_not_followed(p: int) -> None:
    """At the top all that gradients say is noise: few ascents move, and none goes far."""
    moved, draws = [], []
    for seed in range(20):
        hill = parabola(np.log(START[p]), 1e-6 * np.eye(p), noise=1.0)
        state = climb(hill, p, seed=seed, steps=3, multi_start=0)
        moved.append(len(state.history) > 1)
        draws.append(state.history[0].draws)
    assert np.mean(moved) <= 0.2
    assert np.mean(draws) > 50


def test_draws_are_added_until_a_step_is_known_well_enough() -> None:
    hill = parabola(np.log([4.5, 14.0]), 3 * np.eye(2), noise=2.0)
    state = climb(hill, draws=4, max_draws=100, precision=0.2, multi_start=0)
    first = state.history[0]
    asked = [call for call in hill.calls if call[1] == hill.calls[0][1]]
    assert first.draws == sum(call[2] for call in asked) > 4
    assert max(s.draws for s in state.history) <= 64  # doubled, so never 100
    assert first.gradient_error == pytest.approx([2 * first.draws**-0.5] * 2)
    assert first.gain_error <= 0.2 * first.gain
    assert len({call[3] for call in hill.calls}) == len(hill.calls)  # every batch has its own seed
    estimates = [hill.gradient(np.array(y), draws, seed) for _, y, draws, seed in asked]
    mean = sum(call[2] * e.gradient for call, e in zip(asked, estimates, strict=True)) / first.draws
    np.testing.assert_allclose(first.gradient, mean)


def test_a_right_surrogate_is_confirmed_and_its_radius_grows() -> None:
    hill = parabola(np.log([1.2, 14.0]), np.eye(2), noise=0.01)
    config = AscentConfig(check_every=3, showers=500, radius=0.05, multi_start=0)
    state = ascend(make_space(2), START[2], hill.gradient, config, simulate_pair=hill.pair)
    checks = [s.check for s in state.history if s.check]
    assert len(checks) > 3
    assert all(check.agrees for check in checks)
    assert state.simulated == 500 * len(checks) == state.history[-1].simulated
    assert state.checked == state.u  # the end was checked too
    assert len({seed for kind, _, _, seed in hill.calls if kind == "simulate"}) == len(checks)  # showers of their own
    assert state.history[0].radius == 0.05
    assert state.radius > 0.06
    assert state.radius <= state.limit <= 0.1
    for s in state.history:
        assert (s.check is not None) == (s.number % 3 == 2 or s is state.history[-1])
    for check in checks:
        assert check.simulated == pytest.approx(check.predicted, abs=4 * np.hypot(check.simulated_error, 0.01))


def test_a_surrogate_of_the_wrong_sign_is_refused_until_nothing_is_left() -> None:
    surrogate = parabola(np.log([3.0, 9.0]), np.eye(2), sign=-1.0)
    truth = parabola(np.log([3.0, 9.0]), np.eye(2), noise=0.01)
    config = AscentConfig(check_every=2, showers=100)
    state = ascend(make_space(2), START[2], surrogate.gradient, config, simulate_pair=truth.pair)
    refused = [s for s in state.history if s.outcome == "refused"]
    assert state.reason == "simulated showers refused every step down to the tolerance of 0.003"
    assert state.y == pytest.approx(START[2])
    assert [s.check.agrees for s in refused if s.check] == [False] * len(refused)
    radii = [s.radius for s in refused]
    assert radii == pytest.approx([0.15 / 2**k for k in range(len(radii))])
    assert state.radius < 0.003 <= radii[-1]
    assert refused[0].reason == "simulated showers disagree; back to the last checked design"
    assert all(s.simulated <= state.simulated for s in state.history)


def test_an_end_that_simulated_showers_refuse_is_not_the_end() -> None:
    """The first check is where the surrogate has converged, in a corner."""
    surrogate = parabola(np.log([3.0, 9.0]), np.eye(2), sign=-1.0)
    truth = parabola(np.log([3.0, 9.0]), np.eye(2), noise=0.01)
    config = AscentConfig(check_every=1000, steps=200)
    state = ascend(make_space(2), START[2], surrogate.gradient, config, simulate_pair=truth.pair)
    first = next(s for s in state.history if s.check)
    assert first.y == pytest.approx((1, 4))
    assert (first.outcome, first.reason) == ("refused", "simulated showers disagree; back to the last checked design")
    assert state.history[first.number + 1].y == pytest.approx(START[2])
    assert state.y == pytest.approx(START[2])


def test_a_loss_is_refused_even_if_gains_are_not_three_deviations_apart() -> None:
    hill = parabola(np.log([4.5, 14.0]), np.eye(2))
    for deviations, outcome in ((-2.3, "refused"), (-1.7, "stopped")):
        state = ascend(
            make_space(2),
            START[2],
            hill.gradient,
            AscentConfig(steps=2),
            simulate_pair=lambda a, b, n, seed, d=deviations: SimulatedUtility(10.0 * d, 10.0, n),  # type: ignore[misc]
        )
        assert state.history[-1].outcome == outcome


def test_a_surrogate_that_promises_too_much_is_refused() -> None:
    """Three times the simulation's gain, and known well: the pull is large and the ratio is beyond two."""
    surrogate, truth = parabola(centre(2), 3 * np.eye(2)), parabola(centre(2), np.eye(2), noise=1e-3)
    state = ascend(make_space(2), START[2], surrogate.gradient, AscentConfig(), simulate_pair=truth.pair)
    check = next(s.check for s in state.history if s.check)
    assert check.predicted == pytest.approx(3 * check.simulated, rel=0.1)
    assert abs(check.pull) > 3
    assert not check.agrees
    vague = parabola(centre(2), np.eye(2), noise=300.0)
    state = ascend(make_space(2), START[2], surrogate.gradient, AscentConfig(), simulate_pair=vague.pair)
    assert all(s.check.agrees for s in state.history if s.check and s.check.simulated > -2 * s.check.simulated_error)


def test_a_surrogate_with_its_top_elsewhere_ends_where_simulated_showers_stop_gaining() -> None:
    """Its gradient is more than twice too large and soon wrong; what gained is kept, with a smaller radius."""
    surrogate, truth = parabola(np.log([4.0, 6.0]), np.eye(2)), parabola(np.log([3.0, 6.0]), np.eye(2), noise=1e-3)
    config = AscentConfig(check_every=1, showers=10)
    state = ascend(make_space(2), START[2], surrogate.gradient, config, simulate_pair=truth.pair)
    kept = [s for s in state.history if s.check and not s.check.agrees and s.check.gained]
    assert kept[0].reason == "simulated showers disagree; kept, as they gained"
    assert state.history[kept[0].number + 1].radius == pytest.approx(kept[0].radius / 2)
    assert np.linalg.norm(np.subtract(state.history[kept[0].number + 1].u, kept[0].u)) <= kept[0].radius / 2
    assert 2.8 < state.y[0] < 3.2


def test_a_step_that_lost_is_undone() -> None:
    top = np.log(START[2]) + np.array([0.1, 0.0])
    state = climb(parabola(top, np.eye(2)), radius=0.5, steps=60)
    undone = state.history[1]
    assert undone.outcome == "undone"
    assert undone.reason == "the last step lost; back before it"
    assert state.history[2].radius == pytest.approx(0.25)
    assert np.linalg.norm(np.subtract(state.history[2].u, state.history[0].u)) <= 0.25
    np.testing.assert_allclose(state.u, top, atol=0.01)


def test_a_step_over_a_narrow_peak_is_undone() -> None:
    """Its gradients say that it gained, its values that it lost."""
    top = np.log(START[2]) + np.array([0.1, 0.02])
    state = climb(peak(top, np.eye(2), width=0.02), radius=0.5, steps=60)
    assert state.history[1].outcome == "undone"
    np.testing.assert_allclose(state.u, top, atol=0.01)


FIRST, OTHER = np.log([2.5, 12.0]), np.log([2.0, 5.0])
"""Tops of two hills; the other one is higher."""


def two_hills(noise: float = 0.0, height: float = 2.0) -> Hill:
    """Gaussians in u, a narrow one beside one where `START` lies on."""

    def parts(u: Array) -> Array:
        return np.array([np.exp(-8 * (u - FIRST) @ (u - FIRST)), height * np.exp(-8 * (u - OTHER) @ (u - OTHER))])

    return Hill(
        lambda u: float(parts(u).sum()), lambda u: -16 * (parts(u) @ np.stack([u - FIRST, u - OTHER])), noise
    )  # fmt: skip


UPPER = np.array([2.6, 11.0])
"""A start on the lower hill."""


def jump(state: State) -> Any:
    """The step from one hill to the other."""
    (step,) = (s for s in state.history if s.outcome == "jumped")
    return step


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_a_better_hill_elsewhere_is_found(noise: float) -> None:
    hill = two_hills(noise)
    stays = ascend(make_space(2), UPPER, hill.gradient, AscentConfig(multi_start=0))
    np.testing.assert_allclose(stays.u, FIRST, atol=0.06)
    state = ascend(make_space(2), UPPER, hill.gradient, AscentConfig(steps=60))
    np.testing.assert_allclose(state.u, OTHER, atol=0.06)
    there = jump(state)
    assert there.reason.endswith("; on from a better design among 24 others")
    np.testing.assert_allclose(np.add(there.u, there.move), state.history[there.number + 1].u)
    assert [s.outcome for s in state.history].count("settled") == 1
    assert state.history[-1].outcome == "settled"
    assert "; better than dx = 2." in state.reason
    assert state.multi_started
    assert state.rival is None


def test_the_highest_hill_is_kept() -> None:
    hill = two_hills(height=0.5)
    state = ascend(make_space(2), UPPER, hill.gradient, AscentConfig())
    np.testing.assert_allclose(state.u, FIRST, atol=0.01)
    assert state.reason.endswith("; no better design among 24 others")
    assert [s.outcome for s in state.history[-2:]] == ["stopped", "stopped"]


@pytest.mark.parametrize(("height", "better"), [(2.0, True), (0.5, False)])
def test_simulated_showers_say_which_end_is_better(height: float, better: bool) -> None:
    """The surrogate believes in the other hill, which a simulation may find lower."""
    hill, truth = two_hills(0.01), two_hills(0.01, height)
    state = ascend(make_space(2), UPPER, hill.gradient, AscentConfig(steps=60), simulate_pair=truth.pair)
    np.testing.assert_allclose(state.u, OTHER if better else FIRST, atol=0.02)
    check = state.history[-1].check
    assert state.history[-1].outcome == "settled"
    assert check is not None
    np.testing.assert_allclose(np.log(check.y), FIRST, atol=0.02)
    assert check.predicted == pytest.approx(state.history[-1].gain) == pytest.approx(1.0, abs=0.05)
    assert check.simulated == pytest.approx(height - 1, abs=0.05)
    assert state.simulated == state.history[-1].simulated == sum(s.check.showers for s in state.history if s.check)
    assert ("better than dx = 2.5" in state.reason) == better
    assert ("back, as dx = 2." in state.reason) != better
    assert state.reason.endswith(f", by {check.simulated:.2g} +- {check.simulated_error:.2g}")


def test_what_settles_the_end_is_kept_in_the_budget() -> None:
    hill, states = two_hills(0.01), []

    def prepare(y: Array, state: State) -> Adapted:
        states.append(state)
        return Adapted(hill.gradient, "a")

    def within(budget: int) -> State:
        config = AscentConfig(steps=60, showers=100)
        return ascend(make_space(2), UPPER, Adaptation(prepare, budget, 100), config, simulate_pair=hill.pair)

    spent = jump(within(10_000)).simulated
    assert sum(bool(state.ending) for state in states) == 2
    enough = within(spent + 100)  # one check is left, and it is the last
    assert [s.number for s in enough.history if s.check and s.number > jump(enough).number] == [len(enough.history) - 1]
    assert enough.simulated == spent + 100
    short = within(spent + 99)
    assert short.reason.endswith("but no showers are left to check it")
    assert short.simulated == spent
    np.testing.assert_allclose(short.u, FIRST, atol=0.02)


def test_all_steps_are_within_their_number() -> None:
    """Also those of a multi-start and of settling the end, whenever the last step comes."""
    hill = two_hills()
    whole = ascend(make_space(2), UPPER, hill.gradient, AscentConfig(steps=60))
    first = jump(whole).number
    for steps in range(first, len(whole.history) + 1):
        state = ascend(make_space(2), UPPER, hill.gradient, AscentConfig(steps=steps))
        assert len(state.history) <= steps
        assert state.multi_started == (steps >= first + 3)
        assert (state.history[-1].outcome == "settled") == state.multi_started
        assert bool(state.reason)
        assert state.rival is None


def test_the_last_step_is_the_end() -> None:
    state = climb(parabola(centre(6), tilted(6, 100)), 6, steps=3)
    assert state.reason == "the last of 3 steps"
    assert len(state.history) == 3
    assert state.u == state.history[-1].u


def test_two_simulations_make_a_pair_on_the_same_showers() -> None:
    hill = parabola(centre(2), np.eye(2), noise=0.1)
    ascend(make_space(2), START[2], hill.gradient, AscentConfig(showers=50), simulate_pair=pair_of(hill.simulate))
    asked = [call for call in hill.calls if call[0] == "simulate"]
    assert len(asked) >= 2
    for a, b in zip(asked[::2], asked[1::2], strict=True):
        assert a[1] != b[1]
        assert a[2:] == b[2:]
    found = pair_of(hill.simulate)(START[2], np.array([3.0, 9.0]), 4, 7)
    difference = hill.function(np.log([3.0, 9.0])) - hill.function(np.log(START[2]))
    assert found == (pytest.approx(difference), pytest.approx(0.05 * 2**0.5), 8)


def test_any_object_with_the_attributes_of_an_estimate_will_do() -> None:
    hill = parabola(centre(2), np.eye(2))

    def gradient(y: Array, draws: int, seed: int) -> SimpleNamespace:
        return SimpleNamespace(**hill.gradient(y, draws, seed)._asdict(), names=("dx", "dz"))

    state = ascend(make_space(2), START[2], gradient, AscentConfig())
    assert state.reason.startswith("converged")


def test_the_same_seed_gives_the_same_ascent_another_seed_another() -> None:
    states = [climb(parabola(centre(2), np.eye(2), noise=1.0), seed=seed) for seed in (3, 3, 4)]
    assert states[0] == states[1]
    assert states[0].history[0].gradient != states[2].history[0].gradient
    assert seed_of(1, 2) != seed_of(2, 1)


class Counted:
    """A gradient and a simulation, with its top elsewhere, that are interrupted at a certain call."""

    def __init__(self, hill: Hill, at: int, how: Callable[[], None]) -> None:
        self.hill, self.at, self.how, self.calls = hill, at, how, 0

    def gradient(self, y: Array, draws: int, seed: int) -> ValueAndGradient:
        self.count()
        return self.hill.gradient(y, draws, seed)

    def pair(self, a: Array, b: Array, showers: int, seed: int) -> SimulatedUtility:
        self.count()
        return parabola(np.log([2.2, 6.1]), np.eye(2), noise=0.01).pair(a, b, showers, seed)

    def count(self) -> None:
        self.calls += 1
        if self.calls == self.at:
            self.how()


class KilledError(BaseException):
    pass


def kill() -> None:
    raise KilledError


def watched(counted: Counted, output: Path | None) -> State:
    config = AscentConfig(check_every=2, showers=20, draws=4, steps=8)
    space = make_space(2, max_depth=42.0)
    return ascend(space, START[2], counted.gradient, config, simulate_pair=counted.pair, output=output)


def test_an_ascent_that_is_stopped_anywhere_ends_with_the_same_bytes(tmp_path: Path) -> None:
    hill = parabola(np.log([1.3, 14.0]), tilted(2, 10), noise=3.0)
    whole = Counted(hill, 0, kill)
    state = watched(whole, tmp_path / "whole.json")
    content = (tmp_path / "whole.json").read_bytes()
    assert {s.outcome for s in state.history} >= {"moved", "refused"}
    assert {s.draws for s in state.history} > {4}
    for call in range(1, whole.calls + 1):
        output = tmp_path / f"{call}.json"
        if call % 2:
            with pytest.raises(Interrupted, match=r"\.json holds the ascent so far; the same command resumes it"):
                watched(Counted(hill, call, lambda: signal.raise_signal(signal.SIGINT)), output)
        else:
            with pytest.raises(KilledError):
                watched(Counted(hill, call, kill), output)
        assert watched(Counted(hill, 0, kill), output) == state
        assert output.read_bytes() == content


def test_without_an_output_ctrl_c_is_ctrl_c() -> None:
    with pytest.raises(KeyboardInterrupt):
        watched(Counted(parabola(centre(2), np.eye(2)), 2, lambda: signal.raise_signal(signal.SIGINT)), None)


def test_a_finished_ascent_asks_nothing_more(tmp_path: Path) -> None:
    hill = parabola(centre(2), np.eye(2))
    seen: list[int] = []
    arguments: dict[str, Any] = {"output": tmp_path / "d.json", "on_step": lambda s: seen.append(s.number)}
    first = ascend(make_space(2), START[2], hill.gradient, AscentConfig(), **arguments)
    calls = len(hill.calls)
    assert seen == list(range(len(first.history)))
    assert ascend(make_space(2), START[2], hill.gradient, AscentConfig(), **arguments) == first
    assert len(hill.calls) == calls
    assert json.loads((tmp_path / "d.json").read_text())["schema"] == "calograd/ascent/1"


def test_an_output_of_another_setting_is_refused(tmp_path: Path) -> None:
    hill, output = parabola(centre(2), np.eye(2)), tmp_path / "d.json"
    ascend(make_space(2), START[2], hill.gradient, AscentConfig(steps=2), output=output)
    calls = len(hill.calls)
    for space, start, config, complaint in (
        (make_space(2), START[2], AscentConfig(steps=3), "steps is 3, was 2; change it back or choose another output"),
        (make_space(2, max_depth=50), START[2], AscentConfig(steps=2), "space is "),
        (make_space(2), START[2] * 1.1, AscentConfig(steps=2), "start is "),
    ):
        with pytest.raises(InputError, match=complaint):
            ascend(space, start, hill.gradient, config, output=output)
    with pytest.raises(InputError, match="checks is True, was False"):
        ascend(
            make_space(2),
            START[2],
            hill.gradient,
            AscentConfig(steps=2),
            simulate_pair=pair_of(hill.simulate),
            output=output,
        )
    assert len(hill.calls) == calls


def test_an_adapted_surrogate_leads_to_the_top_of_the_detector() -> None:
    """The base's top is elsewhere; the third adapter is right, and what is said before is asked again."""
    wrong, right = parabola(centre(2, 1), tilted(2, 10)), parabola(centre(2), tilted(2, 10))
    asked: list[tuple[int, Array]] = []

    def prepare(y: Array, state: State) -> Adapted:
        number = len(state.history)
        hill = wrong if number < 2 else right

        def gradient(at: Array, draws: int, seed: int) -> ValueAndGradient:
            asked.append((number, at))
            return hill.gradient(at, draws, seed)

        return Adapted(gradient, f"adapter {min(number, 2)}", 10 if number < 3 else 0)

    state = ascend(make_space(2), START[2], Adaptation(prepare, 30, 0), AscentConfig(steps=60))
    np.testing.assert_allclose(state.u, centre(2), atol=0.01)
    assert [step.adaptation for step in state.history[:4]] == [10, 10, 10, 0]
    assert [step.adapter for step in state.history[:4]] == ["adapter 0", "adapter 1", "adapter 2", "adapter 2"]
    assert state.simulated == state.history[2].simulated == 30
    for number in (1, 2):
        np.testing.assert_allclose(next(at for n, at in asked if n == number), state.history[number - 1].y)
    assert [sum(n == number for n, _ in asked) for number in range(4)] == [1, 2, 2, 1]


def test_no_check_goes_beyond_the_budget() -> None:
    hill = parabola(centre(2), tilted(2, 10))
    found = []
    for budget in (130, 129, 29):
        way = Adaptation(lambda y, state: Adapted(hill.gradient, "a", 0 if state.history else 30), budget, 100)
        config = AscentConfig(showers=100, check_every=2)
        state = ascend(make_space(2), START[2], way, config, simulate_pair=hill.pair)
        found.append((state.simulated, sum(step.check is not None for step in state.history)))
    assert found == [(130, 1), (30, 0), (30, 0)]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"schema": "calograd/ascent/1"}', b"\xff", b'{"schema": "calograd/cells/1"}']
)
def test_a_damaged_output_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "d.json").write_bytes(content)
    with pytest.raises(FormatError, match=r"d\.json (is damaged|has schema)"):
        ascend(
            make_space(2),
            START[2],
            parabola(centre(2), np.eye(2)).gradient,
            AscentConfig(),
            output=tmp_path / "d.json",
        )


def test_a_state_that_lacks_something_is_damaged(tmp_path: Path) -> None:
    hill, output = parabola(centre(2), np.eye(2)), tmp_path / "d.json"
    ascend(make_space(2), START[2], hill.gradient, AscentConfig(), output=output)
    content = json.loads(output.read_text())
    del content["state"]["radius"], content["digest"]
    output.write_text(json.dumps(content))
    with pytest.raises(FormatError, match=r"is damaged \(Field required\); remove it to start anew"):
        ascend(make_space(2), START[2], hill.gradient, AscentConfig(), output=output)


def test_a_number_that_has_changed_is_noticed(tmp_path: Path) -> None:
    hill, output = parabola(centre(2), np.eye(2)), tmp_path / "d.json"
    ascend(make_space(2), START[2], hill.gradient, AscentConfig(), output=output)
    content = json.loads(output.read_text())
    content["state"]["history"][0]["value"] += 1e-9
    output.write_text(json.dumps(content))
    with pytest.raises(FormatError, match=r"d\.json is damaged \(its contents do not fit its digest\)"):
        ascend(make_space(2), START[2], hill.gradient, AscentConfig(), output=output)
    del content["digest"]  # as files of before there was one
    output.write_text(json.dumps(content))
    assert ascend(make_space(2), START[2], hill.gradient, AscentConfig(), output=output).reason


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    hill = parabola(centre(2), np.eye(2))
    with pytest.raises(InputError, match="cannot be written: No such file or directory"):
        ascend(make_space(2), START[2], hill.gradient, AscentConfig(), output=tmp_path / "none" / "d.json")
    assert hill.calls == []


def test_what_cannot_be_met_is_refused_before_any_work(tmp_path: Path) -> None:
    hill = parabola(centre(2), np.eye(2))
    for space, start, complaint in (
        (make_space(2, max_depth=19), START[2], "max_depth = 19 cm cannot be met"),
        (make_space(2), np.array([9.0, 6.0]), "dx = 9 cm is outside of its bounds"),
        (make_space(2, max_volume=900), START[2], "above max_volume = 900 cm3"),
    ):
        with pytest.raises(InputError, match=complaint):
            ascend(space, start, hill.gradient, AscentConfig(), output=tmp_path / "d.json")
    assert hill.calls == []
    assert not (tmp_path / "d.json").exists()


@pytest.mark.parametrize("wrong", [{"value": np.nan}, {"gradient": np.array([1.0, np.inf])}, {"gradient": np.ones(3)}])
def test_gradients_that_cannot_be_used_are_named(wrong: dict[str, Any]) -> None:
    right = ValueAndGradient(1.0, 0.1, np.ones(2), np.ones(2))
    with pytest.raises(
        InputError, match=r"the gradient at dx = 2\.5 cm, dz = 6 cm is not 2 finite numbers with errors"
    ):
        ascend(make_space(2), START[2], lambda y, draws, seed: right._replace(**wrong), AscentConfig())


def test_simulations_that_cannot_be_used_are_named() -> None:
    hill = parabola(centre(2), np.eye(2))
    with pytest.raises(InputError, match="the simulated gain is nan"):
        ascend(
            make_space(2),
            START[2],
            hill.gradient,
            AscentConfig(),
            simulate_pair=lambda a, b, n, seed: SimulatedUtility(np.nan, 1.0, n),
        )


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"step": 3}, "unknown key 'step'; did you mean 'steps'?"),
        ({"steps": 0}, "steps: Input should be greater than 0"),
        ({"max_draws": 4}, "max_draws = 4 is below draws = 8"),
        ({"tolerance": 0.2}, "tolerance = 0.2 is not below radius = 0.15"),
        ({"draws": 1}, "draws: Input should be greater than 1"),
    ],
)
def test_configurations_that_do_not_fit(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError) as refusal:
        parse_table(AscentConfig, change, "run.toml")
    assert str(refusal.value).startswith("run.toml: ")
    assert complaint in str(refusal.value)
