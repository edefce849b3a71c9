"""How each public function is called, and what a right answer is; and why some are not called."""

import copy
import math

import numpy as np
import torch
from fuzz import (
    FLOATS,
    conditional,
    distribution,
    fuzzed,
    generator,
    images,
    is_close,
    is_number,
    labels,
    latents,
    longs,
    number,
    one_of,
    optional,
    plain,
    scores,
    size,
    size_of,
    square_scores,
    values,
)
from torch import Tensor, nn

import rpm_tutorial as rpm
from rpm_tutorial import critics, datasets, derivation, encoders, gaussian, objectives, priors, probes, training
from rpm_tutorial import widgets as widget_module

# Right answers, by other lines of code: numpy's long double, sums written out.


def _weights(log_f: np.ndarray, q_joint) -> np.ndarray:
    return np.eye(len(log_f), dtype=np.longdouble) / len(log_f) if q_joint is None else longs(q_joint)[0]


def _mean(table: np.ndarray, weights: np.ndarray) -> np.longdouble:
    return (table[weights > 0] * weights[weights > 0]).sum()


def _log(p: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(p)


def _log_sum(table: np.ndarray, axis=None) -> np.ndarray:
    largest = np.maximum(table.max(axis, keepdims=True), np.finfo(np.longdouble).min / 4)
    return _log(np.exp(table - largest).sum(axis)) + np.squeeze(largest, axis)


def _log_Z(log_f: np.ndarray, q: np.ndarray) -> np.ndarray:
    """0 for a z without mass."""
    masked = np.where(q.sum(1)[:, None] > 0, log_f, 0)
    return _log_sum(masked + _log(q.sum(0)), 1)


def _log_Z_of_all(log_f: np.ndarray, q: np.ndarray) -> np.longdouble:
    with np.errstate(invalid="ignore"):
        return _log_sum(_log_Z(log_f, q) + _log(q.sum(1)))


NORMALISERS = {
    "infonce": lambda log_f, q: _mean(_log_Z(log_f, q), q.sum(1)),
    "symmetric_infonce": lambda log_f, q: (
        _mean(_log_Z(log_f, q), q.sum(1)) / 2 + _mean(_log_Z(log_f.T, q.T), q.sum(0)) / 2
    ),
    "donsker_varadhan": _log_Z_of_all,
    "nwj": lambda log_f, q: np.exp(np.minimum(_log_Z_of_all(log_f, q) - 1, 11_000)),  # within long double
    "barber_agakov": lambda log_f, q: _mean(_log(q.sum(0)), q.sum(0)),
}


def objective(name: str):
    def right(found, arguments):
        table = arguments.get("log_f", arguments.get("log_p"))
        (log_f,) = longs(table)
        q = _weights(log_f, arguments["q_joint"])
        score, log_normaliser = _mean(log_f, q), NORMALISERS[name](log_f, q)
        scale = (
            size_of(log_f)
            if name != "nwj"
            else max(size_of(log_f) * float(min(log_normaliser, 1e4000)), size_of(log_f))
        )
        most = 0.9 * torch.finfo(table.dtype).max
        for part, expected in zip(found, (score - log_normaliser, score, log_normaliser)):
            assert part.dtype == table.dtype and not part.isnan()
            if part is found[0] and max(abs(score), abs(log_normaliser)) > most:
                continue  # their difference may be rounded to -inf
            is_close(part, expected, scale, table.dtype)

    return right


def prior(name: str):
    def right(found, arguments):
        table = arguments.get("log_f", arguments.get("log_p", arguments["q_joint"]))
        log_f, q = longs(table, arguments["q_joint"])
        log_q = _log(q.sum(1))[:, None] + _log(q.sum(0))
        expected = {
            "optimal": lambda: _log(q),
            "infonce": lambda: log_q + log_f - _log_Z(log_f, q)[:, None],
            "donsker_varadhan": lambda: log_q + log_f - _log_Z_of_all(log_f, q),
            "nwj": lambda: log_q + log_f - 1,
            "barber_agakov": lambda: _log(q.sum(1))[:, None] + log_f,
        }[name]()
        assert found.dtype == table.dtype
        is_close(found, expected, size_of(log_f, log_q), table.dtype)

    return right


def information(found, arguments):
    (q,) = longs(arguments["q_joint"])
    is_close(
        found, _mean(_log(q), q) - _mean(_log(q.sum(1)), q.sum(1)) - _mean(_log(q.sum(0)), q.sum(0)), 10, found.dtype
    )


def of_world(found, arguments):
    """As in float64, where the course works; elsewhere a number, or -inf where a probability is 0."""
    for part in found if isinstance(found, tuple) else (found,):
        assert not part.isnan().any() and not part.isposinf().any()


def divergence(found, arguments):
    """Infinite where the posterior excludes what the recognition models allow."""
    assert not found.isnan() and found > -1e-3


def _steps(z: Tensor, z_prime: Tensor) -> np.ndarray:
    z, z_prime = longs(z, z_prime)
    return z[:, None] - z_prime


SCORES = {
    "RandomWalk": lambda c, z, zp: -np.square(_steps(z, zp)).sum(2) / 2 / longs(c.scale)[0] ** 2,
    "LaplaceWalk": lambda c, z, zp: -np.abs(_steps(z, zp)).sum(2) / longs(c.scale)[0],
    "Bilinear": lambda c, z, zp: longs(z)[0] @ longs(c.W)[0] @ longs(zp)[0].T,
}


def _reach(z: Tensor, z_prime: Tensor, critic: nn.Module) -> float:
    """How large the terms are whose sum a score is: rounding is relative to them."""
    z, z_prime = longs(z, z_prime)
    scale = float(longs(getattr(critic, "scale", getattr(critic, "temperature", torch.ones(()))))[0])
    return max(1.0, z.shape[1] * 4 * (np.abs(z).max() + np.abs(z_prime).max() + 1) ** 2 / min(scale, 1) ** 2)


def critic_table(found, arguments):
    z, z_prime, critic = (arguments[name] for name in ("z", "z_prime", "critic"))
    assert found.shape == (len(z), len(z_prime)) and found.dtype == z.dtype
    name = type(critic).__name__
    if name in SCORES:
        is_close(found, SCORES[name](critic, z, z_prime), _reach(z, z_prime, critic), z.dtype)
    elif name == "VonMisesFisher":
        a, b = longs(z, z_prime)
        lengths = np.sqrt(np.square(a).sum(1))[:, None] * np.sqrt(np.square(b).sum(1))
        long_enough = (lengths > 0) & (np.abs(a).max(1)[:, None] > 1e-4) & (np.abs(b).max(1) > 1e-4)
        expected = np.where(long_enough, a @ b.T / np.where(lengths > 0, lengths, 1), 0) / longs(critic.temperature)[0]
        kept = torch.from_numpy(long_enough)
        is_close(found.masked_fill(~kept, 0), expected, 1 / float(critic.temperature.detach()), z.dtype)
        assert (found.abs() <= 1.1 / critic.temperature).all()
    else:
        finite_or_impossible(found, arguments)


def finite_or_impossible(found, arguments):
    """A number, or -inf: f = 0."""
    assert found.shape == (len(arguments["z"]), len(arguments["z_prime"])) and found.dtype == arguments["z"].dtype
    assert not found.isnan().any() and not found.isposinf().any()


def encoded(found, arguments):
    assert torch.equal(found.nan_to_num(), arguments["x"].detach().nan_to_num())


def evidence(found, arguments):
    z, z_prime, critic, n = *(arguments[k] for k in ("z", "z_prime", "critic")), len(arguments["z"])
    assert found.n == n and not any(part.isnan().any() or part.isposinf().any() for part in found[:2])
    assert found.infonce.shape == ((n,) if arguments["reduction"] == "none" else ())
    with torch.no_grad():
        (table,) = longs(copy.deepcopy(critic).double()(z.detach().double(), z_prime.detach().double()))
    rows, columns = (np.diagonal(t) - _log_sum(t, 1) for t in (table, table.T))
    log_p = {"rows": rows, "columns": columns, "both": (rows + columns) / 2}[arguments["normalise"]]
    log_p = log_p if arguments["reduction"] == "none" else log_p.mean()
    dtype = torch.promote_types(z.dtype, torch.float32)
    is_close(found.infonce, log_p + math.log(n), _reach(z, z_prime, critic), dtype)
    is_close(found.log_evidence, log_p - math.log(n), _reach(z, z_prime, critic), dtype)


def sampled(found, arguments):
    assert all(math.isfinite(part) for part in found) and found.standard_error >= 0 and found.n == len(arguments["z"])


def same_shape(found, arguments):
    for part in found if isinstance(found, tuple) else (found,):
        first = next(v for v in arguments.values() if isinstance(v, Tensor))
        assert part.shape == first.shape and part.dtype == first.dtype and part.isfinite().all()


def matched(found, arguments):
    assert len({*found.tolist()}) == len(found) == len(arguments["counts"])


def gaussian_pairs(found, arguments):
    for side in found:
        assert side.shape == (arguments["n"], arguments["dim"]) and side.isfinite().all()


def frames(found, arguments):
    assert all(len(part) == arguments["n"] and part.isfinite().all() for part in found)
    assert found.x.shape[-1] == arguments["size"] and 0 <= found.x.min() and found.x.max() <= 1


def module(attribute: str | None = None):
    def right(found, arguments):
        assert isinstance(found, nn.Module) and all(p.isfinite().all() for p in found.parameters())
        if attribute:
            assert math.isclose(getattr(found, attribute).item(), arguments[attribute], rel_tol=1e-3)

    return right


# The arguments of each


def own_chance(function):
    """PyTorch's layers begin with what its global generator draws."""

    def call(**arguments):
        with torch.random.fork_rng(devices=[]):
            return function(**arguments)

    return call


def _critic(*families):
    def make(case):
        family = case.pick(*families)
        made = (
            family(case.d)
            if family in (critics.LinearDynamics, critics.Bilinear, critics.Universal)
            else family(case.pick(0.1, 1.0, 7.0))
        )
        return made.to(case.dtype)

    return make


def world(case) -> rpm.FiniteRPM:
    case = case._replace(dtype=case.dtype if case.dtype in FLOATS[:2] else torch.float64)
    tables = (
        distribution("n", "m")(case),
        distribution("n", "d", rows=True)(case),
        distribution("m", "n", rows=True)(case),
    )
    return rpm.FiniteRPM(*(table.detach() for table in tables))


def of(kind: str, right=of_world, **arguments):
    """A call of a method of the world, with a prior that is one of its own kind."""

    def log_prior(case):
        return priors.optimal(distribution("d", "n")(case._replace(dtype=torch.float64)).detach())

    def call(world, log_prior, **more):
        return getattr(world, kind)(
            log_prior.to(world.p_true.dtype)
            if isinstance(log_prior, Tensor) and log_prior.dtype == torch.float64
            else log_prior,
            **more,
        )

    return fuzzed(call, right, world=world, log_prior=log_prior, **arguments)


def more(make):
    """With rows enough for a probe."""
    return lambda case: make(case._replace(n=case.n + 8, m=case.m + 8))


def shared(case) -> rpm.SharedLatentRPM:
    case = case._replace(dtype=torch.float64)
    tables = (
        distribution("n", "m")(case),
        distribution("n", "d", rows=True)(case),
        distribution("m", "d", rows=True)(case),
    )
    first, *factors = (table.detach() for table in tables)
    prior = factors[0].new_zeros(case.d).index_fill(0, torch.tensor(0), 1.0)
    reached = all((factor.T @ side)[0] > 0 for factor, side in zip(factors, (first.sum(1), first.sum(0))))
    return rpm.SharedLatentRPM(first, factors, prior) if reached else rpm.SharedLatentRPM.random(first, case.d)


def posterior(case) -> Tensor:
    table = distribution("n", "m", "d")(case._replace(dtype=torch.float64)).detach()
    return (table + 0.1) / (table + 0.1).sum(-1, keepdim=True)


def many(case) -> Tensor:
    return values(case.pick("normal", "equal", "far", "zero"), (70, case.d), case.dtype, case.rng)


def batches(case):
    pair = values("normal", (case.n + 1, case.d), torch.float32, case.rng)
    return [(pair, pair)] * 2


def trained(found, arguments):
    assert [row.step for row in found] == list(range(1, arguments["steps"] + 1)) and all(
        math.isfinite(r.value) for r in found
    )


def train(steps, learning_rate, weight_decay, pairs):
    torch.manual_seed(0)
    parts = nn.Linear(pairs[0][0].shape[1], 2), rpm.RandomWalk()
    return list(training.train(*parts, pairs, steps, learning_rate=learning_rate, weight_decay=weight_decay))


SAMPLES = {"n": size(1, 3), "generator": generator}
PAIR = {"z": latents("n"), "z_prime": latents("m")}
PROBE = {
    "z": more(latents("n")),
    "labels": more(labels("n")),
    "z_test": more(latents("m")),
    "labels_test": more(labels("m")),
}
RHO, DIM = number(0.0, 0.5, -0.9, 0.999999), size(1, 2, 1000)
FAMILIES = {
    name: getattr(critics, name)
    for name in ("RandomWalk", "LaplaceWalk", "VonMisesFisher", "LinearDynamics", "Bilinear", "Universal")
}
WITH_FORM = [name for name in FAMILIES if name != "LaplaceWalk"]

FUZZED = {
    **{
        f"objectives.{name}": fuzzed(getattr(objectives, name), objective(name), log_f=scores, q_joint=distribution("n", "m"))
        | fuzzed(getattr(objectives, name), objective(name), log_f=square_scores, q_joint=one_of(None))
        for name in NORMALISERS
        if name != "barber_agakov"
    },
    "objectives.barber_agakov": fuzzed(objectives.barber_agakov, objective("barber_agakov"), log_p=conditional, q_joint=distribution("n", "m")),
    "objectives.mutual_information": fuzzed(objectives.mutual_information, information, q_joint=distribution("n", "m")),
    "priors.optimal": fuzzed(priors.optimal, prior("optimal"), q_joint=distribution("n", "m")),
    **{
        f"priors.{name}": fuzzed(getattr(priors, name), prior(name), log_f=scores, q_joint=distribution("n", "m"))
        for name in ("infonce", "donsker_varadhan", "nwj")
    },
    "priors.barber_agakov": fuzzed(priors.barber_agakov, prior("barber_agakov"), log_p=conditional, q_joint=distribution("n", "m")),
    "finite.FiniteRPM": fuzzed(
        lambda **tables: torch.stack([(world := rpm.FiniteRPM(**tables)).mutual_information, world.constant]), of_world,
        p_true=distribution("n", "m"), recognition=distribution("n", "d", rows=True), recognition_prime=distribution("m", "n", rows=True),
    ),
    "finite.FiniteRPM.random": fuzzed(lambda **k: rpm.FiniteRPM.random(**k).q_joint, plain(), x=size(1, 3), x_prime=size(2), z=size(3), z_prime=size(1, 4), seed=size(0, 7)),
    "finite.FiniteRPM.ring": fuzzed(lambda **k: rpm.FiniteRPM.ring(**k).q_joint, plain(), coupling=number(0, 3, -50), sharpness=number(0, 3, 700), tilt=number(0, 0.5), x=size(1, 3), z=size(2)),
    **{f"finite.FiniteRPM.{kind}": of(kind) for kind in ("elbo", "log_p", "log_evidence", "posterior")},
    "finite.FiniteRPM.gap": of("gap", divergence),
    "finite.FiniteRPM.sample": of("sample", **SAMPLES),
    "shared.SharedLatentRPM": fuzzed(
        lambda p_true, factors_0, factors_1, prior: rpm.SharedLatentRPM(p_true, [factors_0, factors_1], prior).log_p, of_world,
        p_true=distribution("n", "m"), factors_0=distribution("n", "d", rows=True), factors_1=distribution("m", "d", rows=True), prior=optional(distribution("d")),
    ),
    "shared.SharedLatentRPM.random": fuzzed(lambda **k: rpm.SharedLatentRPM.random(**k).log_p, of_world, p_true=distribution("n", "m"), z=size(1, 3), seed=size(0, 5)),
    "shared.SharedLatentRPM.elbo": fuzzed(lambda model, q: model.elbo(q), of_world, model=shared, q=posterior),
    "shared.SharedLatentRPM.m_step": fuzzed(lambda model, q: model.m_step(q).log_p, of_world, model=shared, q=posterior),
    **{f"critics.{name}": fuzzed(FAMILIES[name], module("scale"), scale=number(1.0, 1e-3, 1e3)) for name in ("RandomWalk", "LaplaceWalk")},
    "critics.VonMisesFisher": fuzzed(critics.VonMisesFisher, module("temperature"), temperature=number(0.1, 1e-3, 10)),
    **{f"critics.{name}": fuzzed(FAMILIES[name], module(), dim=size(1, 3)) for name in ("LinearDynamics", "Bilinear")},
    "critics.Universal": fuzzed(own_chance(critics.Universal), module(), dim=size(1, 3), width=size(1, 8), features=size(1, 4)),
    **{
        f"critics.{name}.forward": fuzzed(lambda critic, z, z_prime: critic(z, z_prime), critic_table, critic=_critic(family), **PAIR)
        for name, family in FAMILIES.items()
    },
    **{
        f"critics.{name}.linear_form": fuzzed(lambda critic, z, z_prime: critic.linear_form(z, z_prime).table(), critic_table, critic=_critic(FAMILIES[name]), **PAIR)
        for name in WITH_FORM
    },
    "evidence.dataset_evidence": fuzzed(
        rpm.dataset_evidence, evidence, z=latents("n"), z_prime=latents("n"), critic=_critic(*FAMILIES.values()),
        normalise=one_of("rows", "columns", "both"), reduction=one_of("mean", "none"), block=one_of(None, 1, 2),
    ),
    "evidence.sampled_evidence": fuzzed(rpm.sampled_evidence, sampled, z=many, z_prime=many, critic=_critic(*FAMILIES.values()), rows=size(64, 70), negatives=size(5, 70), generator=generator),
    "checking.check_critic": fuzzed(rpm.check_critic, lambda found, _: None, critic=one_of(rpm.RandomWalk()), dim=size(1, 3), seed=size(0, 3)),
    "training.Trainer": fuzzed(
        own_chance(lambda pairs, **k: list(rpm.Trainer(nn.Linear(pairs[0][0].shape[1], 2), rpm.RandomWalk(), pairs, **k))), trained,
        steps=size(1, 2), learning_rate=number(1e-3), weight_decay=number(0.0, 1e-4), pairs=batches,
    ),
    "training.train": fuzzed(own_chance(train), trained, steps=size(1, 2), learning_rate=number(1e-3), weight_decay=number(0.0, 1e-4), pairs=batches),
    "training.encode": fuzzed(rpm.encode, encoded, encoder=one_of(nn.Identity()), x=latents(), batch_size=size(1, 1000)),
    "gaussian.sample": fuzzed(gaussian.sample, gaussian_pairs, rho=RHO, dim=size(1, 3), **SAMPLES),
    "gaussian.mutual_information": fuzzed(gaussian.mutual_information, is_number(0), rho=RHO, dim=DIM),
    "gaussian.chi_squared": fuzzed(gaussian.chi_squared, is_number(0), rho=RHO, dim=DIM),
    "gaussian.infonce_random_walk": fuzzed(gaussian.infonce_random_walk, is_number(), rho=RHO, scale=number(1.0, 0.1, 1e3), dim=DIM),
    "gaussian.infonce_inner_product": fuzzed(gaussian.infonce_inner_product, is_number(), rho=RHO, kappa=number(0.0, 1.0, -2.0), dim=DIM),
    "gaussian.donsker_varadhan_inner_product": fuzzed(gaussian.donsker_varadhan_inner_product, is_number(), rho=RHO, kappa=number(0.0, 0.9, -0.5), dim=DIM),
    "gaussian.log_optimal_critic": fuzzed(gaussian.log_optimal_critic, finite_or_impossible, rho=RHO, **PAIR),
    "datasets.two_views": fuzzed(datasets.two_views, same_shape, x=images, strength=number(0, 1, 2), flip=one_of(True, False), generator=generator),
    "datasets.view_pairs": fuzzed(lambda **k: next(datasets.view_pairs(**k)), plain(), x=images, batch_size=size(1, 2), strength=number(0, 1), seed=size(0, 3)),
    "datasets.ViewPairs": fuzzed(lambda **k: next(datasets.ViewPairs(**k)), plain(), x=images, batch_size=size(1, 2), strength=number(0, 1), flip=one_of(True), seed=size(0, 3)),
    "datasets.moving_balls": fuzzed(datasets.moving_balls, frames, balls=size(1, 2), scale=number(0.15, 3), size=size(5, 16), **SAMPLES),
    "datasets.constant_velocity": fuzzed(datasets.constant_velocity, frames, frames=size(3, 7), scale=number(0.01), size=size(5, 16), **SAMPLES),
    "datasets.twist": fuzzed(datasets.twist, same_shape, z=lambda case: latents()(case._replace(d=2)), k=number(0, 1, -3)),
    "encoders.mlp": fuzzed(own_chance(encoders.mlp), module(), inputs=size(1, 4), dim=size(1, 3), width=size(1, 8)),
    "encoders.conv": fuzzed(own_chance(encoders.conv), module(), dim=size(1, 3), width=size(1, 2)),
    "probes.linear_probe": fuzzed(probes.linear_probe, is_number(0, 1), C=number(0.01, 1), **PROBE),
    "probes.nearest_neighbours": fuzzed(probes.nearest_neighbours, is_number(0, 1), k=size(1, 2), **PROBE),
    "probes.r_squared": fuzzed(probes.r_squared, is_number(high=1 + 1e-6), z=more(latents("n")), factors=more(latents("n", "m")), z_test=more(latents("m")), factors_test=more(latents("m", "m"))),
    "probes.mean_correlation": fuzzed(probes.mean_correlation, is_number(0, 1 + 1e-6), z=more(latents("n")), factors=more(latents("n", "m"))),
    "probes.match": fuzzed(probes.match, matched, counts=lambda case: latents("n", "m")(case._replace(m=case.n + 1))),
    "derivation.derive": fuzzed(
        lambda world, log_prior: torch.stack([line.value for line in derivation.derive(world, log_prior)]), of_world,
        world=lambda case: rpm.FiniteRPM.random(seed=case.n), log_prior=lambda case: values("normal", (3, 4), torch.float64, case.rng).flatten().log_softmax(0).view(3, 4),
    ),
    "widgets.slider": fuzzed(widget_module.slider, lambda found, k: None, default=number(0.5), low=number(0), high=number(1), step=number(0.1, 0.25), label=one_of("k")),
}  # fmt: skip

RESULT = "holds what a function returned, and computes nothing from arguments"
INSIDE = "shared by modules of the package, after their checks; not named in rpm.__all__"
PROCESSES = "talks to other processes: tests/test_distributed.py"
DRAWS = "draws numbers that were computed, and checked, elsewhere: tests/test_figures.py"
STATES = "every state that its sliders allow is rendered: tests/test_explorations.py"
FILES = "reads or writes files: tests/test_faults.py and test_datasets.py"
NO_ARRAYS = "takes no arrays and no numbers of the caller's"
PAGE = "needs a page or an event loop: tests/test_dashboard.py"
EXEMPT = {
    **dict.fromkeys(
        ("objectives.Objective", "finite.ELBO", "critics.LinearForm", "evidence.Evidence", "evidence.SampledEvidence", "checking.Check", "checking.CriticReport",
         "training.LogRow", "datasets.Images", "datasets.MovingBalls", "datasets.MovingSequences", "derivation.Line", "exercises.Verdict", "classroom.Solution"), RESULT,
    ),
    **dict.fromkeys(("objectives.pairs", "objectives.log_joint_normaliser", "finite.log_likelihood"), INSIDE),
    **dict.fromkeys(("training.save_checkpoint", "training.load_checkpoint", "training.Trainer.load_state_dict", "training.Trainer.save", "training.Trainer.load",
                     "datasets.ViewPairs.load_state_dict", "datasets.fashion_mnist", "datasets.fashion_mnist_or_digits"), FILES),
    **dict.fromkeys(("datasets.digits", "datasets.fashion_mnist_folder", "widgets.choice", "widgets.explore"), NO_ARRAYS),
    **dict.fromkeys(("exercises.Exercise", "exercises.Exercise.check", "exercises.Exercise.hint", "exercises.Exercise.verdict"),
                    "takes a reader's answer of any kind, and says what is wrong with it: tests/test_exercises.py"),
    **{f"{name}.": reason for name, reason in {
        "runtime": NO_ARRAYS, "cli": "click parses its arguments: tests/test_cli.py", "classroom": FILES, "distributed": PROCESSES, "figures": DRAWS,
        "explorations": STATES, "dashboard": PAGE, "widgets": PAGE,
    }.items()},
}  # fmt: skip
