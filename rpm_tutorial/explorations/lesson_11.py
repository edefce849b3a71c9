"""Lesson 11: what a concentration on the circle expects, and what it earns."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..critics import VonMisesFisher
from ..evidence import dataset_evidence
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
