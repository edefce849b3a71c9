"""Lesson 4. Its widget: three priors and the mutual information.

Its exercises: the level that NWJ asks for, and a bug in CLIP's objective.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from ... import objectives
from ..._log_space import log
from ...finite import FiniteRPM
from ..exercise import Exercise, normal
from ..figures import Figure, lines
from ..widgets import choice, slider

RING = FiniteRPM.ring(coupling=3.0, sharpness=3.0)  # the lesson's world


@dataclass(frozen=True)
class PriorState:
    # first: what the lesson asks, without a kernel too
    offset: float = slider(0.5, 0, 2, 0.25, "offset t of the critic")
    kappa: float = slider(1.5, 0, 3, 0.25, "trust κ in the density ratio")
    prior: str = choice(["InfoNCE", "DV", "NWJ"], "prior")


OBJECTIVE_OF = {"InfoNCE": objectives.infonce, "DV": objectives.donsker_varadhan, "NWJ": objectives.nwj}
KAPPAS = np.linspace(0, 3, 31)


def prior_choice(state: PriorState) -> Figure:
    """Lesson 4: MI, and L − C under three priors, for log f = 1 + κ log Q(z,z′)/Q(z)Q(z′) + c(z); the gap of one of them."""
    information, chosen = RING.mutual_information.item(), _elbo_above_c(state.prior, state.kappa, state.offset)
    return lines(
        KAPPAS,
        {name: _elbo_above_c_at_kappas(name, state.offset) for name in OBJECTIVE_OF},
        floor=-0.3,
        ceiling=("MI", information),
        mark=state.kappa,
        gap=(chosen, information),
        x_label="trust κ in the density ratio",
        y_label="L − C (nats per pair)",
        caption=(
            f"At κ = {state.kappa:g} and t = {state.offset:g} the {state.prior} prior gives L − C = {chosen:.4f} of "
            f"MI = {information:.4f} nats: it lies KL(Q‖P) = {information - chosen:.4f} nats from Q(z,z′): the bar."
        ),
    )


@cache
def _elbo_above_c_at_kappas(name: str, offset: float) -> list[float]:
    return [_elbo_above_c(name, kappa, offset) for kappa in KAPPAS]


def _elbo_above_c(name: str, kappa: float, offset: float) -> float:
    log_ratio = log(RING.q_joint) - log(RING.q_z)[:, None] - log(RING.q_z_prime)
    c = offset * torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64)
    return OBJECTIVE_OF[name](1 + kappa * log_ratio + c, RING.q_joint).value.item()


# Exercises


level = Exercise(
    prompt="Return the b for which NWJ of log_f + b equals DV of log_f; log_f and q_joint are (Z, Z'). Source: (E10).",
    case=lambda seed: (normal(seed, 3, 4), FiniteRPM.random(seed=seed).q_joint),
    solution=lambda log_f, q_joint: 1 - objectives.donsker_varadhan(log_f, q_joint).log_normaliser,
    hints=(
        "NWJ of s + b is E[s] + b minus the mean of exp(s + b) / e under Q(z)Q(z'). For which b is it largest?",
        "Set E[s] + b - exp(b - 1) Z equal to E[s] - log Z, where Z is the one normaliser of (E9).",
        "b = 1 - log Z, and Z = q_z @ f @ q_z_prime",
    ),
    misconceptions={
        lambda log_f, q_joint: -objectives.donsker_varadhan(log_f, q_joint).log_normaliser: (
            "with this b the mean of f is 1, and the table sums to 1/e: the prior of (E10) divides by e as well."
        ),
        lambda log_f, q_joint: objectives.donsker_varadhan(log_f, q_joint).log_normaliser - 1: (
            "the sign: this b raises scores that are too high already."
        ),
        lambda log_f, q_joint: 1 - objectives.infonce(log_f, q_joint).log_normaliser: (
            "you averaged log Z(z), InfoNCE's normaliser; here there is one for all z, inside the logarithm."
        ),
        lambda log_f, q_joint: 1 - log_f.exp().mean().log(): (
            "you gave all cells of the table the same weight; the mean is under Q(z)Q(z')."
        ),
        lambda log_f, q_joint: 1 - (q_joint * log_f.exp()).sum().log(): (
            "you averaged f over pairs that belong together; the normaliser averages over independent z and z'."
        ),
    },
)


def _clip(log_f):
    over_z_prime = log_f.log_softmax(1).diagonal().mean()
    over_z = log_f.log_softmax(0).diagonal().mean()
    return (over_z_prime + over_z) / 2 + math.log(len(log_f))


def _one_side_twice(log_f):
    over_z_prime = log_f.log_softmax(1).diagonal().mean()
    over_z = log_f.T.log_softmax(0).diagonal().mean()
    return (over_z_prime + over_z) / 2 + math.log(len(log_f))


clip = Exercise(
    prompt="Return the symmetric objective of a batch, in nats per pair, from log_f of shape (n, n). Source: (E12).",
    case=lambda seed: (normal(seed, 5 + seed, 5 + seed),),
    solution=_clip,
    hints=(
        "Try it on a small table and on its transpose. Which of the two terms differ?",
        "Which sums to one after .log_softmax(0).exp(): each row or each column? And of the transpose?",
        "Transposing and changing the axis undo each other: do one of the two.",
    ),
    misconceptions={
        _one_side_twice: (
            "transpose the table, which exchanges z and z', and the value changes; the mean of both directions would stay."
        ),
        lambda log_f: (log_f.log_softmax(1).diagonal().mean() + log_f.log_softmax(0).diagonal().mean()) / 2: (
            "log n is missing: a table of equal scores, which knows nothing, should give 0 nats."
        ),
        lambda log_f: math.log(len(log_f)) - _clip(log_f): (
            "that is the cross-entropy, the loss: log n minus the objective, which is to be large."
        ),
        lambda log_f: (
            log_f.log_softmax(0).diagonal().mean() + math.log(len(log_f))
        ): "now z is normalised over, but z' is not.",
        lambda log_f: (
            _clip(log_f) + math.log(len(log_f))
        ): "log n belongs to each direction, and the mean of two log n is one.",
    },
    with_bug=_one_side_twice,
)
