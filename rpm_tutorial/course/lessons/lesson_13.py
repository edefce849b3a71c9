"""Lesson 13. Its widget: the classes that EM finds in pairs and in triples.

Its exercises: the two steps of EM.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ...finite import FiniteRPM
from ..exercise import Exercise, normal
from ..figures import Figure, tables
from ..widgets import choice, slider


@dataclass(frozen=True)
class ClassesState:
    doublings: int = slider(10, 0, 10, 1, "EM steps, as a power of 2")
    data: str = choice(["pairs", "triples"], "EM sees")
    start: int = choice({str(k): k for k in (1, 2, 3)}, "start")


def classes(true: Tensor, paths: Mapping[str, Sequence[Sequence[tuple[float, Tensor]]]]):
    """Lesson 13: the render function for three runs of EM on pairs and three on triples: the true classes and those found.

    `true` is P_true(x_1|z), shape (X, Z). `paths` has "pairs" and "triples", each with three runs of eleven entries, one after 1,
    2, 4, .. 1024 steps: log evidence - C as a share of its ceiling, and P(x_1|z) with its columns in the order of `true`.
    """

    def render(state: ClassesState) -> Figure:
        share, found = paths[state.data][state.start - 1][state.doublings]
        off = ((found - true).abs().sum(0) / 2).max()
        return tables(
            {"P_true(x₁|z)": true.T, f"P(x₁|z) from start {state.start}, by {state.data}": found.T},
            x_label="x₁",
            y_label="z",
            caption=(
                f"EM on {state.data} from start {state.start}, after {2**state.doublings} steps: log evidence − C is "
                f"{share:.2%} of its ceiling, and the worst class is off by {off:.3f} (total variation)."
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


m_step = Exercise(
    prompt="Return the M-step's F_1(z|x) = E[q(z|x,x') | x], shape (X, Z), from p_true (X, X') and q (X, X', Z).",
    case=lambda seed: (FiniteRPM.random(seed=seed).p_true, normal(seed, 5, 6, 3).softmax(2)),
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
