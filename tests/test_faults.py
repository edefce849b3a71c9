"""A training whose process ends while it saves, by a kill or by Ctrl-C: no step before it is lost."""

import os
import subprocess
import sys

import pytest
from dashboards import equal
from trainings import DIGITS

from rpm_tutorial.checkpoints import load_checkpoint
from rpm_tutorial.course.cli import main

ENDS_IN_ITS_THIRD_SAVE = """
import os, signal, sys
from rpm_tutorial.course import cli
place, number, *arguments = sys.argv[1:]
saves, replace = [], os.replace
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job ignores

def end(here):
    if here == place and len(saves) == 3:
        os.kill(os.getpid(), getattr(signal, number))

os.replace = lambda *paths: (saves.append(1), end("written"), replace(*paths), end("renamed"))
cli.main(arguments, prog_name="rpm-tutorial")
"""


@pytest.mark.parametrize(
    ("place", "number", "kept"),
    [
        pytest.param("written", "SIGKILL", 1, marks=pytest.mark.slow),
        pytest.param("renamed", "SIGKILL", 2, marks=pytest.mark.nightly),
        pytest.param("renamed", "SIGINT", 2, marks=pytest.mark.nightly),
    ],
)
def test_a_training_that_ends_while_it_saves_goes_on_as_one_never_stopped(place, number, kept, tmp_path):
    settings = [*DIGITS, "--steps", "5", "--save-every", "1"]
    command = [sys.executable, "-c", ENDS_IN_ITS_THIRD_SAVE, place, number, "train", "run.pt", *settings]
    folder = tmp_path / "folder"
    folder.mkdir()
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert load_checkpoint(folder / "run.pt")["step"] == kept, ended.stderr
    if number == "SIGINT":
        assert ended.returncode == 1 and "Traceback" not in ended.stderr
        assert ended.stderr.endswith(
            "Stopped after step 2 of 5, and saved. Continue: rpm-tutorial train run.pt --resume\n"
        )
    for part in folder.glob("*.partial"):  # removed in time: here, the time has come
        os.utime(part, (0, 0))
    main(["train", str(folder / "run.pt"), "--resume"], standalone_mode=False)
    main(["train", str(tmp_path / "whole.pt"), *settings], standalone_mode=False)
    assert equal(load_checkpoint(folder / "run.pt"), load_checkpoint(tmp_path / "whole.pt"))
    assert [path.name for path in folder.iterdir()] == ["run.pt"]
