"""Checks of arguments: each returns a value of the type that the code needs, or raises an `InputError` naming it."""

from __future__ import annotations

import reprlib
from operator import index
from typing import TYPE_CHECKING, Any

from calograd.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def as_count(name: str, value: Any, at_least: int = 1) -> int:
    """Return a whole number; floats are refused even where they are whole.

    Raises:
        InputError: another type, or a number below ``at_least``.
    """
    try:
        count = None if isinstance(value, bool) else index(value)
    except TypeError:
        count = None
    if count is None:
        raise InputError(f"{name} = {reprlib.repr(value)}: expected a whole number")
    if count < at_least:
        raise InputError(f"{name} = {count}: expected at least {at_least}")
    return count


def as_tensor(name: str, value: Any) -> Tensor:
    """Return a number, array, tensor or (nested) sequence of these as a floating-point tensor; gradients pass through.

    Python's numbers get torch's default dtype, tensors and arrays keep their own unless it is an integer.

    Raises:
        InputError: anything else.
    """
    import torch

    try:
        tensor = _stacked(value)
    except (TypeError, ValueError, RuntimeError):
        tensor = None
    if tensor is None or tensor.dtype == torch.bool or tensor.is_complex():
        raise InputError(f"{name} = {reprlib.repr(value)}: expected a number, or a tensor or sequence of numbers")
    return tensor if tensor.is_floating_point() else tensor.to(torch.get_default_dtype())


def _stacked(value: Any) -> Tensor:
    import torch

    if isinstance(value, list | tuple) and any(hasattr(each, "__len__") for each in value):
        return torch.stack([_stacked(each) for each in value])
    return torch.as_tensor(value)


def check_positive(name: str, values: Tensor, unit: str = "") -> None:
    """Raise `InputError`, with the first value that is not, unless all values are positive and finite."""
    values = values.detach()
    least, most = values.aminmax()  # both are NaN if any value is
    if not (float(least) > 0 and float(most) < float("inf")):
        bad = ~(values.isfinite() & (values > 0))
        raise InputError(f"{name} = {float(values[bad][0])} {unit}".rstrip() + ", expected positive numbers")


def as_generator(name: str, value: Any) -> torch.Generator | None:
    """Return a generator of random numbers, or None for torch's own. Raises `InputError` for anything else."""
    import torch

    if value is not None and not isinstance(value, torch.Generator):
        raise InputError(
            f"{name} = {reprlib.repr(value)}: expected a torch.Generator, as torch.Generator().manual_seed(0), or None"
        )
    return value
