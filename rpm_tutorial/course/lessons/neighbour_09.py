"""Exercise of neighbour 9, VMI-VAE: the bound on what an image says of its code."""

import math

import torch

from ..exercise import Exercise


def _read(seed: int) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(4 + seed, (9,), generator=generator)
    logits = torch.randn(9, 4 + seed, generator=generator, dtype=torch.float64)
    return logits + 2 * torch.nn.functional.one_hot(codes, 4 + seed), codes


bound = Exercise(
    prompt=(
        "Return H(c) + E log Q(c|x) in nats, from the reader's `logits` of n images, shape (n, K), and the codes that made them, "
        "shape (n,), drawn with equal probabilities. Source: (E11)."
    ),
    case=_read,
    solution=lambda logits, codes: math.log(logits.shape[1]) + logits.log_softmax(1)[range(len(codes)), codes].mean(),
    hints=(
        "Two terms: the entropy of the code before the image is seen, and the mean log probability of the right code after.",
        "H(c) of K equally likely codes is log K. logits.log_softmax(1) is log Q(c|x), a row for each image.",
        "math.log(logits.shape[1]) + logits.log_softmax(1)[range(len(codes)), codes].mean()",
    ),
    misconceptions={
        lambda logits, codes: logits.log_softmax(1)[range(len(codes)), codes].mean(): (
            "that is E log Q(c|x) alone, never above zero; the entropy of the code is missing."
        ),
        lambda logits, codes: math.log(logits.shape[1]) + logits[range(len(codes)), codes].mean(): (
            "logits are log probabilities up to a constant of each row: normalise them with log_softmax(1)."
        ),
        lambda logits, codes: math.log(logits.shape[1]) + logits.log_softmax(0)[range(len(codes)), codes].mean(): (
            "Q(c|x) is normalised over the codes of one image, dimension 1; you normalised over the images."
        ),
        lambda logits, codes: math.log(len(codes)) + logits.log_softmax(1)[range(len(codes)), codes].mean(): (
            "log n is the ceiling of n candidates; here there are K codes, so H(c) = log K."
        ),
        lambda logits, codes: math.log(logits.shape[1]) + logits.softmax(1)[range(len(codes)), codes].mean().log(): (
            "that is the log of a mean, at least the mean of the logs: no lower bound any more."
        ),
    },
)
