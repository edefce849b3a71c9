"""The derivation from (E3) to (E5), a line at a time, each with its value on a finite model; and six ways to break it.

Each line is written out as a sum of its own, as far from the other lines' code as it can be: that they agree is the
theorem. A broken assumption makes exactly one line differ from the one before.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ._log_space import expectation, log
from .finite import FiniteRPM

ASSUMPTIONS: Mapping[str, str] = {
    "nothing": "all assumptions hold",
    "dependent": "z and z′ are drawn together, given x and x′, but scored as if drawn apart",
    "decoder": "P(x|z) is a decoder of its own, flatter than Bayes' rule (E2) makes it",
    "stale": "P(x|z) is made from a blurred copy of the encoder, not from the encoder that draws z",
    "constant": "C is computed for uniform observations, not for those that P_true has",
    "shuffled": "the pairs are shuffled: Q(z)Q(z′) stands where Q(z,z′) belongs",
    "aggregate": "a uniform distribution stands in (E2) where the aggregate posterior Q(z) belongs",
}


class Line(NamedTuple):
    """One line: its name, its equation in words and symbols, its value in nats, and its residual to the line before."""

    name: str
    equation: str
    value: Tensor
    residual: Tensor


EQUATIONS: Mapping[str, str] = {
    "evidence − KL": "E log P(x,x′) − KL( Q(z,z′|x,x′) ‖ P(z,z′|x,x′) )",
    "(E3)": "E[ log P(z,z′) + log P(x|z) + log P(x′|z′) − log Q(z|x) − log Q(z′|x′) ]",
    "Bayes": "the same, with log P(x|z) = log Q(z|x) + log P_true(x) − log Q(z) put in",
    "cancel": "E[ log P(z,z′) + log P_true(x) − log Q(z) + log P_true(x′) − log Q(z′) ]",
    "constant": "E[ log P(z,z′) − log Q(z) − log Q(z′) ] + C",
    "(E4)": "Σ Q(z,z′) [ log P(z,z′) − log Q(z) − log Q(z′) ] + C",
    "(E5)": "I_Q(z;z′) − KL( Q(z,z′) ‖ P(z,z′) ) + C",
}


def derive(world: FiniteRPM, log_prior: Tensor, broken: str = "nothing") -> list[Line]:
    """The seven lines of `EQUATIONS` on this world and prior, with one of `ASSUMPTIONS` broken. Source: (E3), (E4), (E5).

    Args:
        log_prior: log P(z,z'), shape (Z, Z'), normalised.
        broken: a key of `ASSUMPTIONS`.
    Raises:
        ValueError: an unknown key; otherwise as `FiniteRPM.elbo`.
    """
    if broken not in ASSUMPTIONS:
        raise ValueError(f"broken is {broken!r}; expected one of {', '.join(ASSUMPTIONS)}")
    world.elbo(log_prior)  # refuses a prior that is none
    side, side_prime = (
        _Side(recognition, p_x, broken)
        for recognition, p_x in ((world.recognition, world.p_x), (world.recognition_prime, world.p_x_prime))
    )
    # All tables are broadcast to the four axes x, x', z, z'.
    log_r, log_r_prime = side.log_recognition[:, None, :, None], side_prime.log_recognition[None, :, None, :]
    log_model, log_model_prime = side.log_model[:, None, :, None], side_prime.log_model[None, :, None, :]
    log_p_x, log_p_x_prime = log(world.p_x)[:, None, None, None], log(world.p_x_prime)[None, :, None, None]
    log_q, log_q_prime = log(side.q_z)[None, None, :, None], log(side_prime.q_z)
    log_likelihood = side.log_likelihood[:, None, :, None]
    log_likelihood_prime = side_prime.log_likelihood[None, :, None, :]
    recognition = _together(world) if broken == "dependent" else (log_r + log_r_prime).exp()
    weights = world.p_true[:, :, None, None] * recognition

    joint = log_prior + log_likelihood + log_likelihood_prime  # log P(x,x',z,z')
    log_p = joint.flatten(2).logsumexp(2)
    posterior = joint - log_p[:, :, None, None]
    uniform = -torch.tensor(world.p_true.shape, dtype=world.p_true.dtype).log().sum()
    constant = uniform if broken == "constant" else world.constant
    q_joint = weights.sum((0, 1))
    if broken == "shuffled":
        q_joint = q_joint.sum(1)[:, None] * q_joint.sum(0)
    q_z, q_z_prime = q_joint.sum(1), q_joint.sum(0)
    information = expectation(log(q_joint) - log(q_z)[:, None] - log(q_z_prime), q_joint)
    divergence = expectation(log(q_joint) - log_prior, q_joint)

    bayes, bayes_prime = log_model + log_p_x - log_q, log_model_prime + log_p_x_prime - log_q_prime
    values = (
        expectation(log_p, world.p_true) - expectation(log(recognition) - posterior, weights),
        expectation(joint - log_r - log_r_prime, weights),
        expectation(log_prior + bayes + bayes_prime - log_r - log_r_prime, weights),
        expectation(log_prior + log_p_x - log_q + log_p_x_prime - log_q_prime, weights),
        expectation((log_prior - log_q - log_q_prime).expand_as(weights), weights) + constant,
        expectation(log_prior - log(side.q_z)[:, None] - log(side_prime.q_z), q_joint) + constant,
        information - divergence + constant,
    )
    residuals = [after - before for before, after in zip(values[:1] + values, values)]
    return [Line(name, text, *numbers) for (name, text), *numbers in zip(EQUATIONS.items(), values, residuals)]


class _Side:
    """One side of the model, x and z, with its own assumption broken: tables over (x, z), logarithms."""

    def __init__(self, recognition: Tensor, p_x: Tensor, broken: str):
        aggregate = recognition.T @ p_x
        model = (recognition + aggregate) / 2 if broken == "stale" else recognition  # has the same aggregate posterior
        self.q_z = torch.full_like(aggregate, 1 / len(aggregate)) if broken == "aggregate" else aggregate
        self.log_recognition, self.log_model = log(recognition), log(model)
        bayes = log(model * p_x[:, None]) - log(self.q_z).masked_fill(self.q_z == 0, 0)
        self.log_likelihood = (bayes / 2).log_softmax(0) if broken == "decoder" else bayes


def _together(world: FiniteRPM) -> Tensor:
    """Q(z,z'|x,x') of the same marginals in which z and z' rise together: the cells that one uniform number falls into."""
    high, high_prime = world.recognition.cumsum(1), world.recognition_prime.cumsum(1)
    low, low_prime = high - world.recognition, high_prime - world.recognition_prime
    top = torch.minimum(high[:, None, :, None], high_prime[None, :, None, :])
    bottom = torch.maximum(low[:, None, :, None], low_prime[None, :, None, :])
    return (top - bottom).clamp(min=0)
