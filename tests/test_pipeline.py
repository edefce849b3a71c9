"""The pipeline: the build of the notebooks, nbval's verdict on them, and the Makefile's two commands."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import build_notebooks
import chromium
import needs
import pytest

from rpm_tutorial import datasets

ROOT = Path(__file__).resolve().parents[1]
TINY = """\
# %% [markdown]
# # A tiny lesson

# %% tags=["reproducible"]
print(f"I = {1 / 3:.4f} nats")

# %%
import plotly.graph_objects as go

go.Figure(go.Scatter(x=[0, 1, 2], y=[0.5, 1.5, 1.0]))

# %%
from tqdm.auto import tqdm

sum(tqdm([1, 2]))

# %% tags=["nbval-ignore-output"]
import time

print(time.time())
"""


def tool(name: str, *arguments: object, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "tools" / name, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, **options)


@pytest.fixture
def lesson(tmp_path: Path) -> Path:
    source = tmp_path / "01_tiny.py"
    source.write_text(TINY)
    return source


@pytest.fixture(scope="module")
def built(tmp_path_factory, chromium_path: str) -> Path:
    """TINY's notebook, built once. Tests leave it as it is."""
    source = tmp_path_factory.mktemp("built") / "01_tiny.py"
    source.write_text(TINY)
    result = tool("build_notebooks.py", "--folder", source.parent)
    assert result.returncode == 0, result.stderr
    return source.with_suffix(".ipynb")


@pytest.mark.slow
def test_a_second_build_changes_no_byte(built: Path):
    first = built.read_bytes()
    tool("build_notebooks.py", "--folder", built.parent, check=True)
    assert built.read_bytes() == first
    assert first.count(b'"image/png"') == 1 and b"widget-view" not in first
    assert sorted(path.name for path in built.parent.iterdir()) == ["01_tiny.ipynb", "01_tiny.py"]


@pytest.mark.slow
def test_a_failing_cell_is_shown_and_leaves_the_old_notebook(lesson: Path):
    notebook = lesson.with_suffix(".ipynb")
    build_notebooks.write(build_notebooks.read_source(lesson), notebook)
    first = notebook.read_bytes()
    lesson.write_text("# %%\nfound = {}['lost']\n")
    result = tool("build_notebooks.py", "--folder", lesson.parent)
    assert result.returncode == 1
    assert all(text in result.stderr for text in ("01_tiny.py failed", "found = {}['lost']", "KeyError"))
    assert notebook.read_bytes() == first


def test_check_names_what_is_out_of_step(lesson: Path):
    def stored(cells: list) -> None:
        notebook = build_notebooks.read_source(lesson)
        notebook.cells = cells
        build_notebooks.write(notebook, lesson.with_suffix(".ipynb"))

    assert build_notebooks.check(lesson.parent) == ["01_tiny.ipynb is missing"]
    cells = build_notebooks.read_source(lesson).cells
    stored(cells)
    assert build_notebooks.check(lesson.parent) == []
    stored(cells[:-1])
    assert build_notebooks.check(lesson.parent) == ["01_tiny.ipynb has 4 cells, its source 5"]
    stored(cells)
    lesson.write_text(TINY.replace("nats", "bits").replace("nbval-ignore-output", "reproducible"))
    lines = build_notebooks.check(lesson.parent)
    assert [line.split(" is not")[0] for line in lines] == ["01_tiny.ipynb cell 2", "01_tiny.ipynb cell 5"]
    lesson.rename(lesson.with_name("02_other.py"))
    assert "01_tiny.ipynb has no source 01_tiny.py" in build_notebooks.check(lesson.parent)


@pytest.mark.slow
def test_nbval_passes_a_fresh_notebook_and_fails_a_changed_number(built: Path, tmp_path: Path):
    shutil.copy(built, tmp_path)
    (tmp_path / "02_changed.ipynb").write_text(built.read_text().replace("0.3333 nats", "0.3433 nats"))
    command = [sys.executable, "-m", "pytest", "-q", "-c", ROOT / "pyproject.toml", "--confcutdir", ROOT]
    command += ["-p", "lesson_items", "-p", "no:cacheprovider", tmp_path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "tests"), str(ROOT / "tools")))}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert "1 failed, 9 passed" in result.stdout, result.stdout + result.stderr
    assert "number 0.3333, stored 0.3433" in result.stdout
    assert re.search(r"01_tiny +[\d.]+ +[\d.]+ +Cell \d, [\d.]+ s +\d+\n", result.stdout), "the table of costs"


@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_what_the_machine_lacks_is_a_named_skip_but_an_error_in_ci(ci: str, outcome: type, monkeypatch, tmp_path: Path):
    monkeypatch.setenv("CI", ci)
    monkeypatch.delenv("RPM_DATA", raising=False)
    monkeypatch.setattr(chromium, "find", lambda: None)
    monkeypatch.setattr(datasets, "DEBIAN_FOLDER", tmp_path)
    monkeypatch.setattr(datasets.DOWNLOADS, "path", tmp_path)
    with pytest.raises(outcome, match="apt-get install chromium"):
        needs.need_chromium()
    with pytest.raises(outcome, match="apt-get install dataset-fashion-mnist"):
        needs.need_fashion_mnist()


def fake_python(path: Path, *, version: str = "", lacks: str = "") -> Path:
    """A Python that says it has another version, or lacks a module."""
    pretend = f"import sys; sys.argv = sys.argv[1:]; sys.modules.update({{name: None for name in {lacks.split()}}})"
    pretend += f"; sys.version_info = tuple(map(int, {version.split('.')}))" if version else ""
    pretend += "; exec(open(sys.argv[0]).read())"
    path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{pretend}" "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the Makefile needs of a checkout, in a folder with a space in its name."""
    folder = tmp_path / "a folder with space"
    (folder / "notebooks").mkdir(parents=True)
    (folder / "notebooks" / "00_start_here.ipynb").write_text(
        json.dumps({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    )
    for name in ("Makefile", "pyproject.toml", "requirements-tested.txt"):
        shutil.copy(ROOT / name, folder)
    for name in ("tools", "rpm_tutorial"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def make(folder: Path, *arguments: object) -> subprocess.CompletedProcess:
    no_index = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    command = ["make", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment | no_index, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("command", "python", "message"),
    [
        ("lab", {"version": "3.9"}, "Python 3.9 found, 3.11 or newer needed"),
        ("test", {"lacks": "ensurepip"}, "apt-get install python3-venv"),
    ],
)
def test_an_unfit_python_is_named_with_the_remedy(checkout: Path, command: str, python: dict, message: str):
    result = make(checkout, command, f"PYTHON={fake_python(checkout / 'fake python', **python)}")
    assert result.returncode != 0 and message in result.stderr and "PYTHON=python3.12" in result.stderr
    assert not (checkout / ".venv").exists()


@pytest.mark.slow
def test_a_failed_download_says_what_to_do_and_leaves_no_stamp(checkout: Path):
    result = make(checkout, "lab", f"PYTHON={sys.executable}", "PIP_ARGS=--no-index")
    assert result.returncode != 0 and "Making .venv" in result.stdout
    assert "Check the network and run the same command again: it continues" in result.stderr
    assert not list(checkout.glob(".venv/installed-*"))


def test_a_finished_install_is_repeated_only_for_a_changed_requirement_or_another_folder(checkout: Path):
    def is_up_to_date(folder: Path) -> bool:
        return make(folder, "-q", ".venv/installed-lab", ".venv/installed-test").returncode == 0

    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (checkout / ".venv" / "folder").write_text(f"{checkout.resolve()}\n")
    for extras in ("lab", "test"):
        (checkout / ".venv" / f"installed-{extras}").touch()
    assert is_up_to_date(checkout)
    moved = checkout.rename(checkout.with_name("moved"))
    assert not is_up_to_date(moved)
    checkout = moved.rename(checkout)
    os.utime(checkout / "requirements-tested.txt", (time.time() + 60,) * 2)
    assert not is_up_to_date(checkout)
