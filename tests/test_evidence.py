"""dataset_evidence: (E14) without the N x N table, equal to it in value and gradients, for any critic, N and way."""

import functools
import math

import pytest
import torch
import tqdm.auto
from evidence_cases import (
    EACH,
    agree_each,
    agrees_with_the_dense_table,
    each_critic,
    each_side,
    each_way,
    gradients,
    made,
    pairs,
)
from residuals import agree
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import rpm_tutorial as rpm
from rpm_tutorial import _tiles, dataset_evidence, evidence


@each_critic
@each_side
@each_way
def test_value_and_all_gradients_are_those_of_the_dense_table(name, normalise, way):
    agrees_with_the_dense_table(way, made(name), *pairs(10), normalise)


@pytest.mark.parametrize("n, block", [(1, 4), (8, 4), (9, 16), (13, 1)])
def test_tiles_of_any_size_give_the_same(n, block):
    agrees_with_the_dense_table(dataset_evidence, made("Entangled"), *pairs(n), "both", block=block)


@each_critic
@each_side
@each_way
def test_each_pair_has_its_number_and_any_weighting_of_them_its_gradient(name, normalise, way):
    critic, (z, z_prime) = made(name), pairs(11)
    found = way(z, z_prime, critic, normalise=normalise, reduction="none")
    expected, n = EACH[normalise](critic(z, z_prime)), len(z)
    agree("(E14) = dense: each pair", found.value, expected + math.log(n))
    agree("(E14) = dense: each pair", found.log_evidence, expected - math.log(n))
    weights = torch.linspace(-1, 2, n).double()
    slopes = (gradients(weights @ each, z, z_prime, critic) for each in (found.value, expected))
    agree_each("(E14) = dense: gradients, weighted pairs", *slopes)


def test_an_evidence_of_both_sides_has_a_value_and_refuses_to_be_called_infonce():
    rows, both = (dataset_evidence(*pairs(6), made("Entangled"), normalise=side) for side in ("rows", "both"))
    assert rows.objective == "infonce" and rows.infonce is rows.value
    assert both.objective == "symmetric_infonce"
    with pytest.raises(AttributeError, match="take .value for the symmetric objective"):
        both.infonce  # noqa: B018


@pytest.mark.parametrize("first, n", [(0, 5), (5, 7), (9, 1), (3, 9)])
def test_some_rows_of_the_table_meet_their_own_pairs_from_the_first_of_them_on(first, n, monkeypatch):
    """What each of several processes computes."""
    monkeypatch.setitem(_tiles.STRIP_ROWS, "cpu", (4, 4))
    z, z_prime = pairs(12)
    q = z[first : first + n].detach().requires_grad_()
    expected = (q @ z_prime.T).log_softmax(1).diagonal(first)
    slopes = torch.autograd.grad(expected.sum(), [q, z_prime])
    sums = [_tiles.by_strips(_tiles.Place(first), q, z_prime)]
    for block in (1, 3, 5):
        log_p = _tiles.by_tiles(_tiles.InnerProduct(), _tiles.Place(first), block, q, z_prime)
        agree("(E14) some rows by tiles", log_p, expected)
        sums.append(log_p.sum())
    for found in sums:
        agree("(E14) some rows", found, expected.sum())
        agree_each("(E14) some rows: gradients", torch.autograd.grad(found, [q, z_prime]), slopes)


@each_way
@each_critic
def test_what_alone_needs_a_gradient_gets_it(name, way):
    critic, both = made(name), pairs(7)
    inputs = [*both, *critic.parameters()]
    for chosen in inputs[:5]:
        for tensor in inputs:
            tensor.requires_grad_(tensor is chosen)
        agrees_with_the_dense_table(way, critic, *both, "both")


@each_way
@pytest.mark.parametrize("name", ["Entangled", "RandomWalk"])
def test_a_parameter_that_the_critic_does_not_use_gets_a_gradient_of_zero(name, way):
    critic = made(name)
    critic.unused = nn.Parameter(torch.ones(2).double())
    agrees_with_the_dense_table(way, critic, *pairs(5))


@each_way
@pytest.mark.parametrize("name", ["Entangled", "RandomWalk"])
def test_a_second_derivative_is_refused_and_a_second_backward_is_the_first(name, way):
    """A gradient penalty beside the loss: without the refusal, only the penalty's gradient would be missing."""
    (z, z_prime), critic = pairs(7), made(name)
    value = way(z, z_prime, critic).infonce
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(value, z, create_graph=True)
    first, second = (torch.autograd.grad(value, [z, *critic.parameters()], retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("inner_product", [False, True])
def test_a_tile_on_a_gpu_takes_a_small_part_of_its_free_memory(inner_product, monkeypatch):
    for free, block in {2**20: 128, 2**30: 1448, 2**32: 2896, 2**40: 4096}.items():
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 2**41))
        assert _tiles.block_for(torch.device("cuda"), inner_product=inner_product) == block
        assert 4 * block * 2 * block * 4 <= free / 16 * 1.01 or block == 128


class HostReads(TorchDispatchMode):
    """Counts how often the program waits for a number: on a GPU each such read stops the queue."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, call, types, args=(), kwargs=None):
        self.count += call.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero)
        return call(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["RandomWalk", "Entangled"])
def test_the_host_does_not_read_a_number_per_tile(name, monkeypatch):
    def reads(**options) -> int:
        z, z_prime = pairs(64)
        with HostReads() as found:
            dataset_evidence(z, z_prime, made(name), **options).infonce.backward()
        return found.count

    few, whole = reads(block=64), reads()
    assert 0 < few < 20 and reads(block=8) == few
    monkeypatch.setitem(_tiles.STRIP_ROWS, "cpu", (8, 8))
    assert reads() == whole


@pytest.fixture
def bars(monkeypatch):
    """The progress bars of evidence and sampled_evidence, made even where the environment disables them."""
    for module in (_tiles, evidence):
        monkeypatch.setattr(module, "tqdm", functools.partial(tqdm.auto.tqdm, disable=False))
    return tqdm.auto.tqdm._instances


@pytest.mark.parametrize("k", [3, 8, 13])  # after two calls that are tried first: of 6 tiles forward, 6 backward
def test_an_interrupt_leaves_no_bar_and_no_switched_off_check_behind(k, bars):
    critic, calls, before = made("LaplaceWalk"), [], len(bars)

    def interrupted(z, z_prime):
        calls.append(1)
        if len(calls) == k:
            assert len(bars) == before + 1
            raise KeyboardInterrupt
        return rpm.LaplaceWalk.forward(critic, z, z_prime)

    critic.forward = interrupted
    z, z_prime = pairs(6)
    with pytest.raises(KeyboardInterrupt) as held:
        dataset_evidence(z, z_prime, critic, block=2).infonce.backward()
    assert held.tb is not None and len(bars) == before
    with pytest.raises(ValueError, match="NaN"):
        critic(z * math.nan, z_prime)


@pytest.mark.parametrize("pause", [0.0, 0.15])
def test_a_bar_appears_after_two_seconds_and_disappears(pause, bars, monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(tqdm.std, "time", lambda: clock[0])

    def slow(call):
        return lambda *a, **options: clock.append(clock.pop() + pause) or call(*a, **options)

    critic = made("LaplaceWalk")
    critic.forward = slow(critic.forward)
    dataset_evidence(*pairs(15), critic, block=3).infonce.backward()  # 15 tiles
    monkeypatch.setitem(_tiles.STRIP_ROWS, "cpu", (1, 1))
    monkeypatch.setattr(torch, "mm", slow(torch.mm))
    dataset_evidence(*pairs(15), made("RandomWalk")).infonce.backward()  # 15 strips
    drawn, names = capsys.readouterr().err, ("evidence:", "its gradient:", "evidence and its gradient:")
    assert (all(bar in drawn for bar in names) and drawn.split("\r")[-1].strip() == "") if pause else drawn == ""
