"""How long a widget takes: python tools/latency.py notebooks/02_the_elbo.ipynb

Prints, for each widget of the lessons named, the 95th percentile of the seconds from a control's change to the figure and
summary set in the kernel, and from the key pressed to the changed picture in the page. Each setting is computed anew.
On a busy machine the clock counts waiting too: the kernel is judged by its processor's seconds, the page by its median, and
both beside how slow the machine is now (tools/budgets.py).
"""

import argparse
import json
import statistics
import sys
from itertools import cycle
from pathlib import Path

import budgets
import build_notebooks
import chromium
import keyboard
import lesson_browser
from playwright.sync_api import Locator, Page

KERNEL_TARGET, PAGE_TARGET = 0.100, 0.100
FIND = """\
import gc, json, time
from rpm_tutorial.course.widgets import Explorer
_explorers = [o for o in gc.get_objects() if issubclass(type(o), Explorer)]
"""
FORGET = FIND + "_ = [o.render.cache_clear() for o in _explorers]"
TIME = """\
_it = next(o for o in _explorers if o.figure.alt + o.figure.caption == SHOWN)
_it.render.cache_clear()
_seconds = []
while len(_seconds) < CHANGES:
    for _control in _it.controls.values():
        for _, _value in [*_control.options, _control.options[0]]:
            if _value != _control.value:
                _start = time.perf_counter(), time.thread_time()
                _control.value = _value
                _seconds.append((time.perf_counter() - _start[0], time.thread_time() - _start[1]))
                time.sleep(0.2)  # as a reader would: the page draws meanwhile
        _it.render.cache_clear()
print(json.dumps([*zip(*_seconds)]))
"""
# From the key until a frame after the last change of the picture; later ones, within a quiet time, count too.
ARM = """([widget, quiet]) => {
    window.rpmDrawn = new Promise(done => document.addEventListener('keydown', () => {
        const pressed = performance.now();
        let timer = null, drawn = null;
        const watch = new MutationObserver(() => {
            clearTimeout(timer);
            requestAnimationFrame(() => { drawn = performance.now() - pressed; });
            timer = setTimeout(() => { watch.disconnect(); done(drawn / 1000); }, quiet);
        });
        watch.observe(widget.querySelector('.jp-OutputArea'), { subtree: true, childList: true, attributes: true });
        setTimeout(() => { watch.disconnect(); done(null); }, 3000);
    }, { once: true, capture: true }));
}"""
QUIET_MS = 150


def percentile(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=20, method="inclusive")[-1]


def in_page(page: Page, widget: Locator, changes: int) -> list[float]:
    """Seconds from keys to pictures: along each control by its arrow, and by Home at its end."""
    controls, seconds = cycle(widget.locator(keyboard.CONTROLS).all()), []
    while len(seconds) < changes:
        control = next(controls)
        forward = "ArrowDown" if control.evaluate("control => control.matches('select')") else "ArrowRight"
        control.press("Home")
        keyboard.settle(page)
        keyboard.ask(page, FORGET)
        last = keyboard.place(control).last
        for key in [*([forward] * last), "Home"][: changes - len(seconds)]:
            handle = widget.element_handle()
            page.evaluate(ARM, [handle, QUIET_MS])
            control.press(key)
            drawn = page.evaluate("window.rpmDrawn")
            if drawn is not None:  # a setting that draws the same picture
                seconds.append(drawn)
    return seconds


def in_kernel(page: Page, widget: Locator, changes: int) -> tuple[list[float], list[float]]:
    """Seconds from a control's new value to figure and summary: by the clock, and of the processor's work."""
    code = FIND + TIME.replace("SHOWN", repr(keyboard.look(widget).text)).replace("CHANGES", str(changes))
    return json.loads(keyboard.ask(page, code))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=__doc__.split("\n\n")[1])
    parser.add_argument("notebooks", nargs="*", type=Path, help="by default all lessons")
    parser.add_argument("--changes", type=int, default=24, help="of each widget, at least (default 24)")
    arguments = parser.parse_args()
    if not chromium.find():
        sys.exit(chromium.REMEDY)
    missed = 0
    print(
        f"{'milliseconds':<34}{'kernel':>16}{'its processor':>16}{'page':>16}\n{'widget':<34}{'     p95  median' * 3}"
    )
    with lesson_browser.serve() as server, lesson_browser.launch() as browser:
        for notebook in arguments.notebooks or sorted(build_notebooks.NOTEBOOKS.glob("*.ipynb")):
            with lesson_browser.lesson(browser, server, notebook) as (page, _):
                for number, widget in enumerate(page.locator(keyboard.EXPLORERS).all(), 1):
                    drawn = in_page(page, widget, arguments.changes)
                    told, worked = in_kernel(page, widget, arguments.changes)
                    found = [f(seconds) for seconds in (told, worked, drawn) for f in (percentile, statistics.median)]
                    late = budgets.exceeded("kernel", found[2], KERNEL_TARGET)
                    late += budgets.exceeded("page", found[5], PAGE_TARGET)
                    missed += bool(late)
                    cells = "".join(f"{1e3 * seconds:8.0f}" for seconds in found)
                    print(f"{notebook.stem[:30]:<31}{number:>3}{cells}   {'; '.join(late)}", flush=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
