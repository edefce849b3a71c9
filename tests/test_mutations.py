"""Mistakes that contrastive and variational code is known for, each planted in a copy of the package: a fast test fails.

The table is tests/mutations/: a file for each module of the package, and in it for each mistake its name, the test that
is asked to catch it, the lines that it replaces (-) and what stands there instead (+). The fast suite alone counts, and only a
comparison that fails: a mistake that ends in another exception would be noticed without a test.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from residuals import MEASURED

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "rpm_tutorial"
COMPARISONS = {"AssertionError", "GradcheckError"}


class Mistake(NamedTuple):
    """`old`, whole lines that occur once in `module`, become `new`; `test` is to fail."""

    module: str
    name: str
    test: str
    old: str
    new: str


def table(path: Path) -> Iterator[Mistake]:
    for entry in re.split(r"\n{2,}", path.read_text(encoding="utf-8").strip()):
        name, test, *lines = entry.splitlines()
        old, new = ("".join(f"{line[1:]}\n" for line in lines if line[0] == sign) for sign in "-+")
        yield Mistake(f"{path.stem}.py", name, test, old, new)


MISTAKES = [mistake for path in sorted((TESTS / "mutations").glob("*.diff")) for mistake in table(path)]
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="tests/plant.py forks, which this system does not")


class Planter:
    """A process that runs tests on copies of the package; it works through one copy after another."""

    def __init__(self, folder: Path):
        self.folder, self.caught, self.planted = folder, 0, 0
        command = [sys.executable, str(TESTS / "plant.py")]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        self.process = subprocess.Popen(command, cwd=TESTS.parent, env=environment, **pipes)

    def run(self, tests: list[str], mistake: Mistake | None = None) -> dict:
        """Pytest's exit status and its first failure, on a copy with this mistake, or as it is."""
        copy = self.folder / "copy"
        shutil.copytree(PACKAGE, copy / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
        if mistake is not None:
            path = copy / PACKAGE.name / mistake.module
            path.write_text(path.read_text(encoding="utf-8").replace(mistake.old, mistake.new), encoding="utf-8")
        print(json.dumps([str(copy), [f"tests/{test}" for test in tests]]), file=self.process.stdin, flush=True)
        found = json.loads(self.process.stdout.readline())
        found["output"] = (copy / "output").read_text(encoding="utf-8")
        shutil.rmtree(copy)
        return found

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def planter(tmp_path_factory):
    planter = Planter(tmp_path_factory.mktemp("planted"))
    yield planter
    planter.close()
    MEASURED.append(f"{planter.caught} of {planter.planted} planted mistakes are caught by the fast suite")


def test_each_mistake_has_its_one_place_in_the_package():
    assert len({mistake.name for mistake in MISTAKES}) == len(MISTAKES)
    for mistake in MISTAKES:
        text = (PACKAGE / mistake.module).read_text(encoding="utf-8")
        assert text.count(mistake.old) == 1, f"{mistake.module}: {mistake.name}"
        compile(text.replace(mistake.old, mistake.new), mistake.module, "exec")


@pytest.mark.slow
@needs_fork
def test_the_package_as_it_is_passes_every_test_that_is_asked(planter):
    found = planter.run(sorted({mistake.test for mistake in MISTAKES}))
    assert found["status"] == 0, found["output"]


@pytest.mark.slow
@needs_fork
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: f"{mistake.module[:-3]}: {mistake.name}")
def test_a_planted_mistake_is_caught(mistake, planter):
    planter.planted += 1
    found = planter.run([mistake.test], mistake)
    assert found["status"] == 1, found["output"]
    assert found["when"] == "call" and COMPARISONS & set(found["kinds"]), found["output"]
    planter.caught += 1
    test = found["test"].removeprefix("tests/").split("[")[0]
    MEASURED.append(f"{f'{mistake.module[:-3]}: {mistake.name}':<72} {test}")
