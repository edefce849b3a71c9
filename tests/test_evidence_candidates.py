"""dataset_evidence with other candidates than the other side's: a queue, and NT-Xent's views."""

import math

import pytest
import torch
from evidence_cases import agree_each, each_critic, each_way, gradients, made, pairs
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
