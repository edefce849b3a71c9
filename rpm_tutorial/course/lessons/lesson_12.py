"""Lesson 12. Its widget: a ball that hides for some frames, where it may be meanwhile, and how sure the chain is.

Its data: the sunspots of three centuries, and films of a pendulum. Its exercises: how doubt grows while nothing is seen, and
what a frame adds to what the chain knew.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ... import datasets
from ...chain import Gaussian, GaussianChain
from ..exercise import Exercise
from ..figures import Figure, lines
from ..widgets import slider


@dataclass(frozen=True)
class HiddenState:
    first: int = slider(7, 1, 12, 1, "first hidden frame")
    hidden: int = slider(6, 0, 8, 1, "hidden", "frames")
    sequence: int = slider(0, 0, 19, 1, "sequence")


def hidden(chain: GaussianChain, recognition: Gaussian, to_row: Tensor, row: Tensor):
    """Lesson 12: the render function for one trained chain: the ball's row in each frame, with a band of 95 %.

    `recognition` is Q(u_t|x_t) of n sequences, `to_row` the k weights and the offset that lead from u_t to a row, `row` (n, T)
    the truth. Raises `ValueError` for fewer sequences or frames than the sliders offer.
    """
    if len(row) < 20 or row.shape[1] < 20 or row.shape != recognition.mean.shape[:2]:
        raise ValueError(
            f"row has shape {tuple(row.shape)} and the mean {tuple(recognition.mean.shape)}; expected (n, T) and (n, T, k) "
            "with n and T at least 20"
        )
    k, frames = recognition.mean.shape[2], row.shape[1]

    def render(state: HiddenState) -> Figure:
        i, last = state.sequence, state.first + state.hidden
        seen = torch.ones(1, frames, dtype=torch.bool)
        seen[:, state.first : last] = False
        with torch.no_grad():
            known = chain.smooth(Gaussian(*(part[i : i + 1] for part in recognition)), seen=seen)
        mean = known.mean[0, :, :k] @ to_row[:k] + to_row[k]
        half = 1.96 * (known.covariance[0, :, :k, :k] @ to_row[:k] @ to_row[:k]).sqrt()
        widest, inside = half.max().item(), ((row[i] - mean).abs() <= half).float().mean().item()
        gap = f"Frames {state.first} to {last - 1} were not seen" if state.hidden else "All frames were seen"
        return lines(
            range(frames),
            {"truth": row[i], "posterior mean": mean},
            band=(mean - half, mean + half),
            shade=("not seen", state.first - 0.5, last - 0.5) if state.hidden else None,
            x_label="frame",
            y_label="row of the ball (sides of the box)",
            caption=(
                f"{gap}: the band of 95 % is at most {2 * widest:.3f} sides wide, and the truth lies inside it in "
                f"{inside:.0%} of the frames."
            ),
        )

    return render


# Data: the sunspots of each year from 1700 to 2008, a mean over its days. In the public domain; source: NOAA's National
# Geophysical Data Center, as in statsmodels.

_NUMBERS = """
5 11 16 23 36 58 29 20 10 8 3 0 0 2 11 27 47 63 60 39 28 26 22 11 21 40 78 122 103 73 47 35 11 5 16 34 70 81 111
101 73 40 20 16 5 11 22 40 60 80.9 83.4 47.7 47.8 30.7 12.2 9.6 10.2 32.4 47.6 54 62.9 85.9 61.2 45.1 36.4 20.9
11.4 37.8 69.8 106.1 100.8 81.6 66.5 34.8 30.6 7 19.8 92.5 154.4 125.9 84.8 68.1 38.5 22.8 10.2 24.1 82.9 132
130.9 118.1 89.9 66.6 60 46.9 41 21.3 16 6.4 4.1 6.8 14.5 34 45 43.1 47.5 42.2 28.1 10.1 8.1 2.5 0 1.4 5 12.2 13.9
35.4 45.8 41.1 30.1 23.9 15.6 6.6 4 1.8 8.5 16.6 36.3 49.6 64.2 67 70.9 47.8 27.5 8.5 13.2 56.9 121.5 138.3 103.2
85.7 64.6 36.7 24.2 10.7 15 40.1 61.5 98.5 124.7 96.3 66.6 64.5 54.1 39 20.6 6.7 4.3 22.7 54.8 93.8 95.8 77.2 59.1
44 47 30.5 16.3 7.3 37.6 74 139 111.2 101.6 66.2 44.7 17 11.3 12.4 3.4 6 32.3 54.3 59.7 63.7 63.5 52.2 25.4 13.1
6.8 6.3 7.1 35.6 73 85.1 78 64 41.8 26.2 26.7 12.1 9.5 2.7 5 24.4 42 63.5 53.8 62 48.5 43.9 18.6 5.7 3.6 1.4 9.6
47.4 57.1 103.9 80.6 63.6 37.6 26.1 14.2 5.8 16.7 44.3 63.9 69 77.8 64.9 35.7 21.2 11.1 5.7 8.7 36.1 79.7 114.4
109.6 88.8 67.8 47.5 30.6 16.3 9.6 33.2 92.6 151.6 136.3 134.7 83.9 69.4 31.5 13.9 4.4 38 141.7 190.2 184.8 159
112.3 53.9 37.6 27.9 10.2 15.1 47 93.8 105.9 105.5 104.5 66.6 68.9 38 34.5 15.5 12.6 27.5 92.5 155.4 154.6 140.4
115.9 66.6 45.9 17.9 13.4 29.4 100.2 157.6 142.6 145.7 94.3 54.6 29.9 17.5 8.6 21.5 64.3 93.3 119.6 111 104 63.7
40.4 29.8 15.2 7.5 2.9
"""


def sunspots() -> Tensor:
    """The mean number of sunspots in each year from 1700 to 2008, shape (309,)."""
    return torch.tensor([float(number) for number in _NUMBERS.split()])


def pendulum(n: int, frames: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noisy frames (n, frames, 16, 16) of a pendulum's bob, and its states: sine, cosine and velocity, (n, frames, 3).

    A frame lasts 0.45 of the time in which a small swing turns by a radian, in four steps; velocity has that unit.
    """
    angle, velocity = 0.8 * torch.randn(2, n, generator=generator)
    states = []
    for t in range(4 * (frames + 10)):  # ten frames pass before the first
        velocity = velocity - 0.1125 * angle.sin() - 0.0125 * velocity + 0.12 * torch.randn(n, generator=generator)
        angle = angle + 0.1125 * velocity
        if t >= 40 and t % 4 == 0:
            states.append(torch.stack([angle.sin(), angle.cos(), velocity], 1))
    path = torch.stack(states, 1)
    x = datasets.render(0.5 + 0.4 * path[..., [1, 0]], 16)
    return x + 0.2 * torch.randn(x.shape, generator=generator), path


# Exercises

doubt = Exercise(
    prompt=(
        "Return the variance of z_k, if z_0 is known exactly and nothing is seen after it, in a chain of one dimension, "
        "z_{t+1} = a z_t + noise, that has unit variance at every t."
    ),
    case=lambda seed: (0.9 - 0.2 * seed, 2 + seed),
    solution=lambda a, k: 1 - a ** (2 * k),
    hints=(
        "What is the mean of z_k given z_0, and what is its variance over z_0?",
        "The mean a^k z_0 varies by a^(2k); the variance of z_k is one in all.",
        "1 - a ** (2 * k)",
    ),
    misconceptions={
        lambda a, k: 1 - a**k: "a^k multiplies the state; its variance is multiplied by the square.",
        lambda a, k: (
            k * (1 - a**2)
        ): "that is a random walk's; here what is old fades, and the doubt never exceeds one.",
        lambda a, k: a ** (2 * k): "that is what is still known; the doubt is what is left of one.",
        lambda a, k: 1 - a**2: "that is one step; k steps went by.",
    },
)

update = Exercise(
    prompt=(
        "Return the variance of z_t after frame t, if the chain expected z_t with variance p, Q(z_t|x_t) has variance v, and "
        "Q(z_t) is standard normal. Source: (E27)."
    ),
    case=lambda seed: (0.4 + 0.2 * seed, 0.3 - 0.1 * seed),
    solution=lambda p, v: 1 / (1 / p + 1 / v - 1),
    hints=(
        "The densities are multiplied and one is divided by; what happens to the inverses of their variances?",
        "Precisions add: the chain's 1/p, the recognition's 1/v, less the reference's 1.",
        "1 / (1 / p + 1 / v - 1)",
    ),
    misconceptions={
        lambda p, v: 1 / (1 / p + 1 / v): (
            "you counted the prior's marginal twice: Q(z|x) has it inside already, so divide by Q(z)."
        ),
        lambda p, v: v: "that is the frame alone; the chain knew something too.",
        lambda p, v: p + v: "two sources of knowledge make the doubt smaller, not larger.",
        lambda p, v: p * v / (p + v - 2 * p * v) if p + v > 2 * p * v else v: (
            "the reference is divided by once, not twice."
        ),
    },
)
