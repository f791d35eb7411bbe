"""What is made of a model for samples without derivatives, anew after the model's numbers were changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd.forward_ad import unpack_dual

M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")


class Folding(Generic[M, T]):
    """Of one model.

    Args:
        model: the weights.
        fold: what makes something of them.
    """

    def __init__(self, model: M, fold: Callable[[M], T]) -> None:
        self._model, self._fold = model, fold
        self._weights = tuple(model.parameters())  # listing them anew takes a tenth of a single shower's time
        self._buffers: tuple[Tensor, ...] = ()
        self._made: tuple[int, T] | None = None

    def derived(self, *values: Tensor) -> bool:
        """Whether samples at ``values`` have derivatives, by autograd or by one of torch's transforms."""
        if any(is_functorch_wrapped_tensor(value) for value in values):
            return True
        if any(unpack_dual(value).tangent is not None for value in values):  # type: ignore[no-untyped-call]
            return True
        return torch.is_grad_enabled() and any(value.requires_grad for value in (*values, *self._weights))

    def latest(self) -> T:
        """What was made of the model as it is now."""
        if not self._buffers or self._buffers[0] is not next(self._model.buffers()):  # moved, or of another type
            self._buffers, self._made = tuple(self._model.buffers()), None
        version = sum(values._version for values in (*self._weights, *self._buffers))
        if self._made is None or self._made[0] != version:
            with torch.inference_mode(False), torch.no_grad():
                self._made = (version, self._fold(self._model))
        return self._made[1]


def affine(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """b and W^T of x W^T + b, as ``torch.addmm`` takes them."""
    return bias.contiguous(), weight.T.contiguous()


def linears(layers: nn.Sequential | nn.ModuleList) -> list[tuple[Tensor, Tensor]]:
    """Weights and biases of the linear layers."""
    return [(layer.weight, layer.bias) for layer in layers if isinstance(layer, nn.Linear)]
