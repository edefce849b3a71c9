"""Exercise of the neighbour on point-wise dependency: the ratio that a classifier has learned."""

import torch

from ..exercise import Exercise, normal

log_ratio = Exercise(
    prompt=(
        "Return log r(z,z') for each entry of `p`, the probability of 'pair' that a classifier gives after training on `n_pairs` "
        "pairs and `n_independent` independent cells."
    ),
    case=lambda seed: (normal(seed, 5).sigmoid(), 100 * (seed + 1), 700),
    solution=lambda p, n_pairs, n_independent: (n_independent / n_pairs * p / (1 - p)).log(),
    hints=(
        "Bayes: the odds p / (1 - p) are the ratio of the densities times the ratio of the class sizes.",
        "p / (1 - p) = r n_pairs / n_independent. Solve for r.",
        "torch.logit(p) - math.log(n_pairs / n_independent)",
    ),
    misconceptions={
        lambda p, n_pairs, n_independent: torch.logit(p): (
            "the classifier also knows how common each class was; the ratio of the densities does not depend on that."
        ),
        lambda p, n_pairs, n_independent: (n_pairs / n_independent * p / (1 - p)).log(): (
            "the class sizes are upside down: where pairs were rare in training, the same p speaks for a larger r."
        ),
        lambda p, n_pairs, n_independent: (n_independent / n_pairs * (1 - p) / p).log(): (
            "those are the odds of being independent; r is large where a pair is likely."
        ),
        lambda p, n_pairs, n_independent: n_independent / n_pairs * p / (1 - p): "that is r; return its logarithm.",
        lambda p, n_pairs, n_independent: p.log(): "a probability is not yet a ratio: take the odds.",
    },
)
