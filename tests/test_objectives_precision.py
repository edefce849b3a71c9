"""Digits: each objective in float32 against float64 on the same scores, large ones included."""

import math

import pytest
import torch
from test_objectives import ALL, barber_agakov
from torch.nn import functional as F

import rpm_tutorial as rpm
from rpm_tutorial import dataset_evidence, estimators, sampled_evidence

N, EPS = 256, torch.finfo(torch.float32).eps
BLIND_TO_ROWS, BLIND_TO_A_CONSTANT = (rpm.infonce, barber_agakov), (rpm.symmetric_infonce, rpm.donsker_varadhan)


def cosines(n: int = N, temperature: float = 0.01) -> torch.Tensor:
    """Scores of pairs that lie close together, as SimCLR's are late in training."""
    z, step = torch.randn(2, n, 8, generator=torch.Generator().manual_seed(0))
    z, z_prime = F.normalize(z, dim=1), F.normalize(z + 0.1 * step, dim=1)
    return z @ z_prime.T / temperature


def table(n: int = N) -> torch.Tensor:
    """A q_joint with a row, a column and many cells without mass."""
    q = torch.rand(n, n, generator=torch.Generator().manual_seed(1)) ** 4 + 2 * torch.eye(n)
    q[q < 0.1], q[3], q[:, 5] = 0, 0, 0
    q = (q / q.sum() * 2**20).round() / 2**20  # exact in float32
    q[0, 0] += 1 - q.double().sum()
    return q


def moved(scores: torch.Tensor, objective) -> torch.Tensor:
    """Far from 0 by what the objective is blind to."""
    rows = torch.linspace(-1e5, 1e5, len(scores))[:, None]
    return scores + (rows if objective in BLIND_TO_ROWS else 1e5 if objective in BLIND_TO_A_CONSTANT else 0)


def keeps_its_digits(objective, scores: torch.Tensor, q: torch.Tensor | None = None) -> None:
    low, high = objective(scores, q), objective(scores.double(), None if q is None else q.double())
    assert abs(low.value - high.value) <= 4 * EPS * max(1.0, abs(high.value)), (low.value, high.value)
    for term, exact in zip(low[1:], high[1:], strict=True):
        assert abs(term - exact) <= 4 * EPS * max(1.0, scores.abs().max()), (term, exact)


@pytest.mark.parametrize("distribution", ["batch", "table"])
@pytest.mark.parametrize("objective", ALL, ids=lambda f: f.__name__)
def test_the_value_keeps_the_digits_that_its_two_terms_lose(objective, distribution):
    """Scores of 100 beside a value of 5, and rows or tables that lie 1e5 from 0."""
    scores, q = cosines(), None if distribution == "batch" else table()
    for each in (scores - 100,) if objective is rpm.nwj else (scores, moved(scores, objective)):
        keeps_its_digits(objective, each, q)


def test_an_estimator_keeps_the_digits_that_its_two_terms_lose():
    near, far, apart = cosines() - 100, cosines() + 1e5, cosines() - 100 + 1e5 * torch.eye(N)
    anchors = [lambda s, q=None, nu=nu: estimators.infonce_anchor(s, q, nu=nu, k=2) for nu in (0.0, 1.0)]
    for function in {function for functions in estimators.ESTIMATORS.values() for function in functions}:
        if function not in (estimators.plug_in, estimators.density_ratio_fitting):
            keeps_its_digits(function, near)
    for function, scores in (
        (estimators.unpaired(rpm.donsker_varadhan), far),
        (anchors[0], far),
        (estimators.jensen_shannon, apart),
        (anchors[1], apart),
    ):
        keeps_its_digits(function, scores)


@pytest.mark.parametrize("objective", [rpm.infonce, rpm.symmetric_infonce], ids=lambda f: f.__name__)
def test_no_batch_exceeds_log_n_by_a_single_digit(objective):
    for n in (*range(1, 12), 97, 256):
        for scores in (1e4 * torch.eye(n) + 1e5, cosines(n, 0.001)):
            assert objective(scores).value <= torch.tensor(math.log(n)), n
        assert objective(1e4 * torch.eye(n)).value == torch.tensor(math.log(n))


class Lookup(torch.nn.Module):
    """A critic whose scores stand in a table; a latent is its row's number."""

    def __init__(self, scores: torch.Tensor):
        super().__init__()
        self.scores = torch.nn.Parameter(scores)

    def forward(self, z, z_prime):
        return self.scores[z.flatten().long()][:, z_prime.flatten().long()]


def test_the_evidence_keeps_the_digits_of_rows_far_from_0():
    scores, z = moved(cosines(), rpm.infonce), torch.arange(N)[:, None].float()
    exact = scores.double().requires_grad_()
    high = rpm.infonce(exact).value
    (expected,) = torch.autograd.grad(high, exact)
    by_rows, by_columns = Lookup(scores), Lookup(scores.T)
    for critic, normalise, slope in ((by_rows, "rows", expected), (by_columns, "columns", expected.T)):
        found = dataset_evidence(z, z, critic, block=50, normalise=normalise).infonce
        assert abs(found - high) <= 4 * EPS * max(1, abs(high))
        (gradient,) = torch.autograd.grad(found, critic.scores)
        assert (gradient - slope).abs().max() <= 1e-5 * slope.abs().max()
    drawn = sampled_evidence(z, z, by_rows, rows=N, negatives=N, generator=torch.Generator().manual_seed(0))
    assert abs(drawn.infonce - high) < 1e-6
