"""A pytest plugin: other libraries' tests of their losses, run on ours.

Each class here keeps the library's constructor and what is no loss (a memory bank, distances, reducers, the second pass of a
gradient cache), and computes the loss itself by rpm_tutorial. With PEERS=theirs nothing takes anyone's place.
"""

import math
import os
import sys
from pathlib import Path

import torch
from losses import hide_self, of_rows, partner_first
from others import lightly_module
from torch import Tensor
from torch.nn import functional as F

import rpm_tutorial as rpm


def losses_of(logits: Tensor) -> Tensor:
    """One for each row, whose partner is column 0."""
    return math.log(logits.shape[1]) - of_rows(logits)


def lightly() -> None:
    nt_xent, dcl = lightly_module("ntx_ent_loss"), lightly_module("dcl_loss")
    sys.modules["lightly.loss"].NTXentLoss = nt_xent.NTXentLoss
    if os.environ["PEERS"] == "theirs":
        return

    class NTXentLoss(nt_xent.NTXentLoss):
        def forward(self, out0: Tensor, out1: Tensor) -> Tensor:
            z, z_prime = F.normalize(out0, dim=1), F.normalize(out1, dim=1)
            z_prime, queue = self.memory_bank(z_prime, update=out0.requires_grad)
            if queue is not None:
                own = (z * z_prime).sum(1, keepdim=True)
                return losses_of(torch.cat([own, z @ queue], 1) / self.temperature).mean()
            views = torch.cat([z, z_prime])
            partner_on_diagonal = hide_self(views @ views.T / self.temperature).roll(len(z), 1)
            return math.log(len(views)) - rpm.infonce(partner_on_diagonal).value

    class Decoupled:
        def forward(self, out0: Tensor, out1: Tensor) -> Tensor:
            z, z_prime = F.normalize(out0, dim=1), F.normalize(out1, dim=1)
            views, n = torch.cat([z, z_prime]), len(z)
            scores = partner_first(hide_self(views @ views.T / self.temperature), torch.eye(2 * n).roll(n, 1))
            loss = losses_of(scores).expm1().log()
            if self.weight_fn:
                loss = loss + (1 - self.weight_fn(z, z_prime)).repeat(2) * scores[:, 0]
            return loss.mean()

    class DCLLoss(Decoupled, dcl.DCLLoss):
        pass

    class DCLWLoss(Decoupled, dcl.DCLWLoss):
        pass

    sys.modules["lightly.loss"].NTXentLoss = NTXentLoss
    dcl.DCLLoss, dcl.DCLWLoss = DCLLoss, DCLWLoss


def metric_learning() -> None:
    from pytorch_metric_learning import losses

    if os.environ["PEERS"] == "theirs":
        return

    class NTXentLoss(losses.NTXentLoss):
        def _compute_loss(self, pos_pairs, neg_pairs, indices_tuple):
            anchors, partners, anchors_of_strangers, _ = indices_tuple
            if not len(anchors) or not len(anchors_of_strangers):
                return self.zero_losses()
            sign = 1 if self.distance.is_inverted else -1
            rows = [
                torch.cat([own[None], neg_pairs[anchors_of_strangers == anchor]])[None] * sign / self.temperature
                for own, anchor in zip(pos_pairs, anchors)
            ]
            found = torch.cat([losses_of(row) for row in rows])
            return {"loss": {"losses": found, "indices": (anchors, partners), "reduction_type": "pos_pair"}}

    class SupConLoss(losses.SupConLoss):
        def _compute_loss(self, mat, pos_mask, neg_mask):
            if not pos_mask.any() or not neg_mask.any():
                return self.zero_losses()
            sign = 1 if self.distance.is_inverted else -1
            scores, found = mat * sign / self.temperature, torch.zeros_like(mat[:, 0])
            candidates = (pos_mask + neg_mask).bool()
            for row in pos_mask.any(1).nonzero()[:, 0].tolist():
                table = scores[row, candidates[row]].expand(int(pos_mask[row].sum()), -1)  # once for each partner
                partner = torch.eye(len(mat[0]))[pos_mask[row].bool()][:, candidates[row]]
                found[row] = losses_of(partner_first(table, partner)).mean()
            return {"loss": {"losses": found, "indices": torch.arange(len(mat)), "reduction_type": "element"}}

    losses.NTXentLoss, losses.SupConLoss = NTXentLoss, SupConLoss


def random_encoder(name: str) -> None:
    """A small encoder with random weights, in a folder of that name, where it is found before any that a network has."""
    from transformers import BertTokenizerFast, DistilBertConfig, DistilBertModel

    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    Path(name).mkdir(exist_ok=True)
    vocabulary = Path(name, "vocab.txt")
    vocabulary.write_text("\n".join(words))
    torch.manual_seed(0)
    size = {"vocab_size": len(words), "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
    DistilBertModel(DistilBertConfig(**size)).save_pretrained(name)
    BertTokenizerFast(str(vocabulary)).save_pretrained(name)


def sentence_transformers() -> None:
    from sentence_transformers import losses

    random_encoder("distilbert-base-uncased")
    if os.environ["PEERS"] == "theirs":
        return

    class CachedMultipleNegativesRankingLoss(losses.CachedMultipleNegativesRankingLoss):
        def calculate_loss(self, reps: list[list[Tensor]], with_backward: bool = False) -> Tensor:
            anchors, *columns = map(torch.cat, reps)
            scores = self.similarity_fct(anchors, torch.cat(columns)) * self.scale
            loss = losses_of(partner_first(scores, torch.eye(*scores.shape))).mean()
            if with_backward:
                loss.backward()
            return loss.detach() if with_backward else loss

    losses.CachedMultipleNegativesRankingLoss = CachedMultipleNegativesRankingLoss


{"lightly": lightly, "pytorch_metric_learning": metric_learning, "sentence_transformers": sentence_transformers}[
    os.environ["PEER"]
]()
