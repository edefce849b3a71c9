"""The tables of docs/versions.md: written as they are read, and in step with what the project asks for."""

import tomllib

import pytest
import tables
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = tomllib.loads((tables.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ASKED = {
    canonicalize_name(item.name): item
    for item in map(
        Requirement, [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["course"], "jupyterlab>=4.2"]
    )
}


def test_a_new_line_takes_its_place_in_a_table_and_the_others_stay(monkeypatch, tmp_path):
    monkeypatch.setattr(tables, "PAGE", tmp_path / "page.md")
    tables.PAGE.write_text("# Title\n<!-- few -->\n| a | b |\n|---|---|\n| y | 1 |\n<!-- end few -->\nrest\n")
    tables.write("few", ("a", "b"), ("x", "y", "z"), [{"a": "x", "b": "10"}])
    assert tables.read("few") == [{"a": "x", "b": "10"}, {"a": "y", "b": "1"}]
    tables.write("few", ("a", "b"), ("x", "y", "z"), [{"a": "y"}])
    assert tables.read("few") == [{"a": "x", "b": "10"}, {"a": "y"}]
    text = tables.PAGE.read_text()
    assert text.startswith("# Title\n") and text.endswith("\nrest\n")
    assert len({len(line) for line in tables.block("few").splitlines()}) == 1, "aligned"


def test_every_requirement_has_a_lower_bound_at_or_below_the_tested_version():
    tested = tables.tested()
    for name, item in ASKED.items():
        assert any(part.operator == ">=" for part in item.specifier), f"{name} has no lower bound"
        assert item.specifier.contains(tested[name]), name


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
