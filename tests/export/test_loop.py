from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from calograd.diffusion.samplers import SAMPLERS, sample
from calograd.diffusion.schedules import SCHEDULES
from calograd.export.loop import looped

pytest.importorskip("torch._higher_order_ops.scan", reason="this torch has no scan")
DETERMINISTIC = [name for name, sampler in SAMPLERS.items() if sampler.order > 0]


def gaussian(x: Tensor, sigma: Tensor) -> Tensor:
    """The denoiser of data N(1, 0.5^2)."""
    return (x * 0.25 + sigma**2) / (0.25 + sigma**2)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_the_loop_takes_the_steps_of_the_sampler(name: str, steps: int) -> None:
    sampler = SAMPLERS[name]
    noise = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    grid = sampler.grid(SCHEDULES["karras"], steps).float()
    found = looped(gaussian, noise, grid, sampler)
    assert torch.equal(found, sample(gaussian, noise, grid, sampler))


class Walk(torch.nn.Module):
    def __init__(self, name: str, steps: int) -> None:
        super().__init__()
        self.sampler = SAMPLERS[name]
        self.register_buffer("grid", self.sampler.grid(SCHEDULES["karras"], steps).float())
        self.grid: Tensor

    def forward(self, given: dict[str, Tensor]) -> Tensor:
        return looped(gaussian, given["noise"], self.grid, self.sampler)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_onnx_takes_the_same_steps(name: str) -> None:
    for module in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(module, reason=f"{module} not installed (extra export)")
    from calograd.export.runtime import open_session, run
    from calograd.export.write import to_onnx

    module, rows = Walk(name, 6), torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    session = open_session(to_onnx(module, {"noise": rows}, "x").SerializeToString(), name)
    for noise in (rows, torch.randn(50, 3, generator=torch.Generator().manual_seed(1))):
        expected = sample(gaussian, noise, module.grid, module.sampler)
        assert np.allclose(run(session, {"noise": noise.numpy()}), expected, rtol=1e-5, atol=1e-5)


def test_the_denoiser_is_traced_once() -> None:
    """However many steps there are."""
    sizes = []
    for steps in (5, 50):
        given = {"noise": torch.zeros(2, 3)}
        graph = torch.export.export(Walk("trigflow-ab2", steps), (given,), strict=True).graph_module
        sizes.append(sum(len(m.graph.nodes) for m in graph.modules() if isinstance(m, torch.fx.GraphModule)))
    assert sizes[0] == sizes[1]
