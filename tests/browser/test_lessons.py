"""Each lesson in JupyterLab, in a headless Chromium: Run All, and what its reader sees."""

from pathlib import Path

import build_notebooks
import lesson_browser
import pytest
from needs import need_fashion_mnist

NOTEBOOKS = sorted(build_notebooks.NOTEBOOKS.glob("*.ipynb"))
pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def server(chromium_path: str):
    with lesson_browser.serve() as server:
        yield server


@pytest.fixture(scope="module")
def browser(chromium_path: str):
    with lesson_browser.launch() as browser:
        yield browser


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_run_all_shows_every_figure_and_no_error(browser, server, notebook: Path):
    if "fashion_mnist" in notebook.read_text(encoding="utf-8"):
        need_fashion_mnist()
    with lesson_browser.lesson(browser, server, notebook) as (_, run):
        assert run.problems == []


BROKEN = """\
# %% [markdown]
# # A broken lesson

# %%
import plotly.graph_objects as go

go.Figure(go.Scatter(y=[1, 2]))

# %%
import sys

print("a warning", file=sys.stderr)

# %%
1 / 0

# %%
print("never reached")
"""


def test_a_broken_lesson_is_noticed(browser, server, tmp_path: Path):
    source = tmp_path / "01_broken.py"
    source.write_text(BROKEN)
    notebook = source.with_suffix(".ipynb")
    built = build_notebooks.read_source(source)
    build_notebooks.write(built, notebook)
    with lesson_browser.lesson(browser, server, notebook) as (_, run):
        assert run.figures == 1
        assert [problem.split(":")[0] for problem in run.problems] == [
            "Cell 1 on stderr",
            "Cell 2 on stderr",
            "Cell 3 did not run",
        ]
        assert "ZeroDivisionError" in run.problems[1]
