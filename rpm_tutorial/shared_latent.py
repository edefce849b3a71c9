"""The other recognition-parameterised model, as tables: J observations that share one latent (E22).

Walker, Soulat, Yu and Sahani, *Unsupervised representation learning with recognition-parametrised probabilistic models*,
AISTATS 2023. Every quantity is a finite sum.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ._checks import check_alike, check_count, check_distribution, rounding, seeded, shape_of
from ._log_space import expectation, log, log_sum
from .finite import log_likelihood


class SharedLatentRPM:
    """P(x_1..x_J, z) = P(z) prod_j F_j(z|x_j) P_0(x_j) / F_j(z), with F_j(z) = sum F_j(z|x_j) P_0(x_j). Source: (E22).

    For J = 2 it is the `FiniteRPM` whose recognition models are the two factors and whose prior is P(z) on the diagonal.

    Args:
        p_true: P_true(x_1..x_J), J >= 2 dimensions, sums to one; its marginals are P_0(x_j). Zeros are legal.
        factors: the recognition factors F_j(z|x_j), J tables of shape (X_j, Z), rows sum to one.
        prior: P(z), shape (Z,), sums to one; `None` is uniform.
    Raises:
        ValueError: a table is no distribution, a shape does not match, dtypes or devices are mixed, or the prior gives
            mass to a z that some factor never reaches.

    Use float64: identities then hold to 1e-12. Tables are copied, and what follows from them is computed each time it is
    read, as in a `FiniteRPM`. EM is `model = model.m_step(model.posterior)`.
    """

    def __init__(self, p_true: Tensor, factors: Sequence[Tensor], prior: Tensor | None = None):
        _check_table("p_true", p_true)
        for j, factor in enumerate(factors):
            check_distribution(f"factors[{j}]", factor, over="rows")
        if not 2 <= p_true.dim() == len(factors):
            raise ValueError(
                f"p_true has shape {shape_of(p_true)} and there are {len(factors)} factors; expected at least two "
                "dimensions, and one factor for each"
            )
        prior = factors[0].new_full((factors[0].shape[1],), 1 / factors[0].shape[1]) if prior is None else prior
        _check_table("prior", prior)
        check_alike("p_true", p_true, "prior", prior)
        for j, (factor, count) in enumerate(zip(factors, p_true.shape)):
            check_alike("p_true", p_true, f"factors[{j}]", factor)
            if factor.shape != (count, *prior.shape):
                raise ValueError(
                    f"factors[{j}] has shape {shape_of(factor)} and prior {shape_of(prior)}; expected ({count}, Z) and (Z): "
                    f"a row for each x_{j + 1}, a column for each z"
                )
        self.p_true, self.prior = p_true.clone(), prior.clone()
        self.factors = tuple(factor.clone() for factor in factors)
        for j, f_z in enumerate(self.f_z):
            lost = prior.detach()[f_z == 0].sum().item()
            if lost > rounding(prior):
                raise ValueError(
                    f"prior gives mass {lost:.3g} to latents with F_{j + 1}(z) = 0, where (E22) defines no likelihood; "
                    "give them none, or drop them"
                )

    @classmethod
    def random(cls, p_true: Tensor, z: int, *, seed: int = 0) -> "SharedLatentRPM":
        """A start for EM with z latent classes: factors drawn at random (softmax of normal logits), a uniform prior."""
        check_count("z", z)
        _check_table("p_true", p_true)
        generator = seeded(seed)
        logits = [torch.randn(x, z, generator=generator, dtype=p_true.dtype).to(p_true.device) for x in p_true.shape]
        return cls(p_true, [table.softmax(1) for table in logits])

    @property
    def p_x(self) -> tuple[Tensor, ...]:
        """P_0(x_j), J vectors of shape (X_j,)."""
        return tuple(self._keep(j, self.p_true) for j in range(len(self.factors)))

    @property
    def f_z(self) -> tuple[Tensor, ...]:
        """The aggregate factors F_j(z), J vectors of shape (Z,)."""
        return tuple(factor.T @ p for factor, p in zip(self.factors, self.p_x))

    @property
    def log_joint(self) -> Tensor:
        """log P(x_1..x_J, z), shape (X_1, .., X_J, Z), nats. Source: (E22)."""
        total = log(self.prior)
        for j, parts in enumerate(zip(self.factors, self.p_x, self.f_z)):
            shape = [-1 if k == j else 1 for k in range(len(self.factors))]
            total = total + log_likelihood(*parts).T.reshape(*shape, len(self.prior))
        return total

    @property
    def log_p(self) -> Tensor:
        """log P(x_1..x_J), shape (X_1, .., X_J), nats."""
        return log_sum(self.log_joint.movedim(-1, 0))

    @property
    def log_evidence(self) -> Tensor:
        """The log marginal likelihood, averaged over P_true, 0-dimensional, nats."""
        return expectation(self.log_p, self.p_true)

    @property
    def constant(self) -> Tensor:
        """C = sum_j E log P_0(x_j), 0-dimensional, nats, as in (E4)."""
        return torch.stack([expectation(log(p), p) for p in self.p_x]).sum()

    @property
    def total_correlation(self) -> Tensor:
        """E log P_true - C, nats: what log evidence - C cannot exceed (E23); for J = 2 the mutual information of the data."""
        return expectation(log(self.p_true), self.p_true) - self.constant

    @property
    def posterior(self) -> Tensor:
        """The E-step: P(z|x_1..x_J) by Bayes' rule, shape (X_1, .., X_J, Z); the prior where P(x_1..x_J) = 0."""
        log_joint = self.log_joint
        log_p = log_sum(log_joint.movedim(-1, 0))[..., None]
        impossible = torch.isneginf(log_p.detach())
        return torch.where(impossible, self.prior, (log_joint - log_p.masked_fill(impossible, 0)).exp())

    def elbo(self, q: Tensor) -> Tensor:
        """E log P(x_1..x_J, z) - E log q under P_true and q(z|x_1..x_J), which has the shape of `posterior`; nats."""
        weights = self._weights(q)
        return expectation(self.log_joint, weights) - expectation(log(q), weights)

    def m_step(self, q: Tensor) -> "SharedLatentRPM":
        """The model that maximises `elbo(q)`: F_j(z|x_j) = E[q | x_j], P(z) = E q. (Rows of an x_j that never occurs: P(z).)"""
        weights = self._weights(q)
        joints = [self._keep(j, weights) for j in range(len(self.factors))]  # P_0(x_j) E[q | x_j], shape (X_j, Z)
        prior = joints[0].sum(0)
        return SharedLatentRPM(
            self.p_true,
            [torch.where(p[:, None] > 0, joint / p[:, None], prior) for joint, p in zip(joints, self.p_x)],
            prior,
        )

    def _weights(self, q: Tensor) -> Tensor:
        like = self.prior.expand(*self.p_true.shape, -1)
        if q.shape != like.shape:
            raise ValueError(f"q has shape {shape_of(q)}; expected (X_1, .., X_J, Z) = {shape_of(like)}")
        check_distribution("q", q.reshape(-1, len(self.prior)), over="rows")
        check_alike("p_true", self.p_true, "q", q)
        return self.p_true[..., None] * q

    def _keep(self, j: int, table: Tensor) -> Tensor:
        """Sum over all observations but the one at index j."""
        return table.sum([k for k in range(len(self.factors)) if k != j])


def _check_table(name: str, table: Tensor) -> None:
    """Raise unless `table`, of any number of dimensions, is one distribution."""
    check_distribution(name, table.reshape(1, -1) if isinstance(table, Tensor) else table)
