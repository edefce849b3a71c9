"""FiniteRPM as a program: gradients, extreme scores, ready-made worlds. Its theory is in test_theorems.py."""

from functools import cached_property
from itertools import pairwise

import pytest
import torch
from hypothesis import given, strategies as st
from residuals import agree
from torch.autograd import gradcheck
from worlds import SEEDS, models

from rpm_tutorial import FiniteRPM, SharedLatentRPM, infonce, priors


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def hide(*cells: tuple[int, int]):
    """Puts zero probability (logit -inf) into the cells of a table."""

    def apply(logits):
        mask = torch.zeros(logits.shape, dtype=torch.bool)
        for cell in cells:
            mask[cell] = True
        return logits.masked_fill(mask, -torch.inf)

    return apply


def world_of(p_true, recognition, recognition_prime, zeros: bool) -> FiniteRPM:
    if zeros:  # an unreached x, an unreached z, and an impossible pair
        p_true = hide((0, 0), (0, 1), (0, 2), (1, 2))(p_true)
        recognition = hide((0, 0), (1, 0), (2, 0), (3, 0), (1, 1))(recognition)
    return FiniteRPM(p_true.flatten().softmax(0).view(4, 3), recognition.softmax(1), recognition_prime.softmax(1))


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("sharpness", [1.0, 400.0])
def test_gradients_of_bound_and_evidence_are_right_in_every_table(zeros, sharpness):
    """Sharpness 400: some P(x,x') are below the smallest float64."""
    logits = [normal(*shape, seed=k).requires_grad_() for k, shape in enumerate([(4, 3), (4, 3), (3, 2), (3, 2)])]

    def quantities(p_true, recognition, recognition_prime, log_f):
        world = world_of(p_true, recognition, recognition_prime, zeros)
        log_prior = priors.infonce(sharpness * log_f, world.q_joint)
        return (world.elbo(log_prior).value, world.log_evidence(log_prior), world.mutual_information, world.constant)

    assert gradcheck(quantities, logits, atol=1e-4 * sharpness**0.5)


@given(models(), st.sampled_from((1.0, 50.0, 2000.0)), SEEDS)
def test_log_p_is_exact_however_small_the_probability(model, spread, seed):
    world = model.world
    log_f = spread * normal(*model.log_f.shape, seed=seed) + model.log_f
    log_prior = priors.infonce(log_f, world.q_joint)
    joint = (
        world.log_p_x_given_z.T[:, None, :, None] + world.log_p_x_prime_given_z_prime.T[None, :, None, :] + log_prior
    )
    agree("(E1) log P(x,x') in log space", world.log_p(log_prior), joint.flatten(2).logsumexp(2))
    bound, evidence, gap = world.elbo(log_prior).value, world.log_evidence(log_prior), world.gap(log_prior)
    agree("(E3) log evidence - ELBO = KL, extreme scores", evidence, bound + gap, bound)


def test_a_ring_knows_more_the_sharper_its_encoder_and_the_stronger_its_coupling():
    by_sharpness = [FiniteRPM.ring(2, sharpness).mutual_information for sharpness in (0, 1, 3, 9)]
    by_coupling = [FiniteRPM.ring(coupling, 3).mutual_information for coupling in (0, 1, 3, 9)]
    agree(
        "a ring without tilt is uniform",
        FiniteRPM.ring(x=5, x_prime=5, tilt=0).p_x,
        torch.full((5,), 0.2, dtype=torch.float64),
    )
    for values in (by_sharpness, by_coupling):
        agree("a ring without sharpness or coupling has MI = 0", values[0], 0.0)
        assert all(low + 0.01 < high for low, high in pairwise(values))


def test_a_world_keeps_tables_of_its_own_through_which_gradients_flow():
    """They were checked when the world was made; a random one is that of its seed, in the sizes asked for."""
    assert FiniteRPM.random(2, 3, 4, 5, seed=7).q_joint.equal(FiniteRPM.random(2, 3, 4, 5, seed=7).q_joint)
    assert FiniteRPM.random(2, 3, 4, 5).p_true.shape == (2, 3) and FiniteRPM.random(2, 3, 4, 5).q_joint.shape == (4, 5)
    tables = [t.clone() for t in vars(FiniteRPM.random()).values()]
    world, log_f = FiniteRPM(*tables), normal(3, 4)
    before = world.q_joint.clone()
    for table in tables:
        table.fill_(1 / table.numel() if table is tables[0] else 1 / table.shape[1])
    log_prior = priors.infonce(log_f, world.q_joint)
    agree(
        "(E7) after the tables were changed", world.elbo(log_prior).value - world.constant, infonce(log_f, before).value
    )
    logits = normal(5, 3).requires_grad_()
    FiniteRPM(world.p_true, logits.softmax(1), world.recognition_prime).mutual_information.backward()
    assert logits.grad.any()


DERIVED = [
    (kind, name)
    for kind in (FiniteRPM, SharedLatentRPM)
    for name, entry in vars(kind).items()
    if isinstance(entry, (property, cached_property))
]


def a_world(kind, p_true, recognition, recognition_prime):
    if kind is FiniteRPM:
        return FiniteRPM(p_true, recognition, recognition_prime)
    return SharedLatentRPM(p_true, [recognition, recognition_prime])


def leaves() -> list[torch.Tensor]:
    """P_true, and two recognition models of three latents each, with gradients."""
    p_true = normal(5, 4).flatten().softmax(0).view(5, 4)
    return [t.requires_grad_() for t in (p_true, normal(5, 3, seed=1).softmax(1), normal(4, 3, seed=2).softmax(1))]


def squares(derived) -> torch.Tensor:
    return sum(part.square().sum() for part in (derived if isinstance(derived, tuple) else [derived]))


@pytest.mark.parametrize("kind, name", DERIVED, ids=lambda part: getattr(part, "__name__", part))
def test_what_was_read_without_gradients_has_them_when_read_again_and_as_often_as_asked(kind, name):
    tables, again = leaves(), leaves()
    expected = torch.autograd.grad(squares(getattr(a_world(kind, *tables), name)), tables, allow_unused=True)
    world = a_world(kind, *again)
    with torch.inference_mode():
        for _, every in (each for each in DERIVED if each[0] is kind):
            getattr(world, every)
    for _ in range(2):  # the second has a graph of its own
        value = squares(getattr(world, name))
        assert value.requires_grad
        found = torch.autograd.grad(value, again, allow_unused=True)
        for one, other in zip(found, expected, strict=True):
            assert (one is None and other is None) or torch.equal(one, other)
    mine = again[1].detach().flip(0)  # and it follows a change of a table
    (world.recognition if kind is FiniteRPM else world.factors[0]).data.copy_(mine)
    changed = a_world(kind, tables[0], mine, tables[2])
    assert torch.equal(squares(getattr(world, name)), squares(getattr(changed, name)))


def test_a_sharp_ring_is_deterministic_but_midway_between_two_latents():
    recognition = FiniteRPM.ring(sharpness=1e6).recognition
    assert recognition[::2].unique().tolist() == [0, 1]
    agree("ties of a sharp ring", recognition[1::2].amax(1), torch.full((3,), 0.5), tolerance=1e-6)
