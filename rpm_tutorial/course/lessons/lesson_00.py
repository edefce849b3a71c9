"""Exercises of lesson 0: the ceiling of InfoNCE, and from InfoNCE to the log evidence."""

import math
import random

from ..exercise import Exercise


def _value_and_pairs(seed: int) -> tuple[float, int]:
    generator = random.Random(seed)
    return generator.uniform(0, 3), generator.randint(50, 5000)


ceiling = Exercise(
    prompt="Return the largest value that InfoNCE can have on n pairs, in nats.",
    case=lambda seed: (random.Random(seed).randint(2, 500),),
    solution=lambda n: math.log(n),
    hints=(
        "f_ii is one of the terms of the sum over j. How small can that sum be, if f_ii is given?",
        "(1/N) sum_j f_ij is at least f_ii / N.",
        "So each bracket is at most log(f_ii / (f_ii / N)).",
    ),
    misconceptions={
        lambda n: n: "that is the number of candidates itself; InfoNCE is a difference of logarithms.",
        lambda n: 2 * math.log(n): "2 log N would need a pair with P = 1, but each row has only 1/N to give.",
        lambda n: math.log(n - 1): "the positive is one of the N candidates: N - 1 are the negatives alone.",
    },
)

log_evidence = Exercise(
    prompt="Return the log evidence per pair, given InfoNCE on all n pairs.",
    case=_value_and_pairs,
    solution=lambda infonce, n: infonce - 2 * math.log(n),
    hints=(
        "Which number must come out if the model knows nothing, so that InfoNCE = 0?",
        "Knowing nothing is P(x_i,x'_j) = 1/N^2 for all pairs.",
        "log evidence = InfoNCE - 2 log N, and C = -2 log N on a data set of N distinct pairs.",
    ),
    misconceptions={
        lambda infonce, n: infonce + 2 * math.log(n): "the sign of C: log P(x,x') of a discrete pair is negative.",
        lambda infonce, n: infonce - math.log(n): "that is log P(x'|x). The pair also needs log P(x) = -log N.",
        lambda infonce, n: infonce - 2 * math.log2(n): "you took log N in bits, from a value in nats.",
        lambda infonce, n: infonce - math.log(n) - math.log(n - 1): (
            "x' is one of N, not of N - 1: the pairs that the model might have given are N^2."
        ),
    },
)
