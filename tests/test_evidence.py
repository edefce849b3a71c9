"""dataset_evidence: (E14) by tiles, equal to the dense table in value and gradients, for any critic and N."""

import json
import math
import subprocess
import sys

import pytest
import torch
from residuals import MEASURED, agree
from torch import nn
from worlds import Entangled

import rpm_tutorial as rpm
from rpm_tutorial import dataset_evidence

DIM = 3


class Masked(nn.Module):
    """A random walk that forbids steps longer than `reach`: f = 0, so log f = -inf, off the diagonal."""

    def __init__(self, reach: float = 1.5):
        super().__init__()
        self.walk, self.reach = rpm.RandomWalk(0.7), reach

    def forward(self, z, z_prime):
        return self.walk(z, z_prime).masked_fill(torch.cdist(z.detach(), z_prime.detach()) > self.reach, -torch.inf)


CRITICS = {
    "RandomWalk": lambda: rpm.RandomWalk(0.7),
    "LaplaceWalk": lambda: rpm.LaplaceWalk(0.7),
    "VonMisesFisher": lambda: rpm.VonMisesFisher(0.2),
    "LinearDynamics": lambda: rpm.LinearDynamics(DIM),
    "Bilinear": lambda: rpm.Bilinear(DIM),
    "Universal": lambda: rpm.Universal(DIM, width=8, features=5),
    "Entangled": lambda: Entangled(DIM),
    "Masked": Masked,
    "sharp": lambda: rpm.VonMisesFisher(0.005),
}


def pairs(n: int, *, noise: float = 0.3, dtype=torch.float64, offset: float = 0.0):
    z, step = torch.randn(2, n, DIM, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    return [(t + offset).to(dtype).requires_grad_() for t in (z, z + noise * step)]


def gradients(value, z, z_prime, critic):
    inputs = [z, z_prime, *(p for p in critic.parameters() if p.requires_grad)]
    return torch.autograd.grad(value, inputs, allow_unused=True, materialize_grads=True)


def agrees_with_the_dense_table(critic, z, z_prime, block, tolerance=1e-11):
    found, log_f = dataset_evidence(z, z_prime, critic, block=block), critic(z, z_prime)
    dense = rpm.infonce(log_f)
    agree("(E14) by tiles = dense: value", found.infonce, dense.value, *dense, tolerance=tolerance)
    agree(
        "(E14) log evidence = I_N - 2 log N",
        found.log_evidence,
        dense.value - 2 * math.log(len(z)),
        tolerance=tolerance,
    )
    assert found.n == len(z) and found.infonce.shape == found.log_evidence.shape == ()
    weighted = 3 * found.infonce - 5 * found.log_evidence  # an incoming gradient other than 1
    for one, other in zip(
        gradients(weighted, z, z_prime, critic), gradients(-2 * dense.value, z, z_prime, critic), strict=True
    ):
        agree("(E14) by tiles = dense: gradients", one, other, tolerance=tolerance)


@pytest.mark.parametrize("name", CRITICS)
@pytest.mark.parametrize("n, block", [(1, 4), (7, 3), (8, 4), (9, 16), (13, 1)])
def test_tiles_agree_with_the_dense_table_in_value_and_all_gradients(name, n, block):
    torch.manual_seed(0)
    agrees_with_the_dense_table(CRITICS[name]().double(), *pairs(n), block)


def test_ties_count_as_pairs_of_indices():
    z, z_prime = (t.detach()[[0, 0, 1, 2, 2, 2]].requires_grad_() for t in pairs(3))
    agrees_with_the_dense_table(Entangled(DIM).double(), z, z_prime, block=4)


def test_the_critic_is_called_with_z_as_rows_and_z_prime_as_columns():
    z, z_prime = pairs(6)
    forward, backward = (
        dataset_evidence(a, b, Entangled(DIM).double(), block=4) for a, b in ((z, z_prime), (z_prime, z))
    )
    assert abs(forward.infonce - backward.infonce) > 0.01


def test_frozen_parameters_get_no_gradient_and_the_others_do():
    critic, (z, z_prime) = Entangled(DIM).double(), pairs(7)
    critic.B.requires_grad_(False)
    agrees_with_the_dense_table(critic, z, z_prime, block=3)
    dataset_evidence(z, z_prime, critic, block=3).infonce.backward()
    assert critic.B.grad is None and critic.A.grad is not None
    fixed = rpm.VonMisesFisher(0.2, learnable=False).double()
    agrees_with_the_dense_table(fixed, z, z_prime, block=3)


def test_a_parameter_that_the_critic_does_not_use_gets_a_gradient_of_zero():
    critic = Entangled(DIM).double()
    critic.unused = nn.Parameter(torch.ones(2).double())
    agrees_with_the_dense_table(critic, *pairs(5), block=2)


def test_the_gradient_flows_on_into_an_encoder():
    encoder, critic, (x, x_prime) = nn.Linear(DIM, 2).double(), rpm.RandomWalk(0.5).double(), pairs(9)
    for evidence in (
        dataset_evidence(encoder(x), encoder(x_prime), critic, block=4).infonce,
        rpm.infonce(critic(encoder(x), encoder(x_prime))).value,
    ):
        encoder.zero_grad()
        evidence.backward()
        found = encoder.weight.grad.clone()
    encoder.zero_grad()
    dataset_evidence(encoder(x), encoder(x_prime), critic, block=4).log_evidence.backward()
    agree("(E14) the encoder's gradient", encoder.weight.grad, found)


def test_a_second_derivative_is_refused_rather_than_dropped():
    """A gradient penalty beside the loss: without the refusal, only the penalty's gradient would be missing."""
    z, z_prime = pairs(5)
    evidence = dataset_evidence(z, z_prime, Entangled(DIM).double())
    with pytest.raises(RuntimeError, match="second derivative|differentiate twice"):
        (first,) = torch.autograd.grad(evidence.infonce, z, create_graph=True)
        (evidence.infonce + first.square().sum()).backward()


def test_nothing_is_recorded_under_no_grad():
    z, z_prime = pairs(5)
    with torch.no_grad():
        assert not dataset_evidence(z, z_prime, Entangled(DIM).double()).infonce.requires_grad


@pytest.mark.parametrize("name", ["RandomWalk", "LaplaceWalk", "VonMisesFisher", "Entangled", "sharp"])
def test_float32_agrees_with_float64(name):
    z, z_prime = pairs(300, dtype=torch.float32)
    low = dataset_evidence(z, z_prime, CRITICS[name](), block=64)
    high = dataset_evidence(z.double(), z_prime.double(), CRITICS[name]().double(), block=300)
    assert low.infonce.dtype == torch.float32
    agree("float32 evidence", low.infonce, high.infonce, tolerance=1e-4)


@pytest.mark.parametrize("name", ["RandomWalk", "LaplaceWalk"])
def test_latents_a_thousand_away_from_the_origin_keep_their_evidence_in_float32(name):
    z, z_prime = pairs(300, dtype=torch.float32, offset=1000)
    low = dataset_evidence(z, z_prime, CRITICS[name](), block=64).infonce
    high = dataset_evidence(z.double(), z_prime.double(), CRITICS[name]().double()).infonce
    agree("float32 evidence 1000 away from 0", low, high, tolerance=1e-5)


each_half = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


@each_half
@pytest.mark.parametrize("name", ["RandomWalk", "VonMisesFisher", "Bilinear", "Entangled"])
def test_half_precision_scores_are_summed_in_float32(name, dtype):
    critic, (z, z_prime) = CRITICS[name]().to(dtype), pairs(600, dtype=dtype)
    with torch.no_grad():
        found = dataset_evidence(z, z_prime, critic, block=200)
        rows = [torch.cat([critic(a, b) for b in z_prime.split(200)], 1) for a in z.split(200)]
    agree(
        "half-precision scores, float32 sums",
        found.infonce,
        rpm.infonce(torch.cat(rows).float()).value,
        tolerance=1e-5,
    )


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_infonce_never_exceeds_log_n(dtype):
    for n in (1, 2, 50, 700):
        z = 100 * torch.eye(max(n, DIM), dtype=dtype)[:n]  # every pair perfectly told apart
        for critic in (rpm.RandomWalk(0.1).to(dtype), rpm.VonMisesFisher(0.005).to(dtype)):
            found = dataset_evidence(z, z, critic, block=64).infonce.double()
            assert math.log(n) * (1 - 1e-4) - 1e-6 <= found <= math.log(n) * (1 + torch.finfo(dtype).eps)


MEASURE = """
import json, sys, time, torch
from rpm_tutorial import VonMisesFisher, dataset_evidence

def memory(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(field))

n, learn = int(sys.argv[1]), sys.argv[2] == "learn"
z, step = torch.randn(2, n, 32, generator=torch.Generator().manual_seed(0))
critic = VonMisesFisher(0.1)
dataset_evidence(z[:1000], z[:1000], critic)  # what torch allocates once
z.requires_grad_(learn)
before, start = memory("VmRSS"), time.perf_counter()
found = dataset_evidence(z, z + step, critic)
if learn:
    found.infonce.backward()
print(json.dumps([time.perf_counter() - start, memory("VmHWM") - before, found.infonce.item()]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
@pytest.mark.parametrize("n, learn", [(60_000, False), (10_000, True)])
def test_memory_grows_with_n_and_not_with_its_square(n, learn):
    command = [sys.executable, "-c", MEASURE, str(n), "learn" if learn else "value"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, mib, value = json.loads(run.stdout)
    what = "value and gradient" if learn else "value"
    done = f"{seconds:.1f} s, {mib:.0f} MiB above the data, I_N = {value:.4f} nats"
    MEASURED.append(f"dataset_evidence, {what}, N = {n}, d = 32: {done}")
    assert mib < 400
    assert 0 < value < math.log(n)
