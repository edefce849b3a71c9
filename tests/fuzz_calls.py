"""A right call of each public function that takes arrays, drawn by a seed: for tests that spoil one, or repeat it elsewhere."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

import rpm_tutorial as rpm
from rpm_tutorial import critics, datasets, derivation, encoders, estimators, gaussian, objectives, priors, probes


class Call(NamedTuple):
    """`function(**arguments)`."""

    function: Callable
    arguments: dict[str, object]


class Draw:
    """Arguments of one call, whose shapes and dtypes fit each other."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)
        self.n, self.m, self.d = (int(torch.randint(2, 6, (), generator=self.generator)) for _ in range(3))
        self.dtype = (torch.float32, torch.float64)[seed % 2]

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator).to(self.dtype)

    def distribution(self, *shape: int) -> Tensor:
        return self.normal(*shape).flatten().softmax(0).view(shape)

    def rows(self, *shape: int) -> Tensor:
        return self.normal(*shape).softmax(-1)

    def images(self) -> Tensor:
        return torch.rand(self.n, 1, 8, 8, generator=self.generator).to(self.dtype)

    def pair(self, rows: int | None = None) -> dict[str, Tensor]:
        return {"z": self.normal(rows or self.n, self.d), "z_prime": self.normal(rows or self.m, self.d)}

    def world(self) -> rpm.FiniteRPM:
        tables = self.distribution(self.n, self.m), self.rows(self.n, 3), self.rows(self.m, 4)
        return rpm.FiniteRPM(*tables)


def table(d: Draw) -> dict:
    return {"log_f": d.normal(d.n, d.m), "q_joint": d.distribution(d.n, d.m)}


def batch(d: Draw) -> dict:
    return {"log_f": 2 * d.normal(d.n, d.n)}


def conditional(d: Draw) -> dict:
    return {"log_p": d.normal(d.n, d.m).log_softmax(1), "q_joint": d.distribution(d.n, d.m)}


def prior_of_world(d: Draw) -> dict:
    return {"world": d.world(), "log_prior": d.distribution(3, 4).log()}


def labelled(d: Draw) -> dict:
    z, labels = d.normal(12, d.d), torch.arange(12) % 3
    return {"z": z, "labels": labels, "z_test": d.normal(6, d.d), "labels_test": torch.arange(6) % 3}


def with_critic(family: Callable, **options) -> Callable[[Draw], dict]:
    return lambda d: {"critic": family(d).to(d.dtype), **d.pair(**options)}


def seeded(family: type, *own) -> Callable:
    """A critic whose networks begin alike, whatever was drawn before."""

    def make(d: Draw) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(d.n)
            return family(*(getattr(d, name) for name in own))

    return make


CRITICS = {
    "RandomWalk": seeded(critics.RandomWalk),
    "LaplaceWalk": seeded(critics.LaplaceWalk),
    "VonMisesFisher": seeded(critics.VonMisesFisher),
    "LinearDynamics": seeded(critics.LinearDynamics, "d"),
    "Bilinear": seeded(critics.Bilinear, "d"),
    "Universal": seeded(critics.Universal, "d"),
}
CANDIDATES = {
    "objectives.infonce, weights of candidates": (objectives.infonce, lambda d: table(d) | {"q_z_prime": d.rows(d.m)}),
    "objectives.infonce, candidates of each z": (
        objectives.infonce,
        lambda d: batch(d) | {"q_z_prime": d.rows(d.n, d.n)},
    ),
    "objectives.infonce, of a queue": (objectives.infonce, lambda d: {"log_f": d.normal(d.n, d.n + d.m)}),
    "evidence.dataset_evidence of candidates": (
        rpm.dataset_evidence,
        lambda d: with_critic(CRITICS["Bilinear"], rows=5)(d) | {"candidates": d.normal(d.m, d.d)},
    ),
}
OF_TABLES = [objectives.infonce, objectives.symmetric_infonce, objectives.donsker_varadhan, objectives.nwj]
OF_SAMPLES = [
    estimators.jensen_shannon,
    estimators.density_ratio_fitting,
    estimators.plug_in,
    estimators.smile,
    estimators.siglip,
]
SCORE = lambda critic, z, z_prime: critic(z, z_prime)  # noqa: E731
MODEL = lambda p_true, first, second: rpm.SharedLatentRPM(p_true, [first, second])  # noqa: E731
CALLS: dict[str, tuple[Callable, Callable[[Draw], dict]]] = {
    **CANDIDATES,
    **{f"objectives.{f.__name__}": (f, table) for f in OF_TABLES},
    **{f"objectives.{f.__name__}, of a batch": (f, batch) for f in OF_TABLES},
    "objectives.barber_agakov": (objectives.barber_agakov, conditional),
    "objectives.mutual_information": (objectives.mutual_information, lambda d: {"q_joint": d.distribution(d.n, d.m)}),
    **{f"priors.{f.__name__}": (f, table) for f in (priors.infonce, priors.donsker_varadhan, priors.nwj)},
    "priors.barber_agakov": (priors.barber_agakov, conditional),
    **{f"estimators.{f.__name__}": (f, table) for f in OF_SAMPLES},
    **{f"estimators.{f.__name__}, of a batch": (f, batch) for f in (*OF_SAMPLES, estimators.infonce_anchor)},
    "estimators.infonce_anchor": (estimators.infonce_anchor, lambda d: table(d) | {"k": 2}),
    "estimators.stein_score": (estimators.stein_score, lambda d: {"x": d.normal(12, d.d)}),
    "estimators.mige": (estimators.mige, lambda d: d.pair(rows=12)),
    **{
        f"finite.FiniteRPM.{name}": (lambda world, log_prior, name=name: getattr(world, name)(log_prior), prior_of_world)
        for name in ("elbo", "log_p", "log_evidence", "posterior", "gap")
    },
    "finite.FiniteRPM.sample": (
        lambda world, log_prior, generator: world.sample(log_prior, 3, generator=generator),
        lambda d: prior_of_world(d) | {"generator": d.generator},
    ),
    "shared_latent.SharedLatentRPM": (
        lambda **tables: (model := MODEL(**tables)).elbo(model.m_step(model.posterior).posterior),
        lambda d: {"p_true": d.distribution(d.n, d.m), "first": d.rows(d.n, d.d), "second": d.rows(d.m, d.d)},
    ),
    "derivation.derive": (
        lambda world, log_prior: [line.value for line in derivation.derive(world, log_prior)],
        prior_of_world,
    ),
    **{f"critics.{name}.forward": (SCORE, with_critic(family)) for name, family in CRITICS.items()},
    **{
        f"evidence.dataset_evidence of {name}": (rpm.dataset_evidence, with_critic(family, rows=5))
        for name, family in CRITICS.items()
    },
    "evidence.sampled_evidence": (
        rpm.sampled_evidence,
        lambda d: with_critic(CRITICS["RandomWalk"], rows=70)(d) | {"rows": 64, "negatives": 8, "generator": d.generator},
    ),
    "training.encode": (rpm.encode, lambda d: {"encoder": nn.Linear(d.d, 2).to(d.dtype), "x": d.normal(d.n, d.d)}),
    "encoders.conv": (
        lambda encoder, x: encoder(x),
        lambda d: {"encoder": encoders.conv(2, width=1).to(d.dtype), "x": torch.rand(3, 1, 28, 28).to(d.dtype)},
    ),
    "gaussian.log_optimal_critic": (gaussian.log_optimal_critic, lambda d: d.pair() | {"rho": 0.5}),
    "datasets.two_views": (datasets.two_views, lambda d: {"x": d.images(), "generator": d.generator}),
    "datasets.view_pairs": (lambda x: next(datasets.view_pairs(x, 2)), lambda d: {"x": d.images()}),
    "datasets.tensor_pairs": (
        lambda z, z_prime: next(datasets.tensor_pairs(z, z_prime, 2)),
        lambda d: d.pair(rows=5),
    ),
    "datasets.twist": (datasets.twist, lambda d: {"z": d.normal(d.n, 2), "k": 1.0}),
    "probes.linear_probe": (probes.linear_probe, labelled),
    "probes.nearest_neighbours": (lambda **k: probes.nearest_neighbours(**k, k=1), labelled),
    "probes.r_squared": (
        probes.r_squared,
        lambda d: {"z": d.normal(12, 2), "factors": d.normal(12, 2), "z_test": d.normal(6, 2), "factors_test": d.normal(6, 2)},
    ),
    "probes.mean_correlation": (probes.mean_correlation, lambda d: {"z": d.normal(12, 2), "factors": d.normal(12, 2)}),
}  # fmt: skip


def drawn(name: str, seed: int) -> Call:
    function, make = CALLS[name]
    return Call(function, make(Draw(seed)))
