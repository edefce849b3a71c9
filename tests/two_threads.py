"""Threads in the place of processes, which start at once: the arithmetic of a group, without the network."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.distributed as dist
from budgets import HANG


class Rank:
    """What the library asks of a process group, played by one of several threads that exchange tensors in memory."""

    def __init__(self, rank: int, held: list, barrier: threading.Barrier):
        self.held, self.barrier = held, barrier
        self.rank, self.size = lambda: rank, lambda: len(held)

    def exchange(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        self.held[self.rank()] = tensor.detach().clone()
        self.barrier.wait()
        everyones = list(self.held)
        self.barrier.wait()
        return everyones


@pytest.fixture
def on_two_threads(monkeypatch):
    """A function that calls `action(group)` on two threads and returns what they returned."""

    def all_reduce(tensor, group):
        tensor.copy_(sum(group.exchange(tensor)))

    def all_gather(everywhere, tensor, group):
        for place, found in zip(everywhere, group.exchange(tensor), strict=True):
            place.copy_(found)

    def broadcast(tensor, source, group):
        tensor.copy_(group.exchange(tensor)[source])

    for function in (all_reduce, all_gather, broadcast):
        monkeypatch.setattr(dist, function.__name__, function)
    monkeypatch.setattr(dist, "get_global_rank", lambda group, rank: rank)

    def run(action) -> list:
        held, barrier = [None, None], threading.Barrier(2, timeout=HANG)

        def guarded(rank: int):
            try:
                return action(Rank(rank, held, barrier))
            except BaseException:
                barrier.abort()  # or the other would wait
                raise

        with ThreadPoolExecutor(2) as pool:
            return [*pool.map(guarded, range(2))]

    return run
