"""`check_critic`: every critic of the library passes, and each way to break one is caught by its own check."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import rpm_tutorial as rpm
from rpm_tutorial.critics import LinearForm

DIM = 3
CRITICS = {
    "RandomWalk": rpm.RandomWalk,
    "a narrow RandomWalk": lambda: rpm.RandomWalk(0.03),
    "LaplaceWalk": rpm.LaplaceWalk,
    "VonMisesFisher": rpm.VonMisesFisher,
    "fixed": lambda: rpm.VonMisesFisher(0.05, learnable=False),
    "LinearDynamics": lambda: rpm.LinearDynamics(DIM),
    "Bilinear": lambda: rpm.Bilinear(DIM),
    "Universal": lambda: rpm.Universal(DIM),
}


class Walk(nn.Module):
    """A critic like a reader's: a Gaussian walk of learnable precision, without a linear form."""

    def __init__(self):
        super().__init__()
        self.log_precision = nn.Parameter(torch.tensor(0.3))

    def forward(self, z, z_prime):
        return -self.log_precision.exp() * (z[:, None] - z_prime).square().sum(2) / 2


class Box(Walk):
    """f = 0 at a distance of 4 and more: legal scores of -inf."""

    def forward(self, z, z_prime):
        outside = (z[:, None] - z_prime).abs().amax(2) > 4
        return super().forward(z, z_prime).masked_fill(outside, -torch.inf)


class StartsAtZero(nn.Module):
    """Constant at its start, on purpose."""

    def __init__(self):
        super().__init__()
        self.W = nn.Parameter(torch.zeros(DIM, DIM))

    def forward(self, z, z_prime):
        return z @ self.W @ z_prime.T


class PairsOnly(Walk):
    def forward(self, z, z_prime):
        n = min(len(z), len(z_prime))
        return super().forward(z, z_prime)[:n, :n].diagonal()


class Exchanged(Walk):
    def forward(self, z, z_prime):
        return super().forward(z, z_prime).T


class OtherDtype(Walk):
    def forward(self, z, z_prime):
        return super().forward(z, z_prime).half()


class Raises(Walk):
    def forward(self, z, z_prime):
        return super().forward(z, z_prime[: len(z)] - z)


class Dropping(Walk):
    def forward(self, z, z_prime):
        return super().forward(F.dropout(z, 0.5), z_prime)


class InPlace(Walk):
    def forward(self, z, z_prime):
        z.mul_(2)
        return super().forward(z, z_prime)


class InPlacePrime(Walk):
    def forward(self, z, z_prime):
        return super().forward(z, z_prime.add_(1))


class RootOfNegative(Walk):
    def forward(self, z, z_prime):
        return super().forward(z, z_prime) + (z @ z_prime.T).sqrt()


class Softmax(Walk):
    def forward(self, z, z_prime):
        return super().forward(z, z_prime).log_softmax(1)


class Standardised(Walk):
    def forward(self, z, z_prime):
        log_f = super().forward(z, z_prime)
        return log_f / (1 + log_f.detach().abs().mean())


class BatchNormed(Walk):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(DIM)

    def forward(self, z, z_prime):
        return super().forward(self.norm(z), self.norm(z_prime))


class ByPosition(Walk):
    def forward(self, z, z_prime):
        log_f = super().forward(z, z_prime)
        return log_f + torch.eye(*log_f.shape).to(log_f)


class Overflows(Walk):
    def forward(self, z, z_prime):
        return -super().forward(z, z_prime).exp() + (z @ z_prime.T).exp()


class BareNorm(Walk):
    def forward(self, z, z_prime):
        return super().forward(z / z.norm(dim=1, keepdim=True), z_prime / z_prime.norm(dim=1, keepdim=True))


class Underflows(Walk):
    def forward(self, z, z_prime):
        return (1000 * super().forward(z, z_prime) - 1000).exp().log()


class Separate(Walk):
    def forward(self, z, z_prime):
        return self.log_precision * z.square().sum(1)[:, None] + z_prime.sum(1)


class IgnoresZPrime(Walk):
    def forward(self, z, z_prime):
        return (self.log_precision * z.sum(1))[:, None].expand(-1, len(z_prime))


class Detached(Walk):
    def forward(self, z, z_prime):
        return super().forward(z, z_prime.detach())


class Unused(Walk):
    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(DIM))


class Rounded(Walk):
    def forward(self, z, z_prime):
        return super().forward((100 * z).round() / 100, z_prime)


class RootAtZero(Walk):
    def forward(self, z, z_prime):
        return -self.log_precision.exp() * (z[:, None] - z_prime).square().sum(2).sqrt()


class InAList(Walk):
    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(DIM, DIM)]

    def forward(self, z, z_prime):
        layer = self.layers[0].to(z)
        return super().forward(layer(z), z_prime)


class ForgottenBias(Walk):
    def linear_form(self, z, z_prime):
        return LinearForm(self.log_precision.exp() * z, z_prime)


class DetachedForm(Walk):
    def linear_form(self, z, z_prime):
        precision = self.log_precision.exp().detach()
        return LinearForm(precision * z, z_prime, *(-precision * t.square().sum(1) / 2 for t in (z, z_prime)))


BROKEN = {
    PairsOnly: ("shape", "(12)"),
    Exchanged: ("shape", "(15, 12)"),
    OtherDtype: ("shape", "torch.float16"),
    Raises: ("shape", ""),
    Dropping: ("determinism", "two calls differ"),
    InPlace: ("determinism", "the call changes z"),
    InPlacePrime: ("determinism", "the call changes z′"),
    RootOfNegative: ("finite", "NaN at standard normal latents"),
    Softmax: ("pairing", "for that pair alone"),
    Standardised: ("pairing", "for that pair alone"),
    BatchNormed: ("pairing", "ValueError"),
    ByPosition: ("pairing", "for that pair alone"),
    Overflows: ("finite", "10,000 times as far"),
    BareNorm: ("finite", "NaN at z = z′ = 0"),
    Underflows: ("finite", "only -inf"),
    Separate: ("interaction", "a(z) + b(z′)"),
    IgnoresZPrime: ("interaction", "does not depend on z′"),
    Detached: ("gradient", "z′ gets none"),
    Unused: ("gradient", "bias gets none"),
    Rounded: ("gradient", "z gets zero everywhere"),
    RootAtZero: ("gradient", "NaN"),
    InAList: ("gradient", "shape (3"),
    ForgottenBias: ("evidence", "from the table"),
    DetachedForm: ("evidence", "log_precision"),
}
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


@each_dtype
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CRITICS)
def test_each_critic_of_the_library_passes(name, seed, dtype):
    report = rpm.check_critic(CRITICS[name]().to(dtype), DIM, seed=seed)
    assert report.ok, report
    assert str(dtype)[6:] in report.title and all(line[0] == "✓" for line in repr(report).splitlines()[1:])


@each_dtype
@pytest.mark.parametrize("critic", [Walk, Box, StartsAtZero])
def test_so_does_a_critic_of_a_readers_own(critic, dtype):
    report = rpm.check_critic(critic().to(dtype), DIM, raise_exception=True)
    assert report.ok and len(report.checks) == 7


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_critic_in_half_precision_is_tried_as_a_copy_in_float32(dtype):
    for name in CRITICS:
        critic = CRITICS[name]().to(dtype)
        report = rpm.check_critic(critic, DIM)
        assert report.ok, report
        assert report.title.endswith(f", a float32 copy of {str(dtype)[6:]}")
        assert all(p.dtype == dtype for p in critic.parameters())
    for critic in (Softmax, Standardised, ForgottenBias):
        report = rpm.check_critic(critic().to(dtype), DIM)
        assert [check.name for check in report.checks if check.passed is False] == [BROKEN[critic][0]]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_mode_without_gradients_is_no_fault_of_the_critic(mode):
    for critic in (Walk(), StartsAtZero(), rpm.Bilinear(DIM)):
        with mode():
            report = rpm.check_critic(critic, DIM)
        assert report.ok, report


def test_the_remedy_for_batch_norm_and_dropout_is_eval_and_then_they_pass():
    for part in (nn.BatchNorm1d(DIM), nn.Dropout(0.5)):
        critic = BatchNormed()
        critic.norm = part
        failed = next(check for check in rpm.check_critic(critic, DIM).checks if check.passed is False)
        assert failed.remedy == f"call critic.eval(): its norm is a {type(part).__name__} in training mode"
        assert rpm.check_critic(critic.eval(), DIM).checks[2].passed


def test_latents_may_have_two_sizes():
    class TwoSizes(nn.Module):
        def __init__(self):
            super().__init__()
            self.W = nn.Parameter(torch.ones(4, 2))

        def forward(self, z, z_prime):
            return z @ self.W @ z_prime.T

    report = rpm.check_critic(TwoSizes(), 4, 2)
    assert report.ok and report.title == "check_critic(TwoSizes, dim=4, dim_prime=2), float32"
    assert not rpm.check_critic(TwoSizes(), 4).ok
    with pytest.raises(ValueError, match="dim_prime is 0; expected a positive number"):
        rpm.check_critic(TwoSizes(), 4, 0)


@pytest.mark.parametrize("dim", [1, 2, 64])
def test_in_any_dimension(dim):
    for critic in (rpm.RandomWalk(), rpm.Universal(dim), rpm.LinearDynamics(dim)):
        assert rpm.check_critic(critic, dim).ok


@each_dtype
@pytest.mark.parametrize("critic", BROKEN, ids=lambda c: c.__name__)
def test_each_way_to_break_a_critic_is_caught_by_its_own_check_alone(critic, dtype):
    report = rpm.check_critic(critic().to(dtype), DIM)
    name, found = BROKEN[critic]
    failed = [check for check in report.checks if check.passed is False]
    assert [check.name for check in failed] == [name], report
    assert not report.ok and found in failed[0].found and failed[0].expected and failed[0].remedy


def test_every_check_has_a_critic_that_it_alone_catches():
    assert {check.name for check in rpm.check_critic(Walk(), DIM).checks} == {name for name, _ in BROKEN.values()}


def test_the_report_is_a_list_with_found_expected_and_remedy():
    lines = repr(rpm.check_critic(Softmax(), DIM)).splitlines()
    assert lines[0] == "check_critic(Softmax, dim=3), float32"
    assert [line[0] for line in lines if line[0] != " "] == ["c", "✓", "✓", "✗", "✓", "✓", "✓", "○"]
    start = next(k for k, line in enumerate(lines) if line.startswith("✗ pairing"))
    assert lines[start + 1].split(":")[0].strip() == "expected" and lines[start + 2].split(":")[0].strip() == "remedy"
    assert lines[-1].endswith("not run: mend pairing first")


def test_checks_that_build_on_a_failed_one_are_not_run():
    report = rpm.check_critic(Exchanged(), DIM)
    assert [check.passed for check in report.checks] == [False, *[None] * 6]


def test_a_broken_critic_is_raised_on_demand_with_the_report():
    with pytest.raises(ValueError, match="(?s)✗ finite.*expected.*remedy"):
        rpm.check_critic(Overflows(), DIM, raise_exception=True)


def test_a_function_is_refused():
    with pytest.raises(TypeError, match="a function; expected an nn.Module"):
        rpm.check_critic(lambda z, z_prime: z @ z_prime.T, DIM)


@pytest.mark.parametrize("critic", [Walk, BatchNormed, Dropping, StartsAtZero])
def test_the_critic_and_the_global_random_state_are_left_as_they_were(critic):
    critic = critic()
    for parameter in critic.parameters():
        parameter.grad = torch.full_like(parameter, 7)
    before, state = {k: v.clone() for k, v in critic.state_dict().items()}, torch.get_rng_state()
    rpm.check_critic(critic, DIM)
    assert all(torch.equal(before[name], tensor) for name, tensor in critic.state_dict().items())
    assert all((p.grad == 7).all() and p.requires_grad for p in critic.parameters())
    assert torch.equal(state, torch.get_rng_state()) and critic.training


def test_a_critic_that_passes_can_be_trained_and_evaluated():
    """What the report promises, on a critic with zero probabilities: the engine and the table agree after a step too."""
    critic = Box().double()
    assert rpm.check_critic(critic, DIM).ok
    z = torch.randn(300, DIM, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    optimiser = torch.optim.SGD(critic.parameters(), lr=1.0)
    (-rpm.infonce(critic(z, z)).value).backward()
    optimiser.step()
    by_table = rpm.infonce(critic(z, z)).value.item()
    assert math.isclose(rpm.dataset_evidence(z, z, critic).infonce.item(), by_table, rel_tol=1e-12)
