"""`check_critic`: every critic of the library passes, and each way to break one is caught by its own check."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import rpm_tutorial as rpm

DIM = 3


class Walk(nn.Module):
    """A critic like a reader's: a Gaussian walk of learnable precision, changed by a function of (walk, z, z')."""

    def __init__(self, change=None, norm=None):
        super().__init__()
        self.log_precision = nn.Parameter(torch.tensor(0.3))
        self.change, self.norm = change or walk, norm

    def forward(self, z, z_prime):
        return self.change(self, z, z_prime)


def walk(c, z, w):
    return -c.log_precision.exp() * (z[:, None] - w).square().sum(2) / 2


def box(c, z, w):
    """f = 0 at a distance of 4 and more: legal scores of -inf."""
    return walk(c, z, w).masked_fill((z[:, None] - w).abs().amax(2) > 4, -torch.inf)


def starts_at_zero():
    critic = rpm.Bilinear(DIM)
    nn.init.zeros_(critic.W)
    return critic


PASSES = {
    "RandomWalk": rpm.RandomWalk,
    "a narrow RandomWalk": lambda: rpm.RandomWalk(0.03),
    "LaplaceWalk": rpm.LaplaceWalk,
    "VonMisesFisher": lambda: rpm.VonMisesFisher(0.05, learnable=False),
    "LinearDynamics": lambda: rpm.LinearDynamics(DIM),
    "Bilinear": lambda: rpm.Bilinear(DIM),
    "Universal": lambda: rpm.Universal(DIM),
    "WithBias": lambda: rpm.WithBias(rpm.RandomWalk()),
    "a reader's": Walk,
    "a box": lambda: Walk(box),
    "constant at its start, on purpose": starts_at_zero,
}


def unit(z):
    return z / z.norm(dim=1, keepdim=True)


BROKEN = {  # the check that has to catch it, and what it says; the change; a part of its own
    "pairs only": ("shape", "(12)", lambda c, z, w: walk(c, z, w)[: len(z), : len(z)].diagonal()),
    "exchanged": ("shape", "(15, 12)", lambda c, z, w: walk(c, z, w).T),
    "two results": ("shape", "a tuple", lambda c, z, w: (walk(c, z, w), z)),
    "another dtype": ("shape", "torch.float16", lambda c, z, w: walk(c, z, w).half()),
    "an error": ("shape", "RuntimeError", lambda c, z, w: walk(c, z, w) + torch.ones(7).to(z)),
    "dropout": ("determinism", "two calls differ", lambda c, z, w: walk(c, F.dropout(z, 0.5), w)),
    "z′ in place": ("determinism", "the call changes z′", lambda c, z, w: walk(c, z, w.add_(1))),
    "softmax": ("pairing", "for that pair alone", lambda c, z, w: walk(c, z, w).log_softmax(1)),
    "batch norm": ("pairing", "ValueError", lambda c, z, w: walk(c, c.norm(z), c.norm(w)), lambda: nn.BatchNorm1d(DIM)),
    "root of a negative": ("finite", "NaN at standard normal", lambda c, z, w: walk(c, z, w) + (z @ w.T).sqrt()),
    "overflow": ("finite", "10,000 times as far", lambda c, z, w: (z @ w.T).exp() - walk(c, z, w).exp()),
    "a bare norm": ("finite", "NaN at z = z′ = 0", lambda c, z, w: walk(c, unit(z), unit(w))),
    "underflow": ("finite", "only -inf", lambda c, z, w: (1000 * walk(c, z, w) - 1000).exp().log()),
    "separate": ("interaction", "a(z) + b(z′)", lambda c, z, w: c.log_precision * z.sum(1)[:, None] + w.sum(1)),
    "z alone": ("interaction", "does not depend on z′", lambda c, z, w: (c.log_precision * z.sum(1))[:, None] + 0 * w[:, 0]),
    "detached": ("gradient", "z′ gets none", lambda c, z, w: walk(c, z, w.detach())),
    "an idle parameter": ("gradient", "norm.weight gets none", walk, lambda: nn.BatchNorm1d(DIM)),
    "rounded": ("gradient", "z gets zero everywhere", lambda c, z, w: walk(c, (100 * z).round() / 100, w)),
    "a root at 0": ("gradient", "NaN", lambda c, z, w: -(-walk(c, z, w)).sqrt()),
    "a layer in a list": (
        "gradient", "shape (3", lambda c, z, w: walk(c, c.norm[0].to(z)(z), w), lambda: [nn.Linear(DIM, DIM)],
    ),
    "otherwise without gradients": (
        "evidence", "from the table", lambda c, z, w: walk(c, z, w) * (1 + torch.is_grad_enabled()),
    ),
}  # fmt: skip


def broken(name: str) -> nn.Module:
    _, _, change, *norm = BROKEN[name]
    return Walk(change, *(make() for make in norm))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", PASSES)
def test_each_critic_of_the_library_and_of_a_reader_passes(name, dtype):
    report = rpm.check_critic(PASSES[name]().to(dtype), DIM, raise_exception=True)
    assert report.ok and str(dtype)[6:] in report.title and len(report.checks) == 7


@pytest.mark.parametrize("name", BROKEN)
def test_each_way_to_break_a_critic_is_caught_by_its_own_check_alone(name):
    report = rpm.check_critic(broken(name), DIM)
    failed = [check for check in report.checks if check.passed is False]
    assert [check.name for check in failed] == [BROKEN[name][0]], report
    assert not report.ok and BROKEN[name][1] in failed[0].found and failed[0].expected and failed[0].remedy


def test_a_critic_in_half_precision_is_tried_as_a_copy_in_float32():
    report = rpm.check_critic(critic := rpm.RandomWalk(0.03).half(), DIM)
    assert report.ok and report.title.endswith(", a float32 copy of float16") and critic.log_scale.dtype == torch.half
    assert not rpm.check_critic(broken("softmax").half(), DIM).ok


@pytest.mark.parametrize("part", [nn.BatchNorm1d(DIM), nn.Dropout(0.5)], ids=["batch norm", "dropout"])
def test_the_remedy_for_batch_norm_and_dropout_is_eval_and_then_they_pass(part):
    critic = Walk(BROKEN["batch norm"][2], part)
    failed = next(check for check in rpm.check_critic(critic, DIM).checks if check.passed is False)
    assert failed.remedy == f"call critic.eval(): its norm is a {type(part).__name__} in training mode"
    assert rpm.check_critic(critic.eval(), DIM).checks[2].passed


@pytest.mark.parametrize("family", [rpm.Bilinear, rpm.Universal])
def test_latents_may_have_two_sizes(family):
    report = rpm.check_critic(family(4, 2), 4, 2)
    assert report.ok and report.title == f"check_critic({family.__name__}, dim=4, dim_prime=2), float32"
    assert not rpm.check_critic(family(4, 2), 4).ok


def test_the_report_is_a_list_with_found_expected_and_remedy():
    lines = repr(rpm.check_critic(broken("softmax"), DIM)).splitlines()
    assert lines[0] == "check_critic(Walk, dim=3), float32"
    assert [line[0] for line in lines if line[0] != " "] == ["c", "✓", "✓", "✗", "✓", "✓", "✓", "○"]
    assert [line.split(":")[0].strip() for line in lines[4:6]] == ["expected", "remedy"]
    assert lines[-1].endswith("not run: mend pairing first")
    assert [check.passed for check in rpm.check_critic(broken("exchanged"), DIM).checks] == [False, *[None] * 6]


def test_a_broken_critic_is_raised_on_demand_and_a_function_is_refused():
    with pytest.raises(ValueError, match="(?s)✗ finite.*expected.*remedy"):
        rpm.check_critic(broken("overflow"), DIM, raise_exception=True)
    with pytest.raises(TypeError, match="a function; expected an nn.Module"):
        rpm.check_critic(lambda z, z_prime: z @ z_prime.T, DIM)


@pytest.mark.parametrize("make", [Walk, lambda: broken("batch norm"), lambda: broken("dropout"), starts_at_zero])
def test_the_critic_and_the_global_random_state_are_left_as_they_were(make):
    critic = make()
    for parameter in critic.parameters():
        parameter.grad = torch.full_like(parameter, 7)
    before, state = {k: v.clone() for k, v in critic.state_dict().items()}, torch.get_rng_state()
    with torch.inference_mode():  # no fault of the critic
        assert rpm.check_critic(critic, DIM).ok == (make in (Walk, starts_at_zero))
    assert all(torch.equal(before[name], tensor) for name, tensor in critic.state_dict().items())
    assert all((p.grad == 7).all() and p.requires_grad for p in critic.parameters())
    assert torch.equal(state, torch.get_rng_state()) and critic.training
