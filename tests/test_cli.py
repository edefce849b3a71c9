"""The command line, called as its user calls it: in a folder of its own, through a new process."""

import math
import os
import re
import shlex
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from budgets import HANG
from needs import NO_DEPRECATIONS

import rpm_tutorial as rpm
from rpm_tutorial import checkpoints, critics, datasets, encoders, environment, objectives
from rpm_tutorial.course.cli import main

ROOT = Path(__file__).resolve().parents[1]
STEPS = 400  # some seconds: a signal comes before the end
DIGITS = ("--data", "digits", "--batch-size", "64")
SLOW_TO_IMPORT = {"IPython", "plotly", "scipy", "sklearn", "torch._dynamo"}  # of no use to a command, or not yet


def rpm_tutorial(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "rpm_tutorial.course.cli", *map(str, arguments)]
    environment = {**os.environ, **NO_DEPRECATIONS, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> dict:
    """The wheel, built from the checkout and installed alone: what to start, and the environment that finds it."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    subprocess.run(build, check=True, env=os.environ | {"PYTHONPATH": ""})
    subprocess.run([*pip, "install", "-q", "--no-deps", "--target", folder / "site", *folder.glob("*.whl")], check=True)
    return {
        "command": str(folder / "site" / "bin" / "rpm-tutorial"),
        "env": os.environ | {"PYTHONPATH": str(folder / "site")},
    }


def said(capsys, *arguments: object, code: int) -> str:
    """What a command that ends with this code prints as its error; in this process, to save the import of torch."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)], prog_name="rpm-tutorial")
    message = capsys.readouterr().err
    assert ended.value.code == code, message
    return message


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A short training on digits that was never stopped. Tests leave it as it is."""
    folder = tmp_path_factory.mktemp("trained")
    result = rpm_tutorial("train", "run.pt", *DIGITS, "--steps", STEPS, "--save-every", 100, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert re.findall(r"step +(\d+) of 400: InfoNCE \d\.\d{3} nats", result.stdout) == ["100", "200", "300", "400"]
    assert result.stdout.endswith("Saved to run.pt. Next: rpm-tutorial evidence run.pt\n")
    return folder / "run.pt"


def test_help_imports_nothing_heavy():
    code = """if True:
        import sys
        from rpm_tutorial.course.cli import main
        main(["train", "--help"], prog_name="rpm-tutorial", standalone_mode=False)
        assert not {"torch", "numpy", "plotly", "sklearn", "IPython"} & set(sys.modules)"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout.startswith("Usage: rpm-tutorial"), run.stderr


def test_a_command_says_something_before_it_imports_anything_heavy(tmp_path: Path):
    code = """if True:
        import sys
        from rpm_tutorial import cli
        def first_word(message, **_):
            sys.exit(f"{message} {sorted({'torch', 'numpy', 'plotly', 'sklearn', 'IPython'} & set(sys.modules))}")
        cli.click.echo = first_word
        cli.main(["train", "new.pt"])"""
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.stderr == "Loading PyTorch ... []\n"


def test_every_command_has_examples_that_parse(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("run.pt").touch()
    examples = 0
    for name, command in main.commands.items():
        for line in re.findall(r"^ +rpm-tutorial (.+)$", command.help, re.MULTILINE):
            command.make_context(name, shlex.split(line)[1:])  # raises if an option or a value is not one
            examples += 1
    assert examples >= len(main.commands)


@pytest.mark.slow
def test_the_doctor_checks_the_identity_and_says_where_the_data_is(tmp_path: Path):
    well = rpm_tutorial("doctor", cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    assert well.returncode == 0, well.stderr
    names = ["versions", "device", "threads", "memory", "data", "lab", "identity"]
    assert [line.split()[0] for line in well.stdout.splitlines()] == names
    assert well.stdout.endswith("right\n")
    imported = set(re.findall(r"^import time:.*\| +(\S+)$", well.stderr, re.MULTILINE))
    assert imported & {"torch", *SLOW_TO_IMPORT} == {"torch"}
    without = rpm_tutorial("doctor", cwd=tmp_path, RPM_DATA=str(tmp_path))
    assert without.returncode == 0 and "Fashion-MNIST is missing. Remedies" in without.stdout


def test_a_broken_identity_is_an_error(monkeypatch, capsys):
    monkeypatch.setattr(environment, "identity_residual", lambda: 1e-3)
    said(capsys, "doctor", code=1)


@pytest.mark.slow
def test_the_evidence_of_a_training_is_that_of_the_library(trained: Path, tmp_path: Path):
    result = rpm_tutorial("evidence", trained, "--seed", 3, cwd=tmp_path)
    assert "pairs         500 of digits, held out" in result.stdout, result.stderr
    infonce, log_evidence = (float(value) for value in re.findall(r"(-?[\d.]+) nats per pair", result.stdout))
    assert abs(infonce - log_evidence - 2 * math.log(500)) < 2e-4
    state = checkpoints.load_checkpoint(trained, torch.device("cpu"))  # the same by the table, of networks made by hand
    encoder, critic = encoders.mlp(64, 16).eval(), critics.VonMisesFisher()
    encoder.load_state_dict(state["encoder"])
    critic.load_state_dict(state["critic"])
    draw = torch.Generator().manual_seed(3)
    views = datasets.two_views(datasets.digits("test").x, flip=False, generator=draw)
    expected = objectives.infonce(critic(*map(encoder, views))).value.item()
    assert abs(infonce - expected) < 1e-4 and infonce > 2


@pytest.mark.slow
def test_a_training_that_was_stopped_and_resumed_has_the_numbers_of_one_that_was_not(trained: Path, tmp_path: Path):
    command = [sys.executable, "-m", "rpm_tutorial.course.cli", "train", "run.pt", *DIGITS, "--steps", str(STEPS)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    hears = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # which a shell's background job ignores
    process = subprocess.Popen([*command, "--save-every", "1"], cwd=tmp_path, preexec_fn=hears, **pipes)
    assert any(line.startswith("step     3 of 400") for line in process.stdout)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=HANG)
    assert process.returncode == 1 and "Traceback" not in message
    assert re.search(r"Stopped after step \d+ of 400, and saved. Continue: rpm-tutorial train run.pt --resume", message)
    resumed = rpm_tutorial("train", "run.pt", "--resume", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    one, other = (checkpoints.load_checkpoint(path, torch.device("cpu")) for path in (trained, tmp_path / "run.pt"))
    for part in ("encoder", "critic"):
        for name, tensor in one[part].items():
            assert torch.equal(tensor, other[part][name]), name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.pt"]
    finished = rpm_tutorial("train", "run.pt", "--resume", cwd=tmp_path)
    assert finished.stdout == "run.pt is complete: its 400 steps are made. Next: rpm-tutorial evidence run.pt\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("train there.pt", "there.pt exists. Remedy: continue it with --resume"),
        ("train there.pt --resume --steps 5", "--steps can't be given with --resume"),
        ("train 'no folder/run.pt'", "the folder no folder does not exist. Remedy"),
        ("train run.pt --steps 0", "0 is not in the range"),
        ("export", "name what to export: --student DIR"),
        ("export --student full", "full is not empty. Remedy"),
        ("export --student a --only 99", "there are 00_start_here"),
    ],
)
def test_a_command_typed_wrong_is_told_how_and_leaves_nothing(arguments, words, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("there.pt").touch()
    Path("full").mkdir()
    Path("full/mine.txt").touch()
    message = said(capsys, *shlex.split(arguments), code=2)
    assert message.startswith("Usage: rpm-tutorial") and words in message
    assert not Path("a").exists() and not Path("run.pt").exists()


def test_what_fails_says_why_and_what_to_do(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RPM_DATA", str(tmp_path))
    Path("text.pt").write_text("not a checkpoint")
    said(capsys, "train", "three.pt", *DIGITS, "--steps", 1, "--dim", 3, code=0)
    state = checkpoints.load_checkpoint(Path("three.pt"))
    state["settings"]["dim"] = 2
    checkpoints.save_checkpoint(state, Path("two.pt"))
    for arguments, words in {
        "evidence two.pt": "in current model is torch.Size([2]). Expected a file that rpm-tutorial train saved",
        "train text.pt --resume": "text.pt is no checkpoint",
        "train run.pt": "apt-get install dataset-fashion-mnist",
        "train run.pt --data digits --batch-size 5000": "expected a number from 1 to the 1297 rows of x",
        f"train run.pt --data digits --dim {10**15} --device cpu": ". Remedy: a smaller --dim or --batch-size",
    }.items():
        message = said(capsys, *arguments.split(), code=1)
        assert message.startswith("Loading PyTorch ...\nError: ") and words in message
    assert not Path("run.pt").exists()


@pytest.mark.parametrize("data, flips", [("digits", False), ("fashion-mnist", True)])
def test_clothes_are_mirrored_and_digits_are_not_in_training_and_evidence(data, flips, tmp_path: Path, monkeypatch):
    seen, two_views = [], datasets.two_views
    monkeypatch.setattr(datasets, "two_views", lambda x, **o: seen.append(o["flip"]) or two_views(x, **o))
    monkeypatch.setattr(datasets, "fashion_mnist", lambda split: datasets.Images(torch.rand(64, 1, 28, 28), None))
    path, settings = str(tmp_path / "run.pt"), ("--data", data, "--batch-size", "32", "--steps", "1", "--device", "cpu")
    for arguments in (["train", path, *settings], ["evidence", path]):
        main(arguments, standalone_mode=False)
    assert seen == [flips, flips]


def test_a_training_of_the_command_is_opened_in_python_as_the_readme_says(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["train", "run.pt", *DIGITS, "--steps", "3", "--dim", "5"], standalone_mode=False)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    names = {"rpm": rpm}
    exec(re.search(r"(?s)```python\n(state = rpm\..*?)```", readme)[1].replace("conv(state", "mlp(64, state"), names)
    assert rpm.encode(names["encoder"], datasets.digits().x[:7]).shape == (7, 5)
    pairs = datasets.view_pairs(datasets.digits("train").x, 64, flip=False)
    trainer = rpm.Trainer(names["encoder"], names["critic"], pairs, 3)
    trainer.load("run.pt")
    assert trainer.step == 3


@pytest.mark.slow
def test_the_installed_command_brings_the_lessons_along(installed: dict, tmp_path: Path):
    def run(*arguments: str) -> str:
        command = [installed["command"], *arguments]
        result = subprocess.run(command, cwd=tmp_path, env=installed["env"], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stdout

    ours = [path for folder in ("", "neighbours", "study") for path in (ROOT / "notebooks" / folder).glob("*.ipynb")]
    assert run("export", "--student", "handout") == f"{len(ours)} notebooks for student in handout\n"
    given = {path.relative_to(tmp_path / "handout") for path in (tmp_path / "handout").rglob("*.ipynb")}
    assert given == {path.relative_to(ROOT / "notebooks") for path in ours}


def test_lab_puts_the_lessons_into_an_empty_folder_and_overwrites_nothing(tmp_path: Path, monkeypatch, capsys):
    started, folder = [], tmp_path / "my course"
    monkeypatch.setattr(os, "execve", lambda program, command, environment: started.append(command))
    for new in (True, False):
        main(["lab", str(folder)], standalone_mode=False)
        assert ("The lessons are in" in capsys.readouterr().out) == new
        (folder / "00_start_here.ipynb").write_text("the reader's")
        (folder / "01_the_model.ipynb").unlink(missing_ok=True)
    assert (folder / "00_start_here.ipynb").read_text() == "the reader's"
    assert not (folder / "01_the_model.ipynb").exists()
    assert "--LabApp.default_url=/lab/tree/my course/00_start_here.ipynb" in started[0] == started[1]
