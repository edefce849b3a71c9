"""Logarithms of tables with zeros: 0 log 0 = 0, log 0 = -inf, no NaN in a gradient, and no digits lost to a dtype."""

from contextlib import nullcontext

import torch
from torch import Tensor

from ._checks import found


def wide(tensor: Tensor) -> Tensor:
    """The tensor, in float32 if it is in half precision: a sum of many such numbers would keep two digits."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def float64(tensor: Tensor) -> Tensor:
    """The tensor in float64; on the processor where its device, MPS, has none."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def full_precision(device: torch.device):
    """Within it, autocast is off: it would round the scores, and differently in the backward pass."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def log(p: Tensor) -> Tensor:
    """log p, -inf at p = 0, with gradient 0 there instead of NaN."""
    return p.masked_fill(p == 0, 1).log().masked_fill(p == 0, -torch.inf)


def expectation(values: Tensor, weights: Tensor) -> Tensor:
    """sum weights * values; where the weight is 0 the value counts as 0 even if it is -inf, in gradients too.

    Weights that add up to one give no more than the largest value: five rounded shares of a fifth of the dtype's largest
    number are beyond it. Halving and doubling are exact, so nothing else changes.
    """
    half, most = (weights * (values.masked_fill(weights == 0, 0) / 2)).sum(), torch.finfo(values.dtype).max / 2
    return 2 * torch.where(half.isinf(), half, half.clamp(-most, most))


def log_expectation(log_f: Tensor, q_z: Tensor, q_z_prime: Tensor, *, side: str = "row") -> Tensor:
    """log Z(z) = log E_{Q(z')} f(z,z'), shape (n,); 0 for a z without mass, which counts nowhere.

    `side` names the caller's rows in an error: "column" where the caller has transposed.
    """
    log_f = log_f.masked_fill((q_z == 0)[:, None], 0)
    log_Z = torch.logsumexp(log_f + log(q_z_prime), dim=1)
    if found(torch.isneginf, log_Z):
        row = int(torch.isneginf(log_Z.detach()).nonzero()[0])
        raise ValueError(
            f"{side} {row} of log_f is -inf wherever its candidates have mass, so its normaliser is 0; expected f > 0 "
            f"somewhere. Likely cause: a mask that hides all candidates of a {side}"
        )
    return log_Z


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
