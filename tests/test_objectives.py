"""The objectives as functions of `log_f` and `q_joint`: gradients, infinities, invariances, terms."""

import inspect
import math
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from residuals import agree
from torch.autograd import gradcheck
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


def test_columns_without_mass_are_no_candidates_but_those_of_a_queue_are():
    """What the error for a table that is not square tells users of a queue of negatives to do."""
    log_f, n, m = tables()[0], 3, 4
    queue = math.log(m) - torch.nn.functional.cross_entropy(log_f, torch.arange(n))
    by_hand = (log_f.diagonal() - (log_f.exp().mean(1)).log()).mean()
    agree("InfoNCE over a queue", queue, by_hand)
    with pytest.raises(ValueError, match="other 1 no mass.*take math.log.m. - F.cross_entropy"):
        rpm.infonce(log_f, torch.eye(n, m, dtype=torch.float64).roll(1, 1) / n)
    unreached = torch.nn.functional.pad(distribution(log_f[:, :n]), (0, m - n))  # as in a finite world
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
