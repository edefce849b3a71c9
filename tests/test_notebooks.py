"""Notebooks: the rule that compares outputs, budgets, and the shape of a lesson and of a neighbour.

Their cells themselves are run by lesson_items.py.
"""

import base64
import copy
import functools
import inspect
import io
import json
import re
import tokenize
from pathlib import Path

import budgets
import build_notebooks
import nbformat
import numpy as np
import pytest
from build_notebooks import PLOTLY, WIDGET
from IPython.display import Code
from lesson_items import Cost
from nbformat.v4 import new_output
from notebook_compare import figure_difference, outputs_difference, text_difference

import rpm_tutorial as rpm
from rpm_tutorial.course import _twins

LESSONS, NEIGHBOURS, STUDY = (
    sorted(folder.glob("*.py"))
    for folder in (build_notebooks.NOTEBOOKS, build_notebooks.NEIGHBOURS, build_notebooks.STUDY)
)
MOST_CELLS, MOST_CELLS_OF_A_NEIGHBOUR, MOST_LINES, MOST_COLUMNS = 45, 25, 15, 88
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
each_source = pytest.mark.parametrize("source", LESSONS + NEIGHBOURS + STUDY, ids=lambda path: path.stem)


# When outputs agree: with their numbers, and without


@pytest.mark.parametrize(
    ("old", "new", "agree", "agree_without_numbers"),
    [
        ("I = 1.2345 nats", "I = 1.2346 nats", True, True),
        ("residual 0.0", "residual -2.2e-16", True, True),
        ("  9.99 |", " 10.00 |", True, True),
        ("1.00e-05", "9.99e-06", True, True),
        ("I = 1.2345 nats", "I = 1.2347 nats", False, True),
        ("I = 1.2345 nats", "I = -1.2345 nats", False, True),
        ("60000 pairs", "60001 pairs", False, True),
        ("[0.98 1.  ]", "[1.   0.5 ]", False, True),
        ("I = 1.2345 nats", "I = 1.2345 bits", False, False),
        ("residual 1e-16", "residual nan", False, False),
        ("1.5 2.5", "1.5\n2.5", False, False),
    ],
)
def test_texts_agree_up_to_a_unit_in_the_last_digit(old: str, new: str, agree: bool, agree_without_numbers: bool):
    assert (text_difference(old, new) is None) == agree
    assert (text_difference(old, new, numbers=False) is None) == agree_without_numbers


def typed_array(values) -> dict:
    """As plotly 6 and later store an array."""
    array = np.asarray(values)
    shape = ", ".join(map(str, array.shape))
    return {"dtype": array.dtype.str[1:], "bdata": base64.b64encode(array.tobytes()).decode(), "shape": shape}


LINE = {"uid": "a", "name": "InfoNCE", "visible": True, "x": [0, 1, 2], "y": typed_array([1.0, 2, 4])}
IMAGE = {"type": "heatmap", "z": typed_array(np.linspace(0, 8, 12).reshape(3, 4))}
FIGURE = {"data": [LINE, IMAGE], "layout": {"title": {"text": "I = 1.23"}, "showlegend": False}}


@pytest.mark.parametrize(
    ("trace", "key", "value", "agree", "agree_without_numbers"),
    [
        (0, "uid", "b", True, True),
        (0, "y", [1.0, 2.0, 4.000001], True, True),
        (0, "y", typed_array([1.0, 2.0 + 1e-10, 4.0]), True, True),
        (0, "y", typed_array([1.0, 2.001, 4.0]), False, True),
        (0, "y", [1.0, None, 4.0], False, False),
        (0, "y", [1.0, 2.0], False, False),
        (0, "name", "CLIP", False, False),
        (0, "mode", "lines", False, False),
        (0, "visible", False, False, False),
        (1, "z", typed_array(np.linspace(0, 8, 12).reshape(4, 3)), False, False),
    ],
)
def test_figures_agree_in_texts_switches_shapes_gaps_and_numbers(trace, key, value, agree, agree_without_numbers):
    changed = copy.deepcopy(FIGURE)
    changed["data"][trace][key] = value
    for numbers, same in ((True, agree), (False, agree_without_numbers)):
        difference = figure_difference(FIGURE, changed, numbers)
        assert difference is None if same else "figure.data" in difference


def display(data: dict):
    return new_output("display_data", data | {"text/plain": "alt"})


def test_a_widget_agrees_with_its_stored_static_twin():
    stored, live = display({PLOTLY: FIGURE, "image/png": "AAAA"}), display({PLOTLY: FIGURE, WIDGET: {}})
    assert outputs_difference([stored], [live]) is None
    assert outputs_difference([stored], [display({})])


def test_where_a_run_makes_a_widgets_figures_at_all_settings_they_agree_but_for_their_numbers():
    def twin(x: list, caption: list[str], x_of_each: tuple[int, int] = (1, 2), values: str = "12"):
        controls = [{"label": "size", "menu": False, "values": [*values], "start": 0}]
        parts = [[["data", 0, "x"], x, [*x_of_each]], [["caption"], caption, [1, 1]]]
        packed = _twins._packed({"controls": controls, "parts": parts})
        return [display({PLOTLY: {"data": []}, _twins.GRID: packed})]

    x, caption, not_made = [[1.5, 2], [1.5, None]], ["I = 1.5"], [display({PLOTLY: {"data": []}})]
    stored = twin(x, caption)
    assert outputs_difference(stored, twin([[8.5, 2], [9.5, None]], ["I = 9.5"])) is None
    assert "at 1: figure.caption" in outputs_difference(stored, twin(x, ["J = 1.5"]))
    assert "at 2: figure.data[0].x" in outputs_difference(stored, twin(x, caption, (1, 1)))
    assert "controls" in outputs_difference(stored, twin(x, caption, values="13"))
    assert outputs_difference(stored, not_made) is None and outputs_difference(not_made, stored)


def test_warnings_missing_outputs_and_their_order_count_but_no_progress_bar():
    text, warning = (new_output("stream", name=name, text="1.5") for name in ("stdout", "stderr"))
    assert outputs_difference([text], [display({WIDGET: {}}), text]) is None
    assert "stderr" in outputs_difference([text], [text, warning])
    assert outputs_difference([text, display({})], [text])
    assert outputs_difference([text, warning], [warning, text])


# Budgets


@pytest.fixture
def slowness(monkeypatch):
    """What the calibrations of this test find, one after another."""

    def found(*factors: float) -> None:
        monkeypatch.setattr(budgets, "_calibrations", [])
        monkeypatch.setattr(budgets, "calibrate", functools.partial(next, iter(factors)))

    return found


@pytest.mark.parametrize(
    ("cost", "overruns"),
    [
        (Cost(worked={"Cell 0": 19.9, "Cell 1": 0.1}, peak_mib=1024), []),
        (Cost(worked={"Cell 0": 20.1}, peak_mib=100), ["Cell 0 took 20.1 s of 20 s"]),
        (Cost(worked={f"Cell {i}": 10 for i in range(7)}, limit=60), ["the notebook took 70 s of 60 s"]),
        (Cost(worked={"Cell 0": 1}, peak_mib=1025), ["the notebook reached 1025 MiB of 1024"]),
        (Cost(cells={"Cell 0": 50.0}, worked={"Cell 0": 15.0}, peak_mib=100), []),  # on a busy machine
    ],
)
def test_a_notebook_above_its_budget_is_noticed(cost: Cost, overruns: list[str], slowness):
    slowness(1.0, 1.0, 1.0)
    assert [line.split(" x ")[0] for line in cost.overruns()] == overruns


def test_a_budget_grows_with_the_slowness_of_the_machine_which_is_judged_again_before_a_complaint(slowness):
    slowness(1.2, 1.31, 1.0)  # a fourth would be an error
    assert budgets.exceeded("Cell 3", 23.9, 20) == budgets.exceeded("Cell 3", 26.1, 20) == []
    (line,) = budgets.exceeded("Cell 3", 26.3, 20)
    assert line == "Cell 3 took 26.3 s of 20 s x 1.31 (this machine is 1.31 times slower than the reference)"


# The shape of a notebook


def prose_of(cells: list) -> str:
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def lines_of_code(source: str) -> int:
    """Lines that hold code; blank lines, comments and the rest of a long string are free."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return len({token.start[0] for token in tokens if token.type not in LAYOUT})


@each_source
def test_a_notebook_has_its_shape(source: Path):
    cells = build_notebooks.read_source(source).cells
    prose, code = prose_of(cells), [cell.source for cell in cells if cell.cell_type == "code"]
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# "), "the title comes first"
    assert len(re.findall(r"(?m)^# ", prose)) == 1, "exactly one H1"
    assert len(cells) <= (MOST_CELLS_OF_A_NEIGHBOUR if source in NEIGHBOURS else MOST_CELLS)
    assert [cell for cell in code if lines_of_code(cell) > MOST_LINES] == [], "too long a cell"
    if source in LESSONS:
        assert [line for line in "\n".join(code).splitlines() if len(line) > MOST_COLUMNS] == [], "cut off on a laptop"
    for question in prose.split("**Predict**")[1:]:
        assert "<details><summary>Answer" in question.split("\n## ")[0], "a question without a folded answer"


@pytest.mark.parametrize("source", NEIGHBOURS, ids=lambda path: path.stem)
def test_a_neighbour_states_a_claim_asks_asserts_and_is_seen_from_the_rpm(source: Path):
    cells = build_notebooks.read_source(source).cells
    prose, code = prose_of(cells), [cell for cell in cells if cell.cell_type == "code"]
    for wanted in (
        r"\*\*The paper's claim\*\*",
        r"arxiv\.org/abs/\d{4}\.\d{5}|NeurIPS|AISTATS",
        r"\*\*Predict\*\*",
        r"\(E\d+\)|\\tag\{E\d+\}",
        r"(?m)^## Seen from the RPM$",
        r"(?m)^## What we saw\n(?s:(?!\n## ).)*\Z",
    ):
        assert re.search(wanted, prose), wanted
    for wanted in (
        r"\*\*Afterwards you can\*\*",
        r"\*\*You need\*\*\s\[[^]]+\]\(\.\./\d\d_\w+\.ipynb\)",
        r"\*\*Time\*\*\s\d+\sminutes",
    ):
        assert re.search(wanted, cells[0].source), wanted
    for wanted in ("(?m)^assert ", "(?m)^seed = 0$"):
        assert any(re.search(wanted, cell.source) for cell in code), wanted
    (exercise,) = (cell.source for cell in code if "exercise" in cell.metadata.get("tags", []))
    assert f"neighbour_{source.name[1:3]}." in exercise


@each_source
def test_stored_outputs_are_fit_to_publish(source: Path):
    """Nothing on stderr, no error, no path of the machine that built them, and a picture for each figure."""
    path = source.with_suffix(".ipynb")
    notebook = nbformat.read(path, as_version=4)
    assert build_notebooks.complaints(notebook, path) == []
    outputs = [output for cell in build_notebooks.code_cells(notebook) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert all("image/png" in data for data in build_notebooks.figures(notebook))
    text = json.dumps(outputs)
    assert not re.search("/(tmp|home|root)/", text) and str(build_notebooks.NOTEBOOKS.parent) not in text


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (source.with_suffix(".ipynb"), name)
        for source in LESSONS + NEIGHBOURS + STUDY
        for name in re.findall(r"(?m)^rpm\.show_source\(rpm\.([\w.]+)\)", source.read_text(encoding="utf-8"))
    ],
)
def test_a_source_that_a_lesson_shows_is_todays(path: Path, name: str):
    todays = inspect.getsource(functools.reduce(getattr, name.split("."), rpm)).rstrip()
    (cell,) = [c for c in nbformat.read(path, 4).cells if f"rpm.show_source(rpm.{name})" in c.source]
    shown = [output.data.get("text/html") for output in cell.outputs if "data" in output]
    assert Code(todays, language="python")._repr_html_() in shown, f"remedy: make build ONLY={path.name[:2]}"
