"""The estimators of mutual information: exact on a table, right on Gaussians, and what each leaves undetermined."""

import itertools
import math
from functools import partial

import pytest
import torch
from residuals import agree
from scipy.optimize import minimize_scalar
from scipy.spatial.distance import jensenshannon
from torch import nn
from torch.autograd import gradcheck

import rpm_tutorial as rpm
from rpm_tutorial import estimators
from rpm_tutorial.estimators import ESTIMATORS, infonce_anchor

TRAINED = {
    "JS": estimators.jensen_shannon,
    "DRF": estimators.density_ratio_fitting,
    "NWJ": lambda log_f, q_joint=None: estimators.unpaired(rpm.nwj)(log_f + 1, q_joint),
    "SigLIP of 3": lambda log_f, q_joint=None: estimators.siglip(log_f - math.log(3), q_joint, k=3),
    **{f"anchor of {k}, nu {nu}": partial(infonce_anchor, k=k, nu=nu) for k, nu in ((1, 1.0), (2, 0.5), (3, 4.0))},
}  # each is best at f = r
BESIDE = {**TRAINED, "SMILE": estimators.smile, "no anchor": partial(infonce_anchor, k=2, nu=0.0)}
each_trained = pytest.mark.parametrize("objective", TRAINED.values(), ids=TRAINED)
each_estimator = pytest.mark.parametrize("name", ESTIMATORS)
exactly = partial(agree, tolerance=1e-12)


def table(n: int = 4, m: int = 4) -> torch.Tensor:
    q = torch.rand(n, m, generator=torch.Generator().manual_seed(5), dtype=torch.float64) + 0.05
    return q / q.sum()


def product(q: torch.Tensor) -> torch.Tensor:
    return torch.outer(q.sum(1), q.sum(0))


def log_ratio(q: torch.Tensor) -> torch.Tensor:
    return (q / product(q)).log()


def normal(*shape: int, seed: int = 6) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# What is best, and what it reads


@each_estimator
def test_the_best_critic_of_a_table_reads_its_information_exactly(name):
    q = table()
    found = ESTIMATORS[name].estimate(log_ratio(q) + (name == "NWJ"), q)
    exactly(f"{name} at its best critic is the MI", found.value, rpm.mutual_information(q))


def test_the_objectives_at_the_ratio_are_the_divergences_they_are_named_after():
    q = table()
    divergence = jensenshannon(q.flatten(), product(q).flatten()) ** 2
    exactly("JS is the divergence", estimators.jensen_shannon(log_ratio(q), q).value, divergence)
    chi_squared = (q**2 / product(q)).sum() - 1
    exactly("DRF is half of chi squared", estimators.density_ratio_fitting(log_ratio(q), q).value, chi_squared / 2)


@each_trained
def test_no_table_of_scores_does_better_than_the_ratio(objective):
    q = table(4, 3)
    best = log_ratio(q).requires_grad_()
    (gradient,) = torch.autograd.grad(objective(best, q).value, best)
    exactly("the ratio is stationary", gradient, torch.zeros_like(gradient))
    for seed in range(5):
        assert objective(best + 0.1 * normal(4, 3, seed=seed), q).value < objective(best, q).value


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name not in ("InfoNCE", "DV", "SMILE", "SigLIP")])
def test_a_walk_with_a_bias_reads_what_a_walk_alone_cannot(name):
    """A walk's scores are at most 0. Only the bias is trained; DV, which is blind to it, is what NWJ then is."""
    rho, estimator = 0.9966, ESTIMATORS[name]
    walk, truth = rpm.RandomWalk((1 - rho**2) ** 0.5, learnable=False).double(), rpm.gaussian.mutual_information(rho, 1)
    z, z_prime = rpm.gaussian.sample(256, rho, 1, generator=torch.Generator().manual_seed(0))
    log_f, critic = walk(z, z_prime), rpm.WithBias(walk).double()
    assert estimator.estimate(log_f).value < truth - 1.5

    def loss(bias: float) -> float:
        nn.init.constant_(critic.bias, bias)
        return -estimator.objective(critic(z, z_prime)).value.item()

    loss(minimize_scalar(loss, bounds=(0, 10), method="bounded").x)
    value = estimator.estimate(critic(z, z_prime)).value
    assert abs(value - truth) < 0.25, (name, value.item(), truth)  # one sample of 256: DV is 0.18 below the truth
    if name == "NWJ":
        agree("NWJ at its best bias is DV", value, ESTIMATORS["DV"].estimate(log_f).value, tolerance=1e-6)


# Each against its formula


def test_the_anchor_without_weight_is_infonce_and_of_one_candidate_at_even_odds_the_logistic():
    s, queue, q = normal(4, 4), normal(3, 5), table()
    for scores in (s, queue):
        exactly("nu = 0 is InfoNCE", torch.stack(infonce_anchor(scores, nu=0.0)), torch.stack(rpm.infonce(scores)))
    one, logistic = infonce_anchor(s, q, k=1, nu=1.0), estimators.jensen_shannon(s, q)
    exactly("k = 1, nu = 1 is the logistic", torch.stack(one), torch.stack(logistic))
    default, even = (
        (infonce_anchor(s), infonce_anchor(queue)),
        (infonce_anchor(s, nu=3), infonce_anchor(queue, nu=4, k=4)),
    )
    assert default == even and infonce_anchor(s, q, k=2) == infonce_anchor(s, q, k=2, nu=2.0), "half have a partner"


@pytest.mark.parametrize("nu", [0.0, 0.5, 2.0])
def test_the_anchor_of_a_table_is_the_sum_over_all_candidates(nu):
    s, q, k = normal(2, 3), table(2, 3), 3
    f, q_z, q_z_prime, total = s.exp(), q.sum(1), q.sum(0), 0.0
    for z, *columns in itertools.product(range(2), *[range(3)] * k):
        others = math.prod(q_z_prime[j] for j in columns[1:])
        normaliser = nu + sum(f[z, j] for j in columns)
        partner = q[z, columns[0]] * others * (f[z, columns[0]] * (k + nu) / normaliser).log()
        total += k / (k + nu) * partner
        total += nu / (k + nu) * q_z[z] * q_z_prime[columns[0]] * others * ((k + nu) / normaliser).log()
    exactly("the anchor's sum over candidates", infonce_anchor(s, q, k=k, nu=nu).value, total)


@pytest.mark.parametrize("k, nu", [(1, 1.0), (2, 0.5), (3, 3.0)])
def test_a_batch_s_anchor_takes_the_columns_that_follow_the_partner(k, nu):
    s = normal(4, 4)
    f = torch.stack([row.roll(-i) for i, row in enumerate(s.exp())])  # column 0 the partner
    with_partner, without = (nu + f[:, :k].sum(1)).log().mean(), (nu + f[:, 1 : k + 1].sum(1)).log().mean()
    expected = (k * with_partner + nu * without) / (k + nu) - math.log(k + nu)
    exactly("the anchor's neighbours", infonce_anchor(s, k=k, nu=nu).log_normaliser, expected)


def test_siglip_is_its_authors_loss_and_the_logistic_objective_at_other_odds():
    s, q, bias = normal(4, 6), table(), -1.7
    for m in (4, 6):  # a queue's cells are independent, too
        theirs = -nn.functional.logsigmoid((2 * torch.eye(4, m) - 1) * (s[:, :m] + bias)).sum() / 4
        agree("SigLIP is its authors' loss", estimators.siglip(s[:, :m] + bias).value, -theirs)
    even, logistic = estimators.siglip(s[:, :4], q), estimators.jensen_shannon(s[:, :4], q)
    exactly("SigLIP at even odds is the logistic", logistic.value, math.log(2) + even.value / 2)
    assert estimators.siglip(s) == estimators.siglip(s, k=5), "by default all cells of a batch count alike"


def test_columns_beyond_the_pairs_are_independent_samples_and_the_pairs_are_not():
    """Of a queue: n (m - 1) cells."""
    s, independent = normal(3, 5), ~torch.eye(3, 5, dtype=torch.bool)
    pairs, f = s.diagonal(), s[independent].exp()
    log_mean_f = {"DV": f.mean().log(), "SMILE": f.clamp(math.exp(-5), math.exp(5)).mean().log()}
    value = {
        "InfoNCE": rpm.infonce(s).value,
        "DV": pairs.mean() - log_mean_f["DV"],
        "NWJ": pairs.mean() - f.mean() / math.e,
        "JS": pairs.mean() + 1 - f.mean(),
        "SigLIP": pairs.mean() - log_mean_f["DV"],
        "SMILE": pairs.mean() - log_mean_f["SMILE"],
        "PC": pairs.mean(),
        "DRF": pairs.mean(),
        "anchor": pairs.mean(),
    }
    for name, estimator in ESTIMATORS.items():
        exactly(f"{name} reads a queue", estimator.estimate(s).value, value[name])
    logistic = math.log(2) - (torch.log1p((-pairs).exp()).mean() + torch.log1p(f).mean()) / 2
    exactly("JS of a queue", estimators.jensen_shannon(s).value, logistic)
    squares = pairs.exp().mean() - (f.square().mean() + 1) / 2
    exactly("DRF of a queue", estimators.density_ratio_fitting(s).value, squares)


def test_clipping_changes_the_normaliser_alone_and_none_of_it_is_donsker_varadhan():
    s, q = 3 * normal(4, 4), table()
    plain = torch.stack(estimators.smile(s, q, clip=math.inf))
    exactly("SMILE without a clip is DV", plain, torch.stack(rpm.donsker_varadhan(s, q)))
    found = estimators.smile(s, q, clip=1.0)
    exactly("SMILE leaves the score", found.score, (q * s).sum())
    mean = (product(q) * s.exp().clamp(math.exp(-1), math.e)).sum()
    exactly("SMILE clips f", found.log_normaliser, mean.log())


@each_trained
def test_the_mean_of_many_batches_is_the_value_of_the_table(objective):
    """Pairs on the diagonal, independent draws beside it: no bias."""
    q, s, rng = table(), normal(4, 4), torch.Generator().manual_seed(0)
    cells = torch.multinomial(q.flatten(), 400 * 6, replacement=True, generator=rng).view(400, 6)
    values = torch.stack([objective(s[batch // 4][:, batch % 4]).value for batch in cells])
    assert abs(values.mean() - objective(s, q).value) < 4 * values.std() / 400**0.5


# Extremes, precision, and what is refused


@pytest.mark.parametrize("objective", BESIDE.values(), ids=BESIDE)
def test_gradients_are_right_beside_infinities_too(objective):
    hidden = torch.zeros(4, 4, dtype=torch.bool)
    hidden[0, 1] = True
    q, s = table().masked_fill(hidden, 0), normal(4, 4).requires_grad_()
    for weights in (q / q.sum(), None):
        assert gradcheck(lambda t, q=weights: objective(t.masked_fill(hidden, -torch.inf), q).value, s)


def test_a_heavy_tail_beyond_the_range_is_refused_by_what_would_read_minus_infinity():
    s = normal(4, 4).float()
    s[0, 1] = 200.0
    for name in ("JS", "NWJ"):
        with pytest.raises(ValueError, match="log_f.* beyond torch.float32.*rpm.estimators.smile"):
            ESTIMATORS[name].estimate(s)
    assert all(ESTIMATORS[name].estimate(s).value.isfinite() for name in ("SMILE", "PC", "DV"))
    s[0, 1], s[0, 0] = 60.0, 5000.0  # a pair may score as high as it likes
    assert all(ESTIMATORS[name].estimate(s).value.isfinite() for name in ("JS", "NWJ"))
    assert estimators.jensen_shannon(1e30 * s).value.isfinite()


@each_estimator
def test_half_precision_is_float32_rounded_once_in_what_is_trained_and_what_is_read(name):
    log_f = (4 * normal(40, 40) + 8 * torch.eye(40)).bfloat16()
    for function in ESTIMATORS[name]:
        for low, high in zip(function(log_f), function(log_f.float()), strict=True):
            assert low.dtype == torch.bfloat16 and torch.equal(low, high.bfloat16()), (low, high)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Guards may run slower:RuntimeWarning")  # torch, of Python 3.13.0
@each_estimator
def test_an_estimator_asks_no_number_of_a_batch_that_nobody_can_look_into(name):
    torch.compiler.reset()  # it counts how often one function is compiled
    s = normal(2, 4, 4)
    for function in ESTIMATORS[name]:
        expected = torch.stack([function(t).value for t in s])
        agree("estimators, vmapped", torch.func.vmap(lambda t: function(t).value)(s), expected)  # noqa: B023
        compiled = torch.compile(function, fullgraph=True, backend="eager")
        agree("estimators, compiled", compiled(s[0]).value, expected[0])
        assert function(s[0].to("meta")).value.is_meta


def without(s: torch.Tensor) -> torch.Tensor:
    return s.index_fill(0, torch.tensor(0), -torch.inf)


REFUSED = {
    "log_f has a single pair; expected two or more": lambda s, q: estimators.unpaired(rpm.nwj)(s[:1, :1]),
    "expected .n, m. with m >= n: one row per z": lambda s, q: estimators.plug_in(s[:, :2]),
    "k is -1; expected a positive": lambda s, q: estimators.siglip(s, k=-1),
    "clip is nan; expected a positive number": lambda s, q: estimators.smile(s, clip=math.nan),
    "k is None; a table has no batch size: say how many": lambda s, q: infonce_anchor(s, q),
    "k is 4; expected 1 to 3 candidates": lambda s, q: infonce_anchor(s, k=4),
    "k is 13; expected 1 to 11 candidates: a table of 4 columns": lambda s, q: infonce_anchor(s, q, k=13),
    "k is 2.0, a float; expected a whole number": lambda s, q: infonce_anchor(s, q, k=2.0),
    "log_f is -inf for a partner .* an anchor: nu > 0": lambda s, q: infonce_anchor(without(s), nu=0.0),
    "-inf for a partner .* an anchor: nu > 0": lambda s, q: infonce_anchor(without(s), q, nu=0.0, k=2),
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
        REFUSED[message](normal(4, 4), table())


# Without a critic


@pytest.mark.parametrize("scale", [1e-9, 3.0, 1e9])
def test_the_score_scales_and_moves_with_the_samples(scale):
    x = normal(50, 2)
    found = estimators.stein_score(scale * (x + 1e4)) * scale
    agree("the score of samples of any size", found, estimators.stein_score(x), tolerance=1e-6)
    moved = estimators.mige(*(scale * side for side in x.T[:, :, None]))
    agree("MIGE of samples of any size", moved, estimators.mige(*x.T[:, :, None]), tolerance=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_score_in_any_precision_is_that_of_float64(dtype):
    x = normal(50, 2, seed=0).to(dtype)
    found, exact = estimators.stein_score(x, kept=0.9), estimators.stein_score(x.double(), kept=0.9)
    assert found.dtype == dtype and estimators.mige(x, x).dtype == dtype
    assert (found - exact).abs().max() < 20 * torch.finfo(dtype).eps * exact.abs().max()


@pytest.mark.parametrize("dim", [1, 8])
def test_the_score_of_a_gaussian_is_found_from_its_samples(dim):
    """Off by less than a third of its own size, on three samples of 500 each."""
    for seed in range(3):
        x = normal(500, dim, seed=seed)
        assert (estimators.stein_score(x) + x).square().mean() < 0.3 * x.square().mean()


@pytest.mark.parametrize("rho, dim", [(0.5, 1), (-0.8, 8)])
def test_mige_moves_as_the_information_does(rho, dim):
    truth = dim * rho / (1 - rho**2)
    for seed in range(2):
        (z, noise), r = normal(2, 500, dim, seed=seed), torch.tensor(rho, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(estimators.mige(z, r * z + (1 - r**2).sqrt() * noise), r)
        assert abs(slope - truth) < 0.15 * abs(truth)
