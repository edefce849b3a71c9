"""What goes wrong around a training: processes killed, kernels restarted. Files: tests/test_checkpoints.py."""

import os
import random
import re
import time
from pathlib import Path

import children
import pytest
from budgets import HANG, wait_until
from dashboards import equal
from residuals import MEASURED
from trainings import DIGITS

from rpm_tutorial.checkpoints import load_checkpoint, sole_writer

ROOT = Path(__file__).resolve().parents[1]


def train(folder: Path, *arguments: object, **options):
    return children.command(folder, "train", "run.pt", *arguments, **options)


def end(folder: Path, *arguments: object) -> dict:
    """Train to the end; the state that is left."""
    process = train(folder, *arguments)
    process.join(HANG)
    assert process.exitcode == 0, children.said(folder)
    return load_checkpoint(folder / "run.pt")


@pytest.mark.parametrize(
    "place", [pytest.param("written", marks=pytest.mark.slow), pytest.param("renamed", marks=pytest.mark.nightly)]
)
def test_a_training_killed_while_it_saves_loses_no_step_before_it(place, tmp_path):
    folder = tmp_path / "run"
    process = train(folder, *DIGITS, "--steps", 30, "--save-every", 10, stand_still=place)
    wait_until(lambda: children.STANDS_STILL in children.said(folder), nap=0.002)  # in the third save, of step 20
    with pytest.raises(ValueError, match="is being written by another training"), sole_writer(folder / "run.pt"):
        pass
    process.kill()
    process.join()
    assert load_checkpoint(folder / "run.pt")["step"] == (20 if place == "renamed" else 10)
    for part in folder.glob("*.partial"):  # removed in time: here, the time has come
        os.utime(part, (0, 0))
    assert equal(end(folder, "--resume"), end(tmp_path / "whole", *DIGITS, "--steps", 30, "--save-every", 10))
    assert [path.name for path in folder.iterdir()] == ["run.pt"]


@pytest.mark.nightly
def test_a_training_killed_at_random_moments_ends_with_the_numbers_of_one_never_stopped(tmp_path):
    moments, kills, reached, folder = random.Random(0), 8, [], tmp_path / "run"
    settings = (*DIGITS, "--steps", 600, "--save-every", 7)
    for kill in range(kills):
        process = train(folder, *(["--resume"] if kill else settings))
        wait_until(lambda: "saved" in children.said(folder), nap=0.002)
        time.sleep(moments.uniform(0, 0.15))
        process.kill()
        process.join()
        announced = max(map(int, re.findall(r"step +(\d+) of .* saved\n", children.said(folder))))
        kept = load_checkpoint(folder / "run.pt")["step"]
        assert kept in (announced, announced + 7), "the last save, or one that was not announced any more"
        reached.append(kept)
        folder.with_suffix(".said").unlink()
    assert reached == sorted(reached) and 0 < reached[0] and reached[-1] < 600
    assert equal(end(folder, "--resume"), end(tmp_path / "whole", *settings))
    MEASURED.append(f"killed {kills} times, resumed from steps {', '.join(map(str, reached))} of 600: nothing lost")
