"""Lesson 10. Its widget: what a prior expects of a moving ball, k frames ahead.

Its exercises: a chain of InfoNCE terms, what a short context forgets, and how noise grows with the horizon.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ... import objectives
from ...critics import RandomWalk
from ...evidence import dataset_evidence
from ..exercise import Exercise, normal
from ..figures import Figure, paths
from ..widgets import choice, slider


@dataclass(frozen=True)
class ForecastState:
    horizon: int = slider(3, 1, 5, 1, "horizon k", "frames")
    prior: str = choice(["constant velocity", "random walk"], "prior")
    sequence: int = slider(0, 0, 19, 1, "sequence")


# A prior of one step, iterated k times: weights of z_0 and z_1 in the mean of z_{1+k}, and the growth of its noise.
AHEAD = {
    "constant velocity": lambda k: (-k, k + 1, math.sqrt(k * (k + 1) * (2 * k + 1) / 6)),
    "random walk": lambda k: (0, 1, math.sqrt(k)),
}
FORECAST_FRAMES = 7


def forecast(z: Tensor, position: Tensor):
    """Lesson 10: the render function for these latents: a sequence's latent and true path, and where a prior expects frame 1 + k.

    `z` and `position`, each (n, 7, 2), are latents and true positions of seven frames. Raises `ValueError` for other shapes, and
    for fewer than the 20 sequences that its slider offers.
    """
    for name, side in (("z", z), ("position", position)):
        if side.shape[1:] != (FORECAST_FRAMES, 2) or len(side) < 20:
            raise ValueError(
                f"{name} has shape {tuple(side.shape)}; expected (n, {FORECAST_FRAMES}, 2) with n at least 20"
            )
    # Both priors stay what they are in the plane of the positions: their weights sum to one.
    path = _aligned(z, position)
    predicted, spread, information = {}, {}, {}
    for prior, ahead in AHEAD.items():
        for k in range(1, FORECAST_FRAMES - 1):
            a, b, growth = ahead(k)
            predicted[prior, k] = a * path[:, 0] + b * path[:, 1]
            if k == 1:
                one_step = (path[:, 2] - predicted[prior, 1]).square().mean().sqrt().item()
            spread[prior, k] = growth * one_step
            critic = RandomWalk(spread[prior, k], learnable=False).to(path)
            information[prior, k] = dataset_evidence(predicted[prior, k], path[:, 1 + k], critic).infonce.item()
    circle = torch.linspace(0, 2 * torch.pi, 41)
    circle = torch.stack([circle.sin(), circle.cos()], 1)

    def render(state: ForecastState) -> Figure:
        key, k, i = (state.prior, state.horizon), state.horizon, state.sequence
        centre, deviation = predicted[key][i], spread[key]
        off = (path[i, 1 + k] - centre).norm().item()
        return paths(
            {
                "latent path": ("Q", path[i]),
                "true path": ("data", position[i]),
                f"expected frame {1 + k}": ("P", centre[None]),
                "two standard deviations": ("KL", centre + 2 * deviation * circle),
            },
            label="position (sides of the box)",
            centre=((position[i].amax(0) + position[i].amin(0)) / 2).tolist(),
            reach=0.35,
            caption=(
                f"Sequence {i}. From frames 0 and 1 the {state.prior} expects frame {1 + k} at the diamond; it is off by {off:.3f} "
                f"sides, {off / deviation:.1f} of its standard deviations. At horizon {k} this prior is worth "
                f"{information[key]:.2f} nats a sequence (InfoNCE over {len(z)} candidates)."
            ),
        )

    return render


def _aligned(z: Tensor, position: Tensor) -> Tensor:
    """z after the affine map to two dimensions that is closest to `position` in the mean square."""
    inputs = torch.cat([z, torch.ones_like(z[..., :1])], -1).flatten(0, 1)
    return (inputs @ torch.linalg.lstsq(inputs, position.flatten(0, 1)).solution).view(position.shape)


# Exercises


def _joint(seed: int) -> tuple:
    return (normal(seed, 24).softmax(0).view(2, 3, 4),)


def _chain(seed: int) -> tuple:
    return *_joint(seed), normal(100 + seed, 2, 3), normal(200 + seed, 2, 3, 4)


def _last_term(q, log_f_1, log_f_2):
    return objectives.infonce(log_f_2.flatten(0, 1), q.flatten(0, 1)).value


chain = Exercise(
    prompt=(
        "Return L - C of a chain of three latents from q = Q(z_0,z_1,z_2), the scores log_f_1 of (z_0, z_1) and log_f_2 of "
        "(z_0, z_1, z_2), in which (z_0, z_1) is the context of z_2. Source: (E19)."
    ),
    case=_chain,
    solution=lambda q, log_f_1, log_f_2: objectives.infonce(log_f_1, q.sum(2)).value + _last_term(q, log_f_1, log_f_2),
    hints=(
        "One InfoNCE term for z_1 given z_0, one for z_2 given (z_0, z_1); the first latent has no context and adds nothing.",
        "A context is a row of a table: log_f_2.flatten(0, 1) has one row for each (z_0, z_1).",
        "rpm.infonce(log_f_1, q.sum(2)).value + rpm.infonce(log_f_2.flatten(0, 1), q.flatten(0, 1)).value",
    ),
    misconceptions={
        _last_term: "that is the last term alone; z_1 given z_0 has one as well.",
        lambda q, log_f_1, log_f_2: (
            (objectives.infonce(log_f_1, q.sum(2)).value + _last_term(q, log_f_1, log_f_2)) / 2
        ): "the terms add up: log P of a chain is a sum over time, not a mean.",
        lambda q, log_f_1, log_f_2: (
            objectives.infonce(log_f_1, q.sum(2)).value
            + objectives.donsker_varadhan(log_f_2.flatten(0, 1), q.flatten(0, 1)).value
        ): "each context needs a normaliser Z(c) of its own; yours has one for all contexts.",
    },
)


def _forgotten(q):
    return objectives.mutual_information(q.flatten(0, 1)) - objectives.mutual_information(q.sum(0))


forgotten = Exercise(
    prompt=(
        "Return what a chain loses, at its best, if the context of z_2 is z_1 alone: I(z_0; z_2 | z_1) in nats, from "
        "q = Q(z_0,z_1,z_2)."
    ),
    case=_joint,
    solution=_forgotten,
    hints=(
        "Compare the best last term with the long context and with the short one.",
        "I((z_0,z_1); z_2) - I(z_1; z_2), by the chain rule of the mutual information.",
        "rpm.mutual_information(q.flatten(0, 1)) - rpm.mutual_information(q.sum(0))",
    ),
    misconceptions={
        lambda q: objectives.mutual_information(q.sum(1)): (
            "that is I(z_0; z_2), which counts what z_1 would have told as well; condition on z_1."
        ),
        lambda q: objectives.mutual_information(
            q.flatten(0, 1)
        ): "that is all the context tells; z_1 alone tells some of it.",
        lambda q: (
            -_forgotten(q)
        ): "a loss is asked for, and it is not negative: the longer context tells at least as much.",
    },
)

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
