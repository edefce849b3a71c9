"""dataset_evidence in float32 and half precision: extreme latents, the bound log N, a GPU, and N = 60 000."""

import copy
import json
import math
import subprocess
import sys

import pytest
import torch
from evidence_cases import CRITICS, DIM, agree_each, each_critic, each_side, each_way, gradients, made, pairs
from residuals import MEASURED, agree

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
    found = way(*low, critic.float(), normalise="both").value
    agree(f"float32 = float64: {kind}, value", found, dense, tolerance=2e-5)
    slopes = gradients(n * found, *low, critic)
    agree_each(f"float32 = float64: {kind}, gradients", slopes, expected, tolerance=GRADIENTS.get(name, 1e-4))


@each_way
@each_side
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_no_row_exceeds_log_n_not_even_by_rounding(normalise, dtype, way):
    for name, n, dim in (("sharp", 30, 64), ("sharp", 1, 3), ("RandomWalk", 30, 8), ("LaplaceWalk", 30, 8)):
        z = 3 * torch.randn(n, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
        log_n, critic = torch.tensor(math.log(n), dtype=dtype), made(name, dtype)
        for reduction in ("none", "mean"):  # every pair is perfect, and the parameter asks for a gradient
            found = way(z, z, critic, normalise=normalise, reduction=reduction)
            assert (found.value <= log_n).all() and (found.log_evidence <= -log_n).all()
            assert found.value.mean() >= 0.9 * log_n


each_half = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


@each_half
@pytest.mark.parametrize("name", ["RandomWalk", "LaplaceWalk", "sharp", "Entangled"])
def test_half_precision_is_float32_of_the_same_numbers(name, dtype):
    critic, (z, z_prime) = made(name, dtype), pairs(300, dtype=dtype)
    same = [t.detach().float().requires_grad_() for t in (z, z_prime)]
    same_critic = copy.deepcopy(critic).float()
    for options in ({"normalise": "both"}, {"block": 64, "reduction": "none"}):
        found = dataset_evidence(z, z_prime, critic, **options).value
        expected = dataset_evidence(*same, same_critic, **options).value
        assert found.dtype == torch.float32
        agree("half precision = float32: value", found, expected, tolerance=2e-6)
        slopes = gradients(found.mean(), z, z_prime, critic), gradients(expected.mean(), *same, same_critic)
        for one, other in zip(*slopes, strict=True):
            assert one.dtype == dtype
            assert (one.float() - other).norm() <= 2 * torch.finfo(dtype).eps * other.norm()


@each_half
def test_half_precision_gradients_do_not_vanish_in_a_long_mean(dtype):
    """1/16 of the mean of 1000 pairs weighs each as 16 000 pairs do: softmax weight / N underflows in float16."""
    sides = pairs(1000, dtype=dtype, noise=1.0)
    exact = [t.detach().float().requires_grad_() for t in sides]
    found = torch.autograd.grad(dataset_evidence(*sides, rpm.RandomWalk(2.0).to(dtype)).infonce / 16, sides)
    expected = torch.autograd.grad(dataset_evidence(*exact, rpm.RandomWalk(2.0)).infonce / 16, exact)
    for one, other in zip(found, expected, strict=True):
        assert (one.float() - other).norm() < 0.05 * other.norm()


def test_half_precision_parameters_keep_what_many_small_tiles_add_up_to():
    """Each tile's part of a gradient is a float16, too: with 1/N in it already, it would be zero."""
    sides, critic = [t.detach() for t in pairs(320, dtype=torch.float16, noise=1.0)], made("Universal").half()
    whole = copy.deepcopy(critic).float()
    found = 1e-3 * dataset_evidence(*sides, critic, block=16).infonce
    expected = 1e-3 * dataset_evidence(*(side.float() for side in sides), whole, block=16).infonce
    for one, other in zip(
        torch.autograd.grad(found, [critic.a[0].weight, critic.b[2].weight]),
        torch.autograd.grad(expected, [whole.a[0].weight, whole.b[2].weight]),
        strict=True,
    ):
        assert (one.float() - other).norm() < 0.05 * other.norm()


@each_way
@pytest.mark.parametrize("name", ["sharp", "Universal", "LaplaceWalk"])
def test_autocast_changes_nothing(name, way):
    """Scores rounded to bfloat16 in one pass and not in the other would bend the gradient by some per cent."""
    critic, (z, z_prime) = made(name, torch.float32), pairs(40, dtype=torch.float32)
    plain = way(z, z_prime, critic).infonce
    expected = gradients(plain, z, z_prime, critic)
    with torch.autocast("cpu", torch.bfloat16):
        cast = way(z, z_prime, critic).infonce
    found = gradients(cast, z, z_prime, critic)  # outside, as torch asks for
    assert torch.equal(cast, plain) and all(map(torch.equal, found, expected))


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
                value = dataset_evidence(z, z_prime, critic, **options).value
                results.append([part.cpu() for part in (value, *gradients(500 * value, z, z_prime, critic))])
            agree_each("(E14) on a GPU", *results, tolerance=1e-10)
    n = 60_000
    for name in ("LaplaceWalk", "sharp"):
        z, z_prime = (t.detach().cuda().requires_grad_() for t in pairs(n, dtype=torch.float32))
        torch.cuda.reset_peak_memory_stats()
        dataset_evidence(z, z_prime, made(name, torch.float32).cuda(), normalise="both").value.backward()
        peak = torch.cuda.max_memory_allocated()
        MEASURED.append(f"dataset_evidence on a GPU, {name}, N = {n}: peak {peak / 2**20:.0f} MiB")
        assert peak < 4 * n * n / 4


MEASURE = """
import json, sys, torch
from rpm_tutorial import VonMisesFisher, dataset_evidence

def memory(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(field))

def measured(z, z_prime):
    z = z.clone().requires_grad_()
    before, found = memory("VmRSS"), dataset_evidence(z, z_prime, VonMisesFisher(0.1)).infonce
    found.backward()
    return memory("VmHWM") - before, found.item()

z, step = torch.randn(2, 2000, 8, generator=torch.Generator().manual_seed(0))
few = z, z + step
measured(*few)  # what torch allocates once
many = [t.repeat(int(sys.argv[1]) // 2000, 1) for t in few]
print(json.dumps([*measured(*many), measured(*(t.double() for t in few))[1]]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
def test_sixty_thousand_pairs_need_little_memory_and_keep_six_digits():
    """They are 2000 pairs, each 30 times: Z is a mean, so that their I_N is exactly that of the 2000."""
    n = 60_000
    run = subprocess.run([sys.executable, "-c", MEASURE, str(n)], capture_output=True, text=True, check=True)
    mib, value, exact = json.loads(run.stdout)
    MEASURED.append(f"dataset_evidence with gradient, N = {n}, d = 8: {mib:.0f} MiB above the data")
    assert mib < 400 and 0 < value < math.log(n)
    agree("float32 = float64 at N = 60 000", value / exact, 1.0, tolerance=1e-6)
