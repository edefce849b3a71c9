"""Lesson 11. Its widget: what a prior of one step expects of a moving ball, k frames ahead.

Its exercises: how noise grows with the horizon, two steps of a law as one, and the objective of CPC with two horizons.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ... import objectives
from ..exercise import Exercise, normal
from ..figures import Figure
from ..widgets import choice, slider
from ._moving import SEQUENCES, expectation, in_the_plane, worth


@dataclass(frozen=True)
class ForecastState:
    horizon: int = slider(3, 1, 5, 1, "horizon k", "frames")
    prior: str = choice(["constant velocity", "random walk"], "prior")
    sequence: int = slider(0, 0, SEQUENCES - 1, 1, "sequence")


# A prior of one step, iterated k times: weights of z_0 and z_1 in the mean of z_{1+k}, and the growth of its noise.
AHEAD = {
    "constant velocity": lambda k: (-k, k + 1, math.sqrt(k * (k + 1) * (2 * k + 1) / 6)),
    "random walk": lambda k: (0, 1, math.sqrt(k)),
}
FORECAST_FRAMES = 7


def forecast(z: Tensor, position: Tensor):
    """Lesson 11: the render function for these latents: a sequence's latent and true path, and where a prior expects frame 1 + k.

    `z` and `position`, each (n, 7, 2), are latents and true positions of seven frames. Raises `ValueError` for other shapes, and
    for fewer than the 20 sequences that its slider offers.
    """
    path = in_the_plane(z, position, FORECAST_FRAMES)
    predicted, spread, information = {}, {}, {}
    for prior, ahead in AHEAD.items():
        for k in range(1, FORECAST_FRAMES - 1):
            a, b, growth = ahead(k)
            predicted[prior, k] = a * path[:, 0] + b * path[:, 1]
            if k == 1:
                one_step = (path[:, 2] - predicted[prior, 1]).square().mean().sqrt().item()
            spread[prior, k] = growth * one_step
            information[prior, k] = worth(predicted[prior, k], path[:, 1 + k], spread[prior, k])

    def render(state: ForecastState) -> Figure:
        key, k, i = (state.prior, state.horizon), state.horizon, state.sequence
        centre, deviation = predicted[key][i], spread[key]
        off = (path[i, 1 + k] - centre).norm().item()
        caption = (
            f"Sequence {i}. From frames 0 and 1 the {state.prior} expects frame {1 + k} at the diamond; it is off by {off:.3f} "
            f"sides, {off / deviation:.1f} of its standard deviations. At horizon {k} this prior is worth "
            f"{information[key]:.2f} nats a sequence (InfoNCE over {len(z)} candidates)."
        )
        return expectation(path[i], position[i], 1 + k, centre, deviation, caption)

    return render


# Exercises

noise = Exercise(
    prompt=(
        "Return the standard deviation of z_{1+k} given z_0 and z_1, in each dimension, when "
        "z_{t+1} = 2 z_t - z_{t-1} + sigma * e_t with independent standard normal e_t."
    ),
    case=lambda seed: (0.01 * (1 + seed), 2 + seed),
    solution=lambda sigma, k: sigma * math.sqrt(k * (k + 1) * (2 * k + 1) / 6),
    hints=(
        "A push changes the velocity, and a velocity acts once for each step that is left.",
        "The push before the last frame counts once, the one before it twice, and so on up to k; variances add.",
        "sigma * sqrt(1 + 4 + ... + k^2)",
    ),
    misconceptions={
        lambda sigma, k: (
            sigma * math.sqrt(k)
        ): "that is a random walk's; here a push lasts, because it changes the velocity.",
        lambda sigma, k: sigma * k * (k + 1) / 2: "pushes are independent: their variances add, not their sizes.",
        lambda sigma, k: sigma * math.sqrt((k - 1) * k * (2 * k - 1) / 6): (
            "one push is missing: z_{1+k} is k steps after z_1, each with a push."
        ),
        lambda sigma, k: sigma * k: "that is the first push alone, the one with the most time to act.",
    },
)


two_steps = Exercise(
    prompt=(
        "Return the matrix (d, 2d) from (z_0, z_1), side by side, to the mean of z_3, two steps after z_1, if the mean of "
        "z_{t+1} is A_0 z_{t-1} + A_1 z_t. A_0 and A_1 are (d, d)."
    ),
    case=lambda seed: (normal(400 + seed, 2, 2), normal(500 + seed, 2, 2)),
    solution=lambda A_0, A_1: torch.cat([A_1 @ A_0, A_0 + A_1 @ A_1], 1),
    hints=(
        "The mean of z_2 is A_0 z_0 + A_1 z_1; put it where z_t stands, and z_1 where z_{t-1} stands.",
        "The mean of z_3 is A_0 z_1 + A_1 (A_0 z_0 + A_1 z_1).",
        "torch.cat([A_1 @ A_0, A_0 + A_1 @ A_1], 1)",
    ),
    misconceptions={
        lambda A_0, A_1: torch.cat([A_0 @ A_1, A_0 + A_1 @ A_1], 1): (
            "matrices don't commute: A_0 acts first, on z_0, and A_1 on what comes out."
        ),
        lambda A_0, A_1: torch.cat([A_1 @ A_0, A_1 @ A_1], 1): (
            "z_1 acts twice: by way of z_2, and directly, because it is one of the two frames before z_3."
        ),
        lambda A_0, A_1: torch.cat([A_0 @ A_0, A_1 @ A_1], 1): "the two blocks mix: square the law, not each block.",
        lambda A_0, A_1: torch.cat([A_0, A_1], 1): "that is one step; z_3 comes two steps after z_1.",
    },
)


def _three_latents(seed: int) -> tuple:
    return normal(600 + seed, 27).softmax(0).view(3, 3, 3), normal(700 + seed, 3, 3), normal(800 + seed, 3, 3)


def _terms(q, log_f_1, log_f_2):
    """The three terms of CPC on three frames: (0, 1) and (1, 2) at horizon 1, (0, 2) at horizon 2."""
    pairs = ((log_f_1, q.sum(2)), (log_f_1, q.sum(0)), (log_f_2, q.sum(1)))
    return [objectives.infonce(log_f, q_pair).value for log_f, q_pair in pairs]


two_horizons = Exercise(
    prompt=(
        "Return CPC's objective, in nats a sequence, on three frames with the horizons 1 and 2 and contexts of one latent, from "
        "q = Q(z_0,z_1,z_2) and the scores log_f_1 and log_f_2, (Z, Z) each: one critic for each horizon, whatever the frame."
    ),
    case=_three_latents,
    solution=lambda q, log_f_1, log_f_2: sum(_terms(q, log_f_1, log_f_2)),
    hints=(
        "Which pairs of frames are one step apart, and which two?",
        "Three InfoNCE terms: (z_0, z_1) and (z_1, z_2) with log_f_1, (z_0, z_2) with log_f_2.",
        "rpm.infonce(log_f_1, q.sum(2)).value + rpm.infonce(log_f_1, q.sum(0)).value + rpm.infonce(log_f_2, q.sum(1)).value",
    ),
    misconceptions={
        lambda *case: sum(_terms(*case)[::2]): "z_2 follows from z_1 as well: horizon 1 has two terms on three frames.",
        lambda *case: sum(_terms(*case)[:2]): "that is horizon 1 alone, the ELBO of one chain; horizon 2 adds a term.",
        lambda *case: _terms(*case)[2]: "that is horizon 2 alone, the ELBO of the other chain.",
        lambda *case: sum(_terms(*case)) / 2: "that is the mean of the two chains' ELBOs; CPC adds them up.",
        lambda *case: sum(_terms(*case)) / 3: "that is a mean over the terms; they add up over time.",
    },
)
