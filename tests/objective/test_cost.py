from __future__ import annotations

import pytest
import torch

from calograd.detector.design import Design
from calograd.errors import InputError, UtilityError
from calograd.objective.cost import ChannelCost, DepthCost, PricedUtility, VolumeCost
from calograd.objective.measurement import MeasuredEvents
from calograd.objective.utility import Containment, CustomUtility, evaluate_utility


def events(dx: torch.Tensor | float = 2.0, share: float = 0.8) -> MeasuredEvents:
    cells = torch.full((4, 1, 1, 3), share * 10 / 3, dtype=torch.float64)
    return MeasuredEvents(cells, cells, torch.full((4,), 10.0), Design(dx=dx, dz=(4.0, 5.0, 6.0), n_xy=1, n_z=3))


def test_costs_by_hand():
    design = Design(dx=2.0, dz=(4.0, 5.0, 6.0), n_xy=5, n_z=3)
    assert VolumeCost()(design).item() == pytest.approx(25 * 4 * 15)
    assert ChannelCost(area=1000.0)(design).item() == pytest.approx(750)
    assert DepthCost()(design).item() == pytest.approx(15 / 0.93, rel=0.02)  # PbF2: X0 = 0.93 cm
    assert VolumeCost()(Design(dx=2.0, dz=3.0, n_xy=5, n_z=3)).item() == pytest.approx(25 * 4 * 9)


@pytest.mark.parametrize("cost", [VolumeCost(), ChannelCost(), DepthCost()])
def test_gradients_agree_with_finite_differences(cost):
    dx = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    dz = torch.tensor([4.0, 6.0], dtype=torch.float64, requires_grad=True)
    # dx**0 keeps the depth, which does not depend on the pitch, in its graph
    assert torch.autograd.gradcheck(lambda a, b: cost(Design(dx=a, dz=b, n_z=2)) * (a * b.sum()) ** 0, (dx, dz))


def test_prices_by_hand():
    costs = ((VolumeCost(), 0.002), (lambda design: design.dx, 0.1))  # 0.12 + 0.2
    assert PricedUtility(Containment(), costs)(events()).item() == pytest.approx(0.8 - 0.32)
    assert PricedUtility(Containment(), costs, relative=True)(events()).item() == pytest.approx(0.8 / 1.32)
    loss = CustomUtility(lambda cells, design: -cells.mean() / cells.mean() * 0.5)
    assert PricedUtility(loss, costs, relative=True)(events()).item() == pytest.approx(-0.5 * 1.32)
    assert PricedUtility(Containment(), ())(events()).item() == pytest.approx(0.8)


def test_a_cost_does_not_hide_a_utility_without_gradient():
    dx = torch.tensor(2.0, requires_grad=True)
    cut = CustomUtility(lambda cells, design: cells.detach().mean())
    priced = PricedUtility(cut, ((VolumeCost(), 0.1),))
    with pytest.raises(UtilityError, match="utility '<lambda>'"):
        evaluate_utility(priced, events(dx))
    assert priced.name == "<lambda>"
    assert PricedUtility(Containment(), ()).name == "Containment"


def test_a_free_utility_of_the_design_has_a_gradient():
    dx = torch.tensor(2.0, requires_grad=True)
    utility = CustomUtility(lambda cells, design: 10 - design.dx)
    evaluate_utility(PricedUtility(utility, ((VolumeCost(), 0.1),)), events(dx)).backward()
    assert dx.grad.item() == pytest.approx(-1 - 0.1 * 2 * 2 * 15)


def test_arguments_out_of_range_are_named():
    with pytest.raises(InputError, match="cost VolumeCost: weight = -1"):
        PricedUtility(Containment(), ((VolumeCost(), -1),))
    with pytest.raises(InputError, match="area = 0"):
        ChannelCost(area=0)
