"""A call with one spoilt table says so, or gives numbers: never NaN without a word."""

import pytest
import torch
from torch import Tensor

import rpm_tutorial as rpm
from rpm_tutorial import critics, datasets, encoders, estimators, gaussian, objectives, priors, probes
from rpm_tutorial.derivation import derive

pytestmark = [pytest.mark.nightly, pytest.mark.filterwarnings("ignore")]


def drawn(seed: int) -> dict[str, object]:
    """Arguments whose shapes and dtypes fit each other."""
    generator = torch.Generator().manual_seed(seed)
    n, m, d = torch.randint(2, 6, (3,), generator=generator).tolist()
    dtype = (torch.float32, torch.float64)[seed % 2]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        families = {f.__name__: f(d) for f in (rpm.LinearDynamics, rpm.Bilinear, rpm.Universal)}
        families |= {f.__name__: f() for f in (rpm.RandomWalk, rpm.LaplaceWalk, rpm.VonMisesFisher)}
        networks = {**families, "linear": torch.nn.Linear(d, 2), "conv": encoders.conv(2, width=1)}
    joint = normal(n * m).softmax(0).view(n, m)
    return {
        **{name: network.to(dtype) for name, network in networks.items()},
        **{"log_f": normal(n, m), "square": 2 * normal(n, n), "queue": normal(n, n + m), "joint": joint},
        **{"log_p": normal(n, m).log_softmax(1), "of_m": normal(m).softmax(0), "of_n": normal(n, n).softmax(1)},
        "world": rpm.FiniteRPM(joint, normal(n, 3).softmax(1), normal(m, 4).softmax(1)),
        "log_prior": normal(12).log_softmax(0).view(3, 4),
        **{"first": normal(n, d).softmax(1), "second": normal(m, d).softmax(1)},
        **{"z": normal(n, d), "z_prime": normal(n, d), "others": normal(m, d), "points": normal(n, 2)},
        **{"long": normal(70, d), "long_prime": normal(70, d), "many": normal(12, 2), "few": normal(6, 2)},
        **{"labels": torch.arange(12) % 3, "labels_test": torch.arange(6) % 3, "factors": normal(12, 2), "true": normal(6, 2)},
        **{"images": torch.rand(n, 1, 8, 8, generator=generator).to(dtype)},
        **{"large": torch.rand(3, 1, 28, 28, generator=generator).to(dtype)},
        "generator": generator,
    }  # fmt: skip


def model(joint, first, second):
    found = rpm.SharedLatentRPM(joint, [first, second])
    return found.elbo(found.m_step(found.posterior).posterior)


OBJECTIVES = objectives.infonce, objectives.symmetric_infonce, objectives.donsker_varadhan, objectives.nwj
ESTIMATORS = (
    estimators.jensen_shannon,
    estimators.density_ratio_fitting,
    estimators.plug_in,
    estimators.smile,
    estimators.siglip,
)
PRIORS = priors.infonce, priors.donsker_varadhan, priors.nwj
CRITICS = (
    critics.RandomWalk,
    critics.LaplaceWalk,
    critics.VonMisesFisher,
    critics.LinearDynamics,
    critics.Bilinear,
    critics.Universal,
)
OF_WORLDS = "elbo", "log_p", "log_evidence", "posterior", "gap"
CALLS = {  # a function, and the names of what it is given
    **{f"{f.__module__}.{f.__name__}": (f, "log_f joint") for f in (*OBJECTIVES, *ESTIMATORS, *PRIORS)},
    **{f"{f.__name__} of a batch": (f, "square") for f in (*OBJECTIVES, *ESTIMATORS, estimators.infonce_anchor)},
    "infonce of a queue": (objectives.infonce, "queue"),
    "infonce, weights of candidates": (lambda log_f, q, w: objectives.infonce(log_f, q, q_z_prime=w), "log_f joint of_m"),
    "infonce, candidates of each z": (lambda log_f, w: objectives.infonce(log_f, q_z_prime=w), "square of_n"),
    "barber_agakov": (objectives.barber_agakov, "log_p joint"),
    "mutual_information": (objectives.mutual_information, "joint"),
    "priors.barber_agakov": (priors.barber_agakov, "log_p joint"),
    "infonce_anchor": (lambda log_f, q: estimators.infonce_anchor(log_f, q, k=2), "log_f joint"),
    "stein_score": (estimators.stein_score, "many"),
    "mige": (estimators.mige, "many factors"),
    **{f"FiniteRPM.{f}": (getattr(rpm.FiniteRPM, f), "world log_prior") for f in OF_WORLDS},
    "FiniteRPM.sample": (lambda world, prior, rng: world.sample(prior, 3, generator=rng), "world log_prior generator"),
    "SharedLatentRPM": (model, "joint first second"),
    "derive": (lambda world, log_prior: [line.value for line in derive(world, log_prior)], "world log_prior"),
    **{f.__name__: (lambda critic, z, z_prime: critic(z, z_prime), f"{f.__name__} z others") for f in CRITICS},
    **{f"evidence of {f.__name__}": (lambda c, z, w: rpm.dataset_evidence(z, w, c), f"{f.__name__} z z_prime") for f in CRITICS},
    "evidence of candidates": (lambda c, z, w, v: rpm.dataset_evidence(z, w, c, candidates=v), "Bilinear z z_prime others"),
    "sampled_evidence": (
        lambda c, z, w, rng: rpm.sampled_evidence(z, w, c, rows=64, negatives=8, generator=rng),
        "RandomWalk long long_prime generator",
    ),
    "encode": (rpm.encode, "linear z"),
    "encoders.conv": (lambda encoder, x: encoder(x), "conv large"),
    "gaussian.log_optimal_critic": (lambda z, w: gaussian.log_optimal_critic(z, w, 0.5), "z others"),
    "two_views": (lambda x, rng: datasets.two_views(x, generator=rng), "images generator"),
    "view_pairs": (lambda x: next(datasets.view_pairs(x, 2)), "images"),
    "tensor_pairs": (lambda z, z_prime: next(datasets.tensor_pairs(z, z_prime, 2)), "z z_prime"),
    "twist": (lambda z: datasets.twist(z, 1.0), "points"),
    "linear_probe": (probes.linear_probe, "many labels few labels_test"),
    "nearest_neighbours": (lambda *sides: probes.nearest_neighbours(*sides, k=1), "many labels few labels_test"),
    "r_squared": (probes.r_squared, "many factors few true"),
    "mean_correlation": (probes.mean_correlation, "many factors"),
}  # fmt: skip


def call(name: str, seed: int) -> tuple:
    """The function, and what it is given, as drawn."""
    function, names = CALLS[name]
    given = drawn(seed)
    return function, [given[argument] for argument in names.split()]


def has_nan(found) -> bool:
    if isinstance(found, Tensor):
        return bool(found.isnan().any())
    return isinstance(found, tuple | list) and any(map(has_nan, found))


def with_value(value: float):
    def spoil(table: Tensor, cell: int) -> Tensor:
        spoilt = table.detach().clone()
        spoilt.view(-1)[cell % spoilt.numel()] = value
        return spoilt

    return spoil


SPOILT = {
    "NaN": with_value(torch.nan),
    "+inf": with_value(torch.inf),
    "-inf": with_value(-torch.inf),
    "a dimension less": lambda table, cell: table[0],
    "a dimension more": lambda table, cell: table[None],
    "a row less": lambda table, cell: table[1:],
    "no rows": lambda table, cell: table[:0],
    "integers": lambda table, cell: table.long(),
    "another dtype": lambda table, cell: table.half(),
    "a list": lambda table, cell: table.tolist(),
}


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("name", [name for name in CALLS if name != "encoders.conv"])  # a network passes NaN on
def test_a_spoilt_call_is_refused_or_gives_numbers(name, how):
    for seed in range(8):
        function, given = call(name, seed)
        for k, table in enumerate(given):
            if isinstance(table, Tensor) and table.is_floating_point():
                try:
                    found = function(*given[:k], SPOILT[how](table, 7 * seed), *given[k + 1 :])
                except (ValueError, TypeError, RuntimeError, AttributeError):
                    continue
                assert not has_nan(found), f"argument {k}, seed {seed}"
