"""Arrays in, a captioned figure out: the course's palette, alt text computed from the data, and the data as a table.

One colour, dash and marker per quantity through the whole course (Okabe-Ito), so that a figure can be read in grey.
"""

import functools
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import plotly.graph_objects as go
from IPython.display import publish_display_data
from numpy.typing import ArrayLike
from plotly.subplots import make_subplots
from torch import Tensor

from .._stored import PLOTLY
from ..environment import in_colab

GREY, BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK = (
    "#666666", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000",
)  # fmt: skip


BESIDE = {"xanchor": "left", "xshift": 8, "showarrow": False}  # of a curve's end: its name

CONFIG = {"showSendToCloud": False}  # no button that uploads a figure, which plotly would show


@dataclass(frozen=True)
class Style:
    """How a quantity is drawn: by colour, and by dash and marker for readers who see none."""

    color: str
    dash: str = "solid"
    symbol: str = "circle"


STYLES: Mapping[str, Style] = {
    "data": Style(GREY, "solid", "circle-open"),
    "Q": Style(BLUE, "solid", "square"),
    "P": Style(VERMILLION, "dash", "diamond"),
    "MI": Style(GREEN, "longdash", "triangle-up"),
    "InfoNCE": Style(PURPLE, "solid", "circle"),
    "ELBO − C": Style(SKY, "dot", "x-thin-open"),
    "log evidence − C": Style(BLACK, "dash", "cross-thin-open"),
    "DV": Style(ORANGE, "dashdot", "diamond"),
    "NWJ": Style(BLUE, "dot", "square"),
    "KL": Style(VERMILLION, "dash", "triangle-down"),
    "log N": Style(GREY, "dash", "line-ew-open"),
    "label": Style(BLUE, "dash", "square-open"),  # nats of (E24)
    "instance": Style(VERMILLION, "dot", "diamond-open"),
    "truth": Style(GREY, "solid", "circle-open"),  # as the data
    "posterior mean": Style(BLUE, "solid", "square"),  # as Q
}


_FILL, _SHADE = "rgba(0, 114, 178, 0.25)", "#E6E6E6"  # of a band: BLUE, pale; and of a stretch behind it
_UNNAMED = BLUE, VERMILLION, GREEN, ORANGE  # of curves that are no quantity of the course


@dataclass(frozen=True)
class Figure:
    """A plotly figure with what a reader needs beside it; it displays itself, caption and data table below.

    `alt` says in words what the figure shows, `rows` holds its data under the names in `columns`.
    """

    plotly: go.Figure
    caption: str
    alt: str
    columns: Sequence[str]
    rows: Sequence[Sequence] = field(repr=False)

    def _ipython_display_(self) -> None:
        publish_display_data(bundle(self))
        publish_display_data({"text/html": self._legend(), "text/plain": self.caption})

    def page(self) -> str:
        """Plot, caption and data as HTML that needs no network."""
        drawn = self.plotly.to_html(full_html=False, include_plotlyjs=True, config={**CONFIG})
        return f"<div role='img' aria-label='{html.escape(self.alt)}'>{drawn}</div>{self._legend()}"

    def _legend(self) -> str:
        head = "".join(f"<th scope='col'>{html.escape(str(c))}</th>" for c in self.columns)
        body = "".join("<tr>" + "".join(f"<td>{_cell(v)}</td>" for v in row) + "</tr>" for row in self.rows)
        return (
            f"<p><em>{html.escape(self.caption)}</em></p><details><summary>The data of this figure</summary>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></details>"
        )


def bundle(figure: Figure) -> dict:
    """The MIME bundle of the plot alone, with its alt text as plain text."""
    if in_colab():
        page = figure.plotly.to_html(full_html=False, include_plotlyjs="cdn", config={**CONFIG})
        return {"text/html": page, "text/plain": figure.alt}
    return {PLOTLY: plotly_json(figure), "text/plain": figure.alt}


def plotly_json(figure: Figure) -> dict:
    """The plot as the JSON that a page draws."""
    return json.loads(figure.plotly.to_json()) | {"config": {**CONFIG}}


def lines(
    x: ArrayLike,
    curves: Mapping[str, ArrayLike],
    *,
    x_label: str,
    y_label: str,
    caption: str,
    ceiling: tuple[str, float] | None = None,
    x_log: bool = False,
    floor: float = -np.inf,
    mark: float | None = None,
    gap: tuple[float, float] | None = None,
    band: tuple[ArrayLike, ArrayLike] | None = None,
    shade: tuple[str, float, float] | None = None,
) -> Figure:
    """Curves over a shared x, each labelled at its end; a curve whose name is in `STYLES` is drawn in that style.

    Raises `ValueError` for more than four curves of other names, and for an x that a logarithmic axis has no place for.

    Args:
        ceiling: name and height of a bound, drawn as a level line, grey and dashed unless its name has a style.
        floor: where the y axis starts, for curves that fall far below what is worth seeing.
        mark: an x to point out with a vertical line, for example a slider's position.
        gap: two heights at the mark, between which a bar is drawn in the style of KL.
        band: the lower and upper ends of what is filled behind the curves, for example an interval.
        shade: name and two ends of a stretch of x that is grey.
    """
    x, ys = np.asarray(x, float), {name: np.asarray(y, float) for name, y in curves.items()}
    if x_log and not (x > 0).all():
        raise ValueError(f"x_log needs an x above 0 for each point; found {x[~(x > 0)][0]}; leave such points out")
    unknown = [name for name in ys if name not in STYLES]
    if len(unknown) > len(_UNNAMED):
        raise ValueError(
            f"{len(unknown)} curves have no style of their own: {', '.join(unknown)}; expected at most {len(_UNNAMED)}, "
            "which can be told apart; draw fewer, or name quantities as in figures.STYLES"
        )
    fallback = iter(_UNNAMED)
    if ceiling:
        ys[ceiling[0]] = np.full_like(x, ceiling[1])
    x_axis = {"type": "log", **log_ticks(x)} if x_log else {}
    fig = house_figure(right=120, xaxis={"title": x_label, **x_axis}, yaxis={"title": y_label, **ZERO})
    seen = {name: np.flatnonzero(y >= floor) for name, y in ys.items()}
    filled = dict(zip(("lower end", "upper end"), (np.asarray(end, float) for end in band or ())))
    values = np.concatenate([*(ys[name][k] for name, k in seen.items()), *filled.values()])
    for name, end in filled.items():  # before the curves, so that it lies behind them
        fill = {"fill": "tonexty", "fillcolor": _FILL} if name == "upper end" else {}
        edge = {"color": BLUE, "dash": "dot", "width": 1}
        fig.add_scatter(x=x, y=end, name=name, mode="lines", line=edge, showlegend=False, **fill)
    if floor > -np.inf:
        fig.layout.yaxis.range = [floor, values.max() + 0.05 * (values.max() - floor)]
    ends = _spread({name: ys[name][k[-1]] for name, k in seen.items() if len(k)}, values)
    for name, y in ys.items():
        level = ceiling and name == ceiling[0]
        style = STYLES.get(name) or (STYLES["log N"] if level else Style(next(fallback)))
        fig.add_scatter(
            x=x, y=y, name=name, mode="lines+markers" if len(x) <= 25 and not level else "lines", showlegend=False,
            line={"color": style.color, "dash": style.dash, "width": 2.5},
            marker={"symbol": style.symbol, "size": 8, "line": {"color": style.color, "width": 2}},
        )  # fmt: skip
        if name in ends:
            last = x[seen[name][-1]]
            fig.add_annotation(
                x=np.log10(last) if x_log else last, y=ends[name], text=name, font_color=style.color, **BESIDE
            )
    if mark is not None:
        fig.add_vline(mark, line={"color": GREY, "dash": "dot"})
    if shade is not None:
        name, *stretch = shade
        fig.add_vrect(*stretch, fillcolor=_SHADE, line_width=0, layer="below")
        middle = np.mean(np.log10(stretch) if x_log else stretch)
        fig.add_annotation(x=middle, y=1, yref="paper", yanchor="bottom", text=name, font_color=GREY, showarrow=False)
    if gap is not None:
        bar = {"color": STYLES["KL"].color, "width": 4}
        fig.add_shape(type="line", x0=mark, x1=mark, y0=gap[0], y1=gap[1], line=bar)

    def trend(name, k):
        if not len(k):
            return f"{name} below the figure"
        first, last, highest = map(three_digits, (ys[name][k[0]], ys[name][k[-1]], ys[name][k].max()))
        return f"{name} from {first} to {last}, highest {highest}"

    said = [trend(name, k) for name, k in seen.items()]
    if filled:
        width = filled["upper end"] - filled["lower end"]
        said.append(f"a band, widest at {x[np.nanargmax(width)]:.3g} with {three_digits(np.nanmax(width))}")
    if shade is not None:
        said.append(f"{shade[0]} from {shade[1]:.3g} to {shade[2]:.3g}")
    alt = f"Lines of {y_label} against {x_label}, from {x[0]:.3g} to {x[-1]:.3g}: {'; '.join(said)}."
    ys |= filled
    kept = np.unique(np.linspace(0, len(x) - 1, 21).round().astype(int))  # a table is read, not plotted
    rows = [[float(x[i]), *(float(y[i]) for y in ys.values())] for i in kept]
    return Figure(fig, caption, alt, [x_label, *ys], rows)


def dots(
    values: Mapping[str, float],
    *,
    x_label: str,
    caption: str,
    mark: Mapping[str, str] | None = None,
    digits: int = 6,
    most: float = np.inf,
) -> Figure:
    """One dot a name on a shared axis, its value beside it.

    Args:
        mark: rows to point out, each with the reason.
        digits: decimals of the values beside the dots; fewer for numbers that another machine would not repeat.
        most: the largest value that the quantity can have, beyond which the axis doesn't run.
    """
    mark, names, numbers = mark or {}, list(values), [float(v) for v in values.values()]
    colors = [VERMILLION if name in mark else STYLES[name].color if name in STYLES else PURPLE for name in names]
    low, high = min(numbers), max(numbers)
    reach = max(high - low, 0.1 * abs(high), 1e-3)
    fig = house_figure(
        right=20 if most == np.inf else 60,
        height=120 + 42 * len(names),
        xaxis={**ZERO, "title": x_label, "range": [low - 0.15 * reach, min(high + 0.9 * reach, most)]},
        yaxis={"range": [len(names) - 0.5, -0.5], "categoryorder": "array", "categoryarray": names},
    )
    fig.add_scatter(
        x=numbers, y=names, mode="markers+text", textposition="middle right",
        cliponaxis=None if most == np.inf else False,
        text=[f"  {v:.{digits}f}" + (f"  ✗ {mark[n]}" if n in mark else "") for n, v in zip(names, numbers)],
        marker={"size": 12, "color": colors, "symbol": ["x" if n in mark else STYLES.get(n, Style(GREY)).symbol for n in names]},
    )  # fmt: skip
    said = "; ".join(f"{n} {v:.6g}" + (f" ({mark[n]})" if n in mark else "") for n, v in zip(names, numbers))
    return Figure(fig, caption, f"Dots of {x_label}: {said}.", ("", x_label), list(zip(names, numbers)))


def tables(
    panels: Mapping[str, ArrayLike],
    *,
    x_label: str | Sequence[str],
    y_label: str | Sequence[str],
    caption: str,
    unit: str = "probability",
) -> Figure:
    """Heat maps side by side on one scale from white to blue, the numbers written in when they fit."""
    names, arrays = list(panels), [np.asarray(a, float) for a in panels.values()]
    x_labels, y_labels = ([v] * len(names) if isinstance(v, str) else v for v in (x_label, y_label))
    high = max(float(a.max()) for a in arrays)
    fig = house_figure(**panes(tuple(names), 0.3 / len(names)))
    low = min(0, *(float(a.min()) for a in arrays))
    for k, array in enumerate(arrays, start=1):
        axis = "" if k == 1 else str(k)
        roomy = array.shape[1] * len(names) <= 14
        fig.add_heatmap(
            z=array, xaxis=f"x{axis}", yaxis=f"y{axis}", coloraxis="coloraxis",
            texttemplate="%{z:.2f}" if roomy else "", hovertemplate=f"%{{y}}, %{{x}}: %{{z:.4f}} {unit}<extra></extra>",
        )  # fmt: skip
        tick, tick_y = (1 if side <= 12 else None for side in array.shape[::-1])
        fig.layout[f"xaxis{axis}"].update(title=x_labels[k - 1], dtick=tick)
        fig.layout[f"yaxis{axis}"].update(title=y_labels[k - 1], dtick=tick_y, autorange="reversed")
    scale = [[0, "#FFFFFF"], [1, BLUE]]
    fig.layout.coloraxis = {"colorscale": scale, "cmin": low, "cmax": high, "colorbar": _color_bar(unit)}

    def largest(array):
        row, column = np.unravel_index(array.argmax(), array.shape)
        return f"largest {array.max():.3g} at row {row}, column {column}"

    alt = f"Heat maps of {unit}: " + "; ".join(
        f"{n} ({'×'.join(map(str, a.shape))}), {largest(a)}" for n, a in zip(names, arrays)
    )
    rows = [[n, i, *(round(float(v), 4) for v in line)] for n, a in zip(names, arrays) for i, line in enumerate(a)]
    columns = ["table", "row", *range(max(a.shape[1] for a in arrays))]
    return Figure(fig, caption, alt + ".", columns, rows)


def images(
    rows: Mapping[str, Sequence | Tensor], *, caption: str, below: Mapping[str, Sequence[str]] | None = None
) -> Figure:
    """Rows of small grey images, each row named at its left; `below` gives a line of text under each image of a row."""
    below, names = below or {}, list(rows)
    stacks = [np.asarray(stack, float).reshape(len(stack), *np.shape(stack)[-2:]) for stack in rows.values()]
    tall, wide = np.max([stack.shape[-2:] for stack in stacks], axis=0)
    row_height, column_width = tall + 2 + (tall // 4 + 2 if below else 0), wide + 2
    # Bytes, because a notebook stores each picture.
    canvas = np.full((row_height * len(stacks), column_width * max(map(len, stacks))), 255, np.uint8)
    for r, stack in enumerate(stacks):
        for c, image in enumerate(stack):
            top, left = r * row_height + 1, c * column_width + 1
            canvas[top : top + image.shape[0], left : left + image.shape[1]] = (255 * image.clip(0, 1)).round()
    fig = house_figure(
        height=20 + int(600 / canvas.shape[1] * canvas.shape[0]),
        margin={"l": 90, "r": 30, "t": 10, "b": 10},
        xaxis={"visible": False},
        yaxis={
            "autorange": "reversed", "scaleanchor": "x", "ticks": "", "showline": False,
            "tickvals": [r * row_height + tall / 2 for r in range(len(names))], "ticktext": names,
        },
    )  # fmt: skip
    fig.add_heatmap(z=canvas, zmin=0, zmax=255, colorscale="gray", showscale=False, hoverinfo="skip")
    look = {"showarrow": False, "yanchor": "top", "font": {"size": 11}}
    fig.layout.annotations = [
        {"x": c * column_width + wide / 2, "y": r * row_height + tall + 1, "text": text, **look}
        for r, name in enumerate(names)
        for c, text in enumerate(below.get(name, ()))
    ]
    alt = "Rows of images: " + "; ".join(
        f"{name}, {len(stack)} images" + (f" ({', '.join(below[name])})" if name in below else "")
        for name, stack in zip(names, stacks)
    )
    table = [[name, k, text] for name in below for k, text in enumerate(below[name])] or [
        [n, len(s), ""] for n, s in zip(names, stacks)
    ]
    return Figure(fig, caption, alt + ".", ("row", "image" if below else "images", ""), table)


def log_ticks(x: np.ndarray) -> dict:
    """Ticks of a logarithmic axis: at a few values themselves, else 1, 10, 100, or between decades 3, or 2 and 5, in full.

    Where that leaves fewer than two, or two that read alike, plotly's own.
    """
    low, high = np.log10(x.min()), np.log10(x.max())
    decades, reach = 10.0 ** np.arange(np.floor(low) - 1, np.ceil(high) + 1), 0.06 * (high - low)
    for digits in ((1,), (1, 3), (1, 2, 5), range(1, 10)):
        ticks = np.outer(decades, digits).ravel()
        ticks = ticks[(np.log10(ticks) > low - reach) & (np.log10(ticks) < high + reach)]
        if len(ticks) >= 3:
            break
    values = np.unique(x) if len(x) <= 6 else ticks
    texts = [_full(value) for value in values]
    return {"tickvals": values.tolist(), "ticktext": texts} if len(set(texts)) == len(values) >= 2 else {}


def _full(value: float) -> str:
    """A number as it is written by hand: 10 000 and 0.03, but a power of ten where zeros would have to be counted."""
    if 1e-4 < value < 1e6:
        return f"{value:,.6g}".replace(",", "\u202f")
    return f"{value / (power := 10 ** np.floor(np.log10(value))):.3g}·10<sup>{np.log10(power):.0f}</sup>".removeprefix(
        "1·"
    )


# Plotly validates a template at every use; a small one keeps a figure under 10 ms, and "simple_white" would cost 30.
ZERO = {"zeroline": True, "zerolinecolor": "#BBBBBB", "zerolinewidth": 1}  # a level line at 0, where 0 is in sight
_AXIS = dict(showline=True, ticks="outside", showgrid=False, zeroline=False, linecolor=BLACK, automargin=True)
_PAPER = dict(font={"size": 13, "color": BLACK}, paper_bgcolor="white", plot_bgcolor="white", xaxis=_AXIS, yaxis=_AXIS)
_TEMPLATE = go.layout.Template(layout=_PAPER)


@functools.cache
def panes(titles: tuple[str, ...], spacing: float, rows: int = 1) -> dict:
    """The layout of panels side by side, in `rows`; plotly takes longer over it than over all the rest of a figure."""
    grid = make_subplots(rows, len(titles) // rows, subplot_titles=titles, horizontal_spacing=spacing)
    layout = grid.layout.to_plotly_json()
    return {key: value for key, value in layout.items() if key != "template"}


def house_figure(*, right: int = 20, **layout) -> go.Figure:
    """An empty figure of the house: white paper in light and dark themes alike, thin axes, one size of text."""
    base = {"template": _TEMPLATE, "width": 720, "height": 380, "margin": {"l": 70, "r": right, "t": 40, "b": 60}}
    return go.Figure(layout={**base, **layout})


def _color_bar(title: str) -> dict:
    """Placed in the whole figure: beside the panels it would be moved by a pixel for what was drawn there before."""
    return {"title": title, "thickness": 12, "xref": "container", "x": 1, "xanchor": "right"}


def _spread(ends: Mapping[str, float], values: np.ndarray) -> dict[str, float]:
    """Heights of the labels at the curves' ends, moved apart so that none covers another."""
    gap, placed = 0.07 * (np.ptp(values) or 1), dict[str, float]()
    for name in sorted(ends, key=ends.__getitem__):
        placed[name] = max(ends[name], max(placed.values(), default=-np.inf) + gap)
    return placed


def three_digits(value: float) -> str:
    """Three digits; rounding noise is said as 0."""
    return "0" if abs(value) < 1e-9 else f"{value:.3g}"


def _cell(value) -> str:
    return html.escape(f"{value:.4g}" if isinstance(value, float) else str(value))
