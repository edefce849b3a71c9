"""Exercise of neighbour 10, InfoMin: which of several pairs of views to train on."""

import torch

from ..exercise import Exercise


def _candidates(seed: int) -> tuple:
    """Eight pairs of views: 0 shares least, 7 most; 1 keeps the task on one side, 2 on the other, 3 and later on both."""
    needed = 1.5 + 0.25 * seed
    shared = torch.linspace(0.5, 4, 8, dtype=torch.float64)
    left, right = (torch.full((8,), needed, dtype=torch.float64) for _ in range(2))
    left[[0, 2]], right[[0, 1]] = 0.5 * needed, 0.6 * needed
    order = torch.randperm(8, generator=torch.Generator().manual_seed(seed))
    return shared[order], left[order], right[order], needed


def _chosen(shared, left, right, needed):
    enough = torch.minimum(left, right) >= needed - 1e-9
    return torch.where(enough, shared, torch.inf).argmin()


chosen = Exercise(
    prompt=(
        "Return the index of the pair of views that InfoMin chooses, from `shared` = I(v;v'), `left` = I(v;y), `right` = I(v';y), "
        "each of shape (m,), and `needed` = I(x;y), all in nats; 1e-9 nats too few are rounding."
    ),
    case=_candidates,
    solution=_chosen,
    hints=(
        "Two conditions say which pairs may be chosen at all; among those, one is best.",
        "A pair may be chosen if both left and right reach needed. Give the others an infinite value of shared.",
        "torch.where(torch.minimum(left, right) >= needed - 1e-9, shared, torch.inf).argmin()",
    ),
    misconceptions={
        lambda shared, left, right, needed: shared.argmin(): (
            "those share least, but have lost what the task needs: that is the left end of the curve."
        ),
        lambda shared, left, right, needed: shared[_chosen(shared, left, right, needed)]: (
            "that is I(v;v') of the pair that is chosen; return its index."
        ),
        lambda shared, left, right, needed: shared.argmax(): (
            "that is the opposite, InfoMax: the views that share most, the right end of the curve."
        ),
        lambda shared, left, right, needed: torch.where(left >= needed - 1e-9, shared, torch.inf).argmin(): (
            "v keeps what the task needs, v' does not; what only one of them has, they do not share."
        ),
        lambda shared, left, right, needed: torch.where(right >= needed - 1e-9, shared, torch.inf).argmin(): (
            "v' keeps what the task needs, v does not; what only one of them has, they do not share."
        ),
        lambda shared, left, right, needed: torch.where(shared >= needed - 1e-9, shared, torch.inf).argmin(): (
            "sharing as many nats as the task needs is not the same as sharing those: compare I(v;y) and I(v';y) with needed."
        ),
    },
)
