"""The log evidence of a whole data set (E14): exact, with exact gradients, in O(N) memory, for any critic."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ._checks import check_alike, check_tensor, shape_of


class Evidence(NamedTuple):
    """The evidence of N pairs, in nats per pair (0-dimensional tensors), and N.

    `infonce` is I_N, the full-batch InfoNCE; `log_evidence` = I_N - 2 log N is (1/N) sum log P(x_i,x'_i). Source: (E14).
    Both have the dtype of z, but float32 where that is float16 or bfloat16.
    """

    infonce: Tensor
    log_evidence: Tensor
    n: int


def dataset_evidence(z: Tensor, z_prime: Tensor, critic: nn.Module, *, block: int = 512) -> Evidence:
    """The log evidence of the N encoded pairs (z_i, z'_i) under the critic's InfoNCE prior. Source: (E14).

    The N x N table of scores is visited in tiles of `block` x `block` and never stored. The value carries exact
    gradients to z, z' and the critic's parameters; the backward pass visits the tiles again.

    Args:
        z, z_prime: shape (N, d), the pairs row by row; any floating dtype.
        critic: an `nn.Module` from (n, d), (m, d) to log_f of shape (n, m), pair by pair and the same at each call.
        block: rows and columns of a tile. Larger is not faster once a tile fills the processor's cache.
    Raises:
        TypeError: the critic is no `nn.Module` (tensors that a plain function captures would get no gradient).
        ValueError: NaN, +inf, unequal numbers of rows, mixed dtypes or devices, a row whose candidates all score -inf,
            dropout or batch norm in training mode, a critic whose output is not (n, m).
        RuntimeError: a second derivative is asked for.

    Example, a held-out set with an encoder and a critic of your own:

        >>> with torch.no_grad():
        ...     evidence = dataset_evidence(encoder(x), encoder(x_prime), critic)
        >>> evidence.log_evidence     # nats per pair; chance is -2 log N
    """
    check_tensor("z", z, dims=2)
    check_tensor("z_prime", z_prime, dims=2)
    check_alike("z", z, "z_prime", z_prime)
    if len(z) != len(z_prime):
        raise ValueError(f"z has shape {shape_of(z)} and z_prime {shape_of(z_prime)}; expected one row each per pair")
    if block < 1:
        raise ValueError(f"block is {block}; expected a positive number of rows")
    _check_critic(critic)
    parameters = [p for p in critic.parameters() if p.requires_grad]
    infonce = _FullBatchInfoNCE.apply(critic, block, z, z_prime, *parameters)
    return Evidence(infonce, infonce - 2 * math.log(len(z)), len(z))


class _FullBatchInfoNCE(torch.autograd.Function):
    """I_N by tiles: forward keeps log sum_j f_ij of each row; backward recomputes each tile and pulls its gradient."""

    @staticmethod
    def forward(ctx, critic, block, z, z_prime, *parameters):
        n = len(z)
        dtype = torch.promote_types(z.dtype, torch.float32)  # float16 and bfloat16 would lose the sum
        positive, log_sum = torch.empty(2, n, dtype=dtype, device=z.device)
        with _progress(n, block, "evidence") as bar:
            for i in range(0, n, block):
                rows = slice(i, min(i + block, n))
                shift = torch.full_like(positive[rows], -torch.inf)
                total = torch.zeros_like(shift)
                for j in range(0, n, block):
                    log_f = _tile(critic, z[rows], z_prime[j : j + block]).to(dtype)
                    if i == j:
                        positive[rows] = log_f.diagonal()  # from the tile: rounded as in the sum, so that I_N <= log N
                    new_shift = torch.maximum(shift, log_f.amax(1)).clamp(min=torch.finfo(dtype).min)
                    total = total * (shift - new_shift).exp() + (log_f - new_shift[:, None]).exp().sum(1)
                    shift = new_shift
                    bar.update()
                log_sum[rows] = shift + total.log()
        _check_rows(log_sum)
        ctx.critic, ctx.block = critic, block
        ctx.save_for_backward(z, z_prime, log_sum, *parameters)
        return (positive.double() - log_sum.double() + math.log(n)).mean().to(dtype)

    @staticmethod
    def backward(ctx, grad):
        if torch.is_grad_enabled():  # create_graph=True; the graph of the tiles is not kept
            raise RuntimeError(
                "dataset_evidence has no second derivative, but create_graph=True asks for one; "
                "for small N use infonce(critic(z, z_prime))"
            )
        z, z_prime, log_sum, *parameters = ctx.saved_tensors
        n, block = len(z), ctx.block
        inputs = (z, z_prime, *parameters)
        grads = [torch.zeros_like(t, dtype=torch.promote_types(t.dtype, torch.float32)) for t in inputs]
        with _progress(n, block, "its gradient") as bar:
            for i in range(0, n, block):
                for j in range(0, n, block):
                    rows, columns = slice(i, i + block), slice(j, j + block)
                    tile_z, tile_z_prime = (t.detach().requires_grad_() for t in (z[rows], z_prime[columns]))
                    with torch.enable_grad():
                        log_f = ctx.critic(tile_z, tile_z_prime)
                    weight = -(log_f.detach().to(log_sum.dtype) - log_sum[rows, None]).exp()  # N dI_N / dlog_f
                    if i == j:
                        weight.diagonal().add_(1)
                    parts = torch.autograd.grad(
                        log_f, (tile_z, tile_z_prime, *parameters), weight.to(log_f.dtype), allow_unused=True
                    )
                    for total, part, where in zip(grads, parts, [rows, columns] + [...] * len(parameters)):
                        if part is not None:  # the critic does not depend on this one
                            total[where] += part
                    bar.update()
        # The factor 1/N comes last: in float16 it would push small weights to zero.
        return None, None, *((total * (grad / n)).to(t.dtype) for total, t in zip(grads, inputs))


def _tile(critic: nn.Module, z: Tensor, z_prime: Tensor) -> Tensor:
    log_f = critic(z, z_prime)
    if log_f.shape != (len(z), len(z_prime)):
        raise ValueError(
            f"the critic returned shape {shape_of(log_f)} for z {shape_of(z)} and z_prime {shape_of(z_prime)}; "
            f"expected ({len(z)}, {len(z_prime)}), one score per pair"
        )
    return log_f


def _check_critic(critic: nn.Module) -> None:
    if not isinstance(critic, nn.Module):
        raise TypeError(
            f"the critic is a {type(critic).__name__}; expected an nn.Module, whose parameters can be found: "
            "put the function into a module's forward"
        )
    for name, module in critic.named_modules():
        if module.training and isinstance(module, (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)):
            raise ValueError(
                f"the critic's {name or 'module'} is a {type(module).__name__} in training mode, so that its scores "
                "change from tile to tile; expected a fixed critic: call critic.eval()"
            )


def _check_rows(log_sum: Tensor) -> None:
    for bad, what in (
        (torch.isnan(log_sum), "NaN or +inf among its scores"),
        (torch.isneginf(log_sum), "only scores of -inf"),
    ):
        if bad.any():
            raise ValueError(
                f"row {int(bad.nonzero()[0])} has {what} ({int(bad.sum())} of {len(log_sum)} rows); "
                "expected finite scores, or -inf where f = 0. Look at critic(z, z_prime) for that row"
            )


def _progress(n: int, block: int, name: str) -> tqdm:
    """A progress bar over the tiles, shown when they take more than two seconds."""
    return tqdm(total=math.ceil(n / block) ** 2, desc=name, unit="tile", delay=2, leave=False)
