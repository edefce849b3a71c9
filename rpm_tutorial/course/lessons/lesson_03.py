"""Lesson 3. Its widget: three priors and the mutual information.

Its exercises: InfoNCE from its definition, the prior behind it, and a bug in CLIP's objective.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from ... import objectives, priors
from ..._log_space import log
from ...finite import FiniteRPM
from ..exercise import Exercise, normal
from ..figures import Figure, lines
from ..widgets import choice, slider

RING = FiniteRPM.ring()  # the world of lessons 2 and 3


@dataclass(frozen=True)
class PriorState:
    # first: what the lesson asks, without a kernel too
    offset: float = slider(0.5, 0, 2, 0.25, "offset t of the critic")
    kappa: float = slider(1.5, 0, 3, 0.25, "trust κ in the density ratio")
    prior: str = choice(["InfoNCE", "DV", "NWJ"], "prior")


OBJECTIVE_OF = {"InfoNCE": objectives.infonce, "DV": objectives.donsker_varadhan, "NWJ": objectives.nwj}
KAPPAS = np.linspace(0, 3, 31)


def prior_choice(state: PriorState) -> Figure:
    """Lesson 3: MI, and L − C under three priors, for log f = 1 + κ log Q(z,z′)/Q(z)Q(z′) + c(z); the gap of one of them."""
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


def _scores(seed: int) -> tuple:
    return normal(seed, 3, 4), FiniteRPM.random(seed=seed).q_joint


def _uniform_candidates(log_f, q_joint):
    return (q_joint * log_f).sum() - (q_joint.sum(1) * log_f.exp().mean(1).log()).sum()


infonce = Exercise(
    prompt="Return I_inf = E_Q(z,z')[s] - E_Q(z)[log E_Q(z')[f]] from log_f and q_joint, both of shape (Z, Z'). Source: (E7).",
    case=_scores,
    solution=lambda log_f, q_joint: objectives.infonce(log_f, q_joint).value,
    hints=(
        "Two terms: a score under Q(z,z'), and a normaliser that is first averaged over z', then logged, then averaged over z.",
        "Z(z) = sum over z' of Q(z') f(z,z'), shape (Z,): a matrix-vector product.",
        "(q_joint * log_f).sum() - (q_z * (log_f.exp() @ q_z_prime).log()).sum()",
    ),
    misconceptions={
        lambda log_f, q_joint: objectives.infonce(log_f.T, q_joint.T).value: (
            "you normalised over z. The prior of (E7) is P(z'|z): Z(z) averages over z'."
        ),
        lambda log_f, q_joint: objectives.donsker_varadhan(log_f, q_joint).value: (
            "you took one normaliser for all z, outside the average over z: that is Donsker-Varadhan (E9)."
        ),
        _uniform_candidates: "you gave all z' the same weight; the candidates come from Q(z').",
        lambda log_f, q_joint: (q_joint * log_f).sum() - (q_joint.sum(1) * (log_f @ q_joint.sum(0))).sum(): (
            "you averaged s instead of f: log E f, not E log f."
        ),
    },
)

prior = Exercise(
    prompt="Return the InfoNCE prior P(z,z') = Q(z) Q(z') f(z,z') / Z(z), shape (Z, Z'). Source: (E7).",
    case=_scores,
    solution=lambda log_f, q_joint: priors.infonce(log_f, q_joint).exp(),
    hints=(
        "Check your answer yourself: its rows must sum to Q(z).",
        "Weight f by Q(z'), divide each row by its sum, multiply each row by Q(z).",
        "w = log_f.exp() * q_joint.sum(0); then q_joint.sum(1)[:, None] * w / w.sum(1, keepdim=True)",
    ),
    misconceptions={
        lambda log_f, q_joint: q_joint.sum(1)[:, None] * log_f.softmax(1): (
            "a plain softmax forgets Q(z'): the prior reweights the aggregate posterior, it does not replace it."
        ),
        lambda log_f, q_joint: priors.donsker_varadhan(log_f, q_joint).exp(): (
            "you divided by one Z for the whole table; then P(z) is no longer Q(z)."
        ),
        lambda log_f, q_joint: priors.infonce(log_f, q_joint).exp() / q_joint.sum(1)[:, None]: (
            "that is P(z'|z); the prior is over both, so multiply by P(z) = Q(z)."
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
