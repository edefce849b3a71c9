"""The ways in: Binder's files, badges and Colab's cell from one table, links, and what surrounds the code."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import unquote

import build_notebooks
import colab
import doors
import environments
import matrix
import nbformat
import on_binder
import pytest
import teaching
import yaml
from budgets import exceeded
from packaging.version import Version

import rpm_tutorial
from rpm_tutorial import cli

ROOT = Path(__file__).resolve().parents[1]
BINDER = ROOT / "binder"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PUBLISHED = {"repository": "someone/course", "branch": "main"}
LESSONS = sorted(build_notebooks.NOTEBOOKS.glob("[0-9]*.ipynb"))
NEIGHBOURS = sorted(build_notebooks.NEIGHBOURS.glob("N*.ipynb"))


# Badges and Colab's cell


def test_the_readme_is_in_step_with_the_table():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert doors.BLOCK.search(text) and doors.filled(text, doors.table()) == text, "remedy: make build"


def test_the_readmes_picture_is_lesson_0s():
    assert doors.PICTURE.read_bytes() == doors.picture(), "remedy: make build"
    assert f"](notebooks/{doors.PICTURE.name})" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_an_unpublished_course_has_no_badge_and_no_cell():
    nowhere = {"repository": "", "branch": "main"}
    assert doors.badges(nowhere, ["notebooks/00_start_here.ipynb"]) == doors.UNPUBLISHED
    assert doors.install_cell(nowhere) == ""


def test_a_published_course_has_a_badge_for_each_lesson_and_door():
    text = doors.filled((ROOT / "README.md").read_text(encoding="utf-8"), PUBLISHED)
    links = re.findall(r"\[!\[open (\S+) in (\w+)\]\((https://\S+\.svg)\)\]\((https://\S+)\)", text)
    assert [(name, door) for name, door, *_ in links] == [
        (path.stem, d) for path in LESSONS for d in ("Binder", "Colab")
    ]
    for name, door, badge, link in links:
        assert badge == doors.DOORS[door][0] and "someone/course" in link and "{" not in link
        path = unquote(link).split("lab/tree/" if door == "Binder" else "/blob/main/")[1]
        assert path == f"notebooks/{name}.ipynb" and (ROOT / path).exists()


def test_a_repository_that_is_none_is_named(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(doors, "ROOT", tmp_path)
    (tmp_path / "pyproject.toml").write_text('[tool.rpm-tutorial]\nrepository = "https://somewhere/x"\n')
    with pytest.raises(ValueError, match="expected owner/name"):
        doors.table()


def test_each_notebook_of_a_published_course_begins_with_the_cell_that_installs_it(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(doors, "table", lambda: PUBLISHED)
    for path in LESSONS + NEIGHBOURS:
        notebook = build_notebooks.read_source(path.with_suffix(".py"))
        code = build_notebooks.code_cells(notebook)
        assert code[0].source == doors.install_cell(PUBLISHED) and notebook.cells[0].source.startswith("# ")
        assert [cell.source for cell in code].count(code[0].source) == 1
        nbformat.validate(notebook)


def run_install_cell(monkeypatch, *, installed: bool) -> list[list[str]]:
    """The commands that the cell starts on a machine that has the course, or lacks it."""
    commands = []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if installed else None)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.4.1+cu121")
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
    exec(doors.install_cell(PUBLISHED), {})
    return commands


def test_the_cell_does_nothing_where_the_course_is_installed(monkeypatch):
    assert run_install_cell(monkeypatch, installed=True) == []


def test_the_cell_installs_only_the_course_and_holds_torch_where_it_is(monkeypatch):
    (command,) = run_install_cell(monkeypatch, installed=False)
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert command[-2:] == ["rpm-tutorial[course] @ git+https://github.com/someone/course@main", "torch==2.4.1+cu121"]
    assert "-U" not in command and "--upgrade" not in command


@pytest.mark.slow
def test_lessons_run_beside_colabs_kind_of_packages_after_the_cell_and_without_a_restart(tmp_path: Path):
    lessons = [path for path in LESSONS if path.name.startswith(("00", "02"))]
    ran = colab.run(colab.KINDS["tested torch"], lessons, tmp_path)
    assert ran.changed == {} and "rpm-tutorial" in ran.added
    assert ran.seconds > 0 and exceeded("the first cell", ran.seconds, colab.SECONDS) == []


def test_each_of_colabs_kinds_has_run_all_lessons():
    lines = {line["kind"]: line for line in matrix.read(matrix.PAGE.read_text(encoding="utf-8"), "colab")}
    assert list(lines) == list(colab.KINDS), "remedy: make test-colab"
    for kind, packages in colab.KINDS.items():
        line = lines[kind]
        assert line["lessons"] == str(len(LESSONS)) and float(line["the cell's seconds"]) < colab.SECONDS, kind
        held = {name: version for name, version in packages.items() if version}
        assert {name: Version(line[name]).base_version for name in held} == held, kind


# Binder


def test_binders_environment_parses_and_its_torch_is_one_that_the_course_accepts():
    environment = yaml.safe_load((BINDER / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge"]
    asked = dict(re.match(r"([\w-]+)(.*)", item).groups() for item in environment["dependencies"])
    assert set(asked) == {"python", "pip", "pytorch-cpu"}
    dependencies = dict(re.match(r"([\w-]+)(.*)", item).groups() for item in PROJECT["project"]["dependencies"])
    assert asked["pytorch-cpu"] == dependencies["torch"]
    assert tuple(map(int, asked["python"][1:].split("."))) >= (3, 11)


def test_binder_installs_the_data_when_it_is_built():
    assert (BINDER / "apt.txt").read_text().split() == ["dataset-fashion-mnist"]
    assert "dataset-fashion-mnist" in (ROOT / ".ci" / "run").read_text(), "the package that the tests run with"


@pytest.mark.parametrize("name", ["postBuild", "start"])
def test_binders_scripts_are_sound(name: str):
    assert os.access(BINDER / name, os.X_OK)
    assert subprocess.run(["bash", "-n", BINDER / name]).returncode == 0


def test_binder_installs_the_tested_set_but_for_condas_torch_and_numpy(tmp_path: Path):
    """postBuild itself, with a `python` and an `rpm-tutorial` that only say how they were called."""
    (tmp_path / "requirements-tested.txt").write_text((ROOT / "requirements-tested.txt").read_text())
    for name in ("python", "rpm-tutorial"):
        script = tmp_path / name
        script.write_text(
            f'#!/bin/sh\necho {name} "$@"\nfor a in "$@"; do case $a in /*) cp $a {tmp_path}/kept;; esac; done\n'
        )
        script.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    run = subprocess.run([BINDER / "postBuild"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert re.fullmatch(r"python -m pip install .* -c \S+ -e \.\[lab\]\nrpm-tutorial doctor\n", run.stdout)
    tested = set((ROOT / "requirements-tested.txt").read_text().splitlines())
    kept = set((tmp_path / "kept").read_text().splitlines())
    assert sorted(line.split("==")[0] for line in tested - kept) == ["numpy", "torch"] and kept < tested


@pytest.mark.parametrize(("limit", "threads"), [(None, "1"), ("2.0", "2"), ("0.5", "1"), ("4", "4"), ("nonsense", "1")])
def test_binders_start_script_gives_each_library_the_containers_share(limit: str | None, threads: str):
    environment = {"PATH": os.environ["PATH"]} | ({"CPU_LIMIT": limit} if limit else {})
    said = "echo $OMP_NUM_THREADS $MKL_NUM_THREADS $OPENBLAS_NUM_THREADS $JUPYTER_CONFIG_PATH; exit 3"
    run = subprocess.run(
        [BINDER / "start", "sh", "-c", said], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert run.stdout.split(maxsplit=3) == [*[threads] * 3, f"{cli.JUPYTER}\n"] and run.returncode == 3, (
        "and the command's own exit code"
    )


@pytest.mark.slow
def test_what_asks_for_more_memory_than_binder_has_is_noticed(tmp_path: Path):
    greedy = tmp_path / "01_greedy.ipynb"
    cell = nbformat.v4.new_code_cell(f"len(b'1' * {on_binder.MEMORY * 5 // 4})")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), greedy)
    assert "ended for asking for more than 1024 MiB" in tried_on_binder(greedy)


@pytest.mark.slow
def test_the_hungriest_lesson_runs_in_binders_memory_beside_jupyterlab_and_on_one_processor():
    measured = [line.split(",") for line in (ROOT / "docs" / "run_times.csv").read_text().splitlines()[1:]]
    hungriest = max(measured, key=lambda row: int(row[3]))[0]
    assert tried_on_binder(next(ROOT.glob(f"notebooks/**/{hungriest}.ipynb"))) == ""


def tried_on_binder(notebook: Path) -> str:
    try:
        return on_binder.run(notebook)
    except on_binder.Impossible as error:
        pytest.skip(str(error))


# The tested set, versions, links, licences, the teaching guide


def test_the_tested_set_pins_every_requirement():
    pinned = {
        line.split("==")[0].lower()
        for line in (ROOT / "requirements-tested.txt").read_text().splitlines()
        if "==" in line
    }
    extras = PROJECT["project"]["optional-dependencies"]
    needed = [*PROJECT["project"]["dependencies"], *extras["course"], extras["lab"][1], *environments.grouped("test")]
    assert {re.match(r"[\w-]+", item)[0].lower() for item in needed} - pinned == set()


def test_the_version_is_one():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changes = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[1]
    versions = {PROJECT["project"]["version"], citation["version"], changes, rpm_tutorial.__version__}
    assert len(versions) == 1
    assert citation["cff-version"] == "1.2.0" and citation["authors"] and citation["title"]


def test_both_licences_are_there_and_go_into_the_wheel():
    for name in PROJECT["project"]["license-files"]:
        assert (ROOT / name).exists()
    assert "MIT License" in (ROOT / "LICENSE").read_text()
    assert "licenses/by/4.0" in (ROOT / "LICENSE-TEXT.md").read_text()


PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *LESSONS, *NEIGHBOURS])


def text_of(page: Path) -> str:
    if page.suffix == ".md":
        return re.sub(r"(?s)```.*?```", "", page.read_text(encoding="utf-8"))
    cells = nbformat.read(page, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def broken(text: str, folder: Path) -> list[str]:
    """The relative links of a Markdown text that lead nowhere."""
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    relative = [link.split("#")[0] for link in links if not re.match(r"[a-z]+:|#", link)]
    return [link for link in relative if link and not (folder / unquote(link)).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path):
    text = text_of(page)
    if page.parent.name == "docs":  # the site has a copy of the notebooks among its pages
        text = text.replace("](notebooks/", "](../notebooks/")
    assert broken(text, page.parent) == []


def test_a_broken_link_would_be_noticed(tmp_path: Path):
    text = "[a](README.md) [b](gone.md) ![c](no/picture.png) [d](https://e.org) [f](#g) [h](README.md#i)"
    assert broken(text, ROOT) == ["gone.md", "no/picture.png"]


def test_the_readme_names_every_lesson_and_its_first_screen_has_what_a_reader_asks():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in LESSONS if f"(notebooks/{path.name})" not in text] == []
    assert "](notebooks/neighbours)" in text
    screen = "\n".join(text.splitlines()[:60])
    for wanted in ("you can", "**For**", "**Time**", "make lab", "make test", "## Four doors", ".png)"):
        assert wanted in screen, wanted


GUIDE = teaching.GUIDE.read_text(encoding="utf-8")


def test_the_teaching_guide_is_in_step_with_the_lessons():
    assert teaching.filled(GUIDE) == GUIDE, "remedy: make build"


def test_the_teaching_guide_has_each_neighbour_its_minutes_and_the_lesson_before_it():
    rows = re.findall(
        r"(?m)^\| (\d+) \| \[N\d+ .+\]\(notebooks/neighbours/(N\d+_\w+)\.ipynb\) \| (\d+(?:, \d+)*) \|$", GUIDE
    )
    assert [name for _, name, _ in rows] == [path.stem for path in NEIGHBOURS]
    assert all(5 <= int(minutes) <= 30 for minutes, _, _ in rows)


def test_the_teaching_guide_names_all_lessons_as_their_files_are_named():
    titles = re.findall(r"(?m)^### (\d+) (.+)$", GUIDE.split("## Lesson by lesson")[1])
    assert [int(number) for number, _ in titles] == list(range(12))
    names = {f"{int(number):02}_{title.lower().replace(' ', '_')}" for number, title in titles}
    assert {path.stem for path in LESSONS} <= names
    assert teaching.BLOCK.findall(GUIDE) == [f"{number:02}" for number in range(12)]


@pytest.mark.parametrize("source", [path.with_suffix(".py") for path in LESSONS], ids=lambda path: path.stem)
def test_the_minutes_of_a_lesson_add_up_to_its_stated_time(source: Path):
    stated = int(re.search(r"\*\*Time\*\*\s+(\d+)", source.read_text(encoding="utf-8"))[1])
    minutes = teaching.minutes(source)
    assert sum(minutes.values()) == stated and min(minutes.values()) >= 1
    headings = re.findall(r"(?m)^# ## (.+)$", source.read_text(encoding="utf-8"))
    assert list(minutes) == ["Opening", *headings]


@pytest.mark.parametrize("path", re.split(r"(?m)^### ", GUIDE.split("## Three paths")[1].split("## Lesson by")[0])[1:])
def test_a_path_adds_up_and_names_sections_that_exist(path: str):
    assert sum(map(int, re.findall(r"(?m)^\| (\d+) \|", path))) == int(re.search(r"Total: (\d+) minutes", path)[1])
    for row in re.findall(r"(?m)^\| \d+ \| (.*) \|$", path):
        named = re.search(r"[Ll]esson (\d+)", row)
        source = next(build_notebooks.NOTEBOOKS.glob(f"{int(named[1]):02}_*.py"), None) if named else None
        if source:
            assert set(re.findall(r"\*\*(.+?)\*\*", row)) <= set(teaching.sections(source))


def test_a_lesson_without_a_place_in_the_guide_is_named():
    with pytest.raises(ValueError, match="no place for lessons .'03'.*add <!-- lesson NN -->"):
        teaching.filled(GUIDE.replace("<!-- lesson 03 -->", ""))
