# ruff: noqa: E501 (a table is read across)
"""Bad input, all in one table: each kind raises its documented type, and its message says what was found, what was
expected, and what to do."""

import inspect
from functools import partial

import pytest
import torch
from torch import nn

import rpm_tutorial as rpm
from rpm_tutorial import (
    FiniteRPM,
    GaussianChain,
    SharedLatentRPM,
    datasets,
    estimators,
    gaussian,
    lessons,
    priors,
    widgets,
)
from rpm_tutorial.chain import Gaussian, unit_chain
from rpm_tutorial.derivation import derive

NAN, INF = float("nan"), float("inf")


def f64(*rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


S = f64([0.3, -1.0, 2.0], [0.1, 0.4, -0.7], [1.0, 0.0, 0.5])  # scores
Q = torch.full((3, 3), 1 / 9, dtype=torch.float64)
HALF = torch.full((2, 2), 0.25, dtype=torch.float64)
EYE = torch.eye(2, dtype=torch.float64)
Z, Z_PRIME = f64([0.0, 1.0], [2.0, -1.0], [0.5, 0.5]), f64([0.1, 1.2], [1.7, -1.0], [0.4, 0.2])
WORLD = FiniteRPM(HALF, EYE)
LONELY = FiniteRPM(HALF, f64([1.0, 0.0], [1.0, 0.0]), EYE)  # no x reaches z = 1
CHAIN, FRAMES = GaussianChain(EYE / 2), Gaussian(torch.zeros(3, 4, 2).double(), EYE.expand(3, 4, 2, 2) / 2)
GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.rand(5, 1, 4, 4, generator=GENERATOR)
LONG = torch.arange(160.0).double().view(80, 2)
PAIR = torch.rand(2, 5, 2, generator=GENERATOR)
LABELS = torch.arange(5)


def put(table: torch.Tensor, value: float, where=(0, 1)) -> torch.Tensor:
    table = table.clone()
    table[where] = value
    return table


class Critic(nn.Module):
    """A critic made of any function."""

    def __init__(self, score, *parts: nn.Module):
        super().__init__()
        self.score, self.parts = score, nn.ModuleList(parts)

    def forward(self, z, z_prime):
        return self.score(z, z_prime)


def evidence(critic=None, z=Z, z_prime=Z_PRIME, **options):
    return rpm.dataset_evidence(z, z_prime, critic or rpm.RandomWalk().double(), **options)


def sampled(critic=None, z=LONG, z_prime=LONG, **options):
    options = {"rows": 64, "negatives": 8} | options
    return rpm.sampled_evidence(z, z_prime, critic or rpm.RandomWalk().double(), generator=GENERATOR, **options)


def far(critic, factor=1e30, **options):
    """The evidence of latents whose inner products overflow float32."""
    z, z_prime = (factor * t.float() for t in (Z, Z_PRIME))
    return evidence(critic, z.requires_grad_(), z_prime, **options)


OVERFLOW = ("row", "beyond torch.float32", "Divide the latents")


def train(pairs, steps=1, encoder=None, critic=None, **options):
    return list(rpm.train(encoder or nn.Linear(2, 2), critic or rpm.RandomWalk(), pairs, steps, **options))


BAD = {
    # a table of scores
    "scores: more rows than columns and no q_joint": (ValueError, lambda: rpm.infonce(S[:, :2]), "(3, 2)", "expected (n, m) with m >= n", "further candidates", "pass q_joint"),
    "scores: +inf": (ValueError, lambda: rpm.infonce(put(S, INF)), "+inf", "expected finite logarithms or -inf"),
    "scores: a row of -inf": (ValueError, lambda: rpm.infonce(put(S, -INF, 1)), "row 1", "expected f > 0 somewhere", "mask"),
    "scores: a column of -inf": (ValueError, lambda: rpm.symmetric_infonce(put(S, -INF, (slice(None), 1))), "column 1", "expected f > 0 somewhere", "mask"),
    "scores: numpy": (TypeError, lambda: rpm.infonce(S.numpy()), "ndarray", "expected a torch.Tensor", "torch.as_tensor"),
    # the aggregate joint
    "q_joint: another shape": (ValueError, lambda: rpm.infonce(S[:2], Q), "q_joint has shape (3, 3) and log_f (2, 3)", "expected the same"),
    "q_joint: negative": (ValueError, lambda: rpm.infonce(S, put(Q, -0.1)), "negative entry (-0.1)", "expected probabilities", ".exp()"),
    "q_joint: leaves columns out": (ValueError, lambda: rpm.nwj(S[:2], torch.eye(2, 3).double() / 2), "pairs each of the 2 rows with one column", "leave q_joint out", "log_f[:, kept]"),
    "q_joint: one column for all": (ValueError, lambda: rpm.infonce(S[:2], torch.eye(1, 3).double().expand(2, 3) / 2), "pairs each of the 2 rows with one column", "q_z_prime=torch.full"),
    # who is a candidate
    "q_z_prime: another shape": (ValueError, lambda: rpm.infonce(S, q_z_prime=Q[:2]), "q_z_prime has shape (2, 3) and log_f (3, 3)", "expected one weight for each column"),
    "q_z_prime: unnormalised": (ValueError, lambda: rpm.infonce(S, q_z_prime=2 * Q.sum(0)), "q_z_prime has entries that sum to 2", "divide by .sum()"),
    "q_z_prime: rows unnormalised": (ValueError, lambda: rpm.infonce(S, Q, q_z_prime=Q), "q_z_prime has a row that sums to 0.3333", "divide by .sum(1, keepdim=True)"),
    "q_z_prime: no candidate has mass": (ValueError, lambda: rpm.infonce(put(S, -INF, (1, slice(0, 2))), q_z_prime=f64([0.5, 0.5, 0.0])[0]), "row 1", "expected f > 0 somewhere"),
    "reduction: an unknown one": (ValueError, lambda: rpm.infonce(S, reduction="sum"), "reduction is 'sum'", 'expected "mean" or "none"'),
    # priors
    "conditional prior: rows too large": (ValueError, lambda: rpm.barber_agakov(S, Q), "row", "expected 1", "log_softmax(1)"),
    "prior: unnormalised": (ValueError, lambda: WORLD.elbo(HALF.log() + 1), "sums to 2.71828", "expected 1", "unnormalised=True"),
    "prior: another shape": (ValueError, lambda: WORLD.elbo(Q.log()), "(3, 3)", "expected (Z, Z') = (2, 2)"),
    "prior: mass where Q has none": (ValueError, lambda: LONELY.elbo(HALF.log()), "mass 0.5 to z = 1", "no observation reaches", "give it -inf"),
    "prior: mass where Q' has none": (ValueError, lambda: FiniteRPM(HALF, EYE, LONELY.recognition).elbo(HALF.log()), "mass 0.5 to z' = 1", "no observation reaches", "give it -inf"),
    # the finite world
    "world: P_true unnormalised": (ValueError, lambda: FiniteRPM(4 * HALF, EYE), "p_true has entries that sum to 4", "expected 1", "divide by .sum()"),
    "world: recognition rows": (ValueError, lambda: FiniteRPM(HALF, f64([0.8], [1.9]) * EYE), "recognition has a row that sums to 1.9", "expected 1", "keepdim=True"),
    "world: too few rows": (ValueError, lambda: FiniteRPM(HALF, EYE[:1], EYE), "recognition has shape (1, 2)", "expected one row of recognition for each row"),
    "derivation: an unknown assumption": (ValueError, lambda: derive(WORLD, HALF.log(), "jensen"), "'jensen'", "expected one of nothing, dependent"),
    "the other RPM: classes": (ValueError, lambda: SharedLatentRPM.random(HALF, -1), "z is -1", "expected a positive number"),
    "Gaussian: dimensions differ": (ValueError, lambda: gaussian.log_optimal_critic(Z, Z_PRIME[:, :1], 0.5), "(3, 2)", "(3, 1)", "expected"),
    "Gaussian: kappa is a word": (TypeError, lambda: gaussian.donsker_varadhan_inner_product(0.5, "a"), "kappa is a str", "expected a number"),
    "latents: float8": (ValueError, lambda: evidence(z=Z.to(torch.float8_e4m3fn)), "z has dtype torch.float8_e4m3fn", "call z.float()"),
    "the other RPM: one observation": (ValueError, lambda: SharedLatentRPM(HALF.flatten(), [EYE]), "1 factors", "expected at least two dimensions"),
    "the other RPM: P_true unnormalised": (ValueError, lambda: SharedLatentRPM(2 * HALF, [EYE, EYE]), "p_true has entries that sum to 2"),
    "the other RPM: rows of a factor": (ValueError, lambda: SharedLatentRPM(HALF, [EYE, 2 * EYE]), "factors[1] has a row that sums to 2"),
    "the other RPM: shape of a factor": (ValueError, lambda: SharedLatentRPM(HALF, [EYE, EYE[:1]]), "factors[1] has shape (1, 2) and prior (2)", "expected (2, Z) and (Z): a row"),
    "the other RPM: prior unnormalised": (ValueError, lambda: SharedLatentRPM(HALF, [EYE, EYE], 2 * EYE[0]), "prior has entries that sum to 2"),
    "the other RPM: mass where a factor has none": (ValueError, lambda: SharedLatentRPM(HALF, [EYE, EYE[:1].expand(2, 2)]), "mass 0.5 to latents with F_2(z) = 0", "give them none"),
    "the other RPM: shape of q": (ValueError, lambda: SharedLatentRPM(HALF, [EYE, EYE]).elbo(HALF), "q has shape (2, 2)", "expected (X_1, .., X_J, Z) = (2, 2, 2)"),
    "the other RPM: q unnormalised": (ValueError, lambda: SharedLatentRPM(HALF, [EYE, EYE]).m_step(EYE.expand(2, 2, 2) * 2), "q has a row that sums to 2"),
    # chains
    "chain: not stationary": (ValueError, lambda: GaussianChain(EYE), "singular value 1;", "expected (d, d) and all below 1"),
    "chain: not square": (ValueError, lambda: GaussianChain(Q[:2]), "shape (2, 3)", "expected (d, d)"),
    "unit chain: not stationary": (ValueError, lambda: unit_chain(1.1 * EYE, EYE), "every eigenvalue of the transition below 1"),
    "unit chain: no noise": (ValueError, lambda: unit_chain(0.9 * EYE, 0 * EYE), "covariance of the noise"),
    "chain: variances for covariances": (ValueError, lambda: CHAIN.smooth(Gaussian(FRAMES.mean, FRAMES.mean[..., None])), "covariance (3, 4, 2, 1)", "torch.diag_embed"),
    "chain: seen of another shape": (ValueError, lambda: CHAIN.smooth(FRAMES, seen=torch.ones(1, 4).bool()), "(1, 4)", "expected (3, 4) of torch.bool"),
    "chain: a negative covariance": (ValueError, lambda: CHAIN.smooth(Gaussian(FRAMES.mean, -FRAMES.covariance)), "not positive definite"),
    "chain: infinite means": (ValueError, lambda: CHAIN.smooth(Gaussian(FRAMES.mean + INF, FRAMES.covariance)), "mean contains inf"),
    "chain: another dtype": (ValueError, lambda: CHAIN.smooth(Gaussian(*(p.float() for p in FRAMES))), "dtype torch.float32", "expected one dtype"),
    "chain: a narrow reference": (ValueError, lambda: CHAIN.smooth(FRAMES, reference=Gaussian(EYE[0], EYE / 1e4)), "wider than the reference", "Remedy"),
    # Gaussians
    "Gaussian: rho of 1": (ValueError, lambda: gaussian.mutual_information(1.0), "rho is 1.0", "expected a correlation with -1 < rho < 1"),
    "Gaussian: DV diverges": (ValueError, lambda: gaussian.donsker_varadhan_inner_product(0.5, 1.0), "kappa is 1.0", "expected kappa^2 < 1"),
    # critics
    "critic: made for other columns": (ValueError, lambda: rpm.Bilinear(2, 3).double()(Z, Z_PRIME), "z has shape (3, 2) and z_prime (3, 2)", "expected 2 and 3 columns"),
    "critic: other columns than scales": (ValueError, lambda: rpm.RandomWalk([1.0, 2.0, 3.0]).double()(Z, Z_PRIME), "(3, 2)", "expected 3 and 3 columns"),
    "critic: one scale of two is negative": (ValueError, lambda: rpm.LaplaceWalk([1.0, -2.0]), "scale is -2.0", "expected a positive finite number"),
    "critic: a temperature for each dimension": (TypeError, lambda: rpm.VonMisesFisher([0.1, 0.2]), "temperature is a list", "expected a number"),
    "critic: a table of scales": (ValueError, lambda: rpm.RandomWalk(EYE + 1), "scale has shape (2, 2)", "one for each dimension"),
    "critic: a map of other dimensions": (ValueError, lambda: rpm.LinearDynamics(3, A=EYE), "A has shape (2, 2)", "expected (3, 3)"),
    "critic: columns differ": (ValueError, lambda: rpm.RandomWalk().double()(Z, Z_PRIME[:, :1]), "(3, 2)", "(3, 1)", "expected the same number"),
    "critic: infinite latents": (ValueError, lambda: rpm.RandomWalk().double()(put(Z, INF), Z_PRIME), "z contains", "inf", "expected"),
    # the evidence of a data set
    "evidence: a function": (TypeError, lambda: evidence(lambda a, b: a @ b.T), "function", "expected an nn.Module", "forward"),
    "evidence: dropout": (ValueError, lambda: evidence(Critic(lambda a, b: a @ b.T, nn.Dropout(0.1))), "parts.0 is a Dropout in training mode", "expected a fixed critic", "critic.eval()"),
    "evidence: a transposed table": (ValueError, lambda: evidence(Critic(lambda a, b: b @ a.T)), "shape (2, 1)", "expected (1, 2)", "rows z, columns z_prime"),
    "evidence: a table and something else": (TypeError, lambda: evidence(Critic(lambda a, b: (a @ b.T, None))), "a tuple", "expected one torch.Tensor", "alone"),
    "evidence: scores of NaN": (ValueError, lambda: evidence(Critic(lambda a, b: (a @ b.T - 2).log())), "row 0", "NaN", "expected finite scores", "Look at critic"),
    "evidence: a row of -inf": (ValueError, lambda: evidence(Critic(lambda a, b: a @ b.T - INF)), "only scores of -inf (3 of 3 rows)", "expected finite scores"),
    "evidence: unequal rows": (ValueError, lambda: evidence(z_prime=Z_PRIME[:2]), "(3, 2)", "(2, 2)", "expected one row each per pair"),
    "evidence: an unknown side": (ValueError, lambda: evidence(normalise="row"), "normalise is 'row'", 'expected "rows", "columns", "both" or "views"'),
    "evidence: views of two kinds": (ValueError, lambda: evidence(rpm.Bilinear(2, 1).double(), z_prime=Z_PRIME[:, :1], normalise="views"), "(3, 2)", "(3, 1)", "expected views of one kind"),
    "evidence: candidates of other columns": (ValueError, lambda: evidence(candidates=Z_PRIME[:, :1]), "candidates has shape (3, 1), z_prime (3, 2)", "of as many columns"),
    "evidence: candidates on both sides": (ValueError, lambda: evidence(candidates=Z_PRIME, normalise="both"), "normalise is 'both'", "expected further z_prime", '"rows", which runs over them'),
    "evidence: inner products overflow": (ValueError, lambda: far(rpm.Bilinear(2)), *OVERFLOW, "expected finite scores"),
    "evidence: squares overflow": (ValueError, lambda: far(rpm.RandomWalk(), normalise="both"), *OVERFLOW, "expected finite scores"),
    "sampled evidence: few rows": (ValueError, lambda: sampled(rows=63), "rows is 63 of N = 80", "expected at least 64", "use dataset_evidence"),
    "sampled evidence: one candidate": (ValueError, lambda: sampled(negatives=1), "negatives is 1", "expected at least 2"),
    "sampled evidence: scores of NaN": (ValueError, lambda: sampled(Critic(lambda a, b: (a @ b.T - INF).log())), "NaN", "expected finite scores"),
    "sampled evidence: a transposed table": (ValueError, lambda: sampled(Critic(lambda a, b: b @ a.T), negatives=2), "shape (16, 8)", "expected (8, 16)"),
    # data and training
    "data: arrays": (TypeError, lambda: datasets.tensor_pairs(Z.numpy(), Z.numpy(), 3), "x is a ndarray", "expected a torch.Tensor", "torch.as_tensor"),
    "data: an array to encode": (TypeError, lambda: rpm.encode(nn.Linear(2, 2), Z.numpy()), "x is a ndarray", "torch.as_tensor"),
    "data: an unknown split": (ValueError, lambda: datasets.fashion_mnist("valid"), "'valid'", 'expected "train" or "test"'),
    "data: strength out of range": (ValueError, lambda: datasets.two_views(IMAGES, strength=3, generator=GENERATOR), "strength is 3", "expected a number from 0"),
    "data: from 0 to 255": (ValueError, lambda: datasets.two_views(255 * IMAGES, generator=GENERATOR), "25", "expected", "[0, 1]", "255"),
    "data: pairs with gaps": (ValueError, lambda: datasets.tensor_pairs(Z, put(Z_PRIME, NAN), 3), "x_prime contains NaN or inf in 1 of 6", "expected numbers", "fill them in"),
    "data: a batch larger than the data": (ValueError, lambda: datasets.view_pairs(IMAGES, 6), "batch_size is 6", "expected a number from 1 to the 5"),
    "data: an unknown step": (ValueError, lambda: datasets.moving_balls(3, step="cauchy", generator=GENERATOR), "'cauchy'", 'expected "gaussian" or "laplace"'),
    "data: no scale": (ValueError, lambda: datasets.moving_balls(3, scale=0, generator=GENERATOR), "scale is 0", "expected a positive finite number"),
    "data: strength set to NaN": (ValueError, lambda: setattr(datasets.view_pairs(IMAGES, 3), "strength", NAN), "strength is nan"),
    "data: sides of other lengths": (ValueError, lambda: datasets.tensor_pairs(Z, Z[1:]), "x has 3 rows and x_prime 2", "expected one row each"),
    "data: a frame too small": (ValueError, lambda: datasets.moving_balls(3, size=4, generator=GENERATOR), "size is 4", "expected at least 5"),
    "data: a twist of no plane": (ValueError, lambda: datasets.twist(torch.ones(2, 3), 1), "z has shape (2, 3)", "expected (..., 2)"),
    "data: too few frames": (ValueError, lambda: datasets.constant_velocity(3, frames=2, generator=GENERATOR), "frames is 2", "expected at least 3"),
    "widget: too short sequences": (ValueError, lambda: lessons.lesson_11.forecast(torch.zeros(30, 6, 2), torch.zeros(30, 7, 2)), "z has shape (30, 6, 2)", "expected (n, 7, 2)"),
    "widget: too few frames": (ValueError, lambda: lessons.lesson_12.hidden(GaussianChain(torch.zeros(1, 1)), Gaussian(torch.zeros(20, 14, 1), torch.ones(20, 14, 1, 1)), torch.ones(2), torch.zeros(20, 14)), "row has shape (20, 14)", "T at least 20"),
    "training: no steps": (ValueError, lambda: train([], 0), "0", "positive"),
    "training: two kinds of data for one encoder": (ValueError, lambda: train([(PAIR[0], PAIR[1][:, :1])]), "step 1: x has shape (5, 2) and x_prime (5, 1)", "an encoder_prime for x_prime"),
    "training: dicts": (TypeError, lambda: train([{"x": PAIR[0], "x_prime": PAIR[1]}]), "pairs gave a dict;", "expected batches of two tensors"),
    "training: images and labels": (ValueError, lambda: train([(PAIR[0], LABELS)]), "step 1: x has shape", "if it holds labels, two views"),
    "training: batches with labels": (TypeError, lambda: train([(*PAIR, LABELS)]), "pairs gave a tuple", "expected batches of two"),
    "training: arrays": (TypeError, lambda: train([tuple(PAIR.numpy())]), "expected batches of two tensors", "torch.as_tensor"),
    "training: a single pair": (ValueError, lambda: train([tuple(PAIR[:, :1])]), "step 1: the batch is one pair, without negatives"),
    # the rest
    "widget: a default off its slider": (ValueError, lambda: widgets.slider(5, 0, 1, 0.1, "k"), "default 5 of 'k'", "expected one, for example 1"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_says_what_was_found_what_was_expected_and_what_to_do(kind):
    expected_type, call, *pieces = BAD[kind]
    with pytest.raises(expected_type) as error:
        returned = call()
        pytest.fail(f"returned {returned}")
    assert [piece for piece in pieces if piece not in str(error.value)] == [], str(error.value)


ARGUMENTS = {
    "log_f": S, "log_p": S.log_softmax(1), "q_joint": Q, "z": Z, "z_prime": Z_PRIME, "x": Z, "factors": Z, "z_test": Z,
    "factors_test": Z, "log_prior": HALF.log(),
}  # fmt: skip
OF_TENSORS = {
    **{f"objective {f.__name__}": f for f in (rpm.infonce, rpm.symmetric_infonce, rpm.donsker_varadhan, rpm.nwj, rpm.barber_agakov)},
    **{f"prior {name}": getattr(priors, name) for name in ("optimal", "infonce", "donsker_varadhan", "nwj", "barber_agakov")},
    **{f.__name__: f for f in (rpm.mutual_information, estimators.jensen_shannon, estimators.density_ratio_fitting, estimators.plug_in)},
    **{f.__name__: f for f in (estimators.smile, estimators.mige, estimators.stein_score)},
    **{type(c).__name__: c.double().forward for c in (rpm.RandomWalk(), rpm.LaplaceWalk(), rpm.VonMisesFisher(), rpm.LinearDynamics(2), rpm.Bilinear(2), rpm.Universal(2))},
    **{f.__name__: f for f in (WORLD.elbo, WORLD.log_p, WORLD.posterior)},
    "anchor": partial(estimators.infonce_anchor, k=2),
    "optimal critic": partial(gaussian.log_optimal_critic, rho=0.5),
    "evidence": partial(rpm.dataset_evidence, critic=rpm.RandomWalk().double()),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_TENSORS)
def test_an_error_is_about_the_argument_that_it_names(name):
    function = OF_TENSORS[name]
    given = {k: ARGUMENTS[k] for k in inspect.signature(function).parameters if k in ARGUMENTS}
    function(**given)
    for argument, value in given.items():
        for wrong, words in ((put(value, NAN), "contains NaN"), (value[0], "has shape")):
            with pytest.raises(ValueError, match=rf"^{argument} {words}"):
                function(**given | {argument: wrong})
    first, *others = given
    for other in others if set(others) <= {"q_joint", "z_prime"} else ():
        with pytest.raises(ValueError, match=rf"^{first} has dtype torch.float64 and {other} torch.float32"):
            function(**given | {other: given[other].float()})
