"""Random models as hypothesis strategies: rectangular, with zeros, unreached x, every kind of encoder."""

import os
from typing import NamedTuple

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, settings, strategies as st
from torch import Tensor, nn

from rpm_tutorial import FiniteRPM

settings.register_profile(
    "specification",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],  # by the clock, as the deadline
    max_examples=20,
    database=None,
)
settings.register_profile(  # the same examples, of which the first that fails is neither shrunk nor followed by others
    "first failure",
    settings.get_profile("specification"),
    phases=[Phase.explicit, Phase.generate],
    report_multiple_bugs=False,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "specification"))

ENCODERS = ("soft", "soft with zeros", "one-hot", "many-to-one")
SIZES = st.integers(1, 6)
SEEDS = st.integers(0, 2**32 - 1)


class Model(NamedTuple):
    """A world, scores that are -inf only where Q(z,z') = 0, and a normalised prior, positive where Q(z,z') is."""

    world: FiniteRPM
    log_f: Tensor
    log_prior: Tensor


@st.composite
def worlds(draw, encoders=ENCODERS) -> FiniteRPM:
    """A FiniteRPM of 1 to 6 values a variable; z and z' have their own encoders."""
    x, x_prime, z, z_prime = (draw(SIZES) for _ in range(4))
    rng = np.random.default_rng(draw(SEEDS))
    p_true = rng.gamma(0.7, size=(x, x_prime))
    if draw(st.booleans()):
        p_true[rng.random(p_true.shape) < 0.4] = 0
    if draw(st.booleans()):
        p_true[0], p_true[:, 0] = 0, 0  # unreached x and x'
    if p_true.sum() == 0:
        p_true[-1, -1] = 1
    sides = (encoder(rng, draw(st.sampled_from(encoders)), n, k) for n, k in ((x, z), (x_prime, z_prime)))
    return FiniteRPM(torch.from_numpy(p_true / p_true.sum()), *sides)


@st.composite
def models(draw, encoders=ENCODERS) -> Model:
    world, rng = draw(worlds(encoders)), np.random.default_rng(draw(SEEDS))
    log_f = torch.from_numpy(draw(st.sampled_from((0.3, 2.0, 20.0))) * rng.normal(size=world.q_joint.shape))
    hidden = torch.from_numpy(rng.random(log_f.shape) < 0.5) & (world.q_joint == 0)
    reached = (world.q_z > 0)[:, None] & (world.q_z_prime > 0)
    prior = torch.from_numpy(rng.gamma(0.7, size=log_f.shape)).masked_fill(hidden | ~reached, 0)
    prior = prior.clamp(min=1e-3 * (world.q_joint > 0))
    return Model(world, log_f.masked_fill(hidden, -torch.inf), (prior / prior.sum()).log())


def encoder(rng: np.random.Generator, kind: str, n: int, k: int) -> Tensor:
    """Q(z|x), shape (n, k)."""
    table = rng.gamma(0.7, size=(n, k)) + 1e-6
    if kind == "soft with zeros":
        table[rng.random(table.shape) < 0.4] = 0
        table[np.arange(n), rng.integers(k, size=n)] = 1
    elif kind != "soft":
        kept = max(1, k // 2) if kind == "many-to-one" else k
        table = np.eye(k)[rng.integers(kept, size=n)]
    return torch.from_numpy(table / table.sum(1, keepdims=True))


@st.composite
def scores(draw) -> Tensor:
    """log_f of N pairs, shape (N, N): asymmetric, non-separable, with -inf off the diagonal."""
    n, rng = draw(st.integers(1, 8)), np.random.default_rng(draw(SEEDS))
    log_f = torch.from_numpy(draw(st.sampled_from((0.3, 3.0, 100.0))) * rng.normal(size=(n, n)))
    hidden = torch.from_numpy(rng.random((n, n)) < draw(st.sampled_from((0.0, 0.3)))) & ~torch.eye(n, dtype=torch.bool)
    return log_f.masked_fill(hidden, -torch.inf)


class Entangled(nn.Module):
    """log f = v . tanh(Az + Bz'): a critic of nobody's family, neither symmetric nor separable."""

    def __init__(self, dim: int, *, seed: int = 0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.A, self.B = (nn.Parameter(torch.randn(7, dim, generator=generator)) for _ in range(2))
        self.v = nn.Parameter(torch.randn(7, generator=generator))

    def forward(self, z: Tensor, z_prime: Tensor) -> Tensor:
        return torch.tanh((z @ self.A.T)[:, None] + z_prime @ self.B.T) @ self.v
