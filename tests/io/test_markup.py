from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from calograd.detector.design import Design
from calograd.evaluation.designs import CELLS, DesignEvaluation
from calograd.gradients.estimates import GradientEstimate
from calograd.io.markup import facts, table
from calograd.surrogate import Surrogate

NASTY = '<script>alert("x")</script>'


def test_whatever_a_file_contains_is_escaped() -> None:
    for html in (facts(NASTY, {NASTY: NASTY}), table(NASTY, [NASTY], [[NASTY]])):
        assert "<script" not in html
        assert html.count("&lt;script&gt;") == 3


def test_designs() -> None:
    html = Design(torch.tensor(2.5, requires_grad=True), (4.0, 5.0, 6.0, 8.0, 10.0))._repr_html_()
    for words in ("2.5 cm", "4, 5, 6, 8, 10 cm", "5 x 5 x 5", "12.5 x 12.5 x 33 cm", "PbF2 (7.77 g/cm3)", "dx"):
        assert f">{words}<" in html
    assert ">none<" in Design(1.0, 4.0)._repr_html_()


def test_surrogates() -> None:
    surrogate = Surrogate.load("pbf2-cells")
    html = surrogate._repr_html_()
    for words in ("1 to 100 GeV", "1 to 5 cm", "4 to 15 cm, each its own", "embedded", "PbF2 (7.77 g/cm3)"):
        assert f">{words}<" in html
    surrogate.card = surrogate.card.model_copy(update={"name": NASTY, "mode": NASTY})
    assert "<script" not in surrogate._repr_html_()


def test_results() -> None:
    estimate = GradientEstimate.from_draws(("dx",), np.array([2.5]), np.array([1.0, 3.0]), np.array([[0.1], [0.3]]), {})
    assert ">0.2 +- 0.1<" in estimate._repr_html_()
    both = SimpleNamespace(origin=NASTY)
    evaluation = DesignEvaluation(both, both, (), (), (), 0, {}, CELLS, (), 1e-3)
    assert "no limits apply" in evaluation._repr_html_()
    assert "<script" not in evaluation._repr_html_()
