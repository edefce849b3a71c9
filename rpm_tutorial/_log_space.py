"""Logarithms of tables with zeros: 0 log 0 = 0, log 0 = -inf, no NaN in a gradient, and no digits lost to a dtype."""

from contextlib import nullcontext

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor, in float32 if it is in half precision: a sum of many such numbers would keep two digits."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def saveable(tensor: Tensor) -> Tensor:
    """The tensor, copied if it was made in inference mode: autograd refuses to save such a one."""
    if torch.compiler.is_compiling():  # which knows no inference mode
        return tensor
    return tensor.clone() if tensor.is_inference() and not torch.is_inference_mode_enabled() else tensor


def float64(tensor: Tensor) -> Tensor:
    """The tensor in float64; on the processor where its device, MPS, has none."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def full_precision(device: torch.device):
    """Within it, autocast is off: it would round the scores, and differently in the backward pass."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def log(p: Tensor) -> Tensor:
    """log p, -inf at p = 0, with gradient 0 there instead of NaN."""
    return p.masked_fill(p == 0, 1).log().masked_fill(p == 0, -torch.inf)


def accumulation_dtype(device: torch.device) -> torch.dtype:
    """The dtype of few numbers that are added up: float64 where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def expectation(values: Tensor, weights: Tensor) -> Tensor:
    """sum weights * values; at weight 0 a value counts as 0 even if it is -inf, in gradients too."""
    products = weights.to(accumulation_dtype(values.device)) * values.masked_fill(weights == 0, 0)
    return products.sum().to(values.dtype)


def log_matmul(log_a: Tensor, log_b: Tensor) -> Tensor:
    """log(exp(log_a) @ exp(log_b)): a matrix product, shifted by the largest entry of each row of a and column of b.

    Rows in which a product comes near to underflow are summed again in logarithms, which is exact but slower.
    """
    smallest = torch.finfo(log_a.dtype).min
    shift_a, shift_b = log_a.amax(1, keepdim=True).clamp(min=smallest), log_b.amax(0, keepdim=True).clamp(min=smallest)
    product = (log_a - shift_a).exp() @ (log_b - shift_b).exp()
    result = log(product) + shift_a + shift_b
    rows = (product.detach() < torch.finfo(log_a.dtype).tiny ** 0.5).any(1).nonzero().flatten()
    if len(rows) == 0:
        return result
    return result.index_copy(0, rows, torch.stack([log_sum(log_a[row][:, None] + log_b) for row in rows]))


def log_sum(terms: Tensor) -> Tensor:
    """logsumexp over rows, -inf with gradient 0 (instead of NaN) for a column of -inf."""
    empty = torch.isneginf(terms.detach()).all(0)
    return torch.logsumexp(terms.masked_fill(empty, 0), 0).masked_fill(empty, -torch.inf)
