"""SharedLatentRPM: each test is a claim about (E22), exact to rounding on random models."""

import math
from itertools import product

import numpy as np
import torch
from hypothesis import given, strategies as st
from residuals import agree, at_most
from torch.autograd import gradcheck
from worlds import SEEDS, SIZES, encoder

from rpm_tutorial import FiniteRPM, SharedLatentRPM


def expectation(weights, values):
    return torch.where(weights > 0, weights * values, 0.0).sum()


def posteriors(model: SharedLatentRPM, seed: int) -> torch.Tensor:
    """Some q(z|x_1..x_J) that has no mass where the model has none."""
    logits = torch.randn(model.log_joint.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    reached = ~torch.isneginf(model.log_joint)
    q = logits.masked_fill(~reached, -torch.inf).softmax(-1)
    return torch.where(reached.any(-1, keepdim=True), q, model.prior)


@st.composite
def models(draw, observations=(2, 3)) -> SharedLatentRPM:
    """Two or three observations, with zeros, unreached x_j and z, soft and one-hot factors."""
    rng, z = np.random.default_rng(draw(SEEDS)), draw(SIZES)
    sizes = [draw(st.integers(1, 4)) for _ in range(draw(st.sampled_from(observations)))]
    p_true = rng.gamma(0.7, size=sizes)
    if draw(st.booleans()):
        p_true[rng.random(p_true.shape) < 0.4] = 0
        p_true.flat[-1] = 1
    kind = draw(st.sampled_from(("soft", "soft with zeros", "one-hot")))
    factors = [encoder(rng, kind, x, z) for x in sizes]
    p_true, prior = torch.from_numpy(p_true / p_true.sum()), torch.from_numpy(rng.gamma(0.7, size=z) + 1e-3)
    for j, factor in enumerate(factors):
        p_x = p_true.sum([k for k in range(len(sizes)) if k != j])
        prior = prior * (p_x @ factor > 0)
    if prior.sum() == 0:  # the factors share no latent: draw softer ones
        factors, prior = [encoder(rng, "soft", x, z) for x in sizes], torch.ones(z, dtype=torch.float64)
    return SharedLatentRPM(p_true, factors, prior / prior.sum())


@given(models())
def test_the_model_is_the_product_that_walker_et_al_print(model):
    p_x, f_z = [p.tolist() for p in model.p_x], [f.tolist() for f in model.f_z]
    for x in product(*map(range, model.p_true.shape)):
        expected = sum(
            p * math.prod(F[x_j, z].item() * p_j[x_j] / f_j[z] for F, p_j, f_j, x_j in zip(model.factors, p_x, f_z, x))
            for z, p in enumerate(model.prior.tolist())
            if p > 0
        )
        agree("(E22) P(x_1..x_J) as printed", model.log_p[x].exp(), expected)
    agree("(E22) is a distribution", model.log_p.exp().sum(), 1.0)
    agree("(E22) with its latent is a distribution", model.log_joint.exp().sum(-1), model.log_p.exp())


@given(models(observations=(2,)))
def test_for_two_observations_it_is_e1_with_its_latents_tied(model):
    untied, diagonal = FiniteRPM(model.p_true, *model.factors), model.prior.diag().log()
    agree("(E22) is (E1) with a diagonal prior: log P", model.log_p, untied.log_p(diagonal))
    agree("(E22) is (E1) with a diagonal prior: evidence", model.log_evidence, untied.log_evidence(diagonal))
    agree("(E22) has the C of (E4)", model.constant, untied.constant)
    above_chance = max(model.log_evidence - model.constant, -1e9)
    at_most("log evidence - C <= log K", above_chance, math.log(len(model.prior)))
    tied, possible = untied.posterior(diagonal).diagonal(dim1=2, dim2=3), model.log_p > -torch.inf
    agree("(E22) is (E1) with a diagonal prior: posterior", model.posterior[possible], tied[possible])


@given(models(), SEEDS)
def test_the_bound_lies_below_the_evidence_by_a_kl_and_touches_it_at_the_e_step(model, seed):
    possible = model.log_p > -torch.inf
    if not possible[model.p_true > 0].all():
        assert model.log_evidence == -torch.inf == model.elbo(model.posterior)
        return
    agree("(E22) the E-step is exact", model.elbo(model.posterior), model.log_evidence)
    q = posteriors(model, seed)
    divergence = expectation(model.p_true[..., None] * q, q.log() - model.posterior.log())
    agree("(E22) log evidence - ELBO = KL", model.log_evidence - model.elbo(q), divergence, model.elbo(q))
    assert (q >= 0).all() and divergence > -1e-12
    short = expectation(model.p_true, model.p_true.log() - model.log_p)
    ceiling = model.total_correlation
    agree("(E23) evidence - C = total correlation - KL", model.log_evidence - model.constant, ceiling - short)


@given(models(), SEEDS)
def test_the_m_step_is_the_best_model_for_its_posterior(model, seed):
    q = posteriors(model, seed)
    best = model.m_step(q)
    at_most("the M-step does not lower the ELBO", model.elbo(q), best.elbo(q))
    at_most("EM does not lower the evidence", model.log_evidence, model.m_step(model.posterior).log_evidence)
    generator = torch.Generator().manual_seed(seed)
    for size in (1e-3, 0.3):

        def moved(table, size=size):
            noise = torch.rand(table.shape, generator=generator, dtype=torch.float64)
            return (1 - size) * table + size * noise.softmax(-1)

        other = SharedLatentRPM(model.p_true, [moved(factor) for factor in best.factors], moved(best.prior))
        at_most("no other model has a higher ELBO", other.elbo(q), best.elbo(q))
    for f_z, p_x, j in zip(best.f_z, best.p_x, range(3)):
        agree("after an M-step F_j(z) = P(z)", f_z, best.prior)
        axes = [k for k in range(model.p_true.dim()) if k != j]
        agree("after an M-step the model has the data's marginals", best.log_p.exp().sum(axes), p_x)


def test_the_gradient_of_the_bound_at_an_exact_e_step_is_that_of_the_evidence():
    p_true = FiniteRPM.random(seed=1).p_true
    logits = [torch.randn(n, 3, generator=torch.Generator().manual_seed(n)).double().requires_grad_() for n in (5, 6)]
    model = SharedLatentRPM(p_true, [table.softmax(1) for table in logits])
    of_evidence = torch.autograd.grad(model.log_evidence, logits, retain_graph=True)
    of_bound = torch.autograd.grad(model.elbo(model.posterior.detach()), logits)
    for one, other in zip(of_evidence, of_bound, strict=True):
        agree("EM's gradient is the evidence's", one, other)
    assert gradcheck(lambda *t: SharedLatentRPM(p_true, [table.softmax(1) for table in t]).log_evidence, logits)


def test_an_observation_that_never_occurs_gets_the_prior():
    p_true = torch.tensor([[0.5, 0.5], [0.0, 0.0]], dtype=torch.float64)
    model = SharedLatentRPM.random(p_true, 3)
    better = model.m_step(model.posterior)
    agree("the factor of an unreached x", better.factors[0][1], better.prior)
