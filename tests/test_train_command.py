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


def at_step(monkeypatch, step: int, happens) -> None:
    """Let this happen once so many steps of a training are made."""
    plain = training.Trainer.advance
    monkeypatch.setattr(training.Trainer, "advance", lambda self: (self.step == step and happens()) or plain(self))


def raising(error: BaseException):
    raise error


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "ignored SIGHUP"])
def test_a_training_that_is_asked_to_end_saves_first(name, monkeypatch, tmp_path, capsys):
    """And one that is ignored from the start, as with nohup, stays ignored."""
    number, ignored = getattr(signal, name.split()[-1]), name.startswith("ignored")
    before = signal.signal(number, signal.SIG_IGN if ignored else lambda *_: None)
    here = signal.getsignal(number)
    at_step(monkeypatch, 2, lambda: os.kill(os.getpid(), number))
    try:
        assert run(tmp_path / "run.pt", *DIGITS, "--steps", 4) == (0 if ignored else 1)
        assert signal.getsignal(number) is here
    finally:
        signal.signal(number, before)
    assert load_checkpoint(tmp_path / "run.pt")["step"] == (4 if ignored else 3)
    assert ignored or "Stopped after step 3 of 4, and saved" in capsys.readouterr().err


FAILS = {
    ValueError: "no room\nThe 3 steps before are saved in {path}.",
    OSError: "no room\nWhat was saved before is whole. Continue, once there is room: rpm-tutorial train {path} --resume",
    BrokenPipeError: "",
}


@pytest.mark.parametrize("error", FAILS)
def test_a_training_that_fails_keeps_every_step_that_it_could_save(error, monkeypatch, tmp_path, capsys):
    """The disk is full from the fourth step on, or the step itself fails."""
    path, fail = tmp_path / "run.pt", lambda *_: raising(error("no room"))
    full = lambda: monkeypatch.setattr(checkpoints, "save_checkpoint", fail)  # noqa: E731
    at_step(monkeypatch, 3, full if error is OSError else fail)
    with pytest.raises(BrokenPipeError if error is BrokenPipeError else SystemExit):
        cli.main(["train", str(path), *DIGITS, "--steps", "30", "--save-every", "3"])
    assert load_checkpoint(path)["step"] == 3 and [p.name for p in tmp_path.iterdir()] == ["run.pt"]
    assert FAILS[error].format(path=path) in capsys.readouterr().err


def test_save_every_is_remembered_and_may_be_changed(tmp_path, monkeypatch):
    path, save = tmp_path / "run.pt", checkpoints.save_checkpoint

    def saved(*arguments: object, until: int) -> list[int]:
        steps = []
        with monkeypatch.context() as patched:
            patched.setattr(checkpoints, "save_checkpoint", lambda s, p: steps.append(s["step"]) or save(s, p))
            at_step(patched, until - 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
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
    assert "run.pt is complete: its 1 steps are made. Next: rpm-tutorial evidence" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"run.pt", "other.pt"}


@pytest.mark.parametrize("name", ["it's $HOME; `ls`.pt", "-run.pt"])
def test_a_printed_command_is_one_that_a_shell_takes_as_it_is_meant(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(*DIGITS, "--steps", 1, "--", name) == 0
    command = capsys.readouterr().out.rsplit("Next: ", 1)[1].strip()
    shown = subprocess.run(["sh", "-c", f'printf "%s\n" {command}'], capture_output=True, text=True).stdout
    program, *words = shown.splitlines()
    assert program == "rpm-tutorial" and shlex.split(command)[1:] == words
    context = cli.main.commands["evidence"].make_context("evidence", words[1:])
    assert context.params["files"] == (Path(name),)
