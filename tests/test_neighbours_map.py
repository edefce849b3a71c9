"""The map of the paper's neighbours: a row and a link for each notebook, nothing left blank, equations that exist."""

import re

import build_notebooks
import pytest
import site_pages

ROWS = {row["number"]: row for row in site_pages.neighbours_map()}
NOTEBOOKS = {path.stem[:3]: path.stem for path in build_notebooks.NEIGHBOURS.glob("N*.ipynb")}


def test_each_notebook_has_one_row_and_its_link():
    assert NOTEBOOKS and set(NOTEBOOKS) <= set(ROWS)
    assert len(ROWS) == len(site_pages.neighbours_map()) and list(ROWS) == sorted(ROWS)
    table = site_pages.neighbours_table()
    for number, name in NOTEBOOKS.items():
        (line,) = (line for line in table.splitlines() if line.startswith(f"| [{number} "))
        assert f"](notebooks/neighbours/{name}.ipynb) |" in line and f"arxiv.org/abs/{ROWS[number]['arxiv']})" in line


@pytest.mark.parametrize("number", ROWS)
def test_a_row_is_complete_and_one_line_of_a_table(number: str):
    assert re.fullmatch(r"\d{4}\.\d{5}", ROWS[number]["arxiv"])
    for text in ROWS[number].values():
        assert text and "|" not in text and text.count("$") % 2 == 0
    assert " · " in ROWS[number]["prior and normaliser"] and ROWS[number]["beside ours"].endswith(".")


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_a_notebook_names_the_paper_of_its_row(number: str):
    assert ROWS[number]["arxiv"] in site_pages.neighbours()[NOTEBOOKS[number]]


def test_the_page_holds_the_table_and_every_equation_it_names_is_stated_somewhere():
    page = (site_pages.DOCS / "neighbours.md").read_text(encoding="utf-8")
    filled = site_pages.filled(page)
    assert site_pages.neighbours_table() in filled
    assert set(re.findall(r"\((E\d+)\)", filled)) <= set(site_pages.equations())
