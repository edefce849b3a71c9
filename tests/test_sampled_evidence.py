"""sampled_evidence: an estimate of (E14) from some rows and columns, without the ceiling that a batch's InfoNCE has."""

import math

import pytest
import torch
from evidence_cases import by_table, each_critic, each_half, made, pairs
from residuals import MEASURED, agree

import rpm_tutorial as rpm
from rpm_tutorial import sampled_evidence


def sampled(z, z_prime, critic, seed=0, **options):
    return sampled_evidence(z, z_prime, critic, generator=torch.Generator().manual_seed(seed), **options)


def many(n, draws, **options):
    """The errors of many estimates, their standard errors, and the bias that Jensen's inequality predicts."""
    (z, z_prime), critic = pairs(n), rpm.RandomWalk(0.5).double()
    found = [sampled(z, z_prime, critic, seed, **options) for seed in range(draws)]
    with torch.no_grad():
        log_f = critic(z, z_prime)
        exact = rpm.infonce(log_f).value.item()
        f = (log_f - log_f.diagonal()[:, None]).exp()
    others, m = f.fill_diagonal_(0).sum(1) / (n - 1), options["negatives"]
    variance = ((f.square().sum(1) / (n - 1) - others**2) * (1 - m / n) / m) / (others + 1 / n) ** 2
    errors, standard_errors = torch.tensor([[e.infonce - exact, e.standard_error] for e in found]).T
    return errors, standard_errors, variance.mean().item() / 2


@each_critic
def test_it_is_exact_when_it_samples_everything(name):
    (z, z_prime), critic = pairs(96), made(name, reach=3)
    exact = by_table(critic, z, z_prime).mean()
    for size in (96, 1096):  # more than there are is all there are
        found = sampled(z, z_prime, critic, rows=size, negatives=size)
        agree("sampled_evidence of everything", found.infonce, exact + math.log(96))
        agree("sampled_evidence of everything", found.log_evidence, exact - math.log(96))
        assert found.n == 96 and found.standard_error > 0


@pytest.mark.nightly
def test_its_standard_error_covers_the_exact_value_about_as_often_as_it_should():
    errors, standard_errors, _ = many(2000, 64, rows=320, negatives=1024)
    covered = (errors.abs() < 2 * standard_errors).double().mean()
    assert covered >= 0.85 and 0.75 < standard_errors.mean() / errors.std() < 1.4


def test_its_bias_is_half_the_relative_variance_of_the_normaliser_and_its_standard_error_errs_upwards():
    errors, standard_errors, bias = many(1000, 24, rows=1000, negatives=100)
    mean, spread = errors.mean().item(), errors.std().item()
    MEASURED.append(f"sampled_evidence, M = 100 of 1000: bias {mean:.4f} nats, predicted {bias:.4f}")
    assert 0.03 < bias and abs(mean - bias) < 3 * spread / math.sqrt(24) + 0.1 * bias
    assert (standard_errors > spread).all()  # nearly every row was drawn: the spread is the candidates' alone


def test_it_has_no_ceiling_at_log_m():
    (z, z_prime), critic, m = pairs(2048, noise=0.01), rpm.RandomWalk(0.02).double(), 64
    exact = rpm.dataset_evidence(z, z_prime, critic).infonce.item()
    found = sampled(z, z_prime, critic, rows=640, negatives=m)
    batch = rpm.infonce(critic(z[:m], z_prime[:m])).value.item()
    MEASURED.append(f"I_N = {exact:.3f}, from M = 64: {found.infonce:.3f}; InfoNCE of a batch of 64: {batch:.3f}")
    assert batch <= math.log(m) * (1 + 1e-9) and math.log(m) + 2 < exact
    assert abs(found.infonce - exact) < 4 * found.standard_error + 0.05 < 0.5


def test_it_is_reproducible_from_its_generator_and_leaves_the_global_one_alone():
    (z, z_prime), critic, state = pairs(300), made("LaplaceWalk"), torch.get_rng_state()
    first, again, other = (sampled(z, z_prime, critic, seed, rows=128, negatives=50) for seed in (1, 1, 2))
    assert first == again and first.infonce != other.infonce and torch.equal(torch.get_rng_state(), state)


@each_half
@pytest.mark.parametrize("name", ["sharp", "Entangled"])
def test_half_precision_is_float32_of_the_same_numbers(name, dtype):
    sides, critic = pairs(200, dtype=dtype), made(name, dtype)
    low = sampled(*sides, critic, rows=64, negatives=50).infonce
    high = sampled(*(side.float() for side in sides), critic.float(), rows=64, negatives=50).infonce
    agree("sampled_evidence in half precision", low, high, tolerance=1e-6)


def test_a_drawn_pair_without_probability_makes_it_minus_infinity_give_or_take_infinity():
    z, z_prime = (t.detach() for t in pairs(96))
    z_prime[5] += 100  # beyond the reach of its pair
    found = sampled(z, z_prime, made("Masked", reach=30), rows=96, negatives=50)
    assert found.infonce == found.log_evidence == -math.inf and found.standard_error == math.inf
