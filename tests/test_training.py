"""The training loop and `encode`: what they compute, refuse and leave alone."""

import math

import pytest
import torch
from residuals import agree
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, default_collate
from trainings import digit_pairs, everything, model, trainer

import rpm_tutorial as rpm
from rpm_tutorial import datasets, encoders


def batches(n: int) -> torch.Tensor:
    return torch.randn(n, 2, 9, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def with_batch_norm(*more: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.BatchNorm1d(5), *more)


def test_training_on_digits_raises_the_evidence_of_images_it_has_not_seen():
    encoder, critic = model()
    held_out = datasets.two_views(datasets.digits("test").x, flip=False, generator=torch.Generator().manual_seed(9))
    before = rpm.encoder_evidence(encoder, critic, *held_out).infonce
    pairs, chance = datasets.view_pairs(datasets.digits("train").x, 128, flip=False), torch.get_rng_state()
    rows = list(rpm.train(encoder, critic, pairs, 60))
    assert torch.equal(torch.get_rng_state(), chance), "the global random state is the caller's"
    assert rpm.encoder_evidence(encoder, critic, *held_out).infonce > before + 1
    assert [(row.step, row.n) for row in rows] == [(step, 128) for step in range(1, 61)]
    assert [row.seconds for row in rows] == sorted(row.seconds for row in rows)


class Queue(rpm.Bilinear):
    """MoCo: the z' of earlier batches are further candidates."""

    def __init__(self, dim: int):
        super().__init__(dim)
        self.register_buffer("earlier", torch.zeros(12, dim))

    def forward(self, z, z_prime):
        candidates = torch.cat([z_prime, self.earlier])
        self.earlier = candidates[:12].detach()
        return super().forward(z, candidates)


def sgd_by_groups(networks, lr, weight_decay):
    encoder, *others, critic = networks
    groups = [{"params": network.parameters()} for network in (encoder, *others)]
    return torch.optim.SGD([*groups, {"params": critic.parameters(), "lr": 10 * lr}], lr, weight_decay=weight_decay)


OPTIMISERS = {
    "by default": lambda networks, **options: torch.optim.AdamW(nn.ModuleList(networks).parameters(), **options),
    "groups": sgd_by_groups,
    "a part": lambda networks, **options: torch.optim.SGD(networks[0].parameters(), **options),
}


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("two", [False, True], ids=["one encoder", "two encoders"])
@pytest.mark.parametrize(
    ("objective", "critic"),
    [(rpm.infonce, rpm.Bilinear), (rpm.symmetric_infonce, rpm.Bilinear), (rpm.nwj, rpm.Bilinear), (rpm.infonce, Queue)],
)
def test_each_step_is_the_optimiser_s_along_the_gradient_of_the_objective_on_its_batch(
    objective, critic, two, optimiser
):
    """The same loop written by hand, its rate rising over a tenth of the steps and falling by half a cosine."""

    def networks() -> list[nn.Module]:
        torch.manual_seed(0)
        return [*(nn.Linear(3, 2).double() for _ in range(1 + two)), critic(2).double()]

    mine, hand, settings = networks(), networks(), {"weight_decay": 0.1}
    if optimiser != "by default":
        settings["optimiser"] = lambda _, **options: OPTIMISERS[optimiser](mine, **options)
    if two:
        settings["encoder_prime"] = mine[1]
    found = rpm.Trainer(mine[0], mine[-1], batches(20), 20, objective=objective, learning_rate=0.02, **settings)
    by_hand = OPTIMISERS[optimiser](hand, lr=0.02, weight_decay=0.1)
    shares = [group["lr"] / 0.02 for group in by_hand.param_groups]
    for step, (x, x_prime) in enumerate(batches(20)):
        if step == 10:
            found.learning_rate = 0.03
        rate = found.learning_rate * ((step + 1) / 2 if step < 2 else (1 + math.cos(math.pi * (step - 2) / 18)) / 2)
        for group, share in zip(by_hand.param_groups, shares, strict=True):
            group["lr"] = rate * share
        nn.ModuleList(hand).zero_grad()
        value = objective(hand[-1](hand[0](x), hand[-2](x_prime))).value
        (-value).backward()
        by_hand.step()
        agree("value of a training step", found.advance().value, value)
        for ours, expected in zip(nn.ModuleList(mine).parameters(), nn.ModuleList(hand).parameters(), strict=True):
            agree("the gradient of a training step", ours.grad, expected.grad)
            agree("the parameters after a training step", ours, expected)


def test_a_learning_rate_of_zero_stands_still_and_a_negative_one_is_refused():
    found = trainer()
    for wrong in (-1.0, math.nan):
        with pytest.raises(ValueError, match="learning_rate is"):
            found.learning_rate = wrong
    found.learning_rate = 0.0
    before = [p.clone() for p in found.encoder.parameters()]
    found.advance()
    assert all(torch.equal(p, q) for p, q in zip(before, found.encoder.parameters(), strict=True))


def test_the_docstring_s_hooks_of_the_optimiser_clip_gradients_and_clamp_the_temperature():
    torch.manual_seed(0)
    encoder, critic = nn.Linear(3, 2).double(), rpm.VonMisesFisher(0.005).double()
    code = [line[4:] for line in map(str.strip, rpm.Trainer.__doc__.splitlines()) if line.startswith((">>> ", "... "))]
    names = {"nn": nn, "math": math, "torch": torch, "critic": critic}
    exec("\n".join(code), names)
    x = batches(1)[0, 0]  # at so low a temperature, wrong partners make a large gradient
    rpm.Trainer(encoder, critic, [(x, x.flip(0))], 1, learning_rate=0.1, optimiser=names["optimiser"]).advance()
    parameters = [*encoder.parameters(), *critic.parameters()]
    norm = torch.stack([p.grad.square().sum() for p in parameters]).sum().sqrt()
    agree("the clipped gradient's norm", norm, 1.0, tolerance=1e-6)
    agree("CLIP's clamp", critic.temperature, 0.01, tolerance=1e-12)


def test_training_within_a_block_of_autocast_is_training_with_autocast_at_each_step():
    block, each, by_step = trainer(steps=5), trainer(steps=5), []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = [row.value for row in block]
    while each.step < each.steps:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            by_step.append(each.advance().value)
    assert within == by_step


@pytest.mark.parametrize("frozen", ["nothing", "a part", "all"])
def test_modes_stay_as_the_caller_has_set_them(frozen):
    encoder = with_batch_norm(nn.Dropout(0.5))
    {"nothing": nn.Module(), "a part": encoder[2], "all": encoder}[frozen].eval()
    modes = [module.training for module in encoder.modules()]
    list(rpm.train(encoder, rpm.VonMisesFisher(0.2), digit_pairs(), 2))
    assert [module.training for module in encoder.modules()] == modes
    assert encoder[2].num_batches_tracked == (2 if frozen == "nothing" else 0)


# What is refused


class Critic(nn.Module):
    def __init__(self, score):
        super().__init__()
        self.forward = score


NOT_FINITE = {
    "the gradient of encoder.1.weight is not finite.*see check_critic": lambda z, z_prime: (
        -(z[:, None] - z_prime).square().sum(2).sqrt()  # no gradient where z = z'
    ),
    "the objective is -inf.*see check_critic": lambda z, z_prime: (z @ z_prime.T).masked_fill(
        torch.eye(len(z), dtype=torch.bool), -torch.inf
    ),
    "log_f contains NaN": lambda z, z_prime: z @ z_prime.T + torch.nan,
}


@pytest.mark.parametrize("words", NOT_FINITE)
def test_a_step_that_would_spoil_the_weights_is_refused_and_changes_nothing(words):
    x, _ = next(digit_pairs())
    found = rpm.Trainer(with_batch_norm(), Critic(NOT_FINITE[words]), [(x, x)], 2)
    before = everything(found)
    with pytest.raises(ValueError, match=f"step 1: {words}"):
        found.advance()
    assert everything(found) == before, "batch norm's buffers too"


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_gaps_in_the_data_are_named_and_an_encoder_is_blamed_for_its_own_alone(bad):
    x, x_prime = (view.clone() for view in next(digit_pairs()))
    x_prime[3, 0, :2, :2] = bad
    encoder, critic = model()
    with pytest.raises(ValueError, match="step 1: x_prime contains NaN or inf in 4 of 8192 entries"):
        list(rpm.train(encoder, critic, [(x, x_prime)], 1))
    with pytest.raises(ValueError, match="^x contains NaN or inf in 4 of 8192 entries"):
        rpm.encode(encoder, x_prime)
    encoder[1].weight.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="step 1: z contains NaN.*learning rate"):
        list(rpm.train(encoder, critic, digit_pairs(), 1))


def test_a_data_loader_begins_again_at_its_end_so_that_epochs_are_steps():
    data, drawn = TensorDataset(torch.rand(300, 64), torch.arange(300.0)[:, None].expand(-1, 64)), []

    def collate(rows):
        drawn.extend(int(x_prime[0]) for _, x_prime in rows)
        return default_collate(rows)

    loader = DataLoader(data, batch_size=150, shuffle=True, collate_fn=collate)
    assert len([*rpm.train(*model(), loader, 3 * len(loader))]) == 6
    assert sorted(drawn) == sorted([*range(300)] * 3)
    with pytest.raises(ValueError, match="pairs ended after 0 batches"):
        list(rpm.train(*model(), DataLoader(data, batch_size=500, drop_last=True), 5))


# encode


def test_encode_evaluates_batch_by_batch_and_restores_modes_even_after_an_error():
    encoder, x = with_batch_norm(nn.Dropout(0.5).eval()), datasets.digits().x[:25]
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
