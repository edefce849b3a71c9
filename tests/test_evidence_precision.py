"""dataset_evidence in float32 and half precision: extreme latents, the bound log N, a GPU, and many pairs."""

import copy
import math
import subprocess
import sys

import pytest
import torch
from evidence_cases import CRITICS, DIM, agree_each, by_table, each_critic, each_half, each_way, gradients, made, pairs
from residuals import agree
from torch.nn import functional as F

import rpm_tutorial as rpm
from rpm_tutorial import dataset_evidence

EXTREMES = {  # n and the rest of `pairs`
    "identical rows": (9, {}),
    "ties": (20, {}),
    "1000 away": (20, {"offset": 1000}),
    "scores beyond 1e4": (20, {"size": 70}),
    "pairs of opposites": (20, {"size": -70}),
}
# How far the sum of the pairs' gradients may be off: scores of 200, or of 1000 not centred, are rounded themselves.
GRADIENTS = {"sharp": 0.05, "BothBiases": 0.05, "Universal": 0.01}


@each_way
@pytest.mark.parametrize("kind", EXTREMES)
@each_critic
def test_extremes_in_float32_are_those_of_the_whole_table_in_float64(name, kind, way):
    n, options = EXTREMES[kind]
    z, z_prime = (t.detach().float().double() for t in pairs(n, **options))
    if kind == "identical rows":
        z, z_prime = (t[:1].expand(n, DIM) for t in (z, z_prime))
    elif kind == "ties":
        z, z_prime = (t[torch.arange(n) // 4] for t in (z, z_prime))
    elif kind == "pairs of opposites":
        z_prime = -z
    critic = made(name, reach=6 * max(1, abs(options.get("size", 1))))  # no pair may forbid itself
    high = [t.clone().requires_grad_() for t in (z, z_prime)]
    low = [t.detach().float().requires_grad_() for t in (z, z_prime)]
    dense = by_table(critic, *high, "both").mean() + math.log(n)
    expected = gradients(n * dense, *high, critic)
    found = way(*low, critic.float(), normalise="both").value
    agree(f"float32 = float64: {kind}, value", found, dense, tolerance=2e-5)
    slopes = gradients(n * found, *low, critic)
    agree_each(f"float32 = float64: {kind}, gradients", slopes, expected, tolerance=GRADIENTS.get(name, 1e-4))


def test_a_view_that_is_alike_to_itself_alone_says_nothing_of_its_partner():
    """f(z,z) = exp(1 / 0.005): a normaliser from which it was subtracted would have no digits left."""
    z, z_prime = (F.normalize(t.detach().float()) for t in pairs(40, noise=2.0))
    exact = by_table(made("sharp"), z.double(), z_prime.double(), "views").mean() + math.log(80)
    found = dataset_evidence(z, z_prime, made("sharp", torch.float32), normalise="views").value
    agree("(E14) of views in float32", found, exact, tolerance=1e-5)


@each_way
@pytest.mark.parametrize("normalise", ["rows", "columns", "both"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_no_row_exceeds_log_n_not_even_by_rounding(normalise, dtype, way):
    for name, n, dim in (("sharp", 30, 64), ("sharp", 1, 3), ("RandomWalk", 30, 8), ("LaplaceWalk", 30, 8)):
        z = 3 * torch.randn(n, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
        log_n, critic = torch.tensor(math.log(n), dtype=dtype), made(name, dtype)
        for reduction in ("none", "mean"):  # every pair is perfect, and the parameter asks for a gradient
            found = way(z, z, critic, normalise=normalise, reduction=reduction)
            assert (found.value <= log_n).all() and (found.log_evidence <= -log_n).all()
            assert found.value.mean() >= 0.9 * log_n


@each_half
@pytest.mark.parametrize("kind", ["both sides", "small tiles", "views", "a queue"])
@pytest.mark.parametrize("name", ["RandomWalk", "LaplaceWalk", "sharp", "Entangled"])
def test_half_precision_is_float32_of_the_same_numbers(name, kind, dtype):
    critic, sides = made(name, dtype), pairs(100, dtype=dtype)
    queue = {"candidates": pairs(9, dtype=dtype)[0]} if kind == "a queue" else {}
    options = {
        "both sides": {"normalise": "both"},
        "small tiles": {"block": 16, "reduction": "none"},
        "views": {"normalise": "views"},
        "a queue": {},
    }[kind]
    same, same_queue = [t.detach().float().requires_grad_() for t in sides], {n: t.float() for n, t in queue.items()}
    same_critic = copy.deepcopy(critic).float()
    found = dataset_evidence(*sides, critic, **options, **queue).value
    expected = dataset_evidence(*same, same_critic, **options, **same_queue).value
    assert found.dtype == torch.float32
    agree("half precision = float32: value", found, expected, tolerance=2e-6)
    slopes = gradients(found.mean(), *sides, critic), gradients(expected.mean(), *same, same_critic)
    for one, other in zip(*slopes, strict=True):
        assert one.dtype == dtype
        assert (one.float() - other).norm() <= 2 * torch.finfo(dtype).eps * other.norm()


@pytest.mark.parametrize("name, n, weight", [("RandomWalk", 1000, 1 / 16), ("Universal", 320, 1e-3)])
def test_half_precision_gradients_do_not_vanish_in_a_long_mean(name, n, weight):
    """A softmax weight / N underflows in float16, and so does each small tile's part of a parameter's gradient."""
    critic, sides = made(name, torch.float16), pairs(n, dtype=torch.float16, noise=1.0)
    block = 16 if name == "Universal" else None
    slopes = []
    for of, latents in ((critic, sides), (copy.deepcopy(critic).float(), [t.detach().float() for t in sides])):
        inputs = [of.a[0].weight, of.b[2].weight] if block else [t.requires_grad_() for t in latents]
        value = dataset_evidence(*latents, of, block=block).infonce
        slopes.append(torch.autograd.grad(weight * value, inputs))
    for one, other in zip(*slopes, strict=True):
        assert (one.float() - other).norm() < 0.05 * other.norm()


@each_way
@pytest.mark.parametrize("name", ["sharp", "Universal", "LaplaceWalk"])
def test_autocast_changes_nothing(name, way):
    """Scores rounded to bfloat16 in one pass and not in the other would bend the gradient by some per cent."""
    critic, (z, z_prime) = made(name, torch.float32), pairs(40, dtype=torch.float32)
    plain = way(z, z_prime, critic).infonce
    with torch.autocast("cpu", torch.bfloat16):
        cast = way(z, z_prime, critic).infonce
    slopes = (gradients(value, z, z_prime, critic) for value in (cast, plain))  # outside, as torch asks for
    assert torch.equal(cast, plain) and all(map(torch.equal, *slopes))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: torch.cuda.is_available() is False")
def test_a_gpu_gives_the_numbers_of_the_processor_in_a_small_part_of_the_table_s_memory():
    for name in CRITICS:
        results = []
        for device in ("cpu", "cuda"):
            sides, critic = [t.detach().to(device).requires_grad_() for t in pairs(500)], made(name).to(device)
            values = [dataset_evidence(*sides, critic, normalise="both", block=block).value for block in (None, 100)]
            slopes = [slope for value in values for slope in gradients(500 * value, *sides, critic)]
            results.append([part.cpu() for part in (*values, *slopes)])
        agree_each("(E14) on a GPU", *results, tolerance=1e-10)
    n = 60_000
    sides = [t.detach().cuda().requires_grad_() for t in pairs(n, dtype=torch.float32)]
    for name in ("LaplaceWalk", "sharp"):
        torch.cuda.reset_peak_memory_stats()
        dataset_evidence(*sides, made(name, torch.float32).cuda(), normalise="both").value.backward()
        assert torch.cuda.max_memory_allocated() < 4 * n * n / 4


@pytest.mark.slow
@torch.no_grad()
def test_ten_thousand_pairs_keep_six_digits():
    """They are 2000 pairs, each 5 times: Z is a mean, so that their I_N is exactly that of the 2000."""
    few, critic = pairs(2000), rpm.VonMisesFisher(0.1)
    many = dataset_evidence(*(t.float().repeat(5, 1) for t in few), critic).value
    exact = dataset_evidence(*few, critic.double()).value
    agree("float32 = float64 of many pairs", many / exact, 1.0, tolerance=1e-6)


MEASURE = """
import resource, torch, rpm_tutorial as rpm
def peak(n):
    z, z_prime = torch.randn(2, n, 8)
    for critic in (rpm.VonMisesFisher(0.1), rpm.LaplaceWalk()):
        rpm.dataset_evidence(z.requires_grad_(), z_prime, critic).infonce.backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(-peak(2000) + peak(20_000))"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in KiB on Linux alone")
def test_twenty_thousand_pairs_with_gradient_need_a_small_part_of_the_tables_memory():
    assert int(subprocess.check_output([sys.executable, "-c", MEASURE])) < 200  # MiB; one table has 1526
