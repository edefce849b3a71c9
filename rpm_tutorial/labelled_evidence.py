"""Where the nats of InfoNCE go (E24): what says which class x' has, and what says which of its class it is."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ._log_space import float64
from .evidence import dataset_evidence, label_numbers


class LabelEvidence(NamedTuple):
    """InfoNCE of N pairs and its two parts, `label` + `instance` = `infonce`, each 0 at chance, in nats per pair.

    `label` is log P(c|x) above that of the label's frequency, at most the entropy of the labels; `instance` is
    log P(x'|x, c) above 1/n_c, the InfoNCE among the n_c pairs of the same label. Source: (E24).
    """

    label: Tensor
    instance: Tensor
    infonce: Tensor


@torch.no_grad()
def label_evidence(z: Tensor, z_prime: Tensor, critic: nn.Module, labels: Tensor | Sequence) -> LabelEvidence:
    """How much of the evidence of N encoded pairs tells labels apart, and how much the pairs of one label. Source: (E24).

    log P(x'|x) = log P(c|x) + log P(x'|x, c) for any labels c of the pairs, with P(c_i|x_i) = sum_{j: c_j = c_i} f_ij / sum_j f_ij.
    Exact, in O(N) memory, without gradients: the evidence of all pairs and that of each label's pairs.

    Args:
        z, z_prime, critic: as for `dataset_evidence`.
        labels: N labels, one a pair: numbers or words, of which equal ones are one class.
    Raises:
        ValueError: as `dataset_evidence`; labels are not one a pair; a pair of f = 0, whose evidence is -inf.

    Example, of latents that tell classes apart and nothing within a class:

        >>> labels = torch.arange(100) % 10
        >>> z = torch.nn.functional.one_hot(labels).double()
        >>> label_evidence(z, z, VonMisesFisher(0.01).double(), labels)      # label: log 10 = 2.30; instance: 0
    """
    label_of = label_numbers(labels, z).cpu().numpy()
    everything = dataset_evidence(z, z_prime, critic, reduction="none")
    if not everything.infonce.isfinite().all():
        first = int((~everything.infonce.isfinite()).nonzero()[0])
        raise ValueError(
            f"pair {first} has f = 0, so that its evidence is -inf; expected finite scores of the pairs. "
            "Look at critic(z, z_prime) for it, or leave the pair out"
        )
    infonce = float64(everything.infonce).mean()
    instance = torch.zeros_like(infonce)
    for pairs in np.split(label_of.argsort(kind="stable"), np.bincount(label_of).cumsum()[:-1]):
        if len(pairs) > 1:  # of one pair alone, nothing is left to tell apart
            own = torch.from_numpy(pairs).to(z.device)
            found = dataset_evidence(z[own], z_prime[own], critic, reduction="none").infonce
            instance += float64(found).sum() / len(z)
    parts = infonce - instance, instance, infonce
    return LabelEvidence(*(part.to(everything.infonce) for part in parts))
