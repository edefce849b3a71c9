"""dataset_evidence and the critic that it calls again in `backward`: one that changed, was exchanged, or has hooks."""

import pytest
import torch
from evidence_cases import DIM, agree_each, agrees_with_the_dense_table, each_way, gradients, made, pairs
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

import rpm_tutorial as rpm
from rpm_tutorial import _tiles, dataset_evidence
from rpm_tutorial.critics import LinearCritic, LinearForm


class Steps(nn.Module):
    """A matrix for each of several steps ahead, as in CPC, an annealed temperature, and noise: all may be set."""

    def __init__(self):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.W = nn.ParameterList([torch.eye(DIM) + 0.1 * torch.randn(DIM, DIM, generator=draw) for _ in range(2)])
        self.register_buffer("sharpness", torch.tensor(2.0))
        self.k, self.temperature, self.dropout = 0, 1.0, 0.0

    def forward(self, z, z_prime):
        z = F.dropout(z, self.dropout) @ self.W[self.k]
        return self.sharpness * z @ z_prime.T / self.temperature


each_dtype = pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
CHANGED = "the critic changed between dataset_evidence and backward"


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("name, value", [("k", 1), ("temperature", 0.9), ("dropout", 0.1)])
def test_a_critic_that_changed_before_backward_is_refused(name, value, reduction):
    """As one that takes several steps ahead, whose loop adds up the evidence of each."""
    critic, (z, z_prime) = Steps().double(), pairs(40)
    evidence = dataset_evidence(z, z_prime, critic, reduction=reduction, block=8).infonce.mean()
    setattr(critic, name, value)
    with pytest.raises(RuntimeError, match=f"(?s){CHANGED}.*call backward first, or use one module per setting"):
        evidence.backward()


class Bumped(nn.Module):
    """An inner product, and more by `bump` for one z alone."""

    bump = 0.0

    def forward(self, z, z_prime):
        return z @ z_prime.T + self.bump * (z[:, :1] == z[:, :1].detach().amax())


@each_dtype
@pytest.mark.parametrize("digits_lost", [0.1, 10, -10])
def test_a_change_of_one_row_is_refused_from_half_of_the_digits_on(digits_lost, dtype):
    critic, (z, z_prime) = Bumped(), (side.to(dtype).detach().requires_grad_() for side in pairs(40))
    evidence = dataset_evidence(z, z_prime, critic).infonce
    critic.bump = digits_lost * torch.finfo(torch.promote_types(dtype, torch.float32)).eps ** 0.5
    if digits_lost == 0.1:
        return evidence.backward()
    with pytest.raises(RuntimeError, match=CHANGED):
        evidence.backward()


class EvidenceOf(nn.Module):
    def __init__(self, critic: nn.Module):
        super().__init__()
        self.critic = critic

    def forward(self, z, z_prime):
        return dataset_evidence(z, z_prime, self.critic, block=4).infonce


def test_parameters_and_buffers_of_a_functional_call_get_the_gradients_of_the_dense_table():
    critic, (z, z_prime) = Steps().double(), pairs(20)
    state = {n: (1.5 * t.detach()).requires_grad_() for n, t in critic.state_dict().items()}
    found = functional_call(EvidenceOf(critic), {f"critic.{n}": t for n, t in state.items()}, (z, z_prime))
    dense = rpm.infonce(functional_call(critic, state, (z, z_prime))).value
    inputs = [z, z_prime, state["W.0"], state["sharpness"]]
    slopes = (torch.autograd.grad(value, inputs) for value in (found, dense))
    agree_each("(E14) = dense: gradients, functional_call", *slopes)


@pytest.mark.parametrize("how", ["a buffer is replaced", "saved elsewhere"])
def test_tensors_are_remembered_as_they_were_at_the_call(how):
    critic, (z, z_prime) = Steps().double(), pairs(20)
    expected = gradients(rpm.infonce(critic(z, z_prime)).value, z, z_prime, critic)
    if how == "saved elsewhere":
        with torch.autograd.graph.save_on_cpu():
            found = dataset_evidence(z, z_prime, critic, block=4).infonce
    else:
        found = dataset_evidence(z, z_prime, critic).infonce
        critic.sharpness = 2 * critic.sharpness
    agree_each(f"(E14) = dense: gradients, {how}", gradients(found, z, z_prime, critic), expected)


@each_dtype
@pytest.mark.parametrize("n, size, block", [(1, 1, 1), (200, 1e8, 64), (200, 1e-8, None)])
@pytest.mark.parametrize("name", ["LaplaceWalk", "Universal", "Masked", "sharp"])
def test_rounding_is_no_change_of_the_critic(name, n, size, block, dtype):
    z, z_prime = (t.detach() for t in pairs(n, size=size, dtype=dtype))
    critic = made(name, dtype)
    if name == "Masked":
        critic.reach *= 4 * max(1, size)  # no pair may forbid itself
    for reduction in ("mean", "none"):
        dataset_evidence(z.requires_grad_(), z_prime, critic, reduction=reduction, block=block).infonce.sum().backward()


@pytest.mark.slow
def test_rounding_is_no_change_of_the_critic_among_sixty_thousand_candidates_in_float32():
    z, step = torch.randn(2, 60_000, 2, generator=torch.Generator().manual_seed(0))
    rows = z[:32].clone().requires_grad_()
    for critic in (rpm.VonMisesFisher(0.01), rpm.LaplaceWalk(0.01)):
        _tiles.by_tiles(critic, _tiles.Place(), 16, rows, z + 0.3 * step).mean().backward()
        assert rows.grad.isfinite().all()


def walk(**own) -> nn.Module:
    """A random walk that is more than its class says, by what it has of its own."""
    critic = made("RandomWalk")
    for name, value in own.items():
        setattr(critic, name, value) if name == "forward" else getattr(critic, f"register_{name}")(value)
    return critic


class Unlike(nn.Module):
    """Its `linear_form` is a method like any other: it is no LinearCritic."""

    def linear_form(self, z, z_prime):
        return LinearForm(z, z_prime)

    def forward(self, z, z_prime):
        return 2 * z @ z_prime.T


OWN = {
    "a forward": lambda: walk(forward=lambda z, z_prime: made("RandomWalk")(z, z_prime).sin()),
    "a hook": lambda: walk(forward_hook=lambda module, inputs, log_f: 2 * log_f),
    "a hook before": lambda: walk(forward_pre_hook=lambda module, inputs: (inputs[0], inputs[1].sin())),
    "a name": Unlike,
}


@each_way
@pytest.mark.parametrize("own", OWN)
def test_what_a_call_of_the_critic_gives_is_its_score(own, way):
    critic, (z, z_prime) = OWN[own](), pairs(7)
    assert abs(way(z, z_prime, critic).infonce - way(z, z_prime, made("RandomWalk")).infonce) > 0.01
    agrees_with_the_dense_table(way, critic, z, z_prime, "both")


class Noise(nn.Module):
    """Other scores at each call: by draws that `eval()` does not stop, of a generator of its own, or by a count."""

    def __init__(self, how: str):
        super().__init__()
        self.how, self.calls, self.own = how, 0, torch.Generator().manual_seed(0)
        self.attention = nn.MultiheadAttention(DIM, 1, dropout=0.01, batch_first=True)
        self.attention.train(how == "attention in training mode")

    def forward(self, z):
        if self.how == "rare dropout":  # of a few rows none is dropped
            return F.dropout(z, 1e-6)
        if self.how == "a generator of its own":
            return z + 0.1 * torch.randn(z.shape, generator=self.own)
        if self.how == "a count":
            self.calls += 1
            return z / self.calls
        return z + self.attention(z[None], z[None], z[None])[0][0]


class Changing(LinearCritic):
    def __init__(self, how: str):
        super().__init__()
        self.noise = Noise(how)

    def linear_form(self, z, z_prime):
        return LinearForm(self.noise(z), z_prime)


class ChangingTable(Changing):
    def forward(self, z, z_prime):
        return self.noise(z) @ z_prime.T


@pytest.mark.parametrize("how", ["rare dropout", "a generator of its own", "a count", "attention in training mode"])
@pytest.mark.parametrize("kind", [Changing, ChangingTable])
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
def test_a_critic_whose_scores_change_from_call_to_call_is_refused(kind, how, mode):
    z, z_prime = (side.detach().float() for side in pairs(80))
    critic, draw = kind(how), torch.Generator().manual_seed(0)
    with mode():
        for evidence in (
            lambda: dataset_evidence(z, z_prime, critic, normalise="columns", block=8),
            lambda: dataset_evidence(z.half(), z_prime.half(), kind(how).half()),
            lambda: rpm.sampled_evidence(z, z_prime, critic, generator=draw),
        ):
            with pytest.raises(ValueError, match="expected a fixed critic: call critic.eval()"):
                evidence()
    failed = [check.name for check in rpm.check_critic(critic, DIM).checks if check.passed is False]
    assert failed[0] in (("determinism", "pairing") if "attention" in how else ("determinism",))
