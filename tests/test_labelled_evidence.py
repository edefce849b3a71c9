"""label_evidence: the evidence splits over any labels of the pairs (E24)."""

import pytest
import torch
from evidence_cases import Masked, each_critic, made, pairs
from residuals import agree

import rpm_tutorial as rpm
from rpm_tutorial import label_evidence

LABELS = torch.tensor([3, 1, 3, 0, 1, 3, 3, 0, 3, 7] * 3 + [8])  # of unequal sizes; one label has one pair


def by_table(log_f, labels):
    """Both parts from the whole table, as (E24) states them."""
    same = labels[:, None] == labels
    frequency = same.double().mean(1).log()
    log_p = log_f.log_softmax(1)
    log_label = log_p.masked_fill(~same, -torch.inf).logsumexp(1)  # log P(c_i|x_i)
    within = log_p.diagonal() - log_label  # log P(x'_i|x_i, c_i)
    return (log_label - frequency).mean(), (within + same.double().sum(1).log()).mean()


@each_critic
@pytest.mark.parametrize("shuffled", [False, True])
def test_the_parts_are_those_of_the_table_and_add_up(name, shuffled):
    (z, z_prime), critic = pairs(len(LABELS)), made(name)
    labels = LABELS[torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(0))] if shuffled else LABELS
    if name == "Masked":
        critic = Masked(reach=3.0).double()
    found = label_evidence(z, z_prime, critic, labels)
    label, instance = by_table(critic(z, z_prime).detach(), labels)
    agree("(E24), label nats", found.label, label, tolerance=1e-12)
    agree("(E24), instance nats", found.instance, instance, tolerance=1e-12)
    agree("(E24)", found.label + found.instance, rpm.dataset_evidence(z, z_prime, critic).infonce, tolerance=1e-12)
    entropy = -(torch.bincount(labels) / len(labels)).double().log()[labels].mean()
    assert found.label <= entropy + 1e-6 and not found.infonce.requires_grad


def test_names_of_labels_do_not_count():
    (z, z_prime), critic = pairs(len(LABELS)), rpm.RandomWalk().double()
    words = [f"class {(5 * label + 2) % 11}" for label in LABELS.tolist()]
    for other in (LABELS.numpy(), LABELS.tolist(), words, LABELS.double()):
        found, expected = (torch.stack(label_evidence(z, z_prime, critic, labels)) for labels in (other, LABELS))
        agree("(E24), renamed labels", found, expected)


def test_one_label_for_all_earns_nothing_and_a_label_each_earns_everything():
    (z, z_prime), critic = pairs(12), rpm.VonMisesFisher(0.3).double()
    one, each = (label_evidence(z, z_prime, critic, labels) for labels in (torch.zeros(12), torch.arange(12)))
    agree("(E24), one label", one.label, 0.0)
    agree("(E24), a label each", each.label, each.infonce)
    assert each.instance == 0 and one.instance == one.infonce == each.infonce


def test_half_precision_keeps_its_digits():
    (z, z_prime), critic = pairs(len(LABELS)), rpm.RandomWalk(0.7)
    low = label_evidence(z.detach().bfloat16(), z_prime.detach().bfloat16(), critic.bfloat16(), LABELS)
    high = label_evidence(z.bfloat16().double(), z_prime.bfloat16().double(), critic.double(), LABELS)
    assert low.label.dtype == torch.float32
    agree("(E24) in half precision", torch.stack(low), torch.stack(high), tolerance=1e-5)


@pytest.mark.parametrize("labels", [torch.zeros(5), torch.zeros(6, 1), 3])
def test_labels_of_another_shape_are_refused(labels):
    with pytest.raises(ValueError, match=r"labels has shape \(.*\) for 6 pairs; expected \(6,\)"):
        label_evidence(*pairs(6), rpm.RandomWalk().double(), labels)


def test_a_pair_that_the_model_excludes_is_refused():
    z = torch.tensor([[0.0], [0.1], [5.0], [0.3]]).double()
    z_prime = torch.tensor([[0.0], [0.1], [0.2], [0.3]]).double()

    class Gap(torch.nn.Module):
        def forward(self, z, z_prime):
            step = (z[:, None] - z_prime).sum(2)
            return step.masked_fill((step - 4.8).abs() < 0.05, -torch.inf)

    with pytest.raises(ValueError, match="pair 2 has f = 0, so that its evidence is -inf"):
        label_evidence(z, z_prime, Gap(), torch.zeros(4))
