"""Checkpoints that can't be written (disks full, states of any kind), and those that can't be trusted."""

import errno
import os
import pickle
import resource
import threading
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from dashboards import equal, make, said
from trainings import DIGITS, everything, trainer

import rpm_tutorial as rpm
from rpm_tutorial.checkpoints import load_checkpoint, save_checkpoint
from rpm_tutorial.course.cli import main


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def full_disk():
    """No file may grow beyond 1 kB: the write that would is refused by the system, half done."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one_whole(tmp_path):
    for kept in ("nothing was written", "the file of that name is as it was"):
        before = names(tmp_path), [path.read_bytes() for path in tmp_path.iterdir()]
        with pytest.raises(OSError, match=f"run.pt can't be written: File too large; {kept}. Remedy"), full_disk():
            save_checkpoint({"step": torch.ones(1000)}, tmp_path / "run.pt")
        assert (names(tmp_path), [path.read_bytes() for path in tmp_path.iterdir()]) == before
        save_checkpoint({"step": 1}, tmp_path / "run.pt")


def test_a_dashboard_on_a_full_disk_keeps_its_training_and_the_old_checkpoint(tmp_path):
    board = make(tmp_path / "kept.pt")
    board.advance(2), board.stop(), board.advance(1)
    with full_disk():
        board.stop()
    assert "OSError after step 3" in said(board) and os.strerror(errno.EFBIG) in said(board) and board.state == "paused"
    assert load_checkpoint(tmp_path / "kept.pt")["step"] == 2
    board.stop()
    assert load_checkpoint(tmp_path / "kept.pt")["step"] == 3 and names(tmp_path) == ["kept.pt"]


@pytest.mark.parametrize("thing", [np.arange(3), np.float64(3), Path("x"), max, torch.Generator()], ids=type)
def test_a_state_that_could_not_be_read_again_is_named_and_the_old_checkpoint_is_whole(thing, tmp_path):
    found, path = trainer(), tmp_path / "run.pt"
    found.save(path)
    before = path.read_bytes()
    with pytest.raises(TypeError, match=rf"state\['mine'\]\[1\]\[0\] is a {type(thing).__name__}, .*expected tensors"):
        save_checkpoint(found.state_dict() | {"mine": [1, (thing, 2)]}, path)
    assert path.read_bytes() == before and names(tmp_path) == ["run.pt"]


def test_trainings_that_save_to_one_file_at_once_leave_one_of_their_states_whole(tmp_path):
    def save(number: int) -> None:
        for _ in range(5):
            save_checkpoint({"number": number, "all": torch.full((5000,), number)}, tmp_path / "run.pt")

    save(9)
    writers = [threading.Thread(target=save, args=(number,)) for number in range(3)]
    [writer.start() for writer in writers]
    while any(writer.is_alive() for writer in writers):
        state = load_checkpoint(tmp_path / "run.pt")
        assert (state["all"] == state["number"]).all()
    assert names(tmp_path) == ["run.pt"]


def test_only_abandoned_parts_of_the_same_checkpoint_are_removed(tmp_path):
    for name in ("run.pt.0123abcd.partial", "other.pt.0123abcd.partial"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / "run.pt.4567abcd.partial").touch()  # is being written
    save_checkpoint({}, tmp_path / "run.pt")
    assert names(tmp_path) == ["other.pt.0123abcd.partial", "run.pt", "run.pt.4567abcd.partial"]


def test_a_process_that_maps_its_own_files_reads_checkpoints_all_the_same(tmp_path):
    config = getattr(getattr(torch.utils, "serialization", None), "config", None)  # later than torch 2.4
    found, path = trainer(), tmp_path / "run.pt"
    with config.patch("load.mmap", True) if hasattr(config, "load") else nullcontext():
        found.save(path)
        kept = load_checkpoint(path)
    save_checkpoint({"step": 7}, path)  # a file that was mapped would change under those who read it
    assert equal(kept, found.state_dict())


# Checkpoints that can't be trusted


SPOILT = {
    "missing": (lambda path: path.unlink(), FileNotFoundError, "kept"),
    "empty": (lambda path: path.write_bytes(b""), ValueError, "no checkpoint, or a damaged one.*Expected"),
    "code": (lambda path: torch.save(trainer, path), ValueError, "no checkpoint"),
    "a list": (lambda path: torch.save([1], path), ValueError, "not of this training"),
    "no encoder": (lambda path: save_checkpoint({"kind": {}}, path), ValueError, "not of this training"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_file_that_cannot_be_continued_is_refused_and_changes_nothing(kind, tmp_path):
    path, found = tmp_path / "kept", trainer()
    found.save(path), found.advance()
    before = everything(found)
    spoil, error, message = SPOILT[kind]
    spoil(path)
    with pytest.raises(error, match=message):
        found.load(path)
    assert everything(found) == before


def test_a_checkpoint_with_any_byte_changed_is_refused_or_changes_nothing(tmp_path):
    path = tmp_path / "run.pt"
    trainer(width=16).save(path)
    whole, good, refused = load_checkpoint(path), path.read_bytes(), 0
    places = range(0, len(good), len(good) // 40)
    for place in places:
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x10]) + good[place + 1 :])
        try:
            assert equal(load_checkpoint(path), whole), f"byte {place} of {len(good)} counts, and was not looked at"
        except ValueError as error:
            assert "run.pt is no checkpoint, or a damaged one" in str(error)
            refused += 1
    assert refused > len(places) / 2


class Hostile:
    """Unpickled, it makes a folder: what stands here for code of someone else's."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("form", ["torch's", "torch's old", "a pickle"])
def test_code_in_a_checkpoint_is_not_run(form, tmp_path):
    path, hostile = tmp_path / "run.pt", Hostile(tmp_path / "was run")
    state = {"settings": hostile, "encoder": {"weight": torch.ones(3)}}
    if form == "a pickle":
        path.write_bytes(pickle.dumps(state))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "torch's")
    with pytest.raises(ValueError, match="run.pt is no checkpoint, or a damaged one"):
        load_checkpoint(path)
    assert not hostile.mark.exists()
    pickle.loads(pickle.dumps(hostile))
    assert hostile.mark.exists(), "or this test shows nothing"


def test_no_error_holds_codes_from_a_file_that_a_terminal_would_obey(tmp_path):
    found = trainer()
    state = found.state_dict()
    state["encoder"]["\x1b[31mred"] = torch.ones(2)
    save_checkpoint(state, tmp_path / "run.pt")
    with pytest.raises(ValueError, match="(?s)not of this training.*red") as error:
        found.load(tmp_path / "run.pt")
    assert "\x1b" not in str(error.value)


def test_one_form_of_checkpoint_serves_trainer_command_and_dashboard(tmp_path, capsys):
    board = make(tmp_path / "board.pt")
    board.advance(3), board.stop()
    board.trainer.advance(), board.trainer.load(tmp_path / "board.pt")
    board.trainer.save(tmp_path / "plain.pt")
    again = make(tmp_path / "plain.pt")
    again.load()
    assert again.trainer.step == 3 and again.history["step"] == [3], "a trainer's file holds no history: it is begun"
    with pytest.raises(SystemExit):
        main(["train", str(tmp_path / "run.pt"), *DIGITS, "--steps", "1"])
    encoder = rpm.encoders.mlp(64, 16)
    encoder.load_state_dict(load_checkpoint(tmp_path / "run.pt")["encoder"])
    for command in (["evidence", str(tmp_path / "plain.pt")], ["train", str(tmp_path / "plain.pt"), "--resume"]):
        with pytest.raises(SystemExit):
            main(command)
        assert "plain.pt holds no settings. Expected a file that rpm-tutorial train saved" in capsys.readouterr().err
