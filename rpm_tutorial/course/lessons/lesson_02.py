"""Lesson 2. Its widget: the derivation of the bound, line by line.

Its exercises: the constant, the gap, and a bug: whose marginals does the ELBO divide by?
"""

from dataclasses import dataclass

from torch import Tensor

from ... import priors
from ...derivation import ASSUMPTIONS, derive
from ...finite import FiniteRPM
from ..exercise import Exercise, normal
from ..figures import Figure, dots
from ..widgets import choice, slider


@dataclass(frozen=True)
class ProofState:
    broken: str = choice(
        {("nothing broken" if k == "nothing" else f"{k}: {v}"): k for k, v in ASSUMPTIONS.items()}, "break it"
    )
    line: int = slider(7, 1, 7, 1, "lines shown")


def proof(world: FiniteRPM, log_prior: Tensor):
    """Lesson 2: the render function for this world and prior: the derivation up to a line, and which line fails when broken."""

    def render(state: ProofState) -> Figure:
        shown = derive(world, log_prior, state.broken)[: state.line]
        failed = {line.name: f"off by {line.residual:+.3f}" for line in shown if line.residual.abs() > 1e-11}
        fate = f"the line «{next(iter(failed))}» fails" if failed else "every line so far agrees with the one before"
        assumption = ASSUMPTIONS[state.broken]
        return dots(
            {line.name: line.value.item() for line in shown},
            mark=failed,
            x_label="value of the line (nats per pair)",
            caption=f"{assumption[0].upper()}{assumption[1:]}: {fate}. Last line shown: {shown[-1].equation}.",
        )

    return render


# Exercises


def _posterior(seed: int) -> tuple:
    world = FiniteRPM.random(seed=seed)
    q = world.recognition[0][:, None] * world.recognition_prime[0]
    return q, world.posterior(priors.optimal(world.q_joint))[0, 0]


def _negative_entropy(p):
    return (p * p.log()).sum()


constant = Exercise(
    prompt="Return C = E log P_true(x) + E log P_true(x'), from the table P_true(x,x'). Source: (E4).",
    case=lambda seed: (FiniteRPM.random(seed=seed).p_true,),
    solution=lambda p_true: _negative_entropy(p_true.sum(1)) + _negative_entropy(p_true.sum(0)),
    hints=(
        "C is a sum of two terms, one per side. Which distribution does each need?",
        "E log P_true(x) = sum over x of P_true(x) log P_true(x): minus the entropy of x.",
        "p_x = p_true.sum(1) and p_x_prime = p_true.sum(0); then (p * p.log()).sum() for each.",
    ),
    misconceptions={
        lambda p_true: -_negative_entropy(p_true.sum(1)) - _negative_entropy(p_true.sum(0)): (
            "the sign: E log P is minus the entropy, so C is negative."
        ),
        lambda p_true: _negative_entropy(p_true): "that is minus the entropy of the pair. C takes x and x' apart.",
        lambda p_true: p_true.sum(1).log().mean() + p_true.sum(0).log().mean(): (
            "you averaged log P over x with equal weights; the expectation is under P_true."
        ),
    },
)

gap = Exercise(
    prompt="Return KL( q || p ) of two tables of the same shape: q = Q(z|x)Q(z'|x'), p = P(z,z'|x,x'). Source: (E3).",
    case=_posterior,
    solution=lambda q, p: (q * (q / p).log()).sum(),
    hints=(
        "The gap of a variational bound has the approximation in front. Which of the two is it?",
        "KL(q || p) = E_q[log q - log p].",
        "One line: (q * (q.log() - p.log())).sum()",
    ),
    misconceptions={
        lambda q, p: (
            p * (p / q).log()
        ).sum(): "that is KL(p || q); the expectation of a variational bound is under q.",
        lambda q, p: (q * (p / q).log()).sum(): "the sign: a KL divergence is never negative.",
    },
)


def _elbo_above_c(q_joint, log_prior):
    log_q_z = q_joint.sum(1).log()
    log_q_z_prime = q_joint.sum(0).log()
    inside = log_prior - log_q_z[:, None] - log_q_z_prime
    return (q_joint * inside).sum()


def _with_the_marginals_of_the_prior(q_joint, log_prior):
    prior = log_prior.exp()
    side, side_prime = prior.sum(1).log(), prior.sum(0).log()
    inside = log_prior - side[:, None] - side_prime
    return (q_joint * inside).sum()


elbo_above_c = Exercise(
    prompt="Return L - C = E_Q(z,z')[log P(z,z') - log Q(z) - log Q(z')] from q_joint and log_prior, both (Z, Z'). Source: (E4).",
    case=lambda seed: (FiniteRPM.random(seed=seed).q_joint, normal(seed, 12).log_softmax(0).view(3, 4)),
    solution=_elbo_above_c,
    hints=(
        "Compare the function with (E4), symbol by symbol: which letter, P or Q, does each of its logarithms belong to?",
        "Where do log Q(z) and log Q(z') come from? The likelihood (E2) divides by the aggregate posterior.",
        "The marginals of q_joint, not those of the prior: q_joint.sum(1) and q_joint.sum(0).",
    ),
    misconceptions={
        _with_the_marginals_of_the_prior: (
            "a prior under which z and z' are independent gives 0 whatever its marginals are, so that a wrong P(z) costs nothing."
        ),
        lambda q_joint, log_prior: (
            log_prior.exp() * (log_prior - q_joint.sum(1).log()[:, None] - q_joint.sum(0).log())
        ).sum(): ("the expectation is under Q(z,z'): the encoders draw z and z', the prior only scores them."),
        lambda q_joint, log_prior: (q_joint * log_prior).sum(): "the terms - log Q(z) - log Q(z') are gone.",
    },
    with_bug=_with_the_marginals_of_the_prior,
)
