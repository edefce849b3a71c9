"""What the tests of `dataset_evidence` share: critics, pairs, the whole table, and each way that the engine may go."""

import math
from unittest import mock

import pytest
import torch
from residuals import agree
from torch import nn
from torch.nn import functional as F
from worlds import Entangled

import rpm_tutorial as rpm
from rpm_tutorial import _tiles, dataset_evidence
from rpm_tutorial.critics import LinearCritic, LinearForm

DIM = 3


class Masked(nn.Module):
    """A random walk that forbids steps longer than `reach`: f = 0, so log f = -inf, off the diagonal."""

    def __init__(self):
        super().__init__()
        self.walk = rpm.RandomWalk(0.7)

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
    "Universal": lambda: rpm.Universal(DIM, width=8, features=5),
    "Entangled": lambda: Entangled(DIM),
    "Masked": Masked,
    "BothBiases": BothBiases,
    "sharp": lambda: rpm.VonMisesFisher(0.005),
}
each_critic = pytest.mark.parametrize("name", CRITICS)
each_half = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


def made(name: str, dtype=torch.float64, reach: float = 1.5) -> nn.Module:
    """A critic, with a parameter that it doesn't use."""
    torch.manual_seed(0)
    critic = CRITICS[name]()
    critic.reach, critic.unused = reach, nn.Parameter(torch.ones(2))
    return critic.to(dtype)


def pairs(n: int, *, noise: float = 0.3, dtype=torch.float64, offset: float = 0.0, size: float = 1.0):
    z, step = torch.randn(2, n, DIM, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    return [(size * t + offset).to(dtype).requires_grad_() for t in (z, z + noise * step)]


def _way(**options):
    def this_way(z, z_prime, critic, **more):
        with mock.patch.dict(_tiles.STRIP_ROWS, cpu=(2, 2)):  # several strips even for a few rows
            return dataset_evidence(z, z_prime, critic, **options, **more)

    return this_way


WAYS = {"small tiles": _way(block=3), "strips": _way()}
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def by_table(critic, z, z_prime, normalise="rows", candidates=None, labels=None) -> torch.Tensor:
    """log f_ii - log sum_j f_ij of each pair, from the whole table; with labels, the mean over its partners j."""
    if normalise == "both":
        return sum(by_table(critic, z, z_prime, side, labels=labels) for side in ("rows", "columns")) / 2
    n, itself = len(z), torch.zeros((), dtype=torch.bool)
    of_rows = torch.arange(n) if labels is None else labels
    if normalise == "views":
        z = z_prime = torch.cat([z, z_prime])
        of_rows, itself = of_rows.repeat(2), torch.eye(2 * n, dtype=torch.bool)
    elif candidates is not None:
        z_prime = torch.cat([z_prime, candidates])
    log_f = critic(z, z_prime).T if normalise == "columns" else critic(z, z_prime)
    log_p = log_f.masked_fill(itself, -torch.inf).log_softmax(1)
    of_columns = F.pad(of_rows, (0, log_f.shape[1] - len(of_rows)), value=-1)
    partners = (of_rows[:, None] == of_columns) & ~itself
    each = log_p.masked_fill(~partners, 0).sum(1) / partners.sum(1)
    return each.view(-1, n).mean(0)


def gradients(value, z, z_prime, critic, *more):
    inputs = [t for t in (z, z_prime, *more, *critic.parameters()) if t.requires_grad]
    return torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True, materialize_grads=True)


def agree_each(identity: str, found, expected, **options) -> None:
    for one, other in zip(found, expected, strict=True):
        agree(identity, one, other, **options)


def agrees_with_the_table(way, critic, z, z_prime, **options) -> None:
    """The mean, each pair's number, and the gradients of both with other incoming gradients than 1."""
    found, each = way(z, z_prime, critic, **options), way(z, z_prime, critic, reduction="none", **options)
    expected, n = by_table(critic, z, z_prime, **options), len(z)
    rows = 2 * n if options.get("normalise") == "views" else n
    further = [options[name] for name in ("candidates",) if name in options]
    candidates = rows + sum(map(len, further))
    for one, of_table in ((found, expected.mean()), (each, expected)):
        agree("(E14) = the table: value", one.value, of_table + math.log(candidates))
        agree("(E14) = the table: log evidence", one.log_evidence, of_table - math.log(rows))
        assert one.n == rows
    weights = torch.linspace(-1, 2, n).double()
    for value, of_table in (
        (3 * found.value - 5 * found.log_evidence, -2 * expected.mean()),
        (weights @ each.value, weights @ expected),
    ):
        slopes = (gradients(v, z, z_prime, critic, *further) for v in (value, of_table))
        agree_each("(E14) = the table: gradients", *slopes)
