"""CaloGrad: a differentiable surrogate of calorimeter simulation.

Everything that a user needs is imported from here. Names are loaded on first use, so that ``import calograd`` and
``calograd --help`` load neither torch nor h5py.

Units at every public interface: cm, GeV, ns. The beam runs along +z, and the front face is z = 0.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from calograd._version import __version__

if TYPE_CHECKING:
    from calograd.detector.design import Design
    from calograd.detector.material import MATERIALS, Material
    from calograd.detector.particles import ParticleBeam
    from calograd.detector.sampling_design import SamplingDesign
    from calograd.errors import (
        CaloGradError,
        FormatError,
        InputError,
        Interrupted,
        OutputExistsError,
        RangeError,
        SimulationError,
        TablesError,
        UtilityError,
    )
    from calograd.evaluation import Evaluation, evaluate
    from calograd.events.dense import Cells, Maps, read_cells, read_maps, write_cells, write_maps
    from calograd.events.layer_energies import LayerEnergies
    from calograd.events.library.reader import Library, PlateLibrary, open_library, open_plates
    from calograd.events.plates import PlateShowers
    from calograd.events.point_showers import PointShowers, read_points, write_points
    from calograd.events.points import Points
    from calograd.events.segmentation import segment
    from calograd.explorer.serve import explore
    from calograd.export.runtime import OnnxSampler
    from calograd.geant4.gdml import read_geometry
    from calograd.geant4.production import simulate
    from calograd.gradients.gradient import GradientResult, gradient
    from calograd.gradients.resolution import ResolutionResult, resolution
    from calograd.metrics.observables import OBSERVABLES, Observables, observe
    from calograd.metrics.resolution import ResolutionFit, fit_resolution
    from calograd.objective.background import (
        BackgroundMap,
        ExponentialBackground,
        read_background_map,
        write_background_map,
    )
    from calograd.objective.constraints import Budget
    from calograd.objective.cost import ChannelCost, DepthCost, PricedUtility, VolumeCost
    from calograd.objective.measurement import MeasuredEvents, Measurement
    from calograd.objective.readout import Readout
    from calograd.objective.reconstruction import SoftMask
    from calograd.objective.space import DesignSpace
    from calograd.objective.stacks import LearntResolution, MeanEnergy, StackObjective, VisibleResolution
    from calograd.objective.utility import (
        Containment,
        CustomUtility,
        EnergyResolution,
        Objective,
        PositionResolution,
        SquaredError,
    )
    from calograd.optimisation.run import OptimisationResult, optimise
    from calograd.reports.plots import plot_event, plot_observable, plot_profile, style
    from calograd.surrogate import Adapter, Surrogate

__all__ = [
    "MATERIALS",
    "OBSERVABLES",
    "Adapter",
    "BackgroundMap",
    "Budget",
    "CaloGradError",
    "Cells",
    "ChannelCost",
    "Containment",
    "CustomUtility",
    "DepthCost",
    "Design",
    "DesignSpace",
    "EnergyResolution",
    "Evaluation",
    "ExponentialBackground",
    "FormatError",
    "GradientResult",
    "InputError",
    "Interrupted",
    "LayerEnergies",
    "LearntResolution",
    "Library",
    "Maps",
    "Material",
    "MeanEnergy",
    "MeasuredEvents",
    "Measurement",
    "Objective",
    "Observables",
    "OnnxSampler",
    "OptimisationResult",
    "OutputExistsError",
    "ParticleBeam",
    "PlateLibrary",
    "PlateShowers",
    "PointShowers",
    "Points",
    "PositionResolution",
    "PricedUtility",
    "RangeError",
    "Readout",
    "ResolutionFit",
    "ResolutionResult",
    "SamplingDesign",
    "SimulationError",
    "SoftMask",
    "SquaredError",
    "StackObjective",
    "Surrogate",
    "TablesError",
    "UtilityError",
    "VisibleResolution",
    "VolumeCost",
    "__version__",
    "evaluate",
    "explore",
    "fit_resolution",
    "gradient",
    "observe",
    "open_library",
    "open_plates",
    "optimise",
    "plot_event",
    "plot_observable",
    "plot_profile",
    "read_background_map",
    "read_cells",
    "read_geometry",
    "read_maps",
    "read_points",
    "resolution",
    "segment",
    "simulate",
    "style",
    "write_background_map",
    "write_cells",
    "write_maps",
    "write_points",
]

_MODULES = {
    "detector.design": ("Design",),
    "detector.material": ("MATERIALS", "Material"),
    "detector.particles": ("ParticleBeam",),
    "detector.sampling_design": ("SamplingDesign",),
    "errors": (
        "CaloGradError", "FormatError", "InputError", "Interrupted", "OutputExistsError", "RangeError",
        "SimulationError", "TablesError", "UtilityError",
    ),
    "evaluation": ("Evaluation", "evaluate"),
    "events.dense": ("Cells", "Maps", "read_cells", "read_maps", "write_cells", "write_maps"),
    "events.layer_energies": ("LayerEnergies",),
    "events.library.reader": ("Library", "PlateLibrary", "open_library", "open_plates"),
    "events.plates": ("PlateShowers",),
    "events.point_showers": ("PointShowers", "read_points", "write_points"),
    "events.points": ("Points",),
    "events.segmentation": ("segment",),
    "explorer.serve": ("explore",),
    "export.runtime": ("OnnxSampler",),
    "geant4.gdml": ("read_geometry",),
    "geant4.production": ("simulate",),
    "gradients.gradient": ("GradientResult", "gradient"),
    "gradients.resolution": ("ResolutionResult", "resolution"),
    "metrics.observables": ("OBSERVABLES", "Observables", "observe"),
    "metrics.resolution": ("ResolutionFit", "fit_resolution"),
    "objective.background": (
        "BackgroundMap", "ExponentialBackground", "read_background_map", "write_background_map",
    ),
    "objective.constraints": ("Budget",),
    "objective.cost": ("ChannelCost", "DepthCost", "PricedUtility", "VolumeCost"),
    "objective.measurement": ("MeasuredEvents", "Measurement"),
    "objective.readout": ("Readout",),
    "objective.reconstruction": ("SoftMask",),
    "objective.space": ("DesignSpace",),
    "objective.stacks": ("LearntResolution", "MeanEnergy", "StackObjective", "VisibleResolution"),
    "objective.utility": (
        "Containment", "CustomUtility", "EnergyResolution", "Objective", "PositionResolution", "SquaredError",
    ),
    "optimisation.run": ("OptimisationResult", "optimise"),
    "reports.plots": ("plot_event", "plot_observable", "plot_profile", "style"),
    "surrogate": ("Adapter", "Surrogate"),
}  # fmt: skip
"""Public names by the module that defines them, the same as those imported above for type checkers."""
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'calograd' has no attribute '{name}'")
    value = getattr(import_module(f"calograd.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
