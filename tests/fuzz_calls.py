"""How each public function is called with arguments, good and bad, and what checks its answer."""

import math

import torch
from fuzz import (
    FLOATS,
    conditional,
    distribution,
    fuzzed,
    generator,
    images,
    is_number,
    labels,
    latents,
    more,
    number,
    one_of,
    optional,
    plain,
    scores,
    size,
    square_scores,
    values,
)
from fuzz_answers import (
    NORMALISERS,
    critic_table,
    divergence,
    encoded,
    evidence,
    finite_or_impossible,
    frames,
    gaussian_pairs,
    information,
    matched,
    module,
    objective,
    of_world,
    prior,
    same_shape,
    sampled,
    split_by_label,
)
from fuzz_estimators import ESTIMATOR_CALLS
from torch import Tensor, nn

import rpm_tutorial as rpm
from rpm_tutorial import (
    critics,
    datasets,
    derivation,
    encoders,
    gaussian,
    objectives,
    priors,
    probes,
    training,
    widgets as widget_module,
)

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


def first_of(make):
    return lambda **arguments: next(make(**arguments))


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
        f"objectives.{name}": fuzzed(
            getattr(objectives, name), objective(name), log_f=scores, q_joint=distribution("n", "m")
        )
        | fuzzed(getattr(objectives, name), objective(name), log_f=square_scores, q_joint=one_of(None))
        for name in NORMALISERS
        if name != "barber_agakov"
    },
    "objectives.barber_agakov": fuzzed(
        objectives.barber_agakov, objective("barber_agakov"), log_p=conditional, q_joint=distribution("n", "m")
    ),
    "objectives.mutual_information": fuzzed(objectives.mutual_information, information, q_joint=distribution("n", "m")),
    "priors.optimal": fuzzed(priors.optimal, prior("optimal"), q_joint=distribution("n", "m")),
    **{
        f"priors.{name}": fuzzed(getattr(priors, name), prior(name), log_f=scores, q_joint=distribution("n", "m"))
        for name in ("infonce", "donsker_varadhan", "nwj")
    },
    "priors.barber_agakov": fuzzed(
        priors.barber_agakov, prior("barber_agakov"), log_p=conditional, q_joint=distribution("n", "m")
    ),
    "finite.FiniteRPM": fuzzed(
        lambda **tables: torch.stack([(world := rpm.FiniteRPM(**tables)).mutual_information, world.constant]),
        of_world,
        p_true=distribution("n", "m"),
        recognition=distribution("n", "d", rows=True),
        recognition_prime=distribution("m", "n", rows=True),
    ),
    "finite.FiniteRPM.random": fuzzed(
        lambda **k: rpm.FiniteRPM.random(**k).q_joint,
        plain(),
        x=size(1, 3),
        x_prime=size(2),
        z=size(3),
        z_prime=size(1, 4),
        seed=size(0, 7),
    ),
    "finite.FiniteRPM.ring": fuzzed(
        lambda **k: rpm.FiniteRPM.ring(**k).q_joint,
        plain(),
        coupling=number(0, 3, -50),
        sharpness=number(0, 3, 700),
        tilt=number(0, 0.5),
        x=size(1, 3),
        z=size(2),
    ),
    **{f"finite.FiniteRPM.{kind}": of(kind) for kind in ("elbo", "log_p", "log_evidence", "posterior")},
    "finite.FiniteRPM.gap": of("gap", divergence),
    "finite.FiniteRPM.sample": of("sample", **SAMPLES),
    "shared_latent.SharedLatentRPM": fuzzed(
        lambda p_true, factors_0, factors_1, prior: rpm.SharedLatentRPM(p_true, [factors_0, factors_1], prior).log_p,
        of_world,
        p_true=distribution("n", "m"),
        factors_0=distribution("n", "d", rows=True),
        factors_1=distribution("m", "d", rows=True),
        prior=optional(distribution("d")),
    ),
    "shared_latent.SharedLatentRPM.random": fuzzed(
        lambda **k: rpm.SharedLatentRPM.random(**k).log_p,
        of_world,
        p_true=distribution("n", "m"),
        z=size(1, 3),
        seed=size(0, 5),
    ),
    "shared_latent.SharedLatentRPM.elbo": fuzzed(lambda model, q: model.elbo(q), of_world, model=shared, q=posterior),
    "shared_latent.SharedLatentRPM.m_step": fuzzed(
        lambda model, q: model.m_step(q).log_p, of_world, model=shared, q=posterior
    ),
    **{
        f"critics.{name}": fuzzed(FAMILIES[name], module("scale"), scale=number(1.0, 1e-3, 1e3))
        for name in ("RandomWalk", "LaplaceWalk")
    },
    "critics.VonMisesFisher": fuzzed(critics.VonMisesFisher, module("temperature"), temperature=number(0.1, 1e-3, 10)),
    **{f"critics.{name}": fuzzed(FAMILIES[name], module(), dim=size(1, 3)) for name in ("LinearDynamics", "Bilinear")},
    "critics.Universal": fuzzed(
        own_chance(critics.Universal), module(), dim=size(1, 3), width=size(1, 8), features=size(1, 4)
    ),
    "critics.WithBias.forward": fuzzed(
        lambda critic, z, z_prime: critics.WithBias(critic)(z, z_prime),
        critic_table,
        critic=_critic(*FAMILIES.values()),
        **PAIR,
    ),
    **{
        f"critics.{name}.forward": fuzzed(
            lambda critic, z, z_prime: critic(z, z_prime), critic_table, critic=_critic(family), **PAIR
        )
        for name, family in FAMILIES.items()
    },
    **{
        f"critics.{name}.linear_form": fuzzed(
            lambda critic, z, z_prime: (
                critic.linear_form(z, z_prime).table().to(z)
            ),  # that of a walk may be wider, or elsewhere
            critic_table,
            critic=_critic(FAMILIES[name]),
            **PAIR,
        )
        for name in WITH_FORM
    },
    "evidence.dataset_evidence": fuzzed(
        rpm.dataset_evidence,
        evidence,
        z=latents("n"),
        z_prime=latents("n"),
        critic=_critic(*FAMILIES.values()),
        normalise=one_of("rows", "columns", "both"),
        reduction=one_of("mean", "none"),
        block=one_of(None, 1, 2),
    ),
    "labelled_evidence.label_evidence": fuzzed(
        rpm.label_evidence,
        split_by_label,
        z=latents("n"),
        z_prime=latents("n"),
        critic=_critic(*FAMILIES.values()),
        labels=labels("n"),
    ),
    "evidence.sampled_evidence": fuzzed(
        rpm.sampled_evidence,
        sampled,
        z=many,
        z_prime=many,
        critic=_critic(*FAMILIES.values()),
        rows=size(64, 70),
        negatives=size(5, 70),
        generator=generator,
    ),
    "critic_checks.check_critic": fuzzed(
        rpm.check_critic, lambda found, _: None, critic=one_of(rpm.RandomWalk()), dim=size(1, 3), seed=size(0, 3)
    ),
    "training.Trainer": fuzzed(
        own_chance(
            lambda pairs, **k: list(rpm.Trainer(nn.Linear(pairs[0][0].shape[1], 2), rpm.RandomWalk(), pairs, **k))
        ),
        trained,
        steps=size(1, 2),
        learning_rate=number(1e-3),
        weight_decay=number(0.0, 1e-4),
        pairs=batches,
    ),
    "training.train": fuzzed(
        own_chance(train),
        trained,
        steps=size(1, 2),
        learning_rate=number(1e-3),
        weight_decay=number(0.0, 1e-4),
        pairs=batches,
    ),
    "training.encode": fuzzed(
        rpm.encode, encoded, encoder=one_of(nn.Identity()), x=latents(), batch_size=size(1, 1000)
    ),
    "gaussian.sample": fuzzed(gaussian.sample, gaussian_pairs, rho=RHO, dim=size(1, 3), **SAMPLES),
    "gaussian.mutual_information": fuzzed(gaussian.mutual_information, is_number(0), rho=RHO, dim=DIM),
    "gaussian.chi_squared": fuzzed(gaussian.chi_squared, is_number(0), rho=RHO, dim=DIM),
    "gaussian.infonce_random_walk": fuzzed(
        gaussian.infonce_random_walk, is_number(), rho=RHO, scale=number(1.0, 0.1, 1e3), dim=DIM
    ),
    "gaussian.infonce_inner_product": fuzzed(
        gaussian.infonce_inner_product, is_number(), rho=RHO, kappa=number(0.0, 1.0, -2.0), dim=DIM
    ),
    "gaussian.donsker_varadhan_inner_product": fuzzed(
        gaussian.donsker_varadhan_inner_product, is_number(), rho=RHO, kappa=number(0.0, 0.9, -0.5), dim=DIM
    ),
    "gaussian.log_optimal_critic": fuzzed(gaussian.log_optimal_critic, finite_or_impossible, rho=RHO, **PAIR),
    "datasets.two_views": fuzzed(
        datasets.two_views,
        same_shape,
        x=images,
        strength=number(0, 1, 2),
        flip=one_of(True, False),
        generator=generator,
    ),
    "datasets.view_pairs": fuzzed(
        first_of(datasets.view_pairs),
        plain(),
        x=images,
        batch_size=size(1, 2),
        strength=number(0, 1),
        seed=size(0, 3),
    ),
    "datasets.ViewPairs": fuzzed(
        first_of(datasets.ViewPairs),
        plain(),
        x=images,
        batch_size=size(1, 2),
        strength=number(0, 1),
        flip=one_of(True),
        seed=size(0, 3),
    ),
    **{
        f"datasets.{make.__name__}": fuzzed(
            first_of(make), plain(), x=latents("n"), x_prime=latents("n", "m"), batch_size=size(1, 2), seed=size(0, 3)
        )
        for make in (datasets.tensor_pairs, datasets.TensorPairs)
    },
    "datasets.moving_balls": fuzzed(
        datasets.moving_balls, frames, balls=size(1, 2), scale=number(0.15, 3), size=size(5, 16), **SAMPLES
    ),
    "datasets.constant_velocity": fuzzed(
        datasets.constant_velocity, frames, frames=size(3, 7), scale=number(0.01), size=size(5, 16), **SAMPLES
    ),
    "datasets.twist": fuzzed(
        datasets.twist, same_shape, z=lambda case: latents()(case._replace(d=2)), k=number(0, 1, -3)
    ),
    "encoders.mlp": fuzzed(own_chance(encoders.mlp), module(), inputs=size(1, 4), dim=size(1, 3), width=size(1, 8)),
    "encoders.conv": fuzzed(own_chance(encoders.conv), module(), dim=size(1, 3), width=size(1, 2)),
    "probes.linear_probe": fuzzed(probes.linear_probe, is_number(0, 1), C=number(0.01, 1), **PROBE),
    "probes.nearest_neighbours": fuzzed(probes.nearest_neighbours, is_number(0, 1), k=size(1, 2), **PROBE),
    "probes.r_squared": fuzzed(
        probes.r_squared,
        is_number(high=1 + 1e-6),
        z=more(latents("n")),
        factors=more(latents("n", "m")),
        z_test=more(latents("m")),
        factors_test=more(latents("m", "m")),
    ),
    "probes.mean_correlation": fuzzed(
        probes.mean_correlation, is_number(0, 1 + 1e-6), z=more(latents("n")), factors=more(latents("n", "m"))
    ),
    "probes.match": fuzzed(probes.match, matched, counts=lambda case: latents("n", "m")(case._replace(m=case.n + 1))),
    "derivation.derive": fuzzed(
        lambda world, log_prior: torch.stack([line.value for line in derivation.derive(world, log_prior)]),
        of_world,
        world=lambda case: rpm.FiniteRPM.random(seed=case.n),
        log_prior=lambda case: values("normal", (3, 4), torch.float64, case.rng).flatten().log_softmax(0).view(3, 4),
    ),
    **ESTIMATOR_CALLS,
    "widgets.slider": fuzzed(
        widget_module.slider,
        lambda found, k: None,
        default=number(0.5),
        low=number(0),
        high=number(1),
        step=number(0.1, 0.25),
        label=one_of("k"),
    ),
}
