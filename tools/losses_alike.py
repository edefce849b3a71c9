"""Losses without strangers: what they share with InfoNCE is a critic's score, and nothing stands for its normaliser.

So each gives one value to two sets of latents of which one is worth more nats.
"""

from collections.abc import Callable
from typing import NamedTuple

import others
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import rpm_tutorial as rpm


def corners(dim: int = 4) -> Tensor:
    return torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * dim)


def turned_corners(dim: int = 4) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return corners(dim) @ torch.linalg.qr(torch.randn(dim, dim, generator=rng, dtype=torch.float64))[0]


CORNERS = torch.cat([corners(), corners()]), torch.cat([corners(), turned_corners()])  # of the same second moments
CONSTANT = torch.ones_like(CORNERS[1]), CORNERS[1]
COSINE = rpm.VonMisesFisher(0.02).double()
STEP = rpm.RandomWalk(0.1).double()


class Alike(NamedTuple):
    loss: str
    call: str
    module: str  # of lightly.loss
    pull: dict  # options that leave nothing but what pulls partners together
    as_score: Callable[[Tensor, Tensor], Tensor]  # the same from a critic's score
    same: str
    latents: tuple[Tensor, Tensor]  # of two encoders that the loss can't tell apart, with z' = z
    of: tuple[str, str]
    critic: nn.Module


def _vicreg_pull(z: Tensor, z_prime: Tensor) -> Tensor:
    return -rpm.infonce(STEP(z, z_prime)).score


def _barlow_pull(z: Tensor, z_prime: Tensor) -> Tensor:
    """(1 - c)² of each coordinate, whose correlation c is 1 + the score of a walk of standardised steps."""
    z, z_prime = (F.batch_norm(side, None, None, training=True) for side in (z, z_prime))
    walk = rpm.RandomWalk(1.0).double()
    scores = [rpm.infonce(walk(a[:, None], b[:, None])).score for a, b in zip(z.T, z_prime.T)]
    lost = [2 - a.square().mean() - b.square().mean() for a, b in zip(z.T, z_prime.T)]  # to batch norm's ε
    return sum((-score + part / 2).square() for score, part in zip(scores, lost))


ALIKE = (
    Alike(
        "VICReg",
        "VICRegLoss",
        "vicreg_loss",
        {"lambda_param": 4 / (2 * STEP.scale.item() ** 2), "mu_param": 0.0, "nu_param": 0.0},
        _vicreg_pull,
        "minus the score of `RandomWalk(√(d/2λ))`",
        CORNERS,
        ("a cube's corners, each twice", "twice as many points of the same covariance"),
        STEP,
    ),
    Alike(
        "Barlow Twins",
        "BarlowTwinsLoss",
        "barlow_twins_loss",
        {"lambda_param": 0.0},
        _barlow_pull,
        "the squared score of `RandomWalk(1)`, over standardised coordinates",
        CORNERS,
        ("a cube's corners, each twice", "twice as many points of the same covariance"),
        STEP,
    ),
    Alike(
        "BYOL, SimSiam",
        "NegativeCosineSimilarity",
        "negative_cosine_similarity",
        {},
        lambda z, z_prime: -COSINE.temperature * rpm.infonce(COSINE(z, z_prime)).score,
        "minus a temperature times the score of `VonMisesFisher`",
        CONSTANT,
        ("one point for all", "a point for each"),
        COSINE,
    ),
)


def compared(case: Alike, pairs: list[tuple[Tensor, Tensor]]) -> dict:
    """The residual of the pull on these pairs, the loss of both encoders' latents, and the nats of each."""
    make = getattr(others.lightly_module(case.module), case.call)
    apart = max((make(**case.pull)(*pair) - case.as_score(*pair)).abs().item() for pair in pairs)
    losses = [make()(z, z).item() for z in case.latents]
    nats = [rpm.infonce(case.critic(z, z)).value.item() for z in case.latents]
    return {"residual": apart, "losses": losses, "nats": nats}
