"""dataset_evidence with other candidates than the other side's, or more partners than one: a queue, NT-Xent's views, labels."""

import math

import pytest
import torch
from evidence_cases import Masked, agree_each, each_critic, each_side, each_way, gradients, made, pairs
from residuals import agree
from torch.nn import functional as F

import rpm_tutorial as rpm
from rpm_tutorial import dataset_evidence


def queue(k: int, dtype=torch.float64) -> torch.Tensor:
    return pairs(50 + k)[0].detach()[:k].to(dtype).requires_grad_()


@each_critic
@each_way
def test_further_candidates_are_further_columns_of_the_dense_table(name, way):
    critic, (z, z_prime), further = made(name), pairs(7), queue(4)
    log_f = critic(z, torch.cat([z_prime, further]))
    dense = rpm.infonce(log_f).value
    found = way(z, z_prime, critic, candidates=further)
    agree("(E14), further candidates: value", found.value, dense)
    agree("(E14), further candidates: log evidence", found.log_evidence, dense - math.log(7) - math.log(11))
    log_p = log_f.log_softmax(1).diagonal() - math.log(7)  # P(x_i, x'_j) = f_ij / (7 sum_j f_ij) of 7 x 11 pairs
    agree("(E14), further candidates: P(x,x')", found.log_evidence, log_p.mean())
    assert found.n == 7 and found.objective == "infonce"
    expected, slopes = (
        [*torch.autograd.grad(value, further, retain_graph=True), *gradients(value, z, z_prime, critic)]
        for value in (dense, found.value)
    )
    agree_each("(E14), further candidates: gradients", slopes, expected)
    each = way(z, z_prime, critic, candidates=further, reduction="none").value
    agree("(E14), further candidates: each pair", each, rpm.infonce(log_f, reduction="none").value)


def views(critic, z, z_prime) -> torch.Tensor:
    """NT-Xent's table, the other view's column on the diagonal, and f = 0 where a view would meet itself."""
    both = torch.cat([z, z_prime])
    log_f = critic(both, both).masked_fill(torch.eye(len(both), dtype=torch.bool), -torch.inf)
    return log_f.roll(len(z), 1)


@each_critic
@each_way
def test_over_the_views_of_both_sides_it_is_nt_xent_without_its_table(name, way):
    critic, (z, z_prime) = made(name), pairs(7)
    log_f = views(critic, z, z_prime)
    dense = rpm.infonce(log_f).value
    found = way(z, z_prime, critic, normalise="views")
    agree("(E14) of views: value", found.value, dense)
    agree("(E14) of views: log evidence", found.log_evidence, dense - 2 * math.log(14))
    assert found.n == 14 and found.infonce is found.value
    slopes = gradients(found.value, z, z_prime, critic), gradients(dense, z, z_prime, critic)
    agree_each("(E14) of views: gradients", *slopes)
    each = way(z, z_prime, critic, normalise="views", reduction="none").value
    agree("(E14) of views: each pair", each, rpm.infonce(log_f, reduction="none").value.view(2, 7).mean(0))


@pytest.mark.parametrize("n, block", [(1, 4), (8, 4), (9, 16), (13, 1)])
def test_tiles_of_any_size_hide_each_view_from_itself(n, block):
    critic, (z, z_prime) = made("LaplaceWalk"), pairs(n)
    found = dataset_evidence(z, z_prime, critic, normalise="views", block=block).value
    agree("(E14) of views: any tiles", found, rpm.infonce(views(critic, z, z_prime)).value)
    assert all(slope.isfinite().all() for slope in gradients(found, z, z_prime, critic))


def test_a_view_that_is_alike_to_itself_alone_says_nothing_of_its_partner():
    """f(z,z) = exp(1 / 0.005): a normaliser from which it was subtracted would have no digits left."""
    z, z_prime = (F.normalize(t.detach().float()) for t in pairs(40, noise=2.0))
    critic = made("sharp", torch.float32)
    exact = rpm.infonce(views(critic.double(), z.double(), z_prime.double())).value
    found = dataset_evidence(z, z_prime, critic.float(), normalise="views").value
    agree("(E14) of views in float32", found, exact, tolerance=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["a queue", "views"])
def test_half_precision_is_float32_of_the_same_numbers(kind, dtype):
    critic, (z, z_prime), further = made("RandomWalk", dtype), pairs(60, dtype=dtype), queue(9, dtype)
    options = {"candidates": further} if kind == "a queue" else {"normalise": "views"}
    exact = {"candidates": further.float()} if kind == "a queue" else options
    found = dataset_evidence(z, z_prime, critic, **options)
    expected = dataset_evidence(z.float(), z_prime.float(), made("RandomWalk", dtype).float(), **exact)
    assert found.value.dtype == torch.float32
    agree("half precision = float32: other candidates", found.value, expected.value, tolerance=2e-6)
    if kind == "a queue":
        assert torch.autograd.grad(found.value, further)[0].dtype == dtype


# Several partners: all pairs of one label

LABELS = torch.tensor([3, 1, 3, 0, 1, 3, 3, 0, 3, 7])  # of unequal sizes; one label has one pair


OF_TABLE = {
    "rows": rpm.infonce,
    "columns": lambda log_f, q: rpm.infonce(log_f.T, q.T),
    "both": rpm.symmetric_infonce,
}


def shared_mass(labels: torch.Tensor) -> torch.Tensor:
    """q_joint: 1/N for each row, in equal parts for its partners."""
    same = (labels[:, None] == labels).double()
    return same / same.sum(1, keepdim=True) / len(labels)


@each_critic
@each_side
def test_pairs_of_one_label_are_partners_as_q_joint_has_it(name, normalise):
    critic, (z, z_prime) = made(name), pairs(len(LABELS))
    if name == "Masked":
        critic = Masked(reach=100.0).double()
    for block in (3, None):
        dense = OF_TABLE[normalise](critic(z, z_prime), shared_mass(LABELS)).value
        found = dataset_evidence(z, z_prime, critic, labels=LABELS, normalise=normalise, block=block)
        agree("(E14), partners by label: value", found.value, dense)
        slopes = gradients(found.value, z, z_prime, critic), gradients(dense, z, z_prime, critic)
        agree_each("(E14), partners by label: gradients", *slopes)
        options = {"labels": LABELS, "normalise": normalise, "reduction": "none", "block": block}
        each = dataset_evidence(z, z_prime, critic, **options).value
        agree("(E14), partners by label: each pair", each.mean(), dense)


@each_critic
def test_views_of_one_label_are_the_partners_of_supcon(name):
    critic, (z, z_prime) = made(name), pairs(len(LABELS))
    both, labels = torch.cat([z, z_prime]), LABELS.repeat(2)
    itself = torch.eye(len(both), dtype=torch.bool)
    log_p = critic(both, both).masked_fill(itself, -torch.inf).log_softmax(1)
    partners = (labels[:, None] == labels) & ~itself
    loss = -(log_p.masked_fill(~partners, 0).sum(1) / partners.sum(1)).mean()
    found = dataset_evidence(z, z_prime, critic, labels=LABELS, normalise="views").value
    agree("(E14), partners by label: SupCon", math.log(len(both)) - found, loss)
    slopes = gradients(-found, z, z_prime, critic), gradients(loss, z, z_prime, critic)
    agree_each("(E14), partners by label: SupCon's gradients", *slopes)


def test_a_queue_has_no_partner_among_the_pairs():
    critic, (z, z_prime), further = made("RandomWalk"), pairs(len(LABELS)), queue(4)
    log_f, q = critic(z, torch.cat([z_prime, further])), F.pad(shared_mass(LABELS), (0, 4))
    dense = rpm.infonce(log_f, q, q_z_prime=torch.full((14,), 1 / 14, dtype=q.dtype)).value
    found = dataset_evidence(z, z_prime, critic, labels=LABELS, candidates=further).value
    agree("(E14), partners by label: a queue", found, dense)


def test_a_label_each_is_no_label_and_one_for_all_is_chance():
    critic, (z, z_prime) = made("LaplaceWalk"), pairs(12)
    plain = dataset_evidence(z, z_prime, critic)
    each = dataset_evidence(z, z_prime, critic, labels=[f"pair {i}" for i in range(12)])
    agree("(E14), partners by label: a label each", each.value, plain.value)
    assert dataset_evidence(z, z_prime, critic, labels=[0] * 12).value < 0
    with pytest.raises(ValueError, match=r"labels has shape \(3,\) for 12 pairs"):
        dataset_evidence(z, z_prime, critic, labels=[0, 1, 2])


@pytest.mark.parametrize("missing", [None, math.nan])
def test_missing_labels_are_no_class_of_their_own(missing):
    for of in (dataset_evidence, lambda *pair, labels: rpm.label_evidence(*pair, labels)):
        with pytest.raises(ValueError, match="2 labels are missing .*: leave those pairs out"):
            of(*pairs(6), made("RandomWalk"), labels=[missing, 1, missing, 2, 1, 3])
