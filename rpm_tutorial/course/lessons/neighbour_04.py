"""Exercise of the neighbour on annealed and energy-based bounds: the energy-based bound of a table."""

import torch

from ..exercise import Exercise, normal


def _tables(seed: int) -> tuple:
    T, logits, p = normal(seed, 3, 3 + seed, 4)
    return T, logits.softmax(1), p.exp() / p.exp().sum()


def _bound(T, q, p, log_Z):
    return (p * (q.log() - p.sum(0).log() + T)).sum() - p.sum(1) @ log_Z


energy_based = Exercise(
    prompt=(
        "Return E[log q(z|x) - log p(z) + T(x,z)] - E log Z(x) with Z(x) = E_{q(z|x)} exp T, in nats, from the tables `T`, "
        "`q` and the joint `p`, rows x and columns z."
    ),
    case=_tables,
    solution=lambda T, q, p: _bound(T, q, p, torch.logsumexp(T + q.log(), 1)),
    hints=(
        "The outer means are under the joint p; only Z(x) is a mean under q.",
        "p(z) is p.sum(0); log Z is torch.logsumexp(T + q.log(), 1), one for each x, weighted by p.sum(1).",
        "(p * (q.log() - p.sum(0).log() + T)).sum() - p.sum(1) @ torch.logsumexp(T + q.log(), 1)",
    ),
    misconceptions={
        lambda T, q, p: (p * (q.log() - p.sum(0).log())).sum(): "that is Barber-Agakov alone: nothing is tilted yet.",
        lambda T, q, p: _bound(T, q, p, torch.logsumexp(T + p.sum(0).log(), 1)): (
            "Z(x) is a mean under the proposal q(z|x), not under the marginal p(z)."
        ),
        lambda T, q, p: _bound(T, q, p, (q * T).sum(1)): (
            "that is E_q T; log Z = log E_q exp T lies above it, and with less subtracted it would be no bound."
        ),
        lambda T, q, p: _bound(T, q, p, torch.zeros_like(T[:, 0])): (
            "q exp T is no distribution before it is divided by Z(x)."
        ),
        lambda T, q, p: (p * T).sum() - p.sum(1) @ torch.logsumexp(T + q.log(), 1): (
            "Barber-Agakov's term E log q/p is missing; it vanishes only if q is the marginal."
        ),
    },
)
