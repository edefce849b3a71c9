"""Lesson 10: twelve restarts of EM on digits, step by step."""

import math
from dataclasses import dataclass

from torch import Tensor

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
    from ..probes import match  # scikit-learn takes a second, and only this widget needs it

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
