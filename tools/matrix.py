"""Run the fast tests beside other versions of what the course stands on, and print one table: `make test-matrix`.

    python tools/matrix.py                          every row of ROWS: half an hour, and gigabytes where torch has CUDA
    python tools/matrix.py "oldest front" newest    the rows whose names start so
        --python 3.12=FOLDER/bin/python             an interpreter that is not on the PATH by the name python3.12
        --write                                     put the rows that ran into docs/versions.md

Each row gets an environment of its own in a temporary folder, which is removed when its tests have run. "oldest" is the
lower bound in pyproject.toml, "tested" the version in requirements-tested.txt, "newest" what pip chooses without either.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "versions.md"
SHOWN = ("torch", "numpy", "scipy", "scikit-learn", "plotly", "ipywidgets", "ipython", "jupyterlab")
HEADER = ("row", "passed", "failed", "skipped", "Python", *SHOWN, "seconds")  # the answer is seen first
# What the edit loop runs, and the tests that start a JupyterLab; not the tests of this table.
CHOICE = "not notebook and not browser and (not slow or jupyterlab)"
EVERYTHING = ("tests", "--ignore=tests/test_matrix.py")
# What draws, shows or serves; the rest of the suite is arithmetic, which knows nothing of the front end.
DRAWN = (
    "widgets",
    "lesson_widgets",
    "figures",
    "dashboard",
    "dashboard_continued",
    "exercises",
    "handouts",
    "environment",
)
SERVED = ("cli", "pipeline", "security", "doors", "package")
FRONT_END = tuple(f"tests/test_{name}.py" for name in DRAWN + SERVED)
LIMIT = 3600  # seconds for an installation, and for the tests
ALL = ("all",)


class Row(NamedTuple):
    name: str
    python: str = "3.11"
    oldest: tuple[str, ...] = ()  # packages at their lower bounds; ALL for every one
    newest: bool = False
    tests: tuple[str, ...] = EVERYTHING


ROWS = (
    Row("tested set"),
    Row("tested set, Python 3.12", "3.12"),
    Row("tested set, Python 3.13", "3.13"),
    Row("oldest front end", oldest=("plotly", "ipywidgets", "ipython", "jupyterlab"), tests=FRONT_END),
    Row("oldest of everything", oldest=ALL),
    Row("newest of everything", newest=True),
)


class Impossible(Exception):
    """Why a row can't run here."""


def requirements() -> dict[str, Requirement]:
    """What a reader installs, by name: the dependencies and the extra `lab`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = map(Requirement, [*project["dependencies"], *extras["course"], extras["lab"][1]])
    return {canonicalize_name(item.name): item for item in asked}


def lower_bound(requirement: Requirement) -> str | None:
    return next((part.version for part in requirement.specifier if part.operator == ">="), None)


def tested() -> dict[str, str]:
    lines = (ROOT / "requirements-tested.txt").read_text(encoding="utf-8").splitlines()
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines if "==" in line)}


def constraints(row: Row) -> dict[str, str]:
    """The versions that a row holds. Beside an old package, pip chooses those of what nobody asked for by name."""
    if row.newest:
        return {}
    if not row.oldest:
        return tested()
    asked = requirements()
    bounds = {name: bound for name, item in asked.items() if (bound := lower_bound(item))}
    if row.oldest == ALL:
        return bounds
    if missing := set(row.oldest) - set(bounds):
        raise ValueError(f"{sorted(missing)} have no lower bound in pyproject.toml; expected name>=version")
    held = {name: version for name, version in tested().items() if name in asked}
    return held | {name: bounds[name] for name in row.oldest}


def interpreter(version: str, named: dict[str, str]) -> str:
    """A Python of this version: the one that was named, this one, or python3.NN on the PATH."""
    here = "{}.{}".format(*sys.version_info)
    default = sys.executable if version == here else shutil.which(f"python{version}")
    python = named.get(version, default)
    probe = "import sys, ensurepip; print('{}.{}'.format(*sys.version_info))"
    try:
        run = subprocess.run([python or "", "-c", probe], capture_output=True, text=True, timeout=600)
    except OSError:
        raise Impossible(f"no python{version} on the PATH; name one: --python {version}=FILE") from None
    if run.returncode or run.stdout.strip() != version:
        raise Impossible(f"python{version} does not run, or is another version; name one: --python {version}=FILE")
    return python


def reason(pip_said: str) -> str:
    """One line of what pip said: the conflict that it names, or its last error."""
    lines = [line.strip() for line in pip_said.splitlines()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith(("ERROR: ", "error: "))]
    wanted = [line for line in errors if re.match(r"No matching|Cannot install|Could not find", line)]
    found = (wanted[-1:] or errors[-1:] or lines[-1:] or ["pip said nothing"])[0]
    return found[:160].replace("|", "/")


def installed(python: Path) -> dict[str, str]:
    run = subprocess.run([python, "-m", "pip", "list", "--format=json"], capture_output=True, check=True)
    return {canonicalize_name(item["name"]): item["version"] for item in json.loads(run.stdout)}


def install(row: Row, base: str, folder: Path) -> Path:
    """An environment with the course, its tests' tools, and the row's versions."""
    python = folder / "venv" / "bin" / "python"
    subprocess.run([base, "-m", "venv", folder / "venv"], check=True)
    held = folder / "constraints.txt"
    held.write_text("".join(f"{name}=={version}\n" for name, version in constraints(row).items()))
    command = [python, "-m", "pip", "install", "-q", "--no-compile", "-c", held, "-e", f"{ROOT}[lab,test,site]"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        raise Impossible(f"the installation took longer than {LIMIT} s") from None
    if run.returncode:
        raise Impossible(reason(run.stderr))
    return python


def counts(report: Path) -> dict[str, int]:
    """How many passed, failed and were skipped, from pytest's own report in JUnit's form."""
    suite = ET.parse(report).getroot().find("testsuite")
    number = {name: int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")}
    failed = number["failures"] + number["errors"]
    return {"passed": number["tests"] - failed - number["skipped"], "failed": failed, "skipped": number["skipped"]}


def run_tests(row: Row, python: Path, folder: Path) -> dict[str, int]:
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTHONPATH", "COLUMNS")}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment["PATH"] = f"{python.parent}{os.pathsep}{environment['PATH']}"
    report = folder / "report.xml"
    command = [python, "-m", "pytest", "-q", "--no-header", f"--junitxml={report}"]
    command += ["-p", "no:cacheprovider", "-m", CHOICE, *row.tests]
    if row.oldest:  # ipywidgets 7.7, for one, uses what today's ipykernel deprecates
        command += ["-W", "default::DeprecationWarning"]
    try:
        run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        raise Impossible(f"the tests took longer than {LIMIT} s") from None
    if not report.exists():
        raise Impossible(f"pytest did not start: {reason(run.stderr)}")
    if run.returncode:
        print(run.stdout, flush=True)
    return counts(report)


def run_row(row: Row, named: dict[str, str]) -> dict[str, str]:
    """The row's line of the table."""
    start, line = time.perf_counter(), {"row": row.name, "Python": row.python}
    with tempfile.TemporaryDirectory(prefix="rpm-matrix-") as folder:
        try:
            python = install(row, interpreter(row.python, named), Path(folder))
            versions = installed(python)
            line |= {name: versions[name] for name in SHOWN}
            line |= {name: str(number) for name, number in run_tests(row, python, Path(folder)).items()}
        except Impossible as why:
            line["passed"] = f"could not: {why}"
    return line | {"seconds": f"{time.perf_counter() - start:.0f}"}


# The tables: the first column names a line


def table(lines: list[dict[str, str]], header: Sequence[str] = HEADER) -> str:
    cells = [header, *(tuple(line.get(name, "") for name in header) for line in lines)]
    width = [max(map(len, column)) for column in zip(*cells)]
    rows = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, width)) + " |" for row in cells]
    return "\n".join([rows[0], "|" + "|".join("-" * (w + 2) for w in width) + "|", *rows[1:]]) + "\n"


def read(page: str, block: str = "versions") -> list[dict[str, str]]:
    """The lines of the page's table between the comments that name it."""
    text = re.search(f"(?s)<!-- {block} -->\n(.*?)<!-- end {block} -->", page)[1]
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()] or [(), ()]
    return [{name: cell for name, cell in zip(header, row) if cell} for row in rows]


def merged(page: str, block: str, header: Sequence[str], order: Iterable[str], lines: list[dict[str, str]]) -> str:
    """The page with these lines in their places in the table, and the others as they were."""
    by_name = {line[header[0]]: line for line in [*read(page, block), *lines]}
    found = table([by_name[name] for name in order if name in by_name], header)
    return re.sub(f"(?s)(<!-- {block} -->\n).*?(<!-- end {block} -->)", lambda m: f"{m[1]}{found}{m[2]}", page)


def write(block: str, header: Sequence[str], order: Iterable[str], lines: list[dict[str, str]]) -> None:
    PAGE.write_text(merged(PAGE.read_text(encoding="utf-8"), block, header, order, lines), encoding="utf-8")


def chosen(starts: list[str]) -> list[Row]:
    rows = [row for row in ROWS if not starts or row.name.startswith(tuple(starts))]
    if not rows:
        raise SystemExit(f"no row's name starts with {starts}; there are: {', '.join(row.name for row in ROWS)}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", help="only those whose names start so")
    parser.add_argument("--python", action="append", default=[], metavar="3.12=FILE", help="where an interpreter is")
    parser.add_argument("--write", action="store_true", help="put the rows into docs/versions.md")
    options = parser.parse_args()
    named, lines = dict(item.split("=", 1) for item in options.python), []
    for row in chosen(options.rows):
        print(f"{row.name} ...", flush=True)
        lines.append(run_row(row, named))
        if options.write:
            write("versions", HEADER, [row.name for row in ROWS], lines)
    print(table(lines), end="")
    if any(line.get("failed", "0") != "0" for line in lines):
        sys.exit(1)


if __name__ == "__main__":
    main()
