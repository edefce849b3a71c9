"""The theory as properties of random models: each test is a numbered claim, exact to rounding."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from residuals import agree, at_most
from torch import Tensor
from worlds import SEEDS, Model, models, scores, worlds

import rpm_tutorial as rpm
from rpm_tutorial import FiniteRPM, priors


def mean(values: Tensor, weights: Tensor) -> Tensor:
    """E[values], where 0 times anything is 0."""
    return torch.where(weights > 0, weights * values, 0.0).sum()


def kl(q: Tensor, log_p: Tensor) -> Tensor:
    return mean(q.log() - log_p, q)


def transposed(prior):
    """The prior of an objective with z and z' exchanged."""
    return lambda log_f, q_joint: prior(log_f.T, q_joint.T).T


# The model


@given(models())
def test_the_model_is_a_distribution_over_pairs_with_likelihoods_by_bayes_rule(model):
    world = model.world
    likelihoods = world.log_p_x_given_z.exp(), world.log_p_x_prime_given_z_prime.exp()
    for likelihood, reached in zip(likelihoods, (world.q_z > 0, world.q_z_prime > 0), strict=True):
        agree("(E2) sum over x of P(x|z) = 1", likelihood.sum(1), reached.double())
    literal = torch.einsum("ab,ax,by->xyab", model.log_prior.exp(), *likelihoods)
    log_p, posterior = world.log_p(model.log_prior), world.posterior(model.log_prior)
    agree("(E1) P(x,x') = sum P(z,z') P(x|z) P(x'|z')", log_p.exp(), literal.sum((2, 3)))
    agree("(E1) sum of P(x,x') = 1", log_p.exp().sum(), 1.0)
    agree("(E3) sum of P(z,z'|x,x') = 1", posterior.sum((2, 3)), (log_p > -torch.inf).double())
    agree("(E3) P(z,z'|x,x') P(x,x') = P(x,x',z,z')", posterior * log_p.exp()[:, :, None, None], literal)


@given(models())
def test_a_model_whose_prior_keeps_q_of_z_reproduces_the_data_marginals(model):
    world, q_joint = model.world, model.world.q_joint
    one, other = priors.infonce(model.log_f, q_joint), transposed(priors.infonce)(model.log_f, q_joint)
    agree("(E2) P(z) = Q(z) gives P(x) = P_true(x)", world.log_p(one).exp().sum(1), world.p_x)
    agree("(E2) P(z') = Q(z') gives P(x') = P_true(x')", world.log_p(other).exp().sum(0), world.p_x_prime)


def test_samples_come_from_the_model():
    world, n = FiniteRPM.random(3, 4, 2, 3), 40_000
    log_f = torch.randn(2, 3, generator=torch.Generator().manual_seed(1)).double()
    log_prior = priors.donsker_varadhan(log_f, world.q_joint)
    x, x_prime, z, z_prime = world.sample(log_prior, n, generator=torch.Generator().manual_seed(0))
    cells = (((x * 4 + x_prime) * 2 + z) * 3 + z_prime).bincount(minlength=72).view(3, 4, 2, 3)
    expected = (world.posterior(log_prior) * world.log_p(log_prior).exp()[:, :, None, None]) * n
    deviations = (cells - expected) / expected.sqrt()
    assert deviations.abs().max() < 4.5 and 0.6 < deviations.square().mean() < 1.5


# The bound


@given(models())
def test_the_recognition_density_cancels_in_the_elbo(model):
    world, bound = model.world, model.world.elbo(model.log_prior)
    constant = mean(world.p_x.log(), world.p_x) + mean(world.p_x_prime.log(), world.p_x_prime)
    agree("(E4) C = E log P_true(x) + E log P_true(x')", world.constant, constant)
    inside = model.log_prior - world.q_z.log()[:, None] - world.q_z_prime.log()
    value = mean(inside, world.q_joint) + constant
    agree("(E4) L = E[log P(z,z') - log Q(z) - log Q(z')] + C", bound.value, value, *bound)


@given(models())
def test_log_evidence_minus_elbo_is_the_kl_to_the_posterior(model):
    world, bound = model.world, model.world.elbo(model.log_prior)
    evidence, gap = world.log_evidence(model.log_prior), world.gap(model.log_prior)
    agree("(E3) log evidence - ELBO = KL", evidence - bound.value, gap, *bound)
    at_most("(E3) KL >= 0", 0.0, gap, *bound)
    q = world.p_true[:, :, None, None] * torch.einsum("xa,yb->xyab", world.recognition, world.recognition_prime)
    log_p = world.posterior(model.log_prior).log() + world.p_true.log()[:, :, None, None]
    agree("(E3) the gap by the definition of KL", gap, kl(q, log_p), *bound)


@given(models(encoders=("one-hot", "many-to-one")))
def test_the_bound_is_tight_for_deterministic_recognition(model):
    bound, evidence = model.world.elbo(model.log_prior), model.world.log_evidence(model.log_prior)
    agree("(E13) ELBO = log evidence for deterministic encoders", bound.value, evidence, *bound)


@given(models())
def test_the_bound_measures_mi_the_evidence_the_information_of_the_data_each_less_a_kl(model):
    world, bound, i_true = model.world, model.world.elbo(model.log_prior), rpm.mutual_information(model.world.p_true)
    value, mi = bound.value - world.constant, world.mutual_information
    evidence = world.log_evidence(model.log_prior) - world.constant
    agree("(E5) L - C = MI - KL(Q || P)", value, mi - kl(world.q_joint, model.log_prior), *bound)
    divergence = kl(world.p_true, world.log_p(model.log_prior))
    agree("(E23) evidence - C = I_true - KL(P_true || P)", evidence, i_true - divergence, *bound)
    for low, high in ((value, evidence), (evidence, i_true), (value, mi), (mi, i_true)):
        at_most("(E23) L - C <= evidence - C <= I_true, L - C <= MI <= I_true", low, high, *bound)


# The priors


def conditional(log_f: Tensor, q: Tensor) -> Tensor:
    """log P(z'|z), positive where Q(z,z') is; it leaves out what Q does not reach."""
    return log_f.masked_fill((q.sum(1) == 0)[:, None], 0).masked_fill(q.sum(0) == 0, -torch.inf).log_softmax(1)


PAIRS = {
    "(E7) InfoNCE": (rpm.infonce, priors.infonce),
    "(E9) Donsker-Varadhan": (rpm.donsker_varadhan, priors.donsker_varadhan),
    "(E10) NWJ": (rpm.nwj, priors.nwj),
    "(E11) Barber-Agakov": (
        lambda s, q: rpm.barber_agakov(conditional(s, q), q),
        lambda s, q: priors.barber_agakov(conditional(s, q), q),
    ),
    "(E12) InfoNCE over z": (lambda s, q: rpm.infonce(s.T, q.T), transposed(priors.infonce)),
}


@pytest.mark.parametrize("name", PAIRS)
@given(model=models())
def test_each_objective_is_the_elbo_under_its_prior(name, model):
    objective, prior = PAIRS[name]
    world = model.world
    found, log_prior = objective(model.log_f, world.q_joint), prior(model.log_f, world.q_joint)
    bound = world.elbo(log_prior, unnormalised="NWJ" in name)
    agree(f"{name} = L - C", found.value, bound.value - world.constant, *found, *bound)


@given(worlds())
def test_mutual_information_is_the_elbo_under_the_optimal_prior(world):
    bound = world.elbo(priors.optimal(world.q_joint))
    agree("(E6) MI = L - C", world.mutual_information, bound.value - world.constant, *bound)
    divergence = kl(world.q_joint, (world.q_joint.sum(1, keepdim=True) * world.q_joint.sum(0)).log())
    agree("(E6) MI by its definition", rpm.mutual_information(world.q_joint), divergence, *bound)


@given(models())
def test_the_symmetric_objective_is_the_mean_of_two_elbos(model):
    world, found = model.world, rpm.symmetric_infonce(model.log_f, model.world.q_joint)
    bounds = [world.elbo(prior(model.log_f, world.q_joint)) for prior in (priors.infonce, transposed(priors.infonce))]
    half = sum(bound.value for bound in bounds) / 2 - world.constant
    agree("(E12) symmetric = mean of two ELBOs", found.value, half, *found, *bounds[0])


@given(models())
def test_the_familiar_bounds_stand_in_order_and_infonce_is_loose_by_the_kl_to_its_prior(model):
    world, log_f = model.world, model.log_f
    found = [f(log_f, world.q_joint) for f in (rpm.nwj, rpm.donsker_varadhan, rpm.infonce)]
    for name, (low, high) in zip(("(E10) NWJ <= DV", "(E9) DV <= InfoNCE"), pairwise(found), strict=True):
        at_most(name, low.value, high.value, *low, *high)
    loose = world.mutual_information - found[-1].value
    agree("(E8) MI - InfoNCE = KL(Q || P)", loose, kl(world.q_joint, priors.infonce(log_f, world.q_joint)), *found[-1])
    at_most("(E9) InfoNCE <= MI", 0.0, loose, *found[-1])


@given(models())
def test_the_density_ratio_makes_infonce_equal_to_mi(model):
    world = model.world
    log_f = (world.q_joint / (world.q_z[:, None] * world.q_z_prime)).log().masked_fill(world.q_joint == 0, -torch.inf)
    found = rpm.infonce(log_f + torch.arange(len(log_f))[:, None], world.q_joint)  # any c(z) may be added
    agree("(E8) InfoNCE = MI at the density ratio", found.value, world.mutual_information, len(log_f))


# Data sets


@given(scores())
def test_full_batch_infonce_is_the_log_evidence_of_the_data_set_and_at_most_log_n(log_f):
    n, found = len(log_f), rpm.infonce(log_f)
    by_hand = log_f.log_softmax(1) - math.log(n)  # log of (1/N^2) f_ij / Z_i, with Z_i the mean of f_ij over j
    evidence = found.value - 2 * math.log(n)
    agree("(E14) I_N = mean log P(x_i,x'_i) + 2 log N", evidence, by_hand.diagonal().mean(), *found)
    at_most("(E15) I_N <= log N", found.value, math.log(n), *found)

    each = torch.eye(n, dtype=torch.float64)
    world = FiniteRPM(each / n, each)  # N distinct pairs, each observation its own latent
    log_prior = priors.infonce(log_f, each / n)
    agree("(E14) the same P from FiniteRPM", world.log_p(log_prior).exp(), by_hand.exp())
    agree("(E14) log evidence by FiniteRPM", world.log_evidence(log_prior), evidence, *found)
    agree("(E14) C = -2 log N", world.constant, -2 * math.log(n))


@given(scores())
def test_one_function_serves_a_batch_and_an_exact_world(log_f):
    uniform, size = torch.eye(len(log_f), dtype=torch.float64) / len(log_f), log_f[log_f.isfinite()].abs().max()
    for objective in (rpm.infonce, rpm.symmetric_infonce, rpm.donsker_varadhan, rpm.nwj):
        for batch, exact in zip(objective(log_f), objective(log_f, uniform), strict=True):
            agree("(E7) a batch is a table with its pairs on the diagonal", batch, exact, size)


# Invariance


@given(models(), SEEDS)
def test_mi_is_blind_to_a_scrambled_code_and_infonce_is_not(model: Model, seed):
    q_joint, log_f = model.world.q_joint, model.log_f.clamp(min=-50)
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (torch.randperm(k, generator=generator) for k in q_joint.shape)
    scrambled = q_joint[rows][:, columns]
    agree("(E17) I(h(z);h'(z')) = I(z;z')", rpm.mutual_information(scrambled), model.world.mutual_information)
    before, after = rpm.infonce(log_f, q_joint), rpm.infonce(log_f, scrambled)
    growth = kl(scrambled, priors.infonce(log_f, scrambled)) - kl(q_joint, priors.infonce(log_f, q_joint))
    agree("(E17) InfoNCE falls by the growth of its KL", before.value - after.value, growth, *before, *after)
    relabelled = rpm.infonce(log_f[rows][:, columns], scrambled)
    agree("(E17) unless the critic is relabelled too", relabelled.value, before.value, *before)
