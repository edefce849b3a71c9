"""The command line, called as its user calls it, mostly in this process, to save the import of torch."""

import math
import os
import re
import shlex
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from trainings import DIGITS

import rpm_tutorial as rpm
from rpm_tutorial import checkpoints, datasets, environment
from rpm_tutorial.course.cli import main

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def said(capsys, *arguments: object, code: int) -> str:
    """What a command that ends with this code prints as its error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)], prog_name="rpm-tutorial")
    message = capsys.readouterr().err
    assert ended.value.code == code, message
    return message


def test_help_imports_nothing_heavy_nor_does_a_command_before_its_first_word():
    code = """if True:
        import sys
        from rpm_tutorial.course import cli
        heavy = lambda: sorted({"torch", "numpy", "plotly", "sklearn", "IPython"} & set(sys.modules))
        cli.main(["train", "--help"], prog_name="rpm-tutorial", standalone_mode=False)
        cli.click.echo = lambda message, **_: sys.exit(f"{message} {heavy()}")
        cli.main(["train", "new.pt"])"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.startswith("Usage: rpm-tutorial") and run.stderr == "Loading PyTorch ... []\n"


def test_every_command_has_examples_that_parse():
    Path("run.pt").touch()
    for name, command in main.commands.items():
        examples = re.findall(r"^ +rpm-tutorial (.+)$", command.help, re.MULTILINE)
        assert examples or name == "doctor"
        for line in examples:
            command.make_context(name, shlex.split(line)[1:])  # raises if an option or a value is not one


@pytest.mark.parametrize(("residual", "verdict"), [(1e-13, "right"), (1e-6, "WRONG, please report this")])
def test_the_doctor_checks_machine_and_identity_and_says_where_the_data_is(
    residual, verdict, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("RPM_DATA", str(tmp_path))
    monkeypatch.setattr(environment, "identity_residual", lambda: residual)
    with pytest.raises(SystemExit) if residual > 1e-12 else nullcontext():
        main(["doctor"], standalone_mode=False)
    lines = capsys.readouterr().out.splitlines()
    names = ["versions", "device", "threads", "memory", "data", "lab", "identity"]
    assert [line.split()[0] for line in lines] == names and lines[-1].endswith(verdict)
    assert torch.__version__ in lines[0] and str(environment.pick_device()) in lines[1]
    assert "Fashion-MNIST is missing. Remedies" in lines[4]


@pytest.mark.slow
def test_the_doctor_imports_what_it_needs_and_finds_the_identity_right():
    code = """if True:
        import sys
        from rpm_tutorial.course.cli import main
        main(["doctor"], standalone_mode=False)
        print({"IPython", "plotly", "scipy", "sklearn", "torch._dynamo"} & set(sys.modules))"""
    run = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning", "-c", code], capture_output=True, text=True
    )
    assert run.stdout.endswith(": right\nset()\n"), run.stderr


def test_a_training_is_opened_in_python_as_the_readme_says_and_has_the_evidence_of_the_command(capsys):
    main(["train", "run.pt", *DIGITS, "--steps", "20", "--dim", "5", "--save-every", "10"], standalone_mode=False)
    out = capsys.readouterr().out
    assert re.findall(r"step +(\d+) of 20: InfoNCE \d\.\d{3} nats", out) == ["10", "20"]
    main(["evidence", "run.pt", "--seed", "3"], standalone_mode=False)
    words = capsys.readouterr().out
    infonce, log_evidence = map(float, re.findall(r"(-?[\d.]+) nats per pair[, ]", words.replace("\n", " ")))
    assert "after step 20 of 20" in words and "500 of digits, held out" in words
    assert infonce - log_evidence == pytest.approx(2 * math.log(500), abs=2e-4)

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    names = {"rpm": rpm}
    exec(re.search(r"(?s)```python\n(state = rpm\..*?)```", readme)[1].replace("conv(state", "mlp(64, state"), names)
    draw, encoder = torch.Generator().manual_seed(3), names["encoder"].eval()
    views = datasets.two_views(datasets.digits("test").x, flip=False, generator=draw)
    expected = rpm.infonce(names["critic"](*map(encoder, views))).value.item()  # the same by the table
    assert infonce == pytest.approx(expected, abs=1e-4) and infonce > 1
    pairs = datasets.view_pairs(datasets.digits("train").x, 64, flip=False)
    trainer = rpm.Trainer(names["encoder"], names["critic"], pairs, 20)
    trainer.load("run.pt")
    assert trainer.step == 20


TYPED_WRONG = {
    "train there.pt": "there.pt exists. Remedy: continue it with --resume",
    "train there.pt --resume --steps 5": "--steps can't be given with --resume",
    "train 'no folder/run.pt'": "the folder no folder does not exist. Remedy",
    "train run.pt --steps 0": "0 is not in the range",
    "export": "name what to export: --student DIR",
    "export --student full": "full is not empty. Remedy",
    "export --student a --only 99": "there are 00_start_here",
}
FAILS = {
    "evidence two.pt": "in current model is torch.Size([2]). Expected a file that rpm-tutorial train saved",
    "evidence plain.pt": "plain.pt holds no settings. Expected a file that rpm-tutorial train saved",
    "train plain.pt --resume": "plain.pt holds no settings. Expected a file that rpm-tutorial train saved",
    "train there.pt --resume": "there.pt is no checkpoint",
    "train run.pt": "apt-get install dataset-fashion-mnist",
    "train run.pt --data digits --batch-size 5000": "expected a number from 1 to the 1297 rows of x",
    f"train run.pt --data digits --dim {10**15} --device cpu": ". Remedy: a smaller --dim or --batch-size",
}


def test_a_command_that_fails_says_why_and_what_to_do_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RPM_DATA", str(tmp_path))
    Path("there.pt").touch()
    Path("full/mine").mkdir(parents=True)
    said(capsys, "train", "three.pt", *DIGITS, "--steps", 1, "--dim", 3, code=0)
    state = checkpoints.load_checkpoint("three.pt")
    checkpoints.save_checkpoint(state | {"settings": state["settings"] | {"dim": 2}}, "two.pt")
    checkpoints.save_checkpoint({name: state[name] for name in state if name != "settings"}, "plain.pt")
    for arguments, words in (TYPED_WRONG | FAILS).items():
        code, begin = (2, "Usage: rpm-tutorial") if arguments in TYPED_WRONG else (1, "Loading PyTorch ...\nError: ")
        message = said(capsys, *shlex.split(arguments), code=code)
        assert message.startswith(begin) and words in message, arguments
    assert {path.name for path in tmp_path.iterdir()} == {"there.pt", "full", "three.pt", "two.pt", "plain.pt"}


@pytest.mark.parametrize("data, flips", [("digits", False), ("fashion-mnist", True)])
def test_clothes_are_mirrored_and_digits_are_not_in_training_and_evidence(data, flips, monkeypatch):
    seen, two_views = [], datasets.two_views
    monkeypatch.setattr(datasets, "two_views", lambda x, **o: seen.append(o["flip"]) or two_views(x, **o))
    monkeypatch.setattr(datasets, "fashion_mnist", lambda split: datasets.Images(torch.rand(64, 1, 28, 28), None))
    settings = ("--data", data, "--batch-size", "32", "--steps", "1", "--device", "cpu")
    for arguments in (["train", "run.pt", *settings], ["evidence", "run.pt"]):
        main(arguments, standalone_mode=False)
    assert seen == [flips, flips]


@pytest.mark.slow
def test_the_installed_command_brings_the_lessons_along(tmp_path):
    """The wheel, built from the checkout and installed alone."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT]
    subprocess.run(build, check=True, env=os.environ | {"PYTHONPATH": ""})
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "-q", "--no-deps", "--target", site, *tmp_path.glob("*.whl")], check=True)
    command = [site / "bin" / "rpm-tutorial", "export", "--student", "handout"]
    variables = os.environ | {"PYTHONPATH": str(site)}
    run = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    lessons = ROOT / "notebooks"
    found = [path for folder in ("", "neighbours", "study") for path in (lessons / folder).glob("*.ipynb")]
    ours = {path.relative_to(lessons) for path in found}
    assert run.stdout == f"{len(ours)} notebooks for student in handout\n"
    assert {path.relative_to("handout") for path in Path("handout").rglob("*.ipynb")} == ours


def test_lab_puts_the_lessons_into_an_empty_folder_and_overwrites_nothing(monkeypatch, capsys):
    started, folder = [], Path("my course")
    monkeypatch.setattr(os, "execve", lambda program, command, environment: started.append(command))
    for new in (True, False):
        main(["lab", str(folder), "--port", "8899"], standalone_mode=False)
        assert ("The lessons are in" in capsys.readouterr().out) == new
        (folder / "00_start_here.ipynb").write_text("the reader's")
        (folder / "01_the_model.ipynb").unlink(missing_ok=True)
    assert (folder / "00_start_here.ipynb").read_text() == "the reader's"
    assert not (folder / "01_the_model.ipynb").exists()
    assert "--LabApp.default_url=/lab/tree/my course/00_start_here.ipynb" in started[0] == started[1]
    assert "--port=8899" in started[0]
