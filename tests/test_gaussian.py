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
RHOS, DIMS = (-0.7, 0.45), (1, 5)
each_rho, each_dim = pytest.mark.parametrize("rho", RHOS), pytest.mark.parametrize("dim", DIMS)


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
def test_mutual_information_is_minus_half_log_of_one_minus_rho_squared(rho, dim):
    found = gaussian.mutual_information(rho, dim)
    agree("(E20) MI by quadrature", found, dim * expected_score(log_ratio(rho), rho), tolerance=1e-10)


@each_rho
def test_the_full_quadratic_critic_reaches_the_mutual_information(rho):
    def s(z, z_prime):
        return (rho * z * z_prime - 0.5 * rho**2 * (z**2 + z_prime**2)) / (1 - rho**2)

    truth = gaussian.mutual_information(rho)
    agree("(E20) InfoNCE of the full quadratic = MI", infonce(s, rho), truth, tolerance=1e-10)


@each_rho
@each_dim
def test_chi_squared_multiplies_one_plus_chi_squared_across_dimensions(rho, dim):
    one = math.exp(logsumexp(2 * log_ratio(rho)(NODES[:, None], NODES) + LOG_W[:, None] + LOG_W)) - 1
    agree("(E20) chi^2 = rho^2 / (1 - rho^2)", gaussian.chi_squared(rho), rho**2 / (1 - rho**2))
    agree("(E20) chi^2 by quadrature", gaussian.chi_squared(rho, dim), (1 + one) ** dim - 1, tolerance=1e-10)


@each_rho
@each_dim
@pytest.mark.parametrize("scale", (0.6, 2.5))
def test_infonce_of_the_random_walk(rho, dim, scale):
    expected = dim * infonce(lambda z, w: -((z - w) ** 2) / (2 * scale**2), rho)
    agree("(E20) random walk", gaussian.infonce_random_walk(rho, scale, dim), expected, tolerance=1e-10)


@each_rho
@each_dim
@pytest.mark.parametrize("kappa", (-0.6, 0.3))
def test_infonce_and_donsker_varadhan_of_the_inner_product(rho, dim, kappa):
    def s(z, z_prime):
        return kappa * z * z_prime

    found = gaussian.infonce_inner_product(rho, kappa, dim)
    agree("(E20) inner product by quadrature", found, dim * infonce(s, rho), tolerance=1e-10)
    found = gaussian.donsker_varadhan_inner_product(rho, kappa, dim)
    expected = expected_score(s, rho) - logsumexp(log_Z(s) + LOG_W)
    agree("(E20) DV of the inner product by quadrature", found, dim * expected, tolerance=1e-10)


@each_rho
def test_log_optimal_critic_is_the_log_density_ratio_up_to_a_constant(rho):
    z, z_prime = gaussian.sample(9, rho, 3, generator=torch.Generator().manual_seed(0))
    z_prime = z_prime[:5]
    expected = log_ratio(rho)(z[:, None].numpy(), z_prime.numpy()).sum(2)
    difference = gaussian.log_optimal_critic(z, z_prime, rho) - torch.from_numpy(expected)
    agree("(E20) the optimal critic", difference, difference[0, 0].expand(9, 5), torch.from_numpy(expected))


@pytest.mark.parametrize("rho", [-0.9, 0.0, 0.6])
def test_samples_have_unit_variance_and_the_given_correlation(rho):
    z, z_prime = (
        side.flatten() for side in gaussian.sample(20_000, rho, 2, generator=torch.Generator().manual_seed(0))
    )
    spread = (2 / len(z)) ** 0.5  # standard error of a variance; that of a covariance is no larger
    expected = torch.tensor([[1, rho], [rho, 1]], dtype=torch.float64)
    assert (torch.cov(torch.stack([z, z_prime])) - expected).abs().max() < 5 * spread
