"""A surrogate of several materials: gradients with respect to their numbers, and which materials it accepts."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.cards import design_card
from helpers.tiny import TINY, tiny_surrogate
from torch import Tensor

from calograd.detector.design import Design
from calograd.detector.material import MATERIALS, NUMBERS, Material
from calograd.errors import InputError, RangeError
from calograd.surrogate import Surrogate
from calograd.surrogate.cells.model import (
    CellsArchitecture,
    CellsModel,
    with_material_numbers,
    without_material_numbers,
)
from calograd.surrogate.generation import generate
from calograd.surrogate.model import numbers_of
from calograd.system.random_numbers import RandomNumbers

DOUBLE = torch.float64
LEAD, TUNGSTATE, BISMUTH = (MATERIALS[name] for name in ("PbF2", "PbWO4", "BGO"))


def several(
    materials: Sequence[Material] = (LEAD, BISMUTH),
    numbers: tuple[str, ...] = ("critical_energy",),
    units: str = "scaled",
    dtype: torch.dtype = DOUBLE,
) -> Surrogate:
    """Random weights, 3 x 3 x 2 cells; pitches of 0.4 to 2.5 Moliere radii, depths of 4 to 16 radiation lengths."""
    architecture = CellsArchitecture(**{**TINY.to_dict(), "material_numbers": numbers})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CellsModel(architecture)
        for name, parameter in model.named_parameters():
            torch.nn.init.normal_(parameter, std=0.3 if name.endswith("weight") else 0.1)
        mean = [8.0, 0.1, 2.2, 2.2, *(float(np.log(getattr(LEAD, name))) for name in NUMBERS if name in numbers)]
        model.condition_mean.copy_(torch.tensor(mean))
        model.condition_scale.copy_(torch.tensor([1.3, 0.5, 0.4, 0.4, *(0.1 for _ in numbers)]))
    sizes: dict[str, Any] = {"dx": (0.4, 2.5), "dz": (4, 16)} if units == "scaled" else {"dx": (1, 5), "dz": (4, 15)}
    card = design_card("several", architecture, units=units, materials=tuple(materials), **sizes)
    return Surrogate(model.to(dtype).eval().requires_grad_(False), card)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def design(material: Material | str, dx: float | Tensor = 2.5, dz: float | Tensor = 9.0) -> Design:
    return Design(dx, dz, material, n_xy=3, n_z=2)


def test_gradients_in_every_number_equal_finite_differences() -> None:
    surrogate = several(numbers=NUMBERS)
    weights = torch.rand(6, 3, 3, 2, generator=seeded(), dtype=DOUBLE)

    def weighted(*logarithms: Tensor) -> Tensor:
        material = LEAD.with_numbers(**{name: u.exp() for name, u in zip(NUMBERS, logarithms, strict=True)})
        cells = surrogate.sample(design(material), 20.0, 6, generator=seeded(), steps=3, extrapolate=True)
        return (cells * weights).sum()

    at = [torch.tensor(float(np.log(getattr(LEAD, n))), dtype=DOUBLE, requires_grad=True) for n in NUMBERS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # finite differences leave the trained materials
        assert torch.autograd.gradcheck(weighted, at, eps=1e-6, atol=1e-6, rtol=1e-5)
    assert all(abs(float(g)) > 1e-6 for g in torch.autograd.grad(weighted(*at), at))


@pytest.mark.parametrize("numbers", [(), ("critical_energy",), NUMBERS])
def test_gradients_in_the_density_equal_finite_differences(numbers: tuple[str, ...]) -> None:
    surrogate = several((LEAD.at_density(6.0), LEAD.at_density(9.0)), numbers)

    def total(density: Tensor) -> Tensor:
        material = LEAD.at_density(density)
        return surrogate.sample(design(material), 20.0, 6, generator=seeded(), steps=3).sum()

    density = torch.tensor(7.77, dtype=DOUBLE, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.autograd.gradcheck(total, density, eps=1e-6, atol=1e-6, rtol=1e-5)
        value = total(density)
    first = float(torch.autograd.grad(value, density)[0])
    assert abs(first) > 1e-6


def test_without_the_density_among_its_numbers_it_knows_the_law_of_scaling() -> None:
    """A detector of half the density and twice the size is the same detector."""
    surrogate = several()

    def showers(scale: float) -> Tensor:
        detector = design(LEAD.at_density(LEAD.density / scale), 2.0 * scale, 6.0 * scale)
        return surrogate.sample(detector, 20.0, 8, generator=seeded(), steps=3)

    small, large = showers(1.0), showers(2.0)
    torch.testing.assert_close(small, large, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("numbers", [NUMBERS, ("critical_energy",)])
def test_rows_of_different_materials_are_conditioned_on_their_own(numbers: tuple[str, ...]) -> None:
    model = several(numbers=numbers).model
    energy, dx = torch.tensor([5.0, 50.0, 20.0], dtype=DOUBLE), torch.tensor([1.0, 2.0, 3.0], dtype=DOUBLE)
    dz = torch.full((3, 2), 7.0, dtype=DOUBLE)
    table = numbers_of(LEAD, BISMUTH, like=energy)
    rows = model.conditions(energy, dx, dz, table[[0, 1, 1]])
    for k, material in enumerate((LEAD, BISMUTH, BISMUTH)):
        part = slice(k, k + 1)
        alone = model.conditions(energy[part], dx[part], dz[part], numbers_of(material, like=energy))
        torch.testing.assert_close(rows[part], alone, rtol=0, atol=0)
    assert rows.shape == (3, 4 + len(numbers))


@pytest.mark.parametrize(
    ("surrogate", "material"),
    [
        (several(), LEAD),
        (several(), BISMUTH),
        (several(), BISMUTH.at_density(5.0)),  # scaled sizes know every density
        (several(numbers=NUMBERS), BISMUTH),
        (several((LEAD, BISMUTH), NUMBERS, "cm"), LEAD),
    ],
)
def test_materials_it_was_trained_on(surrogate: Surrogate, material: Material) -> None:
    surrogate.sample(design(material), 20.0, 1, steps=1)


@pytest.mark.parametrize(
    ("surrogate", "material", "warning"),
    [
        (
            several(),
            TUNGSTATE,
            r"interpolates: material PbWO4 \(8\.28 g/cm3\) was not trained on, PbF2 .*, BGO .* were",
        ),
        (
            several((LEAD.at_density(7.0), LEAD.at_density(8.0)), NUMBERS),
            LEAD,
            r"interpolates: material PbF2 \(7\.77 g/cm3\) was not trained on, PbF2 \(7 g/cm3\), PbF2 \(8 g/cm3\) were",
        ),
    ],
)
def test_materials_between_trained_ones_are_warned_of(surrogate: Surrogate, material: Material, warning: str) -> None:
    with pytest.warns(UserWarning, match=warning):
        surrogate.sample(design(material), 20.0, 1, steps=1)


@pytest.mark.parametrize(
    ("surrogate", "material", "complaint"),
    [
        (several(), MATERIALS["CsI"], r"CsI .* was not trained on, .* \(critical energy 0\.011 is outside 0\.00912 to"),
        (several((LEAD,)), BISMUTH, r"BGO \(7\.13 g/cm3\) was not trained on, PbF2 \(7\.77 g/cm3\) was;"),
        (several(units="cm"), LEAD.at_density(4.0), r"\(radiation length 1\.82 is outside 0\.937 to 1\.12 cm\)"),
        (several(numbers=NUMBERS), LEAD.at_density(6.5), r"\(density 6\.5 is outside 7\.13 to 7\.77 g/cm3\)"),
    ],
)
def test_materials_beyond_are_refused_or_warned_of(surrogate: Surrogate, material: Material, complaint: str) -> None:
    with pytest.raises(RangeError, match=complaint):
        surrogate.sample(design(material), 20.0, 1, steps=1)
    with pytest.warns(UserWarning, match="extrapolates"):
        surrogate.sample(design(material), 20.0, 1, steps=1, extrapolate=True)


def test_scaled_sizes_are_checked_in_units_of_the_material() -> None:
    surrogate = several((LEAD, MATERIALS["CsI"]))
    caesium = MATERIALS["CsI"]
    for material in (LEAD, caesium):
        ends = [
            (factor * material.moliere_radius, depth * material.radiation_length)
            for factor, depth in ((0.4, 4), (2.5, 16))
        ]
        for dx, dz in ends:
            surrogate.sample(design(material, dx, dz), 20.0, 1, steps=1)
    with pytest.raises(
        RangeError, match=r"dx = 1\.4 cm is outside 1\.429\d* to 8\.93\d* cm; dz = 7 cm is outside 7\.44"
    ):
        surrogate.sample(design(caesium, 1.4, 7.0), 20.0, 1, steps=1)
    assert surrogate.card.in_cm(caesium).dz == pytest.approx(
        (4 * caesium.radiation_length, 16 * caesium.radiation_length)
    )


def test_a_card_of_several_comes_back(tmp_path: Path) -> None:
    several(dtype=torch.float32).save(tmp_path / "several")
    loaded = Surrogate.load(tmp_path / "several")
    assert loaded.card == several().card
    assert loaded.card.designs.materials == (LEAD, BISMUTH)
    assert loaded.model.architecture.material_numbers == ("critical_energy",)
    with pytest.raises(InputError, match=r"the surrogate was trained on PbF2, BGO; name the material \(--material\)"):
        _ = loaded.card.designs.material


def test_a_card_of_one_material_that_the_networks_see_knows_one_range_in_cm() -> None:
    card = tiny_surrogate().card
    assert card.designs.material == LEAD
    assert card.in_cm(BISMUTH) == card.in_cm(LEAD) == (card.energy, card.designs.dx, card.designs.dz)
    assert CellsArchitecture(**card.architecture) == TINY
    assert TINY.material_numbers == NUMBERS


def test_a_compact_surrogate_of_one_material_takes_any_density_of_it(tmp_path: Path) -> None:
    whole = several((LEAD,), NUMBERS, "cm", torch.float32)
    whole.save(tmp_path / "compact", compact=True)
    compact = Surrogate.load(tmp_path / "compact")
    assert compact.model.architecture.material_numbers == ()
    heavy = LEAD.at_density(2 * LEAD.density)
    showers = [compact.sample(each, 20.0, 5, generator=seeded()) for each in (design(LEAD), design(heavy, 1.25, 4.5))]
    torch.testing.assert_close(*showers)
    with pytest.raises(RangeError, match=r"several: dx = 2\.6 cm is outside 0\.5 to 2\.5 cm; allow"):
        compact.sample(design(heavy, 2.6, 4.5), 20.0, 1, steps=1)
    with pytest.raises(RangeError, match=r"material PbF2 .* was not trained on"):
        whole.sample(design(heavy, 1.25, 4.5), 20.0, 1, steps=1)
    with pytest.raises(RangeError, match=r"material PbWO4 .* was not trained on"):
        compact.sample(design(TUNGSTATE), 20.0, 1, steps=1)


def test_the_numbers_of_one_material_become_biases_exactly() -> None:
    whole = several((LEAD,), NUMBERS, "cm")
    folded = without_material_numbers(whole.model, TUNGSTATE)
    numbers = numbers_of(TUNGSTATE, like=whole.model.condition_mean)
    energy, dx, dz = (torch.tensor(v, dtype=DOUBLE) for v in ([20.0], [2.5], [[9.0, 8.0]]))
    cells = [
        model.generate(
            model.conditions(energy, dx, dz, numbers),
            energy,
            model.sampling_schedule("trigflow-ab2", 3),
            RandomNumbers(0, range(4)),
        )
        for model in (whole.model, folded)
    ]
    torch.testing.assert_close(*cells)
    assert folded.n_conditions == whole.model.n_conditions - 4
    assert without_material_numbers(folded, LEAD) is folded


def test_material_numbers_that_come_in_have_no_influence_at_first() -> None:
    narrow = several((LEAD,), (), "cm").model
    wide = with_material_numbers(narrow, several((TUNGSTATE,), ("critical_energy",), "cm").model)
    energy, dx, dz = (torch.tensor(v, dtype=DOUBLE) for v in ([20.0], [2.5], [[9.0, 8.0]]))
    numbers = numbers_of(LEAD, like=narrow.condition_mean)
    cells = [
        model.generate(
            model.conditions(energy, dx, dz, numbers),
            energy,
            model.sampling_schedule("trigflow-ab2", 3),
            RandomNumbers(0, range(4)),
        )
        for model in (narrow, wide)
    ]
    torch.testing.assert_close(*cells)
    assert wide.n_conditions == narrow.n_conditions + 1
    assert with_material_numbers(narrow, several((LEAD,), (), "cm").model).n_conditions == narrow.n_conditions


def test_generate_takes_one_of_the_materials() -> None:
    surrogate = several(dtype=torch.float32)
    columns = (np.array([20.0, 30.0]), np.full(2, 2.5), np.full((2, 2), 9.0))
    cells = generate(surrogate, *columns, material=BISMUTH, steps=1)
    assert cells.material == BISMUTH
    assert not np.array_equal(cells.cells, generate(surrogate, *columns, material=LEAD, steps=1).cells)
    with pytest.raises(InputError, match="name the material"):
        generate(surrogate, *columns, steps=1)


def test_numbers_that_are_none() -> None:
    with pytest.raises(
        InputError, match=r"material_numbers = \['colour'\]: expected some of density, radiation_length"
    ):
        CellsArchitecture(material_numbers=("colour",))
