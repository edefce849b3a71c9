"""Digits: each objective in float32 against float64 on the same scores, large ones included, and the cases of other libraries."""

import math

import pytest
import torch
from test_objectives import ALL, barber_agakov
from torch.nn import functional as F

import rpm_tutorial as rpm
from rpm_tutorial import dataset_evidence, estimators, sampled_evidence

N, EPS = 256, torch.finfo(torch.float32).eps
BLIND_TO_ROWS, BLIND_TO_A_CONSTANT = (rpm.infonce, barber_agakov), (rpm.symmetric_infonce, rpm.donsker_varadhan)
ANCHORS = [lambda s, q=None, nu=nu: estimators.infonce_anchor(s, q, nu=nu, k=2) for nu in (0.0, 1.0)]


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


@pytest.mark.parametrize("name", estimators.ESTIMATORS)
def test_an_estimator_keeps_the_digits_that_its_two_terms_lose(name):
    scores = cosines() - 100
    for function in estimators.ESTIMATORS[name]:
        if function not in (estimators.plug_in, estimators.density_ratio_fitting):
            keeps_its_digits(function, scores)
    for function, far in ((estimators.unpaired(rpm.donsker_varadhan), scores + 1e5), (ANCHORS[0], scores + 1e5)):
        keeps_its_digits(function, far)
    for function in (estimators.jensen_shannon, ANCHORS[1]):
        keeps_its_digits(function, scores + 1e5 * torch.eye(N))


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


@pytest.mark.parametrize("normalise", ["rows", "columns"])
def test_the_evidence_keeps_the_digits_of_rows_far_from_0(normalise):
    scores = moved(cosines(), rpm.infonce)
    exact = scores.double().requires_grad_()
    high = rpm.infonce(exact).value
    critic, z = Lookup(scores if normalise == "rows" else scores.T), torch.arange(N)[:, None].float()
    found = dataset_evidence(z, z, critic, block=50, normalise=normalise).infonce
    assert abs(found - high) <= 4 * EPS * max(1, abs(high))
    (slope,), (expected,) = torch.autograd.grad(found, critic.scores), torch.autograd.grad(high, exact)
    expected = expected if normalise == "rows" else expected.T
    assert (slope - expected).abs().max() <= 1e-5 * expected.abs().max()
    drawn = sampled_evidence(z, z, critic, rows=N, negatives=N, generator=torch.Generator().manual_seed(0))
    if normalise == "rows":
        assert abs(drawn.infonce - high) < 1e-6


# The cases of lightly's tests of NTXentLoss, and of pytorch-metric-learning's, in our words: both views of each of n items
# are rows and columns, no view meets itself, and the loss is log 2n less InfoNCE.


def nt_xent(a: torch.Tensor, b: torch.Tensor, temperature: float) -> torch.Tensor:
    n, views = len(a), F.normalize(torch.cat([a, b]), dim=1)
    itself = torch.eye(2 * n, dtype=torch.bool)
    log_f = (views @ views.T / temperature).masked_fill(itself, -torch.inf)
    return math.log(2 * n) - rpm.infonce(log_f.roll(n, 1)).value  # the other view's column comes to the diagonal


def by_hand(a: torch.Tensor, b: torch.Tensor, temperature: float) -> float:
    views, n = F.normalize(torch.cat([a, b]).double(), dim=1).tolist(), len(a)

    def f(i, j):
        return math.exp(sum(p * q for p, q in zip(views[i], views[j], strict=True)) / temperature)

    losses = [-math.log(f(i, (i + n) % (2 * n)) / sum(f(i, j) for j in range(2 * n) if j != i)) for i in range(2 * n)]
    return sum(losses) / (2 * n)


@pytest.mark.parametrize("temperature", [0.1, -1.0])
@pytest.mark.parametrize("dim", [1, 16])
def test_nt_xent_is_that_of_lightly_s_tests(dim, temperature):
    """The formula within 1e-5, and the views exchanged within 1e-6 or a digit."""
    draw = torch.Generator().manual_seed(dim)
    for n in (1, 2, 4, 19):
        a, b = torch.randn(2, n, dim, generator=draw)
        loss, exchanged = nt_xent(a, b, temperature), nt_xent(b, a, temperature)
        assert abs(loss - exchanged) <= 1e-6 * max(1, loss / 8)
        assert n > 4 or loss.item() == pytest.approx(by_hand(a, b, temperature), abs=1e-5)


@pytest.mark.parametrize("n", [1, 2, 16])
def test_views_that_all_agree_lose_the_logarithm_of_the_candidates(n):
    """To six digits, and a single pair, which has no other candidate, loses exactly 0."""
    a, b = torch.rand(2, n, 1, generator=torch.Generator().manual_seed(0))
    loss = nt_xent(torch.cat([a, 2 * a], 1), torch.cat([b, 2 * b], 1), 0.1)
    assert loss.item() == pytest.approx(math.log(2 * n - 1), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("dtype, digits", [(torch.float16, 1e-2), (torch.float32, 1e-5)])
def test_nt_xent_is_that_of_pytorch_metric_learning_s_tests(dtype, digits):
    """Points on the circle at given degrees, temperature 0.1: relative to the loss, in each dtype."""
    angles = torch.tensor([[0.0, 20.0, 60.0], [10.0, 50.0, 80.0]]).deg2rad()
    a, b = torch.stack([angles.cos(), angles.sin()], 2).to(dtype)
    assert nt_xent(a, b, 0.1).item() == pytest.approx(by_hand(a, b, 0.1), rel=digits)
