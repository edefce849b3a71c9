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
    def views(self) -> Tensor:
        return torch.cat([self.z, self.z_prime])

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


def of_rows(logits: Tensor) -> Tensor:
    """InfoNCE of each row by itself, its partner in column 0: the row once for each candidate, turned, so that all are pairs."""
    places = torch.arange(logits.shape[1])
    turned = (places - places[:, None]) % len(places)
    return torch.stack([rpm.infonce(row[turned]).value for row in logits])


def hide_self(table: Tensor) -> Tensor:
    """f(z,z) = 0: no view is its own candidate."""
    return table.masked_fill(torch.eye(len(table), dtype=torch.bool), -torch.inf)


def views_table(b: Batch) -> Tensor:
    """All views beside all views."""
    return hide_self(b.critic(b.views, b.views))


def pairs_of_views(b: Batch) -> Tensor:
    """Q(z,z') of SimCLR: view i and view i + B are a pair."""
    n = 2 * len(b.z)
    return torch.eye(n, dtype=torch.float64).roll(len(b.z), 1) / n


def partner_first(table: Tensor, pairs: Tensor) -> Tensor:
    """A row for each pair: the score of its partner, then those of the others whose f is not 0."""
    rows, columns = pairs.nonzero(as_tuple=True)
    others_of = torch.ones_like(table, dtype=torch.bool)[rows].scatter(1, columns[:, None], False)
    strangers = table[rows].masked_fill(~others_of, -torch.inf)
    return torch.cat([table[rows, columns][:, None], strangers[strangers.isfinite()].view(len(rows), -1)], 1)


def plain(b: Batch) -> Tensor:
    return math.log(len(b.z)) - rpm.infonce(b.scores).value


def symmetric(b: Batch) -> Tensor:
    return math.log(len(b.z)) - rpm.symmetric_infonce(b.scores).value


def nt_xent(b: Batch) -> Tensor:
    return math.log(2 * len(b.z)) - rpm.infonce(views_table(b), pairs_of_views(b)).value


def same_label(b: Batch) -> Tensor:
    labels = b.labels.repeat(2)
    return (labels[:, None] == labels).fill_diagonal_(False)


def supcon(b: Batch) -> Tensor:
    same = same_label(b).double()
    return math.log(len(same)) - rpm.infonce(views_table(b), same / same.sum(1, keepdim=True) / len(same)).value


def partners_apart(b: Batch) -> Tensor:
    """Each partner is a pair of its own, beside the views of other labels."""
    table, same = views_table(b), same_label(b)
    rows, columns = same.nonzero(as_tuple=True)
    losses = []
    for row, column in zip(rows, columns):
        logits = torch.cat([table[row, column][None], table[row][~same[row] & table[row].isfinite()]])[None]
        losses.append(math.log(logits.shape[1]) - of_rows(logits))
    return torch.cat(losses).mean()


def smoothed(b: Batch, epsilon: float = 0.1) -> Tensor:
    n = len(b.z)
    believed = (1 - epsilon) * torch.eye(n, dtype=torch.float64) / n + epsilon / n**2
    return math.log(n) - rpm.infonce(b.scores, believed).value


def beside(b: Batch, strangers: Tensor) -> Tensor:
    """The pairs, each beside the strangers' scores (B, M) alone."""
    logits = torch.cat([b.scores.diagonal()[:, None], strangers], 1)
    return math.log(logits.shape[1]) - of_rows(logits).mean()


def hard_scores(b: Batch) -> Tensor:
    return torch.cat([b.critic(z[None], hard) for z, hard in zip(b.z, b.hard)])


def with_hard_columns(b: Batch) -> Tensor:
    columns = b.critic(b.z, torch.cat([b.z_prime, b.hard[:, 0]]))
    return (
        math.log(columns.shape[1]) - of_rows(partner_first(columns, F.pad(torch.eye(len(b.z)), (0, len(b.z))))).mean()
    )


def reweighted(b: Batch, strength: float = 5.0) -> Tensor:
    cosines = (b.scores * b.temperature).detach()
    harder = strength * cosines * (1 - torch.eye(len(cosines), dtype=torch.float64))
    return math.log(len(cosines)) - rpm.infonce(b.scores + harder).value


def decoupled(b: Batch) -> Tensor:
    """Without the partner in its own denominator, e^DCL = e^NT-Xent - 1 in each row."""
    logits = partner_first(views_table(b), pairs_of_views(b))
    return (math.log(logits.shape[1]) - of_rows(logits)).expm1().log().mean()


def decoupled_weighted(b: Batch, sigma: float = 0.5) -> Tensor:
    own = b.scores.diagonal()
    weight = 2 - len(own) * (own.detach() * b.temperature / sigma).softmax(0)
    return decoupled(b) + ((1 - weight) * own).mean()


def pairwise(b: Batch, bias: float = -2.0) -> Tensor:
    """One pair to B - 1 strangers, each a logistic loss."""
    logits, own = b.scores + bias, torch.eye(len(b.z), dtype=torch.bool)
    return -F.logsigmoid(logits[own]).mean() - (len(b.z) - 1) * F.logsigmoid(-logits[~own]).mean()


class Row(NamedTuple):
    loss: str
    library: str
    call: str
    theirs: Callable[[Batch], Tensor]
    same: str  # in words of ours
    ours: Callable[[Batch], Tensor]


PML, ST = "pytorch-metric-learning", "sentence-transformers"
DIAGONAL = "log B − `infonce`"
CLIP, VIEWS = "log B − `symmetric_infonce`", "log 2B − `infonce` of all views, f(z,z) = 0"
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
        "the same, a row's mass shared among its label",
        supcon,
    ),
    Row(
        "NT-Xent with labels",
        PML,
        "NTXentLoss()",
        lambda b: others.metric_learning("NTXentLoss", b, b.labels.repeat(2)),
        "the same, each partner beside the strangers alone",
        partners_apart,
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
        lambda b: beside(b, b.critic(b.z, b.queue)),
    ),
    Row(
        "MoCo",
        "info-nce-pytorch",
        'InfoNCE(negative_mode="unpaired")',
        lambda b: others.info_nce(b, b.queue),
        OWN_CANDIDATES,
        lambda b: beside(b, b.critic(b.z, b.queue)),
    ),
    Row(
        "hard negatives for each row",
        "info-nce-pytorch",
        'InfoNCE(negative_mode="paired")',
        lambda b: others.info_nce(b, b.hard, negative_mode="paired"),
        OWN_CANDIDATES,
        lambda b: beside(b, hard_scores(b)),
    ),
    Row(
        "hard negatives for all",
        ST,
        "MultipleNegativesRankingLoss() of triplets",
        lambda b: others.sentence_transformers(b, b.hard[:, 0]),
        "log 2B − `infonce`, twice as many candidates",
        with_hard_columns,
    ),
    Row(
        "hard negatives by weights",
        ST,
        'MultipleNegativesRankingLoss(hardness_mode="in_batch_negatives", hardness_strength=β)',
        lambda b: others.sentence_transformers(b, hardness_mode="in_batch_negatives", hardness_strength=5.0),
        "log B − `infonce`, strangers' f times exp (β cos)",
        reweighted,
    ),
    Row(
        "DCL",
        "lightly",
        "DCLLoss()",
        partial(others.lightly, "DCLLoss", "dcl_loss"),
        "log (exp (NT-Xent) − 1), row by row",
        decoupled,
    ),
    Row(
        "DCLW",
        "lightly",
        "DCLWLoss()",
        partial(others.lightly, "DCLWLoss", "dcl_loss"),
        "DCL + the mean of (1 − weight) · score",
        decoupled_weighted,
    ),
    Row(
        "SigLIP",
        "open_clip_torch",
        "SigLipLoss()",
        lambda b: others.open_clip("SigLipLoss", b, -2.0),
        "no ELBO: a logistic loss of one pair to B − 1 strangers",
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
