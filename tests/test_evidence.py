"""dataset_evidence: (E14) without the N x N table, equal to it in value and gradients, for any critic, N and way."""

import functools
import math

import pytest
import torch
import tqdm.auto
from evidence_cases import (
    CRITICS,
    DIM,
    EACH,
    LINEAR,
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
from rpm_tutorial.critics import LinearForm


@each_critic
@each_side
@each_way
def test_value_and_all_gradients_are_those_of_the_dense_table(name, normalise, way):
    agrees_with_the_dense_table(way, made(name), *pairs(10), normalise)


@pytest.mark.parametrize("n, block", [(1, 4), (8, 4), (9, 16), (13, 1)])
def test_tiles_of_any_size_give_the_same(n, block):
    agrees_with_the_dense_table(dataset_evidence, made("Entangled"), *pairs(n), "both", block=block)


@pytest.mark.parametrize("inner_product", [False, True])
def test_a_tile_on_a_gpu_takes_a_small_part_of_its_free_memory(inner_product, monkeypatch):
    gpu, blocks = torch.device("cuda"), {}
    for free in (2**20, 2**30, 2**31, 2**32, 2**40):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 2**41))
        blocks[free] = _tiles.block_for(gpu, inner_product=inner_product)
    assert (blocks.pop(2**20), blocks.pop(2**40)) == (128, 4096), "the smallest and the largest"
    for free, block in blocks.items():
        four_tables = 4 * block * 2 * block * torch.float32.itemsize
        assert four_tables == pytest.approx(free / 16, rel=0.01)


@pytest.mark.parametrize("first, n", [(0, 5), (2, 4), (5, 7), (9, 1), (3, 9)])
def test_some_rows_of_the_table_meet_their_own_pairs_from_the_first_of_them_on(first, n, monkeypatch):
    """What each of several processes computes."""
    monkeypatch.setitem(_tiles.STRIP_ROWS, "cpu", (4, 4))
    (z, z_prime), critic = pairs(12), made("BothBiases")
    q, k, _, bias = (t.detach().requires_grad_() for t in critic.linear_form(z[first : first + n], z_prime))
    table = q @ k.T + bias
    expected = table.log_softmax(1).diagonal(first)
    found = {block: _tiles.by_tiles(critic, first, block, z[first : first + n], z_prime) for block in (1, 2, 3, 5)}
    for log_p in found.values():
        agree("(E14) some rows by tiles", log_p, expected)
    for one, other in zip(
        gradients(found[2].sum(), z, z_prime, critic),
        gradients(critic(z, z_prime).log_softmax(1).diagonal()[first : first + n].sum(), z, z_prime, critic),
        strict=True,
    ):
        agree("(E14) some rows by tiles: gradients", one, other)
    sums = _tiles.by_strips(first, q, k, bias), expected.sum()
    agree("(E14) some rows by strips", *sums)
    for one, other in zip(*(torch.autograd.grad(value, [q, k, bias]) for value in sums), strict=True):
        agree("(E14) some rows by strips: gradients", one, other)


@each_critic
@each_side
@each_way
def test_one_number_per_pair_and_the_gradient_of_any_weighting_of_them(name, normalise, way):
    critic, (z, z_prime) = made(name), pairs(11)
    found = way(z, z_prime, critic, normalise=normalise, reduction="none")
    expected, n = EACH[normalise](critic(z, z_prime)), len(z)
    agree("(E14) = dense: each pair", found.infonce, expected + math.log(n))
    agree("(E14) = dense: each pair", found.log_evidence, expected - math.log(n))
    mean = way(z, z_prime, critic, normalise=normalise)
    agree("(E14) the mean over pairs is the mean", found.infonce.mean(), mean.infonce)
    assert found.n == n and found.infonce.shape == found.log_evidence.shape == (n,)
    weights = torch.linspace(-1, 2, n).double()
    for one, other in zip(
        gradients(weights @ found.infonce, z, z_prime, critic),
        gradients(weights @ expected, z, z_prime, critic),
        strict=True,
    ):
        agree("(E14) = dense: gradients, weighted pairs", one, other)


@each_way
@each_critic
def test_what_alone_needs_a_gradient_gets_it(name, way):
    critic, both = made(name), pairs(7)
    inputs = [*both, *critic.parameters()]
    for chosen in inputs[:5]:
        for tensor in inputs:
            tensor.requires_grad_(tensor is chosen)
        agrees_with_the_dense_table(way, critic, *both, "both")


def test_strips_are_the_way_of_a_linear_form_whose_mean_needs_a_gradient(monkeypatch):
    taken = []
    for way in ("by_strips", "by_tiles"):
        call = getattr(evidence, way)
        monkeypatch.setattr(evidence, way, lambda *a, way=way, call=call: taken.append(way) or call(*a))
    z, z_prime = pairs(5)
    for name in CRITICS:
        plain, critic = [t.detach() for t in (z, z_prime)], made(name)
        dataset_evidence(z, z_prime, critic)
        dataset_evidence(z, z_prime, critic, block=2)
        dataset_evidence(z, z_prime, critic, reduction="none")
        with torch.no_grad():
            dataset_evidence(z, z_prime, critic)
        dataset_evidence(*plain, critic.requires_grad_(False))
        assert taken == ["by_strips" if name in LINEAR else "by_tiles"] + 4 * ["by_tiles"], name
        taken.clear()


@each_way
def test_a_subclass_is_scored_by_its_own_forward_unless_it_has_a_linear_form_of_its_own(way):
    class Bent(rpm.RandomWalk):
        def forward(self, z, z_prime):
            return super().forward(z, z_prime).sin()

    class Straight(Bent):
        def linear_form(self, z, z_prime):
            return LinearForm(z / self.scale, 2 * z_prime)

        def forward(self, z, z_prime):
            pytest.fail("its linear form says the same")

    agrees_with_the_dense_table(way, Bent(0.7).double(), *pairs(7))
    (z, z_prime), critic = pairs(7), Straight(0.7).double()
    expected = rpm.infonce(critic.linear_form(z, z_prime).table()).value
    agree("(E14) by a linear form", way(z, z_prime, critic).infonce, expected)


def test_the_critic_is_called_with_z_as_rows_and_z_prime_as_columns():
    z, z_prime = pairs(6)
    forward, backward = (dataset_evidence(a, b, made("Entangled"), block=4) for a, b in ((z, z_prime), (z_prime, z)))
    assert abs(forward.infonce - backward.infonce) > 0.01


@each_way
def test_frozen_parameters_get_no_gradient_and_the_others_do(way):
    for name, frozen, free in (("Entangled", "B", "A"), ("BothBiases", "u", "v")):
        critic, (z, z_prime) = made(name), pairs(7)
        getattr(critic, frozen).requires_grad_(False)
        agrees_with_the_dense_table(way, critic, z, z_prime)
        way(z, z_prime, critic).infonce.backward()
        assert getattr(critic, frozen).grad is None and getattr(critic, free).grad is not None
    fixed = rpm.VonMisesFisher(0.2, learnable=False).double()
    agrees_with_the_dense_table(way, fixed, z, z_prime)


@each_way
def test_a_parameter_that_the_critic_does_not_use_gets_a_gradient_of_zero(way):
    for name in ("Entangled", "RandomWalk"):
        critic = made(name)
        critic.unused = nn.Parameter(torch.ones(2).double())
        agrees_with_the_dense_table(way, critic, *pairs(5))


@each_way
def test_the_gradient_flows_on_into_an_encoder(way):
    encoder, critic, (x, x_prime) = nn.Linear(DIM, 2).double(), rpm.RandomWalk(0.5).double(), pairs(9)
    found, expected = (
        torch.autograd.grad(value, encoder.weight)[0]
        for value in (
            way(encoder(x), encoder(x_prime), critic).log_evidence,
            rpm.infonce(critic(encoder(x), encoder(x_prime))).value,
        )
    )
    agree("(E14) the encoder's gradient", found, expected)


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


@each_way
def test_nothing_is_recorded_under_no_grad(way):
    with torch.no_grad():
        for name in ("Entangled", "RandomWalk"):
            assert not way(*pairs(5), made(name)).infonce.requires_grad


class HostReads(TorchDispatchMode):
    """Counts how often the program waits for a number: on a GPU each such read stops the queue."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, call, types, args=(), kwargs=None):
        self.count += call.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero)
        return call(*args, **(kwargs or {}))


def host_reads(critic, **options) -> int:
    z, z_prime = pairs(64)
    with HostReads() as reads:
        dataset_evidence(z, z_prime, critic, **options).infonce.backward()
    return reads.count


@pytest.mark.parametrize("name", ["LaplaceWalk", "RandomWalk", "Entangled"])
def test_the_host_does_not_read_a_number_per_tile(name, monkeypatch):
    few = host_reads(made(name), block=64)
    assert 0 < few < 20 and host_reads(made(name), block=8) == few
    few = host_reads(made(name))
    monkeypatch.setitem(_tiles.STRIP_ROWS, "cpu", (8, 8))
    assert host_reads(made(name)) == few


class Interrupted(nn.Module):
    """Somebody presses Ctrl-C during its k-th tile."""

    def __init__(self, k: int):
        super().__init__()
        self.walk, self.calls, self.k, self.bars = rpm.LaplaceWalk(0.7).double(), 0, k, 0

    def forward(self, z, z_prime):
        self.calls += 1
        if self.calls == self.k:
            self.bars = len(tqdm.auto.tqdm._instances)
            raise KeyboardInterrupt
        return self.walk(z, z_prime)


@pytest.fixture
def visible_bars(monkeypatch):
    """Bars are made even where the environment disables them."""
    monkeypatch.setattr(_tiles, "tqdm", functools.partial(tqdm.auto.tqdm, disable=False))


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """That of the bars: it stands still, unless a test moves it."""
    seconds = [0.0]
    monkeypatch.setattr(tqdm.std, "time", lambda: seconds[0])
    return seconds


@pytest.mark.parametrize("k", [3, 4, 8, 13])  # after the two calls that are tried first, of 6 tiles forward, 6 backward
def test_an_interrupt_leaves_no_bar_and_no_switched_off_check_behind(k, visible_bars):
    (z, z_prime), critic = pairs(6), Interrupted(k)
    before = len(tqdm.auto.tqdm._instances)
    with pytest.raises(KeyboardInterrupt) as held:
        dataset_evidence(z, z_prime, critic, block=2).infonce.backward()
    assert held.tb is not None and critic.bars == before + 1
    assert len(tqdm.auto.tqdm._instances) == before
    with pytest.raises(ValueError, match="NaN"):
        critic.walk(z * math.nan, z_prime)
    agrees_with_the_dense_table(dataset_evidence, critic, z, z_prime, block=2)


def test_an_interrupt_between_strips_leaves_no_bar_behind(visible_bars, monkeypatch):
    (z, z_prime), before, seen = pairs(6), len(tqdm.auto.tqdm._instances), []

    class Interrupting(tqdm.auto.tqdm):
        def update(self, n=1):
            seen.append(len(tqdm.auto.tqdm._instances))
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt) as held:
        patch.setattr(_tiles, "tqdm", functools.partial(Interrupting, disable=False))
        patch.setitem(_tiles.STRIP_ROWS, "cpu", (1, 1))  # several strips: one alone has no bar
        dataset_evidence(z, z_prime, made("RandomWalk"))
    assert held.tb is not None and seen == [before + 1] and len(tqdm.auto.tqdm._instances) == before
    agrees_with_the_dense_table(dataset_evidence, made("RandomWalk"), z, z_prime)


@each_way
def test_no_progress_bar_is_drawn_for_what_takes_a_moment(way, visible_bars, clock, capsys):
    for name in ("RandomWalk", "Entangled"):
        way(*pairs(9), made(name)).infonce.backward()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["LaplaceWalk", "RandomWalk"])
def test_a_progress_bar_appears_after_two_seconds_and_disappears(name, visible_bars, clock, monkeypatch, capsys):
    def slow(call):
        return lambda *a, **options: clock.append(clock.pop() + 0.15) or call(*a, **options)

    critic, options, bars = made(name), {"block": 3}, ["evidence:", "its gradient:"]
    if name == "LaplaceWalk":
        critic.forward = slow(critic.forward)
    else:
        options, bars = {}, ["evidence and its gradient:"]
        monkeypatch.setitem(_tiles.STRIP_ROWS, "cpu", (1, 1))
        monkeypatch.setattr(torch, "addmm", slow(torch.addmm))
    dataset_evidence(*pairs(15), critic, **options).infonce.backward()  # 15 tiles or strips
    drawn = capsys.readouterr().err
    assert all(bar in drawn for bar in bars) and drawn.split("\r")[-1].strip() == ""


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_single_tile_makes_no_progress_bar_at_all(reduction, monkeypatch):
    """In a notebook each bar is a widget with messages of its own, shown or not."""
    disabled = []
    bar = tqdm.auto.tqdm
    monkeypatch.setattr(_tiles, "tqdm", lambda **options: disabled.append(options.get("disable")) or bar(**options))
    dataset_evidence(*pairs(20), made("RandomWalk"), reduction=reduction)
    assert disabled == [True]
