"""Sphinx configuration: pages in Markdown (MyST), docstrings as they are written in the code."""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from pages import write_pages
from pictures import write_gallery, write_learning_curves
from sphinx.errors import ExtensionError

import calograd

project = "CaloGrad"
author = "The CaloGrad team"
project_copyright = "The CaloGrad team, MIT licence"
version = release = calograd.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "jupyter_execute", "reference/made/learning-curves*.md", "reference/made/covered.md"]
html_theme = "furo"
html_title = f"CaloGrad {calograd.__version__}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
default_role = "code"

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3


def _digest(folder: Path) -> str:
    """Return a digest of the code and the surrogates in a folder."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.suffix in {".py", ".cpp", ".toml", ".safetensors"}:
            digest.update(str(file.relative_to(folder)).encode() + file.read_bytes())
    return digest.hexdigest()[:12]


nb_execution_mode = "cache"  # cells of tutorials and notebooks run when they or the code have changed
nb_execution_cache_path = str(Path(__file__).parent / "_build" / "notebooks" / _digest(Path(calograd.__file__).parent))
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_output_stderr = "remove"
nb_merge_streams = True

autodoc_default_options = {"members": True, "member-order": "bysource", "ignore-module-all": True}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Attributes", "params_style")]  # several names in one entry
suppress_warnings = [
    "mystnb.unknown_mime_type",  # what Panel sends to a running notebook
]

_MARKUP = re.compile(r"``.*?``|`.*?`|^\* |^\*\*[^*]+\*\*")
"""Matches literals, and bullets and bold words at the beginning of a line."""


def _escape(line: str) -> str:
    """Return a line of a docstring without accidental markup: stars, bars and trailing underscores mean themselves."""
    parts, end = [], 0
    for found in _MARKUP.finditer(line):
        parts += [re.sub(r"([*|])|(?<=\w)_(?!\w)", r"\\\g<0>", line[end : found.start()]), found.group()]
        end = found.end()
    return "".join([*parts, re.sub(r"([*|])|(?<=\w)_(?!\w)", r"\\\g<0>", line[end:])])


def _as_written(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:  # noqa: ARG001
    """Make indented blocks after an empty line literal: they are formulas and examples. The rest is text."""
    result: list[str] = []
    literal = False
    for number, line in enumerate(lines):
        indented = line.startswith("    ")
        if indented and not literal and number > 0 and not lines[number - 1].strip() and what != "attribute":
            literal = True
            result += ["::", ""]
        elif line.strip() and not indented:
            if literal and lines[number - 1].strip():
                result.append("")
            literal = False
        if number > 0 and lines[number - 1].strip() == "Returns:":
            line = line.replace(": ", "; ", 1)  # noqa: PLW2901 - or napoleon takes the words before it for a type
        result.append(line if literal else _escape(line))
    lines[:] = result


_PLAIN: dict[str, list[str]] = {}
"""Docstrings of attributes before napoleon, which takes the words before a colon for a type."""


def _keep_attribute(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:  # noqa: ARG001
    if what in ("attribute", "data", "property") and not any(line.endswith((":", "::")) for line in lines):
        _PLAIN[name] = list(lines)


def _restore_attribute(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:  # noqa: ARG001
    lines[:] = _PLAIN.pop(name, lines)


def _skip(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool:  # noqa: ARG001
    """Leave out members that Python and pydantic write themselves."""
    generated = str(getattr(obj, "__doc__", "") or "").startswith("Alias for field number")
    return bool(skip or generated or name in {"model_config", "model_post_init"})


def _make(app: Any) -> None:
    """Write the pages and figures that are made from the code, and copy the notebooks."""
    write_pages(Path(app.srcdir))
    notebooks = Path(app.srcdir) / "notebooks"
    notebooks.mkdir(exist_ok=True)
    for notebook in (Path(app.srcdir).parent / "examples").glob("*.ipynb"):
        shutil.copy2(notebook, notebooks)
    write_gallery(Path(app.srcdir) / "gallery")
    write_learning_curves(Path(app.srcdir) / "reference" / "made")


def _check_notebooks(app: Any, exception: Exception | None) -> None:
    """Raise an error if a notebook of the examples ran without showing anything but text."""
    for page in (Path(app.outdir) / "notebooks").glob("*.html") if exception is None else ():
        if 'class="output text_html"' not in page.read_text(encoding="utf-8"):
            raise ExtensionError(f"{page}: the notebook shows no table and no page of the explorer")


def setup(app: Any) -> None:
    """Connect the functions above; Sphinx calls this."""
    app.connect("builder-inited", _make)
    app.connect("autodoc-process-docstring", _as_written, priority=400)
    app.connect("autodoc-process-docstring", _keep_attribute, priority=450)  # napoleon: 500
    app.connect("autodoc-process-docstring", _restore_attribute, priority=550)
    app.connect("autodoc-skip-member", _skip)
    app.connect("build-finished", _check_notebooks)
