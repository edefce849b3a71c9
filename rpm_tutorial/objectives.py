"""The objectives: each a function of a table of scores `log_f` and the aggregate joint `q_joint`, in nats per pair.

Nothing else enters, because the recognition densities cancel (E4). So one function serves three worlds:

| world          | log_f (rows z, columns z')   | q_joint            | infonce(log_f, q_joint).value is          |
|----------------|------------------------------|--------------------|-------------------------------------------|
| finite, exact  | the scores of all (z, z')    | the table Q(z,z')  | I_inf = L - C, exactly (E7)               |
| a data set     | the scores of N encoded pairs| None: 1/N a pair   | (1/N) sum log P(x_i,x'_i) + 2 log N (E14) |
| a mini-batch   | the scores of B encoded pairs| None: 1/B a pair   | an estimate of I_inf, at most log B (E15) |

All are maximised. They share their arguments: `log_f` has shape (n, m), `-inf` where f = 0; `q_joint` has the same
shape, dtype and device, is non-negative and sums to one; `None` means that row i and column i are a pair (n = m).
Half precision, as autocast gives, is computed in float32 and rounded once.
All raise `ValueError` for NaN, +inf, a wrong shape, mixed dtypes or devices, weights that are no distribution, and
for a z that Q reaches while Z(z) = 0.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ._checks import check_alike, check_distribution, check_log_table, found, rounding, shape_of
from ._log_space import expectation, log, log_expectation, wide


class Objective(NamedTuple):
    """An objective and its two terms, 0-dimensional tensors in nats per pair: value = score - log_normaliser."""

    value: Tensor
    score: Tensor
    log_normaliser: Tensor


def infonce(log_f: Tensor, q_joint: Tensor | None = None) -> Objective:
    """InfoNCE: the ELBO, up to C, under the prior P(z) = Q(z), P(z'|z) = Q(z') f(z,z') / Z(z). Source: (E7)."""
    scores, q_joint = pairs(log_f, q_joint)
    q_z, q_z_prime = q_joint.sum(1), q_joint.sum(0)
    log_Z = log_expectation(scores, q_z, q_z_prime)
    return rounded(expectation(scores, q_joint), expectation(log_Z, q_z), log_f.dtype)


def symmetric_infonce(log_f: Tensor, q_joint: Tensor | None = None) -> Objective:
    """The symmetric (CLIP) objective: the mean of InfoNCE normalised over z' and over z. Source: (E12)."""
    scores, q_joint = pairs(log_f, q_joint)
    q_z, q_z_prime = q_joint.sum(1), q_joint.sum(0)
    log_Z = log_expectation(scores, q_z, q_z_prime)
    log_Z_prime = log_expectation(scores.T, q_z_prime, q_z, side="column")
    log_normaliser = expectation(log_Z, q_z) / 2 + expectation(log_Z_prime, q_z_prime) / 2  # halved first: no overflow
    return rounded(expectation(scores, q_joint), log_normaliser, log_f.dtype)


def donsker_varadhan(log_f: Tensor, q_joint: Tensor | None = None) -> Objective:
    """Donsker-Varadhan (MINE): the ELBO, up to C, under the jointly normalised prior Q(z)Q(z') f / Z. Source: (E9)."""
    scores, q_joint = pairs(log_f, q_joint)
    return rounded(expectation(scores, q_joint), log_joint_normaliser(scores, q_joint), log_f.dtype)


def nwj(log_f: Tensor, q_joint: Tensor | None = None) -> Objective:
    """NWJ: the ELBO, up to C, under the unnormalised prior Q(z)Q(z') f / e and the generalised KL. Source: (E10).

    In the place of log Z stands its tangent at Z = e, which lies above it: `log_normaliser` = Z / e.
    """
    scores, q_joint = pairs(log_f, q_joint)
    return rounded(expectation(scores, q_joint), (log_joint_normaliser(scores, q_joint) - 1).exp(), log_f.dtype)


def barber_agakov(log_p: Tensor, q_joint: Tensor | None = None) -> Objective:
    """Barber-Agakov: the ELBO, up to C, under P(z) = Q(z) and a conditional prior of your own. Source: (E11).

    `log_p` holds log P(z'|z), each row a normalised distribution over z'; `ValueError` if one is not.
    Here `log_normaliser` = E log Q(z'), minus the entropy of z'.
    """
    scores, q_joint = pairs(log_p, q_joint, name="log_p")
    sums = scores.detach().exp().sum(1)
    if found(lambda t: ~((t - 1).abs() <= rounding(log_p)), sums):
        worst = (sums - 1).abs().argmax()
        raise ValueError(
            f"row {worst} of exp(log_p) sums to {sums[worst].item():.10g}; expected 1, "
            "a distribution over z' for each z: call log_p.log_softmax(1)"
        )
    q_z_prime = q_joint.sum(0)
    return rounded(expectation(scores, q_joint), expectation(log(q_z_prime), q_z_prime), log_p.dtype)


def mutual_information(q_joint: Tensor) -> Tensor:
    """The mutual information I_Q(z;z') of the table Q(z,z'), in nats; it is L - C under the optimal prior. Source: (E6).

    `q_joint` has shape (n, m), is non-negative and sums to one; `ValueError` otherwise.
    """
    check_distribution("q_joint", q_joint)
    q = wide(q_joint)
    q_z, q_z_prime = q.sum(1), q.sum(0)
    information = expectation(log(q), q) - expectation(log(q_z), q_z) - expectation(log(q_z_prime), q_z_prime)
    return information.to(q_joint.dtype)


def rounded(score: Tensor, log_normaliser: Tensor, dtype: torch.dtype) -> Objective:
    """The difference and its two terms, each rounded to the dtype at the end."""
    return Objective(*(part.to(dtype) for part in (score - log_normaliser, score, log_normaliser)))


def pairs(log_f: Tensor, q_joint: Tensor | None, *, name: str = "log_f") -> tuple[Tensor, Tensor]:
    """The scores and the weights of all (z, z'), at least float32, after the checks that all objectives share."""
    check_log_table(name, log_f)
    n, m = log_f.shape
    if q_joint is None:
        if n != m:
            raise ValueError(
                f"{name} has shape ({n}, {m}); expected (n, n) with one row per z and one column per z', pairs on the "
                "diagonal. For a distribution over another shape pass q_joint. Its columns without mass are no candidates, so "
                "for a queue of negatives (MoCo) take math.log(m) - F.cross_entropy(log_f, torch.arange(n))"
            )
        scores = wide(log_f)
        return scores, torch.eye(n, dtype=scores.dtype, device=log_f.device) / n
    check_distribution("q_joint", q_joint)
    if q_joint.shape != log_f.shape:
        raise ValueError(
            f"q_joint has shape {shape_of(q_joint)} and {name} {shape_of(log_f)}; expected the same, rows z, columns z'"
        )
    check_alike(name, log_f, "q_joint", q_joint)
    return wide(log_f), wide(q_joint)


def log_joint_normaliser(log_f: Tensor, q_joint: Tensor) -> Tensor:
    """log E_{Q(z)Q(z')} f, 0-dimensional."""
    q_z, q_z_prime = q_joint.sum(1), q_joint.sum(0)
    return torch.logsumexp(log_expectation(log_f, q_z, q_z_prime) + log(q_z), dim=0)
