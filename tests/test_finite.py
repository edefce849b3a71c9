"""Finite worlds as programs: gradients, extreme scores, ready-made worlds. Their theory is in test_theorems.py."""

import functools
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from residuals import agree
from torch.autograd import gradcheck
from worlds import SEEDS, models

from rpm_tutorial import FiniteRPM, SharedLatentRPM, infonce, priors


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def without(logits: torch.Tensor, *cells: tuple[int, int]) -> torch.Tensor:
    """The logits of a table with probability 0 in these cells."""
    hidden = torch.zeros(logits.shape, dtype=torch.bool)
    hidden[tuple(zip(*cells))] = True
    return logits.masked_fill(hidden, -torch.inf)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("sharpness", [1.0, 400.0])
def test_gradients_of_bound_and_evidence_are_right_in_every_table(zeros, sharpness):
    """Zeros: an unreached x, an unreached z, and an impossible pair. Sharpness 400: P(x,x') below the smallest float64."""

    def quantities(p_true, recognition, recognition_prime, log_f):
        if zeros:
            p_true = without(p_true, (0, 0), (0, 1), (0, 2), (1, 2))
            recognition = without(recognition, (0, 0), (1, 0), (2, 0), (3, 0), (1, 1))
        p_true = p_true.flatten().softmax(0).view(4, 3)
        world = FiniteRPM(p_true, recognition.softmax(1), recognition_prime.softmax(1))
        log_prior = priors.infonce(sharpness * log_f, world.q_joint)
        return (world.elbo(log_prior).value, world.log_evidence(log_prior), world.mutual_information, world.constant)

    logits = [normal(*shape, seed=k).requires_grad_() for k, shape in enumerate([(4, 3), (4, 3), (3, 2), (3, 2)])]
    assert gradcheck(quantities, logits, atol=1e-4 * sharpness**0.5)


@pytest.mark.parametrize("spread", (1.0, 2000.0))
@given(model=models(), seed=SEEDS)
def test_log_p_is_exact_however_small_the_probability(spread, model, seed):
    world = model.world
    log_f = spread * normal(*model.log_f.shape, seed=seed) + model.log_f
    log_prior = priors.infonce(log_f, world.q_joint)
    likelihoods = world.log_p_x_given_z.T[:, None, :, None] + world.log_p_x_prime_given_z_prime.T[None, :, None, :]
    by_hand = (likelihoods + log_prior).flatten(2).logsumexp(2)
    agree("(E1) log P(x,x') in log space", world.log_p(log_prior), by_hand)
    bound, evidence, gap = world.elbo(log_prior).value, world.log_evidence(log_prior), world.gap(log_prior)
    agree("(E3) log evidence - ELBO = KL, extreme scores", evidence, bound + gap, bound)


def test_a_ring_knows_more_the_sharper_its_encoder_and_the_stronger_its_coupling():
    for values in (
        [FiniteRPM.ring(2, sharpness).mutual_information for sharpness in (0, 1, 3, 9)],
        [FiniteRPM.ring(coupling, 3).mutual_information for coupling in (0, 1, 3, 9)],
    ):
        agree("a ring without sharpness or coupling has MI = 0", values[0], 0.0)
        assert all(low + 0.01 < high for low, high in pairwise(values))
    level = FiniteRPM.ring(x=5, x_prime=5, tilt=0).p_x
    agree("a ring without tilt is uniform", level, torch.full((5,), 0.2, dtype=torch.float64))
    sharp = FiniteRPM.ring(sharpness=1e6, x=4, x_prime=5, z=4, z_prime=5)
    assert sharp.recognition.argmax(1).tolist() == [0, 1, 2, 3] and sharp.recognition_prime.equal(torch.eye(5).double())
    recognition = FiniteRPM.ring(sharpness=1e6).recognition
    assert recognition[::2].unique().tolist() == [0, 1]
    agree("ties of a sharp ring", recognition[1::2].amax(1), torch.full((3,), 0.5), tolerance=1e-6)


def test_a_random_world_is_that_of_its_seed_in_the_sizes_asked_for():
    world = FiniteRPM.random(2, 3, 4, 5, seed=7)
    assert world.p_true.shape == (2, 3) and world.q_joint.shape == (4, 5)
    assert world.q_joint.equal(FiniteRPM.random(2, 3, 4, 5, seed=7).q_joint)
    assert not world.q_joint.equal(FiniteRPM.random(2, 3, 4, 5, seed=8).q_joint)


def test_a_world_keeps_tables_of_its_own():
    tables = [t.clone() for t in vars(FiniteRPM.random()).values()]
    world, log_f = FiniteRPM(*tables), normal(3, 4)
    before = infonce(log_f, world.q_joint).value
    for table in tables:
        table.zero_()
    agree("(E7) after the tables were changed", infonce(log_f, world.q_joint).value, before)


DERIVED = [
    (kind, name)
    for kind in (FiniteRPM, SharedLatentRPM)
    for name, entry in vars(kind).items()
    if isinstance(entry, property | functools.cached_property)
]


@pytest.mark.parametrize("kind, name", DERIVED, ids=lambda part: getattr(part, "__name__", part))
def test_what_follows_from_the_tables_has_gradients_each_time_it_is_read(kind, name):
    tables = [t.requires_grad_() for t in vars(FiniteRPM.random(z_prime=3)).values()]
    world = kind(*tables) if kind is FiniteRPM else kind(tables[0], tables[1:])

    def gradients():
        derived = getattr(world, name)
        parts = derived if isinstance(derived, tuple) else [derived]
        return torch.autograd.grad(sum(p.square().sum() for p in parts), tables, allow_unused=True)

    with torch.inference_mode():
        getattr(world, name)
    for first, second in zip(gradients(), gradients(), strict=True):
        assert (first is second is None) or torch.equal(first, second)
