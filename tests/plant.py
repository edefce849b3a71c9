"""Runs tests on a copy of the package in which a mistake was planted; tests/test_mutations.py starts it and talks to it.

Each line of its input is JSON: a folder that holds the copy, and the tests to run. Each line of its output is JSON:
pytest's exit status, and the first failure. What takes seconds to import is imported once, and each request runs in a
fork of that, which imports the copy.
"""

import json
import os
import resource
import sys
import traceback
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest

SLOW_TO_IMPORT = (
    "hypothesis.strategies", "jupytext", "kaleido", "nbclient", "nbval.plugin", "pooch", "psutil", "sklearn.datasets",
    "sklearn.linear_model", "sklearn.neighbors", "sklearn.pipeline", "torch._dynamo", "torch.distributed", "tqdm.auto",
)  # fmt: skip
LIMIT = 600  # seconds of the processor for one request: a mistake may loop for ever
OPTIONS = ("-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-m", "not slow and not notebook and not browser")


class FirstFailure:
    """A pytest plugin that keeps which test failed first, when, and by which exception."""

    def __init__(self):
        self.found = {}

    def pytest_exception_interact(self, node, call, report) -> None:
        when = getattr(report, "when", "collect")
        kinds = [kind.__name__ for kind in call.excinfo.type.__mro__]
        self.found = self.found or {"test": node.nodeid, "when": when, "kinds": kinds}


def run(folder: Path, tests: list[str]) -> dict:
    """In the fork: import the copy, run the tests on it."""
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    import rpm_tutorial

    first = FirstFailure()
    status = pytest.main([*OPTIONS, *tests], plugins=[first])
    files = {Path(m.__file__) for name, m in sys.modules.items() if name.split(".")[0] == rpm_tutorial.__name__}
    elsewhere = sorted(str(file) for file in files if not file.is_relative_to(folder))
    assert not elsewhere, f"imported from elsewhere: {elsewhere}"
    return {"status": int(status), **first.found}


def answer(folder: Path, tests: list[str]) -> dict:
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))
        with (folder / "output").open("w") as output:
            os.dup2(output.fileno(), 1), os.dup2(output.fileno(), 2)
        try:
            (folder / "answer").write_text(json.dumps(run(folder, tests)), encoding="utf-8")
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(0)
    os.waitpid(child, 0)
    found = folder / "answer"
    return json.loads(found.read_text(encoding="utf-8")) if found.exists() else {"status": None}


if __name__ == "__main__":
    os.environ["HYPOTHESIS_PROFILE"] = "first failure"
    for name in SLOW_TO_IMPORT:
        import_module(name)
    for plugin in entry_points(group="pytest11"):
        plugin.load()
    for line in sys.stdin:
        folder, tests = json.loads(line)
        print(json.dumps(answer(Path(folder), tests)), flush=True)
