"""CaloGrad: a differentiable surrogate of calorimeter simulation.

Units at every public interface: cm, GeV, ns. Axes: the beam runs along +z, the front face is z = 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from calograd._version import __version__

if TYPE_CHECKING:
    from calograd.detector.design import Design
    from calograd.detector.material import Material
    from calograd.surrogate import Surrogate

__all__ = ["Design", "Material", "Surrogate", "__version__"]

_HOMES = {
    "Design": "calograd.detector.design",
    "Material": "calograd.detector.material",
    "Surrogate": "calograd.surrogate",
}


def __getattr__(name: str) -> Any:
    """Import the public classes on first use, so that ``calograd --help`` and Geant4 workers need no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'calograd' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
