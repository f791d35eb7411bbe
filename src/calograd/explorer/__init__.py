"""The explorer: a page on this machine that shows what a surrogate makes of a design."""

from __future__ import annotations

from calograd.explorer.serve import explore

__all__ = ["explore"]
