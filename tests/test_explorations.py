"""What the widgets show is what the library computes: the numbers in each figure, table and caption."""

import numpy as np
import pytest
import torch
from residuals import agree

import rpm_tutorial as rpm
from rpm_tutorial import FiniteRPM, explorations, gaussian, priors
from rpm_tutorial.derivation import ASSUMPTIONS, EQUATIONS, derive
from rpm_tutorial.explorations import BatchState, PriorState, ProofState, RetrievalState, WorldState


def test_the_likelihood_shows_the_model_of_a_ring_beside_its_data():
    figure = explorations.likelihood(WorldState(sharpness=4.0, coupling=3.0))
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
    figure = explorations.proof(world, log_prior)(ProofState(broken, line=7))
    expected = derive(world, log_prior, broken)
    assert [name for name, _ in figure.rows] == list(EQUATIONS)
    agree("the proof widget", np.array(figure.plotly.data[0].x), torch.stack([found.value for found in expected]))
    marked = [symbol == "x" for symbol in figure.plotly.data[0].marker.symbol]
    assert [name for name, mark in zip(EQUATIONS, marked, strict=True) if mark] == [line] * (line is not None)
    assert (f"«{line}» fails" if line else "every line so far agrees") in figure.caption
    assert ASSUMPTIONS[broken][1:] in figure.caption  # its symbols as they are: Q(z), not q(z)


def test_the_proof_shows_only_the_lines_asked_for():
    world = FiniteRPM.random(seed=3)
    figure = explorations.proof(world, priors.optimal(world.q_joint))(ProofState("aggregate", line=2))
    assert [name for name, _ in figure.rows] == list(EQUATIONS)[:2]
    assert "every line so far agrees" in figure.caption and EQUATIONS["(E3)"] in figure.caption


@pytest.mark.parametrize("prior", ["InfoNCE", "DV", "NWJ"])
def test_the_choice_of_prior_shows_each_objective_and_the_gap_of_the_chosen_one(prior):
    objective = {"InfoNCE": rpm.infonce, "DV": rpm.donsker_varadhan, "NWJ": rpm.nwj}
    world, offset = FiniteRPM.ring(), torch.tensor([[-1.5], [0.0], [1.5]]).double()
    log_ratio = (world.q_joint / (world.q_z[:, None] * world.q_z_prime)).log()
    figure = explorations.prior_choice(PriorState(kappa=0.75, offset=1.5, prior=prior))
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
    figure = explorations.retrieval(z, z_prime, x, x_prime)(RetrievalState(temperature=0.2, image=5))
    log_f = rpm.VonMisesFisher(0.2)(z, z_prime).detach()
    p = log_f[5].softmax(0)
    best = p.sort(descending=True).indices[:8]
    assert [float(text.split()[0]) for _, _, text in figure.rows] == [round(p[j].item(), 3) for j in best]
    assert ["✓" in text for _, _, text in figure.rows] == [j == 5 for j in best]
    rank = 1 + int((p > p[5]).sum())
    evidence = rpm.infonce(log_f).value - 2 * np.log(24)
    assert (
        f"ranked {rank} of 24 with P = {p[5]:.3f}" in figure.caption
        and f"{evidence:.3f} nats per pair" in figure.caption
    )
    canvas = np.array(figure.plotly.data[0].z, float)
    pixels = [canvas[canvas.shape[0] // 2 + 3 :, column] for column in range(3, 8 * 7, 7)]
    shades = [column[column < 255].max() for column in pixels]
    assert np.argsort(shades).tolist() == np.argsort(best.numpy()).tolist(), "the images are those of the probabilities"


def test_retrieval_refuses_fewer_pairs_than_its_slider_offers():
    with pytest.raises(ValueError, match="z has 19 rows; expected at least 20 encoded pairs"):
        explorations.retrieval(*torch.rand(2, 19, 3), *torch.rand(2, 19, 1, 5, 5))


@pytest.mark.parametrize("information, doublings", [(0.5, 3), (2.0, 6), (6.0, 10)])
def test_finite_batches_shows_the_samples_the_law_and_the_ceiling(information, doublings):
    figure = explorations.finite_batches(BatchState(information=information, doublings=doublings))
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
    shown = explorations.finite_batches(BatchState(information=2.0)).plotly.data[0].y[3]
    assert abs(shown - values.mean()) < 4 * values.std() / 20 + 0.1  # the widget's 512 rows share their 1023 strangers


@pytest.mark.parametrize("code, pair, kappa", [("wound once", 3, 7), ("folded", 0, 30)])
def test_concentration_shows_the_prior_on_the_circle_and_what_each_kappa_earns(code, pair, kappa):
    generator = torch.Generator().manual_seed(2)
    theta = 7 * torch.rand(50, generator=generator)
    theta_prime = theta + 0.3 * torch.randn(50, generator=generator)
    circle = [3 * torch.stack([t.cos(), t.sin()], 1) for t in (theta, theta_prime)]  # only the direction counts
    codes = {"wound once": circle, "folded": [side.abs() for side in circle]}
    figure = explorations.concentration(codes)(explorations.ConcentrationState(kappa, code, pair))

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
