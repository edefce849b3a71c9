"""What goes wrong around a training: processes killed, disks full, files damaged or hostile, kernels restarted."""

import copy
import errno
import os
import pickle
import random
import re
import resource
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import children
import psutil
import pytest
import torch
from dashboards import make, parameters, said
from jupyter_client.manager import start_new_kernel
from residuals import MEASURED

import rpm_tutorial as rpm
from rpm_tutorial import checkpoints, datasets, encoders
from rpm_tutorial.checkpoints import load_checkpoint, save_checkpoint
from rpm_tutorial.cli import main

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
DIGITS = ("--data", "digits", "--batch-size", "64")


def train(folder: Path, *arguments: object, **options):
    return children.command(folder, "train", "run.pt", *arguments, **options)


def ended(process) -> None:
    process.join(120)
    assert process.exitcode == 0


def wait_until(reached) -> None:
    deadline = time.monotonic() + 120
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def tensors(found, name: str = "") -> dict[str, object]:
    """Every number of a nested state by its path, but for the seconds it took."""
    items = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list | tuple) else None
    if items is None:
        return {} if name.endswith("seconds") else {name: found}
    return {k: v for key, value in items for k, v in tensors(value, f"{name}.{key}").items()}


def equal(one, other) -> bool:
    one, other = tensors(one), tensors(other)
    assert one.keys() == other.keys()
    return all(torch.equal(v, other[k]) if isinstance(v, torch.Tensor) else v == other[k] for k, v in one.items())


def small(*, width: int = 64) -> rpm.Trainer:
    torch.manual_seed(0)
    pairs = datasets.view_pairs(datasets.digits().x, 64, flip=False)
    return rpm.Trainer(encoders.mlp(64, 8, width=width), rpm.VonMisesFisher(0.2), pairs, 10)


# Killed


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory):
    """The last state of a training of so many steps in one go."""

    def run(steps: int) -> dict:
        folder = tmp_path_factory.mktemp("whole")
        ended(train(folder, *DIGITS, "--steps", steps))
        return load_checkpoint(folder / "run.pt", CPU)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("place", children.PLACES)
def test_a_training_killed_while_it_writes_its_checkpoint_loses_no_step_before_it(place, never_stopped, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    process = train(folder, *DIGITS, "--steps", 30, "--save-every", 10, stand_still=place)
    wait_until(lambda: children.STANDS_STILL in children.said(folder))  # in the third save, that of step 20
    process.kill()
    process.join()
    assert load_checkpoint(folder / "run.pt", CPU)["trainer"]["step"] == (20 if place == "renamed" else 10)
    parts = [path for path in folder.iterdir() if path.name != "run.pt"]
    assert [path.suffix for path in parts] == [".partial"] * (place != "renamed")
    for part in parts:  # not mistaken for a checkpoint, and removed in time: here, the time has come
        os.utime(part, (0, 0))
    ended(train(folder, "--resume"))
    assert equal(load_checkpoint(folder / "run.pt", CPU), never_stopped(30))
    assert [path.name for path in folder.iterdir()] == ["run.pt"]


@pytest.mark.slow
def test_a_training_killed_at_random_moments_ends_with_the_numbers_of_one_never_stopped(never_stopped, tmp_path):
    moments, kills, reached, steps, every = random.Random(0), 8, [], 600, 7
    folder = tmp_path / "run"
    folder.mkdir()
    for kill in range(kills):
        process = train(folder, *(("--resume",) if kill else (*DIGITS, "--steps", steps)), "--save-every", every)
        wait_until(lambda: "saved" in children.said(folder))
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
    assert equal(load_checkpoint(folder / "run.pt", CPU), never_stopped(steps))
    MEASURED.append(f"killed {kills} times, resumed from steps {', '.join(map(str, reached))} of {steps}: nothing lost")


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
        assert (ended.value.code == 0) == (not (message := capsys.readouterr().err).startswith("Error")), message
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
        ValueError, match="run.pt is no checkpoint, or a damaged one.*Expected a file that this library"
    ):
        load_checkpoint(path, CPU)
    monkeypatch.chdir(tmp_path)
    for command in (["evidence", "run.pt"], ["train", "run.pt", "--resume"]):
        with pytest.raises(SystemExit):
            main(command)
        assert "run.pt is no checkpoint" in capsys.readouterr().err
    assert not hostile.mark.exists()
    pickle.loads(pickle.dumps(hostile))
    assert hostile.mark.exists(), "or this test shows nothing"


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
        assert ended.value.code == 1 and message.startswith("Error: ") and "Expected" in message, message
    assert (tmp_path / "run.pt").read_bytes() == before


# A kernel restarted


@pytest.mark.slow
def test_a_kernel_restarted_in_mid_training_leaves_no_process_and_the_checkpoint_continues(tmp_path, monkeypatch):
    for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'tests'}")
    manager, client = start_new_kernel(cwd=str(tmp_path))

    def run(code: str) -> str:
        said = []
        reply = client.execute_interactive(code, timeout=60, output_hook=said.append)
        assert reply["content"]["status"] == "ok", reply["content"]
        return "".join(m["content"].get("text", "") for m in said if m["msg_type"] == "stream").strip()

    try:
        begin = "from dashboards import make\nboard = make('kept.pt', steps=2000, every=100)"
        run(f"{begin}\nboard.advance(150)\nboard.stop()\nboard.start()")
        deadline = time.monotonic() + 60
        while int(run("print(board.trainer.step)")) < 200:
            assert time.monotonic() < deadline, run("print(board.state, board.message.value)")
        assert run("print(board.state)") == "running"
        kernel = psutil.Process(manager.provisioner.process.pid)
        family = [kernel, *kernel.children(recursive=True)]
        manager.restart_kernel(now=True)
        client.wait_for_ready(timeout=60)
        _, alive = psutil.wait_procs(family, timeout=10)
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
