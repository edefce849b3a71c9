"""The site, built and opened from disk in a headless Chromium: what a reader without a network and without a mouse has."""

import json
import re
import zipfile
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import book
import build_notebooks
import environments
import launch_links
import lesson_browser
import nbformat
import pypdf
import pytest
from axe_playwright_python.sync_playwright import Axe
from budgets import HANG, exceeded
from needs import NO_DEPRECATIONS, need_sphinx
from notebook_compare import figure_difference
from residuals import MEASURED

from rpm_tutorial.course._twins import GRID, figure_at, unpacked

ROOT = Path(__file__).parents[2]
LESSONS, NEIGHBOURS, STUDY = (
    sorted(folder.glob("*.ipynb"))
    for folder in (build_notebooks.NOTEBOOKS, build_notebooks.NEIGHBOURS, build_notebooks.STUDY)
)
LARGEST, FIRST_PAINT = 3_000_000, 1.5  # bytes of the files that a page asks for, seconds
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
DRAWN = "() => !document.querySelector('.rpm-figure') || document.documentElement.dataset.drawn"
pytestmark = [pytest.mark.browser, pytest.mark.slow]

REPOSITORY = "someone/course"  # a stand-in: launch buttons need one


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    need_sphinx()
    checkout = environments.checkout_for("site", tmp_path_factory.mktemp("site") / "checkout")
    run = environments.make(checkout, "site", GITHUB_REPOSITORY=REPOSITORY, **NO_DEPRECATIONS)
    assert run.returncode == 0, run.stderr
    return checkout / "build" / "site"


@dataclass
class Visit:
    """What opening a page asked for and complained of."""

    asked: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        return sum(Path(unquote(urlsplit(url).path)).stat().st_size for url in self.asked if url.startswith("file:"))


@pytest.fixture(scope="module")
def context(browser):
    """A browser without a network."""
    context = browser.new_context(offline=True, viewport={"width": 1200, "height": 900})
    context.set_default_timeout(1000 * HANG)
    yield context
    context.close()


@pytest.fixture
def page(context):
    """An empty page, its visits recorded in `page.visit`."""
    page, visit = context.new_page(), Visit()
    page.visit = visit
    page.on("request", lambda request: visit.asked.add(request.url.split("#")[0].split("?")[0]))
    page.on("console", lambda message: visit.problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: visit.problems.append(f"uncaught: {error}"))
    yield page
    page.close()


def visit(page, path: Path, query: str = "") -> Visit:
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 1200, "height": 900})
    page.visit.asked.clear()
    page.goto(path.as_uri() + query)
    page.wait_for_function(DRAWN)
    page.wait_for_function(PAINTED)
    return page.visit


def seconds_to_first_paint(page, path: Path) -> float:
    """Of the open page, the shortest of several visits if the first is slow: a page waits for other programs too."""
    seconds = page.evaluate(PAINTED) / 1000
    for _ in range(7):
        if seconds >= FIRST_PAINT:
            visit(page, path)
            seconds = min(seconds, page.evaluate(PAINTED) / 1000)
    return seconds


def pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def notebooks(site: Path) -> dict[Path, Path]:
    """The page of each notebook, in the order of the course."""
    return {site / path_of(notebook).with_suffix(".html"): notebook for notebook in LESSONS + NEIGHBOURS + STUDY}


def path_of(notebook: Path) -> Path:
    return notebook.relative_to(ROOT)


# Contrast takes most of axe's time, and words of code by the hundred have the same colours: one of each kind is enough.
MARK = """() => {
    const seen = new Set();
    for (const word of document.querySelectorAll('pre span, dt span, dt em')) {
        const box = word.closest('dt') ?? word.closest('div').parentElement;
        const kind = `${word.className} in ${box.className}`;
        word.toggleAttribute('data-again', seen.has(kind));
        seen.add(kind);
    }
}"""


def grave(page, rules: list[str]) -> list[str]:
    """What axe finds gravely broken by these rules, or by any; pictures are described as a whole, and left out."""
    page.evaluate(MARK)
    options = {"resultTypes": ["violations"], "preload": False} | ({"runOnly": rules} if rules else {})
    seen = {"exclude": [[".svg-container"], ["math"], ["[data-again]"]]}
    found = Axe().run(page, context=seen, options=options).response["violations"]
    return [
        f"{violation['id']}: {violation['nodes'][0]['html'][:200]}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
    ]


CONTROLS = ".rpm-control :is(input, select)"


def drawn_as_stored(page, notebook: Path) -> bool:
    """Whether each stored figure is drawn, described and on white paper, and each widget has all its controls."""
    stored = build_notebooks.figures(nbformat.read(notebook, as_version=4))
    plots = page.locator(".rpm-plot:has(.main-svg)").evaluate_all(
        "plots => plots.map(p => [getComputedStyle(p).backgroundColor, p.getAttribute('aria-label').length > 20])"
    )
    controls = sum(len(unpacked(data[GRID])["controls"]) for data in stored if GRID in data)
    return plots == [["rgb(255, 255, 255)", True]] * len(stored) and page.locator(CONTROLS).count() == controls


def test_every_page_is_complete_light_and_quick(site, page):
    heaviest, slowest, wrong = 0, 0.0, []
    for path in pages(site):
        seen = visit(page, path)
        outside = [url for url in seen.asked if not url.startswith(("file:", "data:", "blob:"))]
        heaviest, slowest = max(heaviest, seen.bytes), max(slowest, seconds_to_first_paint(page, path))
        wrong += [(path.name, problem) for problem in seen.problems + outside]
        if path in notebooks(site) and not drawn_as_stored(page, notebooks(site)[path]):
            wrong.append((path.name, "a stored figure is missing"))
        for width in (1366, 1312, 1100, 1024, 800, 683, 360):  # laptops, one of them at 200 %, tablets, a phone
            page.set_viewport_size({"width": width, "height": 740})
            if page.evaluate("document.documentElement.scrollWidth") > width:
                wrong.append((path.name, f"scrolls sideways in a window of {width} pixels"))
        page.visit.problems.clear()
    MEASURED.append(f"site: {len(pages(site))} pages, largest {heaviest / 1e6:.2f} MB, first paint {slowest:.2f} s")
    assert wrong == []
    assert heaviest < LARGEST and exceeded("the slowest first paint", slowest, FIRST_PAINT) == []


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.nightly)], ids=["of each kind", "all"])
def test_pages_are_accessible_light_and_dark(site, page, every: bool):
    """A page of each folder stands for those that are made as it is."""
    one_of_each = {path.parent: path for path in [*pages(site), site / "index.html"]}.values()
    wrong = []
    for path in pages(site) if every else one_of_each:
        first_screen = lesson_browser.SCREENSHOTS / "site" / path.relative_to(site).with_suffix(".png")
        visit(page, path)
        for theme, rules in (("light", []), ("dark", ["color-contrast"])):
            page.emulate_media(color_scheme=theme)
            page.screenshot(path=first_screen.with_stem(f"{path.stem}-{theme}"))
            wrong += [(path.name, theme, problem) for problem in grave(page, rules)]
    assert wrong == []


def test_a_broken_page_is_noticed(page, tmp_path: Path):
    path = tmp_path / "broken.html"
    body = "<h1>Broken</h1><button></button><script src='https://example.org/a.js'></script><script>missing()</script>"
    path.write_text(f"<html lang='en'><title>Broken</title><body>{body}")
    seen = visit(page, path)
    assert grave(page, []) == ["button-name: <button></button>"]
    assert "https://example.org/a.js" in seen.asked and "uncaught: missing is not defined" in seen.problems


def test_without_a_kernel_every_control_of_a_widget_works_by_keyboard_and_shows_the_stored_figure(site, page):
    widgets = 0
    for path, notebook in notebooks(site).items():
        stored = build_notebooks.figures(nbformat.read(notebook, as_version=4))
        grids = [unpacked(data[GRID]) for data in stored if GRID in data]
        if not grids:
            continue
        visit(page, path)
        boxes = page.locator(f".rpm-figure:has({CONTROLS})").all()
        for box, grid in zip(boxes, grids, strict=True):
            for k, control in enumerate(box.locator(CONTROLS).all()):
                keys = ("ArrowDown", "ArrowUp") if grid["controls"][k]["menu"] else ("Home", "ArrowRight", "End")
                seen = [moved(box, control, key) for key in keys]
                for setting, *shown in seen:
                    expected = figure_at(grid, setting)
                    assert shown[1:] == [expected["layout"]["height"], expected["caption"], expected["alt"]], path.name
                    assert figure_difference(expected["data"], shown[0]) is None, path.name
                assert len({json.dumps(setting) for setting, *_ in seen}) == len(seen), path.name
                assert len({(caption, said) for *_, caption, said in seen}) == len(seen), path.name
            widgets += 1
    assert widgets == 16 and page.visit.problems == []


def moved(box, control, key: str) -> list:
    """A widget after a key: the places of its controls, what is drawn and how high, its caption, and its plot's description."""
    control.press(key)
    control.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 30)))")
    return box.evaluate(
        """(box, controls) => {
            const plot = box.querySelector('.rpm-plot'), places = [...box.querySelectorAll(controls)];
            for (const control of places) {
                const shown = control.parentElement.querySelector('output');
                if (shown && shown.textContent !== control.getAttribute('aria-valuetext')) throw Error(shown.textContent);
            }
            return [places.map(control => control.selectedIndex ?? control.valueAsNumber), plot.data, plot.clientHeight,
                    box.querySelector('.rpm-caption').textContent, plot.getAttribute('aria-label')];
        }""",
        CONTROLS,
    )


def test_the_controls_of_a_widget_stay_in_sight_while_its_figure_is_read(site, page):
    visit(page, site / path_of(LESSONS[1]).with_suffix(".html"))
    for width, height in ((1366, 740), (800, 600), (683, 384), (360, 740)):  # the third is 1366 pixels at 200 %
        page.set_viewport_size({"width": width, "height": height})
        page.locator(".rpm-caption").first.evaluate(
            "caption => caption.scrollIntoView({ block: 'end', behavior: 'instant' })"
        )
        for control in page.locator(CONTROLS).all():
            on_top = control.evaluate(
                """control => {
                    const { left, right, top, bottom } = control.getBoundingClientRect();
                    return document.elementFromPoint((left + right) / 2, (top + bottom) / 2) === control && right <= innerWidth;
                }"""
            )
            assert on_top, f"{width} pixels"


def test_a_slider_keeps_its_length_while_its_value_grows(site, page):
    visit(page, site / path_of(LESSONS[12]).with_suffix(".html"))
    page.set_viewport_size({"width": 360, "height": 740})
    for slider in page.locator(".rpm-control input").all():
        lengths = set()
        for key in ("Home", "End"):
            slider.press(key)
            lengths.add(slider.bounding_box()["width"])
        assert len(lengths) == 1


def test_the_first_screen_has_the_question_the_picture_a_slider_and_the_ways_in(site, page):
    visit(page, site / "index.html")
    assert [box.text_content() for box in page.locator(".launch a").all()][:3] == [
        "Start",
        "Run in Binder",
        "Run in Colab",
    ]
    picture, slider = page.locator(".rpm-plot").first.bounding_box(), page.get_by_role("slider", name="temperature")
    assert slider.bounding_box()["y"] < picture["y"] and picture["y"] + picture["height"] < 700, "of a window of 768"
    slider.press("Home")
    read = re.findall(r"\d\.\d{4}", page.locator(".rpm-caption").first.text_content())
    assert len(read) == 3 and len(set(read)) == 1, "three names, one number"
    assert page.get_by_role("combobox", name="prior").count() == 1
    slider = page.get_by_role("slider", name="offset t of the critic")
    before = page.locator(".rpm-caption").last.text_content()
    slider.press("ArrowRight")
    assert page.locator(".rpm-caption").last.text_content() != before
    assert page.locator(".card").count() == len(LESSONS)
    page.set_viewport_size({"width": 360, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360, "nothing is cut off on a telephone"


def test_a_lesson_that_was_read_to_its_end_is_ticked_in_this_browser_alone(site, browser):
    context = browser.new_context(offline=True, viewport={"width": 1200, "height": 900})
    page = context.new_page()
    lesson = site / path_of(LESSONS[1]).with_suffix(".html")
    page.goto(lesson.as_uri())
    assert page.locator(".sidebar-tree .read").count() == 0
    page.keyboard.press("End")
    page.locator(".sidebar-tree .current .read").wait_for(state="attached", timeout=1000 * HANG)
    page.goto((site / "index.html").as_uri())
    page.locator(".card .read").wait_for(timeout=1000 * HANG)
    assert page.locator(".card .read").count() == 1 and context.cookies() == []
    context.close()


def test_code_is_copied_by_a_button_and_a_shared_link_says_what_it_leads_to(site, page):
    path = site / path_of(LESSONS[0]).with_suffix(".html")
    visit(page, path)
    assert page.locator("button.copybtn").count() >= page.locator(".cell_input").count()
    for name in ("description", "og:description"):
        text = page.locator(f'meta[name="{name}"], meta[property="{name}"]').first.get_attribute("content")
        assert text.startswith("Afterwards you can ") and not re.search(r"[*$`\]]", text)
    picture = page.locator('meta[property="og:image"]').get_attribute("content")
    assert picture == "https://someone.github.io/course/_static/three_names.png"
    assert (site / "_static" / "three_names.png").exists() and (site / ".nojekyll").exists()


def test_the_notebooks_can_be_taken_along(site):
    with zipfile.ZipFile(site / "notebooks.zip") as archive:
        assert {*archive.namelist()} == {path_of(notebook).as_posix() for notebook in LESSONS + NEIGHBOURS + STUDY}


@pytest.mark.nightly
def test_pages_are_printed_as_one_pdf_with_an_outline(site, browser, monkeypatch, tmp_path: Path):
    monkeypatch.setattr(book, "SITE", site)
    book.write(tmp_path / "course.pdf", ["index", "notebooks/02_the_elbo"], browser)
    printed = pypdf.PdfReader(tmp_path / "course.pdf")
    assert len(printed.outline) == 2 and printed.outline[1].title.startswith("The ELBO")
    assert "What you will be able to do" in "".join(page.extract_text() for page in printed.pages)
    assert [name for name in book.pages() if not (site / f"{name}.html").exists()] == []


@pytest.mark.parametrize(("word", "title"), [("donsker", "One prior, one objective"), ("InfoMin", "Good views")])
def test_search_finds_a_lesson_and_a_neighbour(site, page, word: str, title: str):
    visit(page, site / "search.html", f"?q={word}")
    page.get_by_role("link", name=re.compile(title)).and_(page.locator("#search-results a")).first.wait_for()
    assert page.visit.problems == []


def test_notebooks_follow_one_another_and_have_their_launch_links(site):
    paths = [site / "index.html", *notebooks(site)]
    paths.insert(1 + len(LESSONS), site / "neighbours.html")
    for before, path in zip(paths, paths[1:]):
        assert (before.parent / Anchors(before).classes["next-page"]).resolve() == path
        assert (path.parent / Anchors(path).classes["prev-page"]).resolve() == before
    for path, notebook in notebooks(site).items():
        download, *launch = Anchors(path).launch
        assert (path.parent / download).read_bytes() == notebook.read_bytes()
        expected = [
            launch_links.link(service, path_of(notebook).as_posix(), REPOSITORY) for service in launch_links.SERVICES
        ]
        expected += launch_links.links_to_source(path_of(notebook).with_suffix(".py").as_posix(), REPOSITORY).values()
        assert launch == expected


class Anchors(HTMLParser):
    """The links of a page, those of its launch buttons, the last of each class, and what can be linked to."""

    def __init__(self, path: Path):
        super().__init__()
        self.inside_launch = False
        self.links, self.ids, self.launch, self.classes = [], [], [], {}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.inside_launch = attrs.get("class") == "launch" if tag == "p" else self.inside_launch
        if tag == "a" and "href" in attrs:
            self.links.append(attrs["href"])
            self.classes[attrs.get("class", "")] = attrs["href"]
            self.launch += [attrs["href"]] * self.inside_launch


def test_every_link_within_the_site_leads_somewhere(site):
    anchors = {path: Anchors(path) for path in pages(site)}
    broken = []
    for path, page in anchors.items():
        assert len(set(page.ids)) == len(page.ids), path.name
        for link in page.links:
            parts = urlsplit(link)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if parts.scheme or link == "#":
                continue
            if not target.exists() or (
                parts.fragment and target in anchors and parts.fragment not in anchors[target].ids
            ):
                broken.append(f"{path.name}: {link}")
    assert broken == []
