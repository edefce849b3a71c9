"""A data set over two processes: the numbers and gradients of one, and an error where one of them is lost.

What they do is in tests/ranks.py. Two threads play the arithmetic; real processes talk over the loopback interface.
"""

import json
import os
import socket
import subprocess
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import ranks
import torch
import torch.distributed as dist
from budgets import HANG

from rpm_tutorial import _tiles, dataset_evidence, distributed

SCRIPT = str(Path(ranks.__file__).resolve())
LOOPBACK = {
    "MASTER_ADDR": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), ""),
}
# The store at MASTER_PORT is ours, on a port that the system has given us: no process hosts it, so none takes it along.
STORE = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}


def store() -> dist.TCPStore:
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=HANG))


def started(*command: str, **variables: str) -> subprocess.Popen:
    environment = os.environ | LOOPBACK | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | variables
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, *command], env=environment, text=True, **pipes)


def ended(*processes: subprocess.Popen) -> list[tuple[int, str, str]]:
    """Exit status, output and errors of each; torchrun takes its processes along."""
    try:
        said = [process.communicate(timeout=HANG) for process in processes]
    finally:
        for process in processes:
            process.terminate()
    return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]


# Two against one


@pytest.mark.parametrize("scene", ranks.SCENES, ids=lambda scene: scene.__name__)
def test_two_threads_find_what_one_finds(on_two_threads, scene, tmp_path, monkeypatch):
    monkeypatch.setitem(_tiles.STRIP_ROWS, "cpu", (32, 32))  # several strips of each rank's rows
    ways = {"ways": ["RandomWalk", "LaplaceWalk by tiles"]} if scene is ranks.evidence else {}
    on_two_threads(partial(scene, folder=tmp_path, **ways))


@pytest.mark.slow
def test_two_processes_find_what_one_finds(tmp_path):
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2")
    ((status, _, errors),) = ended(started(*torchrun, SCRIPT, "agree", str(tmp_path)))
    assert status == 0, errors


# One process is lost


def says_how_to_go_on(message: str) -> None:
    for part in ("process 0 of 2 got no answer from another process", "expected every", "raise the timeout"):
        assert part in message


def test_the_error_says_that_a_process_is_lost_and_how_to_go_on(on_two_threads, monkeypatch):
    def met(group):
        z, z_prime = ranks.leaves(ranks.pairs())
        if group.rank() == 1:
            return None
        monkeypatch.setattr(dist, "all_reduce", lost)
        with pytest.raises(RuntimeError) as error:
            dataset_evidence(z, z_prime, ranks.rpm.RandomWalk().double(), group=group)
        return str(error.value)

    def lost(tensor, group):
        raise RuntimeError("connection closed by peer")

    says_how_to_go_on(on_two_threads(met)[0])


@pytest.mark.nightly
def test_a_process_whose_partner_is_lost_raises_and_waits_no_longer_than_it_has_to():
    stores = [store() for _ in ranks.LOSSES]
    ports = [str(one.port) for one in stores]
    both = (started(SCRIPT, "lose", *ports, **STORE, RANK=rank, WORLD_SIZE="2") for rank in "01")
    (status, first, errors), (death, second, _) = ended(*both)
    assert (status, death) == (0, ranks.DEATH), errors
    first, second = ([json.loads(line) for line in output.splitlines()] for output in (first, second))
    assert [scene for scene, *_ in first] == list(ranks.LOSSES)
    for scene, message, seconds, still_there in first:
        says_how_to_go_on(message)
        assert (seconds >= ranks.SHORT) == (scene == "sleeps") and seconds < ranks.LONG / 2 and not still_there
    _, message, _, still_there = second[0]
    assert "z contains NaN (303 of 303" in message and not still_there


# The group


@pytest.fixture
def started_by_torchrun(monkeypatch):
    """This process as the only one that torchrun has started, on a machine without a GPU."""
    server = store()
    variables = LOOPBACK | STORE | {"RANK": "0", "WORLD_SIZE": "1", "MASTER_PORT": str(server.port)}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    yield
    del server


def test_the_group_is_left_at_the_end_and_after_an_exception(started_by_torchrun):
    with pytest.raises(KeyError, match="mine"), distributed.process_group() as group:
        assert (group.rank(), group.size(), dist.get_backend(group)) == (0, 1, "gloo")
        raise KeyError("mine")
    assert not dist.is_initialized()


def test_without_torchrun_the_error_names_what_is_missing_and_the_command(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
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
