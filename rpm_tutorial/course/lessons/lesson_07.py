"""Lesson 7. Its widget: a twist that the information cannot see.

Its exercises: what a prior misses, the walk that misses least, a map that loses information, and a bug: ranks.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from ... import gaussian, objectives
from ...datasets import twist
from ...objectives import mutual_information
from ...probes import r_squared
from ..exercise import Exercise, normal
from ..figures import Figure, clouds
from ..widgets import slider


@dataclass(frozen=True)
class TwistState:
    strength: float = slider(1.0, 0, 2, 0.25, "strength k of the twist")


def twisted(state: TwistState) -> Figure:
    """Lesson 7: Gaussian latents twisted by the angle k |z|, coloured by what they were; MI, walk evidence, linear probe."""
    points, before, evidence, read = _twisted(state.strength)
    return clouds(
        {"z": (before, before[:, 0]), f"twisted, k = {state.strength:g}": (points, before[:, 0])},
        x_label="z₁",
        y_label="z₂",
        color_label="z₁ before",
        caption=(
            f"At k = {state.strength:g} the mutual information is {gaussian.mutual_information(0.9, 2):.2f} nats, as at any k. The "
            f"evidence under the walk prior is {evidence:.2f} nats, and a linear probe reads the coordinates with R² {read:.2f}."
        ),
    )


@cache
def _twisted(strength: float) -> tuple[np.ndarray, np.ndarray, float, float]:
    """400 twisted points, the same before, I_N of the best of some walks over 800 pairs, and R² of a linear probe."""
    sides = gaussian.sample(800, 0.9, 2, generator=torch.Generator().manual_seed(0))
    z, z_prime = (twist(side, strength) for side in sides)
    squares = torch.cdist(z, z_prime).square()
    evidence = max(objectives.infonce(-squares / (2 * s**2)).value.item() for s in (0.4, 0.5, 0.7, 1.0, 1.5, 2.0))
    read = r_squared(z[:400], sides[0][:400], z[400:], sides[0][400:])
    return z[:400].numpy(), sides[0][:400].numpy(), evidence, read


# Exercises


divergence = Exercise(
    prompt=(
        "Return KL(Q(z,z') || P(z,z')) in nats, P the random walk prior of scale `scale`, for Gaussian pairs of correlation `rho` "
        "in one dimension. Source: (E8), (E20)."
    ),
    case=lambda seed: (0.5 + 0.15 * seed, 0.4 + 0.3 * seed),
    solution=lambda rho, scale: gaussian.mutual_information(rho) - gaussian.infonce_random_walk(rho, scale),
    hints=(
        "(E8) says of which two numbers this KL is the difference.",
        "MI - I_inf; both are closed forms of rpm.gaussian.",
        "rpm.gaussian.mutual_information(rho) - rpm.gaussian.infonce_random_walk(rho, scale)",
    ),
    misconceptions={
        lambda rho, scale: gaussian.infonce_random_walk(rho, scale) - gaussian.mutual_information(rho): (
            "a KL divergence is never negative: the MI is the larger of the two."
        ),
        lambda rho, scale: gaussian.infonce_random_walk(rho, scale): (
            "that is the ELBO above C; the KL is what it lacks to the MI."
        ),
        lambda rho, scale: gaussian.mutual_information(rho) - gaussian.infonce_random_walk(rho, scale**2): (
            "rpm's scale is sigma, not its square."
        ),
    },
)


def _best_precision(rho: float) -> float:
    """Of u = 1/(1 + a): the derivative of (E20) is (u + u^2)/2 - (1 - rho)."""
    u = (math.sqrt(1 + 8 * (1 - rho)) - 1) / 2
    return 1 / u - 1


best_scale = Exercise(
    prompt="Return the scale sigma = 1/sqrt(a) that maximises I_inf of the random walk (E20) for correlation `rho`.",
    case=lambda seed: (0.5 + 0.2 * seed,),
    solution=lambda rho: _best_precision(rho) ** -0.5,
    hints=(
        "Set the derivative with respect to a to zero; it contains 1/(1+a) and its square.",
        "With u = 1/(1+a) the condition is u + u^2 = 2 (1 - rho): a quadratic.",
        "u = (math.sqrt(9 - 8 * rho) - 1) / 2; a = 1 / u - 1; return 1 / math.sqrt(a)",
    ),
    misconceptions={
        _best_precision: "that is the precision a; the scale is 1/sqrt(a).",
        lambda rho: 1 / _best_precision(rho): "that is the variance 1/a; the scale is its root.",
        lambda rho: math.sqrt(2 * (1 - rho)): (
            "that is the spread of z' - z. Q(z') narrows the prediction further, so that another scale is best."
        ),
        lambda rho: math.sqrt(1 - rho**2): (
            "that is the spread of z' around rho z; the walk expects z' around z itself, without the rho."
        ),
    },
)


def _merged(q_joint):
    return torch.cat([q_joint[:1] + q_joint[1:2], q_joint[2:]])


lost_by_merging = Exercise(
    prompt="Return the information in nats that is lost when the first two values of z (rows of `q_joint`) are merged into one.",
    case=lambda seed: (normal(seed, 12 + 4 * seed).softmax(0).view(4, 3 + seed),),
    solution=lambda q_joint: mutual_information(q_joint) - mutual_information(_merged(q_joint)),
    hints=(
        "Merged, the two values share one row. What is in it?",
        "Add the first two rows, then take the difference of two rpm.mutual_information.",
        "m = torch.cat([q_joint[:1] + q_joint[1:2], q_joint[2:]]); rpm.mutual_information(q_joint) - rpm.mutual_information(m)",
    ),
    misconceptions={
        lambda q_joint: mutual_information(_merged(q_joint)): "that is what is left; what is lost is the difference.",
        lambda q_joint: mutual_information(_merged(q_joint)) - mutual_information(q_joint): (
            "merging cannot add information: the loss is positive."
        ),
        lambda q_joint: (
            mutual_information(q_joint) - mutual_information(_merged(q_joint.T).T)
        ): "rows are z, columns z': you merged two values of z'.",
        lambda q_joint: (
            mutual_information(q_joint) - mutual_information(q_joint[1:] / q_joint[1:].sum())
        ): "you dropped a row; merged values keep their probability.",
    },
)


def _correlated(seed: int) -> tuple:
    z, z_prime = gaussian.sample(200, 0.9, generator=torch.Generator().manual_seed(seed))
    return z[:, 0], z_prime[:, 0]


def _binned(z, z_prime):
    n, bins = len(z), 4
    row = z.argsort().argsort() * bins // n
    column = z_prime.argsort().argsort() * bins // n
    counts = torch.bincount(row * bins + column, minlength=bins**2).double()
    return mutual_information(counts.view(bins, bins) / n)


def _by_the_order(z, z_prime):
    n, bins = len(z), 4
    row = z.argsort() * bins // n
    column = z_prime.argsort() * bins // n
    counts = torch.bincount(row * bins + column, minlength=bins**2).double()
    return mutual_information(counts.view(bins, bins) / n)


binned = Exercise(
    prompt="Return the mutual information in nats of n pairs, after each side was cut into 4 bins of n/4 samples each, by size.",
    case=_correlated,
    solution=_binned,
    hints=(
        "Give it five numbers, such as 30, 10, 50, 20, 40, and write down what each intermediate result means.",
        "z.argsort()[0] is the place of the smallest z. Is that what the first sample's bin depends on?",
        "A sample's bin comes from its rank, how many are smaller; z.argsort().argsort() is the rank.",
    ),
    misconceptions={
        _by_the_order: "z and -z come out as nearly independent, though each determines the other: no invertible map may do that.",
        lambda z, z_prime: _by_the_order(z.argsort(), z_prime): "only z is cut rightly, z′ not yet.",
        lambda z, z_prime: _by_the_order(z, z_prime.argsort()): "only z′ is cut rightly, z not yet.",
        lambda z, z_prime: _binned(z.sort().values, z_prime.sort().values): (
            "sorting each side on its own tears the pairs apart: any two samples then agree perfectly."
        ),
    },
    with_bug=_by_the_order,
)
