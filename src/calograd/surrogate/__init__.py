"""Surrogates: trained models of a calorimeter's response, loaded and sampled."""

from calograd.events.points import Points
from calograd.surrogate.adapters import Adapter
from calograd.surrogate.card import Card, TrainedDesigns, TrainedDetector, TrainedStacks
from calograd.surrogate.surrogate import Surrogate

__all__ = ["Adapter", "Card", "Points", "Surrogate", "TrainedDesigns", "TrainedDetector", "TrainedStacks"]
