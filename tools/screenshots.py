"""Screenshots of lessons, run in JupyterLab: python tools/screenshots.py notebooks/02_the_elbo.ipynb

Writes slices of the whole notebook, as high as the window, and says what a reader would have seen.
"""

import argparse
import sys
from pathlib import Path

import build_notebooks
import chromium
import lesson_browser
from playwright.sync_api import Page

SCROLLER = ".jp-Notebook .jp-WindowedPanel-outer, .jp-Notebook.jp-WindowedPanel-outer"
CELLS = """panel => [...panel.querySelectorAll('.jp-Cell')].map(cell => {
    const top = panel.scrollTop - panel.getBoundingClientRect().top, box = cell.getBoundingClientRect();
    return [box.top + top, box.bottom + top];
})"""


def slice_tops(cells: list[tuple[float, float]], window: float) -> list[float]:
    """Where slices start: at a cell that the slice before cuts, or inside one taller than a window."""
    tops = [0.0]
    for top, bottom in cells:
        if bottom > tops[-1] + window and top > tops[-1]:
            tops.append(top)
        while bottom > tops[-1] + window:
            tops.append(tops[-1] + window)
    return tops


def slices(page: Page, folder: Path, stem: str) -> list[Path]:
    scroller = page.locator(SCROLLER).first
    window = scroller.evaluate("panel => panel.clientHeight")
    paths = []
    for number, top in enumerate(slice_tops(scroller.evaluate(CELLS), window), 1):
        scroller.evaluate("(panel, top) => panel.scrollTo(0, top)", top)
        page.wait_for_timeout(300)  # for what is drawn only when it comes into view
        paths.append(folder / f"{stem}-{number:02}.png")
        scroller.screenshot(path=paths[-1])
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="by default all lessons")
    parser.add_argument("--theme", choices=[*lesson_browser.THEMES, "both"], default="both")
    parser.add_argument("--output", type=Path, default=lesson_browser.SCREENSHOTS)
    arguments = parser.parse_args()
    if not chromium.find():
        sys.exit(chromium.REMEDY)
    notebooks = arguments.notebooks or sorted(build_notebooks.NOTEBOOKS.glob("*.ipynb"))
    themes = lesson_browser.THEMES if arguments.theme == "both" else [arguments.theme]
    arguments.output.mkdir(parents=True, exist_ok=True)
    problems = 0
    with lesson_browser.serve() as server, lesson_browser.launch() as browser:
        for notebook in notebooks:
            for theme in themes:
                with lesson_browser.lesson(browser, server, notebook, theme) as (page, run):
                    paths = slices(page, arguments.output, f"{notebook.stem}-{theme}")
                seen = f"{run.cells} cells, {run.figures} figures, {len(paths)} screenshots, {run.seconds:.0f} s"
                print(f"{notebook.name} ({theme}): {seen}, {len(run.problems)} problems", flush=True)
                for problem in run.problems:
                    print(f"  {problem}")
                problems += len(run.problems)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
