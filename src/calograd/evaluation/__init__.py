"""How well generated showers stand in for Geant4's."""

from calograd.evaluation.evaluate import Evaluation, evaluate, mean_biases

__all__ = ["Evaluation", "evaluate", "mean_biases"]
