"""label_evidence: the evidence splits over any labels of the pairs (E24)."""

import math

import pytest
import torch
from evidence_cases import each_critic, made, pairs
from residuals import agree

import rpm_tutorial as rpm
from rpm_tutorial import label_evidence

LABELS = torch.tensor([3, 1, 3, 0, 1, 3, 3, 0, 3, 7] * 3 + [8])  # of unequal sizes; one label has one pair


def by_table(log_f, labels):
    """Both parts from the whole table, as (E24) states them."""
    same = labels[:, None] == labels
    log_p = log_f.log_softmax(1)
    log_label = log_p.masked_fill(~same, -torch.inf).logsumexp(1)  # log P(c_i|x_i)
    label, within = log_label - same.double().mean(1).log(), log_p.diagonal() - log_label  # log P(x'_i|x_i, c_i)
    return label.mean(), (within + same.double().sum(1).log()).mean()


@each_critic
def test_the_parts_are_those_of_the_table_and_add_up_whatever_the_order(name):
    (z, z_prime), critic = pairs(len(LABELS)), made(name, reach=3)
    for order in (torch.arange(len(LABELS)), torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(0))):
        labels = LABELS[order]
        found = label_evidence(z, z_prime, critic, labels)
        label, instance = by_table(critic(z, z_prime), labels)
        agree("(E24), label nats", found.label, label, tolerance=1e-12)
        agree("(E24), instance nats", found.instance, instance, tolerance=1e-12)
        agree("(E24)", found.label + found.instance, rpm.dataset_evidence(z, z_prime, critic).infonce, tolerance=1e-12)
        entropy = -(torch.bincount(labels) / len(labels)).double().log()[labels].mean()
        assert found.label <= entropy + 1e-6 and not found.infonce.requires_grad


def test_names_of_labels_do_not_count():
    sides, critic = pairs(len(LABELS)), rpm.RandomWalk().double()
    expected = torch.stack(label_evidence(*sides, critic, LABELS))
    words = [f"class {(5 * label + 2) % 11}" for label in LABELS.tolist()]
    for other in (LABELS.numpy(), LABELS.tolist(), words, LABELS.double()):
        agree("(E24), renamed labels", torch.stack(label_evidence(*sides, critic, other)), expected)


def test_one_label_for_all_earns_nothing_and_a_label_each_earns_everything():
    sides, critic = pairs(12), rpm.VonMisesFisher(0.3).double()
    one, each = (label_evidence(*sides, critic, labels) for labels in (torch.zeros(12), torch.arange(12)))
    agree("(E24), one label", one.label, 0.0)
    agree("(E24), a label each", each.label, each.infonce)
    assert each.instance == 0 and one.instance == one.infonce == each.infonce


def test_half_precision_keeps_its_digits():
    z, z_prime = (side.bfloat16() for side in pairs(len(LABELS)))
    low = label_evidence(z, z_prime, rpm.RandomWalk(0.7).bfloat16(), LABELS)
    high = label_evidence(z.double(), z_prime.double(), rpm.RandomWalk(0.7).bfloat16().double(), LABELS)
    assert low.label.dtype == torch.float32
    agree("(E24) in half precision", torch.stack(low), torch.stack(high), tolerance=1e-5)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.zeros(5), r"labels has shape \(5,\) for 6 pairs; expected \(6,\)"),
        (torch.zeros(6, 1), r"labels has shape \(6, 1\) for 6 pairs"),
        (3, r"labels has shape \(\) for 6 pairs"),
        ([None, 1, None, 2, 1, 3], "2 labels are missing .*: leave those pairs out"),
        ([math.nan, 1, math.nan, 2, 1, 3], "2 labels are missing .*: leave those pairs out"),
    ],
)
def test_labels_that_are_not_one_a_pair_are_refused(labels, words):
    for call in (label_evidence, lambda *pair, labels: rpm.dataset_evidence(*pair, labels=labels)):
        with pytest.raises(ValueError, match=words):
            call(*pairs(6), made("RandomWalk"), labels=labels)


class Gap(torch.nn.Module):
    def forward(self, z, z_prime):
        return (z + z_prime.T).masked_fill((z == 2) & (z_prime.T == 2), -torch.inf)


def test_a_pair_that_the_model_excludes_is_refused():
    z = torch.arange(4.0)[:, None]
    with pytest.raises(ValueError, match="pair 2 has f = 0, so that its evidence is -inf"):
        label_evidence(z, z, Gap(), torch.zeros(4))
