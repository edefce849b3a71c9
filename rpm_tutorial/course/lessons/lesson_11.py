"""Lesson 11. Its widget: what a concentration on the circle expects, and what it earns.

Its exercises: two priors of one's own.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...critics import VonMisesFisher
from ...evidence import dataset_evidence
from ..exercise import Exercise, normal
from ..figures import Figure, circle
from ..widgets import choice, slider


@dataclass(frozen=True)
class ConcentrationState:
    kappa: int = slider(11, 1, 40, 1, "concentration κ")
    code: str = choice(["wound once", "folded"], "the code")
    pair: int = slider(0, 0, 19, 1, "pair")


def concentration(codes: dict[str, tuple[Tensor, Tensor]]):
    """Lesson 11: the render function for two encoders' pairs: P(x′|x) on the circle, and what each κ earns.

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
        angle, angle_prime = (torch.atan2(side[:, 1], side[:, 0]) for side in (z, z_prime))
        value, best = evidence[state.code][state.kappa - 1], max(evidence[state.code])
        return circle(
            angle_prime.numpy(),
            p.numpy(),
            own=angle[state.pair].item(),
            partner=angle_prime[state.pair].item(),
            kappas=kappas,
            evidence=evidence,
            mark=state.kappa,
            caption=(
                f"Blue: the z′ of {len(z)} held-out frames, as large as P(x′|x) for the frame at the star; its true next "
                f"frame is the diamond, with P = {p[state.pair]:.4f}. At κ = {state.kappa:g} the code that is "
                f"{state.code} earns {value:.2f} nats; its best κ would earn {best:.2f}."
            ),
        )

    return render


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
