import dataclasses
import re
from html.parser import HTMLParser

import pytest
from helpers.synthetic import showers

from calograd.errors import OutputExistsError
from calograd.evaluation import evaluate
from calograd.reports import page as pages
from calograd.reports.evaluation import MAX_DETAILED, choose_designs, describe_window, render_designs, write_report
from calograd.reports.page import Picture
from calograd.system.progress import silent

BLANK = "data:image/png;base64,iVBORw0KGgo="
EVIL = '<script>alert("x")</script>'


@pytest.fixture(scope="module")
def evaluation():
    designs = ((1.0, 5.0), (2.0, 4.0), (3.0, 8.0), (4.0, 10.0))
    ours = showers(30, seed=1, designs=designs, energies=(1.0, 50.0), origin=EVIL)
    ours = dataclasses.replace(ours, config={"note": EVIL, "detector": {"size": [25.2, 25.2, 76.0]}})
    return evaluate(ours, showers(30, seed=2, designs=designs, energies=(1.0, 50.0)), classifiers=False)


@pytest.fixture(scope="module")
def page(evaluation):
    """The page with its figures left blank; test_evaluate.py draws them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "picture", lambda draw, caption, alt: Picture(BLANK, caption, alt))
        files = {"generated": f"{EVIL}.h5", "reference": "reference.h5"}
        return render_designs(dataclasses.replace(evaluation, files=files), silent)


def test_strings_are_escaped(page):
    assert EVIL not in page
    assert "&lt;script&gt;" in page
    assert "<script" not in page.lower()


def test_nothing_is_fetched_from_elsewhere(page):
    assert not re.search(r"https?://|//[a-z]|@import|url\(", re.sub(r"base64,[A-Za-z0-9+/=]+", "", page))

    class References(HTMLParser):
        def handle_starttag(self, tag, attrs):
            for name, value in attrs:
                if name in ("src", "href", "srcset", "data", "action"):
                    assert value.startswith(("data:image/png;base64,", "#"))

    References().feed(page)


def test_the_page_is_well_formed_and_small(page):
    open_tags = []

    class Balanced(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "img", "br"):
                open_tags.append(tag)

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

    Balanced().feed(page)
    assert open_tags == []
    assert len(page) < 10e6


def test_it_says_what_was_compared_and_which_designs_are_shown(evaluation, page):
    chosen = choose_designs(evaluation)
    assert len(chosen) == MAX_DETAILED
    assert set(chosen.values()) == {"fewest limits missed", "median", "most limits missed"}
    assert page.count("<img") == 3 + 2 * 2 + MAX_DETAILED * 5  # biases, spreads, distances; resolution in two stages
    assert "three of 4 designs" in page
    assert "embedded (a window into a larger block)" in page
    assert evaluation.verdict[1:] in page


def test_the_setting_is_read_from_the_configuration(evaluation):
    cells = showers(2, seed=1, designs=((2.0, 4.0),))
    assert describe_window(cells) == "not stated"
    assert (
        describe_window(dataclasses.replace(cells, config={"detector": {"size": [10, 10, 20]}})) == "stand-alone block"
    )
    assert describe_window(dataclasses.replace(cells, config={"mode": "embedded"})) == "embedded"


def test_an_existing_report_is_kept(tmp_path, evaluation):
    path = tmp_path / "report.html"
    path.write_text("mine")
    with pytest.raises(OutputExistsError):
        write_report(path, evaluation)
    assert path.read_text() == "mine"
