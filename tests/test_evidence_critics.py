"""dataset_evidence and the critic that it calls again in `backward`: one that changed, was exchanged, or has hooks."""

import pytest
import torch
from evidence_cases import DIM, agrees_with_the_dense_table, each_way, gradients, made, pairs
from residuals import agree
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

import rpm_tutorial as rpm
from rpm_tutorial import _tiles, dataset_evidence
from rpm_tutorial.critics import LinearForm


class Steps(nn.Module):
    """A matrix for each of several steps ahead, as in CPC, an annealed temperature, and noise: all may be set."""

    def __init__(self):
        super().__init__()
        self.W = nn.ParameterList([torch.eye(DIM) + 0.1 * torch.randn(DIM, DIM) for _ in range(2)])
        self.register_buffer("sharpness", torch.tensor(2.0))
        self.k, self.temperature, self.dropout = 0, 1.0, 0.0

    def forward(self, z, z_prime):
        z = F.dropout(z, self.dropout) @ self.W[self.k]
        return self.sharpness * z @ z_prime.T / self.temperature


def steps(dtype=torch.float64) -> Steps:
    torch.manual_seed(0)
    return Steps().to(dtype)


def error_of(call) -> Exception | None:
    try:
        return call()
    except (RuntimeError, ValueError) as error:
        return error


each_dtype = pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)


@each_dtype
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("name, value", [("k", 1), ("temperature", 0.9), ("dropout", 0.1)])
def test_a_critic_that_changed_before_backward_is_refused(name, value, reduction, dtype):
    critic, (z, z_prime) = steps(dtype), pairs(40, dtype=dtype)
    evidence = dataset_evidence(z, z_prime, critic, reduction=reduction, block=8).infonce.mean()
    setattr(critic, name, value)
    assert "the critic changed between dataset_evidence and backward" in str(error_of(evidence.backward))


class Bumped(nn.Module):
    """An inner product, and more by `bump` for one z alone."""

    bump = 0.0

    def forward(self, z, z_prime):
        return z @ z_prime.T + self.bump * (z[:, :1] == z[:, :1].detach().amax())


@each_dtype
@pytest.mark.parametrize("digits_lost, refused", [(0.1, False), (10, True), (-10, True)])
def test_a_change_of_one_row_is_refused_from_half_of_the_digits_on(digits_lost, refused, dtype):
    critic, (z, z_prime) = Bumped(), pairs(40, dtype=torch.float64)
    z, z_prime = z.to(dtype).requires_grad_(), z_prime.to(dtype)
    evidence = dataset_evidence(z, z_prime, critic).infonce
    critic.bump = digits_lost * torch.finfo(torch.promote_types(dtype, torch.float32)).eps ** 0.5
    assert ("the critic changed" in str(error_of(evidence.backward))) == refused


def test_a_sum_over_steps_ahead_is_refused_after_the_loop_and_right_within_it():
    critic, (z, z_prime), evidences = steps(), pairs(20), []
    for critic.k in range(2):
        evidences.append(dataset_evidence(z, z_prime, critic).infonce)
        expected = gradients(rpm.infonce(critic(z, z_prime)).value, z, z_prime, critic)
        for one, other in zip(
            gradients(dataset_evidence(z, z_prime, critic).infonce, z, z_prime, critic), expected, strict=True
        ):
            agree("(E14) = dense: gradients, step by step", one, other)
    assert "call backward first, or use one module per setting" in str(error_of(sum(evidences).backward))


class EvidenceOf(nn.Module):
    def __init__(self, critic: nn.Module):
        super().__init__()
        self.critic = critic

    def forward(self, z, z_prime):
        return dataset_evidence(z, z_prime, self.critic, block=4).infonce


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_parameters_and_buffers_of_a_functional_call_get_the_gradients_of_the_dense_table(factor):
    critic, (z, z_prime) = steps(), pairs(20)
    state = {n: (factor * t.detach()).requires_grad_() for n, t in critic.state_dict().items()}
    found = functional_call(EvidenceOf(critic), {f"critic.{n}": t for n, t in state.items()}, (z, z_prime))
    dense = rpm.infonce(functional_call(critic, state, (z, z_prime))).value
    inputs = [z, z_prime, state["W.0"], state["sharpness"]]
    for one, other in zip(*(torch.autograd.grad(value, inputs) for value in (found, dense)), strict=True):
        assert other.any()
        agree("(E14) = dense: gradients, functional_call", one, other)


def test_a_buffer_that_is_replaced_before_backward_is_remembered_as_it_was():
    critic, (z, z_prime) = steps(), pairs(20)
    expected = gradients(rpm.infonce(critic(z, z_prime)).value, z, z_prime, critic)
    found = dataset_evidence(z, z_prime, critic).infonce
    critic.sharpness = 2 * critic.sharpness
    for one, other in zip(gradients(found, z, z_prime, critic), expected, strict=True):
        agree("(E14) = dense: gradients, a buffer replaced", one, other)


def test_parameters_that_are_saved_elsewhere_for_backward_get_their_gradient():
    critic, (z, z_prime) = steps(), pairs(20)
    with torch.autograd.graph.save_on_cpu():
        found = dataset_evidence(z, z_prime, critic, block=4).infonce
    expected = gradients(rpm.infonce(critic(z, z_prime)).value, z, z_prime, critic)
    for one, other in zip(gradients(found, z, z_prime, critic), expected, strict=True):
        agree("(E14) = dense: gradients, saved elsewhere", one, other)


@each_dtype
@pytest.mark.parametrize("n, size, block", [(1, 1, 1), (20, 1, 1), (300, 1e3, 64), (300, 1e8, 64), (300, 1e-8, None)])
@pytest.mark.parametrize("name", ["LaplaceWalk", "Universal", "Masked", "sharp", "Entangled"])
def test_rounding_is_no_change_of_the_critic(name, n, size, block, dtype):
    z, z_prime = (t.detach() for t in pairs(n, size=size, dtype=dtype))
    critic = made(name, dtype)
    if name == "Masked":
        critic.reach *= 4 * max(1, size)  # no pair may forbid itself
    for reduction in ("mean", "none"):
        dataset_evidence(z.requires_grad_(), z_prime, critic, reduction=reduction, block=block).infonce.sum().backward()


def test_rounding_is_no_change_of_the_critic_among_sixty_thousand_candidates_in_float32():
    z, step = torch.randn(2, 60_000, 2, generator=torch.Generator().manual_seed(0))
    rows = z[:32].clone().requires_grad_()
    for critic in (rpm.VonMisesFisher(0.01), rpm.LaplaceWalk(0.01)):
        _tiles.by_tiles(critic, 0, 16, rows, z + 0.3 * step).mean().backward()
        assert rows.grad.isfinite().all()


@each_way
@pytest.mark.parametrize("change", ["a forward of its own", "a hook", "a hook before it"])
def test_a_critic_whose_call_was_changed_is_called(change, way):
    critic, (z, z_prime) = made("RandomWalk"), pairs(7)
    if change == "a forward of its own":
        forward = critic.forward
        critic.forward = lambda z, z_prime: forward(z, z_prime).sin()
    elif change == "a hook":
        critic.register_forward_hook(lambda module, inputs, log_f: 2 * log_f)
    else:
        critic.register_forward_pre_hook(lambda module, inputs: (inputs[0], inputs[1].sin()))
    assert abs(way(z, z_prime, critic).infonce - way(z, z_prime, made("RandomWalk")).infonce) > 0.01
    agrees_with_the_dense_table(way, critic, z, z_prime, "both")


class Changing(Steps):
    """Another score at each call: by draws that `eval()` does not stop, of a generator of its own, or by a count."""

    def __init__(self, how: str):
        super().__init__()
        self.how, self.calls, self.own = how, 0, torch.Generator().manual_seed(0)
        self.attention = nn.MultiheadAttention(DIM, 1, dropout=0.01, batch_first=True)
        self.attention.train(how == "attention in training mode")

    def changed(self, z):
        if self.how == "dropout":
            return F.dropout(z, 0.5)
        if self.how == "rare dropout":  # of a few rows none is dropped
            return F.dropout(z, 1e-6)
        if self.how == "bernoulli":
            return z * torch.bernoulli(torch.full_like(z, 0.5))
        if self.how == "a generator of its own":
            return z + 0.1 * torch.randn(z.shape, generator=self.own)
        if self.how == "a count":
            self.calls += 1
            return z / self.calls
        return z + self.attention(z[None], z[None], z[None])[0][0]

    def forward(self, z, z_prime):
        return super().forward(self.changed(z), z_prime)


class ChangingForm(Changing):
    def linear_form(self, z, z_prime):
        return LinearForm(self.changed(z), z_prime)


HOW = ("dropout", "rare dropout", "bernoulli", "a generator of its own", "a count", "attention in training mode")


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", [Changing, ChangingForm])
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_a_critic_whose_scores_change_from_call_to_call_is_refused_with_gradients_and_without(kind, how, mode):
    z, z_prime = (side.detach().float() for side in pairs(80))
    critic, draw = kind(how), torch.Generator().manual_seed(0)
    with mode():
        for evidence in (
            lambda: dataset_evidence(z, z_prime, critic),
            lambda: dataset_evidence(z, z_prime, critic, normalise="columns", block=8),
            lambda: dataset_evidence(z.half(), z_prime.half(), kind(how).half()),
            lambda: rpm.sampled_evidence(z, z_prime, critic, generator=draw),
        ):
            assert "expected a fixed critic: call critic.eval(), and F.dropout(z, p, self.t" in str(error_of(evidence))
    failed = [check for check in rpm.check_critic(critic, DIM).checks if check.passed is False]
    assert failed[0].name in ("determinism", "pairing") and (failed[0].name == "determinism" or "attention" in how)


def test_a_fixed_critic_may_have_layers_that_could_draw():
    critic = Changing("attention").eval()
    assert dataset_evidence(*(side.float() for side in pairs(12)), critic, block=12).infonce.isfinite()


def test_the_few_pairs_that_are_tried_first_leave_a_critic_as_it_was():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.calls = []

        def forward(self, z, z_prime):
            self.calls.append((len(z), len(z_prime), self.training, torch.is_grad_enabled()))
            return z @ z_prime.T

    critic = Counting()
    dataset_evidence(*pairs(5), critic)
    assert critic.calls == [(2, 4, True, False), (2, 4, True, False), (5, 5, True, False)] and critic.training
    assert (
        dataset_evidence(*pairs(1), critic).infonce == 0 and len(critic.calls) == 4
    )  # nothing to try on a single pair
