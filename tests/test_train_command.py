"""`rpm-tutorial train` beside its numbers: what ends it, who may write its file, and what it remembers.

In this process where that will do; signals go to a process of its own, which is forked from one that has imported everything.
"""

import errno
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import children
import pytest
import torch

from rpm_tutorial import checkpoints, cli, training
from rpm_tutorial.checkpoints import load_checkpoint
from rpm_tutorial.course import _runs

DIGITS = ("--data", "digits", "--batch-size", "64")


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", *map(str, arguments)], prog_name="rpm-tutorial")
    return ended.value.code


def sending(number: int, at: int):
    """A step of training in which, once so many are made, this signal comes."""
    plain = training.Trainer.advance
    return lambda self: os.kill(os.getpid(), number if self.step == at else 0) or plain(self)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_training_that_is_asked_to_end_saves_first(name, monkeypatch, tmp_path, capsys):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    if before is signal.SIG_DFL:  # which, without a handler, would end these tests
        signal.signal(number, lambda *_: None)
    monkeypatch.setattr(training.Trainer, "advance", sending(number, at=4))
    try:
        assert run(tmp_path / "run.pt", *DIGITS, "--steps", 30) == 1
    finally:
        signal.signal(number, before)
    assert load_checkpoint(tmp_path / "run.pt")["trainer"]["step"] == 5
    assert "Stopped after step 5 of 30, and saved" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]


def test_a_signal_that_is_ignored_from_the_start_stays_so(monkeypatch, tmp_path):
    """As with nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    monkeypatch.setattr(training.Trainer, "advance", sending(signal.SIGHUP, at=1))
    try:
        assert run(tmp_path / "run.pt", *DIGITS, "--steps", 3) == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert load_checkpoint(tmp_path / "run.pt")["trainer"]["step"] == 3


def test_a_closed_terminal_that_says_so_twice_does_not_cut_the_save_short(monkeypatch, tmp_path):
    plain_step, plain_save, sent = training.Trainer.advance, checkpoints.save_checkpoint, []

    def hang_up(call, *arguments):
        os.kill(os.getpid(), signal.SIGHUP)
        sent.append(call)
        return call(*arguments)

    monkeypatch.setattr(training.Trainer, "advance", lambda self: hang_up(plain_step, self))
    monkeypatch.setattr(checkpoints, "save_checkpoint", lambda *a: hang_up(plain_save, *a) if sent else plain_save(*a))
    assert run(tmp_path / "run.pt", *DIGITS, "--steps", 30) == 1 and len(sent) == 2
    assert load_checkpoint(tmp_path / "run.pt")["trainer"]["step"] == 1


@pytest.mark.parametrize("error", [ValueError, torch.OutOfMemoryError, MemoryError, BrokenPipeError])
def test_a_training_that_fails_has_saved_every_step_before(error, monkeypatch, tmp_path, capsys):
    plain = training.Trainer.advance

    def fail(self):
        if self.step == 7:
            raise error(errno.EPIPE, "out of memory") if error is BrokenPipeError else error("out of memory")
        return plain(self)

    monkeypatch.setattr(training.Trainer, "advance", fail)
    path = tmp_path / "run.pt"
    try:
        code = run(path, *DIGITS, "--steps", 30)
    except MemoryError:
        code = 1
    assert (
        code == 1
        and load_checkpoint(path)["trainer"]["step"] == 7
        and [p.name for p in tmp_path.iterdir()] == ["run.pt"]
    )
    if error is ValueError:
        assert f"The 7 steps before are saved in {path}." in capsys.readouterr().err


def test_when_nobody_reads_on_a_command_ends_quietly(tmp_path):
    """As with `rpm-tutorial export ... | head -0`."""
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-m", "rpm_tutorial.course.cli", "export", "--student", "handout", "--only", "00"]
    found = subprocess.run(command, cwd=tmp_path, stdout=theirs, stderr=subprocess.PIPE, text=True)
    os.close(theirs)
    assert found.stderr == "" and found.returncode == 1


def test_save_every_is_remembered_and_may_be_changed(tmp_path, monkeypatch):
    path, save = tmp_path / "run.pt", checkpoints.save_checkpoint

    def saved(*arguments: object, until: int) -> list[int]:
        steps = []
        with monkeypatch.context() as patched:
            patched.setattr(
                checkpoints, "save_checkpoint", lambda s, p: steps.append(s["trainer"]["step"]) or save(s, p)
            )
            patched.setattr(training.Trainer, "advance", sending(signal.SIGTERM, at=until - 1))
            assert run(path, *arguments) == 1
        return steps

    assert saved(*DIGITS, "--steps", 30, "--save-every", 2, until=5) == [0, 2, 4, 5]
    assert saved("--resume", until=10) == [5, 6, 8, 10]
    assert saved("--resume", "--save-every", 3, until=13) == [10, 12, 13]
    assert load_checkpoint(path)["settings"]["save_every"] == 3


# One writer


def test_a_second_training_of_one_file_is_refused(tmp_path, capsys):
    assert run(tmp_path / "run.pt", *DIGITS, "--steps", 1) == 0
    with checkpoints.sole_writer(tmp_path / "run.pt"):
        assert run(tmp_path / "run.pt", "--resume") == 1
        said = capsys.readouterr().err
        assert (
            f"run.pt is written to by another training, process {os.getpid()}; expected one at a time. Remedy" in said
        )
        assert run(tmp_path / "other.pt", *DIGITS, "--steps", 1) == 0
    assert run(tmp_path / "run.pt", "--resume") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"run.pt", "other.pt"}


@pytest.mark.slow
def test_a_killed_training_leaves_no_lock_that_holds(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    process = children.command(folder, "train", "run.pt", *DIGITS, "--steps", 10_000)
    end = time.monotonic() + 120
    while not (folder / "run.pt").exists():
        assert time.monotonic() < end and process.is_alive(), children.said(folder, "problems")
        time.sleep(0.01)
    with pytest.raises(ValueError, match=f"by another training, process {process.pid};"):
        checkpoints.sole_writer(folder / "run.pt").__enter__()
    process.kill()
    process.join(60)
    with checkpoints.sole_writer(folder / "run.pt"):
        pass
    assert [path.name for path in folder.iterdir()] == ["run.pt"]


def test_two_trainings_that_begin_one_file_at_once_do_not_both_write_it(monkeypatch, tmp_path):
    path, plain = tmp_path / "run.pt", checkpoints.sole_writer

    def after_another_has_come_and_gone(path):
        path.write_text("another's")
        return plain(path)

    monkeypatch.setattr(checkpoints, "sole_writer", after_another_has_come_and_gone)
    assert run(path, *DIGITS) == 2 and path.read_text() == "another's"


# What is printed


@pytest.mark.parametrize("name", ["run.pt", "my run.pt", "it's $HOME; `ls`.pt", "-run.pt", "*.pt"])
def test_a_printed_command_is_one_that_a_shell_takes_as_it_is_meant(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(*DIGITS, "--steps", 1, "--", name) == 0
    command = capsys.readouterr().out.rsplit("Next: ", 1)[1].strip()
    shown = subprocess.run(["sh", "-c", f'set -- {command}; printf "%s\n" "$@"'], capture_output=True, text=True).stdout
    program, *words = shown.splitlines()
    assert program == "rpm-tutorial" and shlex.split(command)[1:] == words
    context = cli.main.commands["evidence"].make_context("evidence", words[1:])
    assert context.params["checkpoint"] == Path(name)


def test_the_files_of_this_command_hold_their_settings(tmp_path):
    run(tmp_path / "run.pt", *DIGITS, "--steps", 1)
    assert {*load_checkpoint(tmp_path / "run.pt")["settings"]} == _runs.SETTINGS
