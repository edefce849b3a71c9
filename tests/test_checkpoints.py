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
from trainings import everything, trainer

from rpm_tutorial.checkpoints import load_checkpoint, save_checkpoint


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
        before = [(path.name, path.read_bytes()) for path in tmp_path.iterdir()]
        with pytest.raises(OSError, match=f"run.pt can't be written: File too large; {kept}. Remedy"), full_disk():
            save_checkpoint({"step": torch.ones(1000)}, tmp_path / "run.pt")
        assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == before
        save_checkpoint({"step": 1}, tmp_path / "run.pt")


def test_a_dashboard_on_a_full_disk_keeps_its_training_and_the_old_checkpoint(tmp_path):
    board = make(tmp_path / "kept.pt")
    board.advance(1), board.stop(), board.advance(1)
    with full_disk():
        board.stop()
    assert "OSError after step 2" in said(board) and os.strerror(errno.EFBIG) in said(board) and board.state == "paused"
    assert load_checkpoint(tmp_path / "kept.pt")["step"] == 1
    board.stop()
    assert load_checkpoint(tmp_path / "kept.pt")["step"] == 2 and names(tmp_path) == ["kept.pt"]


@pytest.mark.parametrize("thing", [np.arange(3), np.float64(3), Path("x"), max, torch.Generator()], ids=type)
def test_a_state_that_could_not_be_read_again_is_named_and_the_old_checkpoint_is_whole(thing, tmp_path):
    path = tmp_path / "run.pt"
    save_checkpoint({"mine": 1}, path)
    with pytest.raises(TypeError, match=rf"state\['mine'\]\[1\]\[0\] is a {type(thing).__name__}, .*expected tensors"):
        save_checkpoint({"fine": {"z": torch.ones(2)}, "mine": [1, (thing, 2)]}, path)
    assert load_checkpoint(path) == {"mine": 1} and names(tmp_path) == ["run.pt"]


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
    config, path = getattr(torch.utils.serialization, "config", None), tmp_path / "run.pt"  # later than torch 2.4
    with config.patch("load.mmap", True) if hasattr(config, "load") else nullcontext():
        save_checkpoint({"z": torch.ones(3)}, path)
        kept = load_checkpoint(path)
    save_checkpoint({"z": torch.zeros(3)}, path)  # a file that was mapped would change under those who read it
    assert torch.equal(kept["z"], torch.ones(3))


# Checkpoints that can't be trusted


class Hostile:
    """Unpickled, it makes a folder: what stands here for code of someone else's."""

    def __reduce__(self):
        return os.mkdir, ("was run",)


CODE = {"settings": Hostile(), "encoder": {"weight": torch.ones(3)}}
TERMINAL = {"encoder": {"\x1b[31mred": torch.ones(2)}}  # codes that a terminal obeys
SPOILT = [
    (lambda path: path.unlink(), "kept"),
    (lambda path: path.write_bytes(b""), "kept is no checkpoint, or a damaged one.*Expected"),
    (lambda path: path.write_bytes(pickle.dumps(CODE)), "kept is no checkpoint, or a damaged one"),
    (lambda path: torch.save(CODE, path), "kept is no checkpoint, or a damaged one"),
    (lambda path: torch.save(CODE, path, _use_new_zipfile_serialization=False), "kept is no checkpoint"),
    (lambda path: torch.save([1], path), "not of this training"),
    (lambda path: save_checkpoint({"kind": {}}, path), "not of this training"),
    (lambda path: save_checkpoint(load_checkpoint(path) | TERMINAL, path), "(?s)not of this training.*red"),
]


@pytest.mark.parametrize(("spoil", "message"), SPOILT)
def test_a_file_that_cannot_be_continued_is_refused_changes_nothing_and_runs_no_code(
    spoil, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    path, found = tmp_path / "kept", trainer(width=16)
    found.save(path), found.advance()
    before = everything(found)
    spoil(path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as raised:
        found.load(path)
    assert raised.type is (ValueError if path.exists() else FileNotFoundError)
    assert everything(found) == before and "\x1b" not in str(raised.value) and not Path("was run").exists()
    pickle.loads(pickle.dumps(Hostile()))
    assert Path("was run").exists(), "or this test shows nothing"


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


def test_a_file_of_a_trainer_opens_in_a_dashboard_and_the_other_way_round(tmp_path):
    board = make(tmp_path / "board.pt")
    board.advance(3), board.stop()
    board.trainer.advance(), board.trainer.load(tmp_path / "board.pt")
    board.trainer.save(tmp_path / "plain.pt")
    again = make(tmp_path / "plain.pt")
    again.load()
    assert again.trainer.step == 3 and again.history["step"] == [3], "a trainer's file holds no history: it is begun"
