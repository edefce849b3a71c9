"""A data set over two processes: the numbers and gradients of one, and an error where one of them is lost.

The processes run tests/ranks.py and exchange their rows over the loopback interface. No test waits without a limit.
"""

import json
import os
import random
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from datetime import timedelta
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import ranks
import torch
import torch.distributed as dist
from budgets import HANG
from residuals import agree

from rpm_tutorial import dataset_evidence, distributed, train

SCRIPT = str(Path(ranks.__file__).resolve())
LOOPBACK = {
    "MASTER_ADDR": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), ""),
}
LIMIT = HANG  # for both processes; those that were cut short end earlier, by their own time-out


def free_ports(n: int) -> list[str]:
    """Ports below those that the system hands out by itself: no server of another test may take one before it is used."""
    ports = []
    with ExitStack() as stack:  # all open at once, so that all differ
        while len(ports) < n:
            port, one = random.randrange(10_000, 32_768), stack.enter_context(socket.socket())
            with suppress(OSError):  # another program has it
                one.bind(("127.0.0.1", port))
                ports.append(str(port))
    return ports


def run(folder: Path, *commands: list[str], **variables: list[str]) -> list[tuple[int, str, str]]:
    """Run the commands beside each other, each with its own variables: exit status, stdout and stderr of each."""
    processes, environment = [], os.environ | LOOPBACK | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    try:
        for i, command in enumerate(commands):
            own = {name: values[i] for name, values in variables.items()}
            with (folder / f"{i}.out").open("w") as out, (folder / f"{i}.err").open("w") as err:
                processes.append(subprocess.Popen(command, env=environment | own, stdout=out, stderr=err))
        for process in processes:
            process.wait(LIMIT)
    finally:
        for process in processes:
            process.terminate()  # torchrun takes its processes along
        for process in processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    read = [[(folder / f"{i}.{end}").read_text() for end in ("out", "err")] for i in range(len(commands))]
    return [(process.returncode, *texts) for process, texts in zip(processes, read, strict=True)]


# two processes against one


@pytest.fixture(scope="module")
def agreement(tmp_path_factory) -> dict[str, list[float]]:
    """The residuals of both processes by name."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command = [*torchrun, "--nproc-per-node", "2", SCRIPT, "agree"]
    ((status, out, err),) = run(tmp_path_factory.mktemp("agree"), command)
    assert status == 0, err
    return json.loads(out)


def agree_on(agreement: dict, case: str, *quantities: str, what: str, tolerance: float) -> None:
    for quantity in quantities:
        agree(f"{what}: {quantity}", agreement[f"{case}: {quantity}"], [0, 0], tolerance=tolerance)


each_share = pytest.mark.parametrize("share", ranks.SHARES)


@pytest.mark.slow
@each_share
def test_gather_gives_every_process_all_rows_and_each_row_the_gradients_of_all(agreement, share):
    quantities = [f"{what}, {share}" for what in ("rows", "place", "gradient")]
    agree_on(agreement, "gather", *quantities, what="gather", tolerance=1e-15)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "gather: in a group without rank 0",
        "gather: other columns are refused",
        "gather: other dtypes are refused",
        "mean_over_ranks: value",
        "mean_over_ranks: mean of the gradients",
        "average_gradients: the mean",
        "broadcast_parameters: rank 0's",
    ],
)
def test_processes_share_what_they_hold(agreement, name):
    agree(name, agreement[name], [0, 0], tolerance=1e-15)


@pytest.mark.slow
@pytest.mark.parametrize("normalise", ranks.NORMALISE)
@pytest.mark.parametrize(
    "dtype, way, share",
    [(dtype, *both) for dtype, (ways, shares) in ranks.PRECISIONS.items() for both in product(ways, shares)],
)
def test_two_processes_find_the_evidence_and_the_gradients_of_one(agreement, dtype, way, normalise, share):
    case, low = f"{dtype}, {way}, {normalise}, {share}", dtype == torch.float32
    what = f"two processes = one, {dtype}"
    values = ("value", "value under no_grad", "each row")
    agree_on(agreement, case, *values, what=what, tolerance=1e-6 if low else 1e-12)
    # relative to the largest gradient, which is about 1/100 here
    gradients = [f"gradient of {of}" for of in ("z", "z'", "the critic", "the rows' sum")]
    agree_on(agreement, case, *gradients, what=what, tolerance=1e-5 if low else 1e-12)


@pytest.mark.slow
@each_share
@pytest.mark.parametrize("around", ["around the encoder", "around both", "by hand"])
def test_data_parallel_gradients_are_those_of_one_process(agreement, around, share):
    """Neither twice nor half of them, whether DDP or `average_gradients` takes the mean."""
    quantities = ("value", "gradient of the encoder", "gradient of the critic")
    case = f"DistributedDataParallel {around}"
    agree_on(agreement, f"{case}, {share}", *quantities, what=case, tolerance=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("shares", ["equal", "unequal"])
@pytest.mark.parametrize("objective", ranks.OBJECTIVES)
def test_two_processes_train_as_one_does_with_both_their_batches(agreement, objective, shares):
    """From rank 0's parameters, whatever the other started from."""
    case = f"training by {objective}, {shares} shares"
    quantities = ("value at each step", "parameters at the end")
    agree_on(agreement, case, *quantities, what="training by two processes", tolerance=1e-12)
    assert agreement[f"{case}: the same on both processes"] == [0, 0]


@pytest.mark.slow
def test_processes_whose_critics_drop_different_latents_stay_equal(agreement):
    assert agreement["training with dropout: the same on both processes"] == [0, 0]


@pytest.mark.slow
def test_what_is_each_process_s_own_is_kept_compared_or_refused(agreement):
    own = {name: found for name, found in agreement.items() if name.startswith("own: ")}
    assert own
    for name, found in own.items():
        agree(name, found, [0, 0], tolerance=1e-12)


# one process is lost


@pytest.fixture(scope="module")
def losses(tmp_path_factory) -> list[dict]:
    """What each of two processes met, by scene."""
    command, folder = (
        [sys.executable, SCRIPT, "lose", *free_ports(1 + len(ranks.SCENES))],
        tmp_path_factory.mktemp("lose"),
    )
    (first, out, err), (second, other_out, other_err) = run(
        folder, command, command, RANK=["0", "1"], WORLD_SIZE=["2", "2"]
    )
    assert (first, second) == (0, ranks.DEATH), f"rank 0: {err}\nrank 1: {other_err}"
    outcomes = [[json.loads(line) for line in lines.splitlines()] for lines in (out, other_out)]
    return [{outcome["scene"]: outcome for outcome in of_one} for of_one in outcomes]


def waited_in_vain(outcome: dict, rank: int = 0) -> None:
    assert outcome["error"] == "RuntimeError" and outcome["cause"] != "NoneType", outcome
    for part in (f"process {rank} of 2 waited for another in vain", "expected every", "raise the time-out"):
        assert part in outcome["message"]
    assert outcome["left"]


@pytest.mark.slow
@pytest.mark.parametrize("scene", [scene for scene in ranks.SCENES if scene.startswith(("leaves", "dies"))])
def test_a_process_whose_partner_is_gone_raises_at_once(losses, scene):
    rank = 1 if scene == "leaves before the broadcast" else 0
    waited_in_vain(losses[rank][scene], rank)
    assert losses[rank][scene]["seconds"] < ranks.LONG / 2


@pytest.mark.slow
def test_a_process_whose_partner_sleeps_raises_after_the_time_out(losses):
    outcome = losses[0]["sleeps until the other gives up"]
    waited_in_vain(outcome)
    assert ranks.SHORT <= outcome["seconds"] < ranks.LONG / 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "scene, message",
    [("has NaN among its rows", "z contains NaN (3 of 303"), ("runs out of batches", "pairs ended after 1 batches")],
)
def test_a_process_that_fails_says_why_and_the_other_does_not_wait_for_it(losses, scene, message):
    waiting, failed = (found[scene] for found in losses)
    assert failed["error"] == "ValueError" and message in failed["message"] and failed["left"]
    waited_in_vain(waiting)
    assert waiting["seconds"] < ranks.LONG / 2


@pytest.mark.slow
def test_latents_of_nan_end_the_training_of_every_process_with_their_step(losses):
    for found, side in zip(losses, ("z", "x")):  # the other's latents, and one's own data
        outcome = found["trains on NaN"]
        assert outcome["error"] == "ValueError" and outcome["message"].startswith(f"step 2: {side} contains NaN"), (
            outcome
        )
        assert outcome["left"]


# the group


@pytest.fixture
def started_by_torchrun(monkeypatch) -> None:
    """This process as the only one that torchrun has started, on a machine without a GPU."""
    variables = LOOPBACK | {"RANK": "0", "WORLD_SIZE": "1", "MASTER_PORT": free_ports(1)[0]}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_the_group_is_left_at_the_end(started_by_torchrun):
    with distributed.process_group() as group:
        assert dist.is_initialized() and (group.rank(), group.size()) == (0, 1)
        assert dist.get_backend(group) == "gloo"
        rows = torch.randn(4, 2, requires_grad=True)
        everywhere, first, n = distributed.gather(rows, group)
        assert torch.equal(everywhere, rows) and (first, n) == (0, 4)
    assert not dist.is_initialized()


def test_the_group_is_left_after_an_exception_which_goes_on(started_by_torchrun):
    with pytest.raises(KeyError, match="mine"), distributed.process_group():
        raise KeyError("mine")
    assert not dist.is_initialized()


@pytest.mark.parametrize(
    "missing", [["RANK"], ["MASTER_ADDR", "MASTER_PORT"], ["RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"]]
)
def test_without_torchrun_the_error_names_what_is_missing_and_the_command(started_by_torchrun, monkeypatch, missing):
    for name in missing:
        monkeypatch.delenv(name)
    expected = rf"^{', '.join(missing)} not set .*torchrun --standalone --nproc-per-node 2"
    with pytest.raises(RuntimeError, match=expected), distributed.process_group():
        pass
    assert not dist.is_initialized()


@pytest.mark.parametrize("local_rank, device", [("3", 3), (None, 0)])
def test_processes_with_gpus_take_their_own_and_talk_by_nccl(started_by_torchrun, monkeypatch, local_rank, device):
    calls = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", calls.append)
    monkeypatch.setattr(dist, "init_process_group", lambda backend, timeout: calls.append((backend, timeout)))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: calls.append("left"))
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    with distributed.process_group(timeout=7):
        pass
    assert calls == [device, ("nccl", timedelta(seconds=7)), "left"]


def test_without_a_group_a_process_is_on_its_own():
    rows = torch.randn(4, 2)
    everywhere, first, n = distributed.gather(rows, None)
    assert everywhere is rows and (first, n) == (0, 4)
    assert distributed.mean_over_ranks(rows, None) is rows


# on two threads, which start at once: the arithmetic, without the network


@pytest.mark.parametrize("way", ["RandomWalk", "LaplaceWalk by tiles"])
def test_the_evidence_and_the_gradients_of_two_halves_are_those_of_the_whole(on_two_threads, way):
    make, options = ranks.WAYS[way]

    def compare(group) -> dict[str, float]:
        residual, critic = ranks.Residuals(), make().double()
        of = partial(dataset_evidence, critic=critic, normalise="both", **options)
        ranks.two_agree_with_one(residual, way, ["60 and 41 rows"], of, critic, ranks.pairs(), group)
        return residual.found

    for found in on_two_threads(compare):
        for name, residual in found.items():
            agree(f"two halves: {name.split(': ')[1]}", residual, 0, tolerance=1e-10)


def test_training_on_two_halves_of_each_batch_is_training_on_the_whole(on_two_threads):
    batches = [sides.unbind() for sides in torch.stack(ranks.pairs())[:, :80].split(20, 1)]
    one, models = ranks.model(), [ranks.model(seed) for seed in range(2)]

    def trained(model, batches, group=None):
        rows = list(train(*model, batches, len(batches), learning_rate=0.02, group=group))
        return [row.value for row in rows], [p.detach() for part in model for p in part.parameters()]

    values, parameters = trained(one, batches)
    halves = ([[side[:7] for side in sides] for sides in batches], [[side[7:] for side in sides] for sides in batches])
    for found, ends in on_two_threads(lambda group: trained(models[group.rank()], halves[group.rank()], group)):
        agree("two halves: value at each step of training", found, values, tolerance=1e-10)
        for end, expected in zip(ends, parameters, strict=True):
            agree("two halves: parameters after training", end, expected, tolerance=1e-10)
