"""Exercise of the neighbour on gradients of the information: how an entropy moves with its samples."""

from ..exercise import Exercise, normal

entropy_slope = Exercise(
    prompt=(
        "Return the estimate of the derivative of the entropy of z from `score`, the gradient of log q at n samples, and `motion`, "
        "the derivative of each sample; both (n, d)."
    ),
    case=lambda seed: tuple(normal(seed, 2, 6 + seed, 3)),
    solution=lambda score, motion: -(score * motion).sum(1).mean(),
    hints=(
        "H = -E log q(z). By how much does log q(z) change when z moves?",
        "By the inner product of score and motion: a sum over dimensions. Then average over the samples.",
        "-(score * motion).sum(1).mean()",
    ),
    misconceptions={
        lambda score, motion: (score * motion).sum(1).mean(): (
            "samples that move up the density gather, and the entropy falls: a minus is missing."
        ),
        lambda score, motion: -(score * motion).mean(): (
            "dimensions add up: average over samples only, or the slope is too small by a factor of d."
        ),
        lambda score, motion: -(score * motion).sum(): "the entropy is a mean over samples, not a sum.",
        lambda score, motion: -score.mean(0) @ motion.mean(0): (
            "the mean of the products, not the product of the means: each sample has a score and a motion of its own."
        ),
    },
)
