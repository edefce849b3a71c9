"""Other libraries' losses beside ours: `python tools/losses.py` prints the residuals, and --write puts them into docs/losses.md.

Each row of ROWS is a loss that people call, and the same number from rpm_tutorial. Both get the same random latents in
float64; what is compared is the value and its gradient with respect to all latents. losses_alike.py has those that fit no model
of this family. The table needs sentence-transformers, which `make .venv/installed-nightly` installs.
"""

import argparse
import importlib.metadata
import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import others
import tables
import torch
from losses_alike import ALIKE, Alike, compared
from torch import Tensor, nn
from torch.nn import functional as F

import rpm_tutorial as rpm

PAGE = tables.ROOT / "docs" / "losses.md"
SEEDS = range(10)


class Batch(NamedTuple):
    """B pairs of latents, of any length, and what else a loss may be given."""

    z: Tensor
    z_prime: Tensor
    queue: Tensor  # (K, d), unit vectors of earlier batches
    hard: Tensor  # (B, M, d), strangers chosen for each z
    labels: Tensor  # (B,)
    critic: nn.Module

    @property
    def temperature(self) -> float:
        return self.critic.temperature.item()

    @property
    def scores(self) -> Tensor:
        return self.critic(self.z, self.z_prime)


def batch(seed: int) -> Batch:
    rng = torch.Generator().manual_seed(seed)
    normal = partial(torch.randn, generator=rng, dtype=torch.float64)
    n, dim = 8 + seed % 3, 4  # pairs, and labels of 2 or 3 pairs each
    z = normal(n, dim)
    leaves = [t.requires_grad_() for t in (z, z.detach() + 0.5 * normal(n, dim))]
    hard = (z.detach()[:, None] + normal(n, 3, dim)).requires_grad_()
    critic = rpm.VonMisesFisher(0.1 + 0.9 * torch.rand((), generator=rng).item(), learnable=False).double()
    return Batch(*leaves, F.normalize(normal(32, dim), dim=1), hard, torch.arange(n) // 2, critic)


# Ours


def plain(b: Batch) -> Tensor:
    return math.log(len(b.z)) - rpm.infonce(b.scores).value


def symmetric(b: Batch) -> Tensor:
    return math.log(len(b.z)) - rpm.symmetric_infonce(b.scores).value


def nt_xent(b: Batch) -> Tensor:
    evidence = rpm.dataset_evidence(b.z, b.z_prime, b.critic, normalise="views")
    return math.log(2 * len(b.z)) - evidence.value


def hide_self(table: Tensor) -> Tensor:
    """f(z,z) = 0: no view is its own candidate."""
    return table.masked_fill(torch.eye(len(table), dtype=torch.bool), -torch.inf)


def views(b: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """The scores of all views with all views; who is whose other view; who has whose label."""
    z, labels = torch.cat([b.z, b.z_prime]), b.labels.repeat(2)
    other_view = torch.eye(len(z), dtype=torch.bool).roll(len(b.z), 1)
    return b.critic(z, z), other_view, (labels[:, None] == labels).fill_diagonal_(False)


def supcon(b: Batch) -> Tensor:
    table, _, same = views(b)
    shared = same / same.sum(1, keepdim=True, dtype=torch.float64)
    return math.log(len(table)) - rpm.infonce(hide_self(table), shared / len(table)).value


def beside(table: Tensor, pairs: Tensor, strangers: Tensor) -> Tensor:
    """The loss of each pair, beside the strangers of its row alone; both are masks over the table."""
    rows, columns = pairs.nonzero(as_tuple=True)
    partner = F.one_hot(columns, table.shape[1]).to(table.dtype)
    candidates = (partner + strangers[rows]).clamp(max=1)
    n = candidates.sum(1, keepdim=True)
    value = rpm.infonce(table[rows], partner / len(rows), q_z_prime=candidates / n, reduction="none").value
    return n[:, 0].log() - value


def labelled(b: Batch) -> Tensor:
    table, _, same = views(b)
    return beside(table, same, ~(same | torch.eye(len(table), dtype=torch.bool))).mean()


def smoothed(b: Batch, epsilon: float = 0.1) -> Tensor:
    n = len(b.z)
    believed = (1 - epsilon) * torch.eye(n, dtype=torch.float64) / n + epsilon / n**2
    return math.log(n) - rpm.infonce(b.scores, believed).value


def queue(b: Batch) -> Tensor:
    table = torch.cat([b.scores, b.critic(b.z, b.queue)], 1)
    n, m = table.shape
    return beside(table, torch.eye(n, m), torch.arange(m).expand(n, m) >= n).mean()


def hard_for_each(b: Batch) -> Tensor:
    hard = [b.critic(z[None], hard) for z, hard in zip(b.z, b.hard)]
    table = torch.cat([b.scores.diagonal()[:, None], torch.cat(hard)], 1)
    first = torch.arange(table.shape[1]).expand_as(table) == 0
    return beside(table, first, ~first).mean()


def hard_for_all(b: Batch) -> Tensor:
    table = b.critic(b.z, torch.cat([b.z_prime, b.hard[:, 0]]))
    return math.log(table.shape[1]) - rpm.infonce(table).value


def harder(b: Batch, strength: float = 5.0) -> Tensor:
    cosines = (b.scores * b.temperature).detach()
    strangers = 1 - torch.eye(len(cosines), dtype=torch.float64)
    return math.log(len(cosines)) - rpm.infonce(b.scores + strength * cosines * strangers).value


def decoupled(b: Batch) -> Tensor:
    table, other_view, _ = views(b)
    return without_partner(table, other_view).mean()


def without_partner(table: Tensor, other_view: Tensor) -> Tensor:
    """DCL of each row: the strangers alone are candidates, the partner is none."""
    strangers = ~(other_view | torch.eye(len(table), dtype=torch.bool))
    n, others = len(table), len(table) - 2
    value = rpm.infonce(table, other_view.to(table) / n, q_z_prime=strangers.to(table) / others, reduction="none").value
    return math.log(others) - value


def weighted(b: Batch, sigma: float = 0.5) -> Tensor:
    own = b.scores.diagonal()
    weight = 2 - len(own) * (own.detach() * b.temperature / sigma).softmax(0)
    return decoupled(b) + ((1 - weight) * own).mean()


def pairwise(b: Batch, bias: float = -2.0) -> Tensor:
    return -rpm.estimators.siglip(b.scores + bias).value


class Row(NamedTuple):
    loss: str
    library: str
    call: str
    theirs: Callable[[Batch], Tensor]
    same: str  # in words of ours
    ours: Callable[[Batch], Tensor]


PML, ST = "pytorch-metric-learning", "sentence-transformers"
DIAGONAL = "log B − `infonce`"
CLIP, VIEWS = "log B − `symmetric_infonce`", 'log 2B − `dataset_evidence(normalise="views")`'
OWN_CANDIDATES = "log (1 + K) − `infonce`, partner and K strangers"
ROWS = (
    Row("cross-entropy on the diagonal", "info-nce-pytorch", "InfoNCE()", others.info_nce, DIAGONAL, plain),
    Row(
        "cross-entropy on the diagonal",
        PML,
        "SelfSupervisedLoss(NTXentLoss(), symmetric=False)",
        lambda b: others.metric_learning("NTXentLoss", b, symmetric=False),
        DIAGONAL,
        plain,
    ),
    Row(
        "cross-entropy on the diagonal",
        ST,
        "MultipleNegativesRankingLoss()",
        others.sentence_transformers,
        DIAGONAL,
        plain,
    ),
    Row("CLIP", "open_clip_torch", "ClipLoss()", partial(others.open_clip, "ClipLoss"), CLIP, symmetric),
    Row(
        "CLIP",
        ST,
        'MultipleNegativesRankingLoss(directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction")',
        lambda b: others.sentence_transformers(
            b, directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction"
        ),
        CLIP,
        symmetric,
    ),
    Row("NT-Xent", "lightly", "NTXentLoss()", partial(others.lightly, "NTXentLoss", "ntx_ent_loss"), VIEWS, nt_xent),
    Row(
        "NT-Xent",
        PML,
        "SelfSupervisedLoss(NTXentLoss())",
        partial(others.metric_learning, "NTXentLoss"),
        VIEWS,
        nt_xent,
    ),
    Row(
        "SupCon",
        PML,
        "SupConLoss()",
        lambda b: others.metric_learning("SupConLoss", b, b.labels.repeat(2)),
        "log 2B − `infonce` of all views, f(z,z) = 0, a row's mass shared among its label",
        supcon,
    ),
    Row(
        "NT-Xent with labels",
        PML,
        "NTXentLoss()",
        lambda b: others.metric_learning("NTXentLoss", b, b.labels.repeat(2)),
        "log (1 + strangers) − `infonce`, each partner beside the strangers alone",
        labelled,
    ),
    Row(
        "label smoothing",
        "torch",
        "cross_entropy(label_smoothing=ε)",
        others.torch_smoothed,
        "log B − `infonce`, a share ε of the pairs strangers",
        smoothed,
    ),
    Row(
        "MoCo",
        "lightly",
        "NTXentLoss(memory_bank_size=(K, d))",
        others.lightly_queue,
        OWN_CANDIDATES,
        queue,
    ),
    Row(
        "MoCo",
        "info-nce-pytorch",
        'InfoNCE(negative_mode="unpaired")',
        lambda b: others.info_nce(b, b.queue),
        OWN_CANDIDATES,
        queue,
    ),
    Row(
        "hard negatives for each row",
        "info-nce-pytorch",
        'InfoNCE(negative_mode="paired")',
        lambda b: others.info_nce(b, b.hard, negative_mode="paired"),
        OWN_CANDIDATES,
        hard_for_each,
    ),
    Row(
        "hard negatives for all",
        ST,
        "MultipleNegativesRankingLoss() of triplets",
        lambda b: others.sentence_transformers(b, b.hard[:, 0]),
        "log 2B − `infonce`, B more candidates",
        hard_for_all,
    ),
    Row(
        "hard negatives by weights",
        ST,
        'MultipleNegativesRankingLoss(hardness_mode="in_batch_negatives", hardness_strength=β)',
        lambda b: others.sentence_transformers(b, hardness_mode="in_batch_negatives", hardness_strength=5.0),
        "log B − `infonce`, strangers' f times exp (β cos)",
        harder,
    ),
    Row(
        "DCL",
        "lightly",
        "DCLLoss()",
        partial(others.lightly, "DCLLoss", "dcl_loss"),
        "log (2B − 2) − `infonce`, the partner no candidate: no ELBO",
        decoupled,
    ),
    Row(
        "DCLW",
        "lightly",
        "DCLWLoss()",
        partial(others.lightly, "DCLWLoss", "dcl_loss"),
        "DCL, and the mean of (1 − weight) times the pair's score",
        weighted,
    ),
    Row(
        "SigLIP",
        "open_clip_torch",
        "SigLipLoss()",
        lambda b: others.open_clip("SigLipLoss", b, -2.0),
        "−`estimators.siglip`: no ELBO",
        pairwise,
    ),
)


def residuals(row: Row, seed: int) -> tuple[float, float]:
    """How far the two values are apart, and the largest entry of the difference of their gradients."""
    b = batch(seed)
    leaves = b.z, b.z_prime, b.hard
    values = row.theirs(b), row.ours(b)
    ours, theirs = (torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True) for value in values)
    apart = max((a - b).abs().max().item() for a, b in zip(ours, theirs))
    return (values[0] - values[1]).abs().item(), apart


def alike(case: Alike) -> dict:
    return compared(case, [(b.z.detach(), b.z_prime.detach()) for b in map(batch, SEEDS)])


def version(library: str) -> str:
    return importlib.metadata.version(library).split("+")[0]


ROWS_HEAD = ("loss", "library", "its call", "ours", "residual", "of the gradient")
ALIKE_HEAD = (
    "loss",
    "lightly's call",
    "what pulls partners together is",
    "residual",
    "one loss for",
    "its value",
    "nats",
)


def tables_of_losses() -> dict[str, str]:
    rows = []
    for row in ROWS:
        worst = [f"{max(found):.0e}" for found in zip(*(residuals(row, seed) for seed in SEEDS))]
        cells = (row.loss, f"{row.library} {version(row.library)}", f"`{row.call}`", row.same, *worst)
        rows.append(dict(zip(ROWS_HEAD, cells)))
    no_model = []
    for case in ALIKE:
        found = alike(case)
        of = " / ".join(case.of)
        cells = (case.loss, f"`{case.call}()`", case.same, f"{found['residual']:.0e}", of)
        value, nats = f"{found['losses'][0]:.3f}", " / ".join(f"{x:.3f}" for x in found["nats"])
        no_model.append(dict(zip(ALIKE_HEAD, (*cells, value, nats))))
    return {"losses": tables.table(rows, ROWS_HEAD), "no model": tables.table(no_model, ALIKE_HEAD)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    write = parser.parse_args().write
    for name, text in tables_of_losses().items():
        print(text)
        if write:
            tables.replace(name, text, PAGE)
