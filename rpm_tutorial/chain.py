"""A chain of latents with uncertainty: a Gaussian prior on sequences, its exact posterior, and the bound (E25)-(E27).

The prior P(Z) is a stationary chain, z_{t+1} = A z_t + noise. Its unit is its own spread: z_t ~ N(0, I) at every t, which
costs no generality, since an encoder's latents have no unit of their own; `unit_chain` brings a chain of another unit here.
Recognition speaks of the first k of the d dimensions of a state, u_t, by Q(u_t|x_t) = N(mean, covariance); the others, such
as a velocity, are known through the chain alone. A frame that was not seen drops its factor: so a gap is filled, and a future
is predicted, by frames with `seen=False`.

Shapes: B sequences of T frames; means (B, T, k), covariances (B, T, k, k), `seen` (B, T) of bool. All is in nats a sequence.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal
from torch.nn.functional import pad

from ._checks import check_alike, check_generator, check_kind, check_latents, check_tensor, shape_of


class Gaussian(NamedTuple):
    """Normal distributions: Q(u_t|x_t), (B, T, k) and (B, T, k, k); or Gamma_t of (E27), (T, k) and (T, k, k)."""

    mean: Tensor
    covariance: Tensor


class Smoothed(NamedTuple):
    """The posterior q(Z|X) ~ P(Z) prod_t Q(u_t|x_t) / Gamma_t(u_t), Gaussian and exact. Source: (E27).

    `mean` (B, T, d) and `covariance` (B, T, d, d) are those of each z_t given all frames; `log_normaliser` (B,) is the log of
    the integral over Z, in nats. Given z_{t+1}, z_t has the mean `gain` z_{t+1} + `offset` and the covariance `residual`.
    """

    mean: Tensor
    covariance: Tensor
    log_normaliser: Tensor
    gain: Tensor
    offset: Tensor
    residual: Tensor

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """n whole paths Z ~ q(Z|X), shape (n, B, T, d), through which gradients flow."""
        noise = _normal(self.mean, n, *self.mean.shape, 1, generator=generator)
        step = self.offset[..., None] + torch.linalg.cholesky(self.residual) @ noise
        path = [step[:, :, -1]]
        for t in range(self.mean.shape[1] - 2, -1, -1):
            path.append(self.gain[:, t] @ path[-1] + step[:, :, t])
        return torch.stack(path[::-1], 2)[..., 0]


class ChainBound(NamedTuple):
    """The bound L - C of each sequence and its terms, shape (B,), nats: value = log_normaliser + log_reference - log_q.

    `log_reference` = E_q sum_t log Gamma_t(u_t) and `log_q` = E_q sum_t log Q(u_t), over the frames that were seen, are means
    over the paths drawn. `log_evidence` is log P(X) - sum_t log P_true(x_t) itself, by importance weights of the same paths:
    from below in expectation, and exact for many. Source: (E25), (E27).
    """

    value: Tensor
    log_normaliser: Tensor
    log_reference: Tensor
    log_q: Tensor
    log_evidence: Tensor


class GaussianChain(nn.Module):
    """The prior P(Z): z_1 ~ N(0, I), z_{t+1} = A z_t + noise of covariance I - A A^T, so that each z_t ~ N(0, I).

    Args:
        transition: where A starts, shape (d, d), float32 or float64; every singular value is below one. Training keeps it so,
            since the parameter is W, and A = L^-1 W with I + W W^T = L L^T (Cholesky); every such A has its W.
        learnable: whether W is trained.
    Raises:
        ValueError: A is not square, not finite, or has a singular value of one or more.
    """

    def __init__(self, transition: Tensor, *, learnable: bool = True):
        super().__init__()
        check_tensor("transition", transition, dims=2)
        largest = torch.linalg.matrix_norm(transition, 2).item()
        if transition.shape[0] != transition.shape[1] or not largest < 1:
            raise ValueError(
                f"transition has shape {shape_of(transition)} and the singular value {largest:.4g}; expected (d, d) and all "
                "below 1, or no chain has unit covariance. For a chain of another unit call unit_chain(transition, noise)"
            )
        noise = torch.linalg.cholesky(_eye_like(transition) - transition @ transition.T)
        self.weight = nn.Parameter(_solve(noise, transition).detach(), requires_grad=learnable)

    @property
    def transition(self) -> Tensor:
        """A, shape (d, d)."""
        return _solve(self._scale(), self.weight)

    @property
    def noise(self) -> Tensor:
        """The covariance of a step given the state before it, I - A A^T, shape (d, d)."""
        root = _solve(self._scale(), _eye_like(self.weight))
        return root @ root.T  # positive, however close A A^T is to I

    def _scale(self) -> Tensor:
        return torch.linalg.cholesky(_eye_like(self.weight) + self.weight @ self.weight.T)

    def sample(self, n: int, frames: int, *, generator: torch.Generator) -> Tensor:
        """n paths Z ~ P(Z), shape (n, frames, d)."""
        path, scale = list(_normal(self.weight, frames, n, len(self.weight), generator=generator).mT), self._scale()
        for t in range(1, frames):
            path[t] = _solve(scale, self.weight @ path[t - 1] + path[t])  # L z_{t+1} = W z_t + noise of covariance I
        return torch.stack(path).permute(2, 0, 1)

    def smooth(
        self, recognition: Gaussian, *, reference: Gaussian | None = None, seen: Tensor | None = None
    ) -> Smoothed:
        """The posterior over states given all frames seen: Kalman's filter forwards, Rauch's smoother backwards, O(T).

        Args:
            recognition: Q(u_t|x_t); what stands at a frame not seen is not used.
            reference: Gamma_t; by default the standard normal, the prior's own marginal.
            seen: which frames were seen; by default all.
        Raises:
            ValueError: wrong shapes, mixed dtypes or devices, NaN, a covariance that is not positive definite, or a Gamma_t
                so much narrower than a Q(u_t|x_t) that q can't be normalised.
        """
        recognition, reference, seen = self._checked(recognition, reference, seen)
        scale, weight, eye = self._scale(), self.weight, _eye_like(self.weight)
        # log Q(u|x) - log Gamma(u) = -z^T precision z / 2 + z^T shift + constant, and 0 where nothing was seen
        own, gamma = (_natural(*gaussian, d=len(eye)) for gaussian in (recognition, reference))
        factors = [((q - g) * seen[..., None, None]).movedim(1, 0) for q, g in zip(own, gamma)]
        expected, pull, log_normaliser, backwards = eye, weight.new_zeros(len(eye), 1), 0.0, []
        for t, (precision, shift, constant) in enumerate(zip(*factors)):
            precision, shift = expected + precision, pull + shift  # of z_t, given the frames up to t
            root, failed = torch.linalg.cholesky_ex(precision)
            if failed.any():
                raise ValueError(
                    f"q can't be normalised at frame {t}: its Q(u|x) is wider than the reference by more than the chain allows; "
                    "expected covariances below the reference's. Remedy: let the encoder give a precision R >= 0, with "
                    "covariance (I + R)^-1; or a wider reference"
                )
            # A step has the precisions L^T L and W^T W: z_t is integrated out without a difference of large numbers.
            residual = torch.cholesky_inverse(torch.linalg.cholesky(precision + weight.T @ weight))
            backwards.append((residual @ weight.T @ scale, residual @ shift, residual))
            known, step = _solve(root, shift), _solve(root, weight.T)
            inner = torch.linalg.cholesky(eye + step.mT @ step)
            ahead, root_ahead = _solve(inner, step.mT @ known), _solve(inner, scale)
            through = log_normaliser + constant[:, 0, 0] - _half_log_det(root) + known.square().sum((1, 2)) / 2
            log_normaliser = through + _half_log_det(scale) - _half_log_det(inner) - ahead.square().sum((1, 2)) / 2
            expected, pull = root_ahead.mT @ root_ahead, root_ahead.mT @ ahead
        marginals = [(torch.cholesky_solve(shift, root), torch.cholesky_inverse(root))]
        backwards[-1] = (torch.zeros_like(root), *marginals[0])
        for gain, offset, residual in backwards[-2::-1]:
            state, spread = marginals[-1]
            marginals.append((gain @ state + offset, gain @ spread @ gain.mT + residual))
        means, covariances = (torch.stack(part[::-1], 1) for part in zip(*marginals))
        gains, offsets, residuals = (torch.stack(part, 1) for part in zip(*backwards))
        return Smoothed(means[..., 0], covariances, through, gains, offsets[..., 0], residuals)

    def bound(
        self,
        recognition: Gaussian,
        *,
        reference: Gaussian | None = None,
        seen: Tensor | None = None,
        samples: int = 8,
        generator: torch.Generator,
    ) -> ChainBound:
        """L - C <= log P(X) - sum_t log P_true(x_t) of each sequence, its Q(u_t) the mixture over the B sequences given.

        `samples` paths are drawn from q for what has no closed form; the other arguments and the errors are those of `smooth`.
        """
        recognition, reference, seen = self._checked(recognition, reference, seen)
        posterior = self.smooth(recognition, reference=reference, seen=seen)
        u = posterior.sample(samples, generator=generator)[..., : recognition.mean.shape[2]]
        each = MultivariateNormal(*recognition, validate_args=False).log_prob(u[:, :, None])
        mixed = seen | ~seen.any(0)  # of a frame that nobody saw nothing is asked: no NaN in its gradient, either
        mixture = each.masked_fill(~mixed, -torch.inf).logsumexp(2) - mixed.to(each.dtype).sum(0).log()
        log_q = mixture.masked_fill(~seen, 0).sum(2)  # (samples, B)
        log_reference = MultivariateNormal(*reference, validate_args=False).log_prob(u).masked_fill(~seen, 0).sum(2)
        log_evidence = posterior.log_normaliser + (log_reference - log_q).logsumexp(0) - math.log(samples)
        terms = posterior.log_normaliser, log_reference.mean(0), log_q.mean(0)
        return ChainBound(terms[0] + terms[1] - terms[2], *terms, log_evidence)

    def _checked(self, own: Gaussian, gamma: Gaussian | None, seen: Tensor | None) -> tuple[Gaussian, Gaussian, Tensor]:
        """The arguments, with what they are by default, and the covariance of a frame not seen put in order."""
        mean, covariance = own
        for name, part, dims in (("mean", mean, 3), ("covariance", covariance, 4)):
            check_kind(name, part, dims)
            check_latents(name, part.flatten(0, -2))
        check_alike("mean", mean, "covariance", covariance)
        check_alike("mean", mean, "chain", self.weight)
        k, d = mean.shape[2], len(self.weight)
        if covariance.shape != (*mean.shape, k) or k > d:
            raise ValueError(
                f"mean has shape {shape_of(mean)} and covariance {shape_of(covariance)}; expected (B, T, k) and (B, T, k, k) "
                f"with k at most the chain's {d}: torch.diag_embed(variance) for independent dimensions"
            )
        seen = torch.ones_like(mean[..., 0], dtype=torch.bool) if seen is None else seen
        if seen.shape != mean.shape[:2] or seen.dtype != torch.bool:
            raise ValueError(f"seen: {shape_of(seen)} of {seen.dtype}; expected {shape_of(mean[..., 0])} of torch.bool")
        eye = _eye_like(covariance)
        own = Gaussian(mean, torch.where(seen[..., None, None], covariance, eye))
        return own, gamma or Gaussian(mean.new_zeros(k), eye), seen


def unit_chain(transition: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """A stationary chain z_{t+1} = F z_t + N(0, noise) in its own unit: the A of `GaussianChain`, and L with z = L z_unit.

    L is lower triangular, so that the first k dimensions of z stay the first k. `ValueError` unless every eigenvalue of F is
    smaller than one in size and the noise is positive definite. Source: (E26).
    """
    check_tensor("transition", transition, dims=2)
    check_alike("transition", transition, "noise", noise)
    _root("the noise", noise)
    lyapunov = torch.kron(-transition, transition)
    stationary = torch.linalg.solve(_eye_like(lyapunov) + lyapunov, noise.flatten()).view_as(noise)
    scale = _root("a stationary chain (is every eigenvalue of the transition below 1?)", stationary)
    return _solve(scale, transition @ scale), scale


def _natural(mean: Tensor, covariance: Tensor, *, d: int) -> tuple[Tensor, Tensor, Tensor]:
    """Precision (.., d, d), precision times mean (.., d, 1) and the rest of the log (.., 1, 1), 0 beyond the first k."""
    root, hidden = _root("a Gaussian", covariance), d - mean.shape[-1]
    precision, column = torch.cholesky_inverse(root), mean[..., None]
    constant = -_half_log_det(root)[..., None, None] - column.mT @ precision @ column / 2
    return pad(precision, (0, hidden, 0, hidden)), pad(precision @ column, (0, 0, 0, hidden)), constant


def _normal(like: Tensor, *shape: int, generator: torch.Generator) -> Tensor:
    check_generator(generator, like.device)
    return torch.randn(*shape, generator=generator, dtype=like.dtype, device=like.device)


def _root(name: str, covariance: Tensor) -> Tensor:
    root, failed = torch.linalg.cholesky_ex(covariance)
    if failed.any():
        raise ValueError(f"the covariance of {name} is not positive definite; expected no variance of zero or less")
    return root


def _half_log_det(root: Tensor) -> Tensor:
    return root.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _solve(root: Tensor, right: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(root, right, upper=False)


def _eye_like(matrix: Tensor) -> Tensor:
    return torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
