"""Checkpoints that can't be written (disks full, states of any kind), and those that can't be trusted."""

import copy
import errno
import os
import pickle
import resource
import threading
import zipfile
from collections import deque
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from dashboards import equal, make, said
from residuals import MEASURED

import rpm_tutorial as rpm
from rpm_tutorial import checkpoints, datasets, encoders
from rpm_tutorial.checkpoints import load_checkpoint, save_checkpoint
from rpm_tutorial.course.cli import main

CPU = torch.device("cpu")
DIGITS = ("--data", "digits", "--batch-size", "64")


def small(*, width: int = 64) -> rpm.Trainer:
    torch.manual_seed(0)
    pairs = datasets.view_pairs(datasets.digits().x, 64, flip=False)
    return rpm.Trainer(encoders.mlp(64, 8, width=width), rpm.VonMisesFisher(0.2), pairs, 10)


# Checkpoints that can't be written


@contextmanager
def full_disk():
    """No file may grow beyond 16 kB: the write that would is refused by the system, half done."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def without_rights():
    """For root, who may write anywhere: be nobody."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


HINDRANCES = {"full disk": (full_disk, errno.EFBIG), "read-only folder": (without_rights, errno.EACCES)}


@pytest.fixture
def folder(tmp_path):
    """A folder to which only root may write."""
    folder = tmp_path / "mine"
    folder.mkdir()
    yield folder
    folder.chmod(0o755)


@pytest.mark.parametrize("hindrance", HINDRANCES)
def test_a_checkpoint_that_cannot_be_written_is_named_and_the_old_one_is_whole(hindrance, folder):
    within, number = HINDRANCES[hindrance]
    trainer, path = small(), folder / "run.pt"
    for kept in (False, True):
        if kept:
            folder.chmod(0o755)
            trainer.save(path)
            before = path.read_bytes()
            trainer.advance()
        folder.chmod(0o555 if within is without_rights else 0o755)
        with pytest.raises(OSError, match="run.pt can't be written.*Remedy: a folder of yours") as error, within():
            trainer.save(path)
        assert os.strerror(number) in str(error.value)
        if within is full_disk:
            assert ("the file of that name is as it was" if kept else "nothing was written") in str(error.value)
        assert [p.name for p in folder.iterdir()] == ["run.pt"] * kept and (not kept or path.read_bytes() == before)
    folder.chmod(0o755)
    trainer.save(path)
    assert load_checkpoint(path, CPU)["step"] == 1, "and once it can be written, it is"


def test_the_command_on_a_full_disk_says_what_is_left_and_how_to_go_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["train", "run.pt", *map(str, arguments)], prog_name="rpm-tutorial")
        assert (ended.value.code == 0) == ("Error: " not in (message := capsys.readouterr().err)), message
        return message

    with full_disk():
        message = run(*DIGITS, "--steps", 3)
    assert "run.pt can't be written: File too large; nothing was written. Remedy" in message and not list(
        tmp_path.iterdir()
    )
    plain, saves = save_checkpoint, []

    def full_from_the_third_on(state, path):
        saves.append(path)
        with full_disk() if len(saves) > 2 else contextmanager(lambda: (yield))():
            plain(state, path)

    monkeypatch.setattr(checkpoints, "save_checkpoint", full_from_the_third_on)
    message = run(*DIGITS, "--steps", 3, "--save-every", 1)
    assert (
        "the file of that name is as it was. Remedy" in message and "Continue, once there is room: rpm-tut" in message
    )
    assert load_checkpoint(tmp_path / "run.pt", CPU)["trainer"]["step"] == 1
    monkeypatch.setattr(checkpoints, "save_checkpoint", plain)
    run("--resume")
    assert load_checkpoint(tmp_path / "run.pt", CPU)["trainer"]["step"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]


def test_a_dashboard_on_a_full_disk_keeps_its_training_and_the_old_checkpoint(tmp_path):
    board = make(tmp_path / "kept.pt")
    board.advance(2), board.stop()
    kept = (tmp_path / "kept.pt").read_bytes()
    board.advance(1)
    with full_disk():
        board.stop()
    assert (
        "OSError after step 3" in said(board) and "File too large" in said(board) and "Resume continues" in said(board)
    )
    assert (tmp_path / "kept.pt").read_bytes() == kept and board.state == "paused"
    board.stop()
    assert load_checkpoint(tmp_path / "kept.pt", CPU)["trainer"]["step"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["kept.pt"]


UNREADABLE = {
    "ndarray": np.arange(3),
    "float64": np.float64(3),
    "deque": deque([1]),
    "PosixPath": Path("x"),
    "function": lambda: 0,
    "Generator": torch.Generator(),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_state_that_could_not_be_read_again_is_named_and_the_old_checkpoint_is_whole(kind, tmp_path):
    trainer, path = small(width=16), tmp_path / "run.pt"
    trainer.advance(), trainer.save(path), trainer.advance()
    before = path.read_bytes()
    plain = trainer.pairs.state_dict
    trainer.pairs.state_dict = lambda: {**plain(), "mine": [1, (UNREADABLE[kind], 2)]}
    try:
        trainer.save(path)
    except TypeError as error:
        said = str(error)
    else:
        said = "nothing"
    assert f"state['pairs']['mine'][1][0] is a {kind}, which could" in said and "expected tensors" in said
    assert (
        "torch.as_tensor" in said and path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["run.pt"]
    )
    del trainer.pairs.state_dict
    trainer.advance(), trainer.save(path)
    assert load_checkpoint(path)["step"] == 3


class WithExtraState(torch.nn.Flatten):
    def get_extra_state(self):
        return {"mean": np.zeros(3)}


def test_an_encoder_whose_extra_state_could_not_be_read_again_is_named(tmp_path):
    trainer = small(width=16)
    trainer.encoder[0] = WithExtraState()
    with pytest.raises(TypeError, match=r"state\['encoder'\]\['0._extra_state'\]\['mean'\] is a ndarray"):
        trainer.save(tmp_path / "run.pt")


@pytest.mark.parametrize("steps", [2, 12], ids=["stopped", "finished"])
def test_a_dashboard_whose_state_could_not_be_read_again_keeps_its_training(steps, tmp_path):
    board = make(tmp_path / "kept.pt")
    plain = board.trainer.pairs.state_dict
    board.trainer.pairs.state_dict = lambda: {**plain(), "mine": np.arange(3)}
    board.advance(steps), board.stop()
    assert (
        f"TypeError after step {steps}" in said(board) and "is a ndarray" in said(board) and "Stop saves" in said(board)
    )
    del board.trainer.pairs.state_dict
    board.stop()
    assert load_checkpoint(tmp_path / "kept.pt")["trainer"]["step"] == steps


def test_an_interrupted_save_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(os, name, interrupt)
            save_checkpoint({"step": 1}, tmp_path / "run.pt")
        assert list(tmp_path.iterdir()) == []


def test_trainings_that_save_to_one_file_at_once_leave_one_of_their_states_whole(tmp_path):
    def save(number: int) -> None:
        for _ in range(10):
            save_checkpoint({"number": number, "all": torch.full((5000,), number)}, tmp_path / "run.pt")

    writers = [threading.Thread(target=save, args=(number,)) for number in range(4)]
    save(9)
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        state = load_checkpoint(tmp_path / "run.pt", CPU)
        assert (state["all"] == state["number"]).all()
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]


def test_only_abandoned_parts_of_the_same_checkpoint_are_removed(tmp_path):
    mine = ["run.pt.0123abcd.partial", "other.pt.0123abcd.partial", "run.pt.partial", "run.pt.notes.partial"]
    for name in mine:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / "run.pt.4567abcd.partial").touch()  # is being written
    save_checkpoint({}, tmp_path / "run.pt")
    assert {p.name for p in tmp_path.iterdir()} == {"run.pt", "run.pt.4567abcd.partial", *mine[1:]}


@pytest.fixture
def mapped():
    """As a program may have set for files of its own: torch.load maps them, torch.save writes no checksums."""
    config = torch.utils.serialization.config
    config.load.mmap, config.save.compute_crc32 = True, False
    yield
    config.load.mmap, config.save.compute_crc32 = False, True


@pytest.mark.skipif(
    not hasattr(torch.serialization, "get_crc32_options"), reason="torch before 2.6 has no such settings"
)
def test_settings_of_the_process_for_other_files_change_nothing(mapped, tmp_path):
    trainer, path = small(width=16), tmp_path / "run.pt"
    trainer.advance(), trainer.save(path)
    found = load_checkpoint(path)
    save_checkpoint({"step": 7}, path)  # a file that was mapped would change under those who read it
    assert equal(found, trainer.state_dict()) and load_checkpoint(path) == {"step": 7}
    assert torch.utils.serialization.config.save.compute_crc32 is False


# Checkpoints that can't be trusted


def test_a_checkpoint_with_any_byte_changed_is_refused_or_changes_nothing(tmp_path):
    trainer, path = small(width=16), tmp_path / "run.pt"
    trainer.advance(), trainer.save(path)
    whole, good, refused = load_checkpoint(path, CPU), path.read_bytes(), 0
    places = [*range(0, len(good), len(good) // 150), *range(len(good) - 40, len(good))]
    for place in places:
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x10]) + good[place + 1 :])
        try:
            found = load_checkpoint(path, CPU)
        except ValueError as error:
            assert "run.pt is no checkpoint, or a damaged one" in str(error) and "train again" in str(error)
            refused += 1
        else:
            assert equal(found, whole), f"byte {place} of {len(good)} counts, and was not looked at"
    assert refused > len(places) / 2
    MEASURED.append(f"checkpoint, one byte changed: {refused} of {len(places)} refused, the others without effect")


class Hostile:
    """Unpickled, it makes a file: what stands here for code of someone else's."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("form", ["torch's", "torch's old", "a pickle", "beside tensors"])
def test_code_in_a_checkpoint_is_not_run(form, tmp_path, monkeypatch, capsys):
    path, hostile = tmp_path / "run.pt", Hostile(tmp_path / "was run")
    if form == "a pickle":
        path.write_bytes(pickle.dumps({"settings": hostile, "trainer": {}}))
    else:
        beside = {"encoder": {"weight": torch.ones(3)}} if form == "beside tensors" else {}
        state = {"settings": {}, "trainer": {**beside, "step": hostile}}
        torch.save(state, path, _use_new_zipfile_serialization=form != "torch's old")
    with pytest.raises(
        ValueError, match=r"run.pt is no checkpoint, or a damaged one.*[^.]\. Expected a file that this library"
    ) as error:
        load_checkpoint(path, CPU)
    assert str(error.value).isprintable(), "a terminal obeys nothing in it"
    monkeypatch.chdir(tmp_path)
    for command in (["evidence", "run.pt"], ["train", "run.pt", "--resume"]):
        with pytest.raises(SystemExit):
            main(command)
        assert "run.pt is no checkpoint" in capsys.readouterr().err
    assert not hostile.mark.exists()
    pickle.loads(pickle.dumps(hostile))
    assert hostile.mark.exists(), "or this test shows nothing"


def test_no_error_holds_codes_from_a_file_that_a_terminal_would_obey(tmp_path):
    trainer, path = small(width=16), tmp_path / "run.pt"
    state = trainer.state_dict()
    state["encoder"]["\x1b[31mred"] = torch.ones(2)
    save_checkpoint(state, path)
    with pytest.raises(ValueError, match="(?s)not of this training.*red") as error:
        trainer.load(path)
    assert "\x1b" not in str(error.value)
    with zipfile.ZipFile(path, "w") as records:
        records.writestr("\x1b[31mred", "some bytes")
    path.write_bytes(path.read_bytes().replace(b"some", b"same"))
    with pytest.raises(ValueError, match=r"the bytes of red have changed since they were saved\. Expected") as error:
        load_checkpoint(path)
    assert "\x1b" not in str(error.value)


FOREIGN = {
    "settings of another width": lambda state: state["settings"].update(dim=3),
    "settings missing": lambda state: state["settings"].pop("dim"),
    "no encoder": lambda state: state["trainer"].pop("encoder"),
    "an encoder that is a list": lambda state: state["trainer"].update(encoder=[1, 2]),
    "a trainer that is a tensor": lambda state: state.update(trainer=torch.ones(3)),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_checkpoint_of_other_networks_is_refused_by_each_command(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["train", "run.pt", *DIGITS, "--steps", "1"])
    state = copy.deepcopy(load_checkpoint(tmp_path / "run.pt", CPU))
    FOREIGN[kind](state)
    save_checkpoint(state, tmp_path / "run.pt")
    before = (tmp_path / "run.pt").read_bytes()
    for command in (["evidence", "run.pt"], ["train", "run.pt", "--resume"]):
        with pytest.raises(SystemExit) as ended:
            main(command)
        message = capsys.readouterr().err
        assert ended.value.code == 1 and "\nError: " in message and "Expected" in message, message
    assert (tmp_path / "run.pt").read_bytes() == before
