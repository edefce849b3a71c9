"""The course as one PDF, printed from the site that `make site` has built: python tools/book.py [PAGE ...]

Writes build/site/course.pdf: the first page, the lessons, their neighbours, with an outline. `make book` does both.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import chromium
import lesson_browser
import site_pages
from playwright.sync_api import Browser
from pypdf import PdfWriter
from tqdm import tqdm

SITE = site_pages.ROOT / "build" / "site"
PAPER = {"format": "A4", "print_background": True, "margin": dict.fromkeys(("top", "bottom", "left", "right"), "15mm")}
DRAWN = "() => !document.querySelector('.rpm-figure') || document.documentElement.dataset.drawn"


def pages() -> list[str]:
    lessons = [f"notebooks/{name}" for name in site_pages.lessons()]
    return [
        "index",
        *lessons,
        "neighbours",
        *(f"notebooks/neighbours/{name}" for name in site_pages.neighbours()),
        *(f"notebooks/study/{name}" for name in site_pages.study()),
    ]


def write(path: Path, names: list[str], browser: Browser) -> None:
    """A PDF of these pages of the site, each an entry of its outline."""
    book = PdfWriter()
    with TemporaryDirectory() as folder:
        page = browser.new_page(color_scheme="light", viewport={"width": 680, "height": 960})  # as wide as the paper
        for name in tqdm(names, desc="pages", unit="page"):
            page.goto((SITE / f"{name}.html").as_uri())
            page.wait_for_function(DRAWN, timeout=0)
            printed = Path(folder) / "page.pdf"
            page.pdf(path=printed, **PAPER)
            book.append(printed, outline_item=page.title().split(" - ")[0])
        page.close()
    book.compress_identical_objects()
    book.write(path)


if __name__ == "__main__":
    if not chromium.find():
        sys.exit(chromium.REMEDY)
    if not (SITE / "index.html").exists():
        sys.exit(f"There is no {SITE / 'index.html'}; remedy: make book")
    with lesson_browser.launch() as browser:
        write(SITE / "course.pdf", sys.argv[1:] or pages(), browser)
    print(f"Open {SITE / 'course.pdf'}")
