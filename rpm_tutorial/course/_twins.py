"""A widget without a kernel: its figures, made by the same `render`.

`static_twin` is for GitHub and JupyterLab: plotly's own slider over the first control. `grid` holds a figure for each setting
of all controls, for a page with a script that picks the one asked for: the site.
"""

import base64
import dataclasses
import gzip
import itertools
import json
import math
import textwrap

import numpy as np
import plotly.graph_objects as go

from ._stored import TITLE_HEIGHT
from .figures import Figure

GRID = "application/vnd.rpm-tutorial.grid"
LARGEST = 500_000  # characters of a packed grid: a page, with plotly, is to stay below 3 MB, a notebook below 1 MiB
DIGITS = 7
SLIDER_HEIGHT = 170  # pixels that a static twin adds to its figure, its title's among them


def static_twin(render, state_type) -> Figure:
    """The figure of the first settings, its first control as plotly's own slider over frames."""
    first, default = dataclasses.fields(state_type)[0], state_type()
    values = list(first.metadata["values"])
    current = values.index(getattr(default, first.name))
    if not first.metadata["menu"]:  # nine frames are enough, the default among them
        stride = -(-len(values) // 9)
        values, current = values[current % stride :: stride], current // stride
    shown = [render(dataclasses.replace(default, **{first.name: value})) for value in values]
    fig, drawn = go.Figure(shown[current].plotly), [json.loads(f.plotly.to_json())["data"] for f in shown]
    most = max(map(len, drawn))  # a frame changes traces, and can neither add nor remove one
    fig.add_traces([{"type": "scatter", "visible": False}] * (most - len(fig.data)))
    fig.frames = [
        go.Frame(data=traces, layout={**_overlay(f), "title": _title(f)}, name=str(v))
        for v, f, traces in zip(values, shown, _changing(drawn, most))
    ]
    at_once = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}}
    names = [f"{v:g}" if isinstance(v, float) else str(v) for v in values]
    steps = [{"args": [[str(v)], at_once], "method": "animate", "label": name} for v, name in zip(values, names)]
    prefix = {"prefix": f"{first.metadata['label']}: "}
    fig.update_layout(
        sliders=[{"active": current, "steps": steps, "currentvalue": prefix, "pad": {"t": 60}}],
        title=_title(shown[current]),
        height=fig.layout.height + SLIDER_HEIGHT,
        margin_t=fig.layout.margin.t + TITLE_HEIGHT,
    )
    return dataclasses.replace(shown[current], plotly=fig)


def _changing(frames: list[list[dict]], most: int) -> list[list[dict]]:
    """The traces of each frame without what is the same in all, which a page keeps; those that a frame lacks are hidden."""
    if any(len(frame) != most for frame in frames):
        lacking = {"type": "scatter", "visible": False}
        frames = [[{"visible": True} | t for t in frame] + [lacking] * (most - len(frame)) for frame in frames]
    return [
        [
            {key: value for key, value in trace.items() if key == "type" or any(f[k].get(key) != value for f in frames)}
            for k, trace in enumerate(frame)
        ]
        for frame in frames
    ]


def _overlay(figure: Figure) -> dict:
    return {key: figure.plotly.layout[key] for key in ("shapes", "annotations", "xaxis", "yaxis", "coloraxis")}


def _title(figure: Figure) -> dict:
    """The caption as a title, which changes with the frame."""
    text = "<br>".join(textwrap.wrap(figure.caption, 105))
    return {"text": text, "font": {"size": 12}, "x": 0.02, "y": 0.98, "yanchor": "top"}


def grid(render, state_type) -> str:
    """The figures of all settings, packed; `unpacked` and `figure_at` read them. `ValueError` if they are too large.

    Numbers keep `DIGITS` digits, and sizes of markers a tenth of a pixel.
    What settings share is stored once: a part of a figure (its path) has a list of values, and for each setting the place
    of its value there, counted from 1; 0 where the figure has no such part. Too large a grid keeps every second value of its
    longest slider, the first setting among them.
    """
    fields, start = dataclasses.fields(state_type), state_type()
    values = [field.metadata["values"] for field in fields]
    starts = [every.index(getattr(start, field.name)) for field, every in zip(fields, values)]
    kept = [range(len(every)) for every in values]
    drawn = {
        places: [(path, json.dumps(value)) for path, value in _parts(render(state_type(*setting)))]
        for places, setting in zip(itertools.product(*kept), itertools.product(*values))
    }
    while True:
        controls = [
            {
                "label": field.metadata["label"],
                "menu": field.metadata["menu"],
                "values": [field.metadata["options"][k][0] for k in places],
                "start": places.index(first),
            }
            for field, places, first in zip(fields, kept, starts)
        ]
        parts = _shared([drawn[places] for places in itertools.product(*kept)])
        packed = _packed({"controls": controls, "parts": parts})
        if len(packed) <= LARGEST:
            return packed
        thinned = [places[control["start"] % 2 :: 2] for places, control in zip(kept, controls)]
        sliders = [k for k, control in enumerate(controls) if not control["menu"] and len(thinned[k]) >= 2]
        if not sliders:
            raise ValueError(
                f"the figures of {math.prod(map(len, kept))} settings take {len(packed)} characters, and no slider is left "
                f"to thin; expected at most {LARGEST}; remedy: fewer choices in the menus, or figures of fewer points"
            )
        longest = max(sliders, key=lambda k: (len(kept[k]), k))
        kept[longest] = thinned[longest]


def _shared(figures: list[list[tuple]]) -> list[list]:
    """For each path its values, and for each figure the place of its value there."""
    found: dict[tuple, tuple[dict[str, int], list[int]]] = {}
    for number, figure in enumerate(figures):
        for path, text in figure:
            pool, places = found.setdefault(path, ({}, [0] * len(figures)))
            places[number] = pool.setdefault(text, len(pool) + 1)
    return [[path, [json.loads(text) for text in pool], places] for path, (pool, places) in found.items()]


def _parts(figure: Figure):
    """What a figure is made of, each with the path to it: attributes of traces and of the layout, and its words."""
    drawn = json.loads(figure.plotly.to_json())
    for number, trace in enumerate(drawn["data"]):
        yield from ((("data", number, key), plain(value, key)) for key, value in trace.items())
    yield from ((("layout", key), plain(value, key)) for key, value in drawn["layout"].items())
    yield from ((("caption",), figure.caption), (("alt",), figure.alt))


def plain(value, *path: str):
    """A value of plotly's JSON, its typed arrays as lists and its numbers short, with gaps for what is no number.

    `path` has the names that lead to it.
    """
    if isinstance(value, dict) and "bdata" in value:
        array = np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"])
        value = array.reshape([int(side) for side in value.get("shape", str(array.size)).split(",")]).tolist()
    if isinstance(value, dict):
        return {name: plain(item, *path, name) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item, *path) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        short = round(value, 1) if path[-2:] == ("marker", "size") else float(f"{value:.{DIGITS}g}")
        return int(short) if short.is_integer() else short
    return value


def _packed(made: dict) -> str:
    text = json.dumps(made, separators=(",", ":"), ensure_ascii=False)
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def unpacked(packed: str) -> dict:
    """The controls of a grid, each with its label, its values as they are shown and the place of the first, and its parts."""
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def figure_at(made: dict, setting: list[int]) -> dict:
    """The data and layout of an unpacked grid's figure, its caption and its description, at a place on each control."""
    place = int(np.ravel_multi_index(setting, [len(control["values"]) for control in made["controls"]]))
    figure: dict = {"data": [], "layout": {}}
    for (kind, *path), values, places in made["parts"]:
        if not places[place]:
            continue
        value = values[places[place] - 1]
        if kind == "data":
            figure["data"] += [{} for _ in range(path[0] + 1 - len(figure["data"]))]
            figure["data"][path[0]][path[1]] = value
        elif kind == "layout":
            figure["layout"][path[0]] = value
        else:
            figure[kind] = value
    return figure
