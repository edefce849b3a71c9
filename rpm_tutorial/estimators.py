"""Estimators of the mutual information of a distribution that is known by samples only: what to train, what to read.

An estimator trains a critic by one function of its table of scores and then reads the information, in nats, from another:

| estimator | trains                    | log f becomes    | reads                                   |
|-----------|---------------------------|------------------|-----------------------------------------|
| InfoNCE   | infonce                   | log r + any c(z) | the same, at most log of the candidates |
| DV        | donsker_varadhan          | log r + any c    | the same                                |
| NWJ       | nwj                       | log r + 1        | the same                                |
| JS        | jensen_shannon            | log r            | nwj(log_f + 1)                          |
| SigLIP    | siglip                    | log r - log k    | donsker_varadhan, or infonce            |
| SMILE     | jensen_shannon            | log r            | smile                                   |
| PC        | jensen_shannon            | log r            | plug_in                                 |
| DRF       | density_ratio_fitting     | log r            | plug_in                                 |
| anchor    | infonce_anchor            | log r            | plug_in                                 |

All but InfoNCE and DV set the level of log f, so they need a critic with an additive constant. A walk's scores are at most
0, and a cosine's at most 1 / temperature: train `rpm.WithBias(critic)`.

Here r = Q(z,z') / Q(z)Q(z'), the point-wise dependency, and `ESTIMATORS` holds the table as functions.

All take `log_f` and `q_joint` as `objectives` does, check them as it does, and return an `Objective`. What `q_joint=None`
says differs in one point. There the pairs *are* the distribution, and its marginals meet in all n^2 cells. Here they are
a sample of one: the diagonal holds pairs, and the n(m-1) other cells are the independent draws from Q(z)Q(z'). So all
but `plug_in` raise `ValueError` for a batch of a single pair. All is computed in float64 and has the dtype of `log_f`.

The mutual information's gradient without a critic (MIGE) takes samples instead of scores: `stein_score` and `mige`.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ._checks import any_entry, check_alike, check_count, check_latents, check_log_table, check_positive, check_range
from ._log_space import accumulation_dtype, at_least_float32, expectation, log_sum
from .objectives import Objective, average, donsker_varadhan, infonce, log_mean_f_of_all, nwj, prepare

SMOOTHER = ". For a heavy tail read rpm.estimators.smile, which clips it"
CHOICES = 2**24  # the most sums of f that `infonce_anchor` adds up for a table


def jensen_shannon(log_f: Tensor, q_joint: Tensor | None = None) -> Objective:
    """The logistic objective: is this cell a pair or independent? At best, for f = r, the Jensen-Shannon divergence.

    `log_normaliser` = E log (1 + f)/2, the expectation over pairs and independent cells alike.
    """
    value, score, log_normaliser = (part / 2 for part in _logistic(*_cells(log_f, q_joint), 1))
    return _rounded(log_f.dtype, value + math.log(2), score, log_normaliser - math.log(2))


def siglip(log_f: Tensor, q_joint: Tensor | None = None, *, k: float | None = None) -> Objective:
    """SigLIP's loss, negative: the logistic objective with k independent cells to a pair. At best f = r / k: NCE, no ELBO.

    k = m - 1 in a batch, where all cells count alike; by default 1 for a table. `log_normaliser` = the sum over a row of
    log (1 + f). Its critic needs a bias, at best near -log k: `rpm.WithBias`. Source: arXiv 2303.15343.
    """
    cells = _cells(log_f, q_joint)
    return _rounded(log_f.dtype, *_logistic(*cells, _odds(log_f, q_joint) if k is None else check_positive("k", k)))


def density_ratio_fitting(log_f: Tensor, q_joint: Tensor | None = None) -> Objective:
    """Least squares for the ratio, E f - 1/2 E_{Q(z)Q(z')} (f^2 + 1): at best, for f = r, chi^2 / 2 of (E16).

    `score` = E f and `log_normaliser` = the second term; `ValueError` if one of them is beyond the dtype.
    """
    s, pairs, product = _cells(log_f, q_joint)
    score = expectation(s.masked_fill(pairs == 0, 0).exp(), pairs)
    second = (expectation((2 * s).masked_fill(product == 0, 0).exp(), product) + 1) / 2
    check_range("E f or E f^2, of f = exp(log_f),", torch.stack([score, second]).to(log_f.dtype))
    return _rounded(log_f.dtype, score - second, score, second)


def infonce_anchor(
    log_f: Tensor, q_joint: Tensor | None = None, *, nu: float | None = None, k: int | None = None
) -> Objective:
    """InfoNCE with an anchor: which of k candidates is the partner, or, with odds nu : k, none? At best f = r, not r c(z).

    By default nu = k: even odds that there is a partner. The less weight, the less pins the level of log f: on 256 pairs of
    2.5 nats a walk with a trained bias reads 2.4 then, and 3.0 with nu = 1. nu = 0 is InfoNCE; k = 1 is `jensen_shannon` of a
    table. `log_normaliser` = E log (nu + sum of f) / (nu + k).

    A table needs `k`, and sums over all m^k choices: 2^24 at most in its n rows. A batch has k = m - 1 candidates unless
    `k` says fewer (m for nu = 0): those of row i are its partner and the columns i+1 to i+k-1, counted round, or, without
    a partner, i+1 to i+k. So but for nu = 0, k = m its value depends on the order of the pairs, and k = 1, nu = 1 weighs
    one independent cell of each row where `jensen_shannon` weighs all. Without an anchor, some candidate of the k must
    have f > 0.
    """
    s, q = _prepare(log_f, q_joint)
    k = _candidates(s, q, nu, k)
    nu = float(k if nu is None else nu)
    share = k / (k + nu)  # of cases with a partner
    with_partner, without = _batch_log_sums(s, nu, k) if q is None else _table_log_sums(s, q, nu, k)
    if any_entry(torch.isneginf, with_partner):
        raise ValueError(
            "log_f is -inf for a partner and may be for all k candidates beside it, so their sum is 0; expected f > 0 for "
            "one of them where nu = 0, or an anchor: nu > 0"
        )
    score = share * (s.diagonal().mean() if q is None else expectation(s, q))
    log_normaliser = share * with_partner + (1 - share) * without - math.log(k + nu)
    return _rounded(log_f.dtype, score - log_normaliser, score, log_normaliser)


def plug_in(log_f: Tensor, q_joint: Tensor | None = None) -> Objective:
    """E log f, for a critic that was trained to be log r: the normaliser of r is one, and its logarithm nothing."""
    s, q = _prepare(log_f, q_joint)
    return average(s, s.new_zeros(1), q, log_f.dtype)


def smile(log_f: Tensor, q_joint: Tensor | None = None, *, clip: float = 5.0) -> Objective:
    """Donsker-Varadhan, log f clipped to +-clip in its normaliser: less variance, and no longer a bound (SMILE)."""
    if not clip > 0:
        raise ValueError(f"clip is {clip}; expected a positive number of nats, math.inf for Donsker-Varadhan")
    s, q = _prepare(log_f, q_joint)
    return average(s, _log_mean_f(s.clamp(-clip, clip), q), q, log_f.dtype)


def unpaired(objective: Callable[..., Objective]) -> Callable[..., Objective]:
    """The objective with independent cells alone in the normaliser of a batch; of a table it is what it was.

    An objective normalises over f, row by row: in a batch some independent cell of each row must have f > 0.
    """

    def on_samples(log_f: Tensor, q_joint: Tensor | None = None) -> Objective:
        if q_joint is not None:
            return objective(log_f, q_joint)
        s, _ = _prepare(log_f, None)
        score, log_normaliser = s.diagonal().mean(), objective(_others(s)).log_normaliser
        check_range("the normaliser of log_f", log_normaliser.to(log_f.dtype), SMOOTHER)
        return _rounded(log_f.dtype, score - log_normaliser, score, log_normaliser)

    return on_samples


def _nwj_of_ratio(log_f: Tensor, q_joint: Tensor | None = None) -> Objective:
    """NWJ for a critic that was trained to be log r: its best is log r + 1."""
    s, q = _prepare(log_f, q_joint)
    mean_f = _log_mean_f(s, q).exp()
    check_range("E f, of f = exp(log_f),", mean_f.to(log_f.dtype), SMOOTHER)
    return average(s + 1, mean_f, q, log_f.dtype)


def _prepare(log_f: Tensor, q_joint: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """s and q as the objectives have them, both float64: the difference of two means needs the digits."""
    s, q = prepare(log_f, q_joint)
    check_log_table("log_f", log_f)
    return s.to(accumulation_dtype(s.device)), q


def _rounded(dtype: torch.dtype, *parts: Tensor) -> Objective:
    return Objective(*(part.to(dtype) for part in parts))


def _cells(log_f: Tensor, q_joint: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """s, and the weights of its cells as pairs and as independent draws."""
    s, q = _prepare(log_f, q_joint)
    if q is not None:
        return s, q, torch.outer(q.sum(1), q.sum(0))
    paired = torch.eye(*s.shape, dtype=s.dtype, device=s.device)
    return s, paired / len(s), (1 - paired) / (len(s) * _odds(s, q))


def _logistic(s: Tensor, pairs: Tensor, product: Tensor, k: float) -> tuple[Tensor, Tensor, Tensor]:
    """E log f/(1+f) over pairs + k E log 1/(1+f) over independent cells: their sum, E log f, and what lies between."""
    log_mean, missed = (torch.logaddexp(sign * s, torch.zeros_like(s)) for sign in (1, -1))
    score, paired, independent = (expectation(*part) for part in ((s, pairs), (log_mean, pairs), (log_mean, product)))
    value = -expectation(missed, pairs) - k * independent  # in score - paired the digits would cancel
    return value, score, paired + k * independent


def _others(s: Tensor) -> Tensor:
    """A batch's table without its pairs, raised so that the mean of f over all cells is that over the others."""
    paired, others = torch.eye(*s.shape, dtype=torch.bool, device=s.device), _odds(s, None)
    return s.masked_fill(paired, -torch.inf) + math.log1p(1 / others)


def _log_mean_f(s: Tensor, q: Tensor | None) -> Tensor:
    """log E f over independent cells."""
    return log_mean_f_of_all(_others(s) if q is None else s, q)


def _odds(log_f: Tensor, q: Tensor | None) -> int:
    """Independent cells to a pair: in a batch, the others of its row."""
    if q is None and log_f.shape[1] < 2:
        raise ValueError("log_f has a single pair; expected two or more: the other cells are the independent samples")
    return log_f.shape[1] - 1 if q is None else 1


class Estimator(NamedTuple):
    """Two functions of a table of scores: what the critic is trained to maximise, and what is then read as the MI."""

    objective: Callable[..., Objective]
    estimate: Callable[..., Objective]


ESTIMATORS: Mapping[str, Estimator] = {
    "InfoNCE": Estimator(infonce, infonce),
    "DV": Estimator(unpaired(donsker_varadhan), unpaired(donsker_varadhan)),
    "NWJ": Estimator(unpaired(nwj), unpaired(nwj)),
    "JS": Estimator(jensen_shannon, _nwj_of_ratio),
    "SigLIP": Estimator(siglip, unpaired(donsker_varadhan)),
    "SMILE": Estimator(jensen_shannon, smile),
    "PC": Estimator(jensen_shannon, plug_in),
    "DRF": Estimator(density_ratio_fitting, plug_in),
    "anchor": Estimator(infonce_anchor, plug_in),
}


def stein_score(x: Tensor, *, kept: float = 0.99) -> Tensor:
    """The score, gradient of log q, at n samples x of q, both of shape (n, d): the spectral Stein gradient estimator.

    In the eigenfunctions of a Gaussian kernel, as wide as the median distance, that hold the share `kept` of its trace.
    """
    if not 0 < kept <= 1:
        raise ValueError(f"kept is {kept}; expected a share in (0, 1]")
    u, width = _whitened("x", x.detach())
    kernel = (-torch.cdist(u, u, compute_mode="donot_use_mm_for_euclid_dist").square() / 2).exp()
    slopes = kernel.sum(1, keepdim=True) * u - kernel @ u  # sum over l of d k(u_l, u_m) / d u_l
    values, vectors = torch.linalg.eigh(kernel)
    larger = values.sum() - values.cumsum(0)  # of each, the sum of the eigenvalues above it
    leading = (larger < kept * values.sum()) & (values > len(x) * torch.finfo(values.dtype).eps * values[-1])
    values, vectors = values[leading], vectors[:, leading]
    return (-vectors @ (vectors.T @ slopes / values[:, None]) / width).to(x.dtype)


def mige(z: Tensor, z_prime: Tensor, *, kept: float = 0.99) -> Tensor:
    """A number whose gradient estimates that of I(z;z'): no critic, no bound. Its own value means nothing (MIGE).

    z and z', (n, d) and (n, d'), must be differentiable functions of noise (reparameterised). Each entropy's gradient
    is minus the mean score along the samples' motion, and I = H(z) + H(z') - H(z,z').
    """
    check_latents("z", z)
    check_latents("z_prime", z_prime)
    check_alike("z", z, "z_prime", z_prime)
    if len(z) != len(z_prime):
        raise ValueError(f"z has {len(z)} rows and z_prime {len(z_prime)}; expected one row each per pair")
    sides = {"z": z, "z_prime": z_prime, "(z, z_prime)": torch.cat([z, z_prime], 1)}
    of_z, of_z_prime, of_both = (_entropy(name, at_least_float32(side), kept) for name, side in sides.items())
    return (of_z + of_z_prime - of_both).to(z.dtype)


def _entropy(name: str, x: Tensor, kept: float) -> Tensor:
    _whitened(name, x.detach())
    return -(stein_score(x, kept=kept) * x).sum(1).mean()


def _whitened(name: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """x about its mean in units of the median distance between its rows, at least float32, and that unit."""
    check_latents(name, x)
    if len(x) < 2:
        raise ValueError(f"{name} has a single row; expected at least two samples")
    x = at_least_float32(x)
    x = x - x.mean(0)
    width = torch.pdist(x).median()
    if not 0 < width < torch.inf:
        raise ValueError(
            f"the median distance between rows of {name} is {width:.3g}; expected samples of a density, most of them distinct"
        )
    return x / width, width


def _candidates(s: Tensor, q: Tensor | None, nu: float | None, k: int | None) -> int:
    """k, by default the most that a batch has."""
    n, m = s.shape
    if nu is not None and not 0 <= nu < math.inf:
        raise ValueError(f"nu is {nu}; expected a finite weight of the anchor, 0 for InfoNCE")
    if q is not None:
        if k is None:
            raise ValueError("k is None; a table has no batch size: say how many candidates a softmax sees")
        most, why = max(1, int(math.log(CHOICES / n, max(m, 2)))), f"a table of {m} columns sums over all {m}^k choices"
    else:
        most, why = m if nu == 0 else _odds(s, q), "one column is the partner if nu > 0"
    k = check_count("k", most if k is None else k)
    if k > most:
        raise ValueError(f"k is {k}; expected 1 to {most} candidates: {why}")
    return k


def _batch_log_sums(s: Tensor, nu: float, k: int) -> list[Tensor]:
    """The mean of log (nu + sum of f) over k candidates, the partner among them, and over k others: cyclic neighbours."""
    n, m = s.shape
    steps = torch.arange(m, device=s.device)
    around = s.gather(1, (steps[:n, None] + steps) % m)  # column 0 the partner
    log_nu = around.new_full((n, 1), nu).log()
    groups = around[:, :k], around[:, 1 : k + 1] if nu > 0 else around[:, :k]
    return [torch.cat([log_nu, group], 1).logsumexp(1).mean() for group in groups]


def _table_log_sums(s: Tensor, q: Tensor, nu: float, k: int) -> list[Tensor]:
    """The same two means, exactly: the last of k candidates is the partner, or independent as the others are."""
    log_sums, chance = s.new_full((len(s), 1), nu).log(), q.new_ones(1)
    for _ in range(k - 1):
        log_sums = _log_add(log_sums[:, :, None], s[:, None]).flatten(1)
        chance = torch.outer(chance, q.sum(0)).flatten()
    total = _log_add(log_sums[:, :, None], s[:, None])  # (n, m^(k-1), m)
    product = torch.outer(q.sum(1), q.sum(0)) if nu > 0 else q
    return [expectation(total, cells[:, None] * chance[:, None]) for cells in (q, product)]


def _log_add(a: Tensor, b: Tensor) -> Tensor:
    """log(exp(a) + exp(b)), with gradient 0 instead of NaN where both are -inf."""
    return log_sum(torch.stack(torch.broadcast_tensors(a, b)))
