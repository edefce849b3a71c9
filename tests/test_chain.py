"""(E25)-(E28): the chain of latents with uncertainty, against dense Gaussians, a grid, and statsmodels' cycle model."""

import math

import torch
from hypothesis import given, settings, strategies as st
from residuals import agree
from statsmodels.datasets import sunspots
from statsmodels.tsa.statespace.structural import UnobservedComponents
from torch.func import functional_call
from worlds import SEEDS

from rpm_tutorial.chain import Gaussian, GaussianChain, unit_chain
from rpm_tutorial.course.lessons import lesson_12


def eye(n):
    return torch.eye(n, dtype=torch.float64)


class Case:
    """A random chain, recognition that overlaps, a reference wider than it, and frames that were seen."""

    def __init__(self, seed: int, B: int = 3, T: int = 4, d: int = 3, k: int = 2, narrow: float = 0.02):
        self.generator = torch.Generator().manual_seed(seed)
        self.chain = GaussianChain(0.9 * self.orthogonal(d) @ torch.diag(self.uniform(d)) @ self.orthogonal(d))
        root = 0.3 * self.normal(B, T, k, k)
        self.recognition = Gaussian(0.7 * self.normal(B, T, k), root @ root.mT + narrow * eye(k))
        wide = 0.2 * self.normal(T, k, k)
        widest = torch.linalg.matrix_norm(self.recognition.covariance, 2).max() + 0.1
        self.reference = Gaussian(0.3 * self.normal(T, k), wide @ wide.mT + widest * eye(k))
        self.seen = self.uniform(B, T) > 0.3

    def normal(self, *shape):
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def uniform(self, *shape):
        return torch.rand(*shape, generator=self.generator, dtype=torch.float64)

    def orthogonal(self, d):
        return torch.linalg.qr(self.normal(d, d)).Q

    def smooth(self):
        return self.chain.smooth(self.recognition, reference=self.reference, seen=self.seen)


def log_normal(x, mean, covariance):
    return torch.distributions.MultivariateNormal(mean, covariance).log_prob(x)


def of_whole_path(transition, T: int):
    """The covariance of (z_1 .. z_T), (T d, T d): blocks A^(s-t)."""
    blocks = [[torch.matrix_power(transition, max(s - t, 0)) for t in range(T)] for s in range(T)]
    rows = [[blocks[s][t] if s >= t else blocks[t][s].T for t in range(T)] for s in range(T)]
    return torch.cat([torch.cat(row, 1) for row in rows]).detach()


@given(SEEDS, st.integers(1, 4), st.integers(1, 3), st.integers(0, 2))
def test_the_smoother_is_the_dense_posterior(seed, T, k, hidden):
    case = Case(seed, T=T, d=k + hidden, k=k)
    d, found = k + hidden, case.smooth()
    prior = of_whole_path(case.chain.transition, T)
    for b in range(3):
        precision, shift, constant = torch.zeros_like(prior), prior.new_zeros(T * d), 0.0
        for t in case.seen[b].nonzero().flatten().tolist():
            u = slice(t * d, t * d + k)
            for sign, mean, covariance in (
                (1, case.recognition.mean[b, t], case.recognition.covariance[b, t]),
                (-1, case.reference.mean[t], case.reference.covariance[t]),
            ):
                inverse = covariance.inverse()
                precision[u, u] += sign * inverse
                shift[u] += sign * inverse @ mean
                constant -= sign * (covariance.logdet() + mean @ inverse @ mean) / 2
        covariance = (prior.inverse() + precision).inverse()
        mean, capacitance = covariance @ shift, torch.eye(T * d, dtype=prior.dtype) + prior @ precision
        agree("(E27) the smoother's mean", found.mean[b].flatten(), mean, tolerance=1e-9)
        marginals = torch.stack([covariance[t * d : (t + 1) * d, t * d : (t + 1) * d] for t in range(T)])
        agree("(E27) the smoother's covariance", found.covariance[b], marginals, tolerance=1e-9)
        integral = constant - capacitance.logdet() / 2 + shift @ mean / 2
        agree("(E27) the log of the integral", found.log_normaliser[b], integral, constant, tolerance=1e-9)


@given(SEEDS)
def test_in_the_linear_gaussian_world_the_model_is_that_world(seed):
    """z_{t+1} = F z_t + noise, x_t = H z_t + noise, with Q(z_t|x_t) in the chain's unit."""
    case, (B, T, d, x) = Case(seed), (4, 5, 3, 4)
    F = case.normal(d, d)
    F = 0.95 * F / torch.linalg.eigvals(F).abs().max()
    noise, noise_x = (0.25 * root @ root.T + 0.1 * eye(len(root)) for root in (case.normal(d, d), case.normal(x, x)))
    transition, scale = unit_chain(F, noise)
    H, data = case.normal(x, d) @ scale, case.normal(B, T, x)
    gain = H.T @ noise_x.inverse()
    covariance = (eye(d) + gain @ H).inverse()
    recognition = Gaussian(data @ (covariance @ gain).T, covariance.expand(B, T, d, d))
    wide = torch.block_diag(*[H] * T)
    chain = GaussianChain(transition)
    joint = wide @ of_whole_path(chain.transition, T) @ wide.T + torch.block_diag(*[noise_x] * T)
    log_p = log_normal(data.flatten(1), torch.zeros(T * x).double(), joint)
    marginals = log_normal(data, torch.zeros(x).double(), H @ H.T + noise_x).sum(1)
    agree("(E26)", chain.smooth(recognition).log_normaliser, log_p - marginals, log_p, tolerance=1e-9)


def test_a_public_cycle_model_fills_the_sunspots_alike():
    """Six years of thirty are hidden, and filled by statsmodels' damped cycle with noise and by the chain of the same numbers."""
    y = torch.tensor(sunspots.load_pandas().endog.to_numpy())
    assert torch.equal(y.float(), lesson_12.sunspots()), "the data are those that statsmodels ships"
    seen = torch.arange(len(y)) % 30 >= 6
    y = y - y[seen].mean()
    peer = UnobservedComponents(
        torch.where(seen, y, torch.nan).numpy(), irregular=True, cycle=True, stochastic_cycle=True, damped_cycle=True
    )
    numbers = [100.0, 300.0, 2 * math.pi / 11, 0.9]  # variances of the noise and of the cycle's; frequency, damping
    peer.update(numbers)
    names = ("transition", "selection", "state_cov", "obs_cov")
    transition, selection, state_noise, noise = (torch.tensor(peer.ssm[name]) for name in names)
    A, scale = unit_chain(transition, selection @ state_noise @ selection.T)
    peer.ssm.initialize_known(torch.zeros(2).double().numpy(), (scale @ scale.T).numpy())  # else it starts anywhere
    peer.ssm.loglikelihood_burn = 0
    result = peer.smooth(numbers)
    total = scale[0, 0].square() + noise[0, 0]  # the variance of y
    rho = scale[0, 0] / total.sqrt()
    recognition = Gaussian((rho * y / total.sqrt())[None, :, None], (1 - rho**2).expand(1, len(y), 1, 1))
    found = GaussianChain(A).smooth(recognition, seen=seen[None])
    alone = log_normal(y[seen, None], torch.zeros(1).double(), total.view(1, 1)).sum()
    agree("log likelihood", found.log_normaliser[0], result.llf - alone, result.llf, tolerance=1e-9)
    agree("filled", scale[0, 0] * found.mean[0, :, 0], torch.tensor(result.smoothed_state[0]), tolerance=1e-6)
    band = total * (rho**2 * found.covariance[0, :, 0, 0] + 1 - rho**2)
    agree("band", band, torch.tensor(result.smoothed_state_cov[0, 0]) + noise[0, 0], tolerance=1e-6)


def test_the_pendulum_turns_as_fast_as_it_says_and_its_bob_is_where_it_says():
    x, states = lesson_12.pendulum(50, 12, torch.Generator().manual_seed(0))
    sine, cosine, velocity = states.unbind(2)
    angle = torch.atan2(sine, cosine)
    turn = torch.remainder(angle.diff() + math.pi, 2 * math.pi) - math.pi
    speed = (velocity[:, 1:] + velocity[:, :-1]) / 2
    agree("radians a frame", turn, 0.45 * speed, tolerance=0.15)
    half = x[..., 8:].mean((2, 3)) - x[..., :8].mean((2, 3))  # of the picture: right of its middle, less left
    assert torch.corrcoef(torch.stack([half.flatten(), sine.flatten()]))[0, 1] > 0.8


def test_the_bound_is_its_definition_on_a_grid():
    """T = 2, one dimension: E_q[log P(Z) + sum log Q(z|x) - log Q(z)] + H(q), below log E_P prod Q(z|x)/Q(z)."""
    case = Case(0, B=6, T=2, d=1, k=1, narrow=0.2)
    (mean, covariance), chain = case.recognition, case.chain
    z = torch.linspace(-8, 8, 301, dtype=torch.float64)
    cell = (z[1] - z[0]) ** 2
    at = torch.stack(torch.meshgrid(z, z, indexing="ij"), 2)
    path = of_whole_path(chain.transition, 2)
    log_prior = log_normal(at, torch.zeros(2, dtype=torch.float64), path)
    log_recognition = log_normal(at[None, ..., None], mean[:, None, None], covariance[:, None, None])  # (B, G, G, 2)
    log_q = log_recognition.logsumexp(0) - math.log(6)
    log_gamma = log_normal(at[..., None], *case.reference)
    log_weight = log_prior + (log_recognition - log_gamma).sum(3)
    log_posterior = log_weight - (log_weight.logsumexp((1, 2)) + cell.log())[:, None, None]
    posterior = log_posterior.exp() * cell
    log_model = log_prior + (log_recognition - log_q).sum(3)
    by_definition = (posterior * (log_model - log_posterior)).sum((1, 2))
    exact = log_model.logsumexp((1, 2)) + cell.log()
    found = chain.bound(case.recognition, reference=case.reference, samples=10_000, generator=case.generator)
    error = 5 * ((posterior * (log_gamma - log_q).sum(2) ** 2).sum((1, 2)) / 10_000).sqrt().max().item()
    assert error < 0.25, "of some nats"
    agree("(E27) by samples of q", found.value, by_definition, tolerance=error)
    formula = (posterior * (log_gamma - log_q).sum(2)).sum((1, 2)) + found.log_normaliser
    agree("(E27) by the grid", formula, by_definition, tolerance=1e-6)
    agree("(E25) by importance weights", found.log_evidence, exact, tolerance=3 * error)
    assert (by_definition <= exact + 1e-9).all() and (exact - by_definition).max() > 1e-4
    agree("the terms", found.value, found.log_normaliser + found.log_reference - found.log_q)


@given(SEEDS)
@settings(max_examples=10)
def test_certain_recognition_leaves_the_steps_of_the_chain(seed):
    """As the covariance goes to zero, what is left is sum_t log P(u_t|u_{t-1}) / Q(u_t): (E19) with Z = 1."""
    case = Case(seed, d=2, k=2)
    u, A, noise = case.recognition.mean, case.chain.transition.detach(), case.chain.noise.detach()
    certain = Gaussian(u, 1e-9 * eye(2).expand_as(case.recognition.covariance))
    unit = torch.zeros(2, dtype=torch.float64), eye(2)
    steps = log_normal(u[:, 1:], u[:, :-1] @ A.T, noise).sum(1) - log_normal(u[:, 1:], *unit).sum(1)
    agree("(E28)", case.chain.smooth(certain).log_normaliser, steps, tolerance=1e-3)


def test_a_frame_that_nobody_saw_puts_no_nan_into_the_gradient():
    case = Case(0)
    case.seen[:, 1] = False
    with torch.autograd.set_detect_anomaly(True):
        bound = case.chain.bound(case.recognition, reference=case.reference, seen=case.seen, generator=case.generator)
        bound.value.mean().backward()


def test_a_frame_not_seen_has_no_term_and_what_stands_there_changes_nothing():
    case = Case(0)
    case.seen[:, 3] = False  # nobody saw it
    seen = case.seen[..., None]
    mean = torch.where(seen, case.recognition.mean, 7.0)
    covariance = torch.where(seen[..., None], case.recognition.covariance, 3 * eye(2))
    bounds = [
        case.chain.bound(given, reference=case.reference, seen=case.seen, generator=torch.Generator().manual_seed(0))
        for given in (case.recognition, Gaussian(mean, covariance))
    ]
    assert all(map(torch.equal, *bounds))
    u = case.smooth().sample(8, generator=torch.Generator().manual_seed(0))[..., :2].detach()
    log_reference, log_q = torch.zeros(2, 8, 3, dtype=torch.float64)
    for t in range(3):
        saw = case.seen[:, t]
        of_each = log_normal(u[:, saw, None, t], mean[saw, t], covariance[saw, t])
        log_q[:, saw] += of_each.logsumexp(2) - math.log(saw.sum())
        log_reference[:, saw] += log_normal(u[:, saw, t], case.reference.mean[t], case.reference.covariance[t])
    agree("(E25) a mixture over who saw the frame", bounds[0].log_q, log_q.mean(0))
    agree("(E27) log Gamma of the frames seen", bounds[0].log_reference, log_reference.mean(0))


def test_paths_drawn_have_the_moments_of_the_posterior_and_of_the_prior():
    case, n = Case(0, B=1), 40_000
    found = case.smooth()
    paths = found.sample(n, generator=case.generator)[:, 0].detach()
    agree("moments", paths.mean(0), found.mean[0], tolerance=5 / n**0.5)
    for t in range(4):
        agree("moments", torch.cov(paths[:, t].T), found.covariance[0, t], tolerance=8 / n**0.5)
    step = found.gain[0, 1] @ found.covariance[0, 2]  # Cov(z_t, z_{t+1} | X)
    agree("moments", torch.cov(paths[:, 1:3].flatten(1).T)[:3, 3:], step, tolerance=8 / n**0.5)
    prior = case.chain.sample(n, 4, generator=case.generator).detach()
    agree("moments", torch.cov(prior.flatten(1).T), of_whole_path(case.chain.transition, 4), tolerance=8 / n**0.5)


def test_gradients_are_those_of_differences():
    case = Case(0, B=2, T=3)
    case.seen[:, 1] = False  # nobody saw it
    root = torch.linalg.cholesky(case.recognition.covariance)
    case.chain.forward = case.chain.bound  # what functional_call calls

    def value(weight, mean, root):
        options = {"reference": case.reference, "seen": case.seen, "samples": 2}
        options["generator"] = torch.Generator().manual_seed(0)
        return functional_call(case.chain, {"weight": weight}, (Gaussian(mean, root @ root.mT),), options).value

    inputs = (case.chain.weight, case.recognition.mean, root)
    assert torch.autograd.gradcheck(value, [part.detach().clone().requires_grad_() for part in inputs])


@given(SEEDS, st.integers(1, 4))
def test_training_cannot_leave_the_stationary_chains(seed, d):
    generator = torch.Generator().manual_seed(seed)
    chain = GaussianChain(torch.zeros(d, d, dtype=torch.float64))
    with torch.no_grad():
        chain.weight.copy_(100 * torch.randn(d, d, generator=generator, dtype=torch.float64))
    A, noise = chain.transition, chain.noise
    agree("A A^T + noise = I", A @ A.T + noise, torch.eye(d), tolerance=1e-9)
    assert torch.linalg.matrix_norm(A, 2) < 1 and torch.linalg.eigvalsh(noise).min() > 0
    agree("A starts where it is told", GaussianChain(0.9 * A.detach()).transition, 0.9 * A, tolerance=1e-9)


def test_float32_keeps_its_digits_over_a_long_series():
    case = Case(1, B=2, T=100, d=2, k=1)
    exact = case.smooth()
    recognition, reference = (Gaussian(*(p.float() for p in g)) for g in (case.recognition, case.reference))
    single = GaussianChain(case.chain.transition.detach().float())
    found = single.smooth(recognition, reference=reference, seen=case.seen)
    agree("float32", found.mean, exact.mean, tolerance=1e-4)
    agree("float32", found.log_normaliser, exact.log_normaliser, tolerance=1e-4)
