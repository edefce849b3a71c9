"""Lesson 12. Its widget: a ball that hides for some frames, where it may be meanwhile, and how sure the chain is.

Its exercises: how doubt grows while nothing is seen, and what a frame adds to what the chain knew.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

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
        gap = f"Frames {state.first} to {last - 1} were not seen" if last > state.first else "All frames were seen"
        return lines(
            range(frames),
            {"truth": row[i], "posterior mean": mean, "upper end": mean + half, "lower end": mean - half},
            x_label="frame",
            y_label="row of the ball (sides of the box)",
            caption=(
                f"{gap}: the band of 95 % is at most {2 * widest:.3f} sides wide, and the truth lies inside it in "
                f"{inside:.0%} of the frames."
            ),
        )

    return render


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
