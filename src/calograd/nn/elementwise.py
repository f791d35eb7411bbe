"""Functions of single numbers, where PyTorch's own are slow.

PyTorch takes exp and tanh of float32 from MKL, which is slow on processors other than Intel's and vectorises sigmoid
and exp2 itself. On an AMD EPYC with AVX-512 a number of a large tensor takes 0.8 ns in exp, 2.5 in tanh, 0.3 in exp2
and 0.4 in sigmoid. ONNX Runtime gets the plain functions.
"""

from __future__ import annotations

from math import e, log2

import torch
from torch import Tensor

LOG2_E = log2(e)
FEW = 4096
"""Size of tensors below which the number of operations counts, not that of numbers."""


def tanh_(x: Tensor) -> Tensor:
    """Return tanh(x) = 2 sigmoid(2 x) - 1, right to 2e-7 and without derivatives; x may be overwritten."""
    if torch.compiler.is_compiling() or x.numel() < FEW:
        return x.tanh()
    return x.mul_(2).sigmoid_().mul_(2).sub_(1)


def exp(x: Tensor) -> Tensor:
    """Return exp(x) as 2^(x / ln 2); right to 1e-7 (1 + |x|) of it."""
    return x.exp() if torch.compiler.is_compiling() or x.numel() < FEW else (x * LOG2_E).exp2()
