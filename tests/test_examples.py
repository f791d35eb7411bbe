"""The notebooks of ``examples/``; building the documentation runs them."""

from __future__ import annotations

from pathlib import Path

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))


def test_notebooks_are_stored_without_results() -> None:
    assert NOTEBOOKS
    for notebook in NOTEBOOKS:
        text = notebook.read_text(encoding="utf-8")
        assert '"output_type"' not in text, notebook
