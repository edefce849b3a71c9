"""Each lesson in JupyterLab, in a headless Chromium: Run All, what its reader sees, and what a reader can do there."""

from collections import Counter
from pathlib import Path

import build_notebooks
import keyboard
import lesson_browser
import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from lesson_items import COSTS, Cost, peak_mib
from needs import need_fashion_mnist
from notebook_compare import is_reproducible, outputs_difference
from residuals import MEASURED

NOTEBOOKS = sorted(build_notebooks.NOTEBOOKS.glob("*.ipynb"))
pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def opened(request, browser, server):
    """A lesson, run once for all of its tests."""
    if "fashion_mnist" in request.param.read_text(encoding="utf-8"):
        need_fashion_mnist()
    with lesson_browser.lesson(browser, server, request.param) as (page, run):
        keyboard.listen(page)
        yield page, run, request.param


def read(notebook: Path) -> nbformat.NotebookNode:
    return nbformat.read(notebook, as_version=4)


def stored_widgets(notebook: Path) -> int:
    """How many widgets a lesson has: each left a figure with a slider of its own in the stored outputs."""
    bundles = [o.get("data", {}) for cell in build_notebooks.code_cells(read(notebook)) for o in cell.outputs]
    return sum("sliders" in b[build_notebooks.PLOTLY]["layout"] for b in bundles if build_notebooks.PLOTLY in b)


def each(daily: list[Path]):
    """Each lesson; those that are not `daily`, nightly. `make test` runs the cells of a lesson that it opens nowhere by nbval."""
    lessons = [pytest.param(path, marks=() if path in daily else pytest.mark.nightly) for path in NOTEBOOKS]
    return pytest.mark.parametrize("opened", lessons, ids=lambda path: path.stem, indirect=True, scope="module")


WITH_WIDGETS = [path for path in NOTEBOOKS if stored_widgets(path)]


@each(WITH_WIDGETS)
def test_run_all_shows_every_figure_and_no_error(opened):
    _, run, _ = opened
    assert run.problems == []


@each(WITH_WIDGETS)
def test_outputs_are_the_stored_ones(opened):
    _, run, notebook = opened
    differ = {}
    for number, (stored, now) in enumerate(
        zip(*map(build_notebooks.code_cells, (read(notebook), run.notebook)), strict=True)
    ):
        if build_notebooks.IGNORED not in stored.metadata.get("tags", []):
            outputs = build_notebooks.lasting(now.outputs)
            differ[f"Cell {number}"] = outputs_difference(stored.outputs, outputs, is_reproducible(stored))
    assert {cell: difference for cell, difference in differ.items() if difference} == {}


@each(WITH_WIDGETS)
def test_a_lesson_stays_within_its_budget(opened, request):
    _, run, notebook = opened
    names = {cell.id: f"Cell {number}" for number, cell in enumerate(build_notebooks.code_cells(run.notebook))}
    worked = {names[key]: seconds for key, seconds in run.worked.items() if key in names}
    cost = Cost(cells=worked, worked=worked, peak_mib=peak_mib(run.pid))
    request.config.stash[COSTS][notebook.stem] = cost
    assert set(worked) == set(names.values()) and cost.overruns() == []


# Accessibility: what axe finds


@each(WITH_WIDGETS[:1])
def test_axe_finds_nothing_grave_in_what_a_lesson_shows(opened):
    page, _, notebook = opened
    for theme in ("dark", "light"):  # the page is light again for the tests that follow
        lesson_browser.show_theme(page, theme)
        ours, others = axe_violations(page)
        MEASURED.append(
            f"axe {notebook.stem}, {theme}: {sum(ours.values())} in the lesson, {sum(others.values())} outside"
        )
        assert ours == {}
        assert set(others) <= set(JUPYTERLABS)


# Serious or critical, in the markup of JupyterLab 4.6, none of it a lesson's to mend.
JUPYTERLABS = {
    "aria-allowed-attr": "the debugger's button has aria-pressed on a tag that may not have it",
    "aria-input-field-name": "the editor of a cell has no name",
    "aria-required-children": "the list of cells is a feed, whose children are no articles",
    "button-name": "the button that folds a heading has no name",
    "scrollable-region-focusable": "an editor that scrolls sideways is not in the order of Tab",
}
OURS = "selector => !!document.querySelector(selector)?.closest('.jp-OutputArea-output, .jp-RenderedMarkdown')"


def axe_violations(page) -> tuple[Counter, Counter]:
    """The rules that axe finds broken gravely, with how often: in what a lesson shows, and in the page around it."""
    ours, others = Counter(), Counter()
    for violation in Axe().run(page).response["violations"]:
        if violation["impact"] in ("serious", "critical"):
            for node in violation["nodes"]:
                (ours if page.evaluate(OURS, node["target"][-1]) else others)[violation["id"]] += 1
    return ours, others


# Widgets, by keyboard


@each(WITH_WIDGETS)
def test_every_widget_works_by_keyboard_and_says_what_it_shows(opened):
    page, run, notebook = opened
    widgets = page.locator(keyboard.EXPLORERS).all()
    assert len(widgets) == stored_widgets(notebook)
    lesson_browser.SCREENSHOTS.mkdir(exist_ok=True)
    for number, widget in enumerate(widgets, 1):
        drive = keyboard.drive(page, widget)
        MEASURED.append(f"{notebook.stem}, widget {number}: {drive.controls} controls, {drive.positions} positions")
        widget.screenshot(path=lesson_browser.SCREENSHOTS / f"{notebook.stem}-widget-{number}.png")
        assert drive.problems == [] and drive.positions >= 3 * drive.controls
    assert keyboard.heard(page) == [] and page.locator(lesson_browser.STDERR).count() == 0
    assert run.problems == []


BROKEN = """\
# %% [markdown]
# # A broken lesson

# %%
import plotly.graph_objects as go

go.Figure(go.Scatter(y=[1, 2]))

# %%
from IPython.display import HTML

HTML("<button></button>")

# %%
import sys

print("a warning", file=sys.stderr)

# %%
1 / 0

# %%
print("never reached")
"""


def test_a_broken_lesson_is_noticed(browser, server, tmp_path: Path):
    notebook = lesson_browser.write(BROKEN, tmp_path / "01_broken.ipynb")
    with lesson_browser.lesson(browser, server, notebook) as (page, run):
        assert axe_violations(page)[0] == {"button-name": 1}
        assert run.figures == 1
        problems = [problem.split(":")[0] for problem in run.problems]
        assert problems == ["Cell 2 on stderr", "Cell 3 on stderr", "Cell 4 did not run"]
        assert "ZeroDivisionError" in run.problems[1]
