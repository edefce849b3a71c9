"""Lesson 16. Its widget: what a concentration on the circle expects, and what it earns.

Its exercises: two priors of one's own.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...critics import VonMisesFisher
from ...evidence import dataset_evidence
from ..exercise import Exercise, normal
from ..figures import BLACK, BLUE, GREY, PURPLE, STYLES, VERMILLION, Figure
from ..figures.charts import house_figure, panes, three_digits
from ..widgets import choice, slider


@dataclass(frozen=True)
class ConcentrationState:
    kappa: int = slider(11, 1, 40, 1, "concentration κ")
    code: str = choice(["wound once", "folded"], "the code")
    pair: int = slider(0, 0, 19, 1, "pair")


def concentration(codes: dict[str, tuple[Tensor, Tensor]]):
    """Lesson 16: the render function for two encoders' pairs: P(x′|x) on the circle, and what each κ earns.

    `codes` has "wound once" and "folded", each (z, z′) of shape (N, 2) with N at least 20, of which the direction counts.
    """
    kappas = np.arange(1.0, 41.0)
    with torch.no_grad():
        evidence = {
            name: [dataset_evidence(z, z_prime, VonMisesFisher(1 / k).to(z)).infonce.item() for k in kappas]
            for name, (z, z_prime) in codes.items()
        }

    def render(state: ConcentrationState) -> Figure:
        z, z_prime = codes[state.code]
        with torch.no_grad():
            p = VonMisesFisher(1 / state.kappa).to(z)(z[[state.pair]], z_prime).softmax(1)[0]
        value, best = evidence[state.code][state.kappa - 1], max(evidence[state.code])
        caption = (
            f"Blue: the z′ of {len(z)} held-out frames, as large as P(x′|x) for the frame at the star; its true next "
            f"frame is the diamond, with P = {p[state.pair]:.4f}. At κ = {state.kappa:g} the code that is "
            f"{state.code} earns {value:.2f} nats; its best κ would earn {best:.2f}."
        )
        return _circle(
            _directions(z_prime), p.double().numpy(), _directions(z)[state.pair], state, kappas, evidence, caption
        )

    return render


def _directions(z: Tensor) -> np.ndarray:
    return torch.atan2(z[:, 1], z[:, 0]).double().numpy()


def _circle(angles, p, own: float, state: ConcentrationState, kappas, evidence: dict, caption: str) -> Figure:
    """Left, candidates on the unit circle, as large as their probability; right, curves of evidence against κ."""
    fig, turn = house_figure(**panes(("", ""), 0.16)), np.linspace(0, 2 * np.pi, 91)
    fig.update_layout(width=900, height=420, margin={"r": 120})
    fig.add_scatter(
        x=np.cos(turn).tolist(), y=np.sin(turn).tolist(), mode="lines", line={"color": GREY, "width": 1}, showlegend=False,
    )  # fmt: skip
    fig.add_scatter(
        x=np.cos(angles).tolist(), y=np.sin(angles).tolist(), mode="markers", showlegend=False,
        marker={"color": BLUE, "opacity": 0.5, "size": (2 + 22 * np.sqrt(p / p.max())).tolist()},
    )  # fmt: skip
    for name, angle, radius, color, symbol in (
        ("z", own, 0.72, BLACK, "star"),
        ("z′", angles[state.pair], 1.22, VERMILLION, "diamond-open"),
    ):
        fig.add_scatter(
            x=[radius * np.cos(angle)], y=[radius * np.sin(angle)], mode="markers+text", text=[name], showlegend=False,
            textposition="middle right", textfont={"color": color}, marker={"color": color, "symbol": symbol, "size": 11},
        )  # fmt: skip
    for (name, values), color, dash in zip(evidence.items(), (PURPLE, GREY), ("solid", "dash")):
        fig.add_scatter(
            x=kappas.tolist(), y=values, mode="lines", line={"color": color, "dash": dash, "width": 2.5}, xaxis="x2", yaxis="y2",
            name=name, showlegend=False,
        )  # fmt: skip
        fig.add_annotation(
            x=kappas[-1], y=values[-1], text=name, xref="x2", yref="y2", xanchor="left", xshift=6, showarrow=False,
            font={"color": color},
        )  # fmt: skip
    fig.add_vline(state.kappa, line={"color": STYLES["log N"].color, "dash": "dot"}, row=None, col=None, xref="x2")
    ring = {"range": [-1.5, 1.5], "dtick": 1}
    fig.layout.xaxis.update(title="cos θ", **ring)
    fig.layout.yaxis.update(title="sin θ", scaleanchor="x", **ring)
    fig.layout.xaxis2.title, fig.layout.yaxis2.title = "concentration κ", "held-out InfoNCE (nats per pair)"
    best = "; ".join(
        f"{name}, highest {three_digits(np.max(values))} at κ = {kappas[np.argmax(values)]:g}"
        for name, values in evidence.items()
    )
    alt = (
        f"Left, {len(angles)} candidates on a circle, {np.sum(p > p.max() / 2)} of them at least half as probable as the "
        f"likeliest. Right, held-out InfoNCE against κ: {best}."
    )
    return Figure(fig, caption, alt, ["κ", *evidence], [list(row) for row in zip(kappas.tolist(), *evidence.values())])


# Exercises


def _angles(seed: int) -> tuple:
    return *(3 * normal(seed, 9)).split([4, 5]), 2.0 + seed


periodic = Exercise(
    prompt=(
        "Return log f = kappa cos(theta - theta') for every pair of angles, shape (n, m), from theta of shape (n,) and "
        "theta_prime of shape (m,). Source: (E18)."
    ),
    case=_angles,
    solution=lambda theta, theta_prime, kappa: kappa * torch.cos(theta[:, None] - theta_prime),
    hints=(
        "A critic scores every z against every z': rows theta, columns theta'.",
        "theta[:, None] has shape (n, 1); with theta_prime it broadcasts to (n, m).",
        "kappa * torch.cos(theta[:, None] - theta_prime)",
    ),
    misconceptions={
        lambda theta, theta_prime, kappa: -kappa * (theta[:, None] - theta_prime) ** 2 / 2: (
            "that is a random walk on the line: at 0 and just below 2 pi it takes neighbours for strangers."
        ),
        lambda theta, theta_prime, kappa: kappa * torch.cos(theta[:, None] + theta_prime): (
            "cos(theta + theta') depends on where the zero of the angle lies; a step is a difference."
        ),
        lambda theta, theta_prime, kappa: torch.cos(kappa * (theta[:, None] - theta_prime)): (
            "kappa inside the cosine makes it repeat kappa times on the circle; outside, it says how small the steps are."
        ),
        lambda theta, theta_prime, kappa: torch.cos(theta[:, None] - theta_prime) / kappa: (
            "kappa multiplies: it is 1/temperature."
        ),
    },
)


def _series(seed: int) -> tuple:
    return *normal(seed, 9, 2).split([4, 5]), torch.tensor([0.4, -0.2 - seed]).double(), 0.5 + seed


drifting_walk = Exercise(
    prompt=(
        "Return log f of a Laplace walk that drifts, shape (n, m): z' is z + drift after a step of the given scale, "
        "log f = -|z + drift - z'|_1 / scale."
    ),
    case=_series,
    solution=lambda z, z_prime, drift, scale: -((z + drift)[:, None] - z_prime).abs().sum(2) / scale,
    hints=(
        "Move z by the drift first; what follows is the walk that you know.",
        "z[:, None] - z_prime has shape (n, m, d); sum the absolute values over the last dimension.",
        "-torch.cdist(z + drift, z_prime, p=1) / scale",
    ),
    misconceptions={
        lambda z, z_prime, drift, scale: -torch.cdist(z, z_prime + drift, p=1) / scale: (
            "this walk drifts backwards: adding the drift to z' takes it away from z."
        ),
        lambda z, z_prime, drift, scale: -torch.cdist(z, z_prime, p=1) / scale: "the drift is missing.",
        lambda z, z_prime, drift, scale: -(torch.cdist(z + drift, z_prime, p=2) ** 2) / (2 * scale**2): (
            "that is a Gaussian step; the Laplace walk takes the absolute value, which is what forgives a rare long step."
        ),
        lambda z, z_prime, drift, scale: -torch.cdist(z + drift, z_prime, p=1) * scale: (
            "the scale divides: a wider step makes a long way less surprising."
        ),
    },
)
