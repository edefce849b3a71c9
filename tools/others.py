"""The losses of other libraries, as they are called on the pairs b of `losses.Batch`.

lightly and open_clip import torchvision, timm or PyTorch Lightning as soon as they are imported. Their losses need none of
it: each is loaded from its own file.
"""

import importlib
import importlib.util
import sys
import types

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def load(name: str, *packages: str) -> types.ModuleType:
    """The module `name`, with these packages above it empty: their files are found, their __init__ is not run."""
    for package in packages:
        if package not in sys.modules:
            bare = types.ModuleType(package)
            bare.__path__ = list(importlib.util.find_spec(package).submodule_search_locations or ())
            sys.modules[package] = bare
    return importlib.import_module(name)


def lightly_module(name: str) -> types.ModuleType:
    """lightly.loss.NAME."""
    return load(
        f"lightly.loss.{name}",
        "lightly",
        "lightly.loss",
        "lightly.models",
        "lightly.models.modules",
        "lightly.models.utils",
    )


def open_clip_module() -> types.ModuleType:
    """open_clip.loss."""
    return load("open_clip.loss", "open_clip")


def info_nce(b, *negatives: Tensor, **options) -> Tensor:
    import info_nce

    return info_nce.InfoNCE(b.temperature, **options)(b.z, b.z_prime, *negatives)


def metric_learning(name: str, b, labels: Tensor | None = None, **options) -> Tensor:
    from pytorch_metric_learning import losses

    loss = getattr(losses, name)(b.temperature)
    if labels is None:
        return losses.SelfSupervisedLoss(loss, **options)(b.z, b.z_prime)
    return loss(torch.cat([b.z, b.z_prime]), labels)


def lightly(name: str, module: str, b, **options) -> Tensor:
    return getattr(lightly_module(module), name)(b.temperature, **options)(b.z, b.z_prime)


def lightly_queue(b) -> Tensor:
    loss = lightly_module("ntx_ent_loss").NTXentLoss(b.temperature, memory_bank_size=tuple(b.queue.shape)).double()
    loss.memory_bank.bank.copy_(b.queue)
    return loss(b.z, b.z_prime)


def open_clip(name: str, b, *bias: float) -> Tensor:
    z, z_prime = F.normalize(b.z, dim=1), F.normalize(b.z_prime, dim=1)
    return getattr(open_clip_module(), name)()(z, z_prime, 1 / b.temperature, *bias)


def sentence_transformers(b, *columns: Tensor, **options) -> Tensor:
    """The encoder is one that has encoded already."""
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    class Encoded(nn.Module):
        def forward(self, features):
            return {"sentence_embedding": features["latents"]}

    loss = MultipleNegativesRankingLoss(Encoded(), scale=1 / b.temperature, **options)
    return loss([{"latents": latents} for latents in (b.z, b.z_prime, *columns)], None)


def torch_smoothed(b) -> Tensor:
    return F.cross_entropy(b.scores, torch.arange(len(b.z)), label_smoothing=0.1)
