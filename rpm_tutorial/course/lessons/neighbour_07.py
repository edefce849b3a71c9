"""Exercise of the neighbour N07: the success of a membership attack."""

import torch

from ..exercise import Exercise, normal


def _scores(seed: int) -> tuple:
    members, others = normal(seed, 2, 40)
    return members + 0.8, others


def _shares_above_each_score(members: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """For each threshold at a score, the share of members and of others that lie at it or above, shape (2, n)."""
    threshold = torch.cat([members, others])
    return torch.stack([(side >= threshold[:, None]).double().mean(1) for side in (members, others)])


def _success_of_best_threshold(members: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    members_found, others_found = _shares_above_each_score(members, others)
    return ((1 + members_found - others_found) / 2).max()


success = Exercise(
    prompt=(
        "Return the share of correct answers, members and others together, of the best threshold, from `members` and `others`, "
        "the scores of n each; a score at the threshold or above is called a member."
    ),
    case=_scores,
    solution=_success_of_best_threshold,
    hints=(
        "For one threshold: the mean of the share of members at or above it and of the share of others below it.",
        "It is enough to try the scores themselves: between two scores nothing changes.",
        "max(((members >= t).double().mean() + (others < t).double().mean()) / 2 for t in torch.cat([members, others]))",
    ),
    misconceptions={
        lambda members, others: (members[:, None] > others).double().mean(): (
            "that is the area under the ROC curve: how often a member scores above another."
        ),
        lambda members, others: (
            _shares_above_each_score(members, others)[0] - _shares_above_each_score(members, others)[1]
        ).max(): ("that is the advantage, the largest difference of the two shares; chance is 0 there, and 1/2 here."),
        lambda members, others: (
            ((members > 0).double().mean() + (others <= 0).double().mean()) / 2
        ): "0 is one threshold; the best one has to be looked for.",
        lambda members, others: (lambda t: ((members >= t).double().mean() + (others < t).double().mean()) / 2)(
            torch.cat([members, others]).median()
        ): "the median of all scores is one threshold; the best one has to be looked for.",
    },
)
