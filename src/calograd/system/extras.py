"""Packages that only some commands need: whether they are installed, asked before work begins."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from calograd.errors import InputError

EXTRAS = {
    "report": ("jinja2", "matplotlib", "sklearn"),
    "explore": ("panel", "jinja2", "matplotlib"),
    "export": ("onnx", "onnxruntime", "onnxscript"),
    "tensorboard": ("tensorboard",),
    "cluster": ("lightning_fabric",),
}
"""Modules of an extra of the package."""


def require(what: str, extra: str, *modules: str) -> None:
    """Refuse what cannot be done without packages that are not installed.

    Args:
        what: is refused, as its message names it.
        extra: of the package, that installs them.
        modules: that are needed; all of the extra's unless given.

    Raises:
        InputError: one or more are missing.
    """
    missing = [name for name in modules or EXTRAS[extra] if not _installed(name)]
    if missing:
        raise InputError(f"{what} needs {', '.join(missing)}: pip install 'calograd[{extra}]'")


def _installed(name: str) -> bool:
    return sys.modules[name] is not None if name in sys.modules else find_spec(name) is not None
