"""The Markdown of a lesson becomes HTML whose formulas need no script: on slides, and within HTML on the site too."""

import html
import re

import nbformat
import pytest
import site_notebooks

from rpm_tutorial.course._markdown import as_html, formulas_in_html, mathml

FOLDED = "<details><summary>is $Q(z)$ odd?</summary>No: $a < b$ and $I_\\infty$.</details>"


def test_a_link_to_another_page_leaves_its_words_one_to_the_web_stays_and_code_or_a_formula_is_none():
    made = as_html("See [*lesson* 4](04_one.ipynb#x), [(E7)](#E7) and [a paper](https://arxiv.org/abs/2107.02495).")
    assert made == '<p>See <em>lesson</em> 4, (E7) and <a href="https://arxiv.org/abs/2107.02495">a paper</a>.</p>'
    made = as_html("`critics[name](z)` and $a[i](t)$\n\n```python\ncritics[name](z)\n```")
    read = html.unescape(re.sub(r"<[^>]+>|\s", "", made))
    assert read == "critics[name](z)anda[i](t)critics[name](z)" and "<code>critics[name](z)</code>" in made


def test_an_equation_has_its_number_beside_it_and_a_formula_its_full_stop():
    made = as_html("So $a$.\n\n$$a = b \\tag{E7}$$")
    assert made.startswith('<p>So <span class="whole"><math') and "</math>.</span></p>" in made
    assert '<div class="equation"><math' in made and made.endswith("</math><span>(E7)</span></div>")


def test_a_formula_within_html_is_drawn_and_what_is_markdown_is_the_parsers_on_the_site():
    assert as_html(FOLDED).count("<math") == 3 and "$" not in as_html(FOLDED) and "<mi>b</mi>" in as_html(FOLDED)
    quiz = nbformat.v4.new_markdown_cell(f"**1.** What is $c$?\n{FOLDED}\n{FOLDED}\n\n{FOLDED}")
    (cell,) = site_notebooks.read(nbformat.writes(nbformat.v4.new_notebook(cells=[quiz]))).cells
    assert cell.source.startswith("**1.** What is $c$?\n<details>") and cell.source.count("<math") == 9
    assert cell.source.count("$") == 2 and len(cell.source.splitlines()) == 5


@pytest.mark.parametrize(
    "page",
    [
        "<pre class='printed'><code>$1 and\n\n$2</code></pre>",
        r"<p>\$1 or <img alt='$2'> or $3</p>",
        "<p>$6 or $7</p>",
    ],
)
def test_money_is_no_formula(page: str):
    assert as_html(page) == formulas_in_html(page) == page


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
    markup = re.sub("&#x([0-9A-F]+);", lambda m: chr(int(m[1], 16)), mathml(latex, "inline"))
    assert drawn in markup and not_drawn not in markup
