"""The Markdown of a lesson, parsed as the site's is: its blocks as they were written, and as HTML with formulas in MathML."""

import html
import re
from functools import cache
from typing import NamedTuple


class Block(NamedTuple):
    """A heading, a paragraph, a list and so on, by the parser's name for it, as it stands in a text from `start` on.

    `items` has of a list each item's mark and its first paragraph.
    """

    kind: str
    source: str
    start: int
    items: list[tuple[str, str]]


def blocks(text: str) -> list[Block]:
    """What a text is made of, in order."""
    from markdown_it.tree import SyntaxTreeNode

    found, lines = [], text.split("\n")
    for node in SyntaxTreeNode(_parser().parse(text)).children:
        first, end = node.map  # type: ignore[misc]  # every block has one
        start, source = len("\n".join([*lines[:first], ""])), "\n".join(lines[first:end]).rstrip("\n")
        items = node.children if node.type.endswith("_list") else []
        found.append(Block(node.type, source, start, [_item(item) for item in items]))
    return found


def _item(item) -> tuple[str, str]:
    first = next((node.content for node in item.walk() if node.type == "inline"), "")
    return (f"{item.info}{item.markup} " if item.info else "- "), first


def as_html(markdown: str, inline: bool = False) -> str:
    """Markdown as HTML, or of a single line what stands in it. Links to other pages of the course leave their words alone."""
    made = (_parser().renderInline if inline else _parser().render)(markdown).strip()
    made = re.sub(r'(?s)<a href="(?!http)[^>]*>(.*?)</a>', r"\1", made)
    # A formula and the full stop behind it stay together.
    return re.sub(r"(?s)(<math[^>]*inline(?:(?!</math>).)*</math>[.,;:?!)]+)", r'<span class="whole">\1</span>', made)


def with_formulas(page: str) -> str:
    """HTML that an author wrote, its formulas as MathML: a parser of Markdown leaves them as they are."""
    within = r"(?s)(<(pre|code|script|style)\b.*?</\2>|</?[a-z][^>]*>)|(?<!\\)\$(?!\s)([^$\n]+)(?<!\s)\$(?!\d)"
    return re.sub(within, lambda found: found[1] or mathml(html.unescape(found[3]), "inline"), page)


def formulas_in_html(markdown: str) -> str:
    """Markdown whose pieces of HTML have their formulas as MathML."""
    made = markdown
    for block in reversed(blocks(markdown)):  # from the end: what is left keeps its place
        if block.kind == "html_block":
            made = made[: block.start] + with_formulas(block.source) + made[block.start + len(block.source) :]
    return made


def mathml(latex: str, display: str) -> str:
    """MathML, which browsers draw without a script; mended where they would draw it unlike TeX."""
    import latex2mathml.converter

    markup = latex2mathml.converter.convert(latex, display=display)
    markup = re.sub(r'<mi mathvariant="double-struck">(\w)</mi>', r"<mi>&\1opf;</mi>", markup)
    markup = re.sub(r'<mi mathvariant="script">(\w)</mi>', r"<mi>&\1scr;</mi>", markup)
    markup = markup.replace(r"\_", "_").replace("<mo>&#x0003D;</mo><mi>:</mi>", "<mo>=:</mo>")
    markup = markup.replace("<mo>&#x02016;</mo>", '<mo stretchy="false" lspace="0" rspace="0">&#x02016;</mo>')
    prime = r'<mrow>\1<mo lspace="0" rspace="0">&#x02032;</mo></mrow>'  # the sign is raised by itself
    letter, raised = r"(<mi>(?:\w|&#x\w+;)</mi>)", "<mi>&#x02032;</mi>"
    markup = re.sub(rf"<msup>{letter}{raised}</msup>", prime, markup)
    markup = re.sub(rf"<msubsup>{letter}(<m[in]>\w+</m[in]>){raised}</msubsup>", rf"<msub>{prime}\2</msub>", markup)
    operator = '<mo form="prefix" lspace="0.167em" rspace="{}em">'
    markup = re.sub(r"<mi>(log|exp|max|min)</mi>(?=(<mo[^>]*>&#x00028;)?)",
                    lambda m: operator.format(0 if m[2] else 0.167) + m[1] + "</mo>", markup)  # fmt: skip
    return markup


@cache
def _parser():
    from markdown_it import MarkdownIt
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    parser = MarkdownIt("commonmark", {"highlight": _colored}).enable("table")
    parser.use(dollarmath_plugin, allow_labels=False)
    for kind, rule in (("math_inline", _formula), ("math_block", _equation), ("html_block", _as_written)):
        parser.add_render_rule(kind, rule)
    return parser


def _formula(_self, tokens, place, _options, _env) -> str:
    return mathml(tokens[place].content, "inline")


def _equation(_self, tokens, place, _options, _env) -> str:
    latex = tokens[place].content
    tag = re.search(r"\\tag\{(\w+)\}", latex)
    number = f"<span>({tag[1]})</span>" if tag else ""
    shown = latex.replace(tag[0], "") if tag else latex
    return f'<div class="equation">{mathml(shown.strip(), "block")}{number}</div>\n'


def _as_written(_self, tokens, place, _options, _env) -> str:
    return with_formulas(tokens[place].content)


def _colored(code: str, language: str, _attributes: str) -> str:
    """The words of Python by their classes."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    return highlight(code, PythonLexer(), HtmlFormatter(nowrap=True)) if language == "python" else ""
