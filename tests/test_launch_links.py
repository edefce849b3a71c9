"""The ways in: Binder's files, badges and Colab's cell from one table, links, and what surrounds the code."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import unquote

import build_notebooks
import colab
import environments
import launch_links
import nbformat
import on_binder
import project_urls
import pytest
import tables
import teaching
import yaml
from budgets import exceeded
from packaging.version import Version

import rpm_tutorial
from rpm_tutorial import cli

ROOT = Path(__file__).resolve().parents[1]
BINDER = ROOT / "binder"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LESSONS = sorted(build_notebooks.NOTEBOOKS.glob("[0-9]*.ipynb"))
NEIGHBOURS = sorted(build_notebooks.NEIGHBOURS.glob("N*.ipynb"))


# The README, badges and addresses


def test_the_readme_has_each_lesson_and_lesson_0s_picture():
    assert launch_links.PICTURE.read_bytes() == launch_links.picture(), "remedy: make build"
    assert [path.name for path in LESSONS if f"(notebooks/{path.name})" not in README] == []


@pytest.mark.parametrize(
    ("variable", "origin", "named", "expected"),
    [
        ("some/course", "https://github.com/other/course.git", "", "some/course"),
        ("", "https://github.com/other/course.git", "third/course", "other/course"),
        ("", "git@github.com:other/my.course", "", "other/my.course"),
        ("", "https://elsewhere.org/other/course", "third/course", "third/course"),
        ("", "", "", ""),
        ("", "", "https://somewhere/x", ValueError),
    ],
)
def test_the_repository_is_that_of_the_workflow_else_of_origin_else_of_the_project(
    monkeypatch, tmp_path: Path, variable: str, origin: str, named: str, expected
):
    monkeypatch.setattr(launch_links, "ROOT", tmp_path)
    monkeypatch.setenv("GITHUB_REPOSITORY", variable)
    (tmp_path / "pyproject.toml").write_text(f'[tool.rpm-tutorial]\nrepository = "{named}"\n')
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    if origin:
        subprocess.run(["git", "remote", "add", "origin", origin], cwd=tmp_path, check=True)
    if expected is ValueError:
        with pytest.raises(ValueError, match="expected owner/name"):
            launch_links.repository.__wrapped__()
    else:
        assert launch_links.repository.__wrapped__() == expected


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """The copy that the workflow pushes: of a clone that knows its repository by its remote alone."""
    folder = tmp_path_factory.mktemp("fork") / "a copy"
    environment = {key: value for key, value in os.environ.items() if key != "GITHUB_REPOSITORY"}
    clone = folder.with_name("clone")
    shutil.copytree(ROOT, clone, ignore=environments.OWN)
    for git in ("init", "add -A", "commit -m all", "remote add origin git@github.com:Someone/course.git"):
        who = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
        subprocess.run(["git", *who, *git.split()], cwd=clone, check=True, capture_output=True)
    command = [sys.executable, "tools/launch_links.py", "--publish", folder]
    subprocess.run(command, cwd=clone, env=environment, check=True)
    return folder


def test_a_fork_has_a_badge_for_each_lesson_and_service_without_an_edit(published: Path):
    readme = (published / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\[!\[open (\S+) in (\w+)\]\(\S+\.svg\)\]\((https://\S+)\)", readme)
    assert [(name, service) for name, service, _ in links] == [
        (p.stem, d) for p in LESSONS for d in ("Binder", "Colab")
    ]
    for name, service, link in links:
        path = unquote(link).split("lab/tree/" if service == "Binder" else "/blob/published/")[1]
        assert "Someone/course" in link and (published / path).stem == name and (published / path).exists()
    assert "<https://someone.github.io/course/>" in readme
    assert "pip install 'rpm-tutorial[lab] @ git+https://github.com/Someone/course@published'" in readme


def test_the_copy_has_the_forks_addresses_and_no_workflow_which_a_workflows_token_may_not_push(published: Path):
    assert (published / ".ci").exists() and not (published / ".github").exists()
    citation = yaml.safe_load((published / "CITATION.cff").read_text(encoding="utf-8"))
    home = "https://github.com/Someone/course"
    assert (citation["repository-code"], citation["url"]) == (home, "https://someone.github.io/course/")
    named = tomllib.loads((published / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["rpm-tutorial"]
    assert project_urls.urls(**named)["Source"] == home and project_urls.urls("") == {"Paper": project_urls.PAPER}
    edit = launch_links.links_to_source("notebooks/00_start_here.py", "a/b")["Edit this page"]
    assert edit == "https://github.com/a/b/edit/main/notebooks/00_start_here.py"


# Colab's cell


def test_each_notebook_of_a_fork_begins_with_the_cell_that_installs_it(published: Path):
    for path in LESSONS + NEIGHBOURS:
        ours = nbformat.read(path, as_version=4)
        theirs = nbformat.read(published / path.relative_to(ROOT), as_version=4)
        nbformat.validate(theirs)
        install = theirs.cells.pop(1)
        assert install.source == launch_links.INSTALL.format(repository="Someone/course") and theirs.cells == ours.cells


@pytest.mark.parametrize("installed", [True, False])
def test_the_cell_installs_only_the_course_and_holds_torch_where_it_is(monkeypatch, installed: bool):
    commands = []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: installed or None)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.4.1+cu121")
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
    exec(launch_links.INSTALL.format(repository="someone/course"), {})
    course = "rpm-tutorial[course] @ git+https://github.com/someone/course@published"
    expected = [sys.executable, "-m", "pip", "install", "-q", course, "torch==2.4.1+cu121"]
    assert commands == ([] if installed else [expected])


@pytest.mark.nightly
def test_lessons_run_beside_colabs_kind_of_packages_after_the_cell_and_without_a_restart(tmp_path: Path):
    lessons = [path for path in LESSONS if path.name.startswith(("00", "02"))]
    ran = colab.run(colab.KINDS["tested torch"], lessons, tmp_path)
    assert ran.changed == {} and "rpm-tutorial" in ran.added
    assert ran.seconds > 0 and exceeded("the first cell", ran.seconds, colab.SECONDS) == []


@pytest.mark.nightly
def test_each_of_colabs_kinds_has_run_all_lessons():
    lines = {line["kind"]: line for line in tables.read("colab")}
    assert list(lines) == list(colab.KINDS), "remedy: make test-colab"
    for kind, packages in colab.KINDS.items():
        assert lines[kind]["lessons"] == str(len(LESSONS)) and float(lines[kind]["the cell's seconds"]) < colab.SECONDS
        held = {name: version for name, version in packages.items() if version}
        assert {name: Version(lines[kind][name]).base_version for name in held} == held, kind


# Binder


def test_binders_files_agree_with_the_project():
    environment = yaml.safe_load((BINDER / "environment.yml").read_text())
    torch = next(item for item in PROJECT["dependencies"] if item.startswith("torch"))
    assert f"pytorch-cpu{torch.removeprefix('torch')}" in environment["dependencies"]
    (data,) = (BINDER / "apt.txt").read_text().split()
    assert data in (ROOT / ".ci" / "run").read_text(), "the package that the tests run with"


def test_binder_installs_the_tested_set_but_for_condas_torch_and_numpy(tmp_path: Path):
    """postBuild itself, with a `python` and an `rpm-tutorial` that say how they were called, and what the constraints are."""
    for name in ("python", "rpm-tutorial"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@"\ncat $(echo "$@" | grep -o "/[^ ]*")\n')
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    said = subprocess.check_output(
        [BINDER / "postBuild"], cwd=ROOT, env=environment, text=True, stdin=subprocess.DEVNULL
    ).splitlines()
    assert re.fullmatch(r"python -m pip install .* -c \S+ -e \.\[lab\]", said[0]) and said[-1] == "rpm-tutorial doctor"
    tested = (ROOT / "requirements-tested.txt").read_text().splitlines()
    assert [line.split("==")[0] for line in tested if line not in said] == ["numpy", "torch"]
    assert set(said[1:-1]) < set(tested)


@pytest.mark.parametrize(("limit", "threads"), [(None, "1"), ("2.0", "2")])
def test_binders_start_script_gives_each_library_the_containers_share(limit: str | None, threads: str):
    environment = {"PATH": os.environ["PATH"]} | ({"CPU_LIMIT": limit} if limit else {})
    said = "echo $OMP_NUM_THREADS $MKL_NUM_THREADS $OPENBLAS_NUM_THREADS $JUPYTER_CONFIG_PATH; exit 3"
    command = [BINDER / "start", "sh", "-c", said]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.stdout.split(maxsplit=3) == [*[threads] * 3, f"{cli.JUPYTER}\n"] and run.returncode == 3


@pytest.mark.nightly
def test_the_hungriest_lesson_runs_in_binders_memory_beside_jupyterlab_and_on_one_processor(tmp_path: Path):
    measured = [line.split(",") for line in (ROOT / "docs" / "run_times.csv").read_text().splitlines()[1:]]
    hungriest = max(measured, key=lambda row: int(row[3]))[0]
    greedy = tmp_path / "01_greedy.ipynb"
    cell = nbformat.v4.new_code_cell(f"len(b'1' * {on_binder.MEMORY * 5 // 4})")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), greedy)
    try:
        assert on_binder.run(next(ROOT.glob(f"notebooks/**/{hungriest}.ipynb"))) == ""
        assert "ended for asking for more than 1024 MiB" in on_binder.run(greedy), "or this shows nothing"
    except on_binder.Impossible as error:
        pytest.skip(str(error))


# The version, links


def test_the_version_is_one():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changes = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert {PROJECT["version"], citation["version"], changes} == {rpm_tutorial.__version__}


PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *LESSONS, *NEIGHBOURS])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path):
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        cells = nbformat.reads(text, as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    text = re.sub(r"(?s)```.*?```", "", text)
    if page.parent.name == "docs":  # the site has a copy of the notebooks among its pages
        text = text.replace("](notebooks/", "](../notebooks/")
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        on_github = re.match(r"[a-z]+:|\.\./\.\./tree/", link)  # or elsewhere
        assert on_github or (page.parent / unquote(link)).exists(), link


# The teaching guide


GUIDE = teaching.GUIDE.read_text(encoding="utf-8")


def test_the_teaching_guide_is_in_step_with_the_lessons_and_names_each_of_them():
    assert teaching.filled(GUIDE) == GUIDE, "remedy: make build"
    titles = re.findall(r"(?m)^### (\d+) (.+)$", GUIDE.split("## Lesson by lesson")[1])
    assert {f"{int(n):02}_{title.lower().replace(' ', '_')}" for n, title in titles} == {path.stem for path in LESSONS}
    assert [path.stem for path in NEIGHBOURS if f"](notebooks/neighbours/{path.name})" not in GUIDE] == []
    with pytest.raises(ValueError, match="no place for lessons .'03'.*add <!-- lesson NN -->"):
        teaching.filled(GUIDE.replace("<!-- lesson 03 -->", ""))


@pytest.mark.parametrize("source", [path.with_suffix(".py") for path in LESSONS], ids=lambda path: path.stem)
def test_the_minutes_of_a_lesson_add_up_to_its_stated_time(source: Path):
    text, minutes = source.read_text(encoding="utf-8"), teaching.minutes(source)
    assert sum(minutes.values()) == int(re.search(r"\*\*Time\*\*\s+(\d+)", text)[1]) and min(minutes.values()) >= 1
    assert list(minutes) == ["Opening", *re.findall(r"(?m)^# ## (.+)$", text)]


@pytest.mark.parametrize("path", re.split(r"(?m)^### ", GUIDE.split("## Three paths")[1].split("## Lesson by")[0])[1:])
def test_a_path_adds_up_and_names_sections_that_exist(path: str):
    assert sum(map(int, re.findall(r"(?m)^\| (\d+) \|", path))) == int(re.search(r"Total: (\d+) minutes", path)[1])
    for row in re.findall(r"(?m)^\| \d+ \| (.* [Ll]esson \d+.*) \|$", path):
        number = int(re.search(r"[Ll]esson (\d+)", row)[1])
        (source,) = build_notebooks.NOTEBOOKS.glob(f"{number:02}_*.py")
        assert set(re.findall(r"\*\*(.+?)\*\*", row)) <= set(teaching.sections(source))
