"""The objectives as functions of `log_f` and `q_joint`: gradients, infinities, candidates, invariances, terms, digits."""

import inspect
import math
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, strategies as st
from residuals import agree
from torch.autograd import gradcheck
from torch.nn import functional as F
from worlds import SEEDS, models

import rpm_tutorial as rpm
from rpm_tutorial import priors

CRITIC_OBJECTIVES = (rpm.infonce, rpm.symmetric_infonce, rpm.donsker_varadhan, rpm.nwj)


def barber_agakov(log_f, q_joint=None):
    """Barber-Agakov of the conditional prior softmax(log_f), a function of any table as the others are."""
    return rpm.barber_agakov(log_f.log_softmax(1), q_joint)


ALL = (*CRITIC_OBJECTIVES, barber_agakov)
each_objective = pytest.mark.parametrize("objective", ALL, ids=lambda f: f.__name__)
each_critic_objective = pytest.mark.parametrize("objective", CRITIC_OBJECTIVES, ids=lambda f: f.__name__)


def tables(n: int = 3, m: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Random log_f and the logits of q_joint, float64."""
    generator = torch.Generator().manual_seed(3)
    return tuple(torch.randn(2, n, m, generator=generator, dtype=torch.float64).unbind())


def distribution(logits: torch.Tensor) -> torch.Tensor:
    return logits.flatten().softmax(0).view_as(logits)


@pytest.mark.parametrize("zeros", [False, True])
@each_objective
def test_gradients_are_right_in_both_arguments_and_beside_infinities_and_zeros(objective, zeros):
    """With zeros: -inf in log_f (f = 0) and 0 in q_joint, one cell with both, a z and a z' that nothing reaches."""
    hidden = torch.zeros(3, 4, dtype=torch.bool)
    hidden[0, 1] = zeros
    unreached = hidden.clone()
    unreached[2], unreached[:, 3] = zeros, zeros

    def terms(s, q):
        q_joint = distribution(q.masked_fill(unreached, -torch.inf))
        return tuple(objective(s.masked_fill(hidden, -torch.inf), q_joint))[: 1 if zeros else 3]

    assert gradcheck(terms, [t.requires_grad_() for t in tables()])  # which refuses NaN
    assert gradcheck(lambda s: tuple(objective(s)), (tables(4, 4)[0].requires_grad_(),))


@pytest.mark.slow  # torch.compile
@each_objective
def test_under_vmap_on_the_meta_device_and_compiled_no_value_is_looked_at(objective):
    batches = torch.stack(tables(4, 4))
    found = torch.func.vmap(lambda log_f: objective(log_f).value)(batches)
    agree("vmap over batches", found, torch.stack([objective(log_f).value for log_f in batches]))
    assert objective(batches[0].to("meta")).value.is_meta
    compiled = torch.compile(lambda log_f: objective(log_f).value, fullgraph=True, backend="eager")
    agree("compiled", compiled(batches[0]), found[0])
    if objective is rpm.infonce:
        weighed = torch.compile(lambda s, q: objective(s, q_z_prime=q).value, fullgraph=True, backend="eager")
        agree("compiled, under candidates' weights", weighed(batches[0], uniform(4)), found[0])


@each_critic_objective
def test_a_pair_with_f_of_zero_has_value_minus_infinity_and_never_nan(objective):
    log_f = tables(3, 3)[0]
    log_f[1, 1] = -torch.inf
    assert objective(log_f).value == -torch.inf
    assert objective(log_f).log_normaliser.isfinite()


@each_objective
@given(model=models())
def test_value_is_score_minus_log_normaliser(objective, model):
    q_joint, log_f = model.world.q_joint, model.log_f.nan_to_num(neginf=-40)
    found = objective(log_f, q_joint)
    agree("value = score - log_normaliser", found.value, found.score - found.log_normaliser, found.score)
    terms = (log_f.log_softmax(1) if objective is barber_agakov else log_f) * q_joint
    agree("score = E_Q(z,z') of the scores", found.score, terms.sum(), terms.abs().sum())
    if objective is rpm.nwj:
        z = (q_joint.sum(1)[:, None] * q_joint.sum(0) * log_f.exp()).sum()
        agree("(E10) log_normaliser = Z / e", found.log_normaliser, z / math.e)


# Who is a candidate


def uniform(m: int) -> torch.Tensor:
    return torch.full((m,), 1 / m, dtype=torch.float64)


def test_all_objectives_take_a_queue_whose_columns_are_candidates_of_every_row():
    log_f, (n, m) = tables()[0], (3, 4)
    queue = math.log(m) - F.cross_entropy(log_f, torch.arange(n))
    agree("InfoNCE, a queue", rpm.infonce(log_f).value, queue)
    for gap in (False, True):  # a candidate that was left out
        masked = log_f.index_fill(1, torch.tensor(n), -torch.inf) if gap else log_f
        f, pairs = masked.exp(), masked.diagonal()
        clip = (pairs - (f.mean(1).log() + f[:, :n].mean(0).log()) / 2).mean()
        agree("CLIP, a queue", rpm.symmetric_infonce(masked).value, clip)
        agree("DV, a queue", rpm.donsker_varadhan(masked).value, pairs.mean() - f.mean().log())
        agree("NWJ, a queue", rpm.nwj(masked).value, pairs.mean() - f.mean() / math.e)
        expected = (pairs - f.sum(1).log()).mean() + math.log(n)
        agree("Barber-Agakov, a queue", barber_agakov(masked).value, expected)


def test_weighted_samples_hard_negatives_and_strangers_alone_are_said_by_q_joint_and_q_z_prime():
    log_f, logits = tables(4, 4)
    weights, eye = logits[0].softmax(0), torch.eye(4, dtype=torch.float64)
    expected = (weights * log_f.log_softmax(1).diagonal()).sum() + math.log(4)
    found = rpm.infonce(log_f, weights.diag(), q_z_prime=uniform(4)).value
    agree("InfoNCE of weighted samples, equal candidates", found, expected)
    q_joint, copies = distribution(logits), torch.tensor([1, 5, 2, 3])  # how often each candidate was drawn
    drawn, somewhere = (t.repeat_interleave(copies, 1) for t in (log_f, q_joint / copies))
    importance = (q_joint.sum(0) / copies).repeat_interleave(copies)
    found = rpm.infonce(drawn, somewhere, q_z_prime=importance).value
    agree("InfoNCE of weighted candidates", found, rpm.infonce(log_f, q_joint).value)
    apart = log_f + 30 * eye
    dcl = (apart.diagonal() - apart.masked_fill(eye > 0, -torch.inf).logsumexp(1)).mean() + math.log(3)
    found = rpm.infonce(apart, q_z_prime=(1 - eye) / 3).value
    agree("InfoNCE without the pair = DCL", found, dcl)
    assert found > math.log(4), "a pair that is no candidate leaves no ceiling"


def test_rows_may_share_a_partner_and_a_column_may_be_nobodys():
    (log_f, _), q_joint = tables(3, 4), torch.zeros(3, 4, dtype=torch.float64)
    q_joint[[0, 1, 2], [0, 0, 1]] = 1 / 3
    log_Z = (log_f[:, 0].exp() * 2 / 3 + log_f[:, 1].exp() / 3).log()
    found = rpm.infonce(log_f, q_joint).value
    agree("InfoNCE of a shared partner", found, (log_f[[0, 1, 2], [0, 0, 1]] - log_Z).mean())


def test_a_candidate_of_tiny_weight_counts_in_float32_too():
    weights, log_f = torch.tensor([0.0, -95.0]).softmax(0), torch.tensor([[0.0, 100.0], [0.0, 100.0]])
    found = rpm.infonce(log_f, q_z_prime=weights).value.double()
    exact = rpm.infonce(log_f.double(), q_z_prime=weights.double()).value
    agree("a tiny weight", found, exact, tolerance=1e-4)


@given(model=models(), seed=SEEDS, of_each_z=st.booleans())
def test_infonce_under_any_candidates_is_the_elbo_of_their_prior_plus_the_price_of_taking_them_for_q(
    model, seed, of_each_z
):
    """P(z) = Q(z), P(z'|z) = R(z'|z) f / Z: value = L - C + E log Q(z')/R(z'|z), for one R of all z a KL divergence."""
    world, log_f = model.world, model.log_f.nan_to_num(neginf=-40)
    rng = torch.Generator().manual_seed(seed)
    candidates = torch.rand(log_f.shape if of_each_z else log_f.shape[1:], generator=rng, dtype=torch.float64) + 0.01
    candidates = candidates * (world.q_z_prime > 0)
    candidates = candidates / candidates.sum(-1, keepdim=True)
    reached = (world.q_z > 0)[:, None] & (candidates > 0)
    log_r = candidates.log().expand_as(log_f)
    log_prior = world.q_z.log()[:, None] + (log_r + log_f).log_softmax(1)
    elbo = world.elbo(log_prior.masked_fill(~reached, -torch.inf)).value - world.constant
    price = rpm._log_space.expectation(world.q_z_prime.log() - log_r, world.q_joint)
    found = rpm.infonce(log_f, world.q_joint, q_z_prime=candidates).value
    agree("InfoNCE under other candidates = ELBO - C + E log Q/R", found, elbo + price, price, log_f)


@pytest.mark.parametrize("given_q", [False, True])
@pytest.mark.parametrize("of_each_z", [False, True])
def test_gradients_reach_the_candidates_weights_too(given_q, of_each_z):
    log_f, logits = (t.requires_grad_() for t in tables())
    q_joint = distribution(logits.detach().roll(1, 0)) if given_q else None

    def terms(s, q):
        return tuple(rpm.infonce(s, q_joint, q_z_prime=q.softmax(1) if of_each_z else q[0].softmax(0)))

    assert gradcheck(terms, (log_f, logits))


@pytest.mark.parametrize("objective", [rpm.infonce, rpm.symmetric_infonce])
def test_without_a_reduction_there_is_a_term_for_each_row_and_their_mean_is_the_value(objective):
    log_f, logits = tables()
    for q_joint in (None, distribution(logits)):
        rows, mean = objective(log_f, q_joint, reduction="none"), objective(log_f, q_joint)
        agree("the mean of the rows", torch.stack([term.mean() for term in rows]), torch.stack(mean))
    each = F.cross_entropy(log_f, torch.arange(3), reduction="none")
    agree("each row's cross-entropy", rpm.infonce(log_f, reduction="none").value, math.log(4) - each)


# Half precision


each_half = pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16), ids=str)


@each_half
@each_critic_objective
def test_half_precision_is_float32_rounded_once(objective, dtype):
    """Scores of pairs that stand out, as a trained critic's do: cosines over a temperature of 0.1."""
    z, step = torch.randn(2, 256, 8, generator=torch.Generator().manual_seed(0))
    log_f = 10 * torch.cosine_similarity(z[:, None], z + 0.3 * step, dim=2).to(dtype).requires_grad_()
    high_f = log_f.detach().float().requires_grad_()
    found, expected = objective(log_f), objective(high_f)
    for low, high in zip(found, expected, strict=True):
        assert low.dtype == dtype and torch.equal(low, high.to(dtype)), (low, high)
    gradient, exact = (torch.autograd.grad(o.value, t)[0] for o, t in ((found, log_f), (expected, high_f)))
    size = exact.abs().max()
    agree(f"{dtype} = float32: gradients", gradient.float() / size, exact / size, tolerance=0.01)


ROUNDED = [getattr(priors, name) for name in ("infonce", "donsker_varadhan", "nwj", "barber_agakov")]


@each_half
@pytest.mark.parametrize("function", [*ROUNDED, lambda s, q: rpm.mutual_information(q)])
def test_a_prior_and_an_information_in_half_precision_are_rounded_once_too(function, dtype):
    log_f, logits = tables()
    q_joint = (distribution(logits) * 512).round() / 512  # exact in half precision
    q_joint[0, 0] += 1 - q_joint.sum()
    log_f, q_joint = log_f.log_softmax(1).to(dtype), q_joint.to(dtype)
    found, expected = function(log_f, q_joint), function(log_f.float(), q_joint.float())
    assert found.dtype == dtype and torch.equal(found, expected.to(dtype))


@each_half
def test_barber_agakov_of_a_conditional_in_half_precision_is_in_half_precision(dtype):
    log_p = torch.full((4, 4), -math.log(4), dtype=dtype)  # as unsure as Q(z'): 0 nats
    value = rpm.barber_agakov(log_p, torch.eye(4, dtype=dtype) / 4).value
    assert value.dtype == dtype and abs(value.item()) < 0.01


# What may be added to a critic without a change


BLIND = {  # to an offset of each z, to a constant, to an exchange of z and z'
    rpm.infonce: (True, True, False),
    rpm.symmetric_infonce: (False, True, True),
    rpm.donsker_varadhan: (False, True, True),
    rpm.nwj: (False, False, True),
}


@each_critic_objective
def test_an_objective_is_blind_to_what_its_prior_normalises_away_and_to_nothing_else(objective):
    log_f, logits = tables()
    q_joint, c = distribution(logits), torch.tensor([[1.0], [0.0], [-2.0]]).double()
    before = objective(log_f, q_joint).value
    for changed, blind in zip(((log_f + c, q_joint), (log_f + 7, q_joint), (log_f.T, q_joint.T)), BLIND[objective]):
        after = objective(*changed).value
        if blind:
            agree("(E7), (E9) what may be added to log f", after, before, 7.0)
        else:
            assert abs(after - before) > 0.01


def test_infonce_and_all_that_it_calls_fit_on_one_screen():
    batch, infonce = torch.zeros(3, 3), rpm.infonce  # whose name loads on first use
    lines = {"Objective": len(inspect.getsource(rpm.Objective).splitlines())}

    def trace(frame, event, _):
        code = frame.f_code
        if event == "call" and Path(rpm.__file__).parent in Path(code.co_filename).parents and code.co_name[0] != "<":
            lines[code.co_name] = len(inspect.getsource(code).splitlines())

    sys.setprofile(trace)
    try:
        infonce(batch)
    finally:
        sys.setprofile(None)
    assert len(lines) <= 6 and sum(lines.values()) <= 60, lines
