"""A step that is interrupted, wherever: by Ctrl-C, for want of memory, half-way through the optimiser. It happens whole, or
not at all, so that a training that goes on is that of one never interrupted, bit for bit."""

import itertools
import sys

import pytest
import torch
from dashboards import equal
from torch import nn
from trainings import digit_pairs

import rpm_tutorial as rpm
from rpm_tutorial import checkpoints, datasets, training


class RunningMean(nn.Module):
    """A buffer that each call replaces, as batch norm's are written in place."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, z):
        self.mean = 0.9 * self.mean + 0.1 * z.detach().mean(0)
        return z


def a_training() -> rpm.Trainer:
    """With whatever a step may leave behind: batch norm, buffers of one's own, dropout."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), RunningMean(), nn.Dropout(0.2))
    return rpm.Trainer(encoder, rpm.VonMisesFisher(0.2), digit_pairs(), 3)


def end(found: rpm.Trainer) -> dict:
    list(found)
    return {**found.state_dict(), "chance": torch.get_rng_state()}


def interrupted_at(number: int, call) -> bool:
    """Call, and press Ctrl-C before the line of this number, of those that it runs in these modules; False if there is none."""
    files, lines = {module.__file__ for module in (training, datasets, checkpoints)}, iter(range(number))

    def on_line(frame, event, _argument):
        if event == "line" and next(lines, None) is None:
            raise KeyboardInterrupt
        return on_line

    before = sys.gettrace()  # coverage's, which goes on afterwards
    sys.settrace(lambda frame, event, _argument: on_line if frame.f_code.co_filename in files else None)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("stride", [13, pytest.param(1, marks=pytest.mark.nightly)])
def test_a_training_interrupted_before_any_line_goes_on_as_one_that_was_not(stride):
    expected, number, found = end(a_training()), 0, a_training()
    while found.advance() and interrupted_at(number, found.advance):
        assert equal(end(found), expected), f"line {number}"
        number, found = number + stride, a_training()
    assert number > 60


@pytest.mark.parametrize("steps_before", [0, 1])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, ValueError], ids=str)
def test_an_optimiser_that_fails_half_way_leaves_all_as_it_was(error, steps_before, monkeypatch):
    found, calls, plain = a_training(), itertools.count(1), torch.Tensor.addcdiv_
    for _ in range(steps_before):
        found.advance()
    before, chance = found.state_dict(), torch.get_rng_state()

    def fail(*arguments, **options):
        if next(calls) == 3:
            raise error("too little memory")
        return plain(*arguments, **options)

    with monkeypatch.context() as patched, pytest.raises(error):
        patched.setattr(torch.Tensor, "addcdiv_", fail)
        found.advance()
    after = found.state_dict()
    assert ("batch" in after) == (error is not ValueError), "a batch that is refused is left out"
    assert all(equal(after[name], before[name]) for name in before if name not in ("pairs", "seconds"))
    assert torch.equal(torch.get_rng_state(), chance)
    if error is not ValueError:  # a state of this moment goes on with the batch that was drawn
        fresh = a_training()
        fresh.load_state_dict(after)
        torch.set_rng_state(chance)  # dropout's, which is the caller's
        found_end = end(found)
        torch.set_rng_state(chance)
        assert equal(end(fresh), found_end)
