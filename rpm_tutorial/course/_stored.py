"""How a notebook stores a figure and a page brings it along: for those who draw, and for those who only read."""

import json

PLOTLY = "application/vnd.plotly.v1+json"
STORED = "RPM_TUTORIAL_STORED"  # set where a notebook is made to be read without a kernel
TITLE_HEIGHT = 60  # pixels above the plot of a static twin, for its caption


def in_page(figure: dict) -> str:
    """A figure's JSON as a part of an HTML page, which the page's script reads; nothing in it ends the element."""
    code = json.dumps(figure, separators=(",", ":")).replace("</", "<\\/")
    return f'<script type="application/json">{code}</script>'
