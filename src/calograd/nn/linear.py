"""The product y = x W^T + b of a linear layer, as fast as the processor allows.

PyTorch multiplies float32 matrices with MKL, which uses half of the vector width on processors other than Intel's.
oneDNN is part of PyTorch too and uses all of it. On an AMD EPYC with AVX-512 it is 2.1 times as fast from 100 rows on
(187 against 88 GFLOP/s on one core), and equal but for rounding (relative 1e-6). It has no gradients. With weights that
are not learnt the gradient of x is a product too,

    dL/dx = dL/dy W
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual

MIN_ROWS = 8
"""Least number of rows for oneDNN; with fewer rows MKL is faster."""

_ONEDNN: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


class _Product(torch.autograd.Function):
    """x W^T + b by oneDNN; differentiable in x alone, any number of times."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        result: Tensor = _ONEDNN(x, weight, bias, "none", [], "")
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        result: Tensor = _Product.apply(gradient.contiguous(), weight.t().contiguous(), None)  # type: ignore[no-untyped-call]
        return result, None, None


def linear(layer: nn.Module, x: Tensor) -> Tensor:
    """Return ``layer(x)`` of a linear layer and x of shape (n, in).

    By oneDNN where its weights are not being learnt and nothing is being compiled or exported.
    """
    if type(layer) is nn.Linear and _is_fast(layer.weight, layer.bias, x):
        result: Tensor = _Product.apply(x, layer.weight, layer.bias)  # type: ignore[no-untyped-call]
    else:
        result = layer(x)
    return result


def linear_by(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """Return x W^T + b of x of shape (n, ..., in), as `linear` does; W may be a part of a larger matrix."""
    if not _is_fast(weight, bias, x):
        return nn.functional.linear(x, weight, bias)
    whole = weight.contiguous()  # oneDNN takes a part, but five hundred times as long
    result: Tensor = _Product.apply(x, whole, bias)  # type: ignore[no-untyped-call]
    return result


def linear_of_parts(layer: nn.Module, parts: Sequence[Tensor]) -> Tensor:
    """Return ``layer`` of parts of its input one behind the other, as of ``torch.cat(parts, -1)``.

    Parts of shape (..., k) are broadcast to each other in all dimensions but the last one. Those that are smaller, as
    what all items of a sample or all samples have in common, are multiplied once and then added to the others.

    Args:
        layer: a linear layer, or another module of this input.
        parts: parts of the input, all of as many dimensions.
    """
    whole = np.broadcast_shapes(*(tuple(part.shape[:-1]) for part in parts))
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, part in enumerate(parts):
        groups.setdefault(tuple(part.shape[:-1]), []).append(index)
    if type(layer) is not nn.Linear or len(groups) == 1:
        every = torch.cat([part.expand(*whole, -1) for part in parts], -1)
        return linear(layer, every.flatten(0, -2)).reshape(*whole, -1)
    columns = torch.split(layer.weight, [part.shape[-1] for part in parts], 1)
    result: Tensor = layer.bias
    for shape in sorted(groups, key=prod):
        members = groups[shape]
        weight = torch.cat([columns[k] for k in members], 1)
        x = torch.cat([parts[k] for k in members], -1).flatten(0, -2)
        result = result + linear_by(weight, None, x).reshape(*shape, -1)
    return result


def output_of_items(network: nn.Sequential, parts: Sequence[Tensor]) -> tuple[Tensor, tuple[int, ...]]:
    """Return the output of a network for several items of each sample, shape (n items, k), and (n, items).

    Args:
        network: linear layers and functions of single numbers.
        parts: of its input, shape (n, items, k) each, where n or items may be 1; see `linear_of_parts`.
    """
    first, *others = network
    hidden = linear_of_parts(first, parts)
    shape, hidden = tuple(hidden.shape[:-1]), hidden.flatten(0, -2)
    for layer in others:
        hidden = linear(layer, hidden)
    return hidden, shape


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x W^T + b of float32 or float64 x, shape (n, in), without derivatives."""
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.compiler.is_compiling()
    if _ONEDNN is not None and plain and x.shape[0] >= MIN_ROWS:
        result: Tensor = _ONEDNN(x, weight, bias, "none", [], "")
        return result
    return nn.functional.linear(x, weight, bias)


def weights_of(layers: Iterable[nn.Module]) -> list[tuple[Tensor, Tensor]]:
    """Return weight and bias of the linear layers among some."""
    return [(layer.weight, layer.bias) for layer in layers if isinstance(layer, nn.Linear)]


def has_derivatives(values: Iterable[Tensor], weights: Iterable[Tensor] = ()) -> bool:
    """Return whether torch follows what is made of any value: by autograd, forward derivatives or a transform.

    Args:
        values: inputs of a computation.
        weights: parameters of the computation; forward derivatives of these are seen within ``torch.func`` alone.
    """
    recorded, weights = torch.is_grad_enabled(), tuple(weights)
    if recorded and any(value.requires_grad for value in weights):
        return True
    if any(_has_no_memory(value) for value in weights):
        return True
    return any((recorded and value.requires_grad) or is_transformed(value) for value in values)


def is_transformed(value: Tensor) -> bool:
    """Return whether a tensor has a forward derivative or belongs to a transform of ``torch.func``, as ``vmap``."""
    return unpack_dual(value).tangent is not None or _has_no_memory(value)  # type: ignore[no-untyped-call]


def _has_no_memory(value: Tensor) -> bool:
    """Return whether a tensor has no address, as within a transform of ``torch.func``."""
    try:
        value.data_ptr()
    except RuntimeError:
        return True
    return False


def _is_fast(weight: Tensor, bias: Tensor | None, x: Tensor) -> bool:
    """Return whether oneDNN may multiply: nothing is compiled, weights are not learnt, and there are enough rows."""
    if torch.compiler.is_compiling() or _ONEDNN is None or len(x) < MIN_ROWS:
        return False
    return _is_plain(weight, bias, x)


def _is_plain(weight: Tensor, bias: Tensor | None, x: Tensor) -> bool:
    """Return whether all are float32 on a CPU, with frozen weights, outside of autocast and transforms."""
    if torch.is_autocast_enabled("cpu") or is_transformed(x) or is_transformed(weight):
        return False
    if torch.is_grad_enabled() and (weight.requires_grad or (bias is not None and bias.requires_grad)):
        return False
    return x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
