"""The pipeline: the build of the notebooks, nbval's verdict on them, and the Makefile's environment."""

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
from environments import ROOT, make

from rpm_tutorial import datasets

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
    command = [sys.executable, ROOT / "tools" / "build_notebooks.py", "--folder", source.parent]
    subprocess.run(command, check=True)
    return source.with_suffix(".ipynb")


@pytest.mark.slow
def test_a_second_build_changes_no_byte(built: Path):
    first = built.read_bytes()
    build_notebooks.build(built.with_suffix(".py"))
    assert built.read_bytes() == first
    assert first.count(b'"image/png"') == 1 and b"widget-view" not in first
    assert sorted(path.name for path in built.parent.iterdir()) == ["01_tiny.ipynb", "01_tiny.py"]


@pytest.mark.slow
def test_a_failing_cell_is_shown_and_leaves_the_old_notebook(lesson: Path):
    notebook = lesson.with_suffix(".ipynb")
    build_notebooks.write(build_notebooks.read_source(lesson), notebook)
    first = notebook.read_bytes()
    lesson.write_text("# %%\nfound = {}['lost']\n")
    with pytest.raises(SystemExit, match=r"(?s)01_tiny.py failed.*found = \{\}\['lost'\].*KeyError"):
        build_notebooks.build_all([lesson])
    assert notebook.read_bytes() == first


def test_check_names_what_is_out_of_step(lesson: Path):
    assert build_notebooks.check(lesson.parent) == ["01_tiny.ipynb is missing"]
    whole, shorter = build_notebooks.read_source(lesson), build_notebooks.read_source(lesson)
    del shorter.cells[-1]
    build_notebooks.write(shorter, lesson.with_suffix(".ipynb"))
    assert build_notebooks.check(lesson.parent) == ["01_tiny.ipynb has 4 cells, its source 5"]
    build_notebooks.write(whole, lesson.with_suffix(".ipynb"))
    assert build_notebooks.check(lesson.parent) == []
    lesson.write_text(TINY.replace("nats", "bits").replace("nbval-ignore-output", "reproducible"))
    lines = build_notebooks.check(lesson.parent)
    assert [line.split(" is not")[0] for line in lines] == ["01_tiny.ipynb cell 2", "01_tiny.ipynb cell 5"]
    lesson.unlink()
    assert build_notebooks.check(lesson.parent) == ["01_tiny.ipynb has no source 01_tiny.py"]


@pytest.mark.slow
def test_nbval_passes_what_is_as_stored_and_fails_a_changed_number(built: Path, tmp_path: Path):
    (tmp_path / "01_tiny.ipynb").write_text(built.read_text().replace("0.3333 nats", "0.3433 nats"))
    command = [sys.executable, "-m", "pytest", "-q", "-c", ROOT / "pyproject.toml", "--confcutdir", ROOT]
    command += ["-p", "lesson_items", "-p", "no:cacheprovider", tmp_path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT / "tests"), str(ROOT / "tools")))}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert "1 failed, 4 passed" in result.stdout, result.stdout + result.stderr
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


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the Makefile needs of a checkout, in a folder with a space in its name."""
    folder = tmp_path / "a folder with space"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements-tested.txt"):
        shutil.copy(ROOT / name, folder)
    for name in ("tools", "rpm_tutorial"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.mark.parametrize(
    ("command", "pretence", "message"),
    [
        ("lab", "sys.version_info = 3, 9", "Python 3.9 found, 3.11 or newer needed"),
        ("test", "sys.modules['ensurepip'] = None", "apt-get install python3-venv"),
    ],
)
def test_an_unfit_python_is_named_with_the_remedy(checkout: Path, command: str, pretence: str, message: str):
    python = checkout / "fake python"
    pretend = f"import sys; {pretence}; sys.argv.pop(0); exec(open(sys.argv[0]).read())"
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{pretend}" "$@"\n')
    python.chmod(0o755)
    result = make(checkout, command, f"PYTHON={python}")
    assert result.returncode != 0 and message in result.stderr and "PYTHON=python3.12" in result.stderr
    assert not (checkout / ".venv").exists()


@pytest.mark.nightly
def test_a_failed_download_says_what_to_do_and_leaves_no_stamp(checkout: Path):
    no_index = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}
    result = make(checkout, "lab", f"PYTHON={sys.executable}", "PIP_ARGS=--no-index", **no_index)
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
