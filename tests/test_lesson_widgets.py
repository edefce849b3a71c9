"""What the widgets show is what the library computes: the numbers in each figure, table and caption."""

import math

import numpy as np
import pytest
import torch
from residuals import agree

import rpm_tutorial as rpm
from rpm_tutorial import FiniteRPM, GaussianChain, datasets, gaussian, lessons, priors
from rpm_tutorial.chain import Gaussian
from rpm_tutorial.derivation import ASSUMPTIONS, EQUATIONS, derive


def test_the_likelihood_shows_the_model_of_a_ring_beside_its_data():
    figure = lessons.lesson_01.ring(lessons.lesson_01.WorldState(sharpness=4.0, coupling=3.0))
    world = FiniteRPM.ring(coupling=3.0, sharpness=4.0)
    model = world.log_p(priors.optimal(world.q_joint)).exp()
    given_x = [world.p_true / world.p_true.sum(1, keepdim=True), model / model.sum(1, keepdim=True)]
    for trace, expected in zip(figure.plotly.data, [world.log_p_x_given_z.exp(), *given_x], strict=True):
        agree("the likelihood widget", np.array(trace.z), expected)
    divergence = (world.p_true * (world.p_true / model).log()).sum()
    assert f"KL = {divergence:.3f} nats" in figure.caption


@pytest.mark.parametrize("broken, line", [("nothing", None), ("decoder", "Bayes"), ("aggregate", "(E5)")])
def test_the_proof_shows_each_line_and_marks_the_one_that_fails(broken, line):
    world = FiniteRPM.random(seed=3)
    log_prior = priors.donsker_varadhan(torch.eye(3, 4, dtype=torch.float64), world.q_joint)
    figure = lessons.lesson_02.proof(world, log_prior)(lessons.lesson_02.ProofState(broken, line=7))
    expected = derive(world, log_prior, broken)
    assert [name for name, _ in figure.rows] == list(EQUATIONS)
    agree("the proof widget", np.array(figure.plotly.data[0].x), torch.stack([found.value for found in expected]))
    marked = [symbol == "x" for symbol in figure.plotly.data[0].marker.symbol]
    assert [name for name, mark in zip(EQUATIONS, marked, strict=True) if mark] == [line] * (line is not None)
    assert (f"«{line}» fails" if line else "every line so far agrees") in figure.caption
    assert ASSUMPTIONS[broken][1:] in figure.caption  # its symbols as they are: Q(z), not q(z)


def test_the_proof_shows_only_the_lines_asked_for():
    world = FiniteRPM.random(seed=3)
    figure = lessons.lesson_02.proof(world, priors.optimal(world.q_joint))(
        lessons.lesson_02.ProofState("aggregate", line=2)
    )
    assert [name for name, _ in figure.rows] == list(EQUATIONS)[:2]
    assert "every line so far agrees" in figure.caption and EQUATIONS["(E3)"] in figure.caption


def test_the_walk_shows_infonce_below_the_information_by_the_divergence():
    figure = lessons.lesson_03.walk(lessons.lesson_03.WalkState(rho=0.5, scale=1.2))
    drawn = {trace.name: np.array(trace.y) for trace in figure.plotly.data}
    a, rho = 1.2**-2, 0.5
    divergence = (math.log(1 / (1 + a)) - math.log(1 - rho**2)) / 2
    divergence += ((1 - rho**2) * (1 + a) - 1 + (rho - a / (1 + a)) ** 2 * (1 + a)) / 2
    agree("the walk widget: MI", drawn["MI"], np.full(len(drawn["MI"]), -0.5 * math.log(1 - rho**2)))
    expected = [gaussian.infonce_random_walk(rho, scale) for scale in figure.plotly.data[0].x]
    agree("the walk widget", drawn["InfoNCE"], np.array(expected))
    assert f"KL(Q‖P) = {divergence:.4f}" in figure.caption


@pytest.mark.parametrize("prior", ["InfoNCE", "DV", "NWJ"])
def test_the_choice_of_prior_shows_each_objective_and_the_gap_of_the_chosen_one(prior):
    objective = {"InfoNCE": rpm.infonce, "DV": rpm.donsker_varadhan, "NWJ": rpm.nwj}
    world, offset = FiniteRPM.ring(coupling=3.0, sharpness=3.0), torch.tensor([[-1.5], [0.0], [1.5]]).double()
    log_ratio = (world.q_joint / (world.q_z[:, None] * world.q_z_prime)).log()
    figure = lessons.lesson_04.prior_choice(lessons.lesson_04.PriorState(kappa=0.75, offset=1.5, prior=prior))
    drawn = {trace.name: np.array(trace.y) for trace in figure.plotly.data}
    for name, curve in objective.items():
        expected = [curve(1 + k * log_ratio + offset, world.q_joint).value.item() for k in figure.plotly.data[0].x]
        shown = np.isfinite(drawn[name])
        agree("the prior widget", drawn[name][shown], np.array(expected)[shown])
        assert shown.any() or max(expected) < -0.3
    agree("the prior widget: MI", drawn["MI"], world.mutual_information.expand(len(drawn["MI"])))
    chosen = objective[prior](1 + 0.75 * log_ratio + offset, world.q_joint).value
    assert f"L − C = {chosen:.4f}" in figure.caption
    assert f"KL(Q‖P) = {world.mutual_information - chosen:.4f}" in figure.caption


def test_retrieval_shows_the_most_probable_images_and_the_evidence_at_its_temperature():
    z, step = torch.randn(2, 24, 3, generator=torch.Generator().manual_seed(0))
    z_prime, marks = z + 0.3 * step, torch.arange(24.0)[:, None, None, None] / 24
    x, x_prime = marks.expand(24, 1, 5, 5), marks.expand(24, 1, 5, 5)
    figure = lessons.lesson_05.retrieval(z, z_prime, x, x_prime)(
        lessons.lesson_05.RetrievalState(temperature=0.2, image=5)
    )
    log_f = rpm.VonMisesFisher(0.2)(z, z_prime).detach()
    p = log_f[5].softmax(0)
    best = p.sort(descending=True).indices[:8]
    assert [text for _, _, text in figure.rows] == [*(f"{p[j]:.3f}" for j in best), f"✓ {p[5]:.3f}"]
    rank = 1 + int((p > p[5]).sum())
    evidence = rpm.infonce(log_f).value - 2 * np.log(24)
    assert (
        f"ranked {rank} of 24 with P = {p[5]:.3f}" in figure.caption
        and f"{evidence:.3f} nats per pair" in figure.caption
    )
    _, bars, curve, own, chosen = figure.plotly.data
    agree("bars of P", np.array(bars.y), [*p[best], p[5]], tolerance=1e-6)
    at = {t: rpm.infonce(rpm.VonMisesFisher(t)(z, z_prime)).value.item() - 2 * np.log(24) for t in curve.x}
    agree("the evidence curve", np.array(curve.y), [*at.values()], tolerance=1e-5)
    of_pair = [rpm.VonMisesFisher(t)(z, z_prime).log_softmax(1)[5, 5].item() - np.log(24) for t in own.x]
    agree("log P of the pair", np.array(own.y), of_pair, tolerance=1e-5)
    assert f"highest at temperature {own.x[np.argmax(of_pair)]:g}" in figure.caption
    agree("the chosen temperature", [*chosen.x, *chosen.y], [0.2, evidence], tolerance=1e-5)
    assert figure.alt.endswith(f"highest at {max(at, key=at.get):g}.")
    canvas = np.array(figure.plotly.data[0].z, float)
    pixels = [canvas[canvas.shape[0] // 2 + 3 :, column] for column in range(3, 8 * 7, 7)]
    shades = [column[column < 255].max() for column in pixels]
    assert np.argsort(shades).tolist() == np.argsort(best.numpy()).tolist(), "the images are those of the probabilities"


@pytest.mark.parametrize("information, doublings", [(0.5, 3), (2.0, 6), (6.0, 10)])
def test_finite_batches_shows_the_samples_the_law_and_the_ceiling(information, doublings):
    figure = lessons.lesson_06.finite_batches(
        lessons.lesson_06.BatchState(information=information, doublings=doublings)
    )
    drawn, n = {trace.name: np.array(trace.y) for trace in figure.plotly.data}, 2 ** np.arange(1, 11)
    rho = np.sqrt(1 - np.exp(-information / 2))  # of each of four dimensions
    assert gaussian.mutual_information(rho, 4) == pytest.approx(information)
    agree(
        "(E16) in the widget", drawn["law (E16)"], information - gaussian.chi_squared(rho, 4) / (2 * n), tolerance=1e-9
    )
    agree("the ceiling", drawn["log N"], np.log(n))
    assert (drawn["InfoNCE"] <= np.log(n)).all() and (drawn["MI"] == information).all()
    found = f"{drawn['InfoNCE'][doublings - 1]:.2f} of {information:g} nats; the ceiling log N is {np.log(2**doublings):.2f}"
    assert found in figure.caption


def test_finite_batches_samples_what_infonce_gives_on_batches():
    generator, rho, n = torch.Generator().manual_seed(1), np.sqrt(1 - np.exp(-1.0)), 16  # 2 nats in four dimensions
    tables = [gaussian.log_optimal_critic(*gaussian.sample(n, rho, 4, generator=generator), rho) for _ in range(400)]
    values = torch.stack([rpm.infonce(log_f).value for log_f in tables])
    shown = lessons.lesson_06.finite_batches(lessons.lesson_06.BatchState(information=2.0)).plotly.data[0].y[3]
    assert abs(shown - values.mean()) < 4 * values.std() / 20 + 0.1  # the widget's 512 rows share their 1023 strangers


@pytest.mark.parametrize("strength", [0.0, 1.0, 2.0])
def test_the_twist_turns_each_point_by_its_distance_and_keeps_it(strength):
    before, after = lessons.lesson_07.twisted(lessons.lesson_07.TwistState(strength)).plotly.data
    z, h = (np.array(trace.x) + 1j * np.array(trace.y) for trace in (before, after))
    turned = z * np.exp(1j * strength * np.abs(z))
    agree("the twist widget", np.c_[h.real, h.imag], np.c_[turned.real, turned.imag])
    assert np.array_equal(before.marker.color, z.real) and np.array_equal(after.marker.color, z.real)


def test_unfolding_shows_the_step_and_prior_that_were_chosen():
    generator = torch.Generator().manual_seed(0)
    paths = {
        name: {100 * k: (torch.randn(9, 2, generator=generator), k + shift, k / 20, 0.5) for k in range(13)}
        for name, shift in (("random walk", 0.25), ("universal", 0.75))
    }
    figure = lessons.lesson_08.unfolding(paths, torch.arange(9.0), points=7)(
        lessons.lesson_08.UnfoldingState(prior="universal", hundreds=3)
    )
    start, now = figure.plotly.data
    for trace, step in ((start, 0), (now, 300)):
        assert np.allclose(np.c_[trace.x, trace.y], paths["universal"][step][0][:7])
        assert list(trace.marker.color) == list(range(7))
    assert "After 300 steps under the universal prior: held-out evidence 3.75 nats" in figure.caption
    assert "position 0.15" in figure.caption


@pytest.mark.parametrize("m", [-0.5, 0.0, 1.0])
def test_momentum_shows_where_the_context_expects_the_third_frame_and_what_it_earns(m):
    p = datasets.constant_velocity(400, size=5, generator=torch.Generator().manual_seed(0)).position
    turned = p @ torch.tensor([[1.0, 2.0], [-0.5, 1.5]]) + 3  # latents need not be positions, only affine to them
    figure = lessons.lesson_10.momentum(turned, p)(lessons.lesson_10.MomentumState(momentum=m, sequence=7))
    latent, true, expected, circle = (np.stack([trace.y, trace.x], 1) for trace in figure.plotly.data)
    agree("the true path", true, p[7])
    agree("the latent path lies on it", latent, p[7], tolerance=1e-4)
    means = (1 + m) * p[:, 1] - m * p[:, 0]
    deviation = (p[:, 2] - means).square().mean().sqrt()
    agree("the expected frame", expected[0], means[7], tolerance=1e-4)
    radius = np.linalg.norm(circle - expected, axis=1)
    agree("two standard deviations", radius, np.full(41, 2 * deviation), tolerance=1e-4)
    nats = rpm.infonce(rpm.RandomWalk(deviation.item())(means, p[:, 2])).value
    assert f"worth {nats:.2f} nats" in figure.caption and "at m = 1." in figure.caption


def test_the_band_opens_where_nothing_is_seen_and_holds_the_chain_s_own_ball():
    chain = GaussianChain(torch.tensor([[0.9, 0.4], [-0.4, 0.9]]), learnable=False)
    u = chain.sample(20, 20, generator=torch.Generator().manual_seed(0))[..., :1]
    render = lessons.lesson_12.hidden(
        chain, Gaussian(u, torch.full((20, 20, 1, 1), 1e-3)), torch.tensor([0.1, 0.5]), 0.5 + 0.1 * u[..., 0]
    )
    state = lessons.lesson_12.HiddenState(first=4, hidden=5, sequence=3)
    figure = render(state)
    lower, upper, truth, mean = (np.array(trace.y) for trace in figure.plotly.data)
    width = upper - lower
    assert width[4:9].min() > 2 * np.delete(width, range(4, 9)).max() and 5 <= width.argmax() <= 7
    agree("the mean is the middle", mean, (upper + lower) / 2, tolerance=1e-6)
    agree("what is seen is known", mean[:4], truth[:4], tolerance=0.02)
    assert figure.plotly.data[1].fill == "tonexty", "between the ends"
    (dark,) = figure.plotly.layout.shapes
    assert (dark.x0, dark.x1) == (3.5, 8.5) and "not seen from 3.5 to 8.5" in figure.alt
    whole = render(lessons.lesson_12.HiddenState(hidden=0))
    assert "All frames were seen" in whole.caption and not whole.plotly.layout.shapes


@pytest.mark.parametrize("prior, law", [("constant velocity", (-1.0, 2.0)), ("random walk", (0.0, 1.0))])
@pytest.mark.parametrize("horizon", [1, 2, 5])
def test_the_forecast_is_the_one_step_prior_iterated(prior, law, horizon):
    p = datasets.constant_velocity(60, frames=7, size=5, generator=torch.Generator().manual_seed(0)).position
    turned = p @ torch.tensor([[1.0, 2.0], [-0.5, 1.5]]) + 3  # latents need not be positions, only affine to them
    figure = lessons.lesson_11.forecast(turned, p)(
        lessons.lesson_11.ForecastState(horizon=horizon, prior=prior, sequence=7)
    )
    latent, true, expected, circle = (np.stack([trace.y, trace.x], 1) for trace in figure.plotly.data)
    agree("the true path", true, p[7])
    agree("the latent path lies on it", latent, p[7], tolerance=1e-4)
    # One step at a time: the mean, and the weight that each earlier push has in the last frame.
    a, b = law
    before, now, weights = p[7, 0], p[7, 1], [0.0, 1.0]
    for _ in range(horizon):
        before, now = now, a * before + b * now
        weights.append(a * weights[-2] + b * weights[-1])
    agree("the expected frame", expected[0], now, tolerance=1e-4)
    residual = p[:, 2] - a * p[:, 0] - b * p[:, 1]
    deviation = residual.square().mean().sqrt() * np.linalg.norm(weights[1 : horizon + 1])
    agree(
        "two standard deviations", np.linalg.norm(circle - expected, axis=1), np.full(41, 2 * deviation), tolerance=1e-4
    )
    off = (p[7, 1 + horizon] - now).norm()
    assert f"off by {off:.3f} sides, {off / deviation:.1f} of its standard deviations" in figure.caption
    matrix = {1: law, 2: (a * b, a + b * b), 5: None}[horizon]
    if matrix:
        critic = rpm.RandomWalk(deviation.item())
        log_f = critic(matrix[0] * p[:, 0] + matrix[1] * p[:, 1], p[:, 1 + horizon])
        assert f"worth {rpm.infonce(log_f).value:.2f} nats" in figure.caption


@pytest.mark.parametrize("data, start, doublings", [("pairs", 2, 0), ("triples", 3, 10)])
def test_classes_shows_what_a_run_of_em_had_found_and_how_far_off_it_was(data, start, doublings):
    generator = torch.Generator().manual_seed(0)
    true, tables = torch.rand(6, 3, generator=generator), torch.rand(2, 3, 11, 6, 3, generator=generator)
    true, tables = true / true.sum(0), tables / tables.sum(3, keepdim=True)
    paths = {
        name: [[(0.05 * k, table) for k, table in enumerate(run)] for run in runs]
        for name, runs in zip(("pairs", "triples"), tables)
    }
    figure = lessons.lesson_13.classes(true, paths)(lessons.lesson_13.ClassesState(doublings, data, start))
    found = tables[int(data == "triples"), start - 1, doublings]
    for trace, expected in zip(figure.plotly.data, (true, found), strict=True):
        agree("the classes widget", np.array(trace.z), expected.T, tolerance=1e-6)
    off = max(0.5 * sum(abs(a - b) for a, b in zip(*columns)) for columns in zip(true.T.tolist(), found.T.tolist()))
    assert f"EM on {data} from start {start}, after {2**doublings} steps" in figure.caption
    assert f"{5 * doublings}.00% of its ceiling" in figure.caption and f"off by {off:.3f}" in figure.caption


def test_restarts_shows_the_categories_the_evidence_so_far_and_the_labels_they_agree_with():
    generator = torch.Generator().manual_seed(0)
    evidence, names = torch.rand(21, 12, generator=generator), torch.tensor([2, 0, 1])  # class k is category names[k]
    counts = torch.zeros(21, 12, 3, 3)
    counts[..., torch.arange(3), names] = torch.tensor([30.0, 20.0, 40.0])
    counts[7, :, 1, 2] = 10.0  # a tenth of all images in another class's category
    figure = lessons.lesson_14.restarts(evidence, counts)(lessons.lesson_14.RestartState(step=70, rank=3))
    run = evidence[-1].sort(descending=True).indices[2]
    table, *others, chosen = figure.plotly.data
    agree(
        "the restarts widget: shares",
        np.array(table.z),
        torch.tensor([[1, 0, 0], [1 / 3, 2 / 3, 0], [0, 0, 1]]),
        tolerance=1e-6,
    )
    agree("the restarts widget: all", np.array([line.y for line in others]), evidence.T)
    agree("the restarts widget: so far", np.array(chosen.y), evidence[:8, run])
    assert list(chosen.x) == [10 * k for k in range(8)]
    assert f"Restart 3 of 12 after 70 steps: {evidence[7, run]:.3f} of log 3 = 1.099 nats" in figure.caption
    assert "90.0% of the labels" in figure.caption


@pytest.mark.parametrize("code, pair, kappa", [("wound once", 3, 7), ("folded", 0, 30)])
def test_concentration_shows_the_prior_on_the_circle_and_what_each_kappa_earns(code, pair, kappa):
    generator = torch.Generator().manual_seed(2)
    theta = 7 * torch.rand(50, generator=generator)
    theta_prime = theta + 0.3 * torch.randn(50, generator=generator)
    circle = [3 * torch.stack([t.cos(), t.sin()], 1) for t in (theta, theta_prime)]  # only the direction counts
    codes = {"wound once": circle, "folded": [side.abs() for side in circle]}
    figure = lessons.lesson_16.concentration(codes)(lessons.lesson_16.ConcentrationState(kappa, code, pair))

    unit, unit_prime = (torch.nn.functional.normalize(side, dim=1) for side in codes[code])
    p = (kappa * unit[pair] @ unit_prime.T).softmax(0)
    drawn = np.array(figure.plotly.data[1].marker.size) - 2
    agree("probability on the circle, by area", (drawn / drawn.max()) ** 2, (p / p.max()).numpy(), tolerance=1e-5)
    agree(
        "z' on the circle", np.array([figure.plotly.data[1].x, figure.plotly.data[1].y]).T, unit_prime, tolerance=1e-6
    )
    for row in figure.rows[::13]:
        for name, value in zip(codes, row[1:]):
            expected = rpm.infonce(rpm.VonMisesFisher(1 / row[0])(*codes[name])).value
            agree("InfoNCE of a concentration", value, expected, tolerance=1e-5)
    shown = figure.rows[kappa - 1][1 + list(codes).index(code)]
    assert f"P = {p[pair]:.4f}" in figure.caption and f"{code} earns {shown:.2f} nats" in figure.caption
    assert [row[0] for row in figure.rows] == list(range(1, 41)) and figure.columns == ["κ", *codes]


def test_records_too_few_for_the_sliders_are_refused():
    for make, found in (
        (lambda: lessons.lesson_05.retrieval(*torch.rand(2, 19, 3), *torch.rand(2, 19, 1, 5, 5)), "z has 19 rows"),
        (lambda: lessons.lesson_11.forecast(*torch.rand(2, 19, 7, 2)), r"z has shape \(19, 7, 2\)"),
        (
            lambda: lessons.lesson_14.restarts(torch.rand(20, 12), torch.rand(20, 12, 3, 3)),
            r"evidence has shape \(20, 12\)",
        ),
    ):
        with pytest.raises(ValueError, match=found + ".*expected"):
            make()
