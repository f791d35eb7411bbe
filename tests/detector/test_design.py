from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from calograd.detector.design import Design
from calograd.detector.material import MATERIALS
from calograd.errors import InputError


@pytest.mark.parametrize(
    ("dx", "dz", "n"),
    [
        (2.5, 6, None),
        (2, np.full(5, 6.0), None),
        (torch.tensor(2.5), (4.0, 5.0, 6.0, 8.0, 10.0), None),
        (torch.ones(3), 6.0, 3),
        (torch.ones(3), torch.ones(3), 3),  # one depth a design
        (torch.ones(3), torch.ones(5), 3),  # one depth a layer
        (torch.ones(5), torch.ones(5, 1), 5),
        (torch.ones(5), torch.ones(1, 5), 5),
        (2.5, torch.ones(3, 5), 3),
        (2.5, torch.ones(3, 1), 3),
        ([1.0, 2.0, 3.0], [[1.0] * 5] * 3, 3),
        (torch.ones(1), torch.ones(1), 1),
    ],
)
def test_shapes(dx: Any, dz: Any, n: int | None) -> None:
    design = Design(dx, dz)
    rows = () if n is None else (n,)
    assert (design.dx.shape, design.dz.shape) == (rows, (*rows, 5))
    assert (design.n, design.batched) == (n, n is not None)
    assert design.dx.is_floating_point()
    assert design.material is MATERIALS["PbF2"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"dx": None}, "design: dx = None: expected a number"),
        ({"dx": "2.5"}, "design: dx = '2.5': expected a number"),
        ({"dx": True}, "design: dx = True: expected a number"),
        ({"dz": (6.0, "6", 6.0, 6.0, 6.0)}, "design: dz = .*expected a number"),
        ({"dz": [torch.ones(2), torch.ones(3)]}, "design: dz = .*expected a number"),
        ({"material": None}, "design: material = None: expected a Material or the name of one"),
        ({"material": 3}, "design: material = 3: expected a Material"),
        ({"material": "cheese"}, "unknown material 'cheese'"),
        ({"n_z": 5.0}, "design: n_z = 5.0: expected a whole number"),
        ({"n_xy": True}, "design: n_xy = True: expected a whole number"),
        ({"n_xy": 0}, "design: n_xy = 0: expected at least 1"),
        ({"dx": float("inf")}, "design: dx = inf cm, expected positive numbers"),
        ({"dz": (6.0, 6.0, -1.0, 6.0, 6.0)}, "design: dz = -1.0 cm, expected positive numbers"),
        ({"dx": torch.ones(2, 2)}, r"design: dx has shape \(2, 2\), expected \(\) or \(n,\)"),
        ({"dx": torch.ones(0)}, r"design: dz has shape \(\), expected"),
        ({"dz": torch.ones(4)}, r"dz has shape \(4,\), expected \(5,\) or \(n, 5\) for 5 layers"),
        ({"dz": torch.ones(3, 4)}, r"dz has shape \(3, 4\), expected"),
        ({"dx": torch.ones(3), "dz": torch.ones(4)}, r"dz has shape \(4,\), expected \(3,\), \(5,\) or \(3, 5\)"),
        ({"dx": torch.ones(5), "dz": torch.ones(5)}, r"write dz\[:, None\] for one depth a design, dz\[None\]"),
    ],
)
def test_arguments_that_cannot_be_used(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        Design(**{"dx": 2.5, "dz": 6.0} | arguments)


@pytest.mark.parametrize("kind", [tuple, list, torch.stack])
def test_gradients_reach_scalars_in_a_sequence(kind: Any) -> None:
    dz = [torch.tensor(6.0, requires_grad=True) for _ in range(5)]
    design = Design(2.5, kind(dz))
    (design.dz * torch.arange(5)).sum().backward()
    assert [float(each.grad) for each in dz if each.grad is not None] == [0, 1, 2, 3, 4]
    mixed = Design(2.5, (dz[0], 5.0, 5.0, 5.0, 5.0))
    assert mixed.dz.requires_grad


def test_gradients_of_a_batch_stay_apart() -> None:
    dx, dz = torch.linspace(1, 4, 16).requires_grad_(), torch.linspace(5, 14, 16).requires_grad_()
    design = Design(dx, dz)
    assert dx.grad is None
    (design.dx[3] * design.dz[3].sum()).backward()
    assert dx.grad is not None
    assert dz.grad is not None
    assert dx.grad.nonzero().flatten().tolist() == dz.grad.nonzero().flatten().tolist() == [3]


def test_batches_are_taken_apart_and_made() -> None:
    batch = Design(torch.tensor([1.0, 2.0, 3.0]), 6.0, "BGO")
    assert batch[1] == Design(2.0, 6.0, "BGO")
    assert batch[1:] == Design(torch.tensor([2.0, 3.0]), 6.0, "BGO")
    assert list(batch) == [batch[0], batch[1], batch[2]]
    assert Design(2.0, 6.0).expand(2) == Design((2.0, 2.0), 6.0)
    assert batch.expand(3) == batch
    with pytest.raises(InputError, match="3 designs for 4 showers; expected one for all or one a shower"):
        batch.expand(4)
    with pytest.raises(InputError, match="a single design has no index"):
        batch[0][0]


def test_equality_is_that_of_the_numbers() -> None:
    design = Design(2.5, torch.full((5,), 6.0))
    assert design == Design(2.5, 6.0)
    assert hash(design) == hash(Design(2.5, (6.0,) * 5))
    assert design == Design(torch.tensor(2.5, requires_grad=True), 6.0)
    assert design in [Design(2.5, torch.full((5,), 7.0)), Design(2.5, 6.0)]
    others = [
        Design(2.5, 7.0), Design(2.5, 6.0, "BGO"), Design(2.5, 6.0, n_xy=3), Design(2.5, 6.0, n_z=4),
        Design((2.5,), 6.0), Design(2.5, 6.0, MATERIALS["PbF2"].with_numbers(radiation_length=torch.tensor(0.9))),
    ]  # fmt: skip
    assert design not in others
    assert len({design, Design(2.5, 6.0), *others}) == 7
    assert design != "a design"


def test_copies() -> None:
    design = Design(torch.tensor([2.0, 3.0]), 6.0, "BGO", 3, 2)
    assert pickle.loads(pickle.dumps(design)) == copy.deepcopy(design) == design


@pytest.mark.parametrize("value", [float("nan"), -1.0, 0.0])
def test_a_tensor_that_was_changed_is_noticed(value: float) -> None:
    dx = torch.tensor(2.5, requires_grad=True)
    design = Design(dx, 6.0)
    with torch.no_grad():
        dx.fill_(value)
    with pytest.raises(InputError, match=f"design: dx = {value} cm, expected positive numbers"):
        design.check()


def test_a_batch_in_a_notebook() -> None:
    html = Design((1.0, 2.5), 6.0)._repr_html_()
    for words in ("2 designs", "1 to 2.5 cm", "6 cm", "5 to 12.5 x 5 to 12.5 x 30 cm"):
        assert f">{words}<" in html
