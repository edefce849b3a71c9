"""A reader's own copy, in JupyterLab: it opens whatever its files' times, and a widget is seen early, late and without kernel."""

import os
import shutil

import build_notebooks
import keyboard
import lesson_browser
import pytest
from budgets import HANG
from keyboard import wait

pytestmark = [pytest.mark.browser, pytest.mark.nightly]
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
def page(browser, server, tmp_path_factory):
    """A notebook with a widget, an hour newer than its source beside it, where jupytext's settings would pair them."""
    page = browser.new_page()
    page.set_default_timeout(1000 * HANG)
    page.add_init_script(LATE)
    address = server.add(lesson_browser.write(WIDGET, tmp_path_factory.mktemp("reading") / "widget.ipynb"))
    notebook, source = server.folder / "widget.ipynb", server.folder / "widget.py"
    source.write_text(WIDGET)
    hour_ago = notebook.stat().st_mtime - 3600
    os.utime(source, (hour_ago, hour_ago))
    for settings in build_notebooks.NOTEBOOKS.parent.glob("*.toml"):
        shutil.copy(settings, server.folder.parent)
    page.goto(address)
    page.locator("#jp-main-statusbar").get_by_text("| Idle").first.wait_for()
    yield page
    page.close()


def command(page, name: str) -> None:
    page.evaluate("name => window.jupyterapp.commands.execute(name)", name)


def test_a_widget_is_drawn_and_works_before_its_own_modules_are_there(page):
    command(page, "notebook:run-all-cells")
    assert wait(page, DRAWN)
    slider, first = page.locator(".noUi-handle").first, keyboard.look(page.locator(keyboard.EXPLORERS))
    slider.press("Home")
    assert wait(page, f"first => {SUMMARY}.textContent !== first", first.text)
    assert wait(page, f"first => ({keyboard.LOOK})({WIDGETS})[1] !== first && ({DRAWN})()", first.figure)
    assert wait(page, "() => document.querySelector('.noUi-handle').ariaLabel"), "then they are there too"


def test_a_figure_has_no_button_that_uploads_it(page):
    drawn = page.locator(".rpm-explorer .modebar-btn")
    titles = drawn.evaluate_all("buttons => buttons.map(button => button.dataset.title ?? button.ariaLabel)")
    assert "Reset axes" in titles and [title for title in titles if "hare" in title or "loud" in title] == []


def test_saving_leaves_the_source_and_a_saved_widget_is_its_static_twin_when_the_kernel_is_another(page, server):
    page.evaluate(
        "window.jupyterapp.shell.currentWidget.content.widgets[0].model.sharedModel.updateSource(0, 0, '# mine\\n')"
    )
    command(page, "docmanager:save")
    assert page.locator(".jp-Dialog").count() == 0 and (server.folder / "widget.py").read_text() == WIDGET
    assert "# mine" in (server.folder / "widget.ipynb").read_text(encoding="utf-8")
    page.evaluate(f"{KERNEL}.session.kernel.restart()")
    page.goto(server.page("widget.ipynb"))
    page.locator(".jp-Notebook .slider-container").wait_for()
    assert page.get_by_text("not found").count() == page.locator(keyboard.EXPLORERS).count() == 0
