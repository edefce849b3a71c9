"""The theory as properties of random models: each test is a numbered claim, exact to rounding."""

import math
from itertools import pairwise, product

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


def literal_elbo(world: FiniteRPM, log_prior: Tensor) -> float:
    """(E3) as it is printed: a sum over x, x', z, z', with the likelihoods by Bayes' rule."""
    p_true, q, q_prime, log_p = (
        t.tolist() for t in (world.p_true, world.recognition, world.recognition_prime, log_prior)
    )
    p_x, p_x_prime = [sum(row) for row in p_true], [sum(column) for column in zip(*p_true, strict=True)]
    q_z, q_z_prime = (
        [sum(p * row[z] for p, row in zip(marginal, table, strict=True)) for z in range(len(table[0]))]
        for marginal, table in ((p_x, q), (p_x_prime, q_prime))
    )
    total = 0.0
    for x, x_, z, z_ in product(*(range(n) for n in (len(p_x), len(p_x_prime), len(q_z), len(q_z_prime)))):
        weight = p_true[x][x_] * q[x][z] * q_prime[x_][z_]
        if weight > 0:
            likelihood, likelihood_ = (
                q[x][z] * p_x[x] / q_z[z],
                q_prime[x_][z_] * p_x_prime[x_] / q_z_prime[z_],
            )
            inside = (
                log_p[z][z_]
                + math.log(likelihood)
                + math.log(likelihood_)
                - math.log(q[x][z])
                - math.log(q_prime[x_][z_])
            )
            total += weight * inside
    return total


def transposed(prior):
    """The prior of an objective with z and z' exchanged."""
    return lambda log_f, q_joint: prior(log_f.T, q_joint.T).T


def conditional(model: Model) -> Tensor:
    """A normalised log P(z'|z) that is positive where Q(z,z') is, and leaves out what Q does not reach."""
    world = model.world
    log_f = model.log_f.masked_fill((world.q_z == 0)[:, None], 0).masked_fill(world.q_z_prime == 0, -torch.inf)
    return log_f.log_softmax(1)


# The model


@given(worlds())
def test_likelihoods_from_bayes_rule_are_distributions_over_x(world):
    agree("(E2) sum over x of P(x|z) = 1", world.log_p_x_given_z.exp().sum(1), (world.q_z > 0).double())
    agree(
        "(E2) sum over x' of P(x'|z') = 1",
        world.log_p_x_prime_given_z_prime.exp().sum(1),
        (world.q_z_prime > 0).double(),
    )


@given(models())
def test_a_model_whose_prior_keeps_q_of_z_reproduces_the_data_marginals(model):
    world, q_joint = model.world, model.world.q_joint
    over_z_prime, over_z = (
        priors.infonce(model.log_f, q_joint),
        transposed(priors.infonce)(model.log_f, q_joint),
    )
    agree("(E2) P(z) = Q(z) gives P(x) = P_true(x)", world.log_p(over_z_prime).exp().sum(1), world.p_x)
    agree("(E2) P(z') = Q(z') gives P(x') = P_true(x')", world.log_p(over_z).exp().sum(0), world.p_x_prime)


@given(models())
def test_the_model_is_a_distribution_over_pairs(model):
    world = model.world
    likelihood, likelihood_prime = world.log_p_x_given_z.exp(), world.log_p_x_prime_given_z_prime.exp()
    literal = torch.einsum("ab,ax,by->xy", model.log_prior.exp(), likelihood, likelihood_prime)
    agree("(E1) P(x,x') = sum P(z,z') P(x|z) P(x'|z')", world.log_p(model.log_prior).exp(), literal)
    agree("(E1) sum of P(x,x') = 1", world.log_p(model.log_prior).exp().sum(), 1.0)


@given(models())
def test_the_posterior_is_a_distribution_over_latents_by_bayes_rule(model):
    world, log_p = model.world, model.world.log_p(model.log_prior)
    posterior = world.posterior(model.log_prior)
    agree("(E3) sum of P(z,z'|x,x') = 1", posterior.sum((2, 3)), (log_p > -torch.inf).double())
    joint = torch.einsum(
        "ab,ax,by->xyab",
        *(t.exp() for t in (model.log_prior, world.log_p_x_given_z, world.log_p_x_prime_given_z_prime)),
    )
    agree("(E3) P(z,z'|x,x') P(x,x') = P(x,x',z,z')", posterior * log_p.exp()[:, :, None, None], joint)


def test_samples_come_from_the_model():
    world, n = FiniteRPM.random(3, 4, 2, 3), 40_000
    log_prior = priors.donsker_varadhan(
        torch.randn(2, 3, generator=torch.Generator().manual_seed(1)).double(), world.q_joint
    )
    x, x_prime, z, z_prime = world.sample(log_prior, n, generator=torch.Generator().manual_seed(0))
    cells = (((x * 4 + x_prime) * 2 + z) * 3 + z_prime).bincount(minlength=72).view(3, 4, 2, 3)
    expected = (world.posterior(log_prior) * world.log_p(log_prior).exp()[:, :, None, None]) * n
    deviations = (cells - expected) / expected.sqrt()
    assert deviations.abs().max() < 4.5
    assert 0.6 < deviations.square().mean() < 1.5


# The bound


@given(models())
def test_the_elbo_is_the_sum_of_e3_over_all_observations_and_latents(model):
    bound = model.world.elbo(model.log_prior)
    agree(
        "(E3) the library's ELBO = the four-fold sum",
        bound.value,
        literal_elbo(model.world, model.log_prior),
        *bound,
    )


@given(models())
def test_log_evidence_minus_elbo_is_the_kl_to_the_posterior(model):
    world, bound = model.world, model.world.elbo(model.log_prior)
    evidence, gap = world.log_evidence(model.log_prior), world.gap(model.log_prior)
    agree("(E3) log evidence - ELBO = KL", evidence - bound.value, gap, *bound)
    at_most("(E3) KL >= 0", 0.0, gap, *bound)
    q = torch.einsum("xa,yb->xyab", world.recognition, world.recognition_prime)
    literal = kl(
        world.p_true[:, :, None, None] * q,
        world.posterior(model.log_prior).log() + world.p_true.log()[:, :, None, None],
    )
    agree("(E3) the gap by the definition of KL", gap, literal, *bound)


@given(models())
def test_the_recognition_density_cancels(model):
    world, bound = model.world, model.world.elbo(model.log_prior)
    inside = model.log_prior - world.q_z.log()[:, None] - world.q_z_prime.log()
    constant = mean(world.p_x.log(), world.p_x) + mean(world.p_x_prime.log(), world.p_x_prime)
    agree("(E4) C = E log P_true(x) + E log P_true(x')", world.constant, constant)
    agree(
        "(E4) L = E[log P(z,z') - log Q(z) - log Q(z')] + C",
        bound.value,
        mean(inside, world.q_joint) + constant,
        *bound,
    )


@given(models())
def test_elbo_is_mutual_information_minus_the_kl_to_the_prior(model):
    world, bound = model.world, model.world.elbo(model.log_prior)
    expected = world.mutual_information - kl(world.q_joint, model.log_prior)
    agree("(E5) L - C = MI - KL(Q || P)", bound.value - world.constant, expected, *bound)


# The priors


PAIRS = {
    "(E7) InfoNCE": (rpm.infonce, priors.infonce),
    "(E9) Donsker-Varadhan": (rpm.donsker_varadhan, priors.donsker_varadhan),
    "(E10) NWJ": (rpm.nwj, priors.nwj),
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
    slack = 1 - log_prior.exp().sum()
    agree(
        f"{name}: the same by the four-fold sum",
        found.value,
        literal_elbo(world, log_prior) + slack - world.constant,
        *found,
        slack,
    )


@given(worlds())
def test_mutual_information_is_the_elbo_under_the_optimal_prior(world):
    bound = world.elbo(priors.optimal(world.q_joint))
    agree("(E6) MI = L - C", world.mutual_information, bound.value - world.constant, *bound)
    product = world.q_joint.sum(1, keepdim=True) * world.q_joint.sum(0)
    agree(
        "(E6) MI by its definition",
        rpm.mutual_information(world.q_joint),
        kl(world.q_joint, product.log()),
        *bound,
    )


@given(models())
def test_barber_agakov_is_the_elbo_under_an_explicit_conditional_prior(model):
    world, log_p = model.world, conditional(model)
    found, bound = (
        rpm.barber_agakov(log_p, world.q_joint),
        world.elbo(priors.barber_agakov(log_p, world.q_joint)),
    )
    agree("(E11) Barber-Agakov = L - C", found.value, bound.value - world.constant, *found, *bound)
    entropy = -mean(world.q_z_prime.log(), world.q_z_prime)
    agree("(E11) E log P(z'|z) + H(z')", found.value, mean(log_p, world.q_joint) + entropy, *found)


@given(models())
def test_the_symmetric_objective_is_the_mean_of_two_elbos(model):
    world, found = model.world, rpm.symmetric_infonce(model.log_f, model.world.q_joint)
    bounds = [world.elbo(prior(model.log_f, world.q_joint)) for prior in (priors.infonce, transposed(priors.infonce))]
    agree(
        "(E12) symmetric = mean of two ELBOs",
        found.value,
        sum(b.value for b in bounds) / 2 - world.constant,
        *found,
        *bounds[0],
    )


@given(models())
def test_the_familiar_bounds_stand_in_order_for_the_same_critic(model):
    world, log_f = model.world, model.log_f
    found = [f(log_f, world.q_joint) for f in (rpm.nwj, rpm.donsker_varadhan, rpm.infonce)]
    for name, (low, high) in zip(("(E10) NWJ <= DV", "(E9) DV <= InfoNCE"), pairwise(found), strict=True):
        at_most(name, low.value, high.value, *low, *high)
    at_most("(E9) InfoNCE <= MI", found[-1].value, world.mutual_information, *found[-1])


@given(models())
def test_infonce_is_loose_as_a_bound_on_mi_by_the_kl_to_its_prior(model):
    world, found = model.world, rpm.infonce(model.log_f, model.world.q_joint)
    divergence = kl(world.q_joint, priors.infonce(model.log_f, world.q_joint))
    agree("(E8) MI - InfoNCE = KL(Q || P)", world.mutual_information - found.value, divergence, *found)


@given(models())
def test_the_density_ratio_makes_infonce_equal_to_mi(model):
    world = model.world
    log_f = (world.q_joint / (world.q_z[:, None] * world.q_z_prime)).log().masked_fill(world.q_joint == 0, -torch.inf)
    shifted = log_f + torch.arange(len(log_f))[:, None]  # any c(z) may be added
    agree(
        "(E8) InfoNCE = MI at the density ratio",
        rpm.infonce(shifted, world.q_joint).value,
        world.mutual_information,
        len(log_f),
    )


# Deterministic recognition, and data sets


@given(models(encoders=("one-hot", "many-to-one")))
def test_the_bound_is_tight_for_deterministic_recognition(model):
    bound = model.world.elbo(model.log_prior)
    agree(
        "(E13) ELBO = log evidence for deterministic encoders",
        bound.value,
        model.world.log_evidence(model.log_prior),
        *bound,
    )


def test_the_evidence_of_a_very_sharp_critic_is_not_lost_to_underflow():
    """exp(-2000) is 0 in float64; log P(x,x') = -2000 - ... is an ordinary number."""
    world = FiniteRPM(torch.tensor([[0.4, 0.1], [0.2, 0.3]], dtype=torch.float64), torch.eye(2).double())
    log_f = -2000 * (1 - torch.eye(2).double())
    log_prior = priors.infonce(log_f, world.q_joint)
    agree("(E13) evidence of a sharp critic", world.log_evidence(log_prior), world.elbo(log_prior).value)
    agree("(E3) gap of a sharp critic", world.gap(log_prior), 0.0)


@given(scores())
def test_full_batch_infonce_is_the_log_evidence_of_the_data_set(log_f):
    n, found = len(log_f), rpm.infonce(log_f)
    table = [
        [s - math.log(sum(math.exp(t - max(row)) for t in row) / n) - max(row) - 2 * math.log(n) for s in row]
        for row in log_f.tolist()
    ]
    by_hand = torch.tensor(table, dtype=torch.float64)  # log of (1/N^2) f_ij / Z_i
    agree(
        "(E14) I_N = mean log P(x_i,x'_i) + 2 log N",
        found.value,
        by_hand.diagonal().mean() + 2 * math.log(n),
        *found,
    )
    agree("(E14) P is a distribution over all pairs", by_hand.exp().sum(), 1.0)
    assert by_hand.max() <= -math.log(n) + 1e-13

    each = torch.eye(n, dtype=torch.float64)
    world = FiniteRPM(each / n, each)  # N distinct pairs, each observation its own latent
    log_prior = priors.infonce(log_f, each / n)
    agree("(E14) the same P from FiniteRPM", world.log_p(log_prior).exp(), by_hand.exp())
    agree(
        "(E14) log evidence by FiniteRPM",
        world.log_evidence(log_prior),
        found.value - 2 * math.log(n),
        *found,
    )
    agree("(E14) C = -2 log N", world.constant, -2 * math.log(n))


@given(scores())
def test_one_function_serves_a_batch_and_an_exact_world(log_f):
    uniform = torch.eye(len(log_f), dtype=torch.float64) / len(log_f)
    for objective in (rpm.infonce, rpm.symmetric_infonce, rpm.donsker_varadhan, rpm.nwj):
        for batch, exact in zip(objective(log_f), objective(log_f, uniform), strict=True):
            agree(
                "(E7) a batch is a table with its pairs on the diagonal",
                batch,
                exact,
                log_f[log_f.isfinite()].abs().max(),
            )


@given(scores())
def test_infonce_never_exceeds_log_n(log_f):
    at_most("(E15) I_N <= log N", rpm.infonce(log_f).value, math.log(len(log_f)), *rpm.infonce(log_f))


@given(models())
def test_the_evidence_measures_the_information_of_the_data(model):
    world, bound = model.world, model.world.elbo(model.log_prior)
    evidence, i_true = (
        world.log_evidence(model.log_prior) - world.constant,
        rpm.mutual_information(world.p_true),
    )
    expected = i_true - kl(world.p_true, world.log_p(model.log_prior))
    agree("(E23) evidence - C = I_true - KL(P_true || P)", evidence, expected, *bound)
    at_most("(E23) L - C <= evidence - C", bound.value - world.constant, evidence, *bound)
    at_most("(E23) evidence - C <= I_true", evidence, i_true, *bound)
    at_most("(E23) L - C <= MI", bound.value - world.constant, world.mutual_information, *bound)
    at_most("(E23) MI <= I_true", world.mutual_information, i_true, *bound)


# Invariance


@given(models(), SEEDS)
def test_mi_is_blind_to_a_scrambled_code_and_infonce_is_not(model, seed):
    q_joint, log_f = model.world.q_joint, model.log_f.clamp(min=-50)
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (torch.randperm(k, generator=generator) for k in q_joint.shape)
    scrambled = q_joint[rows][:, columns]
    agree("(E17) I(h(z);h'(z')) = I(z;z')", rpm.mutual_information(scrambled), model.world.mutual_information)
    before, after = rpm.infonce(log_f, q_joint), rpm.infonce(log_f, scrambled)
    growth = kl(scrambled, priors.infonce(log_f, scrambled)) - kl(q_joint, priors.infonce(log_f, q_joint))
    agree("(E17) InfoNCE falls by the growth of its KL", before.value - after.value, growth, *before, *after)
    agree(
        "(E17) unless the critic is relabelled too",
        rpm.infonce(log_f[rows][:, columns], scrambled).value,
        before.value,
        *before,
    )
