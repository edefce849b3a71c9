"""A reader's own copy, in JupyterLab: it opens whatever its files' times, and a widget is seen early, late and without kernel."""

import os
import shutil

import build_notebooks
import keyboard
import lesson_browser
import pytest
from keyboard import wait

pytestmark = [pytest.mark.browser, pytest.mark.slow]
WIDGET = """\
# %%
from rpm_tutorial import lessons
from rpm_tutorial.course.widgets import explore

widget = explore(lessons.lesson_01.ring)
widget
"""
# A busy machine is long in reading a module that comes with a widget: each of them waits for ten seconds.
LATE = """
const address = URL.createObjectURL, wait = 'await new Promise(done => setTimeout(done, 10_000));';
URL.createObjectURL = blob => address(blob.type === 'text/javascript' ? new Blob([wait, blob], { type: blob.type }) : blob);
"""
WIDGETS = f"document.querySelector('{keyboard.EXPLORERS}')"
SUMMARY = "document.querySelector('.rpm-explorer [role=status]')"
DRAWN = "() => document.querySelector('.rpm-explorer .main-svg image, .rpm-explorer .main-svg .trace')"
KERNEL = "window.jupyterapp.shell.currentWidget.sessionContext"


@pytest.fixture(scope="module")
def server(chromium_path: str):
    with lesson_browser.serve() as server:
        yield server


@pytest.fixture(scope="module")
def browser(chromium_path: str):
    with lesson_browser.launch() as browser:
        yield browser


@pytest.fixture
def page(browser):
    page = browser.new_page()
    page.set_default_timeout(120_000)
    yield page
    page.close()


@pytest.fixture
def widget(server, tmp_path) -> str:
    """The address of a notebook with a widget."""
    source = tmp_path / "widget.py"
    source.write_text(WIDGET)
    build_notebooks.write(build_notebooks.read_source(source), source.with_suffix(".ipynb"))
    return server.add(source.with_suffix(".ipynb"))


def command(page, name: str) -> None:
    page.evaluate("name => window.jupyterapp.commands.execute(name)", name)


def open_and_run(page, address: str) -> None:
    page.goto(address)
    page.locator("#jp-main-statusbar").get_by_text("| Idle").first.wait_for()
    command(page, "notebook:run-all-cells")
    page.locator(keyboard.EXPLORERS).wait_for()


def test_a_widget_is_drawn_and_works_before_its_own_modules_are_there(page, widget):
    page.add_init_script(LATE)
    open_and_run(page, widget)
    assert wait(page, DRAWN, seconds=120)
    slider, first = page.locator(".noUi-handle").first, keyboard.look(page.locator(keyboard.EXPLORERS))
    slider.press("Home")
    assert wait(page, f"first => {SUMMARY}.textContent !== first", first.text, seconds=120)
    assert wait(page, f"first => ({keyboard.LOOK})({WIDGETS})[1] !== first && ({DRAWN})()", first.figure, seconds=120)
    assert wait(page, "() => document.querySelector('.noUi-handle').ariaLabel", seconds=120), "then they are there too"


def test_a_saved_widget_is_its_static_twin_when_the_kernel_is_another(page, server, widget):
    open_and_run(page, widget)
    command(page, "docmanager:save")
    page.evaluate(f"{KERNEL}.session.kernel.restart()")
    page.goto(widget)
    page.locator(".jp-Notebook .slider-container").wait_for()
    assert page.get_by_text("not found").count() == page.locator(keyboard.EXPLORERS).count() == 0


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_lesson_older_or_newer_than_its_source_opens_and_its_source_stays(page, server, hours):
    notebook, source = (server.folder / f"02_the_elbo.{kind}" for kind in ("ipynb", "py"))
    text = (build_notebooks.NOTEBOOKS / source.name).read_text(encoding="utf-8")
    source.write_text(text, encoding="utf-8")
    for settings in build_notebooks.NOTEBOOKS.parent.glob("*.toml"):  # jupytext, which is installed here, reads them
        shutil.copy(settings, server.folder.parent)
    then = notebook.stat().st_mtime - 3600 * hours
    os.utime(source, (then, then))
    page.goto(server.page(notebook.name))
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    page.locator("#jp-main-statusbar").get_by_text("| Idle").first.wait_for()
    page.evaluate("window.jupyterapp.shell.currentWidget.content.widgets[0].model.sharedModel.setSource('mine')")
    command(page, "docmanager:save")
    assert page.locator(".jp-Dialog").count() == 0
    assert '"mine"' in notebook.read_text(encoding="utf-8") and source.read_text(encoding="utf-8") == text
