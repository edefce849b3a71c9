"""A lesson as a talk: slides of the cells with the tag `slide`, and with what docs/teaching.md and the text say as notes.

A text's headings and questions begin slides. A slide shows how the text begins, its equations, lists, tables and code;
the whole text is in the notes. A code cell shows what it draws, or else prints; with the tag `slide-code` its code, too.
"""

import html
import re
import shutil
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

from ._markdown import as_html, blocks
from ._stored import PLOTLY, TITLE_HEIGHT, in_page
from .handouts import source_of

HERE = Path(__file__).parent
_LEAD, _ENOUGH, _ITEM = 320, 600, 220  # letters of a text's beginning, of the lesson's last words, of a list's item
_UNTOLD = "Quiz"  # which a class answers in the notebook
_FORMULA = r"\$[^$]+\$|`[^`]+`"  # has no sentence's end in it
_APART = {"math_block", "table", "bullet_list", "ordered_list", "fence", "code_block"}  # what a slide shows whole
_EXERCISE = r"\*\*\d\."


class Slide(NamedTuple):
    """What a slide shows, in Markdown and HTML: `answer` appears when it is asked for, `notes` are for the speaker."""

    kind: str  # title, text, predict, figure, printed or code
    heading: str
    shown: str
    answer: str = ""
    notes: str = ""


class Guide(NamedTuple):
    """What docs/teaching.md says of a lesson: to say and to watch for, minutes by section, and the usual wrong answers."""

    said: str
    minutes: dict[str, int]
    wrong: str


def has(notebook: dict) -> bool:
    """Whether any cell of a notebook is for a slide."""
    return any(map(_is_slide, notebook["cells"]))


def deck(notebook: dict, guide: Guide) -> list[Slide]:
    """The slides of a lesson, in order. Raises `ValueError` if it doesn't begin with one."""
    slides: list[Slide] = []
    heading = ""
    for cell in notebook["cells"]:
        text = source_of(cell)
        if cell["cell_type"] == "code":
            for slide in _of_code(cell, heading) if _is_slide(cell) else ():
                _add(slides, slide)
            continue
        parts = _parts(text)
        for part in parts:
            if found := re.match(r"#{1,2} (.+)\n*", part):
                heading, part = found[1], part[found.end() :]
            only = len(parts) == 1 or bool(found)
            shown = _of_text(part, heading, only) if _is_slide(cell) and heading != _UNTOLD else None
            if shown:
                _add(slides, shown)
            elif not slides:
                raise ValueError(f"the first cell has no tag `slide`: {text[:60]!r}")
            else:
                untold = f"### {heading}\n\n{part}" if found else part
                slides[-1] = slides[-1]._replace(notes=f"{slides[-1].notes}\n\n{untold}")
    return _with_guide(slides, guide)


def guide(number: int) -> Guide:
    """What docs/teaching.md says of lesson `number`."""
    inside = HERE.parent / "teaching.md"  # a wheel's
    path = inside if inside.exists() else HERE.parents[1] / "docs" / "teaching.md"
    lesson = re.search(rf"(?ms)^### {number} .+?\n\n(.+?)(?=^##)", path.read_text(encoding="utf-8"))
    if not lesson:
        raise ValueError(f"{path} says nothing of lesson {number}; expected a heading '### {number} ...'")
    said, _, generated = lesson[1].partition("<!-- lesson")
    minutes = {heading: int(count) for count, heading in re.findall(r"(?m)^\| (\d+) \| (.+) \|$", generated)}
    wrong = re.split(r"(?m)^\|.*\n+(?!\|)", generated, maxsplit=1)[-1].removesuffix("<!-- end -->\n\n")
    return Guide(said.strip(), minutes, wrong.strip())


def page(notebook: dict, number: int) -> str:
    """The HTML page of the talk on lesson `number`. It needs the files of `add_files` beside it, and no network."""
    told = guide(number)
    slides = deck(notebook, told)
    sections = "\n".join(_section(slide, place, number, told) for place, slide in enumerate(slides, 1))
    text = (HERE / "slides.html").read_text(encoding="utf-8")
    title = html.escape(re.sub(r"[*$`]", "", slides[0].heading))
    return text.replace("{title}", title).replace("{sections}", sections)


def add_files(folder: Path) -> None:
    """Write what the pages in `folder` share: the layout, the keys, and plotly."""
    from plotly.offline import get_plotlyjs

    files = folder / "files"
    files.mkdir(exist_ok=True)
    for name in ("slides.css", "slides.js"):
        shutil.copy(HERE / name, files)
    (files / "plotly.js").write_text(get_plotlyjs(), encoding="utf-8")


def _add(slides: list[Slide], slide: Slide) -> None:
    """Begin a slide, or go on with the one before: a question with the words that lead to it, a number with its claim."""
    before = slides[-1] if slides else None
    if before is None:
        slides.append(slide._replace(kind="title"))
    elif before.heading != slide.heading or before.kind not in ("text", "predict"):
        slides.append(slide)
    elif slide.kind == "printed" and before.kind == "predict":
        slides[-1] = before._replace(answer=f"{before.answer}\n\n{slide.shown}")
    elif before.kind == "text" and (slide.kind == "printed" or _goes_on(before, slide)):
        shown, notes = f"{before.shown}\n\n{slide.shown}", f"{before.notes}\n\n{slide.notes}"
        slides[-1] = Slide(slide.kind if slide.answer else "text", slide.heading, shown, slide.answer, notes)
    else:
        slides.append(slide)


def _goes_on(before: Slide, slide: Slide) -> bool:
    """Whether a text goes on where the slide before ended: a question behind words alone, the next exercise."""
    words_alone = all(block.kind == "paragraph" for block in blocks(before.shown))
    return slide.kind == "predict" and words_alone or bool(re.match(_EXERCISE, slide.shown))


def _is_slide(cell: dict) -> bool:
    return not {"slide", "slide-code"}.isdisjoint(cell["metadata"].get("tags", []))


def _parts(text: str) -> list[str]:
    """A text cut before its headings and questions, and behind the answers of these."""
    cuts, answered = [0], False
    for block in blocks(text):
        if answered and not block.source.startswith("<details>"):
            cuts.append(block.start)
        answered = block.source.endswith("</details>")
        if block.kind in ("heading", "paragraph"):
            cuts += [block.start + found.start() for found in re.finditer(r"^#{1,2} |\*\*Predict\*\*", block.source)]
    parts = (text[start:end].strip() for start, end in pairwise([*cuts, len(text)]))
    return [part for part in parts if part]


def _of_text(text: str, heading: str, only: bool) -> Slide | None:
    """The slide of a part of a text; None if it is the speaker's alone."""
    if text.startswith("**Predict**"):
        question, _, answer = text.partition("<details>")
        answer = re.sub(r"(?s).*?</summary>|</details>.*", "", answer)
        asked = [_line(block.source) if block.kind == "paragraph" else block.source for block in blocks(question)]
        return Slide("predict", heading, "\n\n".join(asked), answer.strip(), text)
    shown = _shown(text, _ENOUGH if heading.startswith("What we saw") else _LEAD)
    rich = any(block.kind in _APART for block in blocks(text))
    return Slide("text", heading, "\n\n".join(shown), "", text) if shown and (only or rich) else None


def _shown(text: str, most: int) -> list[str]:
    """How a text begins, and its equations, lists, tables and code, each with the sentence before it."""
    shown: list[str] = []
    told, intro = False, ""
    for block in blocks(text):
        if block.kind in _APART:
            if intro not in " ".join(shown):
                shown.append(intro)
            items = [f"{mark}{_beginning(item, _ITEM)}" for mark, item in block.items if item]
            shown.append("\n".join(items) or block.source)
        elif block.kind == "paragraph" and (not told or re.match(_EXERCISE, block.source)):
            shown.append(_beginning(block.source, most))
            told = True
        intro = _sentences(block.source)[-1] if block.kind == "paragraph" else ""
    return shown


def _beginning(text: str, most: int) -> str:
    """As many whole sentences as `most` letters hold, and at least one; a remark in brackets ends it."""
    first, *others = _sentences(text)
    for sentence in others:
        if sentence.startswith("(") or len(first) + len(sentence) >= most:
            break
        first = f"{first} {sentence}"
    return first


def _sentences(text: str) -> list[str]:
    line = re.sub(rf"({_FORMULA})|\[([^\]]+)\]\([^)]+\)", lambda found: found[1] or found[2], _line(text))
    found = re.findall(rf"(?:{_FORMULA}|.)+?(?:(?<!et al)[.?!][)”\"*]*(?=\s|$)|$)", line)
    return [sentence.strip() for sentence in found if sentence.strip()]


def _line(text: str) -> str:
    return " ".join(text.split())


def _of_code(cell: dict, heading: str) -> list[Slide]:
    """What a cell draws, or else prints; with its code if it is tagged so, of a drawing on a slide before it."""
    code = f"```python\n{source_of(cell)}\n```" if "slide-code" in cell["metadata"]["tags"] else ""
    drawn = caption = ""
    for output in cell["outputs"]:
        data = output.get("data", {})
        page = "".join(data.get("text/html", ""))
        if PLOTLY in data:
            words = f'aria-label="{html.escape("".join(data["text/plain"]))}" data-title-height="{TITLE_HEIGHT}"'
            drawn = f'<div class="chart" role="img" {words}>{in_page(data[PLOTLY])}</div>'
        elif picture := re.match(r"<img [^>]+>", page):
            drawn = f'<div class="drawing">{picture[0]}</div>'
        if found := re.search(r"<p><em>(.+?)</em></p>", page):
            caption = f'<p class="caption">{found[1]}</p>'
    if drawn:
        figure = Slide("figure", heading, f"{drawn}\n{caption}")
        return [Slide("code", heading, code), figure] if code else [figure]
    texts = ["".join(o.get("text", "") or o.get("data", {}).get("text/plain", "")) for o in cell["outputs"]]
    if not any(texts):
        raise ValueError(
            f"a cell with the tag `slide` has to draw or print; this one does not: {source_of(cell)[:60]!r}"
        )
    printed = f"<pre class='printed'><code>{html.escape(''.join(texts).rstrip())}</code></pre>"
    return [Slide("code", heading, f"{code}\n\n{printed}") if code else Slide("printed", heading, printed)]


def _with_guide(slides: list[Slide], guide: Guide) -> list[Slide]:
    """The slides, with the guide's words for the lesson, minutes for each section, and wrong answers for the exercises."""
    ends = dict(zip(guide.minutes, accumulate(guide.minutes.values())))
    before = {slides[0].heading: guide.said, "Exercises": guide.wrong}
    first = {slide.heading: number for number, slide in reversed([*enumerate(slides)])}
    for heading, number in first.items():
        told, section = [slides[number].notes], heading if number else "Opening"
        if heading in before:
            told.insert(0, before[heading])
        if section in ends:
            begins, minutes = ends[section] - guide.minutes[section], sum(guide.minutes.values())
            told.insert(0, f"*Minutes {begins} to {ends[section]} of {minutes}.*")
        slides[number] = slides[number]._replace(notes="\n\n".join(told))
    return slides


def _section(slide: Slide, place: int, number: int, told: Guide) -> str:
    level = "h1" if slide.kind == "title" else "h2"
    body = slide.shown if slide.kind == "figure" else as_html(slide.shown)
    body = re.sub(r"<p><strong>Predict</strong>[:,]? *(.)", _predict, body)
    if slide.answer:
        body += f'<div class="answer">{as_html(slide.answer)}</div>'
    if slide.kind == "title":
        body += (
            f'<p class="foot">Lesson {number}, {sum(told.minutes.values())} minutes. Text and figures: CC BY 4.0</p>'
        )
    return (
        f'<section id="{place}" class="{slide.kind}" tabindex="-1"><{level}>{as_html(slide.heading, inline=True)}</{level}>'
        f'<div class="body">{body}</div><aside class="notes">{as_html(slide.notes)}</aside></section>'
    )


def _predict(start: re.Match) -> str:
    return f'<p class="kind">Predict</p><p class="question">{start[1].upper()}'
