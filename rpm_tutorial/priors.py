"""The prior that belongs to each objective, as a table log P(z,z') of shape (n, m): rows z, columns z'.

A prior is a critic (`log_f`: which latent geometry) times a normaliser (over z': InfoNCE; over both: Donsker-Varadhan;
none: NWJ). Put one into `FiniteRPM.elbo` and the objective of the same name comes out, up to C. For the prior that is
normalised over z instead, transpose: `infonce(log_f.T, q_joint.T).T` (E12).
Arguments and errors are those of `rpm_tutorial.objectives`, with `q_joint` given.
"""

from torch import Tensor

from ._checks import check_distribution, check_log_table
from ._log_space import log
from .objectives import log_mean_f, log_mean_f_of_all, prepare


def optimal(q_joint: Tensor) -> Tensor:
    """P(z,z') = Q(z,z'), under which L - C is the mutual information. Source: (E6)."""
    check_distribution("q_joint", q_joint)
    return log(q_joint)


def infonce(log_f: Tensor, q_joint: Tensor) -> Tensor:
    """P(z) = Q(z), P(z'|z) = Q(z') f(z,z') / Z(z), under which L - C is InfoNCE. Source: (E7)."""
    s, q = prepare(log_f, q_joint)
    return (_log_product(q) + s - log_mean_f(s, q, over="z'")).to(log_f.dtype)


def donsker_varadhan(log_f: Tensor, q_joint: Tensor) -> Tensor:
    """P(z,z') = Q(z) Q(z') f(z,z') / Z with one Z for all, under which L - C is Donsker-Varadhan. Source: (E9)."""
    s, q = prepare(log_f, q_joint)
    return (_log_product(q) + s - log_mean_f_of_all(s, q)).to(log_f.dtype)


def nwj(log_f: Tensor, q_joint: Tensor) -> Tensor:
    """P(z,z') = Q(z) Q(z') f(z,z') / e, unnormalised, under which L - C is NWJ. Source: (E10)."""
    s, q = prepare(log_f, q_joint)
    check_log_table("log_f", log_f)
    return (_log_product(q) + s - 1).to(log_f.dtype)


def barber_agakov(log_p: Tensor, q_joint: Tensor) -> Tensor:
    """P(z) = Q(z) and your own normalised log P(z'|z), under which L - C is Barber-Agakov. Source: (E11)."""
    _, q = prepare(log_p, q_joint, name="log_p")
    check_log_table("log_p", log_p)
    return (log(q.sum(1, keepdim=True)) + log_p).to(log_p.dtype)


def _log_product(q: Tensor) -> Tensor:
    """log Q(z) Q(z')."""
    return log(q.sum(1, keepdim=True)) + log(q.sum(0))
