"""What the tests of `dataset_evidence` share: critics, pairs, the dense table, and each way the engine may go."""

import math
from unittest import mock

import pytest
import torch
from residuals import agree
from torch import nn
from worlds import Entangled

import rpm_tutorial as rpm
from rpm_tutorial import _tiles, dataset_evidence
from rpm_tutorial.critics import LinearCritic, LinearForm

DIM = 3


class Masked(nn.Module):
    """A random walk that forbids steps longer than `reach`: f = 0, so log f = -inf, off the diagonal."""

    def __init__(self, reach: float = 1.5):
        super().__init__()
        self.walk, self.reach = rpm.RandomWalk(0.7), reach

    def forward(self, z, z_prime):
        far = (z.detach()[:, None] - z_prime.detach()).norm(dim=2) > self.reach
        return self.walk(z, z_prime).masked_fill(far, -torch.inf)


class BothBiases(LinearCritic):
    """A linear form of your own, with a bias on either side."""

    def __init__(self):
        super().__init__()
        self.u, self.v = (nn.Parameter(torch.tensor([a, 0.1, -0.7])) for a in (0.4, -1.0))

    def linear_form(self, z, z_prime):
        return LinearForm(z.sin(), z_prime, z @ self.u, z_prime @ self.v)


CRITICS = {
    "RandomWalk": lambda: rpm.RandomWalk(0.7),
    "LaplaceWalk": lambda: rpm.LaplaceWalk(0.7),
    "Bilinear": lambda: rpm.Bilinear(DIM),
    "Universal": lambda: rpm.Universal(DIM, width=8, features=5),
    "Entangled": lambda: Entangled(DIM),
    "Masked": Masked,
    "BothBiases": BothBiases,
    "sharp": lambda: rpm.VonMisesFisher(0.005),
}
each_critic = pytest.mark.parametrize("name", CRITICS)
LINEAR = ("RandomWalk", "Bilinear", "Universal", "BothBiases", "sharp")

# The value of a dense table, and one term of it for each pair.
DENSE = {"rows": rpm.infonce, "columns": lambda log_f: rpm.infonce(log_f.T), "both": rpm.symmetric_infonce}
EACH = {
    "rows": lambda log_f: log_f.log_softmax(1).diagonal(),
    "columns": lambda log_f: log_f.log_softmax(0).diagonal(),
    "both": lambda log_f: (log_f.log_softmax(1) + log_f.log_softmax(0)).diagonal() / 2,
}
each_side = pytest.mark.parametrize("normalise", DENSE)


def _way(**options):
    """`dataset_evidence` on one of its ways, in several strips even for a few rows."""

    def this_way(z, z_prime, critic, **more):
        with mock.patch.dict(_tiles.STRIP_ROWS, cpu=(2, 2)):
            return dataset_evidence(z, z_prime, critic, **options, **more)

    return this_way


WAYS = {"small tiles": _way(block=3), "strips": _way()}
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def pairs(n: int, *, noise: float = 0.3, dtype=torch.float64, offset: float = 0.0, size: float = 1.0):
    z, step = torch.randn(2, n, DIM, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    return [(size * t + offset).to(dtype).requires_grad_() for t in (z, z + noise * step)]


def made(name: str, dtype=torch.float64) -> nn.Module:
    torch.manual_seed(0)
    return CRITICS[name]().to(dtype)


def gradients(value, z, z_prime, critic):
    inputs = [t for t in (z, z_prime, *critic.parameters()) if t.requires_grad]
    return torch.autograd.grad(value, inputs, allow_unused=True, materialize_grads=True)


def agree_each(identity: str, found, expected, **options) -> None:
    for one, other in zip(found, expected, strict=True):
        agree(identity, one, other, **options)


def agrees_with_the_dense_table(way, critic, z, z_prime, normalise="rows", **options):
    found, log_f = way(z, z_prime, critic, normalise=normalise, **options), critic(z, z_prime)
    dense, n = DENSE[normalise](log_f), len(z)
    agree("(E14) = dense: value", found.value, dense.value, *dense)
    agree("(E14) log evidence = I_N - 2 log N", found.log_evidence, dense.value - 2 * math.log(n))
    assert found.n == n and found.value.shape == found.log_evidence.shape == ()
    weighted = 3 * found.value - 5 * found.log_evidence  # an incoming gradient other than 1
    expected = gradients(-2 * dense.value, z, z_prime, critic)
    agree_each("(E14) = dense: gradients", gradients(weighted, z, z_prime, critic), expected)
