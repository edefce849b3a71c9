"""dataset_evidence in float32 and half precision: extreme latents, the bound log N, a GPU, and N = 60 000."""

import copy
import json
import math
import subprocess
import sys

import pytest
import torch
from evidence_cases import (
    CRITICS,
    DENSE,
    DIM,
    agrees_with_the_dense_table,
    each_critic,
    each_way,
    gradients,
    made,
    pairs,
)
from residuals import MEASURED, agree

import rpm_tutorial as rpm
from rpm_tutorial import dataset_evidence


@each_way
@pytest.mark.parametrize("kind", ["strided", "transposed", "expanded", "some columns"])
@pytest.mark.parametrize("name", ["RandomWalk", "Universal", "LaplaceWalk", "Entangled"])
def test_the_layout_of_the_latents_in_memory_does_not_matter(name, kind, way):
    z, z_prime = (t.detach() for t in pairs(14))
    views = {
        "strided": lambda t: t[::2],
        "transposed": lambda t: t[:7].T.contiguous().T,
        "expanded": lambda t: t[:1].expand(7, DIM),
        "some columns": lambda t: torch.cat([t, t], 1)[:7, 1 : 1 + DIM],
    }
    agrees_with_the_dense_table(way, made(name), views[kind](z).requires_grad_(), z_prime[:7].requires_grad_())
    agrees_with_the_dense_table(way, made(name), z[:7].requires_grad_(), views[kind](z_prime).requires_grad_())


EXTREMES = {  # n and the rest of `pairs`
    "one pair": (1, {}),
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
def test_extremes_in_float32_are_those_of_the_dense_table_in_float64(name, kind, way):
    n, options = EXTREMES[kind]
    z, z_prime = (t.detach().float().double() for t in pairs(n, **options))
    if kind == "identical rows":
        z, z_prime = (t[:1].expand(n, DIM) for t in (z, z_prime))
    elif kind == "ties":
        z, z_prime = (t[torch.arange(n) // 4] for t in (z, z_prime))
    elif kind == "pairs of opposites":
        z_prime = -z
    critic = made(name)
    if name == "Masked":
        critic.reach *= max(1, abs(options.get("size", 1)) * 4)  # no pair may forbid itself
    high = [t.clone().requires_grad_() for t in (z, z_prime)]
    low = [t.detach().float().requires_grad_() for t in (z, z_prime)]
    dense = rpm.symmetric_infonce(critic(*high)).value
    expected = gradients(n * dense, *high, critic)
    found = way(*low, critic.float(), normalise="both").infonce
    agree(f"float32 = float64: {kind}, value", found, dense, tolerance=2e-5)
    if kind in ("one pair", "identical rows"):
        agree(
            f"float32: {kind}, no information", found, 0.0, tolerance=0 if n == 1 else 2e-5 if name == "sharp" else 1e-6
        )
    for one, other in zip(gradients(n * found, *low, critic), expected, strict=True):
        agree(f"float32 = float64: {kind}, gradients", one, other, tolerance=GRADIENTS.get(name, 1e-4))


@each_way
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("normalise", DENSE)
def test_no_row_exceeds_log_n_not_even_by_rounding(normalise, dtype, way):
    for name, n, dim in (
        ("sharp", 30, 64),
        ("sharp", 1, 3),
        ("sharp", 30, 2),
        ("RandomWalk", 30, 8),
        ("LaplaceWalk", 30, 8),
    ):
        z = 3 * torch.randn(n, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
        log_n, critic = torch.tensor(math.log(n), dtype=dtype), made(name, dtype)
        for reduction in ("none", "mean"):  # every pair is perfect, and the parameter asks for a gradient
            found = way(z, z, critic, normalise=normalise, reduction=reduction)
            assert (found.infonce <= log_n).all() and (found.log_evidence <= -log_n).all()
            assert found.infonce.mean() >= 0.9 * log_n or dim == 2


@pytest.mark.parametrize("name", ["RandomWalk", "LaplaceWalk", "LinearDynamics", "Bilinear"])
def test_latents_a_thousand_away_from_the_origin_keep_their_evidence_in_float32(name):
    z, z_prime = pairs(300, dtype=torch.float32, offset=1000)
    high = dataset_evidence(z.double(), z_prime.double(), made(name)).infonce
    for options in ({}, {"block": 64}):
        low = dataset_evidence(z, z_prime, made(name, torch.float32), **options).infonce
        agree("float32 evidence 1000 away from 0", low, high, tolerance=1e-6)


each_half = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


@each_half
@pytest.mark.parametrize("name", ["RandomWalk", "LaplaceWalk", "VonMisesFisher", "Bilinear", "Entangled"])
def test_half_precision_is_float32_of_the_same_numbers(name, dtype):
    critic, (z, z_prime) = made(name, dtype), pairs(300, dtype=dtype)
    same = [t.detach().float().requires_grad_() for t in (z, z_prime)]
    same_critic = copy.deepcopy(critic).float()
    for options in ({"normalise": "both"}, {"block": 64}, {"reduction": "none", "normalise": "columns"}):
        found, expected = (
            dataset_evidence(z, z_prime, critic, **options),
            dataset_evidence(*same, same_critic, **options),
        )
        assert found.infonce.dtype == found.log_evidence.dtype == torch.float32
        agree("half precision = float32: value", found.infonce, expected.infonce, tolerance=2e-6)
        for one, other in zip(
            gradients(found.infonce.mean(), z, z_prime, critic),
            gradients(expected.infonce.mean(), *same, same_critic),
            strict=True,
        ):
            assert one.dtype == dtype
            assert (one.float() - other).norm() <= 2 * torch.finfo(dtype).eps * other.norm()


@each_half
@pytest.mark.parametrize("share", [1, 1 / 16])
def test_half_precision_gradients_do_not_vanish_in_a_long_mean(share, dtype):
    """1/16 of the mean of 1000 pairs weighs each as 16 000 pairs do: softmax weight / N underflows in float16."""
    z, z_prime = pairs(1000, dtype=dtype, noise=1.0)
    exact = [t.detach().float().requires_grad_() for t in (z, z_prime)]
    found = torch.autograd.grad(
        share * dataset_evidence(z, z_prime, rpm.RandomWalk(2.0).to(dtype)).infonce, (z, z_prime)
    )
    expected = torch.autograd.grad(share * dataset_evidence(*exact, rpm.RandomWalk(2.0)).infonce, exact)
    for one, other in zip(found, expected, strict=True):
        error = ((one.float() - other).norm() / other.norm()).item()
        assert error < 0.05, f"the gradient is off by {error:.0%} of its length"


def test_half_precision_parameters_keep_what_many_small_tiles_add_up_to():
    """Each tile's part of a gradient is a float16, too: with 1/N in it already, it would be zero."""
    (z, z_prime), critic = (t.detach() for t in pairs(320, dtype=torch.float16, noise=1.0)), made("Universal")
    found, expected = (
        torch.autograd.grad(
            1e-3 * dataset_evidence(z.to(c.a[0].weight.dtype), z_prime.to(c.a[0].weight.dtype), c, block=16).infonce,
            [c.a[0].weight, c.a[4].weight, c.b[0].weight, c.b[2].weight],
        )
        for c in (critic.half(), copy.deepcopy(critic).float())
    )
    for one, other in zip(found, expected, strict=True):
        assert (one.float() - other).norm() < 0.05 * other.norm()


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason="no CUDA device: torch.cuda.is_available() is False; it needs an NVIDIA GPU and a torch built for CUDA",
)
def test_a_gpu_gives_the_numbers_of_the_processor_in_a_small_part_of_the_table_s_memory():
    for name in CRITICS:
        for options in ({"normalise": "both"}, {"normalise": "both", "block": 100}):
            results = []
            for device in ("cpu", "cuda"):
                z, z_prime = (t.detach().to(device).requires_grad_() for t in pairs(500))
                critic = made(name).to(device)
                value = dataset_evidence(z, z_prime, critic, **options).infonce
                results.append([value, *gradients(500 * value, z, z_prime, critic)])
            for one, other in zip(*results, strict=True):
                agree("(E14) on a GPU", other.cpu(), one, tolerance=1e-10)
    n = 60_000
    for name in ("LaplaceWalk", "VonMisesFisher"):
        z, z_prime = (t.detach().cuda().requires_grad_() for t in pairs(n, dtype=torch.float32))
        torch.cuda.reset_peak_memory_stats()
        dataset_evidence(z, z_prime, made(name, torch.float32).cuda(), normalise="both").infonce.backward()
        peak = torch.cuda.max_memory_allocated()
        MEASURED.append(f"dataset_evidence on a GPU, {name}, N = {n}: peak {peak / 2**20:.0f} MiB")
        assert peak < 4 * n * n / 4


MEASURE = """
import json, sys, time, torch
from rpm_tutorial import VonMisesFisher, dataset_evidence

def memory(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(field))

def measured(z, z_prime, learn=False):
    z = z.clone().requires_grad_(learn)
    before, start = memory("VmRSS"), time.perf_counter()
    with torch.set_grad_enabled(learn):
        found = dataset_evidence(z, z_prime, VonMisesFisher(0.1))
    if learn:
        found.infonce.backward()
    return time.perf_counter() - start, memory("VmHWM") - before, found.infonce.item()

z, step = torch.randn(2, 2000, 8, generator=torch.Generator().manual_seed(0))
few = z, z + step
for learn in (False, True):
    measured(*few, learn)  # what torch allocates once
many = [t.repeat(int(sys.argv[1]) // 2000, 1) for t in few]
results = [measured(*many), measured(*many, learn=True)]
print(json.dumps([*results, measured(*(t.double() for t in few))]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
def test_sixty_thousand_pairs_need_little_memory_and_keep_six_digits():
    """They are 2000 pairs, each 30 times: Z is a mean, so that their I_N is exactly that of the 2000."""
    n = 60_000
    run = subprocess.run([sys.executable, "-c", MEASURE, str(n)], capture_output=True, text=True, check=True)
    *low, (_, _, exact) = json.loads(run.stdout)
    for what, (seconds, mib, value) in zip(("value", "value and gradient"), low, strict=True):
        done = f"{seconds:.1f} s, {mib:.0f} MiB above the data, I_N = {value:.6f} nats, {value / exact - 1:.0e} of it"
        MEASURED.append(f"dataset_evidence, {what}, N = {n}, d = 8: {done} beside float64")
        assert mib < 400 and 0 < value < math.log(n)
        agree("float32 = float64 at N = 60 000", value / exact, 1.0, tolerance=1e-6)


@each_way
@pytest.mark.parametrize("name", ["VonMisesFisher", "Universal", "LaplaceWalk"])
def test_autocast_changes_nothing(name, way):
    """Scores rounded to bfloat16 in one pass and not in the other would bend the gradient by some per cent."""
    critic, (z, z_prime) = made(name, torch.float32), pairs(40, dtype=torch.float32)
    plain = way(z, z_prime, critic).infonce
    expected = gradients(plain, z, z_prime, critic)
    with torch.autocast("cpu", torch.bfloat16):
        cast = way(z, z_prime, critic).infonce
    found = gradients(cast, z, z_prime, critic)  # outside, as torch asks for
    assert torch.equal(cast, plain) and all(map(torch.equal, found, expected))


def test_inner_products_far_from_the_origin_keep_their_digits_on_both_sides():
    critic, (z, z_prime) = made("Bilinear", torch.float32), pairs(60, dtype=torch.float32, offset=1000)
    exact = made("Bilinear")
    for normalise in DENSE:
        found = dataset_evidence(z, z_prime, critic, normalise=normalise).infonce
        expected = dataset_evidence(z.double(), z_prime.double(), exact, normalise=normalise).infonce
        agree("float32 inner products 1000 away from 0", found, expected, tolerance=1e-3)
