"""The page in headless Chromium: what it shows, what clicks do, what is kept. WebGL is switched off throughout."""

from __future__ import annotations

import json
import re
import signal
import socket
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from helpers.browser import CHROMIUM, another, opened, respond, served
from helpers.tiny import tiny_surrogate_of_particles

from calograd.events.dense import read_cells
from calograd.explorer.views import Explorer
from calograd.surrogate import Surrogate

MISSING = [name for name in ("panel", "matplotlib", "playwright") if find_spec(name) is None]
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (extra explore, group browser)"),
]
HEADER = ".bar"


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    with served() as (address, _), opened(address) as (made, wrong):
        made.wait_for_selector(".state.done")
        yield made
        assert wrong == []


def test_it_shows_the_surrogate_beside_geant4_on_one_screen(page: Any, explorer: Explorer) -> None:
    *_, view = explorer.refined(explorer.start())
    page.wait_for_selector(".state.done")
    rows = [row.inner_text() for row in page.locator("table.numbers tr").all()]
    assert rows[1].startswith("surrogate, 200 showers")
    assert f"{float(view.observables.E_tot.mean()):.4g}" in rows[1]
    assert rows[2].startswith("Geant4, 200 showers")
    assert "2.5 x 6 cm, 50 GeV, PbF2" in page.locator(HEADER).inner_text()
    assert re.search(r"U = 0\.0\d+ ± .*∂ln U/∂ln dx = -\d", page.locator(".utility").inner_text())
    assert page.evaluate("[document.documentElement.scrollHeight, document.documentElement.scrollWidth]") == [900, 1440]


def test_the_event_is_drawn_without_webgl_and_turns(page: Any, explorer: Explorer) -> None:
    assert page.evaluate("document.createElement('canvas').getContext('webgl')") is None
    event = page.locator("canvas.event")
    assert int(event.get_attribute("data-drawn")) > 60
    colours = event.evaluate(
        "c => new Set(new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size"
    )
    assert colours > 200
    box, before = event.bounding_box(), event.get_attribute("data-turn")
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 280, box["y"] + 200)
    page.mouse.up()
    assert float(event.get_attribute("data-turn")) == pytest.approx(float(before) + 0.5, abs=0.01)
    event.dblclick()
    for name, look, drawn in (("side", "side", 25), ("along the beam", "front", 25), ("3-D", "3-D", None)):
        page.get_by_role("button", name=name, exact=True).click()
        page.wait_for_selector(f"canvas.event[data-look='{look}']")
        assert drawn is None or int(event.get_attribute("data-drawn")) == drawn
    total = explorer.preview(explorer.start()).cells[0].sum()
    assert f"deposited: {total:.2g}"[:12] in event.get_attribute("aria-label")


def test_a_slider_changes_the_design(page: Any) -> None:
    milliseconds = respond(page, 0)
    assert "2.55 x 6 cm" in page.locator(HEADER).inner_text()
    assert "no bundled showers" in page.locator("table.numbers").inner_text()
    assert milliseconds < 10_000  # benchmarks/explore.py measures it on a machine that is not busy
    page.get_by_role("button", name="nearest Geant4").click()
    page.locator("table.numbers tr", has_text="Geant4, 200 showers").wait_for()
    assert "2.5 x 6 cm" in page.locator(HEADER).inner_text()


def test_an_error_stands_in_the_page_in_one_line(page: Any) -> None:
    field = page.get_by_role("textbox").first
    field.fill("9")
    field.press("Enter")
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert "pbf2-cells: dx = 9 cm is outside 1 to 5 cm" in alert.inner_text()
    assert alert.bounding_box()["height"] < 40
    field.fill("2.5")
    field.press("Enter")
    alert.wait_for(state="hidden")


def test_a_click_on_the_map_moves_the_design(page: Any) -> None:
    before = page.locator(HEADER).inner_text()
    box = page.locator(".bk-Figure").first.bounding_box()
    page.mouse.click(box["x"] + 0.4 * box["width"], box["y"] + 0.5 * box["height"])
    page.locator(HEADER, has_not_text="2.5 x 6 cm").wait_for()
    assert page.locator(HEADER).inner_text() != before
    page.get_by_role("button", name="nearest Geant4").click()
    page.locator("table.numbers tr", has_text="Geant4, 200 showers").wait_for()


def test_what_is_shown_can_be_kept(page: Any, tmp_path: Path) -> None:
    page.wait_for_selector(".state.done")
    kept = {}
    for name in ("TOML", "HDF5", "JSON"):
        with page.expect_download() as download:
            page.get_by_text(name, exact=True).click()
        kept[name] = tmp_path / download.value.suggested_filename
        download.value.save_as(kept[name])
    assert [path.name for path in kept.values()] == ["design.toml", "showers.h5", "view.json"]
    start = tomllib.loads(kept["TOML"].read_text())["space"]["start"]
    numbers = json.loads(kept["JSON"].read_text())
    assert numbers["choice"]["dx"] == start["dx"]
    cells = read_cells(kept["HDF5"])
    assert len(cells) == numbers["showers"]
    assert float(cells.totals.mean()) == pytest.approx(numbers["observables"]["E_tot"]["surrogate"]["mean"], rel=1e-5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A surrogate that takes particles."""
    path = tmp_path_factory.mktemp("surrogate") / "tilted"
    tiny_surrogate_of_particles().save(path)
    return str(path)


def test_a_particle_off_the_axis(page: Any, folder: str) -> None:
    query = "/?dx=1.3&dz=4&particle=e-&x=0.2&y=-0.4&theta=20&phi=35&n_xy=7&n_z=5"
    with served(folder) as (address, _), another(page.context.browser, address, query) as (tilted, wrong):
        tilted.wait_for_selector("canvas.event[data-line='drawn']")
        label = tilted.locator("canvas.event").get_attribute("aria-label")
        assert label.endswith(", e- entering at x = 0.2, y = -0.4 cm at theta = 20 degrees")
        shown = tilted.locator(HEADER).inner_text()
        assert "1.3 x 4 cm, 50 GeV, PbF2" in shown
        assert "7 x 7 x 5 cells, e- entering at (0.2, -0.4) cm, theta 20, phi 35 degrees" in shown
        assert "no bundled showers at this design and energy" in tilted.locator("table.numbers").inner_text()
        for name in ("side", "along the beam"):
            tilted.get_by_role("button", name=name, exact=True).click()
        tilted.wait_for_selector("canvas.event[data-look='front']")
        sizes = tilted.evaluate("[document.documentElement.scrollHeight, document.documentElement.scrollWidth]")
        assert sizes == [900, 1440]
        tilted.locator("select").nth(3).select_option(label="3")
        tilted.locator(HEADER, has_text="7 x 7 x 3 cells").wait_for()
        tilted.get_by_role("button", name="nearest Geant4").click()
        tilted.locator("table.numbers tr", has_text="Geant4, 250 showers").wait_for()
        assert "7 x 7 x 3 cells, gamma entering evenly over the cell, theta 0" in tilted.locator(HEADER).inner_text()
        tilted.goto(f"{address}/?theta=60")
        alert = tilted.get_by_role("alert")
        alert.wait_for()
        assert "theta = 60 degrees is outside 0 to 40 degrees" in alert.inner_text()
        assert alert.bounding_box()["height"] < 40
        assert wrong == []


def test_a_stack_of_plates(page: Any) -> None:
    query = "/?absorber=PbWO4&active=G4_lAr&absorber_thickness=0.23&active_thickness=0.57&n_layers=50"
    with served("sampling-fast") as (address, _), another(page.context.browser, address, query) as (stack, wrong):
        stack.wait_for_selector(".state.done")
        assert "50 layers of 0.23 cm PbWO4 and 0.57 cm lAr, 10 GeV e-" in stack.locator(HEADER).inner_text()
        explorer = Explorer(Surrogate.load("sampling-fast"))
        named = dict(parse_qsl(query.removeprefix("/?")))
        *_, view = explorer.refined(explorer.limits.parse(named))
        row = stack.locator("table.numbers tr").nth(1).inner_text()
        assert row.startswith("surrogate, 2000 showers")
        assert f"{view.showers.visible.mean():.4g}" in row
        assert "∂E_vis/∂t = -" in stack.locator(".utility").inner_text()
        sizes = stack.evaluate("[document.documentElement.scrollHeight, document.documentElement.scrollWidth]")
        assert sizes == [900, 1440]
        box = stack.locator(".bk-Figure").nth(1).bounding_box()
        stack.mouse.click(box["x"] + 0.4 * box["width"], box["y"] + 0.5 * box["height"])
        stack.locator(HEADER, has_not_text="0.23 cm PbWO4").wait_for()
        stack.locator("select").first.select_option(label="W")
        stack.locator(HEADER, has_text="cm W and").wait_for()
        with stack.expect_download() as download:
            stack.get_by_text("PNG", exact=True).click()
        assert download.value.suggested_filename == "view.png"
        assert wrong == []


def test_a_port_in_use_is_refused(calograd: Callable[..., tuple[int, str, str]]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, _, err = calograd("explore", "--no-browser", "--port", port)
    assert code == 2
    assert re.fullmatch(
        rf"error: port {port} cannot be used .*: choose another with --port, or --port 0 for any\n", err
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_it_listens_on_the_loopback_address_alone_and_ctrl_c_ends_it() -> None:
    with served() as (address, process):
        port = int(address.rsplit(":", 1)[1])
        tables = [file for name in ("tcp", "tcp6") if (file := Path(f"/proc/{process.pid}/net/{name}")).exists()]
        sockets = [line.split() for file in tables for line in file.read_text().splitlines()[1:]]
        local = {words[1] for words in sockets if words[3] == "0A" and words[1].endswith(f":{port:04X}")}
        assert local == {f"0100007F:{port:04X}"}
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "the explorer has ended" in err
    assert "Traceback" not in err
