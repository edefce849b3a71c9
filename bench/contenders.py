"""Who is measured: each makes, from unit vectors q and k (N, d), a loss function whose backward gives both gradients.

The task is the same everywhere, the contrastive loss of N pairs at temperature .1, but the losses in use differ in what
they normalise over: `directions` says how many N x N tables one call needs at the least.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import rpm_tutorial as rpm
from rpm_tutorial.critics import LinearCritic, LinearForm

sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))
import others

TEMPERATURE = 0.1
Loss = Callable[[Tensor, Tensor], Tensor]


class Contender(NamedTuple):
    name: str
    make: Callable[[], Loss]
    ours: bool = False
    directions: int = 1  # tables of N x N
    same_value: bool = True  # the loss is log N - I_N (ours: -I_N), so that value and gradients can be compared
    note: str = ""


def ours(critic: nn.Module, *, normalise: str = "rows") -> Loss:
    def loss(q, k):
        return -rpm.dataset_evidence(q, k, critic, normalise=normalise).value

    return loss


class AnyCritic(nn.Module):
    """Inner products of unit vectors; it says nothing of the form of its scores."""

    def forward(self, z, z_prime):
        return (z / TEMPERATURE) @ z_prime.T


class InnerProducts(LinearCritic):
    """The same, and says so."""

    def linear_form(self, z, z_prime):
        return LinearForm(z / TEMPERATURE, z_prime)


def full_matrix() -> Loss:
    return lambda q, k: F.cross_entropy(q @ k.T / TEMPERATURE, torch.arange(len(q)))


def linear_cross_entropy() -> Loss:
    options = nn.LinearCrossEntropyOptions(batch_chunk_size=128)  # its own choice is slower
    return lambda q, k: F.linear_cross_entropy(q / TEMPERATURE, k, torch.arange(len(q)), options=options)


def row_blocks() -> Loss:
    def block_loss(q, k, first):
        own = torch.arange(first, first + len(q))
        return F.cross_entropy(q @ k.T / TEMPERATURE, own, reduction="sum")

    def loss(q, k):
        parts = [checkpoint(block_loss, q[i : i + 64], k, i, use_reentrant=False) for i in range(0, len(q), 64)]
        return torch.stack(parts).sum() / len(q)

    return loss


def keops() -> Loss:
    from pykeops.torch import LazyTensor

    def loss(q, k):
        scores = (LazyTensor(q[:, None].contiguous()) * LazyTensor(k[None].contiguous())).sum(-1) / TEMPERATURE
        return (scores.logsumexp(dim=1).flatten() - (q * k).sum(1) / TEMPERATURE).mean()

    return loss


def open_clip() -> Loss:
    loss = others.open_clip_module().ClipLoss()
    return lambda q, k: loss(q, k, 1 / TEMPERATURE)


def lightly() -> Loss:
    return others.lightly_module("ntx_ent_loss").NTXentLoss(TEMPERATURE)


def metric_learning() -> Loss:
    from pytorch_metric_learning import losses

    return losses.SelfSupervisedLoss(losses.NTXentLoss(TEMPERATURE), symmetric=False)


CONTENDERS = {
    "ours": Contender("dataset_evidence", lambda: ours(InnerProducts()), ours=True),
    "ours_any": Contender(
        "dataset_evidence, any critic", lambda: ours(AnyCritic()), ours=True, note="a critic without linear_form"
    ),
    "ours_both": Contender(
        'dataset_evidence, normalise="both"',
        lambda: ours(InnerProducts(), normalise="both"),
        ours=True,
        directions=2,
        same_value=False,
    ),
    "full": Contender("full matrix, F.cross_entropy", full_matrix),
    "torch": Contender(
        "torch's linear_cross_entropy", linear_cross_entropy, note="chunks of 128 rows; torch 2.13 and later"
    ),
    "blocks": Contender("blocks of 64 rows, checkpoint", row_blocks),
    "keops": Contender("PyKeOps LogSumExp", keops, note="compiled before the measurement"),
    "open_clip": Contender("open_clip ClipLoss", open_clip, directions=2, same_value=False),
    "lightly": Contender(
        "lightly NTXentLoss", lightly, directions=4, same_value=False, note="each view also against its own side"
    ),
    "metric": Contender(
        "pytorch-metric-learning NTXentLoss",
        metric_learning,
        same_value=False,
        note="every pair beside every negative, N^3 entries; normalises once more, so its gradient is another",
    ),
}
