"""Lesson 10. Its widget: twelve restarts of EM on digits, step by step.

Its exercises: the two steps of EM, and what ten classes are worth to untied latents.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from ...finite import FiniteRPM
from ..exercise import Exercise, normal
from ..figures import Figure, clusters
from ..widgets import choice, slider


@dataclass(frozen=True)
class RestartState:
    step: int = slider(200, 0, 200, 10, "EM steps")
    rank: int = choice({str(k): k for k in range(1, 13)}, "restart, by final evidence")


def restarts(evidence: Tensor, counts: Tensor):
    """Lesson 10: the render function for twelve restarts of EM, seen every 10 steps: the categories, and the evidence so far.

    `evidence` holds log evidence - C in nats per pair, shape (21, 12); `counts` the images of each class (row) in each
    category, shape (21, 12, k, k). Raises `ValueError` for other shapes.
    """
    from ...probes import match  # scikit-learn takes a second, and only this widget needs it

    if evidence.shape != (21, 12) or counts.shape[:2] != (21, 12):
        raise ValueError(
            f"evidence has shape {tuple(evidence.shape)} and counts {tuple(counts.shape)}; expected (21, 12) and (21, 12, k, k)"
        )
    order, k = evidence[-1].argsort(descending=True), counts.shape[-1]

    def render(state: RestartState) -> Figure:
        now, run = state.step // 10, int(order[state.rank - 1])
        table = counts[now, run][:, match(counts[-1, run])]  # categories keep their places along the path
        agreed = counts[now, run][:, match(counts[now, run])].trace() / counts[now, run].sum()
        return clusters(
            table,
            range(0, 201, 10),
            evidence.T,
            chosen=run,
            shown=now + 1,
            ceiling=math.log(k),
            x_label="EM steps",
            y_label="log evidence − C (nats per pair)",
            caption=(
                f"Restart {state.rank} of 12 after {state.step} steps: {evidence[now, run]:.3f} of log {k} = "
                f"{math.log(k):.3f} nats; categories matched with classes one to one agree with {agreed:.1%} of the labels."
            ),
        )

    return render


# Exercises


def _factors(seed: int) -> tuple:
    f, f_prime = normal(seed, 2, 5 + seed, 3).softmax(2)
    prior, f_z, f_prime_z = normal(100 + seed, 3, 3).softmax(1)
    return prior, f, f_prime, f_z, f_prime_z


def _normalised(table):
    return table / table.sum(1, keepdim=True)


posterior = Exercise(
    prompt=(
        "Return P(z|x,x'), shape (n, Z), proportional to P(z) F(z|x) F'(z|x') / F(z) F'(z), from prior (Z,), f and f_prime (n, Z), "
        "f_z and f_prime_z (Z,). Source: (E22)."
    ),
    case=_factors,
    solution=lambda prior, f, f_prime, f_z, f_prime_z: _normalised(prior * f / f_z * f_prime / f_prime_z),
    hints=(
        "Check your answer yourself: each row is a distribution over z.",
        "By Bayes' rule, P(x|z) is proportional to F(z|x) / F(z) as z varies.",
        "w = prior * f / f_z * f_prime / f_prime_z; then w / w.sum(1, keepdim=True)",
    ),
    misconceptions={
        lambda prior, f, f_prime, f_z, f_prime_z: prior * f / f_z * f_prime / f_prime_z: (
            "that is P(x,x',z) up to P_0(x) P_0(x'); a posterior over z sums to one."
        ),
        lambda prior, f, f_prime, f_z, f_prime_z: _normalised((prior * f / f_z * f_prime / f_prime_z).T).T: (
            "your columns sum to one; each row, one pair, is a distribution over z."
        ),
        lambda prior, f, f_prime, f_z, f_prime_z: _normalised(f * f_prime): (
            "a product of the factors counts the class frequencies twice and the prior not at all."
        ),
        lambda prior, f, f_prime, f_z, f_prime_z: _normalised(prior * f * f_prime): (
            "you multiplied the factors as if they were likelihoods; each likelihood is F(z|x) / F(z), by (E2)."
        ),
        lambda prior, f, f_prime, f_z, f_prime_z: _normalised(f / f_z * f_prime / f_prime_z): (
            "you left out the prior P(z): where F_j(z) = P(z), one of the two divisions must be undone."
        ),
    },
)


def _posterior_of_pairs(seed: int) -> tuple:
    return FiniteRPM.random(seed=seed).p_true, normal(seed, 5, 6, 3).softmax(2)


m_step = Exercise(
    prompt="Return the M-step's F_1(z|x) = E[q(z|x,x') | x], shape (X, Z), from p_true (X, X') and q (X, X', Z).",
    case=_posterior_of_pairs,
    solution=lambda p_true, q: (p_true[..., None] * q).sum(1) / p_true.sum(1)[:, None],
    hints=(
        "The mean is taken over the x' that go with this x: under P_true(x'|x).",
        "Sum P_true(x,x') q over x', then divide by P_true(x): rows must sum to one.",
        "(p_true[..., None] * q).sum(1) / p_true.sum(1)[:, None]",
    ),
    misconceptions={
        lambda p_true, q: q.mean(1): "all x' got the same weight; they go with x as often as P_true(x'|x) says.",
        lambda p_true, q: (p_true[..., None] * q).sum(1): "that is the joint of x and z; divide by P_true(x).",
        lambda p_true, q: (p_true[..., None] * q).sum(1) / (p_true[..., None] * q).sum((0, 1)): (
            "you divided by q(z): that is P(x|z), the likelihood, whose columns sum to one. A factor is over z."
        ),
        lambda p_true, q: (p_true.sum(0)[:, None] * q).sum(1): (
            "you weighted x' by its marginal, as if it did not depend on x."
        ),
    },
)

found_all = Exercise(
    prompt=(
        "Return L - C = E[log f] - E log Z(z) for log f = beta [z = z'] when Q(z,z') has 1/k on each of the k diagonal cells and "
        "nothing elsewhere. Source: (E7)."
    ),
    case=lambda seed: (1.0 + seed, 10 - 3 * seed),
    solution=lambda beta, k: beta - math.log1p((math.exp(beta) - 1) / k),
    hints=(
        "z = z' in every pair, so the score is beta; what does Z(z) average over?",
        "Z(z) = sum over z' of f(z,z') / k: one term e^beta, and k - 1 terms 1.",
        "beta - math.log((math.exp(beta) + k - 1) / k)",
    ),
    misconceptions={
        lambda beta, k: math.log(
            k
        ): "log k is the mutual information, the limit of a large beta; at this one KL(Q||P) is left.",
        lambda beta, k: (
            beta - math.log1p(math.exp(beta) / k)
        ): "z = z' is one of the k terms of Z(z): k - 1 are left over.",
        lambda beta, k: beta - math.log(math.exp(beta) + k - 1): (
            "you summed over candidates; Z(z) is a mean under Q(z'), so a constant code would be at 0."
        ),
        lambda beta, k: beta / k - math.log1p((math.exp(beta) - 1) / k): (
            "that is the encoder that knows nothing: there z = z' in one pair of k only."
        ),
        lambda beta, k: beta: "the score alone; subtract the normaliser.",
    },
)
