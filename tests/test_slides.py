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
PLOTLY = {"data": [], "layout": {}}
QUESTION = "**Predict**: how many?\n\n<details><summary>Answer</summary>\n\nTwo.\n</details>"
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
def test_a_lesson_is_a_talk_of_10_to_20_slides(path: Path):
    found = deck(path)
    assert 10 <= len(found) <= 20
    assert found[0].kind == "title" and all(slide.heading and slide.shown for slide in found)
    assert any(slide.heading.startswith("What we saw") for slide in found[-3:])


@each_lesson
def test_a_talk_has_a_claim_an_equation_a_figure_and_a_question_with_its_answer(path: Path):
    found = deck(path)
    kinds = {slide.kind for slide in found}
    assert {"title", "text", "predict"} <= kinds
    assert all(slide.answer for slide in found if slide.kind == "predict")
    assert "figure" in kinds or any("|---" in slide.shown for slide in found), "a table is a figure too"
    assert any("$$" in slide.shown for slide in found)


@each_lesson
def test_code_on_a_slide_is_at_most_15_lines_long(path: Path):
    assert all(slide.shown.split("```")[1].count("\n") <= 16 for slide in deck(path) if slide.kind == "code")


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


def test_a_text_begins_on_the_slide_and_goes_on_in_the_notes():
    begins = "An *encoder* maps. " + "It goes on and on. " * 30
    (slide,) = talk(text(f"## Claim\n\n{begins}\n\nMore.", "slide"))
    assert slide.kind == "text" and slide.heading == "Claim" and slide.shown.startswith("An *encoder* maps. It goes on")
    assert len(slide.shown) < 330 and slide.shown.endswith(".") and slide.notes.endswith("More.")


def test_an_equation_stands_behind_the_sentence_that_leads_to_it():
    body = "First. " + "Long. " * 80 + "By (E4),\n\n$$a = b$$\n\nAside. So\n\n$$b = c$$"
    (slide,) = talk(text(f"## Claim\n\n{body}", "slide"))
    assert slide.shown.split("\n\n")[1:] == ["By (E4),", "$$a = b$$", "So", "$$b = c$$"]


def test_a_formula_a_source_and_a_bracket_end_no_sentence():
    body = "Take $a. B$ and `c. D` by Chen et al. (2020). (Why? Because.) Then."
    (slide,) = talk(text(f"## Claim\n\n{body}", "slide"))
    assert slide.shown == "Take $a. B$ and `c. D` by Chen et al. (2020)."


def test_of_a_lists_items_a_slide_shows_the_beginnings():
    (slide,) = talk(text("## Claim\n\nTwo:\n\n- one. " + "And so on. " * 30 + "\n- two.", "slide"))
    first, second = slide.shown.splitlines()[-2:]
    assert first.startswith("- one.") and len(first) < 230 and second == "- two."


@pytest.mark.parametrize(
    ("marks", "shown"), [("- -", "- -"), ("* *", "- -"), ("1. 2.", "1. 2."), ("1) 2)", "1) 2)"), ("+ +", "- -")]
)
def test_a_list_right_below_its_sentence_is_a_list_whatever_its_marks(marks: str, shown: str):
    first, second = marks.split()
    (slide,) = talk(text(f"## Claim\n\nTwo:\n{first} one\n{second} two", "slide"))
    expected = [f"{mark} {word}" for mark, word in zip(shown.split(), ("one", "two"))]
    assert slide.shown == "\n\n".join(["Two:", "\n".join(expected)])


def test_a_list_of_more_than_nine_items_keeps_all_of_them():
    items = "\n".join(f"{k}. item {k}" for k in range(8, 13))
    (slide,) = talk(text(f"## Claim\n\nFive:\n\n{items}", "slide"))
    assert slide.shown == f"Five:\n\n{items}"


def test_code_in_a_text_is_shown_as_it_was_written():
    code = "```python\n# no heading\n\n**Predict** = critics[name](z)\n- x\n```"
    (slide,) = talk(text(f"## Claim\n\nRun it:\n\n{code}\n\nMore.", "slide"))
    assert slide.shown == f"Run it:\n\n{code}" and slide.notes.endswith("More.")
    (slide,) = talk(
        text(
            f"## Claim\n\n**Predict** what\nthis is:\n\n{code}\n\n<details><summary>Answer</summary>\n\nSo.\n</details>",
            "slide",
        )
    )
    assert slide.shown == f"**Predict** what this is:\n\n{code}" and slide.answer == "So."


def test_what_looks_like_a_link_in_code_or_a_formula_stays():
    body = "Call `critics[name](z)` for $a[i](t)$ as in [lesson 4](04_one_prior_one_objective.ipynb)."
    (slide,) = talk(text(f"## Claim\n\n{body}", "slide"))
    assert slide.shown == "Call `critics[name](z)` for $a[i](t)$ as in lesson 4."


def test_a_question_keeps_its_answer_back():
    (slide,) = talk(text(f"## Claim\n\n{QUESTION}\n\nSo it is.", "slide"))
    assert (slide.kind, slide.shown, slide.answer) == ("predict", "**Predict**: how many?", "Two.")
    assert slide.notes.endswith("So it is.")


def test_a_cell_without_the_tag_is_for_the_speaker():
    (slide,) = talk(text("## Claim\n\nShown.", "slide"), code("1 + 1", text="2"), text("Told."))
    assert slide.shown == "Shown." and slide.notes.endswith("Told.")


def test_a_cell_of_code_shows_what_it_draws_or_else_prints_and_its_code_where_that_is_the_point():
    drawn = {"data": {slides.PLOTLY: PLOTLY, "text/plain": "a line"}}
    found = talk(
        code("plot()", "slide", **drawn),
        code("print(1)", "slide", text="1 < 2"),
        code("print(1)", "slide-code", text="1"),
    )
    assert [slide.kind for slide in found] == ["figure", "printed", "code"]
    assert "print(" not in found[1].shown and "1 &lt; 2" in found[1].shown and "print(1)" in found[2].shown


def test_code_that_draws_is_shown_before_what_it_draws_where_it_is_the_point():
    drawn = {"data": {slides.PLOTLY: PLOTLY, "text/plain": "a line"}}
    before, after = talk(code("plot()", "slide-code", **drawn))
    assert (before.kind, before.shown) == ("code", "```python\nplot()\n```")
    assert after.kind == "figure" and "a line" in after.shown


def test_numbers_stand_with_the_claim_or_below_the_answer_that_they_belong_to():
    claim, number = text("## Claim\n\nTwo.", "slide"), code("print(2)", "slide", text="2.0")
    (slide,) = talk(claim, number)
    assert slide.kind == "text" and slide.shown.startswith("Two.") and "2.0" in slide.shown
    question = text(f"## Claim\n\n{QUESTION}", "slide")
    (slide,) = talk(question, number)
    assert "2.0" in slide.answer and "2.0" not in slide.shown
    assert [slide.kind for slide in talk(text("## Other\n\nOne.", "slide"), text("## Claim"), number)] == [
        "text",
        "printed",
    ]


def test_a_question_stands_with_the_words_that_lead_to_it_and_apart_from_an_equation():
    (slide,) = talk(text(f"## Claim\n\nLook at it.\n\n{QUESTION}", "slide"))
    assert slide.kind == "predict" and slide.shown == "Look at it.\n\n**Predict**: how many?"
    assert [s.kind for s in talk(text(f"## Claim\n\nLook:\n\n$$a$$\n\n{QUESTION}", "slide"))] == ["text", "predict"]


def test_exercises_stand_on_one_slide():
    first, second = text("## Exercises\n\n**1.** Return a.", "slide"), text("**2.** Return b.", "slide")
    (slide,) = talk(first, code("def f(): ...", "exercise"), second)
    assert slide.shown == "**1.** Return a.\n\n**2.** Return b." and "- a wrong answer" in slide.notes


def test_the_quiz_is_for_the_notebook():
    assert [slide.heading for slide in talk(text("## Quiz\n\n**1.** What?\n\n## Claim\n\nSo.", "slide"))] == ["Claim"]


def test_a_lesson_that_begins_without_a_slide_is_refused():
    with pytest.raises(ValueError, match="the first cell has no tag `slide`: '# Title'"):
        slides.deck({"cells": [text("# Title")]}, slides.Guide("", {}, ""))


def test_a_cell_that_has_nothing_to_show_is_refused():
    with pytest.raises(ValueError, match="has to draw or print; this one does not: 'x = 1'"):
        talk(code("x = 1", "slide"))


def test_a_lesson_that_the_guide_does_not_know_is_named():
    with pytest.raises(ValueError, match="says nothing of lesson 99; expected a heading"):
        slides.guide(99)


def test_a_figure_is_described_by_its_text_whatever_is_in_it():
    odd = "I < \"MI\" & 'log N' <script>alert(1)</script>"
    figure = {"data": [], "layout": {"title": {"text": "</script><script>alert(2)</script>"}}}
    shown = talk(code("", "slide", data={slides.PLOTLY: figure, "text/plain": odd}))[0].shown
    assert f'aria-label="{html.escape(odd)}"' in shown and "<script>alert" not in shown.replace(
        "<\\/script><script>", ""
    )


@pytest.mark.slow
def test_the_folder_has_a_page_for_each_lesson_and_all_that_they_load(tmp_path: Path):
    main(["export", "--slides", str(tmp_path / "talks"), "--only", "03"], standalone_mode=False)
    pages = [path.name for path in (tmp_path / "talks").glob("*.html")]
    assert pages == ["03_infonce_is_the_elbo.html"]
    page = (tmp_path / "talks" / pages[0]).read_text(encoding="utf-8")
    loaded = re.findall(r"(?:src|link [^>]*href)=\"([^\"]+)\"", page)
    assert {name for name in loaded if not name.startswith("data:")} == {
        f"files/{path.name}" for path in (tmp_path / "talks" / "files").iterdir()
    }
    assert "$" not in re.sub(r"(?s)<(script|pre|code).*?</\1>", "", page), "a formula that nothing turned into MathML"


def test_a_neighbour_has_no_slides_and_the_command_says_so(tmp_path: Path):
    with pytest.raises(click.UsageError, match="none of these notebooks has slides"):
        main(["export", "--slides", str(tmp_path / "talks"), "--only", "N10"], standalone_mode=False)


def test_a_package_that_is_missing_is_named_with_its_remedy(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "latex2mathml", None)
    monkeypatch.delitem(sys.modules, "latex2mathml.converter", raising=False)
    with pytest.raises(
        click.ClickException, match=r"Slides need the package latex2mathml.*pip install 'rpm-tutorial\[lab\]'"
    ):
        main(["export", "--slides", str(tmp_path / "talks"), "--only", "03"], standalone_mode=False)
    assert not (tmp_path / "talks").exists()
