"""The fast tests beside other versions, and the packages of the tested set: `make test-matrix`, or `nox -s oldest`.

    nox                 every session; each row of docs/versions.md is written when its tests have run
    nox -s tested-3.12  one of them; `nox -l` lists them

Each session has an environment of its own, made by uv. "oldest" is what pyproject.toml's lower bounds allow, "tested" is
requirements-tested.txt, "newest" is what uv chooses without either. Gigabytes, where the torch that it finds has CUDA.
"""

import json
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import nox

sys.path.insert(0, "tools")
import tables

nox.options.default_venv_backend = "uv"
nox.needs_version = ">=2024.10"
NEWEST, PINNED = ["--upgrade"], ["--constraint", "requirements-tested.txt"]
# What the edit loop runs, and the tests that start a JupyterLab.
CHOICE = "not notebook and not browser and not nightly and (not slow or jupyterlab)"


def run(session: nox.Session, row: str, *options: str, versions: list[str]) -> None:
    """Install the course with `versions`, then what the tests need beside it, run them, and write the row."""
    start, report = time.perf_counter(), Path(session.create_tmp()).resolve() / "report.xml"
    session.install(*versions, "--editable", ".[lab]")
    session.install(
        *([] if "lowest" in versions[0] else versions), "--group", "test", "pip"
    )  # some tests build a wheel
    session.install(*([] if "lowest" in versions[0] else versions), "--no-deps", "--group", "alone")
    environment = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "CI": ""}
    pytest = ["python", "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", f"--junitxml={report}"]
    session.run(*pytest, "-m", CHOICE, *options, "tests", env=environment)
    counts = ET.parse(report).getroot().find("testsuite")
    found = session.run("uv", "pip", "list", "--format=json", silent=True, external=True, log=False)
    installed = {item["name"]: item["version"] for item in json.loads(found)}
    passed = int(counts.get("tests")) - int(counts.get("skipped"))
    line = {"row": row, "passed": str(passed), "skipped": counts.get("skipped"), "Python": session.python}
    line |= {name: installed[name] for name in tables.PACKAGES} | {"seconds": f"{time.perf_counter() - start:.0f}"}
    tables.write("versions", tables.VERSIONS, tables.ROWS, [line])


@nox.session(python=["3.11", "3.12", "3.13"])
def tested(session: nox.Session) -> None:
    run(session, f"tested set, Python {session.python}", versions=PINNED)


@nox.session(python="3.11")
def oldest(session: nox.Session) -> None:
    """ipywidgets 7.7, for one, uses what today's ipykernel deprecates."""
    run(session, "oldest", "-W", "default::DeprecationWarning", versions=["--resolution=lowest-direct"])


@nox.session(python="3.11")
def newest(session: nox.Session) -> None:
    run(session, "newest", versions=NEWEST)


@nox.session(venv_backend="none")
def licences(session: nox.Session) -> None:
    """List what the installed packages of the tested set state. For known faults of them: pip-audit -r requirements-tested.txt."""
    options = ["--from=mixed", "--order=license", "--format=json", "--with-system", "--packages", *tables.tested()]
    found = json.loads(session.run(sys.executable, "-m", "piplicenses", *options, silent=True, log=False))
    rows = [{"package": item["Name"], "licence": item["License"].splitlines()[0]} for item in found]
    tables.replace("licences", tables.table(rows, ("package", "licence")))
