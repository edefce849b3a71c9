"""Estimators of the mutual information of a distribution that is known by samples only: what to train, what to read.

An estimator trains a critic by one function of its table of scores and then reads the information, in nats, from another:

| estimator | trains                    | log f becomes    | reads                                   |
|-----------|---------------------------|------------------|-----------------------------------------|
| InfoNCE   | infonce                   | log r + any c(z) | the same, at most log of the candidates |
| DV        | donsker_varadhan          | log r + any c    | the same                                |
| NWJ       | nwj                       | log r + 1        | the same                                |
| JS        | jensen_shannon            | log r            | nwj(log_f + 1)                          |
| SMILE     | jensen_shannon            | log r            | smile                                   |
| PC        | jensen_shannon            | log r            | plug_in                                 |
| DRF       | density_ratio_fitting     | log r            | plug_in                                 |
| anchor    | infonce_anchor            | log r            | plug_in                                 |

All but InfoNCE and DV set the level of log f, so they need a critic with an additive constant. A walk's scores are at most
0, and a cosine's at most 1 / temperature: train `rpm.WithBias(critic)`.

Here r = Q(z,z') / Q(z)Q(z'), the point-wise dependency, and `ESTIMATORS` holds the table as functions.

All take `log_f` and `q_joint` as `objectives` does, check them as it does, and return an `Objective`. What `q_joint=None`
says differs in one point. There the pairs *are* the distribution, and its marginals meet in all n^2 cells. Here they are
a sample of one: the diagonal holds pairs, and the n(n-1) other cells are the independent draws from Q(z)Q(z'). So all
but `plug_in` raise `ValueError` for a batch of a single pair. Half precision is computed in float32 and rounded once.

The mutual information's gradient without a critic (MIGE) takes samples instead of scores: `stein_score` and `mige`.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ._checks import any_entry, check_alike, check_count, check_latents, check_number, check_range
from ._log_space import accumulation_dtype, at_least_float32, expectation, log_sum
from .objectives import Objective, Pairs, donsker_varadhan, infonce, nwj, rounded

SMOOTHER = ". For a heavy tail read rpm.estimators.smile, which clips it"
CHOICES = 2**24  # the most sums of f that `infonce_anchor` adds up for a table


def jensen_shannon(log_f: Tensor, q_joint: Tensor | None = None) -> Objective:
    """The logistic objective: is this cell a pair or independent? At best, for f = r, the Jensen-Shannon divergence.

    `log_normaliser` = E log (1 + f)/2, the expectation over pairs and independent cells alike.
    """
    pairs, product = _cells(log_f, q_joint)
    s, nothing = pairs.scores, torch.zeros_like(pairs.scores)
    log_mean = torch.logaddexp(s, nothing)
    score, mean, paired = (
        expectation(pairs.cells(t), pairs.weights) / 2 for t in (s, log_mean, torch.logaddexp(-s, nothing))
    )
    independent = expectation(log_mean, product) / 2
    value = math.log(2) - paired - independent  # of pairs E log f/(1+f), since the means of large numbers would cancel
    return rounded(value, score, mean + independent - math.log(2), pairs.dtype)


def density_ratio_fitting(log_f: Tensor, q_joint: Tensor | None = None) -> Objective:
    """Least squares for the ratio, E f - 1/2 E_{Q(z)Q(z')} (f^2 + 1): at best, for f = r, chi^2 / 2 of (E16).

    `score` = E f and `log_normaliser` = the second term; `ValueError` if one of them is beyond the dtype.
    """
    pairs, product = _cells(log_f, q_joint)
    score = _mean_of_exp(pairs.cells(pairs.scores), pairs.weights)
    second = (_mean_of_exp(2 * pairs.scores, product) + 1) / 2
    check_range("E f or E f^2, of f = exp(log_f),", torch.stack([score, second]).to(log_f.dtype))
    return rounded(score - second, score, second, pairs.dtype)


def infonce_anchor(
    log_f: Tensor, q_joint: Tensor | None = None, *, nu: float | None = None, k: int | None = None
) -> Objective:
    """InfoNCE with an anchor: which of k candidates is the partner, or, with odds nu : k, none? At best f = r, not r c(z).

    By default nu = k: even odds that there is a partner. The less weight, the less pins the level of log f: on 256 pairs of
    2.5 nats a walk with a trained bias reads 2.4 then, and 3.0 with nu = 1. nu = 0 is InfoNCE; k = 1 is `jensen_shannon` of a
    table. `log_normaliser` = E log (nu + sum of f) / (nu + k).

    A table needs `k`, and sums over all m^k choices: 2^24 at most in its n rows. A batch has k = n - 1 candidates unless
    `k` says fewer (n for nu = 0): those of row i are its partner and the columns i+1 to i+k-1, counted round, or, without
    a partner, i+1 to i+k. So but for nu = 0, k = n its value depends on the order of the pairs, and k = 1, nu = 1 weighs
    one independent cell of each row where `jensen_shannon` weighs all. Without an anchor, some candidate of the k must
    have f > 0.
    """
    pairs = Pairs.of(log_f, q_joint)
    nu, k = _checked_odds(log_f, q_joint, nu, k)
    share = max(k / (k + nu), torch.finfo(pairs.scores.dtype).tiny)  # of cases with a partner; 0 * -inf would be NaN
    pairs = pairs._replace(
        scores=pairs.scores.to(accumulation_dtype(log_f.device))
    )  # whose digits the difference of two means needs
    with_partner, without = (_batch_log_sums if q_joint is None else _table_log_sums)(pairs, nu, k)
    if any_entry(torch.isneginf, with_partner):
        raise ValueError(
            "log_f is -inf for a partner and may be for all k candidates beside it, so their sum is 0; expected f > 0 for "
            "one of them where nu = 0, or an anchor: nu > 0"
        )
    score = share * expectation(pairs.cells(pairs.scores), pairs.weights)
    log_normaliser = share * with_partner + (1 - share) * without - math.log(k + nu)
    return rounded(score - log_normaliser, score, log_normaliser, log_f.dtype)


def plug_in(log_f: Tensor, q_joint: Tensor | None = None) -> Objective:
    """E log f, for a critic that was trained to be log r: the normaliser of r is one, and its logarithm nothing."""
    pairs = Pairs.of(log_f, q_joint)
    return pairs.objective([pairs.scores.new_zeros(1, 1)])


def smile(log_f: Tensor, q_joint: Tensor | None = None, *, clip: float = 5.0) -> Objective:
    """Donsker-Varadhan, log f clipped to +-clip in its normaliser: less variance, and no longer a bound (SMILE)."""
    if not isinstance(clip, float):  # whose NaN is refused below
        check_number("clip", clip)
    if not clip > 0:
        raise ValueError(f"clip is {clip}; expected a positive number of nats, math.inf for Donsker-Varadhan")
    pairs = Pairs.of(log_f, q_joint)
    clip = clip if clip == math.inf else min(float(clip), torch.finfo(log_f.dtype).max)
    return pairs.objective(_log_mean_f(pairs._replace(scores=pairs.scores.clamp(-clip, clip))))


def unpaired(objective: Callable[..., Objective]) -> Callable[..., Objective]:
    """The objective with independent cells alone in the normaliser of a batch; of a table it is what it was.

    An objective normalises over f, row by row: in a batch some independent cell of each row must have f > 0.
    """
    if not callable(objective):
        raise TypeError(f"objective is a {type(objective).__name__}; expected one of rpm.objectives, such as rpm.nwj")

    def on_samples(log_f: Tensor, q_joint: Tensor | None = None) -> Objective:
        if q_joint is not None:
            return objective(log_f, q_joint)
        pairs = Pairs.of(log_f, None)
        scores = pairs.scores.to(accumulation_dtype(log_f.device))  # whose digits the difference of two means needs
        score, log_normaliser = plug_in(scores).value, objective(sum(_others(scores))).log_normaliser
        check_range("the normaliser of log_f", log_normaliser.to(pairs.dtype), SMOOTHER)
        return rounded(score - log_normaliser, score, log_normaliser, pairs.dtype)

    return on_samples


def _nwj_of_ratio(log_f: Tensor, q_joint: Tensor | None = None) -> Objective:
    """NWJ for a critic that was trained to be log r: its best is log r + 1."""
    pairs = Pairs.of(log_f, q_joint)
    mean_f = sum(_log_mean_f(pairs)).exp()
    check_range("E f, of f = exp(log_f),", mean_f.to(pairs.dtype), SMOOTHER)
    return pairs._replace(scores=pairs.scores + 1).objective([mean_f])


def _others(scores: Tensor) -> tuple[Tensor, float]:
    """A batch's table without its pairs, and what to add to it: the mean over all cells is then that of f over the others."""
    n, paired = _batch_size(scores), torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    return scores.masked_fill(paired, -torch.inf), math.log(n / (n - 1))


def _log_mean_f(pairs: Pairs) -> list[Tensor]:
    """The terms of log E f over independent cells."""
    if pairs.q_joint is not None:
        return pairs.log_mean_f(over="both")
    scores, rescaled = _others(pairs.scores)
    largest, rest = pairs._replace(scores=scores).log_mean_f(over="both")
    return [largest, rest + rescaled]


class Estimator(NamedTuple):
    """Two functions of a table of scores: what the critic is trained to maximise, and what is then read as the MI."""

    objective: Callable[..., Objective]
    estimate: Callable[..., Objective]


ESTIMATORS: Mapping[str, Estimator] = {
    "InfoNCE": Estimator(infonce, infonce),
    "DV": Estimator(unpaired(donsker_varadhan), unpaired(donsker_varadhan)),
    "NWJ": Estimator(unpaired(nwj), unpaired(nwj)),
    "JS": Estimator(jensen_shannon, _nwj_of_ratio),
    "SMILE": Estimator(jensen_shannon, smile),
    "PC": Estimator(jensen_shannon, plug_in),
    "DRF": Estimator(density_ratio_fitting, plug_in),
    "anchor": Estimator(infonce_anchor, plug_in),
}


def stein_score(x: Tensor, *, kept: float = 0.99) -> Tensor:
    """The score, gradient of log q, at n samples x of q, both of shape (n, d): the spectral Stein gradient estimator.

    In the eigenfunctions of a Gaussian kernel, as wide as the median distance, that hold the share `kept` of its trace.
    """
    check_number("kept", kept)
    _check_samples("x", x)
    if not 0 < kept <= 1:
        raise ValueError(f"kept is {kept}; expected a share in (0, 1]")
    u, width = _whitened(x.detach())
    kernel = (-torch.cdist(u, u, compute_mode="donot_use_mm_for_euclid_dist").square() / 2).exp()
    slopes = kernel.sum(1, keepdim=True) * u - kernel @ u  # sum over l of d k(u_l, u_m) / d u_l
    values, vectors = torch.linalg.eigh(kernel)
    larger = values.sum() - values.cumsum(0)  # of each, the sum of the eigenvalues above it
    leading = (larger < kept * values.sum()) & (values > len(x) * torch.finfo(values.dtype).eps * values[-1])
    values, vectors = values[leading], vectors[:, leading]
    score = (-vectors @ (vectors.T @ slopes / values[:, None]) / width[0] / width[1]).to(x.dtype)
    check_range("the score of the samples x", score)
    return score


def mige(z: Tensor, z_prime: Tensor, *, kept: float = 0.99) -> Tensor:
    """A number whose gradient estimates that of I(z;z'): no critic, no bound. Its own value means nothing (MIGE).

    z and z', (n, d) and (n, d'), must be differentiable functions of noise (reparameterised). Each entropy's gradient
    is minus the mean score along the samples' motion, and I = H(z) + H(z') - H(z,z').
    """
    _check_samples("z", z), _check_samples("z_prime", z_prime)
    check_alike("z", z, "z_prime", z_prime)
    if len(z) != len(z_prime):
        raise ValueError(f"z has {len(z)} rows and z_prime {len(z_prime)}; expected one row each per pair")
    sides = [
        at_least_float32(z),
        at_least_float32(z_prime),
        torch.cat([at_least_float32(z), at_least_float32(z_prime)], dim=1),
    ]
    sides = [side / side.detach().abs().max() for side in sides]  # the score times the side is what it was
    entropies = [-(stein_score(side, kept=kept) * side).sum(1).mean() for side in sides]
    return (entropies[0] + entropies[1] - entropies[2]).to(z.dtype)


def _check_samples(name: str, x: Tensor) -> None:
    check_latents(name, x)
    if len(x) < 2:
        raise ValueError(f"{name} has a single row; expected at least two samples")
    if not _whitened(x.detach())[1][0] > 0:
        raise ValueError(
            f"the median distance between rows of {name} is 0, or vanishes beside its largest number; expected samples of "
            "a density, most of them distinct: divide them by their spread"
        )


def _whitened(x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """x about its mean in units of the median distance, at least float32, and that unit in two factors: no overflow."""
    x = at_least_float32(x)
    largest = x.abs().max()
    x = x / largest
    x = x - x.mean(0)
    width = torch.pdist(x).median()
    return x / width, (width, largest)


def _mean_of_exp(values: Tensor, weights: Tensor) -> Tensor:
    """E exp(values), where values without weight may be too large for it."""
    return expectation(values.masked_fill(weights == 0, 0).exp(), weights)


def _batch_size(log_f: Tensor) -> int:
    n = len(log_f)
    if n < 2:
        raise ValueError("log_f has a single pair; expected two or more: the other cells are the independent samples")
    return n


def _cells(log_f: Tensor, q_joint: Tensor | None) -> tuple[Pairs, Tensor]:
    """The pairs, and the weights of independent cells, of log_f's shape."""
    pairs = Pairs.of(log_f, q_joint)
    if q_joint is not None:
        return pairs, torch.outer(pairs.q_joint.sum(1), pairs.q_joint.sum(0))
    n = _batch_size(log_f)
    return pairs, (1 - torch.eye(n, dtype=pairs.scores.dtype, device=log_f.device)) / (n * (n - 1))


def _checked_odds(log_f: Tensor, q_joint: Tensor | None, nu: float | None, k: int | None) -> tuple[float, int]:
    if nu is not None:
        check_number("nu", nu)
        if not nu >= 0:
            raise ValueError(f"nu is {nu}; expected a finite weight of the anchor, 0 for InfoNCE")
    n, m = log_f.shape
    if q_joint is not None:
        if k is None:
            raise ValueError("k is None; a table has no batch size: say how many candidates a softmax sees")
        check_count("k", k)
        most = max(1, int(math.log(CHOICES / n, max(m, 2))))
        if k > most:
            raise ValueError(
                f"k is {k}; expected 1 to {most} candidates: a table of {m} columns sums over all {m}^k choices in each of "
                f"its {n} rows. Take fewer, or a batch"
            )
        return float(k if nu is None else nu), k
    most = n if nu == 0 else _batch_size(log_f) - 1
    k = most if k is None else k
    check_count("k", k)
    if k > most:
        raise ValueError(f"k is {k}; expected 1 to {most} candidates, one column being the partner if nu > 0")
    return float(k if nu is None else nu), k


def _batch_log_sums(pairs: Pairs, nu: float, k: int) -> list[Tensor]:
    """The mean of log (nu + sum of f) over k candidates, the partner among them, and over k others: cyclic neighbours."""
    n = len(pairs.scores)
    steps = torch.arange(n, device=pairs.scores.device)
    around = pairs.scores.gather(1, (steps[:, None] + steps) % n)  # column 0 the partner
    log_nu = torch.full_like(around[:, :1], _log(nu))
    groups = around[:, :k], around[:, 1 : k + 1] if nu > 0 else around[:, :k]
    return [expectation(torch.cat([log_nu, group], 1).logsumexp(1), pairs.weights) for group in groups]


def _table_log_sums(pairs: Pairs, nu: float, k: int) -> list[Tensor]:
    """The same two means, exactly: the last of k candidates is the partner, or independent as the others are."""
    log_f, weights = pairs.scores, pairs.q_joint
    q_z, q_z_prime = weights.sum(1), weights.sum(0)
    log_sums, chance = torch.full_like(log_f[:, :1], _log(nu)), weights.new_ones(1)
    for _ in range(k - 1):
        log_sums = _log_add(log_sums[:, :, None], log_f[:, None]).flatten(1)
        chance = torch.outer(chance, q_z_prime).flatten()
    total = _log_add(log_sums[:, :, None], log_f[:, None])  # (n, m^(k-1), m)
    product = torch.outer(q_z, q_z_prime) if nu > 0 else weights
    return [expectation(total, cells[:, None] * chance[:, None]) for cells in (weights, product)]


def _log(nu: float) -> float:
    return math.log(nu) if nu > 0 else -math.inf


def _log_add(a: Tensor, b: Tensor) -> Tensor:
    """log(exp(a) + exp(b)), with gradient 0 instead of NaN where both are -inf."""
    return log_sum(torch.stack(torch.broadcast_tensors(a, b)))
