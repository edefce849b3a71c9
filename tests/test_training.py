"""The training loop and `encode`: what they raise, what they leave alone, and that they learn."""

import re
from itertools import pairwise

import pytest
import torch
from residuals import agree
from torch import nn
from trainings import digit_pairs, everything, model, trainer, values

import rpm_tutorial as rpm
from rpm_tutorial import datasets, encoders


def test_training_on_digits_raises_infonce_on_images_it_has_not_seen():
    (encoder, critic), x = model(), datasets.digits().x
    held_out = datasets.two_views(x[:300], flip=False, generator=torch.Generator().manual_seed(9))

    def evidence():
        with torch.no_grad():
            return rpm.dataset_evidence(*(rpm.encode(encoder, side) for side in held_out), critic).infonce.item()

    before = evidence()
    rows = list(rpm.train(encoder, critic, datasets.view_pairs(x[300:], 256, flip=False), 80))
    assert evidence() > before + 1
    assert [row.step for row in rows] == list(range(1, 81)) and all(row.n == 256 for row in rows)
    assert all(a.seconds <= b.seconds for a, b in pairwise(rows))
    assert max(row.value for row in rows) <= torch.tensor(256.0).log()


def test_the_same_seed_gives_the_same_numbers_bit_for_bit():
    assert values() == values()
    assert values()[0] != [row.value for row in rpm.train(*model(1), digit_pairs(), 1)][0]


def test_training_does_not_touch_the_global_random_state():
    encoder, critic = model()
    before = torch.get_rng_state()
    list(rpm.train(encoder, critic, digit_pairs(), 3))
    assert torch.equal(before, torch.get_rng_state())


def test_a_row_reports_the_objective_that_is_maximised():
    encoder, critic = model()
    x, x_prime = next(digit_pairs())
    with torch.no_grad():
        log_f = critic(encoder(x), encoder(x_prime))
    for objective in (rpm.infonce, rpm.symmetric_infonce, rpm.nwj):
        (value,) = values(1, objective=objective)
        assert value == pytest.approx(objective(log_f).value.item(), rel=1e-4)


def test_each_step_follows_the_gradient_of_its_own_batch_through_both_views():
    torch.manual_seed(0)
    encoder, critic = nn.Linear(3, 2).double(), rpm.Bilinear(2).double()
    batches = torch.randn(3, 2, 9, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows = rpm.train(encoder, critic, batches, len(batches))
    parameters = [*encoder.parameters(), *critic.parameters()]
    for x, x_prime in batches:
        expected = torch.autograd.grad(-rpm.infonce(critic(encoder(x), encoder(x_prime))).value, parameters)
        next(rows)
        for parameter, gradient in zip(parameters, expected, strict=True):
            agree("the gradient of a training step", parameter.grad, gradient)


def test_two_encoders_follow_the_gradient_of_their_own_side():
    torch.manual_seed(0)
    encoder, encoder_prime, critic = nn.Linear(3, 2).double(), nn.Linear(3, 2).double(), rpm.Bilinear(2).double()
    batches = torch.randn(3, 2, 9, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = rpm.Trainer(encoder, critic, batches, len(batches), encoder_prime=encoder_prime)
    parameters = [*encoder.parameters(), *encoder_prime.parameters(), *critic.parameters()]
    for x, x_prime in batches:
        value = rpm.infonce(critic(encoder(x), encoder_prime(x_prime))).value
        expected = torch.autograd.grad(-value, parameters)
        before = [p.detach().clone() for p in parameters]
        agree("value with two encoders", torch.tensor(found.advance().value, dtype=torch.float64), value)
        for parameter, gradient, old in zip(parameters, expected, before, strict=True):
            agree("the gradient of a training step, two encoders", parameter.grad, gradient)
            assert (parameter != old).any()


def test_critic_and_encoder_both_learn():
    encoder, critic = model()
    before = [p.clone() for p in (*encoder.parameters(), *critic.parameters())]
    list(rpm.train(encoder, critic, digit_pairs(), 3))
    after = (*encoder.parameters(), *critic.parameters())
    assert all((p != q).any() for p, q in zip(before, after, strict=True))


def test_the_learning_rate_rises_over_the_first_tenth_and_then_falls_to_zero():
    (encoder, critic), before, strides = model(), None, []
    for _ in rpm.train(encoder, critic, digit_pairs(), 40, learning_rate=1e-4):
        now = torch.cat([p.detach().flatten() for p in encoder.parameters()])
        strides.append((now - before).norm().item() if before is not None else 0)
        before = now.clone()
    largest = max(strides)
    assert strides[1] < 0.8 * largest and strides.index(largest) < 15 and strides[-1] < 0.05 * largest


def test_weight_decay_takes_its_share_of_each_weight_at_each_step():
    batch, after = torch.randn(1, 2, 9, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64), []
    for decay in (0.0, 0.1):
        torch.manual_seed(0)
        encoder, critic = nn.Linear(3, 2).double(), rpm.Bilinear(2).double()
        before = [p.detach().clone() for p in (*encoder.parameters(), *critic.parameters())]
        next(rpm.train(encoder, critic, batch, 1, learning_rate=0.02, weight_decay=decay))
        after.append([*encoder.parameters(), *critic.parameters()])
    for old, kept, decayed in zip(before, *after, strict=True):
        agree("AdamW: weight decay", decayed, kept - 0.02 * 0.1 * old)


def test_a_fixed_critic_stays_fixed():
    encoder, critic = model()[0], rpm.VonMisesFisher(0.2, learnable=False)
    list(rpm.train(encoder, critic, digit_pairs(), 3))
    assert critic.temperature.item() == pytest.approx(0.2)


@pytest.mark.parametrize("steps", [1, 2, 10, 20])
def test_any_number_of_steps_may_be_asked_for(steps):
    assert len(values(steps)) == steps


def test_pairs_that_end_early_say_how_many_there_were():
    batches = [next(digit_pairs())] * 2
    rows = rpm.train(*model(), batches, 5)
    assert [next(rows).step, next(rows).step] == [1, 2]
    with pytest.raises(ValueError, match="ended after 2 batches; expected 5"):
        next(rows)


def test_a_diverged_training_names_its_step_and_the_likely_cause():
    encoder, critic = model()
    rows = rpm.train(encoder, critic, digit_pairs(), 2)
    next(rows)
    with torch.no_grad():
        encoder[1].weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="step 2: z contains NaN.*learning rate"):
        next(rows)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("side", ["x", "x_prime"])
def test_gaps_in_the_data_are_named_and_no_encoder_is_blamed(side, bad):
    batch = {name: view.clone() for name, view in zip(("x", "x_prime"), next(digit_pairs()))}
    batch[side][3, 0, :2, :2] = bad
    for call in (
        lambda: list(rpm.train(*model(), [tuple(batch.values())], 1)),
        lambda: rpm.encode(model()[0], batch[side]),
        lambda: datasets.two_views(batch[side], generator=torch.Generator()),
        lambda: next(datasets.view_pairs(batch[side], 128)),
    ):
        said = what_is_said(call)
        assert re.search(
            r"\b(x|x_prime) (contains NaN or inf in 4 of 8192 entries; expected numbers: leave|lies in)", said
        ), said
        assert "learning rate" not in said


class Distance(nn.Module):
    """-rate |z - z'|: finite everywhere, its gradient nowhere that z = z'."""

    def __init__(self):
        super().__init__()
        self.log_rate = nn.Parameter(torch.zeros(()))

    def forward(self, z, z_prime):
        return -self.log_rate.exp() * (z[:, None] - z_prime).square().sum(2).sqrt()


class Disjoint(nn.Module):
    """Scores that leave no pair its partner: f = 0 on the diagonal."""

    def forward(self, z, z_prime):
        return (z @ z_prime.T).masked_fill(torch.eye(len(z), dtype=torch.bool), -torch.inf)


def what_is_said(call) -> str:
    try:
        call()
    except (TypeError, ValueError) as error:
        return str(error)
    return "nothing"


@pytest.mark.parametrize(
    ("critic", "words"),
    [(Distance, "step 3: the gradient of encoder.1.weight is not finite"), (Disjoint, "step 1: the objective is -inf")],
)
def test_a_step_that_would_spoil_the_weights_is_refused_and_the_last_good_state_can_be_saved(critic, words, tmp_path):
    x, x_prime = next(digit_pairs())
    pairs = digit_pairs()
    batches = iter([(x, x_prime), (x, x_prime), (x, x)])
    pairs.__class__ = type("Listed", (type(pairs),), {"__next__": lambda self: next(batches)})
    found = rpm.Trainer(model()[0], critic(), pairs, 3)
    while found.step < int(words.split(":")[0].split()[1]) - 1:
        found.advance()
    before = everything(found)
    said = what_is_said(found.advance)
    assert words in said and "see check_critic" in said
    assert everything(found) == before
    found.save(tmp_path / "kept")


def test_a_refused_batch_leaves_batch_norm_as_it_was():
    x, x_prime = next(digit_pairs())
    encoder = with_batch_norm()
    found = rpm.Trainer(encoder, rpm.VonMisesFisher(0.2), [(x, x_prime), (x.clone().fill_(torch.nan), x_prime)], 2)
    found.advance()
    before = [buffer.clone() for buffer in encoder.buffers()]
    assert "step 2: x contains NaN" in what_is_said(found.advance)
    assert all(torch.equal(buffer, old) for buffer, old in zip(encoder.buffers(), before, strict=True))


def test_batch_norm_that_learns_its_width_from_the_first_batch_is_trained():
    encoder = nn.Sequential(nn.Flatten(), nn.LazyBatchNorm1d(), nn.LazyLinear(4))
    assert len(list(rpm.train(encoder, rpm.VonMisesFisher(0.2), digit_pairs(), 2))) == 2


def test_a_gradient_whose_sum_alone_is_too_large_is_followed():
    encoder = nn.Linear(1, 4)
    encoder.weight.register_hook(lambda gradient: torch.full_like(gradient, 3e38))
    assert what_is_said(lambda: list(rpm.train(encoder, rpm.RandomWalk(), torch.ones(1, 2, 9, 1), 1))) == "nothing"


def test_training_within_a_block_of_autocast_is_training_with_autocast_at_each_step():
    block, each = trainer(), trainer()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = [row.value for row in block]
    by_step = []
    while each.step < each.steps:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            by_step.append(each.advance().value)
    assert within == by_step


@pytest.mark.parametrize("frozen", ["a part", "all"])
def test_what_the_caller_has_put_into_evaluation_mode_stays_so(frozen):
    encoder, critic = with_batch_norm(), rpm.VonMisesFisher(0.2)
    (encoder if frozen == "all" else encoder[2]).eval()
    modes = [module.training for module in encoder.modules()]
    list(rpm.train(encoder, critic, digit_pairs(), 2))
    assert [module.training for module in encoder.modules()] == modes
    assert encoder[2].num_batches_tracked == 0 and (encoder[2].running_mean == 0).all()


def test_batch_norm_in_training_mode_learns_its_statistics():
    encoder = with_batch_norm()
    list(rpm.train(encoder, rpm.VonMisesFisher(0.2), digit_pairs(), 2))
    assert encoder[2].num_batches_tracked == 2


def test_a_parameter_that_encoder_and_critic_share_is_trained_once_a_step():
    encoder, critic = model()
    encoder[1].critic = critic  # anywhere within it
    assert [row.value for row in rpm.train(encoder, critic, digit_pairs(), 5)] == values(5)


def test_sides_of_unequal_length_are_refused_rather_than_paired_wrongly():
    x, x_prime = next(digit_pairs())
    with pytest.raises(ValueError, match="expected"):
        list(rpm.train(*model(), [(x, x_prime[:-2])], 1))


# encode


def with_batch_norm() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.BatchNorm1d(5), nn.Dropout(0.5))


@pytest.mark.parametrize("mode", [True, False])
def test_encode_works_in_evaluation_mode_batch_by_batch_and_restores_the_mode(mode):
    encoder, x = with_batch_norm().train(mode), datasets.digits().x[:25]
    statistics = encoder[2].running_mean.clone()
    z = rpm.encode(encoder, x, batch_size=10)
    assert z.shape == (25, 5) and not z.requires_grad
    assert all(module.training == mode for module in encoder.modules())
    assert torch.equal(statistics, encoder[2].running_mean)
    torch.testing.assert_close(z, encoder.eval()(x).detach())


def test_encode_leaves_a_frozen_part_frozen():
    encoder = with_batch_norm().train()
    encoder[2].eval()
    rpm.encode(encoder, datasets.digits().x[:5])
    assert encoder.training and not encoder[2].training


def test_encode_restores_the_mode_after_an_error():
    encoder = with_batch_norm().train()
    with pytest.raises(RuntimeError):
        rpm.encode(encoder, torch.ones(3, 7))
    assert encoder.training


def test_an_encoder_needs_no_parameters():
    x = datasets.digits().x[:5]
    assert torch.equal(rpm.encode(nn.Flatten(), x), x.flatten(1))


def test_the_encoders_of_the_course_map_images_to_latents():
    assert encoders.mlp(784, 6)(torch.rand(3, 1, 28, 28)).shape == (3, 6)
    conv = encoders.conv(6, width=4)
    assert conv(torch.rand(3, 1, 28, 28)).shape == (3, 6)
    assert conv[:-1](torch.rand(3, 1, 28, 28)).shape == (3, 64 * 4)
