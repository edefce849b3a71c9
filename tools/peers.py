"""Other libraries' own tests of their losses, run on theirs and on ours: `python tools/peers.py [--write]`.

Clones each library at a release whose tests are known, into a folder that is thrown away, and runs the tests there with
peers_on_ours.py as a plugin. A table says how many passed, and --write puts it into docs/losses.md; every test that fails on ours
is printed with its reason. It needs `make .venv/installed-nightly` and a network.
"""

import argparse
import importlib.metadata
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import NamedTuple

import tables

PAGE = tables.ROOT / "docs" / "losses.md"
HEADER = ("tests", "of", "on theirs", "on ours", "of how many", "skipped")


class Suite(NamedTuple):
    package: str
    repository: str
    tag: str  # of the tests, and of the package unless the installed one is tried
    file: str
    source: str | None  # where the package lies in the clone; None for the installed one
    environment: dict[str, str] = {}


PML, ST = "KevinMusgrave/pytorch-metric-learning", "UKPLab/sentence-transformers"
FULL = {"TEST_DTYPES": "float32,float64"}
SUITES = (
    Suite("lightly", "lightly-ai/lightly", "v1.5.26", "tests/loss/test_ntx_ent_loss.py", "."),
    Suite("lightly", "lightly-ai/lightly", "v1.5.26", "tests/loss/test_dcl_loss.py", "."),
    Suite("pytorch_metric_learning", PML, "v2.8.1", "tests/losses/test_ntxent_loss.py", "src"),
    Suite("pytorch_metric_learning", PML, "v2.8.1", "tests/losses/test_ntxent_loss.py", "src", FULL),
    Suite("sentence_transformers", ST, "v5.1.2", "tests/test_cmnrl.py", None),
    Suite("sentence_transformers", ST, "v5.1.2", "tests/test_cmnrl.py", None, {"ENCODER": "float64"}),
)


def clone(suite: Suite, folder: Path) -> Path:
    """The package and its tests; not the rest, which is large."""
    there = folder / suite.package
    if not there.exists():
        url = f"https://github.com/{suite.repository}"
        command = ["git", "clone", "-q", "--depth=1", "--no-checkout", "--branch", suite.tag, url, str(there)]
        subprocess.run(command, check=True)
        source = {".": [suite.package], None: []}.get(suite.source, [suite.source])
        subprocess.run(["git", "checkout", "-q", suite.tag, "--", "tests", *source], cwd=there, check=True)
    return there


def run(suite: Suite, there: Path, whose: str) -> dict[str, str]:
    """The outcome of each test: "passed", "skipped", or why it failed."""
    report = there / f"{whose}.xml"
    path = [str(tables.ROOT / "tools"), str(there / (suite.source or "tests")), str(tables.ROOT)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path), "PEER": suite.package, "PEERS": whose}
    environment |= {"OMP_NUM_THREADS": "1", "TEST_DEVICE": "cpu", **suite.environment}
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-c", os.devnull, "--rootdir", str(there)]
    command += ["-p", "peers_on_ours", "-p", "no:cacheprovider", f"--junitxml={report}", suite.file]
    done = subprocess.run(command, cwd=there, env=environment, capture_output=True, text=True)
    if not report.exists():
        sys.exit(f"{suite.file} did not run:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    found = {}
    for case in ET.parse(report).iter("testcase"):
        reason = [case.find(kind) for kind in ("failure", "error") if case.find(kind) is not None]
        skipped = "skipped" if case.find("skipped") is not None else "passed"
        found[case.get("name")] = reason[0].get("message").splitlines()[0] if reason else skipped
    return found


def name(suite: Suite) -> str:
    return " ".join([f"`{suite.file}`", *(f"`{key}={value}`" for key, value in suite.environment.items())])


def line(suite: Suite, there: Path) -> dict[str, str]:
    outcomes = {whose: run(suite, there, whose) for whose in ("theirs", "ours")}
    for test, said in outcomes["ours"].items():
        if said not in ("passed", "skipped"):
            print(f"{suite.file}: {test}: {said} (on theirs: {outcomes['theirs'][test]})")
    passed = [list(found.values()).count("passed") for found in outcomes.values()]
    skipped = list(outcomes["ours"].values()).count("skipped")
    package = f"{suite.package} {suite.tag}"
    if suite.source is None:
        package = f"{suite.package} {importlib.metadata.version(suite.package)}, tests of {suite.tag}"
    cells = (name(suite), package, *passed, len(outcomes["ours"]) - skipped, skipped)
    return dict(zip(HEADER, map(str, cells)))


def main(write: bool) -> list[dict[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        lines = [line(suite, clone(suite, Path(folder))) for suite in SUITES]
    print(tables.table(lines, HEADER), end="")
    if write:
        tables.replace("peers", tables.table(lines, HEADER), PAGE)
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into docs/losses.md")
    main(parser.parse_args().write)
