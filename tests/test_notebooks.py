"""Notebooks: the rule that compares outputs, notebooks in step with their sources, the shape of a lesson and of a neighbour.

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
from notebook_compare import figure_difference, outputs_difference, text_difference

import rpm_tutorial as rpm
from rpm_tutorial.course import _twins

LESSONS, NEIGHBOURS, STUDY = (
    sorted(folder.glob("*.py"))
    for folder in (build_notebooks.NOTEBOOKS, build_notebooks.NEIGHBOURS, build_notebooks.STUDY)
)
MOST_CELLS, MOST_CELLS_OF_A_NEIGHBOUR, MOST_LINES, MOST_COLUMNS = 45, 25, 15, 88
LAYOUT_TOKENS = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
each_source = pytest.mark.parametrize("source", LESSONS + NEIGHBOURS + STUDY, ids=lambda path: path.stem)
each_neighbour = pytest.mark.parametrize("source", NEIGHBOURS, ids=lambda path: path.stem)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("I = 1.2345 nats", "I = 1.2346 nats"),
        ("residual 0.0", "residual -2.2e-16"),
        ("  9.99 |", " 10.00 |"),
        ("1.00e-05", "9.99e-06"),
    ],
)
def test_texts_agree_up_to_a_unit_in_the_last_digit(old: str, new: str):
    assert text_difference(old, new) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("I = 1.2345 nats", "I = 1.2347 nats"),
        ("I = 1.2345 nats", "I = -1.2345 nats"),
        ("I = 1.2345 nats", "I = 1.2345 bits"),
        ("60000 pairs", "60001 pairs"),
        ("residual 1e-16", "residual nan"),
        ("1.5 2.5", "1.5\n2.5"),
    ],
)
def test_texts_differ_in_words_whole_numbers_and_digits(old: str, new: str):
    assert text_difference(old, new)


@pytest.mark.parametrize(("old", "new"), [("probe 0.800", "probe 0.2"), ("[0.98 1.  ]", "[1.   0.5 ]")])
def test_without_numbers_the_text_around_them_has_to_agree(old: str, new: str):
    assert text_difference(old, new, numbers=False) is None
    assert text_difference(old, f"{new} more", numbers=False)


def typed_array(values) -> dict:
    """As plotly 6 and later store an array."""
    array = np.asarray(values)
    shape = ", ".join(map(str, array.shape))
    return {"dtype": array.dtype.str[1:], "bdata": base64.b64encode(array.tobytes()).decode(), "shape": shape}


@pytest.fixture
def figure() -> dict:
    line = {"type": "scatter", "uid": "a", "name": "InfoNCE", "x": [0, 1, 2], "y": typed_array([1.0, 2, 4])}
    image = {"type": "heatmap", "z": typed_array(np.linspace(0, 8, 12).reshape(3, 4))}
    return {"data": [line, image], "layout": {"title": {"text": "I = 1.23"}, "showlegend": False}}


def changed(figure: dict, trace: int, key: str, value) -> dict:
    figure = copy.deepcopy(figure)
    figure["data"][trace][key] = value
    return figure


def test_figures_that_agree(figure):
    assert figure_difference(figure, changed(figure, 0, "uid", "b")) is None
    assert figure_difference(figure, changed(figure, 0, "y", [1.0, 2.0, 4.000001])) is None
    assert figure_difference(figure, changed(figure, 0, "y", typed_array([1.0, 2.0 + 1e-10, 4.0]))) is None


@pytest.mark.parametrize(
    ("trace", "key", "value"),
    [
        (0, "y", typed_array([1.0, 2.001, 4.0])),
        (0, "y", [1.0, None, 4.0]),
        (0, "name", "CLIP"),
        (0, "mode", "lines"),
        (1, "z", typed_array(np.linspace(0, 8, 12).reshape(4, 3))),
    ],
)
def test_figures_that_differ(figure, trace, key, value):
    assert "figure.data" in figure_difference(figure, changed(figure, trace, key, value))


@pytest.mark.parametrize(
    ("key", "value"), [("y", [9.0, 9.0]), ("y", [9.0, None, 9.0]), ("name", "CLIP"), ("visible", False)]
)
def test_without_numbers_shapes_gaps_texts_and_switches_have_to_agree(figure, key, value):
    figure["data"][0]["visible"] = True
    assert figure_difference(figure, changed(figure, 0, "y", [9.0, 9.0, 9.0]), numbers=False) is None
    assert "figure.data" in figure_difference(figure, changed(figure, 0, key, value), numbers=False)


def display(**data) -> dict:
    return {"output_type": "display_data", "metadata": {}, "data": data}


def stream(name: str, text: str) -> dict:
    return {"output_type": "stream", "name": name, "text": text}


def test_a_widget_agrees_with_its_stored_static_twin(figure):
    stored = display(**{PLOTLY: figure, "image/png": "AAAA", "text/plain": "alt"})
    live = display(**{PLOTLY: figure, WIDGET: {}, "text/plain": "alt"})
    assert outputs_difference([stored], [live]) is None
    assert outputs_difference([stored], [display(**{"text/plain": "alt"})])


GRIDDED = {"controls": [{"label": "size", "menu": False, "values": ["1", "2"], "start": 0}]}


def stored_grid(parts: list, controls: dict = GRIDDED) -> dict:
    made = controls | {"parts": parts}
    return display(**{PLOTLY: {"data": []}, _twins.GRID: _twins._packed(made), "text/plain": "alt"})


def test_where_a_run_makes_a_widgets_figures_at_all_settings_they_agree_but_for_their_numbers():
    points = [[["data", 0, "x"], [[1.5, 2], [1.5, None]], [1, 2]], [["caption"], ["I = 1.5"], [1, 1]]]
    moved, others, gap = (copy.deepcopy(points) for _ in range(3))
    moved[0][1], moved[1][1] = [[8.5, 2], [9.5, None]], ["I = 9.5", "I = 7.5"]
    others[1][1], gap[0][2] = ["J = 1.5"], [1, 1]
    stored = stored_grid(points)
    assert outputs_difference([stored], [stored_grid(moved)]) is None
    assert "at 1: figure.caption" in outputs_difference([stored], [stored_grid(others)])
    assert "at 2: figure.data[0].x" in outputs_difference([stored], [stored_grid(gap)])
    renamed = {"controls": [GRIDDED["controls"][0] | {"values": ["1", "3"]}]}
    assert "controls" in outputs_difference([stored], [stored_grid(points, renamed)])
    assert outputs_difference([stored], [display(**{PLOTLY: {"data": []}, "text/plain": "alt"})]) is None
    assert outputs_difference([display(**{PLOTLY: {"data": []}, "text/plain": "alt"})], [stored])


def test_a_progress_bar_leaves_nothing():
    text, bar = stream("stdout", "1.5"), display(**{WIDGET: {}, "text/plain": "23%|##2  | 3/10"})
    assert outputs_difference([text], [bar, text]) is None


def test_warnings_missing_outputs_and_their_order_count():
    text, warning = stream("stdout", "1.5"), stream("stderr", "UserWarning")
    assert outputs_difference([text], [text]) is None
    assert "stderr" in outputs_difference([text], [text, warning])
    assert outputs_difference([text, display(**{"text/plain": "x"})], [text])
    assert outputs_difference([text, warning], [warning, text])


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


@pytest.fixture
def slowness(monkeypatch):
    """What the calibrations of this test find, one after another."""

    def found(*factors: float) -> None:
        taken = iter(factors)
        monkeypatch.setattr(budgets, "_calibrations", [])
        monkeypatch.setattr(budgets, "calibrate", lambda: next(taken))

    return found


def test_a_budget_grows_with_the_slowness_of_the_machine_which_it_names(slowness):
    slowness(1.31, 1.2)
    assert budgets.exceeded("Cell 3", 26.1, 20) == []
    (line,) = budgets.exceeded("Cell 3", 26.3, 20)
    assert line == "Cell 3 took 26.3 s of 20 s x 1.31 (this machine is 1.31 times slower than the reference)"


def test_load_that_comes_after_the_calibration_is_calibrated_again(slowness):
    slowness(1.0, 1.4)
    assert budgets.exceeded("Cell 3", 27.0, 20) == []


def lines_of_code(source: str) -> int:
    """Lines that hold code; blank lines, comments and the rest of a long string are free."""
    text = source if source.endswith("\n") else source + "\n"
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return len({token.start[0] for token in tokens if token.type not in LAYOUT_TOKENS})


@each_source
def test_a_notebook_has_its_shape(source: Path):
    cells = build_notebooks.read_source(source).cells
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# "), "the title comes first"
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert sum(line.startswith("# ") for line in prose.splitlines()) == 1, "exactly one H1"
    assert len(cells) <= (MOST_CELLS_OF_A_NEIGHBOUR if source in NEIGHBOURS else MOST_CELLS)
    lines = [lines_of_code(cell.source) if cell.cell_type == "code" else 0 for cell in cells]
    assert [number for number, count in enumerate(lines, 1) if count > MOST_LINES] == [], "too long a cell"
    code = [line for cell in cells if cell.cell_type == "code" for line in cell.source.splitlines()]
    if source in LESSONS:
        assert [line for line in code if len(line) > MOST_COLUMNS] == [], "cut off on a laptop"
    for question in prose.split("**Predict**")[1:]:
        assert "<details><summary>Answer" in question.split("\n## ")[0], "a question without a folded answer"


@each_neighbour
def test_a_neighbour_states_a_claim_asks_asserts_and_is_seen_from_the_rpm(source: Path):
    cells = build_notebooks.read_source(source).cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    code = [cell for cell in cells if cell.cell_type == "code"]
    for wanted in (r"\*\*The paper's claim\*\*", r"arxiv\.org/abs/\d{4}\.\d{5}|NeurIPS|AISTATS", r"\*\*Predict\*\*"):
        assert re.search(wanted, prose), wanted
    for wanted in (
        r"\*\*Afterwards you can\*\*",
        r"\*\*You need\*\* \[.+?\]\(\.\./\d\d_\w+\.ipynb\)",
        r"\*\*Time\*\* \d+ minutes",
    ):
        assert re.search(wanted, cells[0].source.replace("\n", " ")), wanted
    headings = re.findall(r"(?m)^## (.+)$", prose)
    assert "Seen from the RPM" in headings and headings[-1] == "What we saw"
    assert re.search(r"\(E\d+\)|\\tag\{E\d+\}", prose), "no equation of the course"
    assert any(re.search(r"(?m)^assert ", cell.source) for cell in code), "no claim is asserted"
    assert "seed = 0" in "\n".join(cell.source for cell in code).splitlines()
    exercises = [cell.source for cell in code if "exercise" in cell.metadata.get("tags", [])]
    assert len(exercises) == 1 and f"neighbour_{source.name[1:3]}." in exercises[0]


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
    shown = [output.data for output in cell.outputs if "data" in output]
    assert Code(todays, language="python")._repr_html_() in [data["text/html"] for data in shown], (
        f"remedy: make build ONLY={path.name[:2]}"
    )
