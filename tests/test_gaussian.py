"""(E20): the closed forms of correlated Gaussians, against quadrature and against samples."""

import math

import numpy as np
import pytest
import torch
from numpy.polynomial.hermite_e import hermegauss
from residuals import agree
from scipy.special import logsumexp

from rpm_tutorial import gaussian

NODES, WEIGHTS = hermegauss(160)
LOG_W = np.log(WEIGHTS / WEIGHTS.sum())
each_rho, each_dim = pytest.mark.parametrize("rho", (-0.7, 0.45)), pytest.mark.parametrize("dim", (1, 5))


def expected_score(s, rho: float) -> float:
    """E s(z,z') under the joint, in one dimension."""
    z, noise = np.meshgrid(NODES, NODES, indexing="ij")
    return float(np.exp(LOG_W[:, None] + LOG_W).ravel() @ s(z, rho * z + math.sqrt(1 - rho**2) * noise).ravel())


def log_Z(s) -> np.ndarray:
    """log E_{Q(z')} f(z,z') at each node z."""
    return logsumexp(s(NODES[:, None], NODES) + LOG_W, axis=1)


def infonce(s, rho: float) -> float:
    return expected_score(s, rho) - float(np.exp(LOG_W) @ log_Z(s))


def log_ratio(rho: float):
    """log Q(z,z') - log Q(z) - log Q(z'), from the densities."""

    def s(z, z_prime):
        residual = (z_prime - rho * z) ** 2 / (1 - rho**2)
        return 0.5 * (z_prime**2 - residual) - 0.5 * math.log(1 - rho**2)

    return s


@each_rho
@each_dim
def test_the_closed_forms_are_what_quadrature_gives(rho, dim):
    ratio = log_ratio(rho)
    information = gaussian.mutual_information(rho, dim)
    agree("(E20) MI", information, dim * expected_score(ratio, rho), tolerance=1e-10)
    agree("(E20) InfoNCE of the optimal critic = MI", information, dim * infonce(ratio, rho), tolerance=1e-10)
    squares = math.exp(logsumexp(2 * ratio(NODES[:, None], NODES) + LOG_W[:, None] + LOG_W))
    agree("(E20) chi^2", gaussian.chi_squared(rho, dim), squares**dim - 1, tolerance=1e-10)
    for scale in (0.6, 2.5):
        expected = dim * infonce(lambda z, w, scale=scale: -((z - w) ** 2) / (2 * scale**2), rho)
        agree("(E20) random walk", gaussian.infonce_random_walk(rho, scale, dim), expected, tolerance=1e-10)
    for kappa in (-0.6, 0.3):
        score = lambda z, w, kappa=kappa: kappa * z * w  # noqa: E731
        found = gaussian.infonce_inner_product(rho, kappa, dim)
        agree("(E20) inner product", found, dim * infonce(score, rho), tolerance=1e-10)
        expected = dim * (expected_score(score, rho) - logsumexp(log_Z(score) + LOG_W))
        found = gaussian.donsker_varadhan_inner_product(rho, kappa, dim)
        agree("(E20) DV of the inner product", found, expected, tolerance=1e-10)


@each_rho
def test_log_optimal_critic_is_the_log_density_ratio_up_to_a_constant(rho):
    z, z_prime = gaussian.sample(9, rho, 3, generator=torch.Generator().manual_seed(0))
    z_prime = z_prime[:5]
    expected = log_ratio(rho)(z[:, None].numpy(), z_prime.numpy()).sum(2)
    difference = gaussian.log_optimal_critic(z, z_prime, rho) - torch.from_numpy(expected)
    agree("(E20) the optimal critic", difference, difference[0, 0].expand(9, 5), torch.from_numpy(expected))


@pytest.mark.parametrize("rho", [-0.9, 0.0, 0.6])
def test_samples_have_unit_variance_and_the_given_correlation(rho):
    sides = gaussian.sample(20_000, rho, 2, generator=torch.Generator().manual_seed(0))
    found = torch.cov(torch.stack([side.flatten() for side in sides]))
    spread = (2 / 40_000) ** 0.5  # standard error of a variance; that of a covariance is no larger
    assert (found - torch.tensor([[1, rho], [rho, 1]])).abs().max() < 5 * spread
