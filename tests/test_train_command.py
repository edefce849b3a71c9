"""`rpm-tutorial train` beside its numbers: what ends it, who may write its file, and what it remembers."""

import os
import shlex
import signal
import subprocess
from pathlib import Path

import pytest
from trainings import DIGITS

from rpm_tutorial import checkpoints, cli, training
from rpm_tutorial.checkpoints import load_checkpoint


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", *map(str, arguments)], prog_name="rpm-tutorial")
    return ended.value.code


def sending(number: int, at: int):
    """A step of training in which, once so many are made, this signal comes."""
    plain = training.Trainer.advance
    return lambda self: os.kill(os.getpid(), number if self.step == at else 0) or plain(self)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "ignored SIGHUP"])
def test_a_training_that_is_asked_to_end_saves_first(name, monkeypatch, tmp_path, capsys):
    """And one that is ignored from the start, as with nohup, stays ignored."""
    number, ignored = getattr(signal, name.split()[-1]), name.startswith("ignored")
    before = signal.signal(number, signal.SIG_IGN if ignored else lambda *_: None)
    here = signal.getsignal(number)
    monkeypatch.setattr(training.Trainer, "advance", sending(number, at=4))
    try:
        assert run(tmp_path / "run.pt", *DIGITS, "--steps", 8) == (0 if ignored else 1)
        assert signal.getsignal(number) is here
    finally:
        signal.signal(number, before)
    assert load_checkpoint(tmp_path / "run.pt")["step"] == (8 if ignored else 5)
    assert ignored or "Stopped after step 5 of 8, and saved" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ValueError, BrokenPipeError])
def test_a_training_that_fails_has_saved_every_step_before(error, monkeypatch, tmp_path, capsys):
    plain, path = training.Trainer.advance, tmp_path / "run.pt"

    def fail(self):
        if self.step == 7:
            raise error("out of memory")
        return plain(self)

    monkeypatch.setattr(training.Trainer, "advance", fail)
    with pytest.raises(BrokenPipeError if error is BrokenPipeError else SystemExit):
        cli.main(["train", str(path), *DIGITS, "--steps", "30"])
    assert load_checkpoint(path)["step"] == 7 and [p.name for p in tmp_path.iterdir()] == ["run.pt"]
    if error is ValueError:
        assert f"The 7 steps before are saved in {path}." in capsys.readouterr().err


def test_a_disk_that_is_full_in_mid_training_is_named_with_the_command_that_goes_on(monkeypatch, tmp_path, capsys):
    plain, saves, path = checkpoints.save_checkpoint, [], tmp_path / "run.pt"

    def full_from_the_third_on(state, path):
        saves.append(path)
        if len(saves) > 2:
            raise OSError("no room")
        plain(state, path)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "save_checkpoint", full_from_the_third_on)
        assert run(path, *DIGITS, "--steps", 3, "--save-every", 1) == 1
    said = capsys.readouterr().err
    assert "no room\nWhat was saved before is whole. Continue, once there is room: rpm-tutorial train" in said
    assert load_checkpoint(path)["step"] == 1 and run(path, "--resume") == 0 and load_checkpoint(path)["step"] == 3


def test_save_every_is_remembered_and_may_be_changed(tmp_path, monkeypatch):
    path, save = tmp_path / "run.pt", checkpoints.save_checkpoint

    def saved(*arguments: object, until: int) -> list[int]:
        steps = []
        with monkeypatch.context() as patched:
            patched.setattr(checkpoints, "save_checkpoint", lambda s, p: steps.append(s["step"]) or save(s, p))
            patched.setattr(training.Trainer, "advance", sending(signal.SIGTERM, at=until - 1))
            assert run(path, *arguments) == 1
        return steps

    assert saved(*DIGITS, "--steps", 20, "--save-every", 2, until=3) == [0, 2, 3]
    assert saved("--resume", until=6) == [3, 4, 6]
    assert saved("--resume", "--save-every", 3, until=10) == [6, 9, 10]


def test_a_second_training_of_one_file_is_refused(tmp_path, capsys):
    assert run(tmp_path / "run.pt", *DIGITS, "--steps", 1) == 0
    with checkpoints.sole_writer(tmp_path / "run.pt"):
        assert run(tmp_path / "run.pt", "--resume") == 1
        assert "run.pt is being written by another training; expected one at a time." in capsys.readouterr().err
        assert run(tmp_path / "other.pt", *DIGITS, "--steps", 1) == 0
    assert run(tmp_path / "run.pt", "--resume") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"run.pt", "other.pt"}


@pytest.mark.parametrize("name", ["it's $HOME; `ls`.pt", "-run.pt"])
def test_a_printed_command_is_one_that_a_shell_takes_as_it_is_meant(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(*DIGITS, "--steps", 1, "--", name) == 0
    command = capsys.readouterr().out.rsplit("Next: ", 1)[1].strip()
    shown = subprocess.run(["sh", "-c", f'set -- {command}; printf "%s\n" "$@"'], capture_output=True, text=True).stdout
    program, *words = shown.splitlines()
    assert program == "rpm-tutorial" and shlex.split(command)[1:] == words
    context = cli.main.commands["evidence"].make_context("evidence", words[1:])
    assert context.params["files"] == (Path(name),)
