"""The page without a browser: what it shows, what it keeps, and that it escapes what a file contains."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("panel", reason="Panel is not installed (extra explore)")
pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra explore)")

from calograd.errors import FormatError, InputError
from calograd.events.dense import read_cells
from calograd.explorer import explore
from calograd.explorer.page import DOWNLOADS, Page
from calograd.explorer.serve import has_display, read_trajectory, serve
from calograd.explorer.views import Explorer
from calograd.gradients.autodiff import surrogate_gradient
from calograd.gradients.estimates import GradientEstimate
from calograd.optimisation.ascent import AscentConfig, ascend

Finish = Callable[[Page], None]
Wait = Callable[[Page, Callable[[], object]], None]


@pytest.fixture
def page(tiny: Explorer, make_page: Callable[[Explorer], Page]) -> Page:
    """One that has shown everything."""
    return make_page(tiny)


def test_it_shows_what_was_computed(page: Page) -> None:
    assert page.view is not None
    assert page.view.complete
    assert page.slope is not None
    assert page.surface is not None
    assert f"{float(page.view.observables.E_tot.mean()):.4g}" in page.table.object
    assert page.display.event.scene["cells"] == page.view.cells[0].astype(float).round(9).tolist()
    assert page.servable() is page.__panel__()


def test_moving_a_slider_shows_another_design(page: Page, finish: Finish) -> None:
    page.controls.dx.value = 3.5
    finish(page)
    assert page.view is not None
    assert page.view.selection.dx == 3.5
    page.controls.unequal.value = True
    page.controls.layers[0].value = 9.0
    finish(page)
    assert page.view.selection.dz == (9.0, 6.0)


def test_errors_stand_in_the_page_and_go_away(page: Page, finish: Finish, wait: Wait) -> None:
    page.controls.dx.value = 50.0
    wait(page, lambda: page.message)
    assert "dx = 50 cm is outside 1 to 5 cm" in page.message
    assert page.error.visible
    page.controls.dx.value = 2.0
    finish(page)
    assert not page.error.visible


def test_what_a_file_contains_is_escaped(page: Page, wait: Wait) -> None:
    page.controls.dx.value = 50.0
    wait(page, lambda: page.message)
    assert "<img" in page.message
    snapshot = [page.bar.object, page.error.object, page.table.object, page.utility.object]
    assert "&lt;img" in page.bar.object
    assert not any("<img" in each for each in snapshot)
    html = page._keep(DOWNLOADS["HTML"][1]).read().decode()
    assert "<img src=x" not in html
    assert "&lt;img src=x" in html


def test_following_the_gradient_draws_a_trajectory_and_moves_there(page: Page, finish: Finish, wait: Wait) -> None:
    page.controls.ascend.clicks += 1
    wait(page, lambda: page.remark)
    finish(page)
    assert "the ascent ended" in page.remark
    assert len(page._path) >= 1
    last = page._path[-1][0]
    assert page.controls.selection().dx == pytest.approx(last.dx, abs=1e-3)


def test_a_click_on_the_map_moves_the_design(page: Page, finish: Finish) -> None:
    page._clicked(1.8, 30.0)
    finish(page)
    assert page.controls.selection().dx == 1.8
    assert page.controls.selection().dz == (15.0, 15.0)


def test_what_is_kept(page: Page, tmp_path: Path) -> None:
    assert page.view is not None
    files = {name: page._keep(make).read() for name, (_, make) in DOWNLOADS.items()}
    assert tomllib.loads(files["TOML"].decode())["space"]["start"] == {"dx": 2.5, "dz": 6.0}
    (tmp_path / "showers.h5").write_bytes(files["HDF5"])
    cells = read_cells(tmp_path / "showers.h5")
    assert np.array_equal(cells.cells, page.view.cells)
    assert cells.origin == page.explorer.surrogate.card.name
    numbers = json.loads(files["JSON"])
    assert numbers["observables"]["E_tot"]["surrogate"]["mean"] == pytest.approx(
        float(page.view.observables.E_tot.mean())
    )
    assert numbers["landscape"]["values"]
    assert files["PNG"].startswith(b"\x89PNG")
    assert b"data:image/png" in files["HTML"]


def test_the_trajectory_of_a_run_is_shown(tiny: Explorer, tmp_path: Path) -> None:
    start = tiny.start()
    space, y = tiny.kind._space(start, start.dz[0])
    objective = tiny.limits.objective(start)

    def gradient(at: np.ndarray, draws: int, seed: int) -> GradientEstimate:
        return surrogate_gradient(tiny.surrogate, objective, space, at, showers=4, draws=draws, seed=seed)

    ascend(space, y, gradient, AscentConfig(steps=2, draws=2, max_draws=2), output=tmp_path / "ascent.json")
    with pytest.raises(FormatError, match=r"config\.json does not fit"):
        read_trajectory(tmp_path, tiny.limits)
    (tmp_path / "config.json").write_text(json.dumps({"config": {"space": {"parameters": ["dx", "dz"]}}}))
    path = read_trajectory(tmp_path, tiny.limits)
    assert path[0][0] == start
    assert len(path) <= 2
    with pytest.raises(FormatError, match=r"holds no ascent\.json"):
        read_trajectory(tmp_path / "none", tiny.limits)


def test_results_are_shown_in_their_order(page: Page, tiny: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy document may run callbacks in another order than they were added in, and lose one while a page opens."""
    later: list[Callable[[], None]] = []
    shown: list[int] = []
    monkeypatch.setattr(page, "_document", SimpleNamespace(add_next_tick_callback=later.append))
    monkeypatch.setattr(page, "_show", lambda view: shown.append(len(view)))
    for view in tiny.refined(tiny.start()):
        page._publish(view)
    for callback in reversed(later[1:]):
        callback()
    assert shown == [24, 44, 64]


def test_without_panel_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "panel", None)
    for call in (lambda: explore("pbf2-cells"), lambda: serve("pbf2-cells", 0, run=None, browser=False, ready=print)):
        with pytest.raises(InputError, match=r"needs panel: pip install 'calograd\[explore\]'"):
            call()


def test_a_display_is_needed_to_open_a_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":0")
    assert has_display()
    monkeypatch.delenv("DISPLAY")
    assert not has_display()
