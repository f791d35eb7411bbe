"""`calograd.gradients.gradient.gradient`: what the command does, from Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from calograd.detector.design import Design
from calograd.errors import InputError
from calograd.gradients.autodiff import surrogate_gradient
from calograd.gradients.estimates import seed_of
from calograd.gradients.gradient import gradient
from calograd.objective.background import ExponentialBackground
from calograd.objective.measurement import Measurement
from calograd.objective.space import space_around
from calograd.objective.utility import Containment, EnergyResolution, Objective, SquaredError
from calograd.surrogate import Surrogate

DESIGN = Design(2.5, 6.0, n_xy=3, n_z=2)


def test_it_is_the_surrogate_s_gradient_at_every_energy(surrogate: Surrogate) -> None:
    stages = list[tuple[str, int, int]]()
    options = {"showers": 8, "draws": 2, "steps": 2, "seed": 3}
    made = gradient(surrogate, DESIGN, (10, 50), **options, progress=lambda *part: stages.append(part))
    space, y = space_around(2.5, 6.0, (1, 5), (4, 15), n_xy=3, n_z=2)
    for number, (energy, found) in enumerate(zip(made.energies, made.estimates, strict=True)):
        objective = Objective(Measurement(ExponentialBackground()), SquaredError(), (energy,))
        expected = surrogate_gradient(surrogate, objective, space, y, **options | {"seed": seed_of(3, number)})
        np.testing.assert_array_equal(found.gradient, expected.gradient)
    assert [stage for stage, *_ in stages] == ["surrogate"] * len(stages)
    done = [number for _, number, _ in stages]
    assert done == sorted(done)
    assert stages[0][1:] == (0, 8)
    assert stages[-1][1:] == (8, 8)
    plain = json.loads(json.dumps(made.to_dict()))
    assert [point["energy"] for point in plain["points"]] == [10, 50]
    assert plain["objective"]["utility"].startswith("squared error of the deposited energy")


def test_it_compares_with_a_library(surrogate: Surrogate, library: Path) -> None:
    objective = Objective(Measurement(), Containment(), (10.0, 50.0))
    made = gradient(surrogate, DESIGN, objective=objective, reference=library, showers=8, draws=2, steps=2, replicas=1)
    assert made.energies == (10.0, 50.0)
    assert [check.geant4.about["energies"] for check in made.checks] == [[10.0], [50.0]]
    assert made.to_dict()["points"][1]["components"][0]["name"] == "dx"


def test_parameters_follow_the_design(surrogate: Surrogate) -> None:
    few = {"showers": 4, "draws": 2, "steps": 1, "objective": Objective(Measurement(), EnergyResolution(), (10.0,))}
    assert gradient(surrogate, DESIGN, **few).estimates[0].names == ("dx", "dz")
    assert gradient(surrogate, DESIGN, per_layer=True, **few).estimates[0].names == ("dx", "dz_1", "dz_2")
    unequal = Design(2.5, (6.0, 7.0), n_xy=3, n_z=2)
    assert gradient(surrogate, unequal, density=True, **few).estimates[0].names == ("dx", "dz_1", "dz_2", "density")
    with pytest.raises(InputError, match="different depths; leave out per_layer=False"):
        gradient(surrogate, unequal, per_layer=False, **few)
    batch = Design(torch.tensor([2.0, 3.0]), 6.0, n_xy=3, n_z=2)
    with pytest.raises(InputError, match="taken at one design, 2 are given"):
        gradient(surrogate, batch, **few)
    with pytest.raises(InputError, match="energies are missing"):
        gradient(surrogate, DESIGN)
