"""The engine of `dataset_evidence`: log f_ii - log sum_j f_ij of every row, in O(N) memory, with exact gradients.

Two ways, equal up to rounding. By tiles: any critic, the value first and the gradient by visiting each tile again.
By chunks of rows, for inner products: torch's `linear_cross_entropy` makes value and gradient in one visit.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from ._checks import shape_of, values_checked

# torch has `linear_cross_entropy` since 2.13. Without it, inner products go by tiles as well.
HAS_CHUNKS = hasattr(F, "linear_cross_entropy")
CHUNK_ENTRIES = {"cpu": 2**23, "cuda": 2**26}  # of a chunk's table: 32 and 256 MiB in float32
CHUNK_ROWS = {"cpu": 128, "cuda": 4096}  # at most: a processor's cache prefers few
SLAB = 2048  # rows between two steps of the progress bar


def by_tiles(critic: nn.Module, first: int, block: int, z: Tensor, z_prime: Tensor) -> Tensor:
    """log f_ii - log sum_j f_ij of each row, shape (n,), at least float32; row i's pair is z'_(first + i).

    `block` is the number of a tile's rows; its columns are twice as many.
    """
    return _ByTiles.apply(critic, first, block, z, z_prime, *(p for p in critic.parameters() if p.requires_grad))


def by_chunks(first: int, q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
    """The sum over rows of what `by_tiles` gives, a 0-dimensional float64 tensor, for log f_ij = q_i . k_j + bias_j."""
    return _ByChunks.apply(first, q, k, bias)


def block_for(device: torch.device, *, inner_product: bool) -> int:
    """Rows of a tile: on a processor what its cache holds, on a GPU what a small part of the free memory holds."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return max(128, min(4096, math.isqrt(free // 512)))  # a tile of block x 2 block and its temporaries: free / 16
    return 512 if inner_product else 256


def full_precision(device: torch.device):
    """Within it, autocast is off: it would round the scores, and differently in the backward pass."""
    return torch.autocast(device.type, enabled=False)


class InnerProduct(nn.Module):
    """log f_ij = q_i . k_j."""

    def forward(self, q, k):
        return q @ k.T


class Transposed(nn.Module):
    """The critic with its arguments exchanged, so that the normaliser runs over z."""

    def __init__(self, critic: nn.Module):
        super().__init__()
        self.critic = critic

    def forward(self, z_prime, z):
        return self.critic(z, z_prime).T


class InFloat32(nn.Module):
    """A half-precision critic on float32 copies of its parameters, through which the gradient reaches them."""

    def __init__(self, critic: nn.Module):
        super().__init__()
        self.critic = critic

    def forward(self, z, z_prime):
        state = {**dict(self.critic.named_parameters()), **dict(self.critic.named_buffers())}
        state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
        return torch.func.functional_call(self.critic, state, (z, z_prime))


class _ByTiles(torch.autograd.Function):
    @staticmethod
    def forward(ctx, critic, first, block, z, z_prime, *parameters):
        dtype = torch.promote_types(z.dtype, torch.float32)
        positive, log_sum = torch.full((2, len(z)), -torch.inf, dtype=dtype, device=z.device)
        tiles = _tiles(first, block, z, z_prime)
        with _progress(len(tiles), "evidence") as bar, values_checked():
            for rows, columns, own in tiles:
                log_f = scores(critic, z[rows], z_prime[columns]).to(dtype)
                found = log_f.diagonal(own)  # from the tile: rounded as in the sum, so that no row exceeds 0
                start = rows.start + max(0, -own)
                positive[start : start + len(found)] = found
                log_sum[rows] = torch.logaddexp(log_sum[rows], log_f.logsumexp(1))
                bar.update()
        check_rows(log_sum)
        ctx.critic, ctx.first, ctx.block = critic, first, block
        ctx.save_for_backward(z, z_prime, log_sum, *parameters)
        return positive - log_sum

    @staticmethod
    def backward(ctx, grad):
        _refuse_second_derivative()
        z, z_prime, log_sum, *parameters = ctx.saved_tensors
        inputs = (z, z_prime, *parameters)
        grads = [torch.zeros_like(t, dtype=torch.promote_types(t.dtype, torch.float32)) for t in inputs]
        largest = grad.abs().max().clamp(min=torch.finfo(grad.dtype).tiny)
        # The 1/N of a mean comes last: in float16 it would push small weights to zero.
        share = (grad / largest)[:, None]
        tiles = _tiles(ctx.first, ctx.block, z, z_prime)
        with _progress(len(tiles), "its gradient") as bar, values_checked(), full_precision(z.device):
            for rows, columns, own in tiles:
                tile_z, tile_z_prime = (t.detach().requires_grad_() for t in (z[rows], z_prime[columns]))
                with torch.enable_grad():
                    log_f = scores(ctx.critic, tile_z, tile_z_prime)
                weight = (log_f.detach().to(log_sum.dtype) - log_sum[rows, None]).exp_().neg_()
                weight.diagonal(own).add_(1)  # d(log f_ii - log sum_j f_ij) / dlog_f
                parts = torch.autograd.grad(
                    log_f,
                    (tile_z, tile_z_prime, *parameters),
                    weight.mul_(share[rows]).to(log_f.dtype),
                    allow_unused=True,
                )
                for total, part, where in zip(grads, parts, [rows, columns] + [...] * len(parameters)):
                    if part is not None:  # the critic does not depend on this one
                        total[where] += part
                bar.update()
        return None, None, None, *((total * largest).to(t.dtype) for total, t in zip(grads, inputs))


class _ByChunks(torch.autograd.Function):
    @staticmethod
    def forward(ctx, first, q, k, bias):
        columns = [t.detach().requires_grad_() for t in (k, bias) if t is not None]
        d_q, d_columns = torch.empty_like(q), [torch.zeros_like(t) for t in columns]
        kind, n = ("cuda" if q.is_cuda else "cpu"), len(q)
        chunk = max(1, min(CHUNK_ROWS[kind], CHUNK_ENTRIES[kind] // len(k)))
        options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=chunk)
        losses = []
        with _progress(math.ceil(n / SLAB), "evidence and its gradient") as bar, torch.enable_grad():
            for start in range(0, n, SLAB):
                rows = slice(start, start + SLAB)
                slab = q[rows].detach().requires_grad_()
                own = torch.arange(first + start, first + start + len(slab), device=q.device)
                loss = F.linear_cross_entropy(
                    slab,
                    columns[0],
                    own,
                    linear_bias=None if bias is None else columns[1],
                    reduction="sum",
                    options=options,
                )
                d_slab, *parts = torch.autograd.grad(loss, [slab, *columns])
                d_q[rows] = -d_slab
                for total, part in zip(d_columns, parts, strict=True):
                    total.sub_(part)
                losses.append(loss.detach().double())
                bar.update()
        losses = torch.stack(losses)
        if not losses.isfinite().all():
            start = SLAB * int((~losses.isfinite()).nonzero()[0])
            raise ValueError(
                f"a row from {start} to {min(start + SLAB, n) - 1} has an inner product beyond {q.dtype}; expected finite "
                "scores. Divide the latents by their spread, or raise the critic's scale"
            )
        ctx.save_for_backward(d_q, *d_columns)
        return -losses.sum()

    @staticmethod
    def backward(ctx, grad):
        _refuse_second_derivative()
        d_q, d_k, *d_bias = (total * grad for total in ctx.saved_tensors)
        return None, d_q, d_k, d_bias[0] if d_bias else None


def _tiles(first: int, block: int, z: Tensor, z_prime: Tensor) -> list[tuple[slice, slice, int]]:
    """Each tile's rows and columns, and the diagonal of it on which its rows meet their own pairs (it may be empty)."""
    return [
        (slice(i, i + block), slice(j, j + 2 * block), first + i - j)
        for i in range(0, len(z), block)
        for j in range(0, len(z_prime), 2 * block)
    ]


def scores(critic: nn.Module, z: Tensor, z_prime: Tensor) -> Tensor:
    log_f = critic(z, z_prime)
    if log_f.shape != (len(z), len(z_prime)):
        raise ValueError(
            f"the critic returned shape {shape_of(log_f)} for z {shape_of(z)} and z_prime {shape_of(z_prime)}; "
            f"expected ({len(z)}, {len(z_prime)}), one score per pair"
        )
    return log_f


def check_rows(log_sum: Tensor, rows: Tensor | None = None) -> None:
    """Raise for rows without a normaliser; `rows` are their numbers, if not 0, 1, 2 and so on."""
    for bad, what in (
        (torch.isnan(log_sum) | torch.isposinf(log_sum), "NaN or +inf among its scores"),
        (torch.isneginf(log_sum), "only scores of -inf"),
    ):
        if bad.any():
            first = int(bad.nonzero()[0])
            raise ValueError(
                f"row {first if rows is None else int(rows[first])} has {what} ({int(bad.sum())} of {len(log_sum)} rows); "
                "expected finite scores, or -inf where f = 0. Look at critic(z, z_prime) for that row"
            )


def _refuse_second_derivative() -> None:
    if torch.is_grad_enabled():  # create_graph=True; the graph of the tiles is not kept
        raise RuntimeError(
            "dataset_evidence has no second derivative, but create_graph=True asks for one; "
            "for small N use infonce(critic(z, z_prime))"
        )


def _progress(total: int, what: str) -> tqdm:
    """A progress bar that appears after two seconds; of several processes, on the first alone."""
    group = torch.distributed
    quiet = {"disable": True} if group.is_available() and group.is_initialized() and group.get_rank() > 0 else {}
    return tqdm(total=total, desc=what, delay=2, leave=False, **quiet)
