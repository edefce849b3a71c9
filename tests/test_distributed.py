"""A data set over two processes: the numbers and gradients of one, and an error where one of them is lost.

What they do is in tests/ranks.py. Two threads play the arithmetic; real processes talk over the loopback interface.
"""

import os
import socket
import subprocess
import sys
from datetime import timedelta
from functools import partial

import pytest
import ranks
import torch
import torch.distributed as dist
from budgets import HANG

from rpm_tutorial import _tiles, distributed

LOOPBACK = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), "")


@pytest.mark.parametrize("scene", ranks.SCENES, ids=lambda scene: scene.__name__)
def test_two_threads_find_what_one_finds(on_two_threads, scene, tmp_path, monkeypatch):
    monkeypatch.setitem(_tiles.STRIP_ROWS, "cpu", (32, 32))  # several strips of each rank's rows
    on_two_threads(partial(scene, folder=tmp_path))


@pytest.mark.slow
def test_two_processes_find_what_one_finds_and_one_that_is_left_alone_says_so(tmp_path):
    own = {"GLOO_SOCKET_IFNAME": LOOPBACK, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    torchrun = ["torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2"]
    command = [sys.executable, "-m", *torchrun, ranks.__file__, str(tmp_path)]
    run = subprocess.run(command, env=os.environ | own, timeout=HANG, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.fixture
def started_by_torchrun(monkeypatch):
    """This process as the only one that torchrun has started, on a machine without a GPU."""
    alone = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    for name, value in (alone | {"GLOO_SOCKET_IFNAME": LOOPBACK}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_the_group_is_left_at_the_end_and_after_an_exception(started_by_torchrun):
    with pytest.raises(KeyError, match="mine"), distributed.process_group() as group:
        assert (group.rank(), group.size(), dist.get_backend(group)) == (0, 1, "gloo")
        raise KeyError("mine")
    assert not dist.is_initialized()


def test_without_torchrun_the_error_names_what_is_missing_and_the_command(started_by_torchrun, monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name)
    expected = r"^MASTER_ADDR, MASTER_PORT not set .*torchrun --standalone --nproc-per-node 2"
    with pytest.raises(RuntimeError, match=expected), distributed.process_group():
        pass


def test_processes_with_gpus_take_their_own_and_talk_by_nccl(started_by_torchrun, monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", calls.append)
    monkeypatch.setattr(dist, "init_process_group", lambda backend, timeout: calls.append((backend, timeout)))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: calls.append("left"))
    monkeypatch.setenv("LOCAL_RANK", "3")
    with distributed.process_group(timeout=7):
        pass
    assert calls == [3, ("nccl", timedelta(seconds=7)), "left"]
