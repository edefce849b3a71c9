"""Lesson 14. Its widget: twelve restarts of EM on digits, step by step.

Its exercises: what the ELBO of untied latents pays an encoder that knows nothing, and one that knows all.
"""

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..exercise import Exercise
from ..figures import BLUE, GREY, STYLES, Figure
from ..figures.charts import house_figure, panes, three_digits
from ..widgets import choice, slider


@dataclass(frozen=True)
class RestartState:
    step: int = slider(200, 0, 200, 10, "EM steps")
    rank: int = choice({str(k): k for k in range(1, 13)}, "restart, by final evidence")


def restarts(evidence: Tensor, counts: Tensor):
    """Lesson 14: the render function for twelve restarts of EM, seen every 10 steps: the categories, and the evidence so far.

    `evidence` holds log evidence - C in nats per pair, shape (21, 12); `counts` the images of each class (row) in each
    category, shape (21, 12, k, k). Raises `ValueError` for other shapes.
    """
    from ...probes import match  # scikit-learn takes a second, and only this widget needs it

    if evidence.shape != (21, 12) or counts.shape[:2] != (21, 12):
        raise ValueError(
            f"evidence has shape {tuple(evidence.shape)} and counts {tuple(counts.shape)}; expected (21, 12) and (21, 12, k, k)"
        )
    order, k = evidence[-1].argsort(descending=True), counts.shape[-1]

    def render(state: RestartState) -> Figure:
        now, run = state.step // 10, int(order[state.rank - 1])
        table = counts[now, run][:, match(counts[-1, run])]  # categories keep their places along the path
        agreed = counts[now, run][:, match(counts[now, run])].trace() / counts[now, run].sum()
        caption = (
            f"Restart {state.rank} of 12 after {state.step} steps: {evidence[now, run]:.3f} of log {k} = "
            f"{math.log(k):.3f} nats; categories matched with classes one to one agree with {agreed:.1%} of the labels."
        )
        return _clusters(table.numpy(), evidence.T.double().numpy(), run, now + 1, caption)

    return render


def _clusters(counts: np.ndarray, curves: np.ndarray, chosen: int, shown: int, caption: str) -> Figure:
    """Left, the share of each class in each category; right, the evidence of all runs, of one the first values in black."""
    shares, ceiling = counts / np.maximum(counts.sum(1, keepdims=True), 1), math.log(len(counts))
    steps, style, y_label = np.arange(0.0, 201, 10), STYLES["log evidence − C"], "log evidence − C (nats per pair)"
    fig = house_figure(**panes(("share of a class in each category", "all runs, one of them so far"), 0.16))
    fig.update_layout(width=900, height=400, showlegend=False)
    fig.add_heatmap(
        z=shares, zmin=0, zmax=1, colorscale=[[0, "#FFFFFF"], [1, BLUE]], showscale=False,
        texttemplate="%{z:.1f}", hovertemplate="class %{y}, category %{x}: %{z:.3f}<extra></extra>",
    )  # fmt: skip
    fig.layout.xaxis.update(title="category", dtick=1)
    fig.layout.yaxis.update(title="class", dtick=1, autorange="reversed")
    right = {"xaxis": "x2", "yaxis": "y2"}
    for curve in curves:
        fig.add_scatter(x=steps, y=curve, mode="lines", line={"color": "#BBBBBB", "width": 1}, **right)
    fig.add_scatter(
        x=steps[:shown], y=curves[chosen][:shown], mode="lines+markers", line={"color": style.color, "width": 2.5},
        marker={"symbol": style.symbol, "line": {"color": style.color, "width": 2}}, **right,
    )  # fmt: skip
    level = {"x0": 0.0, "x1": 200.0, "y0": ceiling, "y1": ceiling, "xref": "x2", "yref": "y2"}
    fig.add_shape(type="line", line={"color": GREY, "dash": "dash"}, **level)
    fig.layout.xaxis2.title = "EM steps"
    fig.layout.yaxis2.update(title=y_label, range=[min(0, curves.min()) - 0.05, 1.05 * max(ceiling, curves.max())])
    split = ", ".join(f"{k} {three_digits(row.max())} in {row.argmax()}" for k, row in enumerate(shares))
    now, ends = curves[chosen][:shown], curves[:, -1]
    first, last, low, high, top = map(three_digits, (now[0], now[-1], ends.min(), ends.max(), ceiling))
    alt = (
        f"Left, the largest share of each class and its category: {split}. Right, {y_label} against EM steps: the chosen run "
        f"from {first} to {last} at {steps[shown - 1]:g}; at the end all {len(curves)} runs lie between {low} and {high}, the "
        f"ceiling at {top}."
    )
    columns = ["class", *(f"category {k}" for k in range(counts.shape[1]))]
    return Figure(fig, caption, alt, columns, [[k, *map(int, row)] for k, row in enumerate(counts)])


# Exercises


def _sticky(seed: int) -> tuple:
    return 1.0 + seed, 10 - 3 * seed


knows_nothing = Exercise(
    prompt=(
        "Return L - C = E[log f] - E log Z(z) for log f = beta [z = z'] when z and z' are independent and each of the k categories "
        "has probability 1/k. Source: (E7)."
    ),
    case=_sticky,
    solution=lambda beta, k: beta / k - math.log1p((math.exp(beta) - 1) / k),
    hints=(
        "Two independent draws agree in one pair of k; what does Z(z) average over?",
        "E[log f] = beta / k; Z(z) = sum over z' of f(z,z') / k: one term e^beta, and k - 1 terms 1.",
        "beta / k - math.log((math.exp(beta) + k - 1) / k)",
    ),
    misconceptions={
        lambda beta, k: beta - math.log1p((math.exp(beta) - 1) / k): (
            "that is the encoder that leaves no doubt: there z = z' in every pair, here in one of k."
        ),
        lambda beta, k: 0.0: (
            "that is its log evidence less C. The ELBO lies below it: it takes the mean of log f, and by Jensen's inequality that "
            "is less than the logarithm of the mean."
        ),
        lambda beta, k: beta / k - math.log(math.exp(beta) + k - 1): (
            "you summed over candidates; Z(z) is a mean under Q(z'), so a constant code would be at 0."
        ),
        lambda beta, k: beta / k - math.log1p(math.exp(beta) / k): (
            "z = z' is one of the k terms of Z(z): k - 1 are left over."
        ),
        lambda beta, k: beta / k: "the score alone; subtract the normaliser.",
    },
)

found_all = Exercise(
    prompt=(
        "Return L - C = E[log f] - E log Z(z) for log f = beta [z = z'] when Q(z,z') has 1/k on each of the k diagonal cells and "
        "nothing elsewhere. Source: (E7)."
    ),
    case=_sticky,
    solution=lambda beta, k: beta - math.log1p((math.exp(beta) - 1) / k),
    hints=(
        "z = z' in every pair, so the score is beta; what does Z(z) average over?",
        "Z(z) = sum over z' of f(z,z') / k: one term e^beta, and k - 1 terms 1.",
        "beta - math.log((math.exp(beta) + k - 1) / k)",
    ),
    misconceptions={
        lambda beta, k: math.log(
            k
        ): "log k is the mutual information, the limit of a large beta; at this one KL(Q||P) is left.",
        lambda beta, k: (
            beta - math.log1p(math.exp(beta) / k)
        ): "z = z' is one of the k terms of Z(z): k - 1 are left over.",
        lambda beta, k: beta - math.log(math.exp(beta) + k - 1): (
            "you summed over candidates; Z(z) is a mean under Q(z'), so a constant code would be at 0."
        ),
        lambda beta, k: beta / k - math.log1p((math.exp(beta) - 1) / k): (
            "that is the encoder that knows nothing: there z = z' in one pair of k only."
        ),
        lambda beta, k: beta: "the score alone; subtract the normaliser.",
    },
)
