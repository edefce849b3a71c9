"""The whole recognition-parameterised model as tables: every quantity of the course is a finite sum here (E21)."""

from typing import NamedTuple

import torch
from torch import Tensor

from ._checks import check_alike, check_distribution, check_generator, check_log_table, rounding, seeded, shape_of
from ._log_space import expectation, log, log_matmul
from .objectives import mutual_information


class ELBO(NamedTuple):
    """The bound and its five terms in the order of (E3), 0-dimensional, nats per pair: the mean over P_true(x,x').

    value = log_prior + log_likelihood + log_likelihood_prime - log_recognition - log_recognition_prime (+ slack),
    where slack = 1 - sum P is 0 for a normalised prior and the generalised KL's extra term otherwise (E10).
    """

    value: Tensor
    log_prior: Tensor
    log_likelihood: Tensor
    log_likelihood_prime: Tensor
    log_recognition: Tensor
    log_recognition_prime: Tensor
    slack: Tensor


class FiniteRPM:
    """A recognition-parameterised model on finite spaces: (E1), (E2), and all that follows from them.

    Args:
        p_true: P_true(x,x'), shape (X, X'), sums to one. Zeros are legal.
        recognition: Q(z|x), shape (X, Z), rows sum to one. One-hot rows are a deterministic encoder.
        recognition_prime: Q(z'|x'), shape (X', Z'); `None` shares the weights of `recognition`.
    Raises:
        ValueError: a table is no distribution, a shape does not match, dtypes or devices are mixed.

    Use float64: the identities then hold to 1e-12. A prior is given as a table log P(z,z') of shape (Z, Z'), for
    example from `rpm_tutorial.priors`. The tables are copies, through which gradients flow; what follows from them is
    computed each time it is read, with a gradient of its own. A changed table is not checked again: make another world.
    """

    def __init__(self, p_true: Tensor, recognition: Tensor, recognition_prime: Tensor | None = None):
        recognition_prime = recognition if recognition_prime is None else recognition_prime
        check_distribution("p_true", p_true)
        for name, table, side, count in (
            ("recognition", recognition, "row", p_true.shape[0]),
            ("recognition_prime", recognition_prime, "column", p_true.shape[1]),
        ):
            check_distribution(name, table, over="rows")
            check_alike("p_true", p_true, name, table)
            if len(table) != count:
                raise ValueError(
                    f"{name} has shape {shape_of(table)} and p_true {shape_of(p_true)}; expected one row of {name} "
                    f"for each {side} of p_true"
                )
        self.p_true, self.recognition, self.recognition_prime = (
            table.clone() for table in (p_true, recognition, recognition_prime)
        )

    def __repr__(self) -> str:
        tables = ("p_true", "recognition", "recognition_prime")
        shapes = ", ".join(f"{name} {shape_of(getattr(self, name))}" for name in tables)
        return f"FiniteRPM({shapes}, {self.p_true.dtype})"

    @classmethod
    def random(cls, x: int = 5, x_prime: int = 6, z: int = 3, z_prime: int = 4, *, seed: int = 0) -> "FiniteRPM":
        """A world drawn at random, float64: softmax of normal logits for P_true and for both recognition models."""
        generator = seeded(seed)

        def logits(*shape):
            return 1.5 * torch.randn(*shape, generator=generator, dtype=torch.float64)

        p_true = logits(x, x_prime).flatten().softmax(0).view(x, x_prime)
        return cls(p_true, logits(x, z).softmax(1), logits(x_prime, z_prime).softmax(1))

    @classmethod
    def ring(
        cls,
        coupling: float = 3.0,
        sharpness: float = 3.0,
        *,
        x: int = 6,
        x_prime: int = 7,
        z: int = 3,
        z_prime: int = 4,
        tilt: float = 0.5,
    ) -> "FiniteRPM":
        """Observations and latents on a circle, float64: the world of the lessons.

        P_true(x,x') ~ exp(coupling cos(x - x') + tilt cos(x)), and Q(z|x) ~ exp(sharpness cos(x - z)), Q(z'|x') likewise,
        with the angles of each variable evenly spaced. A larger coupling ties x' to x; sharpness 0 tells nothing of x, a
        large one is deterministic, but for an x midway between two z, which have half of it each (at the default sizes every
        other x); tilt 0 makes the marginals uniform where all sizes are equal.
        """
        at_x, at_x_prime, at_z, at_z_prime = (
            2 * torch.pi * torch.arange(k, dtype=torch.float64) / k for k in (x, x_prime, z, z_prime)
        )
        log_p = coupling * torch.cos(at_x[:, None] - at_x_prime) + tilt * torch.cos(at_x)[:, None]
        recognition = (sharpness * torch.cos(at_x[:, None] - at_z)).softmax(1)
        recognition_prime = (sharpness * torch.cos(at_x_prime[:, None] - at_z_prime)).softmax(1)
        return cls(log_p.flatten().softmax(0).view(x, x_prime), recognition, recognition_prime)

    @property
    def p_x(self) -> Tensor:
        """P_true(x), shape (X,)."""
        return self.p_true.sum(1)

    @property
    def p_x_prime(self) -> Tensor:
        """P_true(x'), shape (X',)."""
        return self.p_true.sum(0)

    @property
    def q_joint(self) -> Tensor:
        """The aggregate joint Q(z,z') = sum Q(z|x) Q(z'|x') P_true(x,x'), shape (Z, Z')."""
        return self.recognition.T @ self.p_true @ self.recognition_prime

    @property
    def q_z(self) -> Tensor:
        """The aggregate posterior Q(z) = sum Q(z|x) P_true(x), shape (Z,)."""
        return self.recognition.T @ self.p_x

    @property
    def q_z_prime(self) -> Tensor:
        """The aggregate posterior Q(z'), shape (Z',)."""
        return self.recognition_prime.T @ self.p_x_prime

    @property
    def mutual_information(self) -> Tensor:
        """I_Q(z;z') in nats, 0-dimensional."""
        return mutual_information(self.q_joint)

    @property
    def constant(self) -> Tensor:
        """C = E log P_true(x) + E log P_true(x') in nats, 0-dimensional: what "up to a constant" means. Source: (E4)."""
        return expectation(log(self.p_x), self.p_x) + expectation(log(self.p_x_prime), self.p_x_prime)

    @property
    def log_p_x_given_z(self) -> Tensor:
        """log P(x|z) = log Q(z|x) + log P_true(x) - log Q(z), shape (Z, X); -inf for a z that no x reaches. Source: (E2)."""
        return log_likelihood(self.recognition, self.p_x, self.q_z)

    @property
    def log_p_x_prime_given_z_prime(self) -> Tensor:
        """log P(x'|z'), shape (Z', X'). Source: (E2)."""
        return log_likelihood(self.recognition_prime, self.p_x_prime, self.q_z_prime)

    def elbo(self, log_prior: Tensor, *, unnormalised: bool = False) -> ELBO:
        """The right side of (E3), averaged over P_true(x,x'), in nats per pair.

        The sum runs over all x, x', z, z'; a term that depends on two of them only is summed under their marginal.

        Args:
            log_prior: log P(z,z'), shape (Z, Z').
            unnormalised: accept a prior whose sum is not one, and add the generalised KL's 1 - sum P (E10).
        Raises:
            ValueError: the prior has another shape, does not sum to one, or gives mass to a z that no x reaches.
        """
        self._check_prior(log_prior, unnormalised)
        joint, joint_prime = self.p_x[:, None] * self.recognition, self.p_x_prime[:, None] * self.recognition_prime
        terms = (
            expectation(log_prior, self.q_joint),
            expectation(self.log_p_x_given_z.T, joint),
            expectation(self.log_p_x_prime_given_z_prime.T, joint_prime),
            expectation(log(self.recognition), joint),
            expectation(log(self.recognition_prime), joint_prime),
        )
        slack = 1 - log_prior.exp().sum() if unnormalised else torch.zeros_like(terms[0])
        return ELBO(terms[0] + terms[1] + terms[2] - terms[3] - terms[4] + slack, *terms, slack)

    def log_p(self, log_prior: Tensor) -> Tensor:
        """The model's log P(x,x') = log sum P(z,z') P(x|z) P(x'|z'), shape (X, X'), nats. Source: (E1). Raises as `elbo`."""
        self._check_prior(log_prior)
        return log_matmul(log_matmul(self.log_p_x_given_z.T, log_prior), self.log_p_x_prime_given_z_prime)

    def log_evidence(self, log_prior: Tensor) -> Tensor:
        """The log marginal likelihood, averaged over P_true(x,x'), in nats per pair. Raises as `elbo`."""
        return expectation(self.log_p(log_prior), self.p_true)

    def posterior(self, log_prior: Tensor) -> Tensor:
        """P(z,z'|x,x') by Bayes' rule, shape (X, X', Z, Z'); 0 where P(x,x') = 0. Raises as `elbo`."""
        return self._log_posterior(log_prior).exp()

    def gap(self, log_prior: Tensor) -> Tensor:
        """log evidence - ELBO = KL( Q(z|x)Q(z'|x') || P(z,z'|x,x') ), averaged over P_true, nats. Source: (E3)."""
        q = self.recognition[:, None, :, None] * self.recognition_prime[None, :, None, :]
        weights = self.p_true[:, :, None, None] * q
        return expectation(log(q), weights) - expectation(self._log_posterior(log_prior), weights)

    def _log_posterior(self, log_prior: Tensor) -> Tensor:
        log_p = self.log_p(log_prior)
        log_p_x_given_z = self.log_p_x_given_z.T[:, None, :, None]
        joint = log_p_x_given_z + self.log_p_x_prime_given_z_prime.T[None, :, None, :] + log_prior
        return joint - log_p.masked_fill(torch.isneginf(log_p), 0)[:, :, None, None]

    def sample(self, log_prior: Tensor, n: int, *, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Draw n times z, z' ~ P(z,z'), x ~ P(x|z), x' ~ P(x'|z'). Returns x, x', z, z', each of shape (n,). Source: (E1)."""
        self._check_prior(log_prior)
        check_generator(generator, log_prior.device)
        cell = torch.multinomial(log_prior.exp().flatten(), n, replacement=True, generator=generator)
        z, z_prime = cell // log_prior.shape[1], cell % log_prior.shape[1]
        x = torch.multinomial(self.log_p_x_given_z.exp()[z], 1, generator=generator).squeeze(1)
        x_prime = torch.multinomial(self.log_p_x_prime_given_z_prime.exp()[z_prime], 1, generator=generator).squeeze(1)
        return x, x_prime, z, z_prime

    def _check_prior(self, log_prior: Tensor, unnormalised: bool = False) -> None:
        check_log_table("log_prior", log_prior)
        q_joint = self.q_joint
        if log_prior.shape != q_joint.shape:
            raise ValueError(
                f"log_prior has shape {shape_of(log_prior)}; expected (Z, Z') = {shape_of(q_joint)}, rows z, columns z'"
            )
        check_alike("p_true", self.p_true, "log_prior", log_prior)
        prior, tolerance = log_prior.detach().exp(), rounding(log_prior)
        if not unnormalised and abs(prior.sum().item() - 1) > tolerance:
            raise ValueError(
                f"the prior sums to {prior.sum().item():.10g}; expected 1. Take one from rpm_tutorial.priors, subtract "
                "log_prior.logsumexp((0, 1)), or ask for elbo(..., unnormalised=True)"
            )
        for name, mass, q in (("z", prior.sum(1), self.q_z), ("z'", prior.sum(0), self.q_z_prime)):
            unreached = (q == 0) & (mass > tolerance)
            if unreached.any():
                where = int(unreached.nonzero()[0])
                raise ValueError(
                    f"log_prior gives mass {mass[where].item():.3g} to {name} = {where}, which no observation reaches "
                    f"(Q({name}) = 0), so that (E2) defines no likelihood there; give it -inf, or drop that latent value"
                )


def log_likelihood(recognition: Tensor, p_x: Tensor, q_z: Tensor) -> Tensor:
    """log P(x|z) by (E2), shape (Z, X); -inf for a z without mass."""
    log_p = log(recognition.T) + log(p_x) - log(q_z).masked_fill(q_z == 0, 0)[:, None]
    return log_p.masked_fill((q_z == 0)[:, None], -torch.inf)
