"""Exercises of lesson 15: what label smoothing assumes, and a likelihood from SigLIP's logits."""

import math

from torch import Tensor
from torch.nn import functional as F

from ..exercise import Exercise, normal


def _smoothed(log_f: Tensor, epsilon: float) -> Tensor:
    candidates = log_f.log_softmax(dim=1)
    return math.log(len(log_f)) + (1 - epsilon) * candidates.diagonal().mean() + epsilon * candidates.mean()


smoothed_infonce = Exercise(
    prompt="Return log B minus the cross-entropy with label smoothing epsilon, in nats, from log_f of shape (B, B).",
    case=lambda seed: (normal(seed, 4 + seed, 4 + seed), 0.1 + 0.1 * seed),
    solution=_smoothed,
    hints=(
        "Take log P of each column given the row: log_softmax over the columns. Two means of it are needed.",
        "The target is 1 - epsilon on the diagonal, and epsilon / B on every column, the diagonal among them.",
        "log B + (1 - epsilon) log_p.diagonal().mean() + epsilon log_p.mean()",
    ),
    misconceptions={
        lambda log_f, epsilon: (
            math.log(len(log_f)) + (1 - epsilon) * log_f.log_softmax(1).diagonal().mean()
        ): "the share epsilon of the target is missing: it lies on all columns.",
        lambda log_f, epsilon: (
            (1 - epsilon) * log_f.log_softmax(1).diagonal().mean() + epsilon * log_f.log_softmax(1).mean()
        ): "log B is missing: a loss of log B is worth 0 nats.",
        lambda log_f, epsilon: (
            math.log(len(log_f))
            + (1 - epsilon) * log_f.log_softmax(1).diagonal().mean()
            + epsilon * log_f.log_softmax(1).sum(1).mean()
        ): "epsilon is shared among the B columns: take the mean over them, not the sum.",
        lambda log_f, epsilon: (
            math.log(len(log_f))
            - (1 - epsilon) * log_f.log_softmax(1).diagonal().mean()
            - epsilon * log_f.log_softmax(1).mean()
        ): "the cross-entropy is minus the mean log probability, and it is subtracted: two signs.",
    },
)

own_column = Exercise(
    prompt="Return P(own column | row), shape (B,), of InfoNCE's model, from SigLIP's logits of shape (B, B).",
    case=lambda seed: (3 * normal(seed, 4 + seed, 4 + seed) - math.log(3 + seed),),
    solution=lambda logits: logits.softmax(1).diagonal(),
    hints=(
        "Up to a number for each row the logits are scores. What does InfoNCE's model do with a number for each row?",
        "It cancels: each row is normalised over its columns.",
        "the diagonal of logits.softmax(1)",
    ),
    misconceptions={
        lambda logits: logits.sigmoid().diagonal(): (
            "that is the probability of 'a pair', cell by cell; among B columns a row has to choose one: they sum to one."
        ),
        lambda logits: logits.softmax(0).diagonal(): (
            "you normalised over the rows: that chooses z for a given z'. Take dim=1."
        ),
        lambda logits: F.log_softmax(logits, 1).diagonal(): "that is its logarithm.",
        lambda logits: (logits + math.log(len(logits) - 1)).exp().diagonal() / len(logits): (
            "r / B needs a normaliser of exactly one; on a batch the rows don't sum to it."
        ),
    },
)
