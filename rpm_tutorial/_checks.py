"""Checks of arguments that every module shares: an error says what was found, what was expected, and what to do."""

from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_scan = ContextVar("scan", default=True)


def shape_of(tensor: Tensor) -> str:
    return f"({', '.join(map(str, tensor.shape))})"


@contextmanager
def values_checked():
    """Within it, shapes and dtypes are still checked, values no longer: each scan of them makes a GPU wait."""
    token = _scan.set(False)
    try:
        yield
    finally:
        _scan.reset(token)


def check_tensor(name: str, tensor, dims: int) -> None:
    """Raise unless `tensor` is a floating-point tensor of `dims` dimensions without NaN and with at least one entry."""
    if not isinstance(tensor, Tensor):
        raise TypeError(
            f"{name} is a {type(tensor).__name__}; expected a torch.Tensor: wrap it in torch.as_tensor(...)"
        )
    if tensor.dim() != dims:
        raise ValueError(f"{name} has shape {shape_of(tensor)}; expected {dims} dimensions")
    if not tensor.is_floating_point():
        raise ValueError(f"{name} has dtype {tensor.dtype}; expected a floating type: call {name}.double()")
    if tensor.numel() == 0:
        raise ValueError(f"{name} has shape {shape_of(tensor)}: it is empty; expected at least one row and one column")
    if _scan.get() and torch.isnan(tensor.detach()).any():
        count = int(torch.isnan(tensor.detach()).sum())
        raise ValueError(
            f"{name} contains NaN ({count} of {tensor.numel()} entries); expected numbers. "
            "Likely causes: a diverged encoder (lower the learning rate), 0/0, or log of a negative number"
        )


def check_finite(name: str, latents: Tensor) -> None:
    if _scan.get() and torch.isinf(latents.detach()).any():
        raise ValueError(
            f"{name} contains inf; expected finite latents. Likely cause: a diverged encoder (lower the learning rate)"
        )


def check_alike(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """Raise unless both tensors live on one device and have one dtype."""
    if tensor.device != other.device:
        raise ValueError(
            f"{name} is on {tensor.device} and {other_name} on {other.device}; "
            f"expected one device: call {other_name}.to({name}.device)"
        )
    if tensor.dtype != other.dtype:
        raise ValueError(
            f"{name} has dtype {tensor.dtype} and {other_name} {other.dtype}; "
            f"expected one dtype: call {other_name}.to({name}.dtype)"
        )


def check_log_table(name: str, log_table: Tensor) -> None:
    """Raise unless `log_table` is a table of logarithms: -inf is legal (the logarithm of 0), +inf and NaN are not."""
    check_tensor(name, log_table, dims=2)
    if torch.isposinf(log_table.detach()).any():
        raise ValueError(f"{name} contains +inf; expected finite logarithms or -inf (where the quantity is 0)")


def check_distribution(name: str, table: Tensor, over: str = "entries") -> None:
    """Raise unless `table` is non-negative and sums to one: over all entries, or over each row (over="rows")."""
    check_tensor(name, table, dims=2)
    values = table.detach()
    if (values < 0).any():
        raise ValueError(
            f"{name} has a negative entry ({values.min().item():.3g}); expected probabilities. "
            "Did you pass logarithms? Call .exp() on them"
        )
    sums = values.sum(1) if over == "rows" else values.sum()
    worst = (sums - 1).abs().max().item()
    if not worst <= rounding(table):
        remedy = "divide by .sum(1, keepdim=True)" if over == "rows" else "divide by .sum()"
        what = "a row that sums" if over == "rows" else "entries that sum"
        found = sums.flatten()[(sums - 1).abs().argmax()].item()
        raise ValueError(f"{name} has {what} to {found:.10g}; expected 1: {remedy}")


def rounding(table: Tensor) -> float:
    """How far from one a sum of probabilities of this dtype may lie: the square root of its machine epsilon, so that
    half of the digits may have been lost on the way here (typed by hand, or summed over many entries)."""
    return torch.finfo(table.dtype).eps ** 0.5


def check_positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} is {value}; expected a positive finite number")
