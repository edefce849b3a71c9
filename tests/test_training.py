"""The training loop and `encode`: what they compute, refuse and leave alone."""

import math

import pytest
import torch
from residuals import agree
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from trainings import digit_pairs, everything, model, trainer

import rpm_tutorial as rpm
from rpm_tutorial import datasets, encoders


def batches(n: int = 3) -> torch.Tensor:
    return torch.randn(n, 2, 9, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def linear(two: bool = False) -> list[nn.Module]:
    """Encoder, critic, and the encoder of x', or None."""
    torch.manual_seed(0)
    return [nn.Linear(3, 2).double(), rpm.Bilinear(2).double(), nn.Linear(3, 2).double() if two else None]


def with_batch_norm() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.BatchNorm1d(5), nn.Dropout(0.5))


def test_training_on_digits_raises_the_evidence_of_images_it_has_not_seen():
    encoder, critic = model()
    held_out = datasets.two_views(datasets.digits("test").x, flip=False, generator=torch.Generator().manual_seed(9))
    before = rpm.encoder_evidence(encoder, critic, *held_out).infonce
    pairs, chance = datasets.view_pairs(datasets.digits("train").x, 128, flip=False), torch.get_rng_state()
    rows = list(rpm.train(encoder, critic, pairs, 60))
    assert torch.equal(torch.get_rng_state(), chance), "the global random state is the caller's"
    assert rpm.encoder_evidence(encoder, critic, *held_out).infonce > before + 1
    assert [row.step for row in rows] == list(range(1, 61)) and all(row.n == 128 for row in rows)
    assert [row.seconds for row in rows] == sorted(row.seconds for row in rows)


@pytest.mark.parametrize("two", [False, True], ids=["one encoder", "two encoders"])
@pytest.mark.parametrize("objective", [rpm.infonce, rpm.symmetric_infonce, rpm.nwj])
def test_each_step_follows_the_gradient_of_the_objective_on_its_batch(objective, two):
    encoder, critic, encoder_prime = linear(two)
    found = rpm.Trainer(encoder, critic, batches(), 3, encoder_prime=encoder_prime, objective=objective)
    parameters = [p for network in (encoder, critic, encoder_prime) if network for p in network.parameters()]
    for x, x_prime in batches():
        value = objective(critic(encoder(x), (encoder_prime or encoder)(x_prime))).value
        expected = torch.autograd.grad(-value, parameters, allow_unused=True)  # a bias may cancel
        before = [p.detach().clone() for p in parameters]
        agree("value of a training step", torch.tensor(found.advance().value, dtype=torch.float64), value)
        for parameter, gradient, old in zip(parameters, expected, before, strict=True):
            agree("the gradient of a training step", parameter.grad, gradient)
            assert (parameter != old).any()


def test_the_learning_rate_rises_over_the_first_tenth_and_then_falls_to_zero():
    found, rates = trainer(steps=40), []
    for _ in found:
        rates.append(found.state_dict()["optimiser"]["param_groups"][0]["lr"] / found.learning_rate)
    assert rates[:4] == [0.25, 0.5, 0.75, 1] and rates[4:] == sorted(rates[4:], reverse=True) and rates[-1] < 0.01


def test_weight_decay_takes_its_share_of_each_weight():
    after = []
    for decay in (0.0, 0.1):
        encoder, critic, _ = linear()
        before = [p.detach().clone() for p in (*encoder.parameters(), *critic.parameters())]
        next(rpm.train(encoder, critic, batches(1), 1, learning_rate=0.02, weight_decay=decay))
        after.append([*encoder.parameters(), *critic.parameters()])
    for old, kept, decayed in zip(before, *after, strict=True):
        agree("AdamW: weight decay", decayed, kept - 0.02 * 0.1 * old)


def test_a_learning_rate_of_zero_stands_still_and_a_negative_one_is_refused():
    found = trainer()
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="learning_rate is"):
            found.learning_rate = wrong
    found.learning_rate = 0.0
    before = [p.clone() for p in found.encoder.parameters()]
    found.advance()
    assert all(torch.equal(p, q) for p, q in zip(before, found.encoder.parameters(), strict=True))


# An optimiser of your own


def test_another_optimiser_takes_the_steps_with_the_trainer_s_rate_and_decay():
    for make, change in ((torch.optim.SGD, lambda p, g: 0.02 * (g + 0.1 * p)), (torch.optim.AdamW, None)):
        encoder, critic, _ = linear()
        parameters = [*encoder.parameters(), *critic.parameters()]
        before = [p.detach().clone() for p in parameters]
        found = rpm.Trainer(encoder, critic, batches(1), 1, learning_rate=0.02, weight_decay=0.1, optimiser=make)
        found.advance()
        for old, new in zip(before, parameters, strict=True):
            if change is not None:
                agree("a step of SGD", new, old - change(old, new.grad))
    plain = linear()[:2]
    list(rpm.train(*plain, batches(1), 1, learning_rate=0.02, weight_decay=0.1))
    assert all(map(torch.equal, parameters, (p for network in plain for p in network.parameters())))


def test_groups_of_parameters_keep_their_share_of_the_learning_rate():
    encoder, critic, _ = linear()

    def optimiser(parameters, lr, weight_decay):
        groups = [{"params": encoder.parameters()}, {"params": critic.parameters(), "lr": 10 * lr}]
        return torch.optim.SGD(groups, lr, weight_decay=weight_decay)

    found = rpm.Trainer(encoder, critic, batches(), 3, optimiser=optimiser)
    for rate in (0.002, 0.01):
        found.learning_rate = rate
        before = [critic.W.detach().clone(), encoder.weight.detach().clone()]
        found.advance()
        first, second = found.state_dict()["optimiser"]["param_groups"]
        assert second["lr"] == pytest.approx(10 * rate) and first["lr"] == pytest.approx(rate)
        for parameter, old, settings in zip((critic.W, encoder.weight), before, (second, first), strict=True):
            step = settings["lr"] * (parameter.grad + settings["weight_decay"] * old)
            agree("a step of a group", parameter, old - step)


def of_the_docstring(critic):
    """The optimiser that the example in Trainer's docstring makes."""
    code = [line[4:] for line in map(str.strip, rpm.Trainer.__doc__.splitlines()) if line.startswith((">>> ", "... "))]
    names = {"nn": nn, "math": math, "torch": torch, "critic": critic}
    exec("\n".join(code), names)
    return names["optimiser"]


def test_hooks_of_the_optimiser_clip_gradients_and_clamp_the_temperature():
    torch.manual_seed(0)
    encoder, critic = nn.Linear(3, 2).double(), rpm.VonMisesFisher(0.005).double()
    parameters, pair = [*encoder.parameters(), *critic.parameters()], batches(1)[0, 0]
    other = pair.flip(0)  # at so low a temperature, wrong partners make a large gradient
    found = rpm.Trainer(encoder, critic, [(pair, other)], 1, learning_rate=0.1, optimiser=of_the_docstring(critic))
    before = [p.detach().clone() for p in parameters]
    found.advance()
    norm = torch.stack([p.grad.square().sum() for p in parameters]).sum().sqrt()
    agree("the clipped gradient's norm", norm, 1.0, tolerance=1e-6)
    agree("CLIP's clamp", critic.temperature, 0.01, tolerance=1e-12)
    assert any((p != old).any() for p, old in zip(parameters, before, strict=True))


def test_what_the_optimiser_leaves_alone_keeps_no_gradient_of_earlier_steps():
    encoder, critic, _ = linear()
    part = lambda _, **settings: torch.optim.SGD(encoder.parameters(), **settings)  # noqa: E731
    found = rpm.Trainer(encoder, critic, batches(), 3, optimiser=part)
    for x, x_prime in batches():
        value = rpm.infonce(critic(encoder(x), encoder(x_prime))).value
        (expected,) = torch.autograd.grad(-value, critic.W)
        found.advance()
        agree("the gradient of one step", critic.W.grad, expected)


class Queue(nn.Module):
    """MoCo: the scores of a critic, with the z' of earlier batches as further candidates."""

    def __init__(self, critic, dim: int, size: int):
        super().__init__()
        self.critic = critic
        self.register_buffer("z_prime", torch.zeros(size, dim, dtype=torch.float64))

    def forward(self, z, z_prime):
        log_f = self.critic(z, torch.cat([z_prime, self.z_prime]))
        self.z_prime = torch.cat([z_prime.detach(), self.z_prime])[: len(self.z_prime)]
        return log_f


def test_a_critic_with_a_queue_trains_over_its_candidates_too():
    encoder, critic, _ = linear()
    found, earlier = rpm.Trainer(encoder, Queue(critic, 2, 12), batches(), 3), torch.zeros(12, 2).double()
    for x, x_prime in batches():
        with torch.no_grad():
            z, z_prime = encoder(x), encoder(x_prime)
            expected = rpm.infonce(critic(z, torch.cat([z_prime, earlier]))).value
        agree("training over a queue", torch.tensor(found.advance().value, dtype=torch.float64), expected)
        earlier = torch.cat([z_prime, earlier])[:12]


def test_training_within_a_block_of_autocast_is_training_with_autocast_at_each_step():
    block, each = trainer(steps=5), trainer(steps=5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = [row.value for row in block]
    by_step = []
    while each.step < each.steps:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            by_step.append(each.advance().value)
    assert within == by_step


@pytest.mark.parametrize("frozen", ["nothing", "a part", "all"])
def test_modes_stay_as_the_caller_has_set_them(frozen):
    encoder = with_batch_norm()
    {"nothing": nn.Module(), "a part": encoder[2], "all": encoder}[frozen].eval()
    modes = [module.training for module in encoder.modules()]
    list(rpm.train(encoder, rpm.VonMisesFisher(0.2), digit_pairs(), 2))
    assert [module.training for module in encoder.modules()] == modes
    assert encoder[2].num_batches_tracked == (2 if frozen == "nothing" else 0)


# What is refused


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


class Broken(nn.Module):
    def forward(self, z, z_prime):
        return z @ z_prime.T + torch.nan


@pytest.mark.parametrize(
    ("critic", "words"),
    [
        (Distance, "the gradient of encoder.1.weight is not finite.*see check_critic"),
        (Disjoint, "the objective is -inf.*see check_critic"),
        (Broken, "log_f contains NaN"),
    ],
)
def test_a_step_that_would_spoil_the_weights_is_refused_and_changes_nothing(critic, words):
    x, x_prime = next(digit_pairs())
    good = [(x, x_prime)] if critic is Distance else []
    encoder = with_batch_norm() if critic is Disjoint else model()[0]
    found = rpm.Trainer(encoder, critic(), [*good, (x, x)], 2)
    [found.advance() for _ in good]
    before = everything(found)
    with pytest.raises(ValueError, match=f"step {len(good) + 1}: {words}"):
        found.advance()
    assert everything(found) == before, "batch norm's buffers too"


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_gaps_in_the_data_are_named_and_an_encoder_is_blamed_for_its_own_alone(bad):
    x, x_prime = (view.clone() for view in next(digit_pairs()))
    x_prime[3, 0, :2, :2] = bad
    encoder, critic = model()
    for call in (
        lambda: list(rpm.train(encoder, critic, [(x, x_prime)], 1)),
        lambda: rpm.encode(encoder, x_prime),
        lambda: datasets.two_views(x_prime, generator=torch.Generator()),
    ):
        with pytest.raises(
            ValueError, match=r"\b(x|x_prime) (contains NaN or inf in 4 of 8192 entries|lies in)"
        ) as error:
            call()
        assert "learning rate" not in str(error.value)
    encoder[1].weight.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="step 1: z contains NaN.*learning rate"):
        list(rpm.train(encoder, critic, digit_pairs(), 1))


class Counted(torch.utils.data.Dataset):
    """Pairs that write down which of them were asked for."""

    def __init__(self, data, drawn: list[int]):
        self.data, self.drawn = data, drawn

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i: int):
        self.drawn.append(i)
        return self.data[i]


def test_a_data_loader_begins_again_at_its_end_so_that_epochs_are_steps():
    data = TensorDataset(datasets.digits().x[:300], datasets.digits().x[:300].flip(3))
    loader = DataLoader(data, batch_size=128, shuffle=True, drop_last=True)
    assert len(loader) == 2 and len([*rpm.train(*model(), loader, 5)]) == 5
    drawn: list[int] = []
    counted = DataLoader(Counted(data, drawn), batch_size=150)
    list(rpm.train(*model(), counted, 3 * len(counted)))
    assert sorted(drawn) == sorted([*range(300)] * 3)
    with pytest.raises(ValueError, match="pairs ended after 0 batches"):
        list(rpm.train(*model(), DataLoader(data, batch_size=500, drop_last=True), 5))


# encode


def test_encode_evaluates_batch_by_batch_and_restores_modes_even_after_an_error():
    encoder, x = with_batch_norm(), datasets.digits().x[:25]
    encoder[3].eval()
    modes, statistics = [module.training for module in encoder.modules()], encoder[2].running_mean.clone()
    z = rpm.encode(encoder, x, batch_size=10)
    with pytest.raises(RuntimeError):
        rpm.encode(encoder, torch.ones(3, 7))
    assert z.shape == (25, 5) and not z.requires_grad and torch.equal(statistics, encoder[2].running_mean)
    assert [module.training for module in encoder.modules()] == modes
    torch.testing.assert_close(z, encoder.eval()(x).detach())


@pytest.mark.parametrize("side", [8, 28])
def test_the_encoders_of_the_course_map_images_to_latents(side):
    x = torch.rand(3, 1, side, side)
    encoder = encoders.for_images(x, 6)
    assert encoder(x).shape == (3, 6) and isinstance(encoder[0], nn.Flatten if side == 8 else nn.AvgPool2d)
    assert encoders.conv(6, width=4)[:-1](torch.rand(3, 1, 28, 28)).shape == (3, 64 * 4)
