"""A step that is interrupted, wherever: by Ctrl-C, for want of memory, half-way through the optimiser. It happens whole, or
not at all, so that a training that goes on is that of one never interrupted, bit for bit."""

import sys
from contextlib import suppress

import pytest
import torch
from dashboards import equal
from torch import nn
from trainings import digit_pairs

import rpm_tutorial as rpm
from rpm_tutorial import checkpoints, datasets, training


class Counted(nn.Module):
    """Buffers of three kinds: written in place, replaced at each call, and one that none may write to."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("all_alike", torch.ones(1).expand(8))

    def forward(self, z):
        self.seen += 1
        self.mean = 0.9 * self.mean + 0.1 * z.detach().mean(0)
        return z * self.all_alike


def a_training(pairs=None) -> rpm.Trainer:
    """With whatever a step may leave behind: batch norm, buffers of one's own, dropout."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), Counted(), nn.Dropout(0.2))
    return rpm.Trainer(encoder, rpm.VonMisesFisher(0.2), digit_pairs() if pairs is None else pairs, 4)


def tensor_pairs():
    x = datasets.digits().x
    return datasets.tensor_pairs(x, x.flip(3), 64)


def end(found: rpm.Trainer) -> dict:
    list(found)
    return {**found.state_dict(), "chance": torch.get_rng_state()}


class Stop(KeyboardInterrupt):
    """Ctrl-C at a line of our choice."""


def interrupted_at(number: int, call) -> bool:
    """Call, and raise before the line of this number, of those that it runs in these modules; False if there is none."""
    files, lines = {module.__file__ for module in (training, datasets, checkpoints)}, iter(range(number))

    def on_line(frame, event, _argument):
        if event == "line" and next(lines, None) is None:
            raise Stop
        return on_line

    sys.settrace(lambda frame, event, _argument: on_line if frame.f_code.co_filename in files else None)
    try:
        call()
    except Stop:
        return True
    finally:
        sys.settrace(None)
    return False


@pytest.mark.parametrize("pairs", [digit_pairs, tensor_pairs])
def test_a_training_interrupted_before_any_line_goes_on_as_one_that_was_not(pairs):
    expected, number, moments = end(a_training(pairs())), 0, 0
    while True:
        found = a_training(pairs())
        found.advance()
        if not interrupted_at(number, found.advance):
            break
        moments += 1
        assert equal(end(found), expected), f"line {number}"
        number += 4 if number < 40 else 11
    assert moments > 15


HALF_WAY = {"the first step": 0, "a later one": 2}


@pytest.mark.parametrize("moment", HALF_WAY)
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, torch.OutOfMemoryError, ValueError], ids=str)
def test_an_optimiser_that_fails_half_way_leaves_all_as_it_was(error, moment, monkeypatch):
    found, calls = a_training(), []
    for _ in range(HALF_WAY[moment]):
        found.advance()
    before, chance = found.state_dict(), torch.get_rng_state()
    plain = torch.Tensor.addcdiv_

    def fail(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise error("too little memory")
        return plain(*arguments, **options)

    with monkeypatch.context() as patched, pytest.raises(error):
        patched.setattr(torch.Tensor, "addcdiv_", fail)
        found.advance()
    after = found.state_dict()
    assert ("batch" in after) == (error is not ValueError), "a batch that is refused is left out"
    assert all(equal(after[name], before[name]) for name in before if name not in ("pairs", "seconds"))
    assert torch.equal(torch.get_rng_state(), chance)


def test_a_state_saved_after_an_interrupt_holds_the_batch_that_was_drawn(tmp_path, monkeypatch):
    expected, found, fresh = end(a_training()), a_training(), a_training()
    found.advance()
    with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
        patched.setattr(found._optimiser, "step", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        found.advance()
    found.save(tmp_path / "kept")
    chance = torch.get_rng_state()
    fresh.advance(), fresh.advance()
    fresh.load(tmp_path / "kept")
    torch.set_rng_state(chance)  # dropout's, which is the caller's
    assert fresh.step == 1 and equal(end(fresh), expected)


def test_pairs_interrupted_while_they_make_a_batch_give_it_again(monkeypatch):
    for pairs in (digit_pairs(), tensor_pairs()):
        expected = [next(type(pairs).__iter__(pairs)) for _ in range(2)]
        again = digit_pairs() if hasattr(pairs, "strength") else tensor_pairs()
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(torch.Tensor, "__getitem__", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            next(again)
        for one, other in zip(expected, [next(again), next(again)], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
