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
import ranks_own
import torch
import torch.distributed as dist
from budgets import HANG

import rpm_tutorial as rpm
from rpm_tutorial import distributed

SCRIPT = str(Path(ranks.__file__).resolve())
LOOPBACK = {
    "MASTER_ADDR": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), ""),
}
# The store at MASTER_PORT is ours, on a port that the system has given us: no process hosts it, so none takes it along.
STORE = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}


def store() -> dist.TCPStore:
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=HANG))


def run(folder: Path, *commands: list[str], **variables: list[str]) -> list[tuple[int, str]]:
    """Run the commands beside each other, each with its own variables: exit status and stderr of each."""
    processes, environment = [], os.environ | LOOPBACK | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    errors = [folder / f"{i}.err" for i in range(len(commands))]
    try:
        for i, command in enumerate(commands):
            own = {name: values[i] for name, values in variables.items()}
            with errors[i].open("w") as err:
                processes.append(subprocess.Popen(command, env=environment | own, stderr=err))
        statuses = [process.wait(HANG) for process in processes]
    finally:
        for process in processes:
            process.terminate()  # torchrun takes its processes along
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    return [(status, error.read_text()) for status, error in zip(statuses, errors, strict=True)]


# Two against one


@pytest.mark.parametrize("scene", ranks.SCENES)
def test_two_threads_find_what_one_finds(on_two_threads, scene):
    ways = {"ways": ["RandomWalk", "LaplaceWalk by tiles"]} if scene == "evidence" else {}
    on_two_threads(partial(ranks.SCENES[scene], **ways))


@pytest.mark.slow
def test_two_processes_find_what_one_finds(tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    ((status, err),) = run(tmp_path, [*torchrun, "--nproc-per-node", "2", SCRIPT, "agree"])
    assert status == 0, err


def test_every_process_saves_and_rank_0_writes_what_all_of_them_load(on_two_threads, tmp_path):
    path = tmp_path / "run.pt"

    def stopped_and_continued(group):
        whole, first, second = (ranks_own.trainer(group) for _ in range(3))
        expected = [row.value for row in whole]
        [first.advance() for _ in range(2)]
        first.save(path)
        second.load(path)
        assert expected[2:] == [row.value for row in second]
        statistics = zip(whole.encoder.buffers(), second.encoder.buffers(), strict=True)
        assert all(torch.equal(*both) for both in statistics), "batch norm saw its own rows"

    on_two_threads(stopped_and_continued)
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]
    assert len(rpm.load_checkpoint(path)["processes"]) == 2


# One process is lost


def lost(folder: Path, scenes: list[str]) -> list[dict[str, dict]]:
    """What each of two processes met, by scene."""
    meeting, stores = store(), [store() for _ in scenes]
    command = [sys.executable, SCRIPT, "lose", str(meeting.port)]
    command += [f"{scene}={one.port}" for scene, one in zip(scenes, stores, strict=True)]
    ended = run(folder, command, command, **{k: [v] * 2 for k, v in STORE.items()}, RANK="01", WORLD_SIZE="22")
    expected = (0, ranks.DEATH if "dies" in scenes else 0)
    errors = "\n".join(f"rank {rank}: {err}" for rank, (_, err) in enumerate(ended))
    assert tuple(status for status, _ in ended) == expected, errors
    known = {(scene, rank): f"{scene}, {rank}" for scene in scenes for rank in range(2)}
    found = {place: json.loads(meeting.get(key)) for place, key in known.items() if meeting.check([key])}
    return [{scene: found.get((scene, rank)) for scene in scenes} for rank in range(2)]


def got_no_answer(outcome: dict) -> None:
    assert outcome["error"] == "RuntimeError" and outcome["left"], outcome
    for part in ("process 0 of 2 got no answer from another process", "expected every", "raise the timeout"):
        assert part in outcome["message"]
    assert outcome["seconds"] < ranks.LONG / 2


@pytest.mark.slow
def test_a_process_whose_partner_leaves_or_dies_raises_at_once(tmp_path):
    first, _ = lost(tmp_path, ["leaves before the gradient", "dies"])
    for outcome in first.values():
        got_no_answer(outcome)


@pytest.mark.nightly
def test_a_process_says_why_it_is_lost_and_the_other_waits_no_longer_than_it_has_to(tmp_path):
    first, second = lost(tmp_path, ["has NaN among its rows", "sleeps"])
    for outcome in first.values():
        got_no_answer(outcome)
    assert first["sleeps"]["seconds"] >= ranks.SHORT
    found = second["has NaN among its rows"]
    assert found["error"] == "ValueError" and "z contains NaN (3 of 303" in found["message"] and found["left"]


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
