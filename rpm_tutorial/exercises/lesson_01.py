"""Exercises of lesson 1: a likelihood from an encoder, and the model's distribution over pairs."""

from ..finite import FiniteRPM
from . import Exercise


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
