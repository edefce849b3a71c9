"""Closed forms for z, z' standard normal with correlation rho in each of `dim` independent dimensions (E20), in nats.

Arguments: `rho` in (-1, 1), `dim` a positive integer. All return a float, all raise `ValueError` for an argument out
of range. The critics are named by their geometry, as in `rpm_tutorial.critics`.
"""

import math

import torch
from torch import Tensor

from ._checks import check_alike, check_count, check_generator, check_latents, check_number, check_positive, shape_of


def sample(n: int, rho: float, dim: int = 1, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw n pairs z, z', each of shape (n, dim), float64."""
    _check(rho, dim)
    check_count("n", n)
    check_generator(generator, torch.device("cpu"))
    z, noise = torch.randn(2, n, dim, generator=generator, dtype=torch.float64)
    return z, rho * z + math.sqrt(1 - rho**2) * noise


def mutual_information(rho: float, dim: int = 1) -> float:
    """I(z;z') = -1/2 log(1 - rho^2) a dimension; I_inf of the optimal (full quadratic) critic. Source: (E20)."""
    _check(rho, dim)
    return -0.5 * dim * math.log1p(-(rho**2))


def chi_squared(rho: float, dim: int = 1) -> float:
    """chi^2 = E_{Q(z)Q(z')} f^2 - 1 of the optimal critic. Independent dimensions multiply 1 + chi^2. Source: (E16), (E20)."""
    _check(rho, dim)
    return math.expm1(-dim * math.log1p(-(rho**2)))


def infonce_random_walk(rho: float, scale: float, dim: int = 1) -> float:
    """I_inf of log f = -|z-z'|^2 / (2 scale^2), the random walk. Source: (E20) with a = 1/scale^2."""
    _check(rho, dim)
    check_positive("scale", scale)
    a = scale**-2
    return dim * (-a * (1 - rho) + 0.5 * math.log1p(a) + a / (2 * (1 + a)))


def infonce_inner_product(rho: float, kappa: float, dim: int = 1) -> float:
    """I_inf of log f = kappa z.z'. Source: (E20)."""
    _check(rho, dim)
    check_number("kappa", kappa)
    return dim * (kappa * rho - 0.5 * kappa**2)


def donsker_varadhan_inner_product(rho: float, kappa: float, dim: int = 1) -> float:
    """The Donsker-Varadhan objective of log f = kappa z.z', for kappa^2 < 1 (its normaliser diverges beyond). Source: (E20)."""
    _check(rho, dim)
    check_number("kappa", kappa)
    if not abs(kappa) < 1:
        raise ValueError(f"kappa is {kappa}; expected kappa^2 < 1, else E_{{Q(z)Q(z')}} f is infinite")
    return dim * (kappa * rho + 0.5 * math.log1p(-(kappa**2)))


def log_optimal_critic(z: Tensor, z_prime: Tensor, rho: float) -> Tensor:
    """log f = log Q(z,z') - log Q(z)Q(z') up to a constant, shape (n, m): the full quadratic of (E20)."""
    for name, side in (("z", z), ("z_prime", z_prime)):
        check_latents(name, side)
    check_alike("z", z, "z_prime", z_prime)
    if z.shape[1] != z_prime.shape[1]:
        raise ValueError(
            f"z has shape {shape_of(z)} and z_prime {shape_of(z_prime)}; expected the same number of columns"
        )
    _check(rho, z.shape[1])
    squares = z.square().sum(1)[:, None] + z_prime.square().sum(1)
    return (rho * z @ z_prime.T - 0.5 * rho**2 * squares) / (1 - rho**2)


def _check(rho: float, dim: int) -> None:
    if not -1 < rho < 1:
        raise ValueError(f"rho is {rho}; expected a correlation with -1 < rho < 1")
    check_count("dim", dim)
