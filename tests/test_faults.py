"""What goes wrong around a training: processes killed, kernels restarted. Files: tests/test_checkpoints.py."""

import os
import random
import re
import time
from pathlib import Path

import children
import psutil
import pytest
import torch
from budgets import HANG, wait_until
from dashboards import equal, make, parameters
from jupyter_client.manager import start_new_kernel
from residuals import MEASURED

from rpm_tutorial.checkpoints import load_checkpoint

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
DIGITS = ("--data", "digits", "--batch-size", "64")


def train(folder: Path, *arguments: object, **options):
    return children.command(folder, "train", "run.pt", *arguments, **options)


def ended(process) -> None:
    process.join(HANG)
    assert process.exitcode == 0


# Killed


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory):
    """The last state of a trainer of so many steps in one go."""

    def run(steps: int) -> dict:
        folder = tmp_path_factory.mktemp("whole")
        ended(train(folder, *DIGITS, "--steps", steps))
        return load_checkpoint(folder / "run.pt", CPU)["trainer"]

    return run


@pytest.mark.slow
@pytest.mark.parametrize("place", children.PLACES)
def test_a_training_killed_while_it_writes_its_checkpoint_loses_no_step_before_it(place, never_stopped, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    process = train(folder, *DIGITS, "--steps", 30, "--save-every", 10, stand_still=place)
    wait_until(lambda: children.STANDS_STILL in children.said(folder), nap=0.002)  # in the third save, of step 20
    process.kill()
    process.join()
    assert load_checkpoint(folder / "run.pt", CPU)["trainer"]["step"] == (20 if place == "renamed" else 10)
    parts = [path for path in folder.iterdir() if path.name not in ("run.pt", ".run.pt.lock")]
    assert [path.suffix for path in parts] == [".partial"] * (place != "renamed")
    for part in parts:  # not mistaken for a checkpoint, and removed in time: here, the time has come
        os.utime(part, (0, 0))
    ended(train(folder, "--resume"))
    assert equal(load_checkpoint(folder / "run.pt", CPU)["trainer"], never_stopped(30))
    assert [path.name for path in folder.iterdir()] == ["run.pt"]


@pytest.mark.slow
def test_a_training_killed_at_random_moments_ends_with_the_numbers_of_one_never_stopped(never_stopped, tmp_path):
    moments, kills, reached, steps, every = random.Random(0), 8, [], 600, 7
    folder = tmp_path / "run"
    folder.mkdir()
    for kill in range(kills):
        process = train(folder, *(("--resume",) if kill else (*DIGITS, "--steps", steps)), "--save-every", every)
        wait_until(lambda: "saved" in children.said(folder), nap=0.002)
        time.sleep(moments.uniform(0, 0.15))
        process.kill()
        process.join()
        announced = max(map(int, re.findall(r"step +(\d+) of .* saved\n", children.said(folder))))
        kept = load_checkpoint(folder / "run.pt", CPU)["trainer"]["step"]
        assert kept in (announced, announced + every), "the last save, or one that was not announced any more"
        reached.append(kept)
        (folder.parent / "run out").unlink()
    assert reached == sorted(reached) and 0 < reached[0] and reached[-1] < steps
    ended(train(folder, "--resume"))
    assert equal(load_checkpoint(folder / "run.pt", CPU)["trainer"], never_stopped(steps))
    MEASURED.append(f"killed {kills} times, resumed from steps {', '.join(map(str, reached))} of {steps}: nothing lost")


# A kernel restarted


@pytest.mark.slow
def test_a_kernel_restarted_in_mid_training_leaves_no_process_and_the_checkpoint_continues(tmp_path, monkeypatch):
    for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, [ROOT, ROOT / "tests", ROOT / "tools"])))
    manager, client = start_new_kernel(HANG, cwd=str(tmp_path))

    def run(code: str) -> str:
        said = []
        reply = client.execute_interactive(code, timeout=HANG, output_hook=said.append)
        assert reply["content"]["status"] == "ok", reply["content"]
        return "".join(m["content"].get("text", "") for m in said if m["msg_type"] == "stream").strip()

    try:
        begin = "from dashboards import make\nboard = make('kept.pt', steps=2000, every=100)"
        run(f"{begin}\nboard.advance(150)\nboard.stop()\nboard.start()")
        wait_until(lambda: int(run("print(board.trainer.step)")) >= 200)
        assert run("print(board.state)") == "running"
        kernel = psutil.Process(manager.provisioner.process.pid)
        family = [kernel, *kernel.children(recursive=True)]
        manager.restart_kernel(now=True)
        client.wait_for_ready(timeout=HANG)
        _, alive = psutil.wait_procs(family, timeout=HANG)
        assert alive == []
        steps = run(f"{begin}\nboard.load()\nprint(board.trainer.step)\nboard.advance(150)\nboard.stop()")
        assert steps == "150", "what was trained after the last Stop is lost, and nothing else"
        threads = run("import threading\nprint([t.name for t in threading.enumerate() if 'rpm' in t.name])")
        assert threads == "[]"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    whole = make(tmp_path / "whole.pt", steps=2000, every=100)
    whole.advance(300)
    whole.stop()
    one, other = (load_checkpoint(tmp_path / name, CPU) for name in ("kept.pt", "whole.pt"))
    assert equal(one, other) and parameters(whole).isfinite().all()
    assert sorted(path.name for path in tmp_path.glob("*.pt*")) == ["kept.pt", "whole.pt"]
