"""Lesson 8. Its widget: a scrambled code under two priors.

Its exercises: a prior as a table of scores, and what a difference in evidence is worth.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..exercise import Exercise, normal
from ..figures import Figure, clouds
from ..widgets import choice, slider


@dataclass(frozen=True)
class UnfoldingState:
    hundreds: int = slider(12, 0, 12, 1, "training steps, in hundreds")
    prior: str = choice(["random walk", "universal"], "prior")


def unfolding(paths: Mapping[str, Mapping[int, tuple]], color: Tensor, points: int = 500):
    """Lesson 8: the render function for two trainings from one scrambled start.

    Args:
        paths: prior -> step (0, 100, ... 1200) -> (latents (n, 2), nats, R², MCC).
        color: the true position of each, shape (n,).
    """

    def render(state: UnfoldingState) -> Figure:
        z, nats, r_squared, _ = paths[state.prior][100 * state.hundreds]
        start = paths[state.prior][0][0]
        return clouds(
            {"the start": (start[:points], color[:points]), state.prior: (z[:points], color[:points])},
            x_label="z₁",
            y_label="z₂",
            color_label="true position",
            caption=(
                f"After {100 * state.hundreds} steps under the {state.prior} prior: held-out evidence {nats:.2f} nats above C, "
                f"R² of the true position {r_squared:.2f}."
            ),
        )

    return render


# Exercises


def _latents(seed: int) -> tuple:
    z, z_prime = normal(seed, 9 + seed, 3).split([4, 5 + seed])
    return z, z_prime, 0.5 + 0.25 * seed


laplace_scores = Exercise(
    prompt="Return log f of a Laplace walk of scale b for all rows of z (n, d) and z_prime (m, d), shape (n, m). Source: (E18).",
    case=_latents,
    solution=lambda z, z_prime, b: -torch.cdist(z, z_prime, p=1) / b,
    hints=(
        "Which distance adds the absolute differences of the coordinates?",
        "torch.cdist has an argument p; z[:, None] - z_prime has shape (n, m, d).",
        "-torch.cdist(z, z_prime, p=1) / b",
    ),
    misconceptions={
        lambda z, z_prime, b: torch.cdist(z, z_prime, p=1) / b: (
            "partners that are far apart would score highest: a minus is missing."
        ),
        lambda z, z_prime, b: -torch.cdist(z, z_prime) / b: (
            "that is the Euclidean distance, which has no corners and so no axes; the Laplace walk adds absolute differences."
        ),
        lambda z, z_prime, b: (
            -torch.cdist(z, z_prime).square() / (2 * b**2)
        ): "that is the random walk with Gaussian steps.",
        lambda z, z_prime, b: (
            -torch.cdist(z, z_prime, p=1) * b
        ): "a larger scale makes long steps cheaper: divide by b.",
        lambda z, z_prime, b: (-torch.cdist(z, z_prime, p=1) / b).exp(): "that is f; the critic gives log f.",
    },
)


log_likelihood_ratio = Exercise(
    prompt=(
        "Return log of (probability of the n pairs under model a / under model b), given their InfoNCE values, in nats per pair."
    ),
    case=lambda seed: (1.4 + 0.1 * seed, 1.503, 100 * (seed + 1)),
    solution=lambda infonce_a, infonce_b, n: n * (infonce_a - infonce_b),
    hints=(
        "Both numbers are means over pairs. What is the log probability of all of them?",
        "log P of all pairs is n (infonce - 2 log n); in a difference the second term drops out.",
        "n * (infonce_a - infonce_b)",
    ),
    misconceptions={
        lambda infonce_a, infonce_b, n: infonce_a - infonce_b: (
            "that is the difference for one pair; the data are n pairs, and log probabilities add."
        ),
        lambda infonce_a, infonce_b, n: n * (infonce_b - infonce_a): "a stands in the numerator.",
        lambda infonce_a, infonce_b, n: infonce_a / infonce_b: (
            "logarithms of a ratio are differences, not ratios, of logarithms."
        ),
    },
)


def _three_models(seed: int) -> tuple:
    """On 2 048 pairs at last, as in the lesson: e^(n infonce) has no float64."""
    n = (50, 200, 2048)[seed]
    return 1.4 + torch.tensor([0.0, 0.5, seed - 1.2], dtype=torch.float64) / n, n


posterior = Exercise(
    prompt=(
        "Return the posterior probability of each prior, shape (k,), from `infonce`, shape (k,), nats per pair on the same n "
        "pairs, with equal probabilities before."
    ),
    case=_three_models,
    solution=lambda infonce, n: torch.softmax(n * infonce, 0),
    hints=(
        "Bayes: proportional to the probability of the data under each.",
        "The log probability of the data is n * infonce, up to what all have in common.",
        "torch.softmax(n * infonce, 0)",
    ),
    misconceptions={
        lambda infonce, n: (n * infonce).exp() / (n * infonce).exp().sum(): (
            "right for few pairs. At the lesson's n = 2048, e^(n infonce) overflows: take the largest out first, or use softmax."
        ),
        lambda infonce, n: torch.softmax(infonce, 0): (
            "that is the posterior after a single pair; n pairs multiply their probabilities."
        ),
        lambda infonce, n: (
            infonce / infonce.sum()
        ): "probabilities are proportional to exp of a log evidence, not to it.",
        lambda infonce, n: torch.nn.functional.one_hot(infonce.argmax(), len(infonce)): (
            "that is the most probable prior; the others keep some probability too."
        ),
    },
)
