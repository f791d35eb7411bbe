"""Stacks of plates as designs: sums against their formulas, gradients against finite differences, errors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from calograd import Material, SamplingDesign
from calograd.detector.configuration import SiWStack
from calograd.detector.material import MATERIALS
from calograd.errors import InputError

PUBLISHED: dict[str, Any] = {
    "absorber": "PbWO4", "active": "G4_lAr", "absorber_thickness": 0.23, "active_thickness": 0.57, "n_layers": 50,
}  # fmt: skip
FORMULAS: dict[str, Callable[[SamplingDesign], torch.Tensor]] = {
    name: lambda design, name=name: getattr(design, name)  # type: ignore[misc]
    for name in ("depth", "radiation_lengths", "total_absorber", "total_active", "sampling_fraction")
}


def test_numbers_of_the_published_stack() -> None:
    design = SamplingDesign(**PUBLISHED)
    assert float(design.depth) == pytest.approx(40.0)
    assert float(design.total_absorber) == pytest.approx(11.5)
    assert float(design.total_active) == pytest.approx(28.5)
    assert float(design.radiation_lengths) == pytest.approx(11.5 / 0.8924 + 28.5 / 14.0, rel=1e-3)
    loss = [0.23 * 1.229 * 8.28, 0.57 * 1.508 * 1.396]  # MeV, minimum ionisation as the Review has it
    assert float(design.sampling_fraction) == pytest.approx(loss[1] / sum(loss), rel=0.01)
    faces = design.faces
    assert faces.shape == (151,)
    torch.testing.assert_close(faces[:5], torch.tensor([0, 0.23, 0.23, 0.8, 1.03]))
    assert float(design.faces_in_radiation_lengths[-1]) == pytest.approx(float(design.radiation_lengths))


def test_the_silicon_tungsten_stack_of_the_ild_is_a_design() -> None:
    """Its layers begin where they do there, with all air before the silicon."""
    stack = SiWStack()
    design = SamplingDesign("W", "Si", torch.from_numpy(stack.plate_thicknesses()), 0.0525, gap_thickness=0.361)
    assert design.n_layers == 30
    np.testing.assert_allclose(design.faces.numpy()[:-1:3], stack.layer_fronts(), atol=1e-9)


@pytest.mark.parametrize("name", FORMULAS)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    def number(absorber: torch.Tensor, active: torch.Tensor, gap: torch.Tensor) -> torch.Tensor:
        return FORMULAS[name](SamplingDesign("Cu", "Si", absorber, active, gap_thickness=gap))

    generator = torch.Generator().manual_seed(0)
    thicknesses = [0.1 + torch.rand(4, generator=generator, dtype=torch.float64) for _ in range(3)]
    assert torch.autograd.gradcheck(number, [each.requires_grad_() for each in thicknesses])


def test_faces_pass_gradients_to_every_plate_before_them() -> None:
    active = torch.full((5,), 0.5, dtype=torch.float64, requires_grad=True)
    design = SamplingDesign("Pb", "lAr", 0.2, active)
    (slope,) = torch.autograd.grad(design.faces[9], active)  # the front of the fourth layer
    assert slope.tolist() == [1, 1, 1, 0, 0]


def test_a_density_is_differentiable() -> None:
    density = torch.tensor(1.396, dtype=torch.float64, requires_grad=True)
    design = SamplingDesign("Pb", MATERIALS["lAr"].at_density(density), 0.2, 0.4, 10)
    (slope,) = torch.autograd.grad(design.radiation_lengths, density)
    assert float(slope) == pytest.approx(4.0 / (14.0036 * 1.396), rel=1e-4)


@pytest.mark.parametrize(
    ("absorber", "active", "n_layers", "shape"),
    [
        (0.2, 0.4, 40, (40,)),
        (0.2, torch.full((40,), 0.4), None, (40,)),
        ([0.2] * 3, [0.4] * 3, 3, (3,)),
        (np.full(3, 0.2), 0.4, 3, (3,)),
        (torch.full((16, 1), 0.2), 0.4, 40, (16, 40)),
        (torch.full((16, 40), 0.2), torch.full((40,), 0.4), None, (16, 40)),
        (0.2, torch.full((16, 1), 0.4, dtype=torch.float64), 40, (16, 40)),
    ],
)
def test_shapes(absorber: Any, active: Any, n_layers: int | None, shape: tuple[int, ...]) -> None:
    design = SamplingDesign("Pb", "lAr", absorber, active, n_layers)
    assert (design.absorber_thickness.shape, design.gap_thickness.shape) == (shape, shape)
    assert design.thicknesses.shape == (*shape, 3)
    assert design.faces.shape == (*shape[:-1], 3 * shape[-1] + 1)
    assert design.sampling_fraction.shape == shape[:-1]
    assert design.n == (shape[0] if len(shape) == 2 else None)


def test_designs_of_a_batch() -> None:
    thickness = torch.linspace(0.1, 0.4, 16)[:, None]
    batch = SamplingDesign("Pb", "lAr", thickness, 0.4, 40)
    assert batch[3] == SamplingDesign("Pb", "lAr", float(thickness[3]), 0.4, 40)
    assert batch[3].expand(4) == SamplingDesign("Pb", "lAr", thickness[3].expand(4, 1), 0.4, 40)
    assert batch.expand(16) == batch
    with pytest.raises(InputError, match="16 designs for 5 showers"):
        batch.expand(5)
    with pytest.raises(InputError, match="a single design has no index"):
        batch[3][0]
    with pytest.raises(InputError, match="a batch of designs is no detector"):
        batch.to_stack()


def test_equal_designs_are_equal_and_are_copied() -> None:
    design = SamplingDesign(**PUBLISHED)
    assert copy.deepcopy(design) == design == SamplingDesign(**PUBLISHED)
    assert len({design, SamplingDesign(**PUBLISHED)}) == 1
    assert design != SamplingDesign(**PUBLISHED | {"absorber": "Pb"})
    assert design != 3
    html = design._repr_html_()
    assert "0.57 cm of lAr" in html
    assert "gap" not in html


def test_a_design_is_what_geant4_simulates() -> None:
    design = SamplingDesign("W", "Si", [0.21] * 2 + [0.42], 0.0525, gap_thickness=0.361)
    stack = design.to_stack(width=30)
    assert (stack.layers, stack.width, stack.describe()) == (3, 30, "W / Si")
    assert (stack.absorber_thickness, stack.active_thickness) == ((0.21, 0.21, 0.42), 0.0525)
    drawn = stack.draw(np.random.default_rng(0)).thickness
    np.testing.assert_allclose(drawn, design.thicknesses, rtol=1e-6)
    with pytest.raises(InputError, match="Pb has a given radiation_length; Geant4 simulates"):
        SamplingDesign(MATERIALS["Pb"].with_numbers(radiation_length=0.5), "Si", 0.2, 0.05, 3).to_stack()


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"absorber": "cheese"}, "unknown material 'cheese'"),
        ({"active": 3}, "active = 3: expected a Material or the name of one"),
        ({"gap_material": None}, "gap_material = None: expected a Material"),
        ({"absorber_thickness": "thin"}, "absorber_thickness = 'thin': expected a number"),
        ({"absorber_thickness": 0}, "absorber_thickness = 0.0 cm, expected positive numbers"),
        ({"active_thickness": -0.5}, "active_thickness = -0.5 cm, expected positive numbers"),
        ({"active_thickness": float("nan")}, "active_thickness = nan cm, expected positive numbers"),
        ({"gap_thickness": -0.1}, "gap_thickness = -0.1.* cm, expected zero or positive numbers"),
        ({"gap_thickness": float("inf")}, "gap_thickness = inf cm, expected zero or positive"),
        ({"absorber": "W", "absorber_thickness": 2.1},
         r"absorber_thickness: plates of 2.1 cm are 6.0 radiation lengths; is this in mm\? Give cm, as 0.21"),
        ({"absorber_thickness": 2.3, "active_thickness": 5.7},
         r"plates of 5.7 cm with absorbers of 2.3 cm make a stack of 400 cm; is this in mm\? Give cm, as 0.57"),
        ({"n_layers": 0}, "n_layers = 0: expected at least 1"),
        ({"n_layers": 2.0}, "n_layers = 2.0: expected a whole number"),
        ({"n_layers": 5000}, "n_layers = 5000: expected at most 1000"),
        ({"n_layers": None}, "expected n_layers, the number of layers"),
        ({"n_layers": None, "absorber_thickness": [0.2] * 3, "active_thickness": [0.4] * 4}, "not of 3 and 4"),
        ({"absorber_thickness": [0.2] * 49},
         r"absorber_thickness has shape \(49,\), expected \(\), \(50,\) or \(n, 50\) for 50 layers"),
        ({"absorber_thickness": torch.ones(2, 2, 50)}, r"has shape \(2, 2, 50\)"),
        ({"absorber_thickness": torch.ones(0, 50)}, r"has shape \(0, 50\)"),
        ({"absorber_thickness": torch.full((3, 50), 0.2), "active_thickness": torch.full((4, 50), 0.2)},
         r"has shape \(3, 50\), expected"),
    ],
)  # fmt: skip
def test_designs_that_cannot_be(changed: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        SamplingDesign(**PUBLISHED | changed)
    assert "\n" not in str(caught.value)


def test_a_design_that_was_changed_in_place_is_refused_when_it_is_used() -> None:
    thickness = torch.full((50,), 0.23)
    design = SamplingDesign(**PUBLISHED | {"absorber_thickness": thickness})
    thickness[3] = -1
    with pytest.raises(InputError, match=r"absorber_thickness = -1.0 cm"):
        design.check()


def test_a_thick_plate_alone_is_no_slip() -> None:
    """A stack may begin with a thick absorber."""
    assert SamplingDesign("Pb", Material.parse("Si"), [2.0] + [0.2] * 9, 0.05).n_layers == 10
