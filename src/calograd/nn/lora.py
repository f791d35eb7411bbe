"""Adapters: small changes of a network that never touch its weights. Knows no physics.

    LoRA     W' = W + (alpha / r) B A     A of shape (r, in), B of shape (out, r), B = 0 at first   arXiv 2106.09685
    BitFit   b' = b + d                   the biases alone                                          arXiv 2106.10199
    full     W' = W + D,   b' = b + d

Of a convolution A is one with r channels out, of the same size, stride and padding, and B a 1 x 1 convolution.

An adapter is a plan (layers and method) and a table of A, B, D, d by name. In training it stands beside frozen weights
(`attach`), so gradients of W are never computed. For use it is merged into new weights (`merge`), whose layers are
plain `nn.Linear` or `nn.Conv2d` and as fast as before. The old weights are read only: to remove or replace an adapter,
use the old network or merge anew.

Neither peft nor torch's parametrizations: both replace `nn.Linear` by classes that the fast product of
`calograd.nn.linear` passes by; peft unmerges by subtraction, in place, which leaves the base rounded
(`W + BA - BA != W`), and brings transformers along; a parametrization forms B A and the gradient of all of W each step.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from math import inf
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from calograd.errors import InputError
from calograd.nn.linear import linear

Method = Literal["lora", "bitfit", "full"]
Table = dict[str, Tensor]
"""Tensors A, B, D, d by layer: ``blocks.0.a``, ``blocks.0.b``; ``blocks.0.weight``, ``blocks.0.bias``."""
N = TypeVar("N", bound=nn.Module)
Layer = nn.Linear | nn.Conv2d
"""Layers that can be adapted; convolutions of one group."""


@dataclass(frozen=True)
class Plan:
    """Plan of an adapter: the layers it changes, and how.

    Args:
        method: ``lora``, ``bitfit`` or ``full``.
        rank: r of LoRA; layers with fewer inputs or outputs take as many as they have.
        alpha: alpha of LoRA; alpha / r scales the change.
        targets: patterns of names of linear layers and convolutions, ``*`` for any characters; ``blocks`` stands for
            all below it.

    Raises:
        InputError: a rank or an alpha that is not positive.
    """

    method: Method = "lora"
    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError(f"the rank is {self.rank}, expected at least 1")
        if not 0 < self.alpha < inf:
            raise InputError(f"alpha is {self.alpha}, expected a positive number")

    @property
    def scale(self) -> float:
        """Factor of B A."""
        return self.alpha / self.rank


class LoraLinear(nn.Module):
    """y = x W^T + b + (alpha / r) (x A^T) B^T of a linear layer that stays as it is.

    Args:
        base: W and b, which are shared and not learnt.
        plan: rank and alpha.
        generator: random numbers of A, N(0, 1 / in).
    """

    def __init__(self, base: nn.Linear, plan: Plan, generator: torch.Generator | None) -> None:
        super().__init__()
        self.base, self.scale = base, plan.scale
        rank = _rank(base, plan)
        a = torch.randn(rank, base.in_features, generator=generator) / base.in_features**0.5
        self.a = nn.Parameter(a.to(base.weight))
        self.b = nn.Parameter(base.weight.new_zeros(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """Return y, shape (n, out), of x, shape (n, in)."""
        return torch.addmm(linear(self.base, x), x @ self.a.T, self.b.T, alpha=self.scale)


class LoraConv(nn.Module):
    """y = W * x + b + (alpha / r) B * (A * x) of a convolution that stays as it is.

    Args:
        base: W and b, which are shared and not learnt.
        plan: rank and alpha.
        generator: random numbers of A, N(0, 1 / numbers that go into an output).
    """

    def __init__(self, base: nn.Conv2d, plan: Plan, generator: torch.Generator | None) -> None:
        super().__init__()
        self.base, self.scale = base, plan.scale
        shape = (_rank(base, plan), *base.weight.shape[1:])
        a = torch.randn(shape, generator=generator) / base.weight[0].numel() ** 0.5
        self.a = nn.Parameter(a.to(base.weight))
        self.b = nn.Parameter(base.weight.new_zeros(base.out_channels, shape[0]))

    def forward(self, x: Tensor) -> Tensor:
        """Return y, shape (n, out, height, width), of x, shape (n, in, height, width)."""
        inner = conv2d(x, self.a, None, self.base.stride, self.base.padding)
        result: Tensor = self.base(x) + self.scale * conv2d(inner, self.b[:, :, None, None])
        return result


def adaptable_layers(network: nn.Module) -> dict[str, Layer]:
    """Return the linear layers and convolutions of a network by name, in its order."""
    return {name: module for name, module in network.named_modules() if isinstance(module, Layer)}


def target_layers(network: nn.Module, targets: Sequence[str]) -> list[str]:
    """Return the names of the layers that the patterns choose, in the network's order.

    Raises:
        InputError: a pattern that chooses none, with the nearest name.
    """
    kinds = adaptable_layers(network)
    layers, chosen = list(kinds), set[str]()
    for pattern in targets:
        found = [name for name in layers if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")]
        if not found:
            parts = {".".join(name.split(".")[:depth]): None for name in layers for depth in range(1, 9)}
            near = get_close_matches(pattern, parts, n=1, cutoff=0.4)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(layers)}"
            only = all(isinstance(layer, nn.Linear) for layer in kinds.values())
            raise InputError(f"no linear layer{'' if only else ' or convolution'} is called '{pattern}'; {hint}")
        chosen.update(found)
    if not chosen:
        raise InputError("no layer is given to adapt; expected at least one name or pattern")
    return [name for name in layers if name in chosen]


def attach(network: N, plan: Plan, generator: torch.Generator | None = None) -> tuple[N, dict[str, nn.Parameter]]:
    """Return a network to train beside ``network``: at first it computes the same.

    Args:
        network: the base; nothing of it is changed.
        plan: plan of the adapter.
        generator: random numbers of LoRA's A.

    Returns:
        A network whose other weights are those of the base, and what it learns, by name.

    Raises:
        InputError: the plan names no layer of the network.
    """
    trainee, learnt = share(network), dict[str, nn.Parameter]()
    for name in target_layers(network, plan.targets):
        layer = trainee.get_submodule(name)
        assert isinstance(layer, Layer)
        if plan.method == "lora":
            lora = _lora(layer, plan, generator)
            parent, _, last = name.rpartition(".")
            setattr(trainee.get_submodule(parent), last, lora)
            learnt |= {f"{name}.a": lora.a, f"{name}.b": lora.b}
            continue
        for kind, parameter in _changed(layer, plan).items():
            own = nn.Parameter(parameter.detach().clone())
            setattr(layer, kind, own)
            learnt[f"{name}.{kind}"] = own
    return trainee, learnt


def tabulate(network: nn.Module, plan: Plan, learnt: Mapping[str, Tensor]) -> Table:
    """Return the adapter's table from what `attach` returned: A and B as they are, other weights less the base's."""
    if plan.method == "lora":
        return {name: value.detach().clone() for name, value in learnt.items()}
    return {name: value.detach() - network.get_parameter(name).detach() for name, value in learnt.items()}


def place(learnt: Mapping[str, Tensor], network: nn.Module, plan: Plan, table: Mapping[str, Tensor]) -> None:
    """Set what `attach` returned to an adapter's table, in place: `tabulate` of it gives the table again.

    Args:
        learnt: parameters that `attach` returned.
        network: base of `attach`.
        plan, table: plan and table of the adapter.

    Raises:
        InputError: the table does not fit.
    """
    _check_table(network, plan, table)
    with torch.no_grad():
        for name, value in learnt.items():
            change = table[name].to(value)
            value.copy_(change if plan.method == "lora" else network.get_parameter(name) + change)


def _check_table(network: nn.Module, plan: Plan, table: Mapping[str, Tensor]) -> None:
    """Raise `InputError` if a table is not of the layers of the network that the plan names."""
    expected, found = shapes(network, plan), {name: tuple(value.shape) for name, value in table.items()}
    if expected != found:
        wrong = next(name for name in (*expected, *found) if expected.get(name) != found.get(name))
        raise InputError(
            f"the adapter does not fit: '{wrong}' has shape {found.get(wrong)}, expected {expected.get(wrong)}"
        )


def shapes(network: nn.Module, plan: Plan) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the tables that fit a network. Raises `InputError` as `attach`."""
    result: dict[str, tuple[int, ...]] = {}
    for name in target_layers(network, plan.targets):
        layer = network.get_submodule(name)
        assert isinstance(layer, Layer)
        if plan.method == "lora":
            rank = _rank(layer, plan)
            out, *into = layer.weight.shape
            result |= {f"{name}.a": (rank, *into), f"{name}.b": (out, rank)}
        else:
            result |= {f"{name}.{kind}": tuple(value.shape) for kind, value in _changed(layer, plan).items()}
    return result


def merge(network: N, plan: Plan, table: Mapping[str, Tensor]) -> N:
    """Return a network with the adapter in its weights; what the adapter leaves alone is shared with ``network``.

    Args:
        network: the base; nothing of it is changed.
        plan, table: plan and table of the adapter; float16 tables are multiplied out in the precision of the weights.

    Raises:
        InputError: the plan names no layer of the network, or the table does not fit it.
    """
    _check_table(network, plan, table)
    merged = share(network)
    for name in target_layers(network, plan.targets):
        layer = merged.get_submodule(name)
        assert isinstance(layer, Layer)
        for kind, parameter in _changed(layer, plan).items():
            if plan.method == "lora":
                a, b = table[f"{name}.a"].to(parameter), table[f"{name}.b"].to(parameter)
                change = plan.scale * (b @ a.flatten(1)).reshape(parameter.shape)
            else:
                change = table[f"{name}.{kind}"].to(parameter)
            setattr(layer, kind, nn.Parameter(parameter.detach() + change, requires_grad=False))
    return merged


def share(network: N) -> N:
    """Return a network of its own whose frozen parameters and buffers share the memory of ``network``."""
    memo: dict[int, object] = {
        id(value): nn.Parameter(value.detach(), requires_grad=False) for value in network.parameters()
    }
    memo |= {id(value): value.detach() for value in network.buffers()}
    return copy.deepcopy(network, memo)


def digest(tensors: Mapping[str, Tensor], *words: str) -> str:
    """Return the SHA-256 of words and of tensors: names, types, shapes and bytes; their order does not matter."""
    result = hashlib.sha256("\0".join(words).encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        result.update(f"\0{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        result.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return result.hexdigest()


def _lora(layer: Layer, plan: Plan, generator: torch.Generator | None) -> LoraLinear | LoraConv:
    if isinstance(layer, nn.Linear):
        return LoraLinear(layer, plan, generator)
    return LoraConv(layer, plan, generator)


def _rank(layer: Layer, plan: Plan) -> int:
    return min(plan.rank, len(layer.weight), layer.weight[0].numel())


def _changed(layer: Layer, plan: Plan) -> dict[str, Tensor]:
    """Return the weights of a layer that an adapter changes, by their kind."""
    kinds = {"lora": ("weight",), "bitfit": ("bias",), "full": ("weight", "bias")}[plan.method]
    return {kind: value for kind in kinds if isinstance(value := getattr(layer, kind), Tensor)}
