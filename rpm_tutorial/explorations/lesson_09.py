"""Lesson 9: what a prior expects of a moving ball, k frames ahead."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..critics import RandomWalk
from ..evidence import dataset_evidence
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
    """Lesson 9: the render function for these latents: a sequence's latent and true path, and where a prior expects frame 1 + k.

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
