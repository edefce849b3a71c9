"""Exercises of lesson 4: the log probability of each pair, and how many pairs a large InfoNCE needs."""

import math

import torch

from . import Exercise


def _scores(seed: int) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(7, 7, generator=generator, dtype=torch.float64),)


def _nothing(_seed: int) -> tuple:
    return ()


log_p = Exercise(
    prompt="Return log P(x_i,x'_i) of each pair, shape (N,), from the table log_f of shape (N, N). Source: (E14).",
    case=_scores,
    solution=lambda log_f: log_f.log_softmax(1).diagonal() - math.log(len(log_f)),
    hints=(
        "First the conditional: how probable is x'_i among all N candidates, given x_i?",
        "P(x'_j|x_i) is a softmax over row i; P(x_i) = 1/N.",
        "log_f.log_softmax(1).diagonal() - log N",
    ),
    misconceptions={
        lambda log_f: log_f.log_softmax(1).diagonal(): "that is log P(x'_i|x_i); the pair also needs P(x_i) = 1/N.",
        lambda log_f: log_f.log_softmax(0).diagonal() - math.log(len(log_f)): (
            "you normalised over columns: that is the model with the prior normalised over z."
        ),
        lambda log_f: log_f.flatten().log_softmax(0).view_as(log_f).diagonal(): (
            "one softmax over the whole table is the jointly normalised prior (E9), not InfoNCE's."
        ),
    },
)

pairs_needed = Exercise(
    prompt="Return the smallest number of pairs N on which InfoNCE can reach 5 nats.",
    case=_nothing,
    solution=lambda: math.ceil(math.exp(5)),
    hints=(
        "Which bound on InfoNCE depends on N?",
        "log N must be at least 5.",
        "N is a whole number: math.ceil(math.exp(5)).",
    ),
    misconceptions={
        lambda: math.exp(5): "N counts pairs: it is a whole number, the next one up.",
        lambda: math.floor(math.exp(5)): "one pair too few: log 148 is just below 5.",
        lambda: 32: "2^5 would be right in bits; the ceiling of 5 nats needs e^5.",
    },
)
