"""The prior that belongs to each objective, as a table log P(z,z') of shape (n, m): rows z, columns z'.

A prior is a critic (`log_f`: which latent geometry) times a normaliser (over z': InfoNCE; over both: Donsker-Varadhan;
none: NWJ). Put one into `FiniteRPM.elbo` and the objective of the same name comes out, up to C. For the prior that is
normalised over z instead, transpose: `infonce(log_f.T, q_joint.T).T` (E12).
Arguments and errors are those of `rpm_tutorial.objectives`, with `q_joint` given.
"""

from torch import Tensor

from ._checks import check_distribution
from ._log_space import log, log_expectation, wide
from .objectives import log_joint_normaliser, pairs


def optimal(q_joint: Tensor) -> Tensor:
    """P(z,z') = Q(z,z'), under which L - C is the mutual information. Source: (E6)."""
    check_distribution("q_joint", q_joint)
    return log(q_joint)


def infonce(log_f: Tensor, q_joint: Tensor) -> Tensor:
    """P(z) = Q(z), P(z'|z) = Q(z') f(z,z') / Z(z), under which L - C is InfoNCE. Source: (E7)."""
    scores, q_z, q_z_prime = _marginals(log_f, q_joint)
    log_prior = log(q_z)[:, None] + log(q_z_prime) + scores - log_expectation(scores, q_z, q_z_prime)[:, None]
    return log_prior.to(log_f.dtype)


def donsker_varadhan(log_f: Tensor, q_joint: Tensor) -> Tensor:
    """P(z,z') = Q(z) Q(z') f(z,z') / Z with one Z for all, under which L - C is Donsker-Varadhan. Source: (E9)."""
    scores, q_z, q_z_prime = _marginals(log_f, q_joint)
    log_prior = log(q_z)[:, None] + log(q_z_prime) + scores - log_joint_normaliser(scores, wide(q_joint))
    return log_prior.to(log_f.dtype)


def nwj(log_f: Tensor, q_joint: Tensor) -> Tensor:
    """P(z,z') = Q(z) Q(z') f(z,z') / e, unnormalised, under which L - C is NWJ. Source: (E10)."""
    scores, q_z, q_z_prime = _marginals(log_f, q_joint)
    return (log(q_z)[:, None] + log(q_z_prime) + scores - 1).to(log_f.dtype)


def barber_agakov(log_p: Tensor, q_joint: Tensor) -> Tensor:
    """P(z) = Q(z) and your own normalised log P(z'|z), under which L - C is Barber-Agakov. Source: (E11)."""
    scores, q_z, _ = _marginals(log_p, q_joint, name="log_p")
    return (log(q_z)[:, None] + scores).to(log_p.dtype)


def _marginals(log_f: Tensor, q_joint: Tensor, *, name: str = "log_f") -> tuple[Tensor, Tensor, Tensor]:
    scores, q_joint = pairs(log_f, q_joint, name=name)
    return scores, q_joint.sum(1), q_joint.sum(0)
