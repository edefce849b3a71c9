"""Lesson 5: what a batch shows of the evidence."""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from .. import gaussian
from ..figures import Figure, lines
from ..widgets import slider


@dataclass(frozen=True)
class BatchState:
    information: float = slider(2.0, 0.25, 6, 0.25, "mutual information", "nats")
    doublings: int = slider(6, 1, 10, 1, "log₂ of the batch size N")


def finite_batches(state: BatchState) -> Figure:
    """Lesson 5: I_N of the best critic on four-dimensional Gaussian pairs against N: sampled, by the law (E16), and its ceiling."""
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
