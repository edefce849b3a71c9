"""Each lesson is a talk of 10 to 20 slides, with all that it says in the notes, in a folder that needs no network."""

import html
import re
import sys
from functools import cache
from pathlib import Path

import click
import pytest

from rpm_tutorial import lessons
from rpm_tutorial.course import handouts, slides
from rpm_tutorial.course.cli import main
from rpm_tutorial.course.exercise import Exercise
from rpm_tutorial.course.slides import Slide

LESSONS = [path for path in handouts.notebooks() if path.name[:2].isdigit()]
each_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


@cache
def deck(path: Path) -> list[Slide]:
    return slides.deck(handouts.read(path), slides.guide(int(path.name[:2])))


def text(source: str, *tags: str) -> dict:
    return {"cell_type": "markdown", "metadata": {"tags": list(tags)}, "source": source}


def code(source: str, *tags: str, **output: object) -> dict:
    outputs = [output] if output else []
    return {"cell_type": "code", "metadata": {"tags": list(tags)}, "source": source, "outputs": outputs}


def talk(*cells: dict) -> list[Slide]:
    """The slides of these cells, but for a title before them."""
    guide = slides.Guide("Say it.", {"Opening": 2, "Claim": 3}, "- a wrong answer")
    return slides.deck({"cells": [text("# Title\n\nFirst.", "slide"), *cells]}, guide)[1:]


@each_lesson
def test_a_lesson_is_a_talk_of_10_to_20_slides_with_an_equation_a_question_and_a_figure_or_a_table(path: Path):
    found = deck(path)
    kinds = {slide.kind for slide in found}
    assert 10 <= len(found) <= 20
    assert found[0].kind == "title" and all(slide.heading and slide.shown for slide in found)
    assert any(slide.heading.startswith("What we saw") for slide in found[-3:])
    assert {"text", "predict"} <= kinds and any("$$" in slide.shown for slide in found)
    assert "figure" in kinds or any("|---" in slide.shown for slide in found)
    assert all(slide.answer for slide in found if slide.kind == "predict")
    assert all(slide.shown.split("```")[1].count("\n") <= 16 for slide in found if slide.kind == "code")


@each_lesson
def test_whatever_a_lesson_says_is_on_a_slide_or_in_the_notes(path: Path):
    cells = [cell for cell in handouts.read(path)["cells"] if cell["cell_type"] == "markdown"]
    told = "".join("\n".join([slide.heading, slide.notes]) for slide in deck(path))
    for paragraph in re.split(r"\n\n|(?=\*\*Predict)", "\n\n".join(map(handouts.source_of, cells))):
        assert re.sub(r"^#+ |\s", "", paragraph) in re.sub(r"\s", "", told)


@each_lesson
def test_the_notes_have_the_guides_words_each_sections_minutes_and_the_usual_wrong_answers(path: Path):
    number, found = int(path.name[:2]), deck(path)
    guide = slides.guide(number)
    assert found[0].notes.startswith("*Minutes 0 to") and guide.said in found[0].notes and "**Say**" in guide.said
    exercises = [slide for slide in found if slide.heading == "Exercises"]
    for exercise in vars(getattr(lessons, f"lesson_{number:02}")).values():
        if isinstance(exercise, Exercise):
            assert all(message in exercises[0].notes for message in exercise.misconceptions.values())
    begun = {slide.heading for slide in found[1:] if slide.notes.startswith("*Minutes")}
    assert begun == {slide.heading for slide in found[1:]} - {found[0].heading}


RUN = "```python\n# no heading\n\n**Predict** = critics[name](z)\n- x\n```"
FIVE = "\n".join(f"{k}. item {k}" for k in range(8, 13))
OF_A_TEXT = {
    "how it begins": (
        "An *encoder* maps it." + " It goes on." * 40 + "\n\nMore.",
        "An *encoder* maps it." + " It goes on." * 24,
    ),
    "equations, each behind the sentence that leads to it": (
        "First." + " Long." * 80 + " By (E4),\n\n$$a = b$$\n\nAside. So\n\n$$b = c$$",
        "First." + " Long." * 52 + "\n\nBy (E4),\n\n$$a = b$$\n\nSo\n\n$$b = c$$",
    ),
    "whole sentences, which no formula, code, source or bracket ends": (
        "Take $a. B$ and `c. D` by Chen et al. (2020). (Why? Because.) Then.",
        "Take $a. B$ and `c. D` by Chen et al. (2020).",
    ),
    "how a list's items begin": (
        "Two:\n\n- one." + " And so on." * 30 + "\n- two.",
        "Two:\n\n- one." + " And so on." * 19 + "\n- two.",
    ),
    "a list right below its sentence": ("Two:\n* one\n* two", "Two:\n\n- one\n- two"),
    "a list with its own numbers": (f"Five:\n\n{FIVE}", f"Five:\n\n{FIVE}"),
    "a list with brackets": ("Two:\n1) one\n2) two", "Two:\n\n1) one\n2) two"),
    "code as it was written": (f"Run it:\n\n{RUN}\n\nMore.", f"Run it:\n\n{RUN}"),
    "the words of a link, where it is one": (
        "Call `critics[name](z)` for $a[i](t)$ as in [lesson 4](04_one_prior_one_objective.ipynb).",
        "Call `critics[name](z)` for $a[i](t)$ as in lesson 4.",
    ),
}


@pytest.mark.parametrize(("body", "shown"), OF_A_TEXT.values(), ids=OF_A_TEXT)
def test_a_slide_shows_of_a_text(body: str, shown: str):
    (slide,) = talk(text(f"## Claim\n\n{body}", "slide"))
    assert slide == Slide("text", "Claim", shown, notes=f"*Minutes 2 to 5 of 5.*\n\n{body}")


QUESTION = "**Predict**: how many?\n\n<details><summary>Answer</summary>\n\nTwo.\n</details>"
ASKED = ("predict", "**Predict**: how many?", "Two.")
NUMBER, PRINTED = code("print(2)", "slide", text="2.0"), "<pre class='printed'><code>2.0</code></pre>"
PLOTLY = {"data": {slides.PLOTLY: {"data": [], "layout": {}}, "text/plain": "a line"}}
PICTURE = {"data": {"text/html": ["<img src='x'>", "<p><em>A line.</em></p>"]}}
CHART = '<div class="chart" role="img" aria-label="a line" data-title-height="60"><script type="application/json">'
OF_CELLS = {
    "a question with the words that lead to it": (
        [text(f"## Claim\n\nLook at it.\n\n{QUESTION}\n\nSo it is.", "slide")],
        [("predict", "Look at it.\n\n**Predict**: how many?", "Two.")],
    ),
    "a question apart from an equation": (
        [text(f"## Claim\n\nLook:\n\n$$a$$\n\n{QUESTION}", "slide")],
        [("text", "Look:\n\n$$a$$", ""), ASKED],
    ),
    "a question with its code": (
        [text(QUESTION.replace(": how many?", f" what\nthis is:\n\n{RUN}"), "slide")],
        [("predict", f"**Predict** what this is:\n\n{RUN}", "Two.")],
    ),
    "nothing of a cell without the tag": (
        [text("## Claim\n\nShown.", "slide"), code("1 + 1", text="2"), text("Told.")],
        [("text", "Shown.", "")],
    ),
    "a number with its claim": (
        [text("## Claim\n\nTwo.", "slide"), NUMBER],
        [("text", f"Two.\n\n{PRINTED}", "")],
    ),
    "a number below the answer that it belongs to": (
        [text(f"## Claim\n\n{QUESTION}", "slide"), NUMBER],
        [("predict", ASKED[1], f"Two.\n\n{PRINTED}")],
    ),
    "a number of another section by itself": (
        [text("## Other\n\nOne.", "slide"), text("## Claim"), NUMBER],
        [("text", "One.", ""), ("printed", PRINTED, "")],
    ),
    "what is printed as it is": (
        [code("print(1)", "slide", text="1 < 2")],
        [("printed", PRINTED.replace("2.0", "1 &lt; 2"), "")],
    ),
    "code that is the point, with what it prints": (
        [code("print(2)", "slide-code", text="2.0")],
        [("code", f"```python\nprint(2)\n```\n\n{PRINTED}", "")],
    ),
    "code that is the point, before what it draws": (
        [code("plot()", "slide-code", **PLOTLY)],
        [("code", "```python\nplot()\n```", ""), ("figure", CHART + '{"data":[],"layout":{}}</script></div>\n', "")],
    ),
    "a picture with its caption": (
        [code("draw()", "slide", **PICTURE)],
        [("figure", '<div class="drawing"><img src=\'x\'></div>\n<p class="caption">A line.</p>', "")],
    ),
    "exercises together": (
        [text("## Exercises\n\n**1.** Return a.", "slide"), code("f()", "exercise"), text("**2.** Return b.", "slide")],
        [("text", "**1.** Return a.\n\n**2.** Return b.", "")],
    ),
    "no quiz": ([text("## Quiz\n\n**1.** What?\n\n## Claim\n\nSo.", "slide")], [("text", "So.", "")]),
}


@pytest.mark.parametrize(("cells", "expected"), OF_CELLS.values(), ids=OF_CELLS)
def test_a_talk_shows(cells: list[dict], expected: list[tuple]):
    assert [(slide.kind, slide.shown, slide.answer) for slide in talk(*cells)] == expected


def test_a_figure_is_described_by_its_text_whatever_is_in_it():
    odd, end = "I < \"MI\" & 'log N' <script>alert(1)</script>", "</script><script>alert(2)</script>"
    figure = {"data": [], "layout": {"title": {"text": end}}}
    (slide,) = talk(code("", "slide", data={slides.PLOTLY: figure, "text/plain": odd}))
    assert f'aria-label="{html.escape(odd)}"' in slide.shown
    assert slide.shown.count("<script") == 2 and slide.shown.count("</script") == 1, (
        "one element, whose text has another"
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: slides.deck({"cells": [text("# Title")]}, slides.guide(0)), "has no tag `slide`: '# Title'"),
        (lambda: talk(code("x = 1", "slide")), "has to draw or print; this one does not: 'x = 1'"),
        (lambda: slides.guide(99), "says nothing of lesson 99; expected a heading"),
    ],
)
def test_what_makes_no_talk_is_refused(call, message: str):
    with pytest.raises(ValueError, match=message):
        call()


def export(folder: Path, only: str) -> None:
    main(["export", "--slides", str(folder), "--only", only], standalone_mode=False)


@pytest.mark.slow
def test_the_folder_has_a_page_for_each_lesson_and_all_that_they_load(tmp_path: Path):
    export(tmp_path, "03")
    (page,) = tmp_path.glob("*.html")
    made = page.read_text(encoding="utf-8")
    loaded = {name for name in re.findall(r"(?:src|link [^>]*href)=\"([^\"]+)\"", made) if not name.startswith("data:")}
    assert loaded == {f"files/{path.name}" for path in (tmp_path / "files").iterdir()}
    assert "$" not in re.sub(r"(?s)<(script|pre|code).*?</\1>", "", made), "a formula that nothing turned into MathML"


def test_a_neighbour_has_no_slides_and_the_command_says_so(tmp_path: Path):
    with pytest.raises(click.UsageError, match="none of these notebooks has slides"):
        export(tmp_path, "N10")


def test_a_package_that_is_missing_is_named_with_its_remedy(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "latex2mathml", None)
    monkeypatch.delitem(sys.modules, "latex2mathml.converter", raising=False)
    with pytest.raises(click.ClickException, match=r"package latex2mathml.*pip install 'rpm-tutorial\[lab\]'"):
        export(tmp_path / "talks", "03")
    assert not (tmp_path / "talks").exists()
