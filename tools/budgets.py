"""Budgets of time that hold on another machine and on a busy one, and how long what hangs is waited for.

A budget is in seconds of the processor on the machine that docs/run_times.csv comes from. A short calibration in this
process tells how many times slower this machine is now, since other programs slow a processor down too, by its caches;
what exceeds its budget is judged again by another calibration, since they may have come later.
"""

import json
import statistics
import time

import torch
from torch.nn import functional as F

HANG = 600  # seconds by the clock after which nothing comes any more: every time-out, and never a budget
REFERENCE = 0.15  # seconds of the processor that `work` takes on the machine of docs/run_times.csv
_calibrations: list[float] = []


def work() -> None:
    """What a kernel of this course does, in small: plain Python, many small tensors, and steps of a training."""
    rows = [{"name": f"row {i}", "values": [i / (j + 1) for j in range(20)]} for i in range(3000)]
    json.loads(json.dumps(sorted(rows, key=lambda row: -row["values"][7])))
    small = torch.linspace(-1, 1, 64, dtype=torch.float64).view(8, 8)
    for _ in range(10_000):
        small = (small @ small).log_softmax(1)
    x = torch.linspace(0, 1, 128 * 28 * 28).view(128, 1, 28, 28)
    weight, last = torch.linspace(-1, 1, 16 * 9).view(16, 1, 3, 3), torch.linspace(-1, 1, 16 * 8).view(8, 16)
    for _ in range(12):
        weight, last = weight.detach().requires_grad_(), last.detach().requires_grad_()
        z = F.linear(F.conv2d(x, weight).relu().mean((2, 3)), last)
        (z @ z.T).logsumexp(1).mean().backward()
        weight, last = weight - 0.01 * weight.grad, last - 0.01 * last.grad


def seconds(call, clock=time.process_time) -> float:
    start = clock()
    call()
    return clock() - start


def calibrate() -> float:
    """How many times slower than the reference this machine is now, at least 1."""
    return max(1.0, statistics.median(seconds(work) for _ in range(5)) / REFERENCE)


def exceeded(what: str, worked: float, limit: float) -> list[str]:
    """The complaint, if these seconds of the processor are more than the budget of `limit`."""
    if not _calibrations:
        _calibrations.append(calibrate())
    if worked > limit * max(_calibrations):
        _calibrations.append(calibrate())
    slower = max(_calibrations)
    if worked <= limit * slower:
        return []
    machine = f"(this machine is {slower:.2f} times slower than the reference)"
    return [f"{what} took {worked:.3g} s of {limit:g} s x {slower:.2f} {machine}"]


def wait_until(reached, nap: float = 0.1):
    """What `reached` returns, once it is true: whether it comes counts, and not when."""
    end = time.monotonic() + HANG
    while not (found := reached()):
        if time.monotonic() > end:
            raise TimeoutError(f"still waiting after {HANG} s")
        time.sleep(nap)
    return found
