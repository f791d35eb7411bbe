"""Evaluation of generated showers against Geant4's."""

from calograd.evaluation.designs import DesignEvaluation, mean_biases
from calograd.evaluation.plates import PlatesEvaluation
from calograd.evaluation.points import PointsEvaluation
from calograd.evaluation.protocol import evaluate
from calograd.evaluation.result import Evaluation

__all__ = ["DesignEvaluation", "Evaluation", "PlatesEvaluation", "PointsEvaluation", "evaluate", "mean_biases"]
