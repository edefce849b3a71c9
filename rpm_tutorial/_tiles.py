"""The engine of `dataset_evidence`: log f_ii - log sum_j f_ij of every row, in O(N) memory, with exact gradients.

Two ways, equal up to rounding. By tiles: any critic, the value first and the gradient by visiting each tile again.
By strips of whole rows, for inner products: a strip holds a row's normaliser, so that one visit makes value and gradient.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ._checks import rounding, values_unchecked
from ._log_space import accumulation_dtype, float64, full_precision
from .critics import scores

STRIP_ENTRIES = {"cpu": 2**23, "cuda": 2**26}  # of a strip's table: 32 and 256 MiB in float32
STRIP_ROWS = {"cpu": (32, 128), "cuda": (128, 4096)}  # at least and at most: a processor's cache prefers few


class Partners(NamedTuple):
    """The labels of rows and of columns, and 1 / the number of a row's partners, which are the columns of its label."""

    of_rows: Tensor
    of_columns: Tensor
    share: Tensor


class Place(NamedTuple):
    """The columns of row 0's pair and of its own view, if that is no candidate. Those of row i are i further.

    With `partners`, a row's score is the mean over all of them in the place of its pair's.
    """

    pair: int = 0
    itself: int | None = None
    partners: Partners | None = None


def place_of(first: int, rows: int, columns: int, labels: Tensor | None, itself: int | None = None) -> Place:
    """Where the rows meet their pairs, or, with labels of all rows, their partners."""
    if labels is None:
        return Place(first, itself)
    others = labels if itself is not None else labels.new_full((columns - len(labels),), -1)  # a queue has no label
    of_rows, of_columns = labels[first : first + rows], torch.cat([labels, others])
    number = of_columns[of_columns >= 0].bincount()[of_rows] - int(itself is not None)
    return Place(first, itself, Partners(of_rows, of_columns, 1 / number.to(accumulation_dtype(number.device))))


def by_tiles(critic: nn.Module, place: Place, block: int, z: Tensor, z_prime: Tensor) -> Tensor:
    """log f_ii - log sum_j f_ij of each row, shape (n,), at least float32; row i's pair is z'_(place.pair + i).

    `block` is the number of a tile's rows; its columns are twice as many.
    """
    return _ByTiles.apply(critic, place, block, z, z_prime, *_learnt(_state(critic)))


def by_strips(place: Place, q: Tensor, k: Tensor) -> Tensor:
    """The sum over rows of what `by_tiles` gives, a 0-dimensional float64 tensor, for log f_ij = q_i . k_j."""
    return _ByStrips.apply(place, q, k)


def block_for(device: torch.device, *, inner_product: bool) -> int:
    """Rows of a tile: on a processor what its cache holds, on a GPU what a small part of the free memory holds."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return max(128, min(4096, math.isqrt(free // 512)))  # a tile of block x 2 block and its temporaries: free / 16
    return 512 if inner_product else 256


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
        state = {n: t.float() if t.is_floating_point() else t for n, t in _state(self.critic).items()}
        return torch.func.functional_call(self.critic, state, (z, z_prime))


class _ByTiles(torch.autograd.Function):
    @staticmethod
    def forward(ctx, critic, place, block, z, z_prime, *parameters):
        # One number a row may be large and their difference small: of these, all digits.
        dtype = torch.promote_types(z.dtype, torch.float32)
        log_sum = torch.full((len(z),), -torch.inf, dtype=accumulation_dtype(z.device), device=z.device)
        positive = torch.zeros_like(log_sum)
        tiles = _tiles(place.pair, block, z, z_prime)
        with _progress(len(tiles), "evidence") as bar, values_unchecked():
            for rows, columns, own in tiles:
                log_f = scores(critic, z[rows], z_prime[columns]).to(dtype)
                if place.partners is None:
                    found = log_f.diagonal(own)  # from the tile: rounded as in the sum, so that no row exceeds 0
                    start = rows.start + max(0, -own)
                    positive[start : start + len(found)] = found
                else:
                    others = ~_partners(place, rows, columns, own)
                    positive[rows] += place.partners.share[rows] * log_f.masked_fill(others, 0).sum(1)
                # A critic may keep what it returns; the table of an inner product is ours to overwrite.
                table = log_f if isinstance(critic, InnerProduct) else log_f.clone()
                _hide_(table, place, own, -torch.inf)
                log_sum[rows] = torch.logaddexp(log_sum[rows], _logsumexp_(table))
                bar.update()
        check_normalisers(log_sum)
        ctx.critic, ctx.state, ctx.place, ctx.block = critic, _state(critic), place, block
        ctx.save_for_backward(z, z_prime, log_sum, *parameters)  # of the parameters, so that torch sees them change
        return (positive - log_sum).to(dtype)

    @staticmethod
    def backward(ctx, grad):
        _refuse_second_derivative()
        z, z_prime, log_sum, *_ = ctx.saved_tensors
        parameters = _learnt(ctx.state)
        inputs = (z, z_prime, *parameters)
        grads = [torch.zeros_like(t, dtype=torch.promote_types(t.dtype, torch.float32)) for t in inputs]
        high = log_sum.to(grad.dtype)
        low = (high - log_sum).exp_().neg_().to(grad.dtype)  # what high has lost of log_sum
        largest = grad.abs().max().clamp(min=torch.finfo(grad.dtype).tiny)
        # The 1/N of a mean comes last: in float16 it would push small weights to zero.
        share = (grad / largest)[:, None]
        tiles, critic = _tiles(ctx.place.pair, ctx.block, z, z_prime), _with_state(ctx.critic, ctx.state)
        mass = torch.zeros_like(high)  # of each row, the sum of its softmax weights: minus one
        with _progress(len(tiles), "its gradient") as bar, values_unchecked(), full_precision(z.device):
            for rows, columns, own in tiles:
                tile_z, tile_z_prime = (t.detach().requires_grad_() for t in (z[rows], z_prime[columns]))
                with torch.enable_grad():
                    log_f = scores(critic, tile_z, tile_z_prime)
                weight = (log_f.detach().to(high.dtype) - high[rows, None]).exp_().mul_(low[rows, None])
                _hide_(weight, ctx.place, own, 0.0)
                mass[rows] += weight.sum(1)
                if ctx.place.partners is None:
                    weight.diagonal(own).add_(1)  # d(log f_ii - log sum_j f_ij) / dlog_f
                else:
                    partners = _partners(ctx.place, rows, columns, own)
                    weight += partners * ctx.place.partners.share[rows, None].to(weight)
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
        _check_unchanged(mass, high, log_f.dtype, math.ceil(len(z_prime) / (2 * ctx.block)))
        return None, None, None, *((total * largest).to(t.dtype) for total, t in zip(grads, inputs))


class _ByStrips(torch.autograd.Function):
    @staticmethod
    def forward(ctx, place, q, k):
        first, kind = place.pair, "cuda" if q.device.type == "cuda" else "cpu"
        (least, most), n = STRIP_ROWS[kind], len(q)
        height = max(least, min(most, STRIP_ENTRIES[kind] // len(k)))
        d_q, d_k = torch.empty_like(q), torch.zeros_like(k)
        strip, log_p = q.new_empty(min(n, height), len(k)), q.new_empty(n)
        with _progress(math.ceil(n / height), "evidence and its gradient") as bar:
            for start in range(0, n, height):
                rows, own = slice(start, start + height), slice(first + start, min(first + start + height, first + n))
                table = torch.mm(q[rows], k.T, out=strip[: len(q[rows])])
                positive = table.diagonal(first + start).clone()
                _hide_(table, place, first + start, -torch.inf)
                largest = table.amax(1, keepdim=True)
                f = table.sub_(largest).exp_()
                total = f.sum(1, keepdim=True)
                log_p[rows] = positive - largest.squeeze(1) - total.log().squeeze(1)
                # d log p_i / dq_i = k_i - sum_j P_ij k_j with P_ij = f_ij / total_i, and likewise for k
                d_q[rows] = k[own] - (f @ k).div_(total)
                d_k.addmm_(f.T, q[rows] / total, alpha=-1)
                d_k[own] += q[rows]
                bar.update()
        finite = log_p.isfinite()
        if not finite.all():
            raise ValueError(
                f"row {int((~finite).nonzero()[0])} has an inner product beyond {q.dtype}; expected finite scores. "
                "Divide the latents by their spread, or raise the critic's scale"
            )
        ctx.save_for_backward(d_q, d_k)
        return float64(log_p).sum()

    @staticmethod
    def backward(ctx, grad):
        _refuse_second_derivative()
        return None, *(total * grad for total in ctx.saved_tensors)


def _tiles(first: int, block: int, z: Tensor, z_prime: Tensor) -> list[tuple[slice, slice, int]]:
    """Each tile's rows and columns, and the diagonal of it on which its rows meet their own pairs (it may be empty)."""
    return [
        (slice(i, i + block), slice(j, j + 2 * block), first + i - j)
        for i in range(0, len(z), block)
        for j in range(0, len(z_prime), 2 * block)
    ]


def _hide_(table: Tensor, place: Place, own: int, value: float) -> None:
    """Put the value where a row meets its own view, in a tile whose rows meet their pairs on the diagonal `own`."""
    if place.itself is not None:
        table.diagonal(own + place.itself - place.pair).fill_(value)


def _partners(place: Place, rows: slice, columns: slice, own: int) -> Tensor:
    """Which entries of a tile are partners."""
    assert place.partners is not None
    same = place.partners.of_rows[rows, None] == place.partners.of_columns[columns]
    _hide_(same, place, own, False)
    return same


def _logsumexp_(table: Tensor) -> Tensor:
    """`table.logsumexp(1)` with all its digits, which makes the table's exponential in the table's own memory."""
    largest = table.amax(1, keepdim=True).clamp_(min=torch.finfo(table.dtype).min)  # a row of -inf stays one
    log_sum = table.sub_(largest).exp_().sum(1).log_()
    return log_sum.to(accumulation_dtype(table.device)).add_(largest.squeeze(1))


def check_normalisers(log_sum: Tensor, rows: Tensor | None = None) -> None:
    """Raise for rows whose log sum_j f_ij is not finite; `rows` are their numbers, if not 0, 1, 2 and so on."""
    bad = ~log_sum.isfinite()
    if bad.any():
        first = int(bad.nonzero()[0])
        what = "only scores of -inf" if log_sum[first].isneginf() else "NaN or +inf among its scores"
        raise ValueError(
            f"row {first if rows is None else int(rows[first])} has {what} ({int(bad.sum())} of {len(log_sum)} rows); "
            "expected finite scores, or -inf where f = 0. Look at critic(z, z_prime) for that row"
        )


def _state(critic: nn.Module) -> dict[str, Tensor]:
    return dict(critic.named_parameters()) | dict(critic.named_buffers())


def _learnt(state: dict[str, Tensor]) -> list[Tensor]:
    return [tensor for tensor in state.values() if tensor.requires_grad]


def _with_state(critic: nn.Module, state: dict[str, Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The critic with these tensors as parameters and buffers, if others have taken their place (`functional_call`)."""
    now = _state(critic)
    if all(now.get(name) is tensor for name, tensor in state.items()):
        return critic
    return lambda z, z_prime: torch.func.functional_call(critic, state, (z, z_prime))


def _check_unchanged(mass: Tensor, log_sum: Tensor, dtype: torch.dtype, tiles: int) -> None:
    """Raise unless each row's softmax weights, of scores made anew, add up to (minus) one: half of the digits may differ.

    A logarithm of the sum of f that is large has lost digits itself: to the dtype of the scores, and at each of a row's tiles.
    """
    eps = torch.finfo(log_sum.dtype).eps
    lost = (8 * max(eps, torch.finfo(dtype).eps) + math.sqrt(tiles) * eps) * log_sum.abs()
    if not ((mass + 1).abs() <= rounding(log_sum) + lost).all():
        raise RuntimeError(
            "the critic changed between dataset_evidence and backward, so the gradient would be wrong; expected the same "
            "scores: call backward first, or use one module per setting, and draw nothing in forward"
        )


def _refuse_second_derivative() -> None:
    if torch.is_grad_enabled():  # create_graph=True; the graph of the tiles is not kept
        raise RuntimeError(
            "dataset_evidence has no second derivative, but create_graph=True asks for one; "
            "expected create_graph=False. For small N use infonce(critic(z, z_prime))"
        )


def _progress(total: int, what: str) -> tqdm:
    """A progress bar that appears after two seconds; of several processes, on the first alone, and not for a single tile.

    In a notebook even a bar that never appears sends messages: hundreds of evidences in a cell would crowd out its output.
    """
    dist = torch.distributed
    hidden = total == 1 or (dist.is_available() and dist.is_initialized() and dist.get_rank() > 0)
    return tqdm(total=total, desc=what, delay=2, leave=False, **({"disable": True} if hidden else {}))
