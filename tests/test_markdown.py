"""The Markdown of a lesson becomes HTML whose formulas need no script: on slides, and within HTML on the site too."""

import html
import re

import nbformat
import pytest
import site_notebooks

from rpm_tutorial.course import _markdown
from rpm_tutorial.course._markdown import as_html

FOLDED = "<details><summary>is $Q(z)$ odd?</summary>No: $a < b$ and $I_\\infty$.</details>"


def test_a_link_to_another_page_leaves_its_words_and_one_to_the_web_stays():
    made = as_html("See [*lesson* 4](04_one.ipynb#x), [(E7)](#E7) and [a paper](https://arxiv.org/abs/2107.02495).")
    assert made == ('<p>See <em>lesson</em> 4, (E7) and <a href="https://arxiv.org/abs/2107.02495">a paper</a>.</p>')


def test_what_looks_like_a_link_in_code_or_a_formula_stays():
    made = as_html("`critics[name](z)` and $a[i](t)$\n\n```python\ncritics[name](z)\n```")
    assert "<code>critics[name](z)</code>" in made and re.sub("<[^>]+>", "", made).count("[name](z)") == 2
    assert html.unescape(re.sub(r"<[^>]+>|\s", "", made)).count("anda[i](t)") == 1


def test_an_equation_has_its_number_beside_it_and_a_formula_its_full_stop():
    made = as_html("So $a$.\n\n$$a = b \\tag{E7}$$")
    assert made.startswith('<p>So <span class="whole"><math') and "</math>.</span></p>" in made
    assert '<div class="equation"><math' in made and made.endswith("</math><span>(E7)</span></div>")


@pytest.mark.parametrize("made", [as_html(FOLDED), _markdown.formulas_in_html(f"Say:\n\n{FOLDED}\n\n$c$")])
def test_a_formula_within_html_is_drawn(made: str):
    folded = made[made.index("<details>") : made.index("</details>")]
    assert folded.count("<math") == 3 and "$" not in folded and "<mi>b</mi>" in folded
    assert ("$c$" in made) == made.startswith("Say:"), "what is Markdown is the parser's"


def test_money_in_what_was_printed_is_no_formula():
    printed = "<pre class='printed'><code>$1 and\n\n$2</code></pre>"
    assert as_html(printed) == printed and _markdown.formulas_in_html(printed) == printed
    for text in (r"\$1 or <img alt='$2'> or $3", "<p>$6 or $7</p>"):
        assert _markdown.with_formulas(text) == text


def test_the_site_draws_the_formulas_of_a_quiz():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"**1.** What?\n{FOLDED}\n{FOLDED}")])
    (cell,) = site_notebooks.read(nbformat.writes(notebook)).cells
    assert cell.source.startswith("**1.** What?\n<details>") and cell.source.count("<math") == 6
    assert "$" not in cell.source and len(cell.source.splitlines()) == 3


@pytest.mark.parametrize(
    ("latex", "drawn", "not_drawn"),
    [
        (r"z' + \theta'", ">θ</mi><mo lspace", "<msup>"),
        (r"z'_i", "</mo></mrow><mi>i</mi></msub>", "msubsup"),
        (r"\mathbb E + \mathcal N(x)", "&Eopf;</mi><mo>+</mo><mi>&Nscr;", "mathvariant"),
        (r"a =: b", "<mo>=:</mo>", "<mi>:"),
        (r"\lVert z \rVert^2", '<mo stretchy="false" lspace="0" rspace="0">‖', "<mo>‖"),
        (r"\texttt{log\_q}", "log_q", "\\"),
        (r"\log(x)", 'rspace="0em">log</mo>', "<mi>log"),
    ],
)
def test_mathml_is_mended_where_browsers_draw_it_unlike_tex(latex: str, drawn: str, not_drawn: str):
    markup = re.sub("&#x([0-9A-F]+);", lambda m: chr(int(m[1], 16)), _markdown.mathml(latex, "inline"))
    assert drawn in markup and not_drawn not in markup
