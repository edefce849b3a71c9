"""Notebooks as the site shows them: each plotly figure becomes HTML that docs/_static/figures.js draws without a kernel.

A static twin brings its frames along, and gets a plain range input in the place of plotly's slider, which no keyboard reaches.
"""

import html
import itertools
import json

import nbformat
from nbformat import NotebookNode

from rpm_tutorial.course.widgets import SLIDER_HEIGHT, TITLE_HEIGHT

PLOTLY = "application/vnd.plotly.v1+json"


def read(text: str) -> NotebookNode:
    """A stored notebook, its figures turned into HTML, its links to docs/ into the site's; the site's reader of .ipynb files."""
    notebook, numbers = nbformat.reads(text, as_version=4), itertools.count(1)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace("](../docs/", "](../")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if PLOTLY in data:
                output.data = NotebookNode({"text/html": figure(data[PLOTLY], data["text/plain"], next(numbers))})
    return notebook


def figure(plotly: dict, alt: str, number: int) -> str:
    """The HTML of a plotly figure, `alt` its description in words."""
    layout = {key: value for key, value in plotly["layout"].items() if key != "width"}  # as wide as the page
    sliders = layout.pop("sliders", None)
    drawn, controls, caption = {"data": plotly["data"], "layout": layout}, "", ""
    if sliders:
        drawn["frames"], captions = frames(plotly["frames"], sliders[0]["steps"])
        drawn["captions"] = captions
        layout.pop("title")
        layout["height"] -= SLIDER_HEIGHT
        layout["margin"]["t"] -= TITLE_HEIGHT
        controls = range_input(sliders[0], f"twin-{number}")
        alt = caption = captions[sliders[0]["active"]]
        caption = f'<p class="rpm-caption" role="status">{html.escape(caption)}</p>'
    code = json.dumps(drawn, separators=(",", ":")).replace("</", "<\\/")
    return (
        f'<div class="rpm-figure">{controls}<div class="rpm-scroll"><div class="rpm-plot" role="img" '
        f'aria-label="{html.escape(alt)}" style="height:{layout["height"]}px"></div></div>{caption}'
        f'<script type="application/json">{code}</script></div>'
    )


def frames(stored: list[dict], steps: list[dict]) -> tuple[list[dict], list[str]]:
    """The frames in the order of the slider's steps, and the caption of each, which was the title of its figure."""
    by_name = {frame["name"]: frame for frame in stored}
    ordered = [by_name[step["args"][0][0]] for step in steps]
    captions = [frame["layout"].pop("title")["text"].replace("<br>", " ") for frame in ordered]
    return ordered, captions


def range_input(slider: dict, name: str) -> str:
    """A labelled range input over the steps of a plotly slider, its value in words beside it."""
    labels, active = [step["label"] for step in slider["steps"]], slider["active"]
    label = html.escape(slider["currentvalue"]["prefix"].removesuffix(": "))
    values, shown = html.escape(json.dumps(labels)), html.escape(labels[active])
    return (
        f'<div class="rpm-control"><label for="{name}">{label}</label>'
        f'<input type="range" id="{name}" max="{len(labels) - 1}" value="{active}" aria-valuetext="{shown}" '
        f'data-values="{values}"><output for="{name}">{shown}</output></div>'
    )
