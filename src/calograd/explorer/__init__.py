"""The explorer: a page that shows a design's showers, observables and utility while sliders move."""

from __future__ import annotations

from calograd.explorer.serve import explore

__all__ = ["explore"]
