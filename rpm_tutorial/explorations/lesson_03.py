"""Lesson 3: three priors and the mutual information."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from .. import objectives
from .._log_space import log
from ..figures import Figure, lines
from ..finite import FiniteRPM
from ..widgets import choice, slider

RING = FiniteRPM.ring()  # the world of lessons 2 and 3


@dataclass(frozen=True)
class PriorState:
    kappa: float = slider(1.5, 0, 3, 0.25, "trust κ in the density ratio")
    offset: float = slider(0.5, 0, 2, 0.25, "offset t of the critic")
    prior: str = choice(["InfoNCE", "DV", "NWJ"], "prior")


OBJECTIVE_OF = {"InfoNCE": objectives.infonce, "DV": objectives.donsker_varadhan, "NWJ": objectives.nwj}
KAPPAS = np.linspace(0, 3, 31)


def prior_choice(state: PriorState) -> Figure:
    """Lesson 3: MI, and L − C under three priors, for log f = 1 + κ log Q(z,z′)/Q(z)Q(z′) + c(z); the gap of one of them."""
    information, chosen = RING.mutual_information.item(), _value(state.prior, state.kappa, state.offset)
    return lines(
        KAPPAS,
        {name: _curve(name, state.offset) for name in OBJECTIVE_OF},
        floor=-0.3,
        ceiling=("MI", information),
        mark=state.kappa,
        gap=(chosen, information),
        x_label="trust κ in the density ratio",
        y_label="L − C (nats per pair)",
        caption=(
            f"At κ = {state.kappa:g} the {state.prior} prior gives L − C = {chosen:.4f} of MI = {information:.4f} nats: "
            f"it lies KL(Q‖P) = {information - chosen:.4f} nats from Q(z,z′): the bar."
        ),
    )


@cache
def _curve(name: str, offset: float) -> list[float]:
    return [_value(name, kappa, offset) for kappa in KAPPAS]


def _value(name: str, kappa: float, offset: float) -> float:
    log_ratio = log(RING.q_joint) - log(RING.q_z)[:, None] - log(RING.q_z_prime)
    c = offset * torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64)
    return OBJECTIVE_OF[name](1 + kappa * log_ratio + c, RING.q_joint).value.item()
