"""Exercises of lesson 9: a chain of InfoNCE terms, what a short context forgets, and how noise grows with the horizon."""

import math

import torch

from .. import objectives
from . import Exercise


def _joint(seed: int) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(24, generator=generator, dtype=torch.float64).softmax(0).view(2, 3, 4),)


def _chain(seed: int) -> tuple:
    generator = torch.Generator().manual_seed(100 + seed)
    scores = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((2, 3), (2, 3, 4)))
    return *_joint(seed), *scores


def _last_term(q, log_f_1, log_f_2):
    return objectives.infonce(log_f_2.flatten(0, 1), q.flatten(0, 1)).value


chain = Exercise(
    prompt=(
        "Return L - C of a chain of three latents from q = Q(z_0,z_1,z_2), the scores log_f_1 of (z_0, z_1) and log_f_2 of "
        "(z_0, z_1, z_2), in which (z_0, z_1) is the context of z_2. Source: (E19)."
    ),
    case=_chain,
    solution=lambda q, log_f_1, log_f_2: objectives.infonce(log_f_1, q.sum(2)).value + _last_term(q, log_f_1, log_f_2),
    hints=(
        "One InfoNCE term for z_1 given z_0, one for z_2 given (z_0, z_1); the first latent has no context and adds nothing.",
        "A context is a row of a table: log_f_2.flatten(0, 1) has one row for each (z_0, z_1).",
        "rpm.infonce(log_f_1, q.sum(2)).value + rpm.infonce(log_f_2.flatten(0, 1), q.flatten(0, 1)).value",
    ),
    misconceptions={
        _last_term: "that is the last term alone; z_1 given z_0 has one as well.",
        lambda q, log_f_1, log_f_2: (
            (objectives.infonce(log_f_1, q.sum(2)).value + _last_term(q, log_f_1, log_f_2)) / 2
        ): "the terms add up: log P of a chain is a sum over time, not a mean.",
        lambda q, log_f_1, log_f_2: (
            objectives.infonce(log_f_1, q.sum(2)).value
            + objectives.donsker_varadhan(log_f_2.flatten(0, 1), q.flatten(0, 1)).value
        ): "each context needs a normaliser Z(c) of its own; yours has one for all contexts.",
    },
)


def _forgotten(q):
    return objectives.mutual_information(q.flatten(0, 1)) - objectives.mutual_information(q.sum(0))


forgotten = Exercise(
    prompt=(
        "Return what a chain loses, at its best, if the context of z_2 is z_1 alone: I(z_0; z_2 | z_1) in nats, from "
        "q = Q(z_0,z_1,z_2)."
    ),
    case=_joint,
    solution=_forgotten,
    hints=(
        "Compare the best last term with the long context and with the short one.",
        "I((z_0,z_1); z_2) - I(z_1; z_2), by the chain rule of the mutual information.",
        "rpm.mutual_information(q.flatten(0, 1)) - rpm.mutual_information(q.sum(0))",
    ),
    misconceptions={
        lambda q: objectives.mutual_information(q.sum(1)): (
            "that is I(z_0; z_2), which counts what z_1 would have told as well; condition on z_1."
        ),
        lambda q: objectives.mutual_information(
            q.flatten(0, 1)
        ): "that is all the context tells; z_1 alone tells some of it.",
        lambda q: (
            -_forgotten(q)
        ): "a loss is asked for, and it is not negative: the longer context tells at least as much.",
    },
)

noise = Exercise(
    prompt=(
        "Return the standard deviation of z_{1+k} given z_0 and z_1, in each dimension, when "
        "z_{t+1} = 2 z_t - z_{t-1} + sigma * e_t with independent standard normal e_t."
    ),
    case=lambda seed: (0.01 * (1 + seed), 2 + seed),
    solution=lambda sigma, k: sigma * math.sqrt(k * (k + 1) * (2 * k + 1) / 6),
    hints=(
        "A push changes the velocity, and a velocity acts once for each step that is left.",
        "The push before the last frame counts once, the one before it twice, and so on up to k; variances add.",
        "sigma * sqrt(1 + 4 + ... + k^2)",
    ),
    misconceptions={
        lambda sigma, k: (
            sigma * math.sqrt(k)
        ): "that is a random walk's; here a push lasts, because it changes the velocity.",
        lambda sigma, k: sigma * k * (k + 1) / 2: "pushes are independent: their variances add, not their sizes.",
        lambda sigma, k: sigma * math.sqrt((k - 1) * k * (2 * k - 1) / 6): (
            "one push is missing: z_{1+k} is k steps after z_1, each with a push."
        ),
        lambda sigma, k: sigma * k: "that is the first push alone, the one with the most time to act.",
    },
)
