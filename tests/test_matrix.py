"""The table of tested versions: what a row installs, why one can't run, and that the page keeps the others."""

import os
import re
import subprocess
import sys
from pathlib import Path

import matrix
import pytest
import review
from matrix import Impossible, Row
from packaging.version import Version


def test_every_requirement_with_a_lower_bound_is_tested_at_it():
    asked = matrix.requirements()
    assert set(matrix.SHOWN) <= set(asked)
    oldest = matrix.constraints(Row("oldest", oldest=matrix.ALL))
    assert oldest == {name: bound for name, item in asked.items() if (bound := matrix.lower_bound(item))}
    assert all(asked[name].specifier.contains(version) for name, version in oldest.items())
    rows = {name for row in matrix.ROWS for name in (oldest if row.oldest == matrix.ALL else row.oldest)}
    assert rows == set(oldest)


def test_the_tested_set_lies_in_the_ranges():
    tested = matrix.constraints(Row("tested"))
    assert tested == matrix.tested() and len(tested) > 100
    outside = [str(item) for name, item in matrix.requirements().items() if not item.specifier.contains(tested[name])]
    assert outside == []


def test_a_row_of_one_old_package_holds_the_other_requirements_and_frees_what_they_need():
    held = matrix.constraints(Row("old", oldest=("ipywidgets",)))
    asked = matrix.requirements()
    assert set(held) == set(asked) and held["ipywidgets"] == matrix.lower_bound(asked["ipywidgets"])
    assert {name for name in held if held[name] != matrix.tested()[name]} == {"ipywidgets"}
    assert matrix.constraints(Row("newest", newest=True)) == {}
    with pytest.raises(ValueError, match="numba.* no lower bound in pyproject.toml; expected name>=version"):
        matrix.constraints(Row("old", oldest=("numba",)))


def test_an_interpreter_is_this_one_or_a_named_one_or_said_to_be_missing(monkeypatch):
    here = "{}.{}".format(*sys.version_info)
    assert matrix.interpreter(here, {}) == sys.executable
    assert matrix.interpreter(here, {here: sys.executable}) == sys.executable
    monkeypatch.setattr(matrix.shutil, "which", lambda name: None)
    with pytest.raises(Impossible, match=r"no python3\.99 on the PATH; name one: --python 3\.99=FILE"):
        matrix.interpreter("3.99", {})
    with pytest.raises(Impossible, match="is another version"):
        matrix.interpreter("3.99", {"3.99": sys.executable})


@pytest.mark.parametrize(
    "said, expected",
    [
        (
            "WARNING: old pip\nERROR: Could not find a version that satisfies the requirement torch==2.4 (from versions: none)\n"
            "ERROR: No matching distribution found for torch==2.4\n",
            "No matching distribution found for torch==2.4",
        ),
        ("ERROR: Cannot install a and b\nERROR: ResolutionImpossible: see the page\n", "Cannot install a and b"),
        ("  error: subprocess-exited-with-error\n", "error: subprocess-exited-with-error"),
        ("", "pip said nothing"),
    ],
)
def test_the_reason_is_one_line_of_what_pip_said(said: str, expected: str):
    assert matrix.reason(said) == expected


def test_a_row_that_cannot_run_says_why_in_its_line(monkeypatch):
    monkeypatch.setattr(matrix.shutil, "which", lambda name: None)
    line = matrix.run_row(Row("future", "3.99"), {})
    assert line["passed"].startswith("could not: no python3.99") and "failed" not in line


def test_counts_are_pytests_own(tmp_path: Path):
    (tmp_path / "test_it.py").write_text(
        "import pytest\ndef test_a(): pass\ndef test_b(): assert 0\ndef test_c(): pytest.skip()\n"
        "@pytest.fixture\ndef broken(): 1 / 0\ndef test_d(broken): pass\ndef test_e(): pass\n"
    )
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", "test_it.py"]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
    assert matrix.counts(report) == {"passed": 2, "failed": 2, "skipped": 1}


LINES = [
    {"row": row.name, "Python": row.python, "torch": "2.4.0", "passed": "7", "failed": "0"} for row in matrix.ROWS[:3]
]


EMPTY = "# Title\n<!-- versions -->\n<!-- end versions -->\nrest\n"


def put(page: str, lines: list[dict[str, str]]) -> str:
    return matrix.merged(page, "versions", matrix.HEADER, [row.name for row in matrix.ROWS], lines)


def test_the_table_is_read_as_it_was_written():
    assert matrix.read(EMPTY) == [] and matrix.read(put(EMPTY, LINES)) == LINES
    assert len({len(line) for line in matrix.table(LINES).splitlines()}) == 1, "aligned"


def test_the_page_keeps_the_rows_that_did_not_run_and_the_order_of_all():
    page = put(EMPTY, LINES[1:])
    page = put(page, [LINES[0], LINES[2] | {"passed": "8"}])
    assert matrix.read(page) == [LINES[0], LINES[1], LINES[2] | {"passed": "8"}]
    assert page.startswith("# Title\n") and page.endswith("\nrest\n")


def test_every_file_of_tests_that_a_row_names_is_there():
    assert [
        name for row in matrix.ROWS for name in row.tests if "-" not in name and not (matrix.ROOT / name).exists()
    ] == []


def test_rows_are_chosen_by_how_their_names_start():
    assert matrix.chosen([]) == list(matrix.ROWS)
    assert [row.name for row in matrix.chosen(["oldest front", "newest"])] == [
        "oldest front end",
        "newest of everything",
    ]
    with pytest.raises(SystemExit, match="no row's name starts with .*there are: tested set"):
        matrix.chosen(["coldest"])


def test_the_page_shows_every_row_within_the_ranges_and_the_old_ones_at_their_lower_bounds():
    """A new row or a raised bound asks for a new run; a new release in the tested set doesn't."""
    lines = {line["row"]: line for line in matrix.read(matrix.PAGE.read_text(encoding="utf-8"))}
    assert list(lines) == [row.name for row in matrix.ROWS], "remedy: tools/matrix.py --write"
    asked = matrix.requirements()
    for row in matrix.ROWS:
        line = lines[row.name]
        if not line["passed"].startswith("could not: "):
            assert line["failed"] == "0" and int(line["passed"]) > 100, row.name
            found = {name: Version(line[name]).base_version for name in matrix.SHOWN}
            assert [name for name in found if not asked[name].specifier.contains(found[name])] == [], row.name
            for name in matrix.SHOWN if row.oldest == matrix.ALL else row.oldest:
                assert Version(found[name]) == Version(matrix.lower_bound(asked[name])), f"{row.name}: {name}"


# The packages


def test_the_licences_are_listed_as_the_installed_packages_state_them():
    listed = matrix.PAGE.read_text(encoding="utf-8").split("licences -->")[1]
    named = {name for cells in re.findall(r"(?m)^\| [^|]+ \| \d+ \| (.+) \|$", listed) for name in cells.split(", ")}
    assert named == set(matrix.tested()), "remedy: tools/review.py --write"


@pytest.mark.parametrize(
    "said, kind",
    [
        ("BSD-3-Clause", "BSD"),
        ("MIT License", "MIT"),
        ("Apache-2.0 OR BSD-2-Clause", "BSD, Apache 2.0"),
        ("GNU Lesser General Public License v3 (LGPLv3)", "LGPL"),
        ("GNU General Public License (GPL)", "GPL"),
        ("GPL-3.0-or-later", "GPL"),
        ("see the file", "not stated"),
    ],
)
def test_a_licence_is_called_by_its_kind(said: str, kind: str):
    assert review.kinds(said) == kind


@pytest.mark.slow
def test_the_installed_packages_agree_with_one_another():
    check = review.pip("check")
    assert check.returncode == 0, check.stdout
