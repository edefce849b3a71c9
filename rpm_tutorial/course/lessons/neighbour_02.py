"""Exercise of the neighbour N02: how far a latent lies from the ordinary ones."""

import torch

from ..exercise import Exercise, normal


def _latents(seed: int) -> tuple:
    z, reference = (normal(seed, 45 + seed, 3) @ normal(100 + seed, 3, 3) + 1).split([5 + seed, 40])
    return 2 * z, reference


def _squared_mahalanobis(z: torch.Tensor, reference: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    return ((z - centre) @ torch.linalg.inv(torch.cov(reference.T)) * (z - centre)).sum(1)


outlyingness = Exercise(
    prompt=(
        "Return the squared Mahalanobis distance of each row of z (n, k), shape (n,), from the sample reference (m, k): "
        "(z - mean)^T covariance^-1 (z - mean), with the mean and the covariance (divided by m - 1) of reference."
    ),
    case=_latents,
    solution=lambda z, reference: _squared_mahalanobis(z, reference, reference.mean(0)),
    hints=(
        "Centre by the mean of reference, and weigh by the inverse of its covariance.",
        "torch.cov wants the variables in rows: torch.cov(reference.T) has shape (k, k).",
        "((z - m) @ torch.linalg.inv(torch.cov(reference.T)) * (z - m)).sum(1), m = reference.mean(0)",
    ),
    misconceptions={
        lambda z, reference: (z - reference.mean(0)).square().sum(1): (
            "that is the Euclidean distance: a step along a narrow direction should count for more."
        ),
        lambda z, reference: ((z - reference.mean(0)) / reference.std(0)).square().sum(1): (
            "each feature is scaled, but their correlations are left out: use the whole covariance."
        ),
        lambda z, reference: (
            _squared_mahalanobis(z, reference, reference.mean(0)) * len(reference) / (len(reference) - 1)
        ): ("your covariance is divided by m; m - 1 is asked for, since the mean was estimated too."),
        lambda z, reference: _squared_mahalanobis(z, reference, z.mean(0)): (
            "the centre is that of the ordinary responses, reference, and not of those under suspicion."
        ),
        lambda z, reference: _squared_mahalanobis(z, z, reference.mean(0)): (
            "the covariance is that of reference: outliers must not widen the yardstick."
        ),
        lambda z, reference: _squared_mahalanobis(z, reference, reference.mean(0)).sqrt(): "the square was asked for.",
    },
)
