"""Lesson 6. Its widget: what a batch shows of the evidence.

Its exercises: the bias of a batch, the batch that a bias needs, how to do without one, and a bug: a value too good.
"""

import math
import random
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from ... import gaussian
from ..exercise import Exercise, normal
from ..figures import Figure, lines
from ..widgets import slider


@dataclass(frozen=True)
class BatchState:
    information: float = slider(2.0, 0.25, 6, 0.25, "mutual information", "nats")
    doublings: int = slider(6, 1, 10, 1, "log₂ of the batch size N")


def finite_batches(state: BatchState) -> Figure:
    """Lesson 6: I_N of the optimal critic on Gaussian pairs of dimension four against N: sampled, by the law (E16), its ceiling."""
    counts = 2 ** np.arange(1, 11)
    sampled = _sampled_infonce(state.information)
    law = state.information - math.expm1(2 * state.information) / (2 * counts)  # chi^2 = e^(2 MI) - 1
    k, n = state.doublings - 1, 2**state.doublings
    off = abs(law[k] - sampled[k])
    return lines(
        counts,
        {"InfoNCE": sampled, "law (E16)": law, "log N": np.log(counts)},
        floor=-0.5,
        ceiling=("MI", state.information),
        x_log=True,
        mark=n,
        x_label="pairs in a batch N",
        y_label="nats per pair",
        caption=(
            f"At N = {n} a batch shows {sampled[k]:.2f} of {state.information:g} nats; the ceiling log N is {math.log(n):.2f}. "
            f"The law is off by {off:.2f} nats: N is {n / math.exp(2 * state.information):.2g} times e^2MI."
        ),
    )


@cache
def _sampled_infonce(information: float, rows: int = 512, dim: int = 4) -> np.ndarray:
    """I_N for N = 2, 4, ... 1024, over rows that share their candidates; E log f = MI is exact, its normaliser sampled."""
    rho = math.sqrt(-math.expm1(-2 * information / dim))
    generator, counts = torch.Generator().manual_seed(0), 2 ** torch.arange(1, 11)
    z, z_prime = gaussian.sample(rows, rho, dim, generator=generator)
    _, strangers = gaussian.sample(1023, rho, dim, generator=generator)
    own = gaussian.log_optimal_critic(z, z_prime, rho).diagonal()[:, None]
    log_f = torch.cat([own, gaussian.log_optimal_critic(z, strangers, rho)], 1) + information
    shift = log_f.amax(1, keepdim=True)
    log_normaliser = (log_f - shift).exp().cumsum(1)[:, counts - 1].log() + shift - counts.log()
    return (information - log_normaliser.mean(0)).numpy()


# Exercises


bias = Exercise(
    prompt="Return I_N - I_inf of the optimal critic to first order in 1/N, given chi_squared and n. Source: (E16).",
    case=lambda seed: (random.Random(seed).uniform(0, 5), 2 ** (4 + seed)),
    solution=lambda chi_squared, n: -chi_squared / (2 * n),
    hints=(
        "Is a batch too high or too low on average? Start with the sign.",
        "The positive lifts the mean of f by chi^2/N; the spread of the mean lowers its logarithm by half a variance, chi^2/2N.",
        "-chi_squared / (2 * n)",
    ),
    misconceptions={
        lambda chi_squared, n: chi_squared / (2 * n): "a batch is too low: the bias is negative.",
        lambda chi_squared, n: -chi_squared / n: (
            "that is the lift of the mean by the positive alone; half of it is given back, because log is concave: + Var/2N."
        ),
        lambda chi_squared, n: -chi_squared / (2 * (n - 1)): (
            "the expansion is in 1/N, N candidates with the positive among them, not in the N - 1 negatives."
        ),
        lambda chi_squared, n: -math.sqrt(chi_squared) / (2 * n): "chi^2 enters as it is, not its root.",
    },
)

batch_size = Exercise(
    prompt=(
        "Return the N, a real number, at which (E16) predicts a bias of `error` nats for Gaussian pairs with `information` nats, "
        "for which 1 + chi^2 = e^(2 MI)."
    ),
    case=lambda seed: (0.5 + seed, 0.1 / (1 + seed)),
    solution=lambda information, error: math.expm1(2 * information) / (2 * error),
    hints=(
        "Set chi^2 / 2N equal to the error and solve for N.",
        "chi^2 = e^(2 MI) - 1.",
        "(math.exp(2 * information) - 1) / (2 * error)",
    ),
    misconceptions={
        lambda information, error: math.expm1(information) / (2 * error): (
            "twice the MI stands in the exponent: that is why information is so expensive."
        ),
        lambda information, error: (
            math.exp(2 * information) / (2 * error)
        ): "chi^2 is e^(2 MI) minus 1: without dependence there is no bias.",
        lambda information, error: (
            (4**information - 1) / (2 * error)
        ): "the information is in nats: e^(2 MI), not 2^(2 MI).",
        lambda information, error: math.exp(information): (
            "e^MI is where the ceiling log N stops hiding the value; the bias needs far more."
        ),
    },
)


def _positive_and_others(seed: int) -> tuple:
    scores = normal(seed, 6 + seed)
    return scores[0] + 2, scores[1:], 1000 * (seed + 1)


normaliser = Exercise(
    prompt=(
        "Return an estimate of log Z = log (1/n) sum_j f_j over n candidates from `positive`, the log f of the pair itself, and "
        "`others`, the log f of M candidates sampled from the n - 1 others: the positive counts once, each other (n - 1)/M times."
    ),
    case=_positive_and_others,
    solution=lambda positive, others, n: (
        torch.logaddexp(positive, others.logsumexp(0) + math.log((n - 1) / len(others))) - math.log(n)
    ),
    hints=(
        "Write the weighted sum first, with exponentials; the logarithm and the 1/n come last.",
        "(f_positive + (n - 1)/M * sum of the others) / n",
        "((positive.exp() + (n - 1) / len(others) * others.exp().sum()) / n).log()",
    ),
    misconceptions={
        lambda positive, others, n: torch.cat([positive[None], others]).logsumexp(0) - math.log(len(others) + 1): (
            "that is the normaliser of a small batch, with the ceiling of its size; here M candidates stand for n - 1."
        ),
        lambda positive, others, n: torch.logaddexp(positive, others.logsumexp(0) + math.log((n - 1) / len(others))): (
            "Z is a mean over the n candidates: the 1/n is missing."
        ),
        lambda positive, others, n: (
            torch.logaddexp(positive, others.logsumexp(0) + math.log(n / len(others))) - math.log(n)
        ): "the M stand for the n - 1 others: the n-th candidate is the positive, which is counted already.",
        lambda positive, others, n: others.logsumexp(0) - math.log(len(others)): (
            "the positive is one of the n candidates; without it the value can exceed log n."
        ),
        lambda positive, others, n: (
            torch.cat([positive[None], others]).logsumexp(0) + math.log((n - 1) / len(others)) - math.log(n)
        ): "you weighted the positive up too; it is known to occur once.",
    },
)


def _of_a_batch(log_f):
    n = len(log_f)
    log_Z = log_f.logsumexp(1) - math.log(n)
    return (log_f.diagonal() - log_Z).mean()


def _without_the_positive(log_f):
    n = len(log_f)
    negatives = log_f[~torch.eye(n, dtype=torch.bool)].view(n, n - 1)
    log_Z = negatives.logsumexp(1) - math.log(n - 1)
    return (log_f.diagonal() - log_Z).mean()


of_a_batch = Exercise(
    prompt="Return I_N of a batch, nats per pair, from log_f of shape (n, n), pairs on the diagonal. Source: (E15).",
    case=lambda seed: (normal(seed, 6 + seed, 6 + seed) + 3 * torch.eye(6 + seed),),
    solution=_of_a_batch,
    hints=(
        "Which bound does the value break? Look for what keeps it in (E15).",
        "A softmax is at most 1 because its numerator is one of the terms below. Is it here?",
        "The sum of (E15) runs over all N candidates, the positive included: log_f.logsumexp(1) - log N.",
    ),
    misconceptions={
        _without_the_positive: "on a table with large scores on its diagonal the value exceeds log n, which (E15) does not allow.",
        lambda log_f: (log_f.diagonal() - log_f.logsumexp(1)).mean() + math.log(len(log_f) - 1): (
            "a table of equal scores knows nothing and should give 0 nats; it gives log (n-1)/n."
        ),
        lambda log_f: (log_f.diagonal() - log_f.logsumexp(1)).mean(): (
            "that is never positive: log n is missing, so that a table of equal scores gives -log n instead of 0."
        ),
        lambda log_f: (log_f.logsumexp(1) - log_f.diagonal()).mean(): (
            "that is the cross-entropy, the loss: log n minus I_N, which is to be large."
        ),
        lambda log_f: (log_f.diagonal() - log_f.logsumexp(0)).mean() + math.log(len(log_f)): (
            "that sums over the z of each z'; (E15) compares the z' of each z."
        ),
    },
    with_bug=_without_the_positive,
)
