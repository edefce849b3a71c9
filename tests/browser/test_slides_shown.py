"""The slides in a headless Chromium, from disk: nothing overflows, keys and the speaker's window work, and they print."""

from pathlib import Path

import pypdf
import pytest
from axe_playwright_python.sync_playwright import Axe

from rpm_tutorial.course.cli import main

SIZE = {"width": 1280, "height": 720}
OVER = """() => [...document.querySelectorAll('main > section')].flatMap(slide =>
    [...slide.querySelectorAll(':scope > :not(.notes), .body *:not(.plot *, .plot)')]
        .filter(part => !part.closest('math') || part.localName === 'math')
        .map(part => [part, part.getBoundingClientRect()])
        .filter(([, box]) => box.width && (box.right > 1280 - 20 || box.bottom > 720 - 30 || box.left < 0))
        .map(([part, box]) => `slide ${slide.id}: <${part.localName} ${part.className}> ends at ${box.right}, ${box.bottom}`))"""
PLOTS = """() => [...document.querySelectorAll('.plot')].map(plot => [
    plot.closest('section').id, plot.getBoundingClientRect().width / plot.offsetWidth,
    plot.querySelectorAll('.main-svg').length])"""
TYPE = "() => [...document.querySelectorAll('section')].map(slide => parseFloat(getComputedStyle(slide).fontSize))"
pytestmark = [pytest.mark.browser, pytest.mark.slow]


def export(folder: Path, only: str = "") -> list[Path]:
    main(["export", "--slides", str(folder), "--only", only], standalone_mode=False)
    return sorted(folder.glob("*.html"))


@pytest.fixture(scope="module")
def lesson(tmp_path_factory) -> Path:
    (page,) = export(tmp_path_factory.mktemp("talks") / "slides", only="03")
    return page


@pytest.fixture(scope="module")
def opened(browser, lesson: Path):
    """Lesson 3's slides, opened without a network."""
    context = browser.new_context(viewport=SIZE, offline=True)
    page = context.new_page()
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("requestfailed", lambda request: page.problems.append(request.url))
    page.goto(lesson.as_uri())
    yield page
    context.close()


@pytest.fixture
def talk(opened):
    """The slides at their beginning; afterwards, nothing has gone wrong."""
    opened.evaluate("location.hash = '1'")
    opened.wait_for_selector("section.now[id='1']")
    yield opened
    assert opened.problems == []


def fits(page) -> None:
    page.wait_for_function("document.documentElement.dataset.drawn")
    assert page.evaluate(OVER) == []
    for slide, scale, drawn in page.evaluate(PLOTS):
        assert scale > 0.7 and drawn, f"the figure of slide {slide} has {scale:.2f} of its size in the lesson"
    assert min(page.evaluate(TYPE)) >= 17, "too small to be read from the last row"


def place(page) -> tuple[str, bool]:
    return page.locator("section.now").get_attribute("id"), page.locator(".now.told").count() == 1


def test_no_slide_of_a_lesson_overflows(talk):
    fits(talk)
    talk.evaluate("document.querySelector('section.text').style.fontSize = '60px'")
    assert talk.evaluate(OVER), "what is too large is seen"
    talk.reload()


@pytest.mark.nightly
def test_no_slide_of_any_lesson_overflows(browser, tmp_path: Path):
    page = browser.new_page(viewport=SIZE)
    for path in export(tmp_path / "slides"):
        page.goto(path.as_uri())
        fits(page)
    page.close()


def test_keys_lead_through_the_slides_and_a_question_keeps_its_answer_back(talk):
    last = str(talk.locator("main > section").count())
    question = talk.locator("section.predict").first.get_attribute("id")
    assert place(talk) == ("1", False)
    talk.keyboard.press("ArrowRight")
    talk.keyboard.press("Space")
    assert place(talk) == ("3", False)
    talk.keyboard.press("ArrowLeft")
    assert place(talk) == ("2", False)
    talk.keyboard.press("End")
    assert place(talk) == (last, False)
    talk.keyboard.press("ArrowRight")
    assert place(talk) == (last, False), "after the last slide comes none"
    talk.evaluate(f"location.hash = '{question}'")
    talk.wait_for_selector(f"section.now[id='{question}']")
    answer = talk.locator(".now .answer")
    assert not answer.is_visible()
    talk.keyboard.press("ArrowRight")
    assert place(talk) == (question, True) and answer.is_visible()
    talk.keyboard.press("ArrowRight")
    assert place(talk) == (str(int(question) + 1), False)


def test_the_speakers_window_has_the_notes_and_moves_with_the_slides(talk):
    talk.keyboard.press("ArrowRight")
    with talk.expect_popup() as opened:
        talk.keyboard.press("Shift+S")
    window = opened.value
    window.wait_for_selector("section.now[id='2']")
    assert window.locator("#notes").inner_text().startswith("Minutes 2 to 3 of 35.")
    talk.keyboard.press("ArrowRight")
    window.wait_for_selector("section.now[id='3']")
    window.keyboard.press("ArrowLeft")
    talk.wait_for_selector("section.now[id='2']")
    talk.reload()
    window.keyboard.press("ArrowRight")
    talk.wait_for_selector("section.now[id='3']")
    window.close()


def test_the_speakers_notes_are_scrolled_by_arrows(talk):
    with talk.expect_popup() as opened:
        talk.keyboard.press("Shift+S")
    window, scrolled = opened.value, "document.getElementById('speaker').scrollTop"
    window.wait_for_selector("section.now[id='1']")
    speaker = window.locator("#speaker")
    assert speaker.evaluate("notes => notes.scrollHeight > notes.clientHeight"), "the notes are long"
    window.keyboard.press("ArrowDown")
    window.wait_for_function(f"{scrolled} > 0")
    window.keyboard.press("ArrowUp")
    window.wait_for_function(f"{scrolled} === 0")
    assert place(window) == place(talk) == ("1", False)
    window.close()


STRANGERS = """() => new Promise(done => {
    postMessage({ slide: 4, told: false }, '*');
    const frame = document.createElement('iframe');
    frame.srcdoc = "<script>for (const data of [null, {}, 'hello', { slide: 4 }]) parent.postMessage(data, '*')</script>";
    frame.onload = () => setTimeout(() => done(frame.remove()), 100);
    document.body.append(frame);
})"""


def test_neither_a_strangers_message_nor_an_odd_address_moves_the_slides(talk):
    talk.keyboard.press("ArrowRight")
    talk.evaluate(STRANGERS)
    assert place(talk) == ("2", False)
    for address, slide in (("#2.5", "2"), ("#x", "1"), ("#-3", "1"), ("#3e9", "3")):
        talk.evaluate("address => { location.hash = address; }", address)
        talk.wait_for_function("slide => document.querySelector('section.now')?.id === slide", arg=slide)


def test_the_slider_of_a_figure_moves_it_and_its_caption(talk):
    figure = talk.locator("section.figure:has(.slider-rail-touch-rect)")
    talk.evaluate(f"location.hash = '{figure.get_attribute('id')}'")
    talk.wait_for_selector("section.now.figure")
    caption = figure.locator(".caption")
    before, rail = caption.inner_text(), figure.locator(".slider-rail-touch-rect").bounding_box()
    talk.mouse.click(rail["x"] + rail["width"] / 4, rail["y"] + rail["height"] / 2)
    talk.wait_for_function("before => document.querySelector('.now .caption').innerText !== before", arg=before)
    assert caption.inner_text().startswith("At ρ = 0.")


def test_a_talk_prints_a_page_for_each_slide(talk, tmp_path: Path):
    talk.pdf(path=tmp_path / "talk.pdf", prefer_css_page_size=True, print_background=True)
    pages = pypdf.PdfReader(tmp_path / "talk.pdf").pages
    assert len(pages) == talk.locator("main > section").count()
    assert "In all of them" in pages[int(talk.locator("section.predict").first.get_attribute("id")) - 1].extract_text()


def test_a_talk_can_be_read_without_eyes(talk):
    found = Axe().run(talk).response["violations"]
    talk.problems.clear()  # axe asks for the style once more, which a page from disk is not given
    assert [violation["id"] for violation in found if violation["impact"] in ("serious", "critical")] == []
