"""The objectives as functions of `log_f` and `q_joint`: gradients, infinities, invariances, terms."""

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
from worlds import models

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
    """Random log_f and the logits of q_joint, float64, ready for gradients."""
    generator = torch.Generator().manual_seed(3)
    return tuple(torch.randn(2, n, m, generator=generator, dtype=torch.float64).unbind())


def distribution(logits: torch.Tensor) -> torch.Tensor:
    return logits.flatten().softmax(0).view_as(logits)


@each_objective
def test_gradients_of_a_table_in_both_arguments_and_of_a_batch_are_right(objective):
    log_f, logits = (t.requires_grad_() for t in tables())
    assert gradcheck(lambda s, q: tuple(objective(s, distribution(q))), (log_f, logits))
    assert gradcheck(lambda s: tuple(objective(s)), (tables(4, 4)[0].requires_grad_(),))


@pytest.mark.slow  # torch.compile
@each_objective
def test_many_batches_at_once_and_shapes_without_numbers(objective):
    """Under torch.func.vmap, on the meta device and in torch.compile no value is looked at."""
    batches = torch.stack([tables(4, 4)[0], tables(4, 4)[1]])
    found = torch.func.vmap(lambda log_f: objective(log_f).value)(batches)
    agree("vmap over batches", found, torch.stack([objective(log_f).value for log_f in batches]))
    assert objective(batches[0].to("meta")).value.is_meta
    compiled = torch.compile(lambda log_f: objective(log_f).value, fullgraph=True, backend="eager")
    agree("compiled", compiled(batches[0]), found[0])
    if objective is rpm.infonce:
        weighed = torch.compile(lambda s, q: objective(s, q_z_prime=q).value, fullgraph=True, backend="eager")
        agree("compiled, under candidates' weights", weighed(batches[0], uniform(4)), found[0])


def test_the_gradient_of_mutual_information_is_right():
    assert gradcheck(lambda q: rpm.mutual_information(distribution(q)), (tables()[1].requires_grad_(),))


@each_objective
def test_gradients_are_right_beside_infinities_and_zeros(objective):
    """-inf in log_f (f = 0) and 0 in q_joint: one cell with both, a z and a z' that nothing reaches."""
    hidden = torch.zeros(3, 4, dtype=torch.bool)
    hidden[0, 1] = True
    unreached = hidden.clone()
    unreached[2], unreached[:, 3] = True, True
    log_f, logits = (t.requires_grad_() for t in tables())

    def value(s, q):
        q_joint = distribution(q.masked_fill(unreached, -torch.inf))
        return objective(s.masked_fill(hidden, -torch.inf), q_joint).value

    assert gradcheck(value, (log_f, logits))
    for gradient in torch.autograd.grad(value(log_f, logits), (log_f, logits)):
        assert gradient.isfinite().all()


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
    assert all(term.shape == () for term in found)
    scored = log_f.log_softmax(1) if objective is barber_agakov else log_f
    terms = scored * q_joint
    agree("score = E_Q(z,z') of the scores", found.score, terms.sum(), terms.abs().sum())
    if objective is rpm.nwj:
        z = (q_joint.sum(1)[:, None] * q_joint.sum(0) * log_f.exp()).sum()
        agree("(E10) log_normaliser = Z / e", found.log_normaliser, z / math.e)


# Who is a candidate


def by_hand(log_f: torch.Tensor, q_joint: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    """E_Q(z,z') [log f - log sum of candidates' weight times f], as loops."""
    value = log_f.new_zeros(())
    for i, j in q_joint.nonzero().tolist():
        weights = candidates if candidates.dim() == 1 else candidates[i]
        value = value + q_joint[i, j] * (log_f[i, j] - (weights * log_f[i].exp()).sum().log())
    return value


def uniform(m: int) -> torch.Tensor:
    return torch.full((m,), 1 / m, dtype=torch.float64)


def on_the_diagonal(n: int, m: int) -> torch.Tensor:
    return torch.eye(n, m, dtype=torch.float64) / n


def test_columns_beyond_the_pairs_are_candidates_of_every_row():
    """A queue of negatives (MoCo): the cross-entropy over all columns."""
    log_f, (n, m) = tables()[0], (3, 4)
    queue = math.log(m) - F.cross_entropy(log_f, torch.arange(n))
    agree("InfoNCE over a queue", rpm.infonce(log_f).value, queue)
    agree("InfoNCE over a queue, by hand", queue, by_hand(log_f, on_the_diagonal(n, m), uniform(m)))
    pairs_first = torch.cat([log_f.diagonal()[:, None], log_f.masked_fill(on_the_diagonal(n, m) > 0, -torch.inf)], 1)
    q_joint = F.pad(torch.ones(n, 1).double() / n, (0, m))  # the pair in column 0, as MoCo has it
    found = rpm.infonce(pairs_first, q_joint, q_z_prime=uniform(1 + m)).value
    agree("InfoNCE over a queue, pairs in column 0", found - math.log(1 + m), queue - math.log(m))


def test_all_objectives_take_a_queue():
    log_f, n = tables()[0], 3
    f, pairs = log_f.exp(), log_f.diagonal()
    over_z = f[:, :n].mean(0).log()
    agree("CLIP, a queue", rpm.symmetric_infonce(log_f).value, (pairs - (f.mean(1).log() + over_z) / 2).mean())
    masked = log_f.index_fill(1, torch.tensor(n), -torch.inf)  # a candidate that was left out
    assert log_f.shape[1] > n
    expected = (pairs - (masked.exp().mean(1).log() + over_z) / 2).mean()
    agree("CLIP, a queue with a gap", rpm.symmetric_infonce(masked).value, expected)
    agree("DV, a queue", rpm.donsker_varadhan(log_f).value, pairs.mean() - f.mean().log())
    agree("NWJ, a queue", rpm.nwj(log_f).value, pairs.mean() - f.mean() / math.e)
    agree("Barber-Agakov, a queue", barber_agakov(log_f).value, (pairs - f.sum(1).log()).mean() + math.log(n))


def test_a_candidate_of_tiny_weight_counts_in_float32_too():
    weights, log_f = torch.tensor([0.0, -95.0]).softmax(0), torch.tensor([[0.0, 100.0], [0.0, 100.0]])
    found = rpm.infonce(log_f, q_z_prime=weights).value
    agree(
        "a tiny weight", found.double(), rpm.infonce(log_f.double(), q_z_prime=weights.double()).value, tolerance=1e-4
    )


@pytest.mark.parametrize("of_each_z", [False, True], ids=["one for all z", "one for each z"])
@given(model=models(), seed=st.integers(0, 2**32 - 1))
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
    if not of_each_z:
        same = rpm.infonce(log_f, world.q_joint, q_z_prime=world.q_z_prime).value
        agree("InfoNCE under R = Q(z')", same, rpm.infonce(log_f, world.q_joint).value, log_f)


def test_importance_weights_bring_back_q_where_candidates_were_drawn_otherwise():
    """Hard negatives: each column as often as another distribution has it, weighed by what it has too much."""
    log_f, logits = tables()
    q_joint, copies = distribution(logits), torch.tensor([1, 5, 2, 3])
    drawn = log_f.repeat_interleave(copies, 1)
    q_z_prime = (q_joint.sum(0) / copies).repeat_interleave(copies)
    somewhere = (q_joint / copies).repeat_interleave(copies, 1)
    found = rpm.infonce(drawn, somewhere, q_z_prime=q_z_prime)
    agree("InfoNCE of weighted candidates", torch.stack(found), torch.stack(rpm.infonce(log_f, q_joint)))
    hidden = log_f.masked_fill(torch.eye(3, 4).bool().roll(1, 1), -torch.inf)
    each = logits.masked_fill(torch.eye(3, 4).bool().roll(2, 1), -torch.inf).softmax(1)
    found = rpm.infonce(hidden, q_z_prime=each).value
    agree("InfoNCE of each z's own candidates", found, by_hand(hidden, on_the_diagonal(3, 4), each))


def test_what_cross_entropy_says_of_a_sample_s_weight_and_of_soft_targets_is_said_by_q_joint():
    log_f, logits = tables(4, 4)
    weights, targets = logits[0].softmax(0), logits.softmax(1)
    log_p = log_f.log_softmax(1)
    found = rpm.infonce(log_f, weights.diag(), q_z_prime=uniform(4)).value
    agree("InfoNCE of weighted samples, equal candidates", found, (weights * log_p.diagonal()).sum() + math.log(4))
    found = rpm.infonce(log_f, targets / 4, q_z_prime=uniform(4)).value
    agree("InfoNCE of soft targets", found, math.log(4) - F.cross_entropy(log_f, targets))
    assert (
        abs(rpm.infonce(log_f, weights.diag()).value - rpm.infonce(log_f, weights.diag(), q_z_prime=uniform(4)).value)
        > 0.01
    )


def test_a_pair_that_is_no_candidate_leaves_no_ceiling():
    """DCL: the mean of f over the strangers."""
    log_f = tables(4, 4)[0] + 30 * torch.eye(4)
    strangers = (1 - torch.eye(4).double()) / 3
    found = rpm.infonce(log_f, q_z_prime=strangers).value
    dcl = (log_f - 1e9 * torch.eye(4)).logsumexp(1) - log_f.diagonal()
    agree("InfoNCE without the pair = DCL", found, math.log(3) - dcl.mean())
    assert found > math.log(4)


def test_gradients_reach_the_candidates_weights_too():
    log_f, logits = (t.requires_grad_() for t in tables())
    for q_joint in (None, distribution(logits.detach().roll(1, 0))):
        for each in (lambda q: q.softmax(1), lambda q: q[0].softmax(0)):

            def found(s, q, q_joint=q_joint, each=each):
                return tuple(rpm.infonce(s, q_joint, q_z_prime=each(q)))

            assert gradcheck(found, (log_f, logits))


@pytest.mark.parametrize("objective", [rpm.infonce, rpm.symmetric_infonce])
def test_without_a_reduction_there_is_a_term_for_each_row_and_their_mean_is_the_value(objective):
    log_f, logits = tables()
    for q_joint in (None, distribution(logits)):
        rows, mean = objective(log_f, q_joint, reduction="none"), objective(log_f, q_joint)
        assert all(term.shape == (3,) for term in rows)
        agree("the mean of the rows", torch.stack([term.mean() for term in rows]), torch.stack(mean))
    each = F.cross_entropy(log_f, torch.arange(3), reduction="none")
    agree("each row's cross-entropy", rpm.infonce(log_f, reduction="none").value, math.log(4) - each)


def test_columns_without_mass_are_no_candidates_and_one_that_pairs_rows_so_is_asked_about_it():
    log_f, n, m = tables()[0], 3, 4
    for q_joint in (on_the_diagonal(n, m).roll(1, 1), F.pad(torch.ones(n, 1).double() / n, (0, m - 1))):
        with pytest.raises(ValueError, match="others of the 4 no mass.*q_z_prime=torch.full"):
            rpm.infonce(log_f, q_joint)
    unreached = F.pad(distribution(log_f[:, :n]), (0, m - n))  # as in a finite world
    alone = rpm.infonce(log_f[:, :n], unreached[:, :n]).value
    agree("InfoNCE without an unreached z'", rpm.infonce(log_f, unreached).value, alone)


HALF = (torch.float16, torch.bfloat16)
each_half = pytest.mark.parametrize("dtype", HALF, ids=str)


def batch(dtype: torch.dtype, n: int = 256) -> torch.Tensor:
    """Scores of pairs that stand out, as a trained critic's do: cosines over a temperature of 0.1."""
    z, step = torch.randn(2, n, 8, generator=torch.Generator().manual_seed(0))
    return 10 * torch.cosine_similarity(z[:, None], z + 0.3 * step, dim=2).to(dtype)


@each_half
@each_critic_objective
def test_half_precision_is_float32_rounded_once(objective, dtype):
    log_f = batch(dtype).requires_grad_()
    high_f = log_f.detach().float().requires_grad_()
    found, expected = objective(log_f), objective(high_f)
    for low, high in zip(found, expected, strict=True):
        assert low.dtype == dtype and torch.equal(low, high.to(dtype)), (low, high)
    gradient, exact = (torch.autograd.grad(o.value, t)[0] for o, t in ((found, log_f), (expected, high_f)))
    agree(
        f"{dtype} = float32: gradients", gradient.float() / exact.abs().max(), exact / exact.abs().max(), tolerance=0.01
    )


def exact_in_half_precision(logits: torch.Tensor) -> torch.Tensor:
    q_joint = (distribution(logits) * 512).round() / 512
    q_joint[0, 0] += 1 - q_joint.sum()
    return q_joint


ROUNDED = (
    priors.infonce,
    priors.donsker_varadhan,
    priors.nwj,
    priors.barber_agakov,
    lambda s, q: rpm.mutual_information(q),
)


@each_half
@pytest.mark.parametrize("function", ROUNDED)
def test_a_prior_and_an_information_in_half_precision_are_rounded_once_too(function, dtype):
    log_f, logits = tables()
    q_joint = (distribution(logits) * 512).round() / 512  # exact in half precision
    q_joint[0, 0] += 1 - q_joint.sum()
    log_f, q_joint = log_f.log_softmax(1).to(dtype), q_joint.to(dtype)
    found, expected = function(log_f, q_joint), function(log_f.float(), q_joint.float())
    assert found.dtype == dtype and torch.equal(found, expected.to(dtype))


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


def reached_by(call) -> dict[str, int]:
    """The package's definitions that a call runs through, with their lines."""
    package, lines = str(Path(rpm.__file__).parent), {}

    def trace(frame, event, _):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(package) and code.co_name[0] != "<":
            lines[code.co_name] = len(inspect.getsource(code).splitlines())

    sys.setprofile(trace)
    try:
        call()
    finally:
        sys.setprofile(None)
    return lines


def test_infonce_and_all_that_it_calls_fit_on_one_screen():
    batch = torch.zeros(3, 3)
    infonce = rpm.infonce  # whose name loads on first use
    lines = reached_by(lambda: infonce(batch)) | {"Objective": len(inspect.getsource(rpm.Objective).splitlines())}
    assert len(lines) <= 6 and sum(lines.values()) <= 60, lines
