"""Lesson 1. Its widget: a finite world, its likelihood, and what the model makes of the data.

Its exercises: a likelihood from an encoder, and the model's distribution over pairs.
"""

from dataclasses import dataclass

from ... import priors
from ..._log_space import expectation, log
from ...finite import FiniteRPM
from ..exercise import Exercise
from ..figures import Figure, tables
from ..widgets import slider


@dataclass(frozen=True)
class WorldState:
    sharpness: float = slider(2.0, 0, 8, 0.5, "sharpness of the encoder")
    coupling: float = slider(2.0, 0, 6, 0.5, "coupling of x and x′")


def ring(state: WorldState) -> Figure:
    """Lesson 1: P(x|z) of a ring world, and the P(x,x′) of the model under the optimal prior, beside the data's."""
    world = FiniteRPM.ring(state.coupling, state.sharpness)
    model = world.log_p(priors.optimal(world.q_joint)).exp()
    distance = expectation(log(world.p_true) - log(model), world.p_true)
    return tables(
        {
            "P(x|z)": world.log_p_x_given_z.exp(),
            "P_true(x′|x)": world.p_true / world.p_x[:, None],
            "P(x′|x)": model / model.sum(1, keepdim=True),
        },
        x_label=("x", "x′", "x′"),
        y_label=("z", "x", "x"),
        caption=(
            f"Left: the likelihood that the encoder implies. Middle and right: x′ given x in the data and in the model, "
            f"which differ by KL = {distance:.3f} nats. A sharper encoder narrows P(x|z) and brings the two closer."
        ),
    )


# Exercises


def _one_side(seed: int) -> tuple:
    world = FiniteRPM.random(seed=seed)
    return world.recognition, world.p_x


def _latent_model(seed: int) -> tuple:
    world, other = FiniteRPM.random(seed=seed), FiniteRPM.random(seed=seed + 100)
    return other.q_joint, world.log_p_x_given_z.exp(), world.log_p_x_prime_given_z_prime.exp()


def _likelihood(recognition, p_x):
    joint = recognition.T * p_x
    return joint / joint.sum(1, keepdim=True)


likelihood = Exercise(
    prompt="Return P(x|z), shape (Z, X), from Q(z|x), shape (X, Z), and P_true(x), shape (X,). Source: (E2).",
    case=_one_side,
    solution=_likelihood,
    hints=(
        "Bayes' rule: what is the joint probability of x and z when x comes from the data and z from the encoder?",
        "P(x|z) = Q(z|x) P_true(x) / Q(z), where Q(z) = sum over x of Q(z|x) P_true(x).",
        "recognition.T has shape (Z, X); multiply by p_x, then divide each row by its sum.",
    ),
    misconceptions={
        lambda recognition, p_x: recognition.T: "that is the encoder itself; over x it does not sum to one.",
        lambda recognition, p_x: recognition.T / recognition.T.sum(1, keepdim=True): (
            "you treated all x as equally frequent; the data says P_true(x)."
        ),
        lambda recognition, p_x: (
            recognition.T * p_x
        ): "that is the joint P(x,z); a likelihood is given z, so divide by Q(z).",
    },
)

pairs = Exercise(
    prompt="Return P(x,x'), shape (X, X'), from P(z,z'), P(x|z), shape (Z, X), and P(x'|z'), shape (Z', X'). Source: (E1).",
    case=_latent_model,
    solution=lambda prior, p_x_given_z, p_x_prime_given_z_prime: p_x_given_z.T @ prior @ p_x_prime_given_z_prime,
    hints=(
        "Sum (E1) over what you do not observe.",
        "P(x,x') = sum over z and z' of P(z,z') P(x|z) P(x'|z').",
        "Two matrix products: (X, Z) @ (Z, Z') @ (Z', X').",
    ),
    misconceptions={
        lambda prior, a, b: (a.T @ prior.sum(1))[:, None] * (b.T @ prior.sum(0)): (
            "that is P(x)P(x'): you summed z and z' apart, and lost what connects them, the prior."
        ),
    },
)
