"""One or two threads, float32 or float64, this seed or that: the same conclusions, within stated tolerances.

Threads change the order in which a sum is taken, a dtype its rounding; either is off by at most n eps for n terms,
relative to the sum of their sizes (Higham, Accuracy and Stability, section 4.2). So a table of n rows and columns has the
tolerance n eps. Equality bit for bit is not asked for, since PyTorch doesn't promise it: a printed residual of 0 shows it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import pytest
import torch
from residuals import agree

import rpm_tutorial as rpm
from rpm_tutorial import dataset_evidence, datasets, encoders, training

N, SEEDS = 256, (0, 1, 2)
DTYPES = (torch.float32, torch.float64)
OBJECTIVES = (rpm.infonce, rpm.symmetric_infonce, rpm.donsker_varadhan, rpm.nwj)
CRITICS = {
    "RandomWalk": lambda: rpm.RandomWalk(0.5),
    "LaplaceWalk": lambda: rpm.LaplaceWalk(0.5),
    "VonMisesFisher": lambda: rpm.VonMisesFisher(0.5),
    "Universal": lambda: rpm.Universal(8),
}
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_objective = pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.__name__)
each_critic = pytest.mark.parametrize("name", CRITICS)


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def tolerance(dtype: torch.dtype) -> float:
    return N * torch.finfo(dtype).eps


def value_and_gradients(objective, *inputs: torch.Tensor) -> list[torch.Tensor]:
    inputs = [t.detach().clone().requires_grad_() for t in inputs]
    value = objective(*inputs).value
    return [value.detach(), *torch.autograd.grad(value, inputs)]


def agree_relative(what: str, found, expected, limit: float) -> None:
    """The value as it is, and each gradient relative to its largest entry."""
    agree(f"{what}: value", found[0], expected[0], tolerance=limit)
    for one, other in zip(found[1:], expected[1:], strict=True):
        size = other.abs().max()
        agree(f"{what}: gradient", one / size, other / size, tolerance=limit)


def scores(dtype: torch.dtype) -> torch.Tensor:
    return 2 * torch.randn(N, N, generator=torch.Generator().manual_seed(0)).to(dtype)


def latents(dtype: torch.dtype, seed: int = 0, noise: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    z, step = torch.randn(2, N, 8, generator=torch.Generator().manual_seed(seed))
    return z.to(dtype), (z + noise * step).to(dtype)


def critic(name: str, dtype: torch.dtype) -> torch.nn.Module:
    torch.manual_seed(0)
    return CRITICS[name]().to(dtype)


def one_and_two_threads(function, *arguments) -> list:
    found = []
    for number in (1, 2):
        with threads(number):
            found.append(function(*arguments))
    return found


@each_dtype
@each_objective
def test_an_objective_does_not_depend_on_the_number_of_threads(objective, dtype):
    one, two = one_and_two_threads(value_and_gradients, objective, scores(dtype))
    agree_relative(f"1 thread = 2, objectives, {dtype}", two, one, tolerance(dtype))


@each_objective
def test_an_objective_in_float32_is_that_of_float64(objective):
    low, high = (value_and_gradients(objective, scores(dtype)) for dtype in DTYPES)
    agree_relative("float32 = float64, objectives", [t.double() for t in low], high, tolerance(torch.float32))


@pytest.mark.slow
@each_dtype
@each_critic
def test_the_evidence_does_not_depend_on_the_number_of_threads(name, dtype):
    def evidence(z, z_prime):
        return dataset_evidence(z, z_prime, critic(name, dtype), normalise="both", block=64)

    one, two = one_and_two_threads(value_and_gradients, evidence, *latents(dtype))
    agree_relative(f"1 thread = 2, evidence, {dtype}", two, one, tolerance(dtype))


@pytest.mark.parametrize("number", [1, 2])
@each_dtype
@pytest.mark.parametrize("seed", SEEDS)
def test_the_prior_that_the_evidence_chooses_is_the_true_one(seed, dtype, number):
    """z' = z + 0.5 noise: of three scales, 0.5 wins by a margin that neither rounding nor the seed could close."""
    with threads(number), torch.no_grad():
        pairs = latents(dtype, seed)
        found = {scale: dataset_evidence(*pairs, rpm.RandomWalk(scale).to(dtype)) for scale in (0.25, 0.5, 1.0)}
    log_evidence = {scale: evidence.log_evidence.item() for scale, evidence in found.items()}
    best, second, _ = sorted(log_evidence.values(), reverse=True)
    assert log_evidence[0.5] == best and best - second > 0.5, log_evidence
    assert tolerance(dtype) * abs(best) < 0.01 * (best - second), "the margin is no rounding"


# Training. A gradient over 64 pairs is rounded by 64 eps of its size, and AdamW, which divides by that size, passes it on:
# 40 steps of 0.002 move the parameters by 40 x 0.002 x 64 eps = 6e-7 in float32, which learning may amplify.
ROUNDED, AMPLIFIED = 40 * 0.002 * 64 * torch.finfo(torch.float32).eps, 20


class Trained(NamedTuple):
    values: torch.Tensor  # of each step, nats per pair
    parameters: torch.Tensor
    evidence: float  # InfoNCE of the held-out pairs, nats per pair


@cache
def trained(seed: int, steps: int = 40, number: int = 1, dtype: torch.dtype = torch.float32) -> Trained:
    """A small encoder of digits; float64 starts from the same float32 parameters and sees the same images."""
    torch.manual_seed(seed)
    encoder, prior = encoders.mlp(64, 16).to(dtype), rpm.VonMisesFisher().to(dtype)
    x = datasets.digits().x
    batches = datasets.view_pairs(x[:1297], 64, flip=False, seed=seed)
    views = datasets.two_views(x[1297:], flip=False, generator=torch.Generator().manual_seed(3))
    with threads(number):
        rows = training.train(encoder, prior, ((a.to(dtype), b.to(dtype)) for a, b in batches), steps)
        values = torch.tensor([row.value for row in rows], dtype=torch.float64)
        with torch.no_grad():
            held_out = dataset_evidence(*(training.encode(encoder, view.to(dtype)) for view in views), prior)
    return Trained(values, torch.cat([p.detach().flatten() for p in encoder.parameters()]), held_out.infonce.item())


@pytest.mark.nightly
@pytest.mark.parametrize("seed", SEEDS)
def test_a_training_repeats_bit_for_bit_on_as_many_threads_and_nearly_on_more(seed):
    one, two, again = trained(seed), trained(seed, number=2), trained.__wrapped__(seed)
    assert torch.equal(one.values, again.values) and torch.equal(one.parameters, again.parameters)
    agree("1 thread = 2, training: value at each step", two.values, one.values, tolerance=AMPLIFIED * ROUNDED)
    agree("1 thread = 2, training: parameters", two.parameters, one.parameters, tolerance=AMPLIFIED * ROUNDED)
    agree("1 thread = 2, training: held-out InfoNCE", two.evidence, one.evidence, tolerance=AMPLIFIED * ROUNDED)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", SEEDS)
def test_a_training_in_float32_is_that_of_float64(seed):
    low, high = trained(seed), trained(seed, dtype=torch.float64)
    agree("float32 = float64, training: value at each step", low.values, high.values, tolerance=AMPLIFIED * ROUNDED)
    agree("float32 = float64, training: parameters", low.parameters, high.parameters, tolerance=AMPLIFIED * ROUNDED)
    agree("float32 = float64, training: held-out InfoNCE", low.evidence, high.evidence, tolerance=AMPLIFIED * ROUNDED)


@pytest.mark.nightly
def test_what_training_gains_is_many_times_what_the_seed_decides():
    gains = [trained(seed).evidence - trained(seed, steps=1).evidence for seed in SEEDS]
    after = [trained(seed).evidence for seed in SEEDS]
    spread = max(after) - min(after)
    assert min(gains) > 10 * spread, (gains, after)
