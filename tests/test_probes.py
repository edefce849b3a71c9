"""The probes on latents whose worth is known."""

import pytest
import torch

from rpm_tutorial import probes


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def clusters(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(n) % 3
    return 6 * torch.eye(4)[labels] + normal(n, 4, seed=seed), labels


@pytest.mark.parametrize("probe", [probes.linear_probe, probes.nearest_neighbours], ids=lambda p: p.__name__)
def test_accuracy_is_one_on_clusters_of_tensors_or_arrays_and_chance_on_noise(probe):
    z, labels = clusters(300, 0)
    z_test, labels_test = clusters(300, 1)
    assert probe(z.numpy(), labels.numpy(), z_test.numpy(), labels_test.numpy()) > 0.98
    assert probe(z.bfloat16(), labels, z_test, (labels_test + 1) % 3) < 0.02
    assert probe(normal(300, 4), labels, normal(300, 4, seed=1), labels_test) == pytest.approx(1 / 3, abs=0.12)


def test_the_smaller_c_is_the_less_a_probe_learns_down_to_the_majority_alone():
    (z, classes), majority = clusters(300, 0), 2 / 3
    found = [probes.linear_probe(z, (classes == 0).long(), z, (classes == 0).long(), C=C) for C in (1e-3, 1.0)]
    assert found[0] == pytest.approx(majority) and found[1] > 0.98


def test_as_many_neighbours_of_the_test_rows_vote_as_are_asked_for():
    z, labels = torch.eye(2)[[0, 0, 0, 1, 1, 1, 1, 1, 1]], torch.tensor([0, 0, 0, 1, 1, 1, 1, 1, 1])
    found = [probes.nearest_neighbours(z, labels, z[:2], labels[:2], k=k) for k in (1, 9)]
    assert found == [1, 0], "the three nearest are of class 0, most of all nine are not"
    assert probes.nearest_neighbours(z, labels, 1e-3 * z, labels, k=3) == 1, "by direction, not by length"


def test_r_squared_judges_on_a_test_set_that_the_fit_has_not_seen():
    """Of 40 latents of noise, a line fits a fifth of the variance of the 200 values it sees, and none of others."""
    factors, factors_test = normal(200, 1), normal(200, 1, seed=1)
    z, z_test = normal(200, 40, seed=2), normal(200, 40, seed=3)
    assert probes.r_squared(z, factors, z, factors) == pytest.approx(0.2, abs=0.1)
    assert probes.r_squared(z, factors, z_test, factors_test) < 0
    line, line_test = (factor @ normal(1, 5, seed=4) + 3 for factor in (factors, factors_test))
    assert probes.r_squared(line, factors, line_test, factors_test) == pytest.approx(1, abs=1e-5)


def test_mean_correlation_ignores_order_sign_scale_and_spare_latents():
    factors = normal(500, 3)
    z = torch.stack([normal(500, seed=5), -2 * factors[:, 2], factors[:, 0] + 4, 0.1 * factors[:, 1]], 1)
    assert probes.mean_correlation(z, factors) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("spare", [torch.zeros(500), normal(500, seed=2)], ids=["a dead latent", "noise"])
def test_one_latent_cannot_stand_for_two_factors_that_resemble_each_other(spare):
    first = normal(500)
    factors = torch.stack([first, first + 0.1 * normal(500, seed=1)], 1)
    assert probes.mean_correlation(torch.stack([first, spare], 1), factors) == pytest.approx(0.5, abs=0.05)


def test_matching_finds_the_best_of_all_one_to_one_choices():
    counts = torch.tensor([[9.0, 8, 0], [9, 0, 1], [0, 5, 0]])  # row by row, 9 + 1 + 5 would be found
    assert probes.match(counts).tolist() == [1, 0, 2]
    assert probes.match(torch.eye(4)[:2, [1, 0, 2, 3]]).tolist() == [1, 0], "columns may be left over"


Z, LABELS = clusters(30, 0)
REFUSED = {
    "NaN": lambda: probes.linear_probe(Z.where(Z < 6, torch.nan), LABELS, Z, LABELS),
    "a minimum of 2 is required": lambda: probes.mean_correlation(Z[:1], Z[:1]),
    r"\(3, 2\); expected a column for each row": lambda: probes.match(torch.eye(3)[:, :2]),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_has_no_score_is_refused(message):
    with pytest.raises(ValueError, match=message):
        REFUSED[message]()
