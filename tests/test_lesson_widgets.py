"""What the widgets show is what the library computes: the numbers in each figure, table and caption."""

import dataclasses
import inspect
import math

import numpy as np
import pytest
import torch
from residuals import agree

import rpm_tutorial as rpm
from rpm_tutorial import FiniteRPM, GaussianChain, datasets, gaussian, lessons, priors
from rpm_tutorial.chain import Gaussian
from rpm_tutorial.course.widgets import explore
from rpm_tutorial.derivation import ASSUMPTIONS, EQUATIONS, derive

GENERATOR = torch.Generator().manual_seed(0)


def rand(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=GENERATOR)


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=GENERATOR)


# What the lessons hand to the widgets that show data of theirs: small, and of the same shapes.

WORLD = FiniteRPM.random(seed=3)
LOG_PRIOR = priors.donsker_varadhan(torch.eye(3, 4, dtype=torch.float64), WORLD.q_joint)
Z, MARKS = randn(24, 3), (torch.arange(24.0) / 24)[:, None, None, None].expand(24, 1, 5, 5)
Z_PRIME = Z + 0.3 * randn(24, 3)
TRAINED = {
    name: {100 * k: (randn(9, 2), k + shift, k / 20, 0.5) for k in range(13)}
    for name, shift in (("random walk", 0.25), ("universal", 0.75))
}
POSITION = datasets.constant_velocity(60, frames=7, size=5, generator=GENERATOR).position
LATENT = POSITION @ torch.tensor([[1.0, 2.0], [-0.5, 1.5]]) + 3  # need not be positions, only affine to them
CHAIN = GaussianChain(torch.tensor([[0.9, 0.4], [-0.4, 0.9]]), learnable=False)
U = CHAIN.sample(20, 20, generator=GENERATOR)[..., :1]
CLASSES, RUNS = (t / t.sum(-1, keepdim=True) for t in (rand(3, 6), rand(2, 3, 11, 6, 3)))
EVIDENCE, CATEGORY = rand(21, 12), torch.tensor([2, 0, 1])  # class k is category CATEGORY[k]
COUNTS = torch.zeros(21, 12, 3, 3)
COUNTS[..., torch.arange(3), CATEGORY] = torch.tensor([30.0, 20.0, 40.0])
COUNTS[7, :, 1, 2] = 10.0  # a tenth of all images in another class's category
THETA = 7 * rand(50)
CIRCLE = [3 * torch.stack([t.cos(), t.sin()], 1) for t in (THETA, THETA + 0.3 * randn(50))]  # only directions count
CODES = {"wound once": CIRCLE, "folded": [side.abs() for side in CIRCLE]}
MADE = {
    "proof": lessons.lesson_02.proof(WORLD, LOG_PRIOR),
    "retrieval": lessons.lesson_05.retrieval(Z, Z_PRIME, MARKS, MARKS),
    "unfolding": lessons.lesson_08.unfolding(TRAINED, torch.arange(9.0), points=7),
    "momentum": lessons.lesson_10.momentum(LATENT[:, :3], POSITION[:, :3]),
    "forecast": lessons.lesson_11.forecast(LATENT, POSITION),
    "hidden": lessons.lesson_12.hidden(
        CHAIN, Gaussian(U, torch.full((20, 20, 1, 1), 1e-3)), torch.tensor([0.1, 0.5]), 0.5 + 0.1 * U[..., 0]
    ),
    "classes": lessons.lesson_13.classes(
        CLASSES.T,
        {
            data: [[(0.05 * k, table) for k, table in enumerate(run)] for run in runs]
            for data, runs in zip(("pairs", "triples"), RUNS)
        },
    ),
    "restarts": lessons.lesson_14.restarts(EVIDENCE, COUNTS),
    "concentration": lessons.lesson_16.concentration(CODES),
}


def renders() -> dict:
    """Every public function of a lesson's module that draws: one argument annotated with a state, or in MADE."""
    modules = [getattr(lessons, lesson) for lesson in lessons.LESSONS]
    public = {
        name: f
        for module in modules
        for name, f in inspect.getmembers(module, inspect.isfunction)
        if f.__module__ == module.__name__ and not name.startswith("_")
    }
    return {
        name: MADE.get(name, f) for name, f in public.items() if "Tensor" not in str(f.__annotations__.get("return"))
    }


RENDERS = renders()


def draw(name: str, **settings):
    """The widget's figure at these settings."""
    return RENDERS[name](dataclasses.replace(explore(RENDERS[name]).state, **settings))


def curves(figure) -> dict[str, np.ndarray]:
    return {trace.name: np.array(trace.y) for trace in figure.plotly.data}


def test_the_likelihood_shows_the_model_of_a_ring_beside_its_data():
    figure = draw("ring", sharpness=4.0, coupling=3.0)
    world = FiniteRPM.ring(coupling=3.0, sharpness=4.0)
    model = world.log_p(priors.optimal(world.q_joint)).exp()
    given_x = [p / p.sum(1, keepdim=True) for p in (world.p_true, model)]
    for trace, expected in zip(figure.plotly.data, [world.log_p_x_given_z.exp(), *given_x], strict=True):
        agree("the likelihood widget", np.array(trace.z), expected)
    divergence = (world.p_true * (world.p_true / model).log()).sum()
    assert f"KL = {divergence:.3f} nats" in figure.caption


@pytest.mark.parametrize(
    "broken, line, fails",
    [("nothing", 7, None), ("decoder", 7, "Bayes"), ("aggregate", 7, "(E5)"), ("aggregate", 2, None)],
)
def test_the_proof_shows_the_lines_so_far_and_marks_the_one_that_fails(broken, line, fails):
    figure = draw("proof", broken=broken, line=line)
    expected = [found.value for found in derive(WORLD, LOG_PRIOR, broken)]
    names, symbols = list(EQUATIONS)[:line], figure.plotly.data[0].marker.symbol
    assert [name for name, _ in figure.rows] == names
    agree("the proof widget", np.array(figure.plotly.data[0].x), torch.stack(expected)[:line])
    assert [n for n, symbol in zip(names, symbols, strict=True) if symbol == "x"] == [fails] * (fails is not None)
    assert (f"«{fails}» fails" if fails else "every line so far agrees") in figure.caption
    assert ASSUMPTIONS[broken][1:] in figure.caption  # its symbols as they are: Q(z), not q(z)
    assert EQUATIONS[names[-1]] in figure.caption


def test_the_walk_shows_infonce_below_the_information_by_the_divergence():
    figure = draw("walk", rho=0.5, scale=1.2)
    a, rho, found = 1.2**-2, 0.5, curves(figure)
    divergence = (math.log(1 / (1 + a)) - math.log(1 - rho**2)) / 2
    divergence += ((1 - rho**2) * (1 + a) - 1 + (rho - a / (1 + a)) ** 2 * (1 + a)) / 2
    agree("the walk widget: MI", found["MI"], np.full(len(found["MI"]), -0.5 * math.log(1 - rho**2)))
    expected = [gaussian.infonce_random_walk(rho, scale) for scale in figure.plotly.data[0].x]
    agree("the walk widget", found["InfoNCE"], np.array(expected))
    assert f"KL(Q‖P) = {divergence:.4f}" in figure.caption


@pytest.mark.parametrize("prior", ["InfoNCE", "DV", "NWJ"])
def test_the_choice_of_prior_shows_each_objective_and_the_gap_of_the_chosen_one(prior):
    objective = {"InfoNCE": rpm.infonce, "DV": rpm.donsker_varadhan, "NWJ": rpm.nwj}
    world, offset = FiniteRPM.ring(coupling=3.0, sharpness=3.0), torch.tensor([[-1.5], [0.0], [1.5]]).double()
    log_ratio = (world.q_joint / (world.q_z[:, None] * world.q_z_prime)).log()
    figure = draw("prior_choice", kappa=0.75, offset=1.5, prior=prior)
    found = curves(figure)
    for name, curve in objective.items():
        expected = [curve(1 + k * log_ratio + offset, world.q_joint).value.item() for k in figure.plotly.data[0].x]
        seen = np.isfinite(found[name])
        agree("the prior widget", found[name][seen], np.array(expected)[seen])
        assert seen.any() or max(expected) < -0.3
    agree("the prior widget: MI", found["MI"], world.mutual_information.expand(len(found["MI"])))
    chosen = objective[prior](1 + 0.75 * log_ratio + offset, world.q_joint).value
    assert f"L − C = {chosen:.4f}" in figure.caption
    assert f"KL(Q‖P) = {world.mutual_information - chosen:.4f}" in figure.caption


def test_retrieval_shows_the_most_probable_images_and_the_evidence_at_its_temperature():
    figure = draw("retrieval", temperature=0.2, image=5)
    critic, n = {t: rpm.VonMisesFisher(t)(Z, Z_PRIME).detach() for t in (0.2, *figure.plotly.data[2].x)}, 24
    p = critic[0.2][5].softmax(0)
    best = p.sort(descending=True).indices[:8]
    assert [text for _, _, text in figure.rows] == [*(f"{p[j]:.3f}" for j in best), f"✓ {p[5]:.3f}"]
    evidence = {t: rpm.infonce(log_f).value.item() - 2 * np.log(n) for t, log_f in critic.items()}
    assert f"ranked {1 + int((p > p[5]).sum())} of {n} with P = {p[5]:.3f}" in figure.caption
    assert f"{evidence[0.2]:.3f} nats per pair" in figure.caption
    picture, bars, curve, own, chosen = figure.plotly.data
    agree("bars of P", np.array(bars.y), [*p[best], p[5]], tolerance=1e-6)
    agree("the evidence curve", np.array(curve.y), [evidence[t] for t in curve.x], tolerance=1e-5)
    of_pair = [critic[t].log_softmax(1)[5, 5].item() - np.log(n) for t in own.x]
    agree("log P of the pair", np.array(own.y), of_pair, tolerance=1e-5)
    agree("the chosen temperature", [*chosen.x, *chosen.y], [0.2, evidence[0.2]], tolerance=1e-5)
    assert f"highest at temperature {own.x[np.argmax(of_pair)]:g}" in figure.caption
    assert figure.alt.endswith(f"highest at {max(curve.x, key=evidence.get):g}.")
    canvas = np.array(picture.z, float)
    pixels = [canvas[canvas.shape[0] // 2 + 3 :, column] for column in range(3, 8 * 7, 7)]
    shades = [column[column < 255].max() for column in pixels]
    assert np.argsort(shades).tolist() == np.argsort(best.numpy()).tolist(), "the images are those of the probabilities"


@pytest.mark.parametrize("information, doublings", [(0.5, 3), (2.0, 6), (6.0, 10)])
def test_finite_batches_shows_the_samples_the_law_and_the_ceiling(information, doublings):
    figure = draw("finite_batches", information=information, doublings=doublings)
    found, n = curves(figure), 2 ** np.arange(1, 11)
    rho = np.sqrt(1 - np.exp(-information / 2))  # of each of four dimensions
    assert gaussian.mutual_information(rho, 4) == pytest.approx(information)
    law = information - gaussian.chi_squared(rho, 4) / (2 * n)
    agree("(E16) in the widget", found["law (E16)"], law, tolerance=1e-9)
    agree("the ceiling", found["log N"], np.log(n))
    assert (found["InfoNCE"] <= np.log(n)).all() and (found["MI"] == information).all()
    said = f"{found['InfoNCE'][doublings - 1]:.2f} of {information:g} nats; the ceiling log N is {np.log(2**doublings):.2f}"
    assert said in figure.caption


def test_finite_batches_samples_what_infonce_gives_on_batches():
    generator, rho, n = torch.Generator().manual_seed(1), np.sqrt(1 - np.exp(-1.0)), 16  # 2 nats in four dimensions
    tables = [gaussian.log_optimal_critic(*gaussian.sample(n, rho, 4, generator=generator), rho) for _ in range(400)]
    values = torch.stack([rpm.infonce(log_f).value for log_f in tables])
    shown = draw("finite_batches", information=2.0).plotly.data[0].y[3]
    assert abs(shown - values.mean()) < 4 * values.std() / 20 + 0.1  # the widget's 512 rows share their 1023 strangers


@pytest.mark.parametrize("strength", [0.0, 1.0, 2.0])
def test_the_twist_turns_each_point_by_its_distance_and_keeps_it(strength):
    before, after = draw("twisted", strength=strength).plotly.data
    z, h = (np.array(trace.x) + 1j * np.array(trace.y) for trace in (before, after))
    turned = z * np.exp(1j * strength * np.abs(z))
    agree("the twist widget", np.c_[h.real, h.imag], np.c_[turned.real, turned.imag])
    assert np.array_equal(before.marker.color, z.real) and np.array_equal(after.marker.color, z.real)


def test_unfolding_shows_the_step_and_prior_that_were_chosen():
    figure = draw("unfolding", prior="universal", hundreds=3)
    for trace, step in zip(figure.plotly.data, (0, 300), strict=True):
        assert np.allclose(np.c_[trace.x, trace.y], TRAINED["universal"][step][0][:7])
        assert list(trace.marker.color) == list(range(7))
    assert "After 300 steps under the universal prior: held-out evidence 3.75 nats" in figure.caption
    assert "position 0.15" in figure.caption


VELOCITY, WALK = {"prior": "constant velocity"}, {"prior": "random walk"}


@pytest.mark.parametrize(
    "name, settings, law, horizon",
    [("momentum", {"momentum": m}, (-m, 1 + m), 1) for m in (-0.5, 0.0, 1.0)]
    + [("forecast", VELOCITY | {"horizon": h}, (-1.0, 2.0), h) for h in (1, 2, 5)]
    + [("forecast", WALK | {"horizon": h}, (0.0, 1.0), h) for h in (1, 2, 5)],
)
def test_what_is_expected_is_the_one_step_prior_iterated_and_its_worth_is_infonce(name, settings, law, horizon):
    p = POSITION[:, :3] if name == "momentum" else POSITION
    figure = draw(name, sequence=7, **settings)
    latent, true, expected, circle = (np.stack([trace.y, trace.x], 1) for trace in figure.plotly.data)
    agree("the true path", true, p[7])
    agree("the latent path lies on it", latent, p[7], tolerance=1e-4)
    # One step at a time: the mean, and the weight that each earlier push has in the last frame.
    a, b = law
    before, now, weights = p[:, 0], p[:, 1], [0.0, 1.0]
    for _ in range(horizon):
        before, now = now, a * before + b * now
        weights.append(a * weights[-2] + b * weights[-1])
    agree("the expected frame", expected[0], now[7], tolerance=1e-4)
    residual = p[:, 2] - a * p[:, 0] - b * p[:, 1]
    deviation = residual.square().mean().sqrt() * np.linalg.norm(weights[1 : horizon + 1])
    radius = np.linalg.norm(circle - expected, axis=1)
    agree("two standard deviations", radius, np.full(41, 2 * deviation), tolerance=1e-4)
    nats = rpm.infonce(rpm.RandomWalk(deviation.item())(now, p[:, 1 + horizon])).value
    off = (p[7, 1 + horizon] - now[7]).norm()
    off = f"off by {off:.3f} sides, {off / deviation:.1f} of its standard deviations"
    assert f"worth {nats:.2f} nats" in figure.caption
    assert (off if name == "forecast" else "at m = 1.") in figure.caption


def test_the_band_opens_where_nothing_is_seen_and_holds_the_chain_s_own_ball():
    figure = draw("hidden", first=4, hidden=5, sequence=3)
    lower, upper, truth, mean = (np.array(trace.y) for trace in figure.plotly.data)
    width = upper - lower
    assert width[4:9].min() > 2 * np.delete(width, range(4, 9)).max() and 5 <= width.argmax() <= 7
    agree("the mean is the middle", mean, (upper + lower) / 2, tolerance=1e-6)
    agree("what is seen is known", mean[:4], truth[:4], tolerance=0.02)
    (dark,) = figure.plotly.layout.shapes
    assert (dark.x0, dark.x1) == (3.5, 8.5) and "not seen from 3.5 to 8.5" in figure.alt
    whole = draw("hidden", hidden=0)
    assert "All frames were seen" in whole.caption and not whole.plotly.layout.shapes


@pytest.mark.parametrize("data, start, doublings", [("pairs", 2, 0), ("triples", 3, 10)])
def test_classes_shows_what_a_run_of_em_had_found_and_how_far_off_it_was(data, start, doublings):
    figure, true = draw("classes", doublings=doublings, data=data, start=start), CLASSES.T
    found = RUNS[int(data == "triples"), start - 1, doublings]
    for trace, expected in zip(figure.plotly.data, (true, found), strict=True):
        agree("the classes widget", np.array(trace.z), expected.T, tolerance=1e-6)
    off = max(0.5 * sum(abs(a - b) for a, b in zip(*columns)) for columns in zip(true.T.tolist(), found.T.tolist()))
    assert f"EM on {data} from start {start}, after {2**doublings} steps" in figure.caption
    assert f"{5 * doublings}.00% of its ceiling" in figure.caption and f"off by {off:.3f}" in figure.caption


def test_restarts_shows_the_categories_the_evidence_so_far_and_the_labels_they_agree_with():
    figure, run = draw("restarts", step=70, rank=3), EVIDENCE[-1].sort(descending=True).indices[2]
    table, *others, chosen = figure.plotly.data
    shares = torch.tensor([[1, 0, 0], [1 / 3, 2 / 3, 0], [0, 0, 1]])
    agree("the restarts widget: shares", np.array(table.z), shares, tolerance=1e-6)
    agree("the restarts widget: all", np.array([line.y for line in others]), EVIDENCE.T)
    agree("the restarts widget: so far", np.array(chosen.y), EVIDENCE[:8, run])
    assert list(chosen.x) == [10 * k for k in range(8)]
    assert f"Restart 3 of 12 after 70 steps: {EVIDENCE[7, run]:.3f} of log 3 = 1.099 nats" in figure.caption
    assert "90.0% of the labels" in figure.caption


@pytest.mark.parametrize("code, pair, kappa", [("wound once", 3, 7), ("folded", 0, 30)])
def test_concentration_shows_the_prior_on_the_circle_and_what_each_kappa_earns(code, pair, kappa):
    figure = draw("concentration", kappa=kappa, code=code, pair=pair)
    unit, unit_prime = (torch.nn.functional.normalize(side, dim=1) for side in CODES[code])
    p, prior = (kappa * unit[pair] @ unit_prime.T).softmax(0), figure.plotly.data[1]
    area = np.array(prior.marker.size) - 2
    agree("probability on the circle, by area", (area / area.max()) ** 2, (p / p.max()).numpy(), tolerance=1e-5)
    agree("z' on the circle", np.array([prior.x, prior.y]).T, unit_prime, tolerance=1e-6)
    for row in figure.rows[::13]:
        expected = [rpm.infonce(rpm.VonMisesFisher(1 / row[0])(*sides)).value.item() for sides in CODES.values()]
        agree("InfoNCE of a concentration", row[1:], expected, tolerance=1e-5)
    earned = figure.rows[kappa - 1][1 + list(CODES).index(code)]
    assert f"P = {p[pair]:.4f}" in figure.caption and f"{code} earns {earned:.2f} nats" in figure.caption
    assert [row[0] for row in figure.rows] == list(range(1, 41)) and figure.columns == ["κ", *CODES]


@pytest.mark.parametrize(
    "call, found",
    [
        (lambda: lessons.lesson_05.retrieval(Z[:19], Z_PRIME[:19], MARKS[:19], MARKS[:19]), "z has 19 rows"),
        (lambda: lessons.lesson_11.forecast(LATENT[:19], POSITION[:19]), r"z has shape \(19, 7, 2\)"),
        (lambda: lessons.lesson_14.restarts(EVIDENCE[:20], COUNTS[:20]), r"evidence has shape \(20, 12\)"),
    ],
)
def test_records_too_few_for_the_sliders_are_refused(call, found):
    with pytest.raises(ValueError, match=found + ".*expected"):
        call()
