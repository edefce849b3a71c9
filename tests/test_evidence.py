"""dataset_evidence: (E14) without the N x N table, equal to it in value and gradients, for any critic, N and way."""

import functools
import math

import pytest
import torch
import tqdm.auto
from evidence_cases import agrees_with_the_table, each_critic, each_way, made, pairs
from residuals import agree
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import rpm_tutorial as rpm
from rpm_tutorial import _tiles, dataset_evidence, evidence

LABELS = torch.tensor([3, 1, 3, 0, 1, 3, 3, 0, 3, 7])  # of unequal sizes; one label has one pair
QUEUE = pairs(54)[0].detach()[:4].requires_grad_()
KINDS = {
    "rows": {},
    "columns": {"normalise": "columns"},
    "both": {"normalise": "both"},
    "NT-Xent's views": {"normalise": "views"},
    "a queue": {"candidates": QUEUE},
    "labels": {"labels": LABELS},
    "labels, columns": {"labels": LABELS, "normalise": "columns"},
    "labels, both": {"labels": LABELS, "normalise": "both"},
    "labels and a queue": {"labels": LABELS, "candidates": QUEUE},
    "SupCon's views": {"labels": LABELS, "normalise": "views"},
}


@each_critic
@each_way
@pytest.mark.parametrize("kind", KINDS)
def test_value_and_all_gradients_are_those_of_the_whole_table(kind, way, name):
    critic = made(name, reach=100 if "abels" in kind or "SupCon" in kind else 1.5)  # a partner is never forbidden
    agrees_with_the_table(way, critic, *pairs(len(LABELS)), **KINDS[kind])


@pytest.mark.parametrize("n, block", [(1, 4), (8, 4), (9, 16), (13, 1)])
def test_tiles_of_any_size_give_the_same(n, block):
    in_tiles = functools.partial(dataset_evidence, block=block)
    for options in ({"normalise": "both"}, {"normalise": "views"}, {"labels": torch.arange(n) % 3}):
        agrees_with_the_table(in_tiles, made("LaplaceWalk"), *pairs(n), **options)


def test_it_is_the_objective_of_the_whole_table():
    critic, (z, z_prime) = made("Entangled"), pairs(len(LABELS))
    log_f, wide = critic(z, z_prime), critic(z, torch.cat([z_prime, QUEUE]))
    same = (LABELS[:, None] == LABELS).double()
    q = same / same.sum(1, keepdim=True) / len(LABELS)  # 1/N for each row, in equal parts for its partners
    uniform = torch.full((14,), 1 / 14, dtype=q.dtype)
    for kind, objective in {
        "rows": rpm.infonce(log_f),
        "columns": rpm.infonce(log_f.T),
        "both": rpm.symmetric_infonce(log_f),
        "a queue": rpm.infonce(wide),
        "labels": rpm.infonce(log_f, q),
        "labels, both": rpm.symmetric_infonce(log_f, q),
        "labels and a queue": rpm.infonce(wide, F.pad(q, (0, 4)), q_z_prime=uniform),
    }.items():
        found = dataset_evidence(z, z_prime, critic, **KINDS[kind])
        agree("(E14) = the objective of the table", found.value, objective.value)
        assert found.objective == ("symmetric_infonce" if "both" in kind else "infonce")


def test_an_evidence_of_both_sides_refuses_to_be_called_infonce():
    both = dataset_evidence(*pairs(6), made("Entangled"), normalise="both")
    with pytest.raises(AttributeError, match="take .value for the symmetric objective"):
        both.infonce  # noqa: B018


@each_way
@pytest.mark.parametrize("name", ["RandomWalk", "LaplaceWalk"])
def test_what_alone_needs_a_gradient_gets_it(name, way):
    critic, both = made(name), pairs(7)
    inputs = [*both, *critic.parameters()]
    for chosen in inputs[:3]:
        for tensor in inputs:
            tensor.requires_grad_(tensor is chosen)
        agrees_with_the_table(way, critic, *both, normalise="both")


@each_way
@pytest.mark.parametrize("name", ["Entangled", "RandomWalk"])
def test_a_second_derivative_is_refused_and_a_second_backward_is_the_first(name, way):
    """A gradient penalty beside the loss: without the refusal, only the penalty's gradient would be missing."""
    (z, z_prime), critic = pairs(7), made(name)
    value = way(z, z_prime, critic).infonce
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(value, z, create_graph=True)
    first, second = (torch.autograd.grad(value, [z, z_prime], retain_graph=True) for _ in range(2))
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("inner_product", [False, True])
def test_a_tile_on_a_gpu_takes_a_small_part_of_its_free_memory(inner_product, monkeypatch):
    for free, block in {2**20: 128, 2**30: 1448, 2**32: 2896, 2**40: 4096}.items():
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 2**41))
        assert _tiles.block_for(torch.device("cuda"), inner_product=inner_product) == block


class Watch(TorchDispatchMode):
    """Counts how often the program waits for a number, which stops a GPU's queue, and the entries of the largest tensor."""

    reads = largest = 0

    def __torch_dispatch__(self, call, types, args=(), kwargs=None):
        self.reads += call.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero)
        found = call(*args, **(kwargs or {}))
        self.largest = max(self.largest, found.numel() if isinstance(found, torch.Tensor) else 0)
        return found


@pytest.mark.parametrize("name", ["RandomWalk", "Entangled"])
def test_it_holds_no_more_than_a_tile_or_strip_and_reads_no_number_in_it(name, monkeypatch):
    def watched(**options) -> Watch:
        with Watch() as found:
            dataset_evidence(*pairs(60), made(name), **options).infonce.backward()
        return found

    one, many, whole = watched(block=60), watched(block=3), watched()
    assert 0 < one.reads == many.reads < 20 and many.largest < 1000 < 60 * 60 <= one.largest
    monkeypatch.setitem(_tiles.STRIP_ROWS, "cpu", (6, 6))
    cut = watched()
    assert cut.reads == whole.reads and (name == "Entangled" or cut.largest < 1000)


@pytest.fixture
def bars(monkeypatch):
    """The progress bars of evidence and sampled_evidence, made even where the environment disables them."""
    for module in (_tiles, evidence):
        monkeypatch.setattr(module, "tqdm", functools.partial(tqdm.auto.tqdm, disable=False))
    return tqdm.auto.tqdm._instances


@pytest.mark.parametrize("k", [3, 13])  # after two calls that are tried first: of 6 tiles forward, 6 backward
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
