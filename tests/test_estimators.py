"""The estimators of mutual information: exact on a table, right on Gaussians, and what each leaves undetermined."""

import itertools
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from residuals import agree
from scipy.spatial.distance import jensenshannon
from torch.autograd import gradcheck

import rpm_tutorial as rpm
from rpm_tutorial import estimators
from rpm_tutorial.estimators import ESTIMATORS, infonce_anchor

ANCHORS = {f"anchor of {k}, nu {nu}": partial(infonce_anchor, k=k, nu=nu) for k, nu in ((1, 1.0), (2, 0.5), (3, 4.0))}
TRAINED = {
    "JS": estimators.jensen_shannon,
    "DRF": estimators.density_ratio_fitting,
    "NWJ": lambda log_f, q_joint=None: estimators.unpaired(rpm.nwj)(log_f + 1, q_joint),
    "SigLIP of 3": lambda log_f, q_joint=None: estimators.siglip(log_f - math.log(3), q_joint, k=3),
    **ANCHORS,
}  # each is best at f = r
each_trained = pytest.mark.parametrize("objective", TRAINED.values(), ids=TRAINED)
each_estimator = pytest.mark.parametrize("name", ESTIMATORS)


def table(n: int = 4, m: int = 4) -> torch.Tensor:
    q = torch.rand(n, m, generator=torch.Generator().manual_seed(5), dtype=torch.float64) + 0.05
    return q / q.sum()


def log_ratio(q_joint: torch.Tensor) -> torch.Tensor:
    return (q_joint / torch.outer(q_joint.sum(1), q_joint.sum(0))).log()


def random_scores(n: int = 4, m: int = 4) -> torch.Tensor:
    return torch.randn(n, m, generator=torch.Generator().manual_seed(6), dtype=torch.float64)


def hide(s: torch.Tensor, row: int) -> torch.Tensor:
    return s.index_fill(0, torch.tensor(row), -torch.inf)


def best_critic(name: str, log_r: torch.Tensor) -> torch.Tensor:
    return log_r + 1 if name == "NWJ" else log_r


@each_estimator
def test_the_best_critic_of_a_table_reads_its_information_exactly(name):
    q = table()
    found = ESTIMATORS[name].estimate(best_critic(name, log_ratio(q)), q)
    agree(f"{name} at its best critic is the MI", found.value, rpm.mutual_information(q), tolerance=1e-12)


def test_the_objectives_at_the_ratio_are_the_divergences_they_are_named_after():
    q = table()
    product = torch.outer(q.sum(1), q.sum(0))
    expected = jensenshannon(q.flatten(), product.flatten()) ** 2
    agree("JS is the divergence", estimators.jensen_shannon(log_ratio(q), q).value, expected, tolerance=1e-12)
    chi_squared = (q**2 / product).sum() - 1
    found = estimators.density_ratio_fitting(log_ratio(q), q).value
    agree("DRF is half of chi squared", found, chi_squared / 2, tolerance=1e-12)


@each_trained
def test_no_table_of_scores_does_better_than_the_ratio(objective):
    q = table(4, 3)
    best = log_ratio(q).requires_grad_()
    (gradient,) = torch.autograd.grad(objective(best, q).value, best)
    agree("the ratio is stationary", gradient, torch.zeros_like(gradient), tolerance=1e-12)
    for seed in range(5):
        nearby = best.detach() + 0.1 * torch.randn(4, 3, generator=torch.Generator().manual_seed(seed)).double()
        assert objective(nearby, q).value < objective(best, q).value


def walk_of_two_and_a_half_nats(seed: int = 0) -> tuple[Callable, torch.Tensor, torch.Tensor]:
    rho, rng = 0.9966, torch.Generator().manual_seed(seed)
    walk = rpm.RandomWalk((1 - rho**2) ** 0.5, learnable=False).double()
    return walk, *rpm.gaussian.sample(256, rho, 1, generator=rng)


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name not in ("InfoNCE", "DV", "SMILE", "SigLIP")])
def test_a_walk_with_a_bias_reads_what_a_walk_alone_cannot(name):
    """A walk's scores are at most 0. Only the bias is trained; DV, which is blind to it, is what NWJ then is."""
    (walk, *pair), estimator = walk_of_two_and_a_half_nats(), ESTIMATORS[name]
    critic, truth = rpm.WithBias(walk).double(), rpm.gaussian.mutual_information(0.9966, 1)
    assert estimator.estimate(critic(*pair)).value < truth - 1.5
    optimiser = torch.optim.LBFGS([critic.bias], max_iter=30, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = -estimator.objective(critic(*pair)).value
        loss.backward()
        return loss

    optimiser.step(closure)
    value = estimator.estimate(critic(*pair)).value
    assert abs(value - truth) < 0.25, (name, value.item(), truth)  # one sample of 256: DV is 0.18 below the truth
    if name == "NWJ":
        agree("NWJ at its best bias is DV", value, ESTIMATORS["DV"].estimate(walk(*pair)).value, tolerance=1e-6)


def test_a_heavy_tail_beyond_the_range_is_refused_by_what_would_read_minus_infinity():
    s = random_scores().float()
    s[0, 1] = 200.0
    for name in ("JS", "NWJ"):
        with pytest.raises(ValueError, match="log_f.* beyond torch.float32.*rpm.estimators.smile"):
            ESTIMATORS[name].estimate(s)
    assert all(ESTIMATORS[name].estimate(s).value.isfinite() for name in ("SMILE", "PC", "DV"))
    s[0, 1], s[0, 0] = 60.0, 5000.0  # a pair may score as high as it likes
    assert all(ESTIMATORS[name].estimate(s).value.isfinite() for name in ("JS", "NWJ"))
    assert estimators.jensen_shannon(1e30 * s).value.isfinite()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Guards may run slower:RuntimeWarning")  # torch, of Python 3.13.0
@each_estimator
def test_an_estimator_asks_no_number_of_a_batch_that_nobody_can_look_into(name):
    torch.compiler.reset()  # it counts how often one function is compiled
    s = torch.stack([random_scores(), 2 * random_scores().T])
    for function in ESTIMATORS[name]:

        def value(t, function=function):
            return function(t).value

        expected = torch.stack([value(t) for t in s])
        agree("estimators, vmapped", torch.func.vmap(value)(s), expected)
        agree("estimators, compiled", torch.compile(value, fullgraph=True, backend="eager")(s[0]), expected[0])
        assert value(s[0].to("meta")).is_meta


def test_the_anchor_without_weight_is_infonce_and_of_one_candidate_at_even_odds_the_logistic():
    s, q = random_scores(), table()
    agree("nu = 0 is InfoNCE", torch.stack(infonce_anchor(s, nu=0.0)), torch.stack(rpm.infonce(s)), tolerance=1e-12)
    one, logistic = infonce_anchor(s, q, k=1, nu=1.0), estimators.jensen_shannon(s, q)
    agree("k = 1, nu = 1 is the logistic", torch.stack(one), torch.stack(logistic), tolerance=1e-12)
    half = infonce_anchor(s), infonce_anchor(s, q, k=2)
    assert half == (infonce_anchor(s, nu=3.0), infonce_anchor(s, q, k=2, nu=2.0)), "by default half have a partner"


@pytest.mark.parametrize("nu", [0.0, 0.5, 2.0])
def test_the_anchor_of_a_table_is_the_sum_over_all_candidates(nu):
    s, q, k = random_scores(2, 3), table(2, 3), 3
    f, q_z, q_z_prime, total = s.exp(), q.sum(1), q.sum(0), 0.0
    for z, *columns in itertools.product(range(2), *[range(3)] * k):
        others = math.prod(q_z_prime[j] for j in columns[1:])
        normaliser = nu + sum(f[z, j] for j in columns)
        partner = q[z, columns[0]] * others * (f[z, columns[0]] * (k + nu) / normaliser).log()
        total += k / (k + nu) * partner
        total += nu / (k + nu) * q_z[z] * q_z_prime[columns[0]] * others * ((k + nu) / normaliser).log()
    agree("the anchor's sum over candidates", infonce_anchor(s, q, k=k, nu=nu).value, total, tolerance=1e-12)


def by_hand(logits: torch.Tensor) -> torch.Tensor:
    """SigLIP's loss as its authors write it: the log-sigmoid of +-1 times each cell's logit, summed, over the rows."""
    signs = 2 * torch.eye(*logits.shape) - 1
    return -torch.nn.functional.logsigmoid(signs * logits).sum() / len(logits)


def test_siglip_is_its_authors_loss_and_the_logistic_objective_at_other_odds():
    s, q, bias = random_scores(4, 6), table(), -1.7
    for m in (4, 6):  # a queue's cells are independent, too
        agree("SigLIP is its authors' loss", estimators.siglip(s[:, :m] + bias).value, -by_hand(s[:, :m] + bias))
    even, logistic = estimators.siglip(s[:, :4], q), estimators.jensen_shannon(s[:, :4], q)
    agree("SigLIP at even odds is the logistic", logistic.value, math.log(2) + even.value / 2, tolerance=1e-12)
    batch, others = estimators.siglip(s).value, estimators.siglip(s, k=5).value
    assert batch == others, "by default all cells of a batch count alike"


def test_siglip_s_best_scores_are_infonce_s_but_for_an_offset_that_it_does_not_see():
    q, k = table(4, 3), 7.0
    best = (log_ratio(q) - math.log(k)).requires_grad_()
    (slope,) = torch.autograd.grad(estimators.siglip(best, q, k=k).value, best)
    agree("log r - log k is best", slope, torch.zeros_like(slope), tolerance=1e-12)
    agree("SigLIP's scores, read by InfoNCE", rpm.infonce(best, q).value, rpm.mutual_information(q), tolerance=1e-12)


def test_columns_beyond_the_pairs_are_independent_samples():
    """Of a queue: n (m - 1) cells, and for the anchor m - 1 candidates."""
    s, n, m = random_scores(3, 5), 3, 5
    others, pairs = ~torch.eye(n, m, dtype=torch.bool), s.diagonal()
    f = s[others].exp()
    expected = {
        "JS": math.log(2) - (torch.log1p((-pairs).exp()).mean() + torch.log1p(f).mean()) / 2,
        "DRF": pairs.exp().mean() - (f.square().mean() + 1) / 2,
        "NWJ": pairs.mean() + 1 - f.mean(),
        "SMILE": pairs.mean() - s.clamp(-5, 5)[others].exp().mean().log(),
        "PC": pairs.mean(),
        "DV": pairs.mean() - f.mean().log(),
    }
    read = {"SMILE": estimators.smile, "PC": estimators.plug_in, "DV": ESTIMATORS["DV"].objective}
    for name, value in expected.items():
        agree("estimators of a queue", (TRAINED | read)[name](s).value, value, tolerance=1e-12)
    agree("the anchor of a queue", infonce_anchor(s, nu=0.0).value, rpm.infonce(s).value, tolerance=1e-12)
    assert infonce_anchor(s) == infonce_anchor(s, nu=4.0, k=4)


def test_clipping_changes_the_normaliser_alone_and_none_of_it_is_donsker_varadhan():
    s, q = 3 * random_scores(), table()
    plain = torch.stack(estimators.smile(s, q, clip=math.inf))
    agree("SMILE without a clip is DV", plain, torch.stack(rpm.donsker_varadhan(s, q)), tolerance=1e-12)
    found = estimators.smile(s, q, clip=1.0)
    mean = (torch.outer(q.sum(1), q.sum(0)) * s.exp().clamp(math.exp(-1), math.e)).sum()
    agree("SMILE clips f", found.value, (q * s).sum() - mean.log(), tolerance=1e-12)
    agree("SMILE leaves the score", found.score, (q * s).sum(), tolerance=1e-12)


@each_trained
def test_the_mean_of_many_batches_is_the_value_of_the_table(objective):
    """Pairs on the diagonal, independent draws beside it: no bias."""
    q, s, rng = table(), random_scores(), torch.Generator().manual_seed(0)
    cells = torch.multinomial(q.flatten(), 400 * 6, replacement=True, generator=rng).view(400, 6)
    values = torch.stack([objective(s[batch // 4][:, batch % 4]).value for batch in cells])
    assert abs(values.mean() - objective(s, q).value) < 4 * values.std() / 400**0.5


def test_on_a_batch_the_pairs_do_not_count_as_independent():
    """Raise the partners' scores: InfoNCE's own normaliser rises with them, those of the estimators do not."""
    s = random_scores()
    raised = s + 2 * torch.eye(4)
    assert rpm.nwj(raised).log_normaliser > rpm.nwj(s).log_normaliser
    for read in (*(ESTIMATORS[name].estimate for name in ("DV", "NWJ", "JS", "SMILE")), TRAINED["DRF"]):
        before, after = read(s).log_normaliser, read(raised).log_normaliser
        agree("the diagonal is not independent", before, after, tolerance=1e-12)


BESIDE = {**TRAINED, "SMILE": estimators.smile, "no anchor": partial(infonce_anchor, k=2, nu=0.0)}


@pytest.mark.parametrize("objective", BESIDE.values(), ids=BESIDE)
def test_gradients_are_right_beside_infinities_too(objective):
    hidden = torch.zeros(4, 4, dtype=torch.bool)
    hidden[0, 1] = True
    q = table().masked_fill(hidden, 0)
    q, s = q / q.sum(), random_scores().requires_grad_()
    assert gradcheck(lambda t: objective(t.masked_fill(hidden, -torch.inf), q).value, s)
    assert gradcheck(lambda t: objective(t.masked_fill(hidden, -torch.inf)).value, s)


REFUSED = {
    "log_f has a single pair; expected two or more": lambda s, q: estimators.unpaired(rpm.nwj)(s[:1, :1]),
    "expected .n, m. with m >= n: one row per z": lambda s, q: estimators.plug_in(s[:, :2]),
    "k is -1; expected a positive": lambda s, q: estimators.siglip(s, k=-1),
    "clip is nan; expected a positive number": lambda s, q: estimators.smile(s, clip=math.nan),
    "k is None; a table has no batch size: say how many": lambda s, q: infonce_anchor(s, q),
    "k is 4; expected 1 to 3 candidates": lambda s, q: infonce_anchor(s, k=4),
    "k is 13; expected 1 to 11 candidates: a table of 4 columns": lambda s, q: infonce_anchor(s, q, k=13),
    "k is 2.0, a float; expected a whole number": lambda s, q: infonce_anchor(s, q, k=2.0),
    "log_f is -inf for a partner .* an anchor: nu > 0": lambda s, q: infonce_anchor(hide(s, 0), nu=0.0),
    "-inf for a partner .* an anchor: nu > 0": lambda s, q: infonce_anchor(hide(s, 0), q, nu=0.0, k=2),
    "nu is inf; expected a finite weight": lambda s, q: infonce_anchor(s, nu=math.inf),
    "E f or E f.2, .* is beyond torch.float16": lambda s, q: estimators.density_ratio_fitting((s + 6).half()),
    "kept is 0.0; expected a share": lambda s, q: estimators.stein_score(s, kept=0.0),
    "x has a single row; expected at least two samples": lambda s, q: estimators.stein_score(s[:1]),
    "the median distance between rows of z_prime is 0": lambda s, q: estimators.mige(s, 0 * s),
    "z has 4 rows and z_prime 2; expected one row each per pair": lambda s, q: estimators.mige(s, s[:2]),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_estimated_is_refused_with_a_remedy(message):
    with pytest.raises((TypeError, ValueError), match=message):
        REFUSED[message](random_scores(), table())


@pytest.mark.parametrize("name", estimators.ESTIMATORS)
def test_half_precision_is_float32_rounded_once_in_what_is_trained_and_what_is_read(name):
    n, draw = 40, torch.Generator().manual_seed(0)
    log_f = (4 * torch.randn(n, n, generator=draw) + 8 * torch.eye(n)).bfloat16()
    for function in estimators.ESTIMATORS[name]:
        for low, high in zip(function(log_f), function(log_f.float()), strict=True):
            assert low.dtype == torch.bfloat16 and torch.equal(low, high.bfloat16()), (low, high)


@pytest.mark.parametrize("scale", [1e-9, 3.0, 1e9])
def test_the_score_scales_and_moves_with_the_samples(scale):
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = estimators.stein_score(scale * (x + 1e4)) * scale
    agree("the score of samples of any size", found, estimators.stein_score(x), tolerance=1e-6)
    moved = estimators.mige(*(scale * side for side in x.T[:, :, None]))
    agree("MIGE of samples of any size", moved, estimators.mige(*x.T[:, :, None]), tolerance=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_score_in_any_precision_is_that_of_float64(dtype):
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)).to(dtype)
    found, exact = estimators.stein_score(x, kept=0.9), estimators.stein_score(x.double(), kept=0.9)
    assert found.dtype == dtype and estimators.mige(x, x).dtype == dtype
    assert (found - exact).abs().max() < 20 * torch.finfo(dtype).eps * exact.abs().max()


@pytest.mark.parametrize("dim", [1, 8])
def test_the_score_of_a_gaussian_is_found_from_its_samples(dim):
    """Off by less than a third of its own size, on three samples of 500 each."""
    for seed in range(3):
        x = torch.randn(500, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert (estimators.stein_score(x) + x).square().mean() < 0.3 * x.square().mean()


@pytest.mark.parametrize("rho, dim", [(0.5, 1), (-0.8, 8)])
def test_mige_moves_as_the_information_does(rho, dim):
    slopes = []
    for seed in range(2):
        z, noise = torch.randn(2, 500, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        r = torch.tensor(rho, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(estimators.mige(z, r * z + (1 - r**2).sqrt() * noise), r)
        slopes.append(slope)
    truth = dim * rho / (1 - rho**2)
    assert all(abs(slope - truth) < 0.15 * abs(truth) for slope in slopes)


def test_a_batch_s_anchor_takes_the_columns_that_follow_the_partner():
    s, n = random_scores(), len(random_scores())
    for k, nu in ((1, 1.0), (2, 0.5), (n - 1, 3.0)):
        beside = torch.stack([s[i, [(i + j) % n for j in range(n)]] for i in range(n)]).exp()
        terms = (nu + beside[:, :k].sum(1)).log(), (nu + beside[:, 1 : k + 1].sum(1)).log()
        expected = (k * terms[0].mean() + nu * terms[1].mean()) / (k + nu) - math.log(k + nu)
        agree("the anchor's neighbours", infonce_anchor(s, k=k, nu=nu).log_normaliser, expected, tolerance=1e-12)
    order = [1, 0, *range(2, n)]
    assert abs(infonce_anchor(s[order][:, order], k=1).value - infonce_anchor(s, k=1).value) > 1e-3
