"""Lesson 10. Its widget: how much of its velocity a prior expects a ball to keep, and what that earns.

Its exercises: a chain of InfoNCE terms, what a short context forgets, and a context that keeps the acceleration.
"""

import dataclasses
from dataclasses import dataclass

from torch import Tensor

from ... import objectives
from ..exercise import Exercise, normal
from ..figures import Figure
from ..widgets import slider
from ._moving import SEQUENCES, expectation, in_the_plane, worth


@dataclass(frozen=True)
class MomentumState:
    momentum: float = slider(0.0, -0.5, 1.5, 0.25, "momentum m")
    sequence: int = slider(0, 0, SEQUENCES - 1, 1, "sequence")


def momentum(z: Tensor, position: Tensor):
    """Lesson 10: the render function for these latents: where the context z_1 + m (z_1 - z_0) expects frame 2.

    `z` and `position`, each (n, 3, 2), are latents and true positions of three frames. Raises `ValueError` for other shapes,
    and for fewer than the 20 sequences that its slider offers.
    """
    path = in_the_plane(z, position, frames=3)
    expected = {
        m: path[:, 1] + m * (path[:, 1] - path[:, 0]) for m in dataclasses.fields(MomentumState)[0].metadata["values"]
    }
    deviation = {m: (path[:, 2] - centre).square().mean().sqrt().item() for m, centre in expected.items()}
    nats = {m: worth(centre, path[:, 2], deviation[m]) for m, centre in expected.items()}
    best = max(nats, key=nats.__getitem__)

    def render(state: MomentumState) -> Figure:
        m, i = state.momentum, state.sequence
        caption = (
            f"Sequence {i}. With m = {m:g} the prior expects frame 2 at the diamond, give or take {deviation[m]:.3f} sides in each "
            f"direction, and is worth {nats[m]:.2f} nats a sequence (InfoNCE over {len(z)} candidates). The most on this "
            f"slider is {nats[best]:.2f}, at m = {best:g}."
        )
        return expectation(path[i], position[i], 2, expected[m][i], deviation[m], caption)

    return render


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


acceleration = Exercise(
    prompt=(
        "Return the context c(z_0,z_1,z_2), shape (n, d), from which z_3 is expected if the acceleration stays: the change of "
        "the velocity is what it was. z_0, z_1 and z_2 have shape (n, d)."
    ),
    case=lambda seed: tuple(normal(300 + seed, 3, 5, 2)),
    solution=lambda z_0, z_1, z_2: z_0 - 3 * z_1 + 3 * z_2,
    hints=(
        "The last velocity is z_2 - z_1, the one before it z_1 - z_0; their difference is the acceleration.",
        "The next velocity is the last one plus the acceleration; the next position is z_2 plus the next velocity.",
        "z_2 + 2 * (z_2 - z_1) - (z_1 - z_0)",
    ),
    misconceptions={
        lambda z_0, z_1, z_2: 2 * z_2 - z_1: "that keeps the velocity; the acceleration is then taken to be zero.",
        lambda z_0, z_1, z_2: z_2 - 2 * z_1 + z_0: "that is the acceleration; asked for is where it leads.",
        lambda z_0, z_1, z_2: z_2 + (z_2 - z_1) + (z_2 - 2 * z_1 + z_0) / 2: (
            "between frames the velocity is a difference, which changes by the whole acceleration, not by half of it."
        ),
        lambda z_0, z_1, z_2: -z_0 + 2 * z_1: "that leads from frames 0 and 1 to frame 2, which you already have.",
    },
)
