"""Exercise of the neighbour N03: a one-tailed test against the other clients, summed over rounds."""

import torch

from ..exercise import Exercise, normal


def _standardised(target: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    return (target - others.mean(1)) / others.std(1)


score = Exercise(
    prompt=(
        "Return the sum over rounds of Phi((target - mean) / sd), shape (n,), with mean and sd over the other clients (divided by "
        "clients - 1), from target (rounds, n) and others (rounds, clients, n)."
    ),
    case=lambda seed: (normal(seed, 4 + seed, 6) + 1, normal(100 + seed, 4 + seed, 5, 6) + 0.5),
    solution=lambda target, others: torch.special.ndtr(_standardised(target, others)).sum(0),
    hints=(
        "Each round and candidate has a Gaussian of its own: over which axis of others does its mean run?",
        "torch.special.ndtr is Phi; axis 1 of others are the clients, axis 0 the rounds.",
        "torch.special.ndtr((target - others.mean(1)) / others.std(1)).sum(0)",
    ),
    misconceptions={
        lambda target, others: _standardised(target, others).sum(0): (
            "that adds the standardised statistics; one wild round would outvote all the others, which is why Phi stands there."
        ),
        lambda target, others: torch.special.ndtr((target - others.mean(1)) / others.std(1, correction=0)).sum(0): (
            "your sd is divided by the number of clients; it is to be divided by clients - 1."
        ),
        lambda target, others: (2 * torch.special.ndtr(_standardised(target, others).abs()) - 1).sum(0): (
            "that test has two tails: a member's statistic is higher, never lower."
        ),
        lambda target, others: (1 - torch.special.ndtr(_standardised(target, others))).sum(0): (
            "that is the upper tail, which is small for members; a score should be high for them."
        ),
        lambda target, others: torch.special.ndtr(
            (lambda every: (target - every.mean(1)) / every.std(1))(torch.cat([target[:, None], others], 1))
        ).sum(0): "the target is part of your Gaussian; fit it on the other clients alone.",
        lambda target, others: torch.special.ndtr((target - others.mean((0, 1))) / others.flatten(0, 1).std(0)).sum(
            0
        ): "one Gaussian for all rounds; the model changes, so each round needs its own.",
    },
)
