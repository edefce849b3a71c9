"""Notebooks as the site shows them: each plotly figure becomes HTML that docs/_static/figures.js draws without a kernel.

A widget brings the figures of all its settings along, packed, and gets a range input for each slider and a menu for each choice.
"""

import html
import itertools

import nbformat
from nbformat import NotebookNode

from rpm_tutorial.course._markdown import formulas_in_html
from rpm_tutorial.course._stored import PLOTLY, in_page
from rpm_tutorial.course._twins import GRID, figure_at, unpacked


def read(text: str) -> NotebookNode:
    """The site's reader of .ipynb files: figures become HTML, formulas within HTML become MathML, links to docs/ the site's."""
    notebook, numbers = nbformat.reads(text, as_version=4), itertools.count(1)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = formulas_in_html(cell.source.replace("](../docs/", "](../"))
        for output in cell.get("outputs", ()):
            if PLOTLY in output.get("data", {}):
                output.data = NotebookNode({"text/html": figure(output.data, next(numbers))})
    return notebook


def figure(data: dict, number: int, height: int | None = None) -> str:
    """The HTML of an output with a plotly figure.

    `number` tells its controls from those of the page's other figures; `height`, in pixels, counts instead of the figure's own.
    """
    layout, alt, controls, caption = data[PLOTLY]["layout"], "".join(data["text/plain"]), "", ""
    if GRID in data:
        grid = unpacked(data[GRID])
        shown = figure_at(grid, [control["start"] for control in grid["controls"]])
        layout, alt = shown["layout"], shown["alt"]
        rows = "".join(control(made, f"twin-{number}-{k}") for k, made in enumerate(grid["controls"]))
        controls = f'<div class="rpm-controls">{rows}</div>'
        caption = f'<p class="rpm-caption" role="status">{html.escape(shown["caption"])}</p>'
        code = f'<script type="application/gzip">{data[GRID]}</script>'
    elif "sliders" in layout:
        raise ValueError("a widget was stored without the figures of its settings; remedy: make build")
    else:
        code = in_page({"data": data[PLOTLY]["data"], "layout": layout})
    own = f'data-height="{height}" ' if height else ""
    return (
        f'<div class="rpm-figure">{controls}<div class="rpm-scroll"><div class="rpm-plot" role="img" {own}'
        f'aria-label="{html.escape(alt)}" style="height:{height or layout["height"]}px"></div></div>{caption}{code}</div>'
    )


def control(made: dict, name: str) -> str:
    """A control of a grid under its label: a menu, or a range input with its value in words beside it."""
    label, values, start = html.escape(made["label"]), [html.escape(value) for value in made["values"]], made["start"]
    if made["menu"]:
        options = "".join(f"<option{' selected' * (k == start)}>{value}</option>" for k, value in enumerate(values))
        inside = f'<select id="{name}">{options}</select>'
    else:
        widest = max(map(len, values))  # so that the slider keeps its length under the hand that moves it
        inside = (
            f'<input type="range" id="{name}" max="{len(values) - 1}" value="{start}" aria-valuetext="{values[start]}">'
            f'<output for="{name}" style="min-width:{widest}ch">{values[start]}</output>'
        )
    return f'<div class="rpm-control"><label for="{name}">{label}</label>{inside}</div>'
