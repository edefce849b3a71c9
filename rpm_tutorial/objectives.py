"""The objectives: each a function of a table of scores `log_f` and the aggregate joint `q_joint`, in nats per pair.

Nothing else enters, because the recognition densities cancel (E4). So one function serves three worlds:

| world          | log_f (rows z, columns z')   | q_joint            | infonce(log_f, q_joint).value is          |
|----------------|------------------------------|--------------------|-------------------------------------------|
| finite, exact  | the scores of all (z, z')    | the table Q(z,z')  | I_inf = L - C, exactly (E7)               |
| a data set     | the scores of N encoded pairs| None: 1/N a pair   | (1/N) sum log P(x_i,x'_i) + 2 log N (E14) |
| a mini-batch   | the scores of B encoded pairs| None: 1/B a pair   | an estimate of I_inf, at most log B (E15) |

All are maximised. They share their arguments: `log_f` has shape (n, m), `-inf` where f = 0; `q_joint` has the same
shape, dtype and device, is non-negative and sums to one; `None` means that row i and column i are a pair, and that all m
columns are candidates alike: those beyond the n-th belong to no row (a queue). A z or z' without mass counts nowhere.
The value has the dtype of `log_f`; half precision is computed in float32.
All raise `ValueError` for NaN, +inf, a wrong shape, weights that are no distribution, and a z of mass with Z(z) = 0.

Who is a pair, several partners and soft targets included, stands in `q_joint`. Who is a candidate stands in its marginal
Q(z'); `infonce` takes any other weights R(z'|z) of candidates as `q_z_prime`. Then its value is

- the ELBO, up to C, under P(z'|z) = R(z'|z) f / Z(z), plus E log Q(z')/R(z'|z): of a queue, whose R is 1/m, log m/n;
  of samples that q_joint = diag(w) weighs among equal candidates, the KL divergence of w from 1/n;
- also an estimate of (E7), where candidates that were drawn from another Q~(z') (hard negatives) have the weights R ~ Q/Q~;
- no model's ELBO, and without a ceiling, where R is 0 at a pair (DCL): an estimate of I_inf alone.

In the code s is log f, the scores, and q is Q(z,z') or None, as `prepare` returns them.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias, overload

import torch
from torch import Tensor

from ._checks import any_entry, check_alike, check_distribution, check_kind, check_log_table, one_of, rounding, shape_of
from ._log_space import accumulation_dtype, at_least_float32, expectation, log

Table: TypeAlias = tuple[Tensor, Tensor]
Batch: TypeAlias = tuple[Tensor, Tensor | None]


class Objective(NamedTuple):
    """An objective and its two terms in nats per pair, value = score - log_normaliser: 0-dimensional, or (n,), one a row.

    The value is the mean of differences, which keeps digits that the difference of the two means would lose.
    """

    value: Tensor
    score: Tensor
    log_normaliser: Tensor


def infonce(
    log_f: Tensor, q_joint: Tensor | None = None, *, q_z_prime: Tensor | None = None, reduction: str = "mean"
) -> Objective:
    """InfoNCE: the ELBO, up to C, under the prior P(z) = Q(z), P(z'|z) = Q(z') f(z,z') / Z(z). Source: (E7).

    `q_z_prime` weighs the candidates, (m,) or of each z (n, m). With reduction="none", n terms whose mean is the value.
    """
    s, q = prepare(log_f, q_joint, q_z_prime)
    log_Z = log_mean_f(s, q, q_z_prime, over="z'")
    return average(s, log_Z, q, log_f.dtype, reduction)


def symmetric_infonce(log_f: Tensor, q_joint: Tensor | None = None, *, reduction: str = "mean") -> Objective:
    """The symmetric (CLIP) objective: the mean of InfoNCE normalised over z' and over z. Source: (E12)."""
    s, q = prepare(log_f, q_joint)
    paired = s if q is not None else s[:, : len(s)]  # no row has the further candidates for its own
    log_Z = (log_mean_f(s, q, over="z'") + log_mean_f(paired, q, over="z")) / 2
    return average(s, log_Z, q, log_f.dtype, reduction)


def donsker_varadhan(log_f: Tensor, q_joint: Tensor | None = None) -> Objective:
    """Donsker-Varadhan (MINE): the ELBO, up to C, under the jointly normalised prior Q(z)Q(z') f / Z. Source: (E9)."""
    s, q = prepare(log_f, q_joint)
    return average(s, log_mean_f_of_all(s, q), q, log_f.dtype)


def nwj(log_f: Tensor, q_joint: Tensor | None = None) -> Objective:
    """NWJ: the ELBO, up to C, under the unnormalised prior Q(z)Q(z') f / e and the generalised KL. Source: (E10).

    In the place of log Z stands its tangent at Z = e, which lies above it: `log_normaliser` = Z / e. So it sees the level of
    log f, and a critic without an additive constant cannot serve it: `rpm.WithBias(critic)` can, and is DV at its best.
    """
    s, q = prepare(log_f, q_joint)
    return average(s, (log_mean_f_of_all(s, q) - 1).exp(), q, log_f.dtype)


def barber_agakov(log_p: Tensor, q_joint: Tensor | None = None) -> Objective:
    """Barber-Agakov: the ELBO, up to C, under P(z) = Q(z) and a conditional prior of your own. Source: (E11).

    `log_p` holds log P(z'|z), each row a normalised distribution over z'; `ValueError` if one is not.
    Here `log_normaliser` = E log Q(z'), minus the entropy of z'.
    """
    s, q = prepare(log_p, q_joint, name="log_p")
    check_log_table("log_p", log_p)
    sums = at_least_float32(log_p.detach()).exp().sum(1)
    if any_entry(lambda t: (t - 1).abs() > rounding(log_p), sums):
        worst = (sums - 1).abs().argmax()
        raise ValueError(
            f"row {worst} of exp(log_p) sums to {sums[worst].item():.10g}; expected 1, "
            "a distribution over z' for each z: call log_p.log_softmax(1)"
        )
    log_q_z_prime = s.new_tensor([-math.log(len(s))]) if q is None else log(q.sum(0))
    return average(s, log_q_z_prime, q, log_p.dtype)


def mutual_information(q_joint: Tensor) -> Tensor:
    """The mutual information I_Q(z;z') of the table Q(z,z'), in nats; it is L - C under the optimal prior. Source: (E6).

    `q_joint` has shape (n, m), is non-negative and sums to one; `ValueError` otherwise.
    """
    check_distribution("q_joint", q_joint)
    q = q_joint.to(accumulation_dtype(q_joint.device))
    return expectation(log(q) - log(q.sum(1, keepdim=True)) - log(q.sum(0)), q).to(q_joint.dtype)


def log_mean_f(s: Tensor, q: Tensor | None, q_z_prime: Tensor | None = None, *, over: str) -> Tensor:
    """log E_Q(z') f for each z, over "z'"; log E_Q(z) f for each z', over "z".

    Of a table it has shape (n, 1) or (1, m), of a batch (n,), one for each pair; float64, so that no digit of s is lost.
    """
    dim = 1 if over == "z'" else 0
    mass = q_z_prime if q is None or q_z_prime is not None else q.sum(1 - dim, keepdim=True)
    most = (s if mass is None else s + mass.log()).detach().amax(dim, keepdim=True)
    if any_entry(lambda t: ~t.isfinite(), most):
        refuse(s, most, dim)
    f = (s - most).exp() if mass is None else mass * (s - most).masked_fill(mass == 0, -torch.inf).exp()
    wide = torch.float64 if s.device.type != "mps" else s.dtype  # which has no float64
    log_mean = most.to(wide) + f.sum(dim, keepdim=True).to(wide).log() - (math.log(s.shape[dim]) if mass is None else 0)
    return log_mean.flatten() if q is None else log_mean


def log_mean_f_of_all(s: Tensor, q: Tensor | None) -> Tensor:
    """log E_Q(z)Q(z') f, with the dimensions of `log_mean_f`."""
    log_Z = log_mean_f(s, q, over="z'")
    if q is None:
        return log_Z.logsumexp(0, keepdim=True) - math.log(len(s))
    return (log_Z + log(q.sum(1, keepdim=True))).logsumexp(0, keepdim=True)


def average(s: Tensor, log_Z: Tensor, q: Tensor | None, dtype: torch.dtype, reduction: str = "mean") -> Objective:
    """E_Q(z,z') [log f - log Z] and its two terms, rounded to the dtype; 0 times -inf is 0."""
    if q is None:
        s = s.diagonal().to(log_Z.dtype)
        q = torch.full_like(s, 1 / len(s))
    terms, add = (s - log_Z, s, log_Z.expand_as(s)), torch.sum if reduction == "mean" else by_row(reduction)
    return Objective(*(add(q * term.masked_fill(q == 0, 0)).to(dtype) for term in terms))


def by_row(reduction: str) -> Callable[[Tensor], Tensor]:
    """n times the sum of each row: the terms of a mean."""
    one_of("reduction", reduction, ("mean", "none"))
    return lambda parts: len(parts) * parts.view(len(parts), -1).sum(1)


@overload
def prepare(log_f: Tensor, q_joint: Tensor, q_z_prime: Tensor | None = ..., *, name: str = ...) -> Table: ...
@overload
def prepare(log_f: Tensor, q_joint: None, q_z_prime: Tensor | None = ..., *, name: str = ...) -> Batch: ...
def prepare(log_f: Tensor, q_joint: Tensor | None, q_z_prime: Tensor | None = None, *, name: str = "log_f") -> Batch:
    """s, at least float32, and q, after the checks that all objectives share. A table is float64, 0 where it has no mass."""
    if not isinstance(log_f, Tensor) or log_f.dim() != 2 or not log_f.is_floating_point() or log_f.numel() == 0:
        check_kind(name, log_f, dims=2)
    if q_z_prime is not None:
        check_candidates(log_f, q_z_prime)
    if q_joint is None and log_f.shape[0] <= log_f.shape[1]:
        wide = torch.promote_types(log_f.dtype, torch.float32)  # a tiny weight's 1 / q_z_prime would overflow it
        return log_f.to(wide if q_z_prime is None else accumulation_dtype(log_f.device)), None
    return prepare_table(name, log_f, q_joint, q_z_prime)


def prepare_table(name: str, log_f: Tensor, q_joint: Tensor | None, q_z_prime: Tensor | None) -> Table:
    """s and q, if `q_joint` is a distribution over the cells of `log_f`."""
    n, m = log_f.shape
    if q_joint is None:
        raise ValueError(
            f"{name} has shape ({n}, {m}); expected (n, m) with m >= n: one row per z, its pair in the column of the same "
            "number, further columns for further candidates. For pairs that stand elsewhere pass q_joint"
        )
    check_distribution("q_joint", q_joint)
    if q_joint.shape != log_f.shape:
        raise ValueError(
            f"q_joint has shape {shape_of(q_joint)} and {name} {shape_of(log_f)}; expected the same, rows z, columns z'"
        )
    check_alike(name, log_f, "q_joint", q_joint)
    if q_z_prime is None and m > n > 1 and any_entry(_is_a_pairing, q_joint):
        raise ValueError(
            f"q_joint pairs each of the {n} rows with one column and gives others of the {m} no mass, so they would be no "
            f"candidates. Put the pairs on the diagonal and leave q_joint out, or pass infonce q_z_prime=torch.full(({m},), "
            f"1 / {m}); to leave the others out, let kept = q_joint.sum(0) > 0 and give {name}[:, kept] and q_joint[:, kept]"
        )
    s, q = (table.to(accumulation_dtype(table.device)) for table in (log_f, q_joint))
    nowhere = q.sum(0) == 0 if q_z_prime is None else (q == 0) & (q_z_prime == 0)
    return s.masked_fill((q.sum(1, keepdim=True) == 0) | nowhere, 0), q


def _is_a_pairing(q_joint: Tensor) -> Tensor:
    """Whether each row has 1/n in one cell, in a column that no other row has, or in one column that all have."""
    paired = (len(q_joint) * q_joint - 1).abs() < 1e-3
    return ((paired.sum(0) <= 1).all() | paired.all(0).any()) & (paired.sum(1) == 1).all()


def check_candidates(log_f: Tensor, q_z_prime: Tensor) -> None:
    """Raise unless `q_z_prime` is a distribution over the columns of `log_f`, or has one for each row."""
    each = getattr(q_z_prime, "ndim", 1) == 2
    check_kind("q_z_prime", q_z_prime, dims=2 if each else 1)
    if q_z_prime.shape != (log_f.shape if each else log_f.shape[1:]):
        found = f"q_z_prime has shape {shape_of(q_z_prime)} and log_f {shape_of(log_f)}"
        raise ValueError(f"{found}; expected one weight for each column, or a table with those of each z")
    check_alike("log_f", log_f, "q_z_prime", q_z_prime)
    check_distribution("q_z_prime", q_z_prime if each else q_z_prime[None], over="rows" if each else "entries")


def refuse(s: Tensor, most: Tensor, dim: int) -> None:
    """Raise the error of scores whose largest, in some row or column, is not finite."""
    check_log_table("log_f", s)
    side = "row" if dim == 1 else "column"
    raise ValueError(
        f"{side} {int(most.isneginf().flatten().nonzero()[0])} of log_f is -inf wherever its candidates have mass, so its "
        f"normaliser is 0; expected f > 0 somewhere. Likely cause: a mask that hides all candidates of a {side}"
    )
