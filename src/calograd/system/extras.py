"""Check that optional packages are installed, before work begins that needs them."""

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
"""Modules that each extra of the package installs."""


def require(what: str, extra: str, *modules: str) -> None:
    """Check that the modules of an extra are installed.

    Args:
        what: the work that needs them, for the message.
        extra: the extra of the package that installs them.
        modules: the modules needed; by default all of the extra.

    Raises:
        InputError: one or more are missing.
    """
    missing = [name for name in modules or EXTRAS[extra] if not _installed(name)]
    if missing:
        raise InputError(f"{what} needs {', '.join(missing)}: pip install 'calograd[{extra}]'")


def _installed(name: str) -> bool:
    return sys.modules[name] is not None if name in sys.modules else find_spec(name) is not None
