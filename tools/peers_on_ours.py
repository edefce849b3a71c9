"""A pytest plugin: other libraries' tests of their losses, run on ours.

Each class here keeps the library's constructor and what is no loss (a memory bank, distances, reducers, the second pass of a
gradient cache), and computes the loss itself by rpm_tutorial. With PEERS=theirs nothing takes anyone's place.
"""

import math
import os
import sys
from pathlib import Path

import torch
from losses import beside, hide_self, without_partner
from others import lightly_module
from torch import Tensor
from torch.nn import functional as F

import rpm_tutorial as rpm


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
                table = torch.cat([(z * z_prime).sum(1, keepdim=True), z @ queue], 1) / self.temperature
                partner = torch.arange(table.shape[1]).expand_as(table) == 0
                return beside(table, partner, ~partner).mean()
            views = torch.cat([z, z_prime])
            partner_on_diagonal = hide_self(views @ views.T / self.temperature).roll(len(z), 1)
            return math.log(len(views)) - rpm.infonce(partner_on_diagonal).value

    class Decoupled:
        def forward(self, out0: Tensor, out1: Tensor) -> Tensor:
            z, z_prime = F.normalize(out0, dim=1), F.normalize(out1, dim=1)
            views, n = torch.cat([z, z_prime]), len(z)
            table, partners = views @ views.T / self.temperature, torch.eye(2 * n, dtype=torch.bool).roll(n, 1)
            loss = without_partner(table, partners)
            if self.weight_fn:
                loss = loss + (1 - self.weight_fn(z, z_prime)).repeat(2) * table[partners]
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
            table = torch.cat([pos_pairs[:, None], neg_pairs.expand(len(anchors), -1)], 1) * sign / self.temperature
            partner = torch.arange(table.shape[1]).expand_as(table) == 0
            strangers = F.pad(anchors[:, None] == anchors_of_strangers, (1, 0))
            found = beside(table, partner, strangers)
            return {"loss": {"losses": found, "indices": (anchors, partners), "reduction_type": "pos_pair"}}

    class SupConLoss(losses.SupConLoss):
        def _compute_loss(self, mat, pos_mask, neg_mask):
            if not pos_mask.any() or not neg_mask.any():
                return self.zero_losses()
            sign = 1 if self.distance.is_inverted else -1
            partners, candidates = pos_mask.bool(), (pos_mask + neg_mask).bool()
            of_pairs = beside(mat * sign / self.temperature, partners, candidates)
            rows = partners.nonzero()[:, 0]
            found = torch.zeros_like(mat[:, 0]).index_add(0, rows, of_pairs) / partners.sum(1).clamp(min=1)
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
    dtype = getattr(torch, os.environ.get("ENCODER", "float32"))
    DistilBertModel(DistilBertConfig(**size)).to(dtype).save_pretrained(name)
    BertTokenizerFast(str(vocabulary)).save_pretrained(name)


def sentence_transformers() -> None:
    from sentence_transformers import losses

    random_encoder("distilbert-base-uncased")
    if os.environ["PEERS"] == "theirs":
        return

    class CachedMultipleNegativesRankingLoss(losses.CachedMultipleNegativesRankingLoss):
        def calculate_loss(self, reps: list[list[Tensor]], *_, with_backward: bool = False) -> Tensor:
            anchors, *columns = map(torch.cat, reps)
            scores = self.similarity_fct(anchors, torch.cat(columns)) * self.scale
            loss = math.log(scores.shape[1]) - rpm.infonce(scores).value
            if with_backward:
                loss.backward()
            return loss.detach() if with_backward else loss

    losses.CachedMultipleNegativesRankingLoss = CachedMultipleNegativesRankingLoss


{"lightly": lightly, "pytorch_metric_learning": metric_learning, "sentence_transformers": sentence_transformers}[
    os.environ["PEER"]
]()
