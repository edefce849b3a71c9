"""Every Make target in a fresh environment of its own, with what its group requires and nothing else.

`make lab` is tried in test_security.py, `make site` in browser/test_site.py; `make test-fast` is a part of `make test`.
"""

from pathlib import Path

import environments
import pytest
from environments import TARGETS

# What is asked of a target, which may run for an hour: where it would begin, it says instead that it could.
COLLECT = "PYTEST=.venv/bin/python -m pytest -q -p no:cacheprovider --collect-only"
TRIED = {
    "test": [COLLECT, "JOBS=0"],
    "run-times": [COLLECT],
    "test-colab": ["KIND=--help"],
    "test-processors": ["KIND=--help"],
    "build": ["ONLY=N06"],
    "study": ["SMALL=1"],
}
ELSEWHERE = {"lab", "site", "test-fast"}
UNTRIED = {
    "bench",
    "book",
    "test-nightly",
    "test-matrix",
    "test-mutants",
}  # long, and packages that the tests do without


def test_every_target_that_installs_something_is_tried():
    assert set(TARGETS) == TRIED.keys() | ELSEWHERE | UNTRIED


@pytest.mark.nightly
@pytest.mark.parametrize("target", TRIED)
def test_a_target_needs_only_what_it_installs(target: str, tmp_path: Path):
    checkout = environments.checkout_for(target, tmp_path / "checkout")
    ran = environments.make(checkout, target, *TRIED[target])
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
