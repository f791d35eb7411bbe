"""A served explorer and a headless Chromium, for tests and ``benchmarks/explore.py``."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
JOIN_TIME = 120_000
"""Milliseconds to wait for anything, on a machine that is busy."""


@contextmanager
def served(*arguments: str, settle: float | None = None) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address that ``calograd explore`` prints, on a machine without a display, and the process.

    Args:
        arguments: of the command.
        settle: seconds without a change before more than a preview is begun; None for what is usual.
    """
    code = "" if settle is None else f"from calograd.explorer import worker; worker.SETTLING_TIME = {settle}; "
    code += "from calograd.cli import main; main()"
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    process = subprocess.Popen(
        [sys.executable, "-c", code, "explore", "--port", "0", *arguments], env=environment, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, line + process.stderr.read()
        yield found[0], process
    finally:
        process.terminate()
        process.communicate(timeout=60)


@contextmanager
def opened(address: str) -> Iterator[tuple[Any, list[str]]]:
    """The page in a Chromium without WebGL, and what went wrong there: errors and requests beyond this machine."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-3d-apis"]
        )
        with another(browser, address) as found:
            yield found
        browser.close()


@contextmanager
def another(browser: Any, address: str, query: str = "") -> Iterator[tuple[Any, list[str]]]:
    """A page of a browser that runs, and what went wrong there; ``query`` has the parameters of the address."""
    page, wrong = browser.new_page(viewport={"width": 1440, "height": 900}), []
    page.set_default_timeout(JOIN_TIME)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("request", lambda r: wrong.append(r.url) if not r.url.startswith((address, "blob:", "data:")) else None)
    page.goto(address + query)
    page.wait_for_selector("table.numbers")
    yield page, wrong
    page.close()


def slider(page: Any, number: int) -> Any:
    """The handle of a slider, by its place on the page."""
    return page.locator(".noUi-handle").nth(number)


WATCH = """before => {
    const find = root => root.querySelector(".bar") ||
        [...root.querySelectorAll("*")].map(e => e.shadowRoot && find(e.shadowRoot)).find(e => e);
    const bar = find(document).parentNode;
    window.answer = new Promise(resolve => {
        let began;
        document.addEventListener("keydown", () => { began = performance.now(); }, { capture: true, once: true });
        const observer = new MutationObserver(() => {
            if (!bar.innerText || bar.innerText.startsWith(before + " x ")) return;
            observer.disconnect();
            requestAnimationFrame(() => resolve(performance.now() - began));
        });
        observer.observe(bar, { childList: true, subtree: true, characterData: true });
    });
}"""


def respond(page: Any, number: int, key: str = "ArrowRight") -> float:
    """Milliseconds from a key on a slider to the frame that shows the showers of the new design."""
    page.evaluate(WATCH, page.locator(".bar").inner_text().split(" x ")[0])
    handle = slider(page, number)
    handle.focus()
    handle.press(key)
    return float(page.evaluate("window.answer"))
