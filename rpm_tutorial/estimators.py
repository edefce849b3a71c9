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

Here r = Q(z,z') / Q(z)Q(z'), the point-wise dependency, and `ESTIMATORS` holds the table as functions.

All take `log_f` and `q_joint` as `objectives` does, check them as it does, and return an `Objective`. What `q_joint=None`
says differs in one point. There the pairs *are* the distribution, and its marginals meet in all n^2 cells. Here they are
a sample of one: the diagonal holds pairs, and the n(n-1) other cells are the independent draws from Q(z)Q(z').

The mutual information's gradient without a critic (MIGE) takes samples instead of scores: `stein_score` and `mige`.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ._checks import check_alike, check_tensor
from ._log_space import expectation
from .objectives import Objective, donsker_varadhan, infonce, nwj, pairs


def jensen_shannon(log_f: Tensor, q_joint: Tensor | None = None) -> Objective:
    """The logistic objective: is this cell a pair or independent? At best, for f = r, the Jensen-Shannon divergence.

    `log_normaliser` = E log (1 + f)/2, the expectation over pairs and independent cells alike.
    """
    q_joint, product = _cells(log_f, q_joint)
    log_mean = torch.logaddexp(log_f, torch.zeros_like(log_f)) - math.log(2)
    return _objective(expectation(log_f, q_joint) / 2, expectation(log_mean, (q_joint + product) / 2))


def density_ratio_fitting(log_f: Tensor, q_joint: Tensor | None = None) -> Objective:
    """Least squares for the ratio, E f - 1/2 E_{Q(z)Q(z')} (f^2 + 1): at best, for f = r, chi^2 / 2 of (E16).

    `score` = E f and `log_normaliser` = the second term.
    """
    q_joint, product = _cells(log_f, q_joint)
    return _objective(expectation(log_f.exp(), q_joint), (expectation((2 * log_f).exp(), product) + 1) / 2)


def infonce_anchor(log_f: Tensor, q_joint: Tensor | None = None, *, nu: float = 1.0, k: int | None = None) -> Objective:
    """InfoNCE with an anchor: which of k candidates is the partner, or, with odds nu : k, none? At best f = r, not r c(z).

    nu = 0 is InfoNCE; k = 1, nu = 1 is `jensen_shannon`. `log_normaliser` = E log (nu + sum of f) / (nu + k). A batch has
    k = n - 1 candidates unless `k` says fewer (n for nu = 0); a table needs `k`, and sums over all m^k choices.
    """
    weights = pairs(log_f, q_joint)
    k = _checked_k(log_f, q_joint, nu, k)
    with_partner, without = (_batch_log_sums if q_joint is None else _table_log_sums)(log_f, weights, nu, k)
    log_normaliser = (k * with_partner + nu * without) / (k + nu) - math.log(k + nu)
    return _objective(expectation(log_f, weights) * k / (k + nu), log_normaliser)


def plug_in(log_f: Tensor, q_joint: Tensor | None = None) -> Objective:
    """E log f, for a critic that was trained to be log r: the normaliser of r is one, and its logarithm nothing."""
    score = expectation(log_f, pairs(log_f, q_joint))
    return _objective(score, torch.zeros_like(score))


def smile(log_f: Tensor, q_joint: Tensor | None = None, *, clip: float = 5.0) -> Objective:
    """Donsker-Varadhan, log f clipped to +-clip in its normaliser: less variance, and no longer a bound (SMILE)."""
    if not clip > 0:
        raise ValueError(f"clip is {clip}; expected a positive number of nats, math.inf for Donsker-Varadhan")
    score = expectation(log_f, pairs(log_f, q_joint))
    return _objective(score, unpaired(donsker_varadhan)(log_f.clamp(-clip, clip), q_joint).log_normaliser)


def unpaired(objective: Callable[..., Objective]) -> Callable[..., Objective]:
    """The objective with independent cells alone in the normaliser of a batch; of a table it is what it was."""

    def on_samples(log_f: Tensor, q_joint: Tensor | None = None) -> Objective:
        found = objective(log_f, q_joint)
        if q_joint is not None:
            return found
        n, paired = _batch_size(log_f), torch.eye(len(log_f), dtype=torch.bool, device=log_f.device)
        others = log_f.masked_fill(paired, -torch.inf) + math.log(n / (n - 1))
        return _objective(found.score, objective(others).log_normaliser)

    return on_samples


class Estimator(NamedTuple):
    """Two functions of a table of scores: what the critic is trained to maximise, and what is then read as the MI."""

    objective: Callable[..., Objective]
    estimate: Callable[..., Objective]


ESTIMATORS: Mapping[str, Estimator] = {
    "InfoNCE": Estimator(infonce, infonce),
    "DV": Estimator(unpaired(donsker_varadhan), unpaired(donsker_varadhan)),
    "NWJ": Estimator(unpaired(nwj), unpaired(nwj)),
    "JS": Estimator(jensen_shannon, lambda log_f, q_joint=None: unpaired(nwj)(log_f + 1, q_joint)),
    "SMILE": Estimator(jensen_shannon, smile),
    "PC": Estimator(jensen_shannon, plug_in),
    "DRF": Estimator(density_ratio_fitting, plug_in),
    "anchor": Estimator(infonce_anchor, plug_in),
}


def stein_score(x: Tensor, *, kept: float = 0.99) -> Tensor:
    """The score, gradient of log q, at n samples x of q, both of shape (n, d): the spectral Stein gradient estimator.

    In the eigenfunctions of a Gaussian kernel, as wide as the median distance, that hold the share `kept` of its trace.
    """
    check_tensor("x", x, dims=2)
    if not 0 < kept <= 1 or len(x) < 2:
        raise ValueError(f"kept is {kept} and x has {len(x)} rows; expected a share in (0, 1] and at least two samples")
    x = x.detach()
    squared_width = torch.pdist(x).median().square()
    if not squared_width > 0:
        raise ValueError(
            "the median distance between rows of x is 0; expected samples of a density, most of them distinct"
        )
    kernel = (-torch.cdist(x, x).square() / (2 * squared_width)).exp()
    slopes = (kernel.sum(1, keepdim=True) * x - kernel @ x) / squared_width  # sum over l of d k(x_l, x_m) / d x_l
    values, vectors = torch.linalg.eigh(kernel)
    larger = values.sum() - values.cumsum(0)  # of each, the sum of the eigenvalues above it
    leading = larger < kept * values.sum()
    values, vectors = values[leading], vectors[:, leading]
    return -vectors @ (vectors.T @ slopes / values[:, None])


def mige(z: Tensor, z_prime: Tensor, *, kept: float = 0.99) -> Tensor:
    """A number whose gradient estimates that of I(z;z'): no critic, no bound. Its own value means nothing (MIGE).

    z and z', (n, d) and (n, d'), must be differentiable functions of noise (reparameterised). Each entropy's gradient
    is minus the mean score along the samples' motion, and I = H(z) + H(z') - H(z,z').
    """
    check_tensor("z", z, dims=2), check_tensor("z_prime", z_prime, dims=2)
    check_alike("z", z, "z_prime", z_prime)
    if len(z) != len(z_prime):
        raise ValueError(f"z has {len(z)} rows and z_prime {len(z_prime)}; expected one row each per pair")
    both = torch.cat([z, z_prime], dim=1)
    entropies = [-(stein_score(side, kept=kept) * side).sum(1).mean() for side in (z, z_prime, both)]
    return entropies[0] + entropies[1] - entropies[2]


def _objective(score: Tensor, log_normaliser: Tensor) -> Objective:
    return Objective(score - log_normaliser, score, log_normaliser)


def _batch_size(log_f: Tensor) -> int:
    n = len(log_f)
    if n < 2:
        raise ValueError("log_f has a single pair; expected two or more: the other cells are the independent samples")
    return n


def _cells(log_f: Tensor, q_joint: Tensor | None) -> tuple[Tensor, Tensor]:
    """The weights of pairs and of independent cells, each of log_f's shape."""
    weights = pairs(log_f, q_joint)
    if q_joint is None:
        n = _batch_size(log_f)
        return weights, (weights == 0).to(log_f.dtype) / (n * (n - 1))
    return weights, torch.outer(q_joint.sum(1), q_joint.sum(0))


def _checked_k(log_f: Tensor, q_joint: Tensor | None, nu: float, k: int | None) -> int:
    if not 0 <= nu < math.inf:
        raise ValueError(f"nu is {nu}; expected a finite weight of the anchor, 0 for InfoNCE")
    most = math.inf if q_joint is not None else len(log_f) - (nu > 0)
    if k is None and q_joint is not None:
        raise ValueError("k is None; a table has no batch size: say how many candidates a softmax sees")
    k = most if k is None else k
    if not 1 <= k <= most:
        raise ValueError(f"k is {k}; expected 1 to {most} candidates, one column being the partner if nu > 0")
    return k


def _batch_log_sums(log_f: Tensor, weights: Tensor, nu: float, k: int) -> tuple[Tensor, Tensor]:
    """The mean of log (nu + sum of f) over k candidates, the partner among them, and over k others: cyclic neighbours."""
    n = len(log_f)
    steps = torch.arange(n, device=log_f.device)
    around = log_f.gather(1, (steps[:, None] + steps) % n)  # column 0 the partner
    log_nu = torch.full_like(log_f[:, :1], nu).log()
    groups = [around[:, :k]] + ([around[:, 1 : k + 1]] if nu > 0 else [around[:, :k]])
    return tuple(torch.cat([log_nu, group], 1).logsumexp(1).mean() for group in groups)


def _table_log_sums(log_f: Tensor, weights: Tensor, nu: float, k: int) -> tuple[Tensor, Tensor]:
    """The same two means, exactly: the last of k candidates is the partner, or independent as the others are."""
    weights, product = _cells(log_f, weights)
    log_sums, chance = torch.full_like(log_f[:, :1], nu).log(), log_f.new_ones(1)
    for _ in range(k - 1):
        log_sums = torch.logaddexp(log_sums[:, :, None], log_f[:, None]).flatten(1)
        chance = torch.outer(chance, weights.sum(0)).flatten()
    total = torch.logaddexp(log_sums[:, :, None], log_f[:, None])  # (n, m^(k-1), m)
    return tuple(expectation(total, cells[:, None] * chance[:, None]) for cells in (weights, product))
