"""dataset_evidence and the critic that it calls again in `backward`: one that changed, was exchanged, draws, or has hooks."""

import pytest
import torch
from evidence_cases import DIM, agree_each, agrees_with_the_table, each_way, gradients, made, pairs
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

import rpm_tutorial as rpm
from rpm_tutorial import _tiles, dataset_evidence
from rpm_tutorial.critics import LinearCritic, LinearForm

each_dtype = pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
CHANGED = "the critic changed between dataset_evidence and backward"


class Steps(nn.Module):
    """A matrix for each of several steps ahead, as in CPC, a buffer, noise, and more by `bump` for one z alone."""

    def __init__(self):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.W = nn.ParameterList([torch.eye(DIM) + 0.1 * torch.randn(DIM, DIM, generator=draw) for _ in range(2)])
        self.register_buffer("sharpness", torch.tensor(2.0))
        self.k, self.dropout, self.bump = 0, 0.0, 0.0

    def forward(self, z, z_prime):
        moved = F.dropout(z, self.dropout) @ self.W[self.k]
        return self.sharpness * moved @ z_prime.T + self.bump * (z[:, :1] == z[:, :1].detach().amax())


@pytest.mark.parametrize("name, value", [("k", 1), ("dropout", 0.1)])
def test_a_critic_that_changed_before_backward_is_refused(name, value):
    """As one that takes several steps ahead, whose loop adds up the evidence of each."""
    for reduction in ("mean", "none"):
        critic = Steps().double()
        found = dataset_evidence(*pairs(40), critic, reduction=reduction, block=8).infonce.mean()
        setattr(critic, name, value)
        with pytest.raises(RuntimeError, match=f"(?s){CHANGED}.*call backward first, or use one module per setting"):
            found.backward()


@each_dtype
@pytest.mark.parametrize("digits_lost", [0.1, 10, -10])
def test_a_change_of_one_row_is_refused_from_half_of_the_digits_on(digits_lost, dtype):
    critic = Steps().to(dtype)
    found = dataset_evidence(*pairs(40, dtype=dtype), critic).infonce
    critic.bump = digits_lost * torch.finfo(torch.promote_types(dtype, torch.float32)).eps ** 0.5
    if digits_lost == 0.1:
        return found.backward()
    with pytest.raises(RuntimeError, match=CHANGED):
        found.backward()


class EvidenceOf(nn.Module):
    def __init__(self, critic: nn.Module):
        super().__init__()
        self.critic = critic

    def forward(self, z, z_prime):
        return dataset_evidence(z, z_prime, self.critic, block=4).infonce


def test_parameters_and_buffers_of_a_functional_call_get_the_gradients_of_the_table():
    critic, (z, z_prime) = Steps().double(), pairs(20)
    state = {n: (1.5 * t.detach()).requires_grad_() for n, t in critic.state_dict().items()}
    found = functional_call(EvidenceOf(critic), {f"critic.{n}": t for n, t in state.items()}, (z, z_prime))
    dense = rpm.infonce(functional_call(critic, state, (z, z_prime))).value
    inputs = [z, z_prime, state["W.0"], state["sharpness"]]
    agree_each("(E14), functional_call", *(torch.autograd.grad(value, inputs) for value in (found, dense)))


def test_tensors_are_remembered_as_they_were_at_the_call():
    critic, (z, z_prime) = Steps().double(), pairs(20)
    expected = gradients(rpm.infonce(critic(z, z_prime)).value, z, z_prime, critic)
    with torch.autograd.graph.save_on_cpu():
        saved = dataset_evidence(z, z_prime, critic, block=4).infonce
    agree_each("(E14), saved elsewhere", gradients(saved, z, z_prime, critic), expected)
    found = dataset_evidence(z, z_prime, critic).infonce
    critic.sharpness = 2 * critic.sharpness
    agree_each("(E14), a buffer is replaced", gradients(found, z, z_prime, critic), expected)


@each_dtype
@pytest.mark.parametrize("n, size, block", [(1, 1, 1), (200, 1e8, 64), (200, 1e-8, None)])
@pytest.mark.parametrize("name", ["LaplaceWalk", "Universal", "Masked", "sharp"])
def test_rounding_is_no_change_of_the_critic(name, n, size, block, dtype):
    critic = made(name, dtype, reach=6 * max(1, size))  # no pair may forbid itself
    for reduction in ("mean", "none"):
        sides = pairs(n, size=size, dtype=dtype)
        dataset_evidence(*sides, critic, reduction=reduction, block=block).infonce.sum().backward()


@pytest.mark.nightly
def test_rounding_is_no_change_of_the_critic_among_sixty_thousand_candidates_in_float32():
    z, step = torch.randn(2, 60_000, 2, generator=torch.Generator().manual_seed(0))
    rows = z[:16].clone().requires_grad_()
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

    linear_form = rpm.Bilinear.linear_form

    def forward(self, z, z_prime):
        return 2 * z @ z_prime.T


@each_way
@pytest.mark.parametrize(
    "critic",
    [
        lambda: walk(forward=lambda z, z_prime: made("RandomWalk")(z, z_prime).sin()),
        lambda: walk(forward_hook=lambda module, inputs, log_f: 2 * log_f),
        lambda: walk(forward_pre_hook=lambda module, inputs: (inputs[0], inputs[1].sin())),
        Unlike,
    ],
    ids=["a forward", "a hook", "a hook before", "a name"],
)
def test_what_a_call_of_the_critic_gives_is_its_score(critic, way):
    agrees_with_the_table(way, critic(), *pairs(7), normalise="both")


class Changing(LinearCritic):
    """Other scores at each call: by draws that `eval()` does not stop, of a generator of its own, or by a count."""

    def __init__(self, how: str):
        super().__init__()
        self.how, self.calls, self.own = how, 0, torch.Generator().manual_seed(0)

    def linear_form(self, z, z_prime):
        self.calls += 1
        noise = {
            "rare dropout": lambda: F.dropout(z, 1e-6),  # of a few rows none is dropped
            "a generator of its own": lambda: z + 0.1 * torch.randn(z.shape, generator=self.own),
            "a count": lambda: z / self.calls,
        }
        return LinearForm(noise[self.how](), z_prime)


@pytest.mark.parametrize("how", ["rare dropout", "a generator of its own", "a count"])
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
def test_a_critic_whose_scores_change_from_call_to_call_is_refused(how, mode):
    z, z_prime = (side.detach().float() for side in pairs(80))
    for evidence in (
        lambda critic: dataset_evidence(z, z_prime, critic, normalise="columns", block=8),
        lambda critic: dataset_evidence(z.half(), z_prime.half(), critic.half()),
        lambda critic: rpm.sampled_evidence(z, z_prime, critic, generator=torch.Generator()),
    ):
        with mode(), pytest.raises(ValueError, match="expected a fixed critic: call critic.eval()"):
            evidence(Changing(how))
