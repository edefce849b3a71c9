"""The tables of docs/versions.md: written as they are read, and in step with what the project asks for."""

import tomllib

import environments
import pytest
import tables
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = tomllib.loads((tables.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LINES = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["course"], "jupyterlab>=4.2"]
ASKED = {canonicalize_name(item.name): item for item in map(Requirement, LINES)}


def test_every_requirement_has_a_lower_bound_at_or_below_the_tested_version():
    tested = tables.tested()
    for name, item in ASKED.items():
        assert any(part.operator == ">=" for part in item.specifier), f"{name} has no lower bound"
        assert item.specifier.contains(tested[name]), name
    assert {canonicalize_name(Requirement(line).name) for line in environments.grouped("test")} <= set(tested)


@pytest.mark.parametrize("row", tables.ROWS)
def test_each_row_shows_versions_within_the_ranges_and_the_oldest_at_their_bounds(row: str):
    line = {line["row"]: line for line in tables.read("versions")}[row]
    for name in tables.PACKAGES:
        found = Version(Version(line[name]).base_version)
        assert ASKED[name].specifier.contains(found), f"remedy: nox -s {row}"
        if row == "oldest":
            (bound,) = (part.version for part in ASKED[name].specifier if part.operator == ">=")
            assert found == Version(bound), name


def test_the_licence_of_each_tested_package_is_listed():
    listed = {canonicalize_name(line["package"]) for line in tables.read("licences")}
    assert listed == set(tables.tested()), "remedy: nox -s licences"
