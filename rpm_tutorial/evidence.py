"""The log evidence of a whole data set (E14): exact, with exact gradients, in O(N) memory, for any critic."""

import math
import zlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ._checks import check_alike, check_latents, one_of, shape_of, values_unchecked
from ._log_space import accumulation_dtype, float64, full_precision, saveable
from ._tiles import (
    InFloat32,
    InnerProduct,
    Place,
    Transposed,
    block_for,
    by_strips,
    by_tiles,
    check_normalisers,
    place_of,
)
from .critics import LinearCritic, change_between_calls, check_is_module, in_training_mode, scores
from .distributed import check_same, everyones, gather, mean_over_ranks


class Evidence(NamedTuple):
    """The evidence of N pairs in nats per pair. Source: (E14).

    `value` is the objective of all N pairs at once, and `objective` its name: "infonce" for I_N, which `infonce` gives too,
    or "symmetric_infonce" with normalise="both". `log_evidence` = value - 2 log N is (1/N) sum log P(x_i,x'_i), of "both"
    the mean of the two models', and of k further candidates value - log N - log (N+k). Both are 0-dimensional, or of shape
    (N,), one term of the mean each, with reduction="none". They have the dtype of z, but float32 where that is float16 or
    bfloat16. `n` is N, of "views" 2N.
    """

    value: Tensor
    log_evidence: Tensor
    n: int
    objective: Literal["infonce", "symmetric_infonce"] = "infonce"

    @property
    def infonce(self) -> Tensor:
        """I_N, the full-batch InfoNCE; `AttributeError` for the evidence of both sides, whose objective is another."""
        if self.objective != "infonce":
            raise AttributeError(
                "this evidence is normalised over both sides, so its objective is not InfoNCE: take .value for the symmetric "
                'objective, or call dataset_evidence with normalise="rows" for InfoNCE'
            )
        return self.value


class SampledEvidence(NamedTuple):
    """An estimate of an `Evidence`, in nats per pair, and the standard error that both numbers have."""

    infonce: float
    log_evidence: float
    standard_error: float
    n: int


def dataset_evidence(
    z: Tensor,
    z_prime: Tensor,
    critic: nn.Module,
    *,
    candidates: Tensor | None = None,
    labels: Tensor | Sequence | None = None,
    normalise: Literal["rows", "columns", "both", "views"] = "rows",
    reduction: Literal["mean", "none"] = "mean",
    block: int | None = None,
    group: torch.distributed.ProcessGroup | None = None,
) -> Evidence:
    """The log evidence of the N encoded pairs (z_i, z'_i) under the critic's InfoNCE prior. Source: (E14).

    The N x N table of scores is visited in tiles and never stored. The value carries exact gradients to z, z' and the
    critic's parameters; without need of them, `torch.no_grad()` saves two thirds of the time. A `LinearCritic` (all but
    `LaplaceWalk` here) takes a faster way to the same numbers.

    Args:
        z, z_prime: shape (N, d), the pairs row by row; any floating dtype. Half precision is computed in float32, and
            autocast is off inside.
        critic: an `nn.Module` from (n, d), (m, d) to log_f of shape (n, m), pair by pair and the same at each call.
        candidates: further z', shape (k, d), over which the normaliser runs as over those of the pairs: a queue.
        labels: N numbers or words: all pairs of one label are then partners of each other, alike, as `infonce` has it with
            q_joint_ij = 1 / (N n_c) for the n_c pairs of a label, and, without candidates, I_N is at most the entropy of
            the labels. Over "views" a row has 2 n_c - 1 partners: it is SupCon's, and log 2N - value the loss.
        normalise: the prior's normaliser runs over z' ("rows"), over z ("columns"), or "both": the symmetric objective,
            the mean of the two models' evidences (E12). "views" is NT-Xent's: each side's latents are 2N rows, whose
            candidates are all other views of both sides, so that log 2N - value is the loss.
        reduction: "mean", or "none" for one number per pair.
        block: rows of a tile, whose columns are twice as many; then every critic goes by tiles. By default the way and
            the size that suit critic and device.
        group: a `torch.distributed` process group, whose every process holds its own rows of z and z'. The value is
            that of all rows, on each process; for gradients and an example see `rpm_tutorial.distributed`. Candidates
            are the same on each, labels those of its own rows.
    Raises:
        TypeError: the critic is no `nn.Module` (tensors that a plain function captures would get no gradient), or
            returns no tensor.
        ValueError: NaN, +inf, unequal numbers of rows, mixed dtypes, a row whose candidates all score -inf, a critic that draws or
            changes from call to call, or has dropout or batch norm in training mode, or whose output is not (n, m), an
            unknown option.
        RuntimeError: in `backward`, a critic that changed since the call, as a loop changes an attribute (parameters and
            buffers that are exchanged, as by `functional_call`, are remembered); a second derivative is asked for; a process
            of the group is lost.

    Example, a held-out set with an encoder and a critic of your own:

        >>> class Periodic(nn.Module):                       # log f = cos(w (z - z')) summed over dimensions
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.w = nn.Parameter(torch.tensor(1.0))
        ...     def forward(self, z, z_prime):
        ...         return torch.cos(self.w * (z[:, None] - z_prime)).sum(2)
        >>> with torch.no_grad():
        ...     evidence = dataset_evidence(encoder(x), encoder(x_prime), Periodic())
        >>> evidence.log_evidence     # nats per pair; chance is -2 log N
    """
    _check_pairs(z, z_prime, critic)
    one_of("normalise", normalise, ("rows", "columns", "both", "views"))
    one_of("reduction", reduction, ("mean", "none"))
    if candidates is not None:
        check_latents("candidates", candidates)
        check_alike("z_prime", z_prime, "candidates", candidates)
        found = (
            f"candidates has shape {shape_of(candidates)}, z_prime {shape_of(z_prime)}, and normalise is {normalise!r}"
        )
        if candidates.shape[1] != z_prime.shape[1] or normalise != "rows":
            raise ValueError(f'{found}; expected further z_prime, of as many columns, and "rows", which runs over them')
    if group is not None:
        digest = None
        if candidates is not None:
            digest = zlib.crc32(candidates.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        check_same({"candidates": digest, "labels": labels is not None}, group, z.device)
    if normalise == "views" and z.shape[1] != z_prime.shape[1]:
        found = f"z has shape {shape_of(z)} and z_prime {shape_of(z_prime)}"
        raise ValueError(f'{found}; expected views of one kind for normalise="views", which scores a side with itself')
    of_all = None if labels is None else label_numbers(labels, z, group)
    z, z_prime, critic = _in_float32(z, z_prime, critic)
    directions = []
    with full_precision(z.device):
        _check_fixed(critic, z, z_prime)
        if normalise in ("rows", "both"):
            columns, first, n = gather(z_prime, group)
            columns = columns if candidates is None else torch.cat([columns, saveable(candidates).to(z)])
            place = place_of(first, len(z), len(columns), of_all)
            directions.append(_log_p(z, columns, critic, place, block, "rows", reduction))
        if normalise in ("columns", "both"):
            columns, first, n = gather(z, group)
            place = place_of(first, len(z), n, of_all)
            directions.append(_log_p(columns, z_prime, critic, place, block, "columns", reduction))
        if normalise == "views":
            (all_z, first, n), (all_z_prime, *_) = gather(z, group), gather(z_prime, group)
            for own, side, other in ((z, all_z_prime, all_z), (z_prime, all_z, all_z_prime)):
                columns, place = torch.cat([side, other]), place_of(first, len(z), 2 * n, of_all, itself=n + first)
                directions.append(_log_p(own, columns, critic, place, block, "rows", reduction))
    if reduction == "mean":  # each direction is a sum over the pairs already, or has one number for each
        log_p = mean_over_ranks(torch.stack([float64(log_p).sum() for log_p in directions]).mean() / n, group)
    else:
        log_p = torch.stack(directions).mean(0)
    rows = 2 * n if normalise == "views" else n
    value, log_evidence = (log_p + math.log(len(columns))).to(z), (log_p - math.log(rows)).to(z)
    return Evidence(value, log_evidence, rows, "symmetric_infonce" if normalise == "both" else "infonce")


@torch.no_grad()
def sampled_evidence(
    z: Tensor,
    z_prime: Tensor,
    critic: nn.Module,
    *,
    rows: int = 8192,
    negatives: int = 2048,
    generator: torch.Generator,
) -> SampledEvidence:
    """An estimate of `dataset_evidence` from some of its rows and columns, for an N whose square is too many.

    Each row keeps its own pair and stands its other candidates for all N - 1: Z_i = (f_ii + (N-1)/M sum_j f_ij) / N over
    M sampled j. Unlike InfoNCE on a batch of M (E16) this has no ceiling at log M; it is biased upwards (Jensen) by
    about half the relative variance of Z_i, of order 1/M. The rows are drawn in 32 groups, each with candidates of its
    own, and the spread of the groups' means gives the standard error, of which the part that comes from the choice
    of rows is overstated when they are a large part of N, and which is itself rough below some 300 rows. No gradient.

    It speaks of what was drawn. A pair of f = 0 makes the evidence -inf (with a standard error of inf) if its row is drawn,
    and goes unseen if not; so does a rare pair, or a rare candidate, that outweighs many.

    Args:
        rows: how many of the N rows, at most all of them; rounded down to a multiple of 32.
        negatives: M, candidates of each group of rows; at most all.
        generator: on any device; it chooses rows and candidates.
    Raises:
        ValueError: as `dataset_evidence`; also for fewer than 64 rows or 2 negatives.

    Example:
        >>> sampled_evidence(z, z_prime, critic, generator=torch.Generator().manual_seed(0))
    """
    _check_pairs(z, z_prime, critic)
    n, groups = len(z), 32
    rows, negatives = min(rows, n), min(negatives, n)
    if rows < 2 * groups:
        raise ValueError(
            f"rows is {rows} of N = {n}; expected at least {2 * groups}, in {groups} groups for the standard error: "
            "for few pairs use dataset_evidence"
        )
    if negatives < 2:
        raise ValueError(f"negatives is {negatives}; expected at least 2")
    z, z_prime, critic = _in_float32(z, z_prime, critic)
    _check_fixed(critic, z, z_prime)
    seed = int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))
    choice = np.random.default_rng(seed).choice
    means = []
    for group in tqdm(choice(n, (groups, rows // groups), replace=False), "evidence, sampled", delay=2, leave=False):
        own, others = (torch.from_numpy(k).to(z.device) for k in (group, choice(n, negatives, replace=False)))
        positive = scores(critic, z[own], z_prime[own]).diagonal().to(accumulation_dtype(z.device))
        pair_itself = own[:, None] == others
        log_f = scores(critic, z[own], z_prime[others]).to(positive.dtype).masked_fill(pair_itself, -torch.inf)
        log_share = ((n - 1) / (negatives - pair_itself.sum(1))).log()
        log_sum = torch.logaddexp(positive, log_f.logsumexp(1) + log_share)
        check_normalisers(log_sum, own)
        means.append(float64(positive - log_sum).mean())
    of_groups = torch.stack(means)
    log_p, standard_error = of_groups.mean().item(), of_groups.std().item() / math.sqrt(groups)
    if log_p == -math.inf:
        standard_error = math.inf
    return SampledEvidence(log_p + math.log(n), log_p - math.log(n), standard_error, n)


def _log_p(
    z: Tensor, z_prime: Tensor, critic: nn.Module, place: Place, block: int | None, side: str, reduction: str
) -> Tensor:
    """log f_ii - log sum_j f_ij, j over z' (side "rows") or z: of each pair, or their sum where that is all that is asked."""
    own_forward = getattr(critic.forward, "__func__", None) is not LinearCritic.forward
    if not isinstance(critic, LinearCritic) or own_forward or critic._forward_hooks or critic._forward_pre_hooks:
        block = block or block_for(z.device, inner_product=False)
        if side == "columns":
            return by_tiles(Transposed(critic), place, block, z_prime, z)
        return by_tiles(critic, place, block, z, z_prime)
    q, k, row_bias, bias = critic.linear_form(z, z_prime)
    if side == "columns":
        q, k, bias = k, q, row_bias
    if bias is not None:  # as one more dimension: cheaper than to add it to each tile
        q = torch.cat([q, torch.ones_like(q[:, :1])], 1)  # before k, so that two copies are never alive at once
        k = torch.cat([k, bias[:, None]], 1)
    learns = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad)
    if learns and reduction == "mean" and block is None and place.partners is None:
        return by_strips(place, q, k)
    return by_tiles(InnerProduct(), place, block or block_for(z.device, inner_product=True), q, k)


def _in_float32(z: Tensor, z_prime: Tensor, critic: nn.Module) -> tuple[Tensor, Tensor, nn.Module]:
    """All three, in float32 if the latents are in half precision, and as autograd can save them."""
    z, z_prime = saveable(z), saveable(z_prime)
    if torch.finfo(z.dtype).bits >= 32:
        return z, z_prime, critic
    return z.float(), z_prime.float(), InFloat32(critic)


def _check_fixed(critic: nn.Module, z: Tensor, z_prime: Tensor) -> None:
    """Raise for scores of another shape, or others at each call, by a few pairs: as many rows as columns would not show a
    transposed table."""
    rows = min(8, len(z_prime) // 2)
    with values_unchecked():  # those of all pairs are checked later, with the row that they are in
        change = change_between_calls(critic, z[:rows], z_prime[: 2 * rows]) if rows else None
    if change is not None:
        raise ValueError(
            f"the critic's scores change from call to call: {change}; expected a fixed critic: call critic.eval(), and "
            "F.dropout(z, p, self.training) for F.dropout(z, p) in forward"
        )


def _check_pairs(z: Tensor, z_prime: Tensor, critic: nn.Module) -> None:
    check_latents("z", z)
    check_latents("z_prime", z_prime)
    check_alike("z", z, "z_prime", z_prime)
    if len(z) != len(z_prime):
        raise ValueError(f"z has shape {shape_of(z)} and z_prime {shape_of(z_prime)}; expected one row each per pair")
    check_is_module(critic)
    changing = in_training_mode(critic)
    if changing:
        raise ValueError(
            f"the critic's {changing}, so that its scores change from tile to tile; expected a fixed critic: "
            "call critic.eval()"
        )


def label_names(labels: Tensor | Sequence | np.ndarray, n: int) -> np.ndarray:
    """The labels of n pairs, all there."""
    names = np.asarray(labels.tolist() if isinstance(labels, Tensor) else labels)
    if names.shape != (n,):
        raise ValueError(f"labels has shape {names.shape} for {n} pairs; expected ({n},), one a pair")
    missing = sum(label is None or label != label for label in names.tolist())  # NaN
    if missing:
        raise ValueError(
            f"{missing} labels are missing (NaN or None); expected one for each pair: leave those pairs out"
        )
    return names


def label_numbers(labels: Tensor | Sequence, z: Tensor, group=None) -> Tensor:
    """The labels of all processes' rows as numbers from 0, in the order of their ranks."""
    names = label_names(labels, len(z))
    if group is not None:
        names = np.concatenate([np.asarray(of_one) for of_one in everyones(names.tolist(), group, z.device)])
    return torch.from_numpy(np.unique(names, return_inverse=True)[1]).to(z.device)
