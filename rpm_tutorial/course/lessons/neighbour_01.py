"""Exercise of the neighbour InfoNCE-anchor: the critic without the factor that InfoNCE leaves free."""

import torch

from ..exercise import Exercise, normal


def _scores_and_joint(seed: int) -> tuple:
    return normal(seed, 3, 4 + seed), normal(100 + seed, 12 + 3 * seed).softmax(0).view(3, 4 + seed)


pinned = Exercise(
    prompt=(
        "Return the table log f, shape (n, m), of the same InfoNCE value as `log_f` (rows z) whose Z(z) is one for each z; "
        "`q_joint` is the table Q(z,z'). Source: (E7)."
    ),
    case=_scores_and_joint,
    solution=lambda log_f, q_joint: log_f - torch.logsumexp(log_f + q_joint.sum(0).log(), 1, keepdim=True),
    hints=(
        "Z(z) = E_{Q(z')} f is one number for each row; what has to be done to f so that it becomes one?",
        "log Z is torch.logsumexp of log_f + log Q(z') over z'; Q(z') is q_joint.sum(0).",
        "log_f - torch.logsumexp(log_f + q_joint.sum(0).log(), 1, keepdim=True)",
    ),
    misconceptions={
        lambda log_f, q_joint: log_f.log_softmax(1): (
            "the rows of f now sum to one; their mean under Q(z') has to be one."
        ),
        lambda log_f, q_joint: log_f - log_f.exp().mean(1, keepdim=True).log(): (
            "a plain mean over z': here the candidates are drawn from Q(z'), which is not uniform."
        ),
        lambda log_f, q_joint: log_f - torch.logsumexp(log_f + q_joint.sum(1, keepdim=True).log(), 0): (
            "that is the mean over z, for each z': InfoNCE normalises over z', each row by itself."
        ),
        lambda log_f, q_joint: (
            log_f - torch.logsumexp(log_f + torch.outer(q_joint.sum(1), q_joint.sum(0)).log(), (0, 1))
        ): "one number for the whole table is Donsker-Varadhan's normaliser; the free factor is another for each z.",
        lambda log_f, q_joint: (
            log_f.exp() / (log_f.exp() @ q_joint.sum(0))[:, None]
        ): "that is f; return its logarithm.",
    },
)
