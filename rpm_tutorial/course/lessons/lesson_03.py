"""Lesson 3. Its widget: InfoNCE of a random walk on Gaussian pairs, below the mutual information by the prior's error.

Its exercises: InfoNCE from its definition, and the prior behind it.
"""

from dataclasses import dataclass

import numpy as np

from ... import gaussian, objectives, priors
from ...finite import FiniteRPM
from ..exercise import Exercise, normal
from ..figures import Figure, lines
from ..widgets import slider


@dataclass(frozen=True)
class WalkState:
    rho: float = slider(0.8, 0, 0.95, 0.05, "correlation ρ of z and z′")
    scale: float = slider(0.7, 0.3, 3, 0.1, "step σ of the walk")


SCALES = np.linspace(0.3, 3, 55)


def walk(state: WalkState) -> Figure:
    """Lesson 3: (E20) of the random walk against its step, the MI as a level line, the KL of (E8) as a bar."""
    information = gaussian.mutual_information(state.rho)
    curve = [gaussian.infonce_random_walk(state.rho, scale) for scale in SCALES]
    chosen, best = gaussian.infonce_random_walk(state.rho, state.scale), int(np.argmax(curve))
    return lines(
        SCALES,
        {"InfoNCE": curve},
        floor=-0.3,
        ceiling=("MI", information),
        mark=state.scale,
        gap=(chosen, information),
        x_label="step σ of the walk (standard deviations of z)",
        y_label="L − C (nats per pair)",
        caption=(
            f"At ρ = {state.rho:g} a walk of step {state.scale:g} gives InfoNCE = {chosen:.4f} of MI = {information:.4f} nats: it "
            f"lies KL(Q‖P) = {information - chosen:.4f} nats below, the bar. The best step drawn is {SCALES[best]:.2f}."
        ),
    )


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
