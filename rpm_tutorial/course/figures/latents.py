"""Figures that one lesson each needs: latents as clouds, on a circle, in clusters, along paths; a training so far."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from .charts import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    STYLES,
    VERMILLION,
    Figure,
    _color_bar,
    _figure,
    _panes,
    _say,
)


def clouds(
    panels: Mapping[str, tuple[ArrayLike, ArrayLike]], *, x_label: str, y_label: str, color_label: str, caption: str
) -> Figure:
    """Clouds of points side by side, each point coloured by a number: name -> (points (n, 2), numbers (n,)).

    One colour scale for all, dark to light, and equal units on both axes of a panel.
    """
    drawn = {name: (np.asarray(xy, float), np.asarray(c, float)) for name, (xy, c) in panels.items()}
    fig = _figure(right=120, **_panes(tuple(drawn), 0.2 / len(drawn)))
    said, rows = [], []
    for k, (name, (xy, color)) in enumerate(drawn.items(), start=1):
        axis = "" if k == 1 else str(k)
        fig.add_scatter(
            x=xy[:, 0], y=xy[:, 1], mode="markers", xaxis=f"x{axis}", yaxis=f"y{axis}", showlegend=False,
            marker={"color": color.tolist(), "coloraxis": "coloraxis", "size": 5},  # a live figure compares lists, not arrays
        )  # fmt: skip
        middle, reach = (xy.max(0) + xy.min(0)) / 2, 0.55 * np.ptp(xy, axis=0).max() or 1.0
        x_range, y_range = ([float(m - reach), float(m + reach)] for m in middle)
        fig.layout[f"xaxis{axis}"].update(title=x_label, range=x_range, constrain="domain")
        fig.layout[f"yaxis{axis}"].update(
            title=y_label if k == 1 else "", range=y_range, scaleanchor=f"x{axis}", constrain="domain"
        )
        explained = np.linalg.lstsq(np.c_[xy, np.ones(len(xy))], color, rcond=None)[1].sum() / (len(xy) * color.var())
        said.append(f"{name}, {len(xy)} points, whose place explains {1 - explained:.0%} of the colour linearly")
        rows += [[name, *(round(float(v), 3) for v in (*point, c))] for point, c in zip(xy[:12], color[:12])]
    fig.layout.coloraxis = {"colorscale": "Cividis", "colorbar": _color_bar(color_label)}
    alt = f"Clouds of points coloured by {color_label}: {'; '.join(said)}."
    return Figure(fig, caption, alt, ["panel (first points)", x_label, y_label, color_label], rows)


def paths(
    curves: Mapping[str, tuple[str, ArrayLike]],
    *,
    label: str,
    caption: str,
    centre: Sequence[float] = (0.5, 0.5),
    reach: float = 0.5,
) -> Figure:
    """Paths in the plane of an image, row zero at the top: name -> (its quantity in `STYLES`, points (row, column)).

    The points of the first path are numbered from 0. A path that ends where it began is an outline, drawn without markers.

    Args:
        label: what both axes measure.
        centre, reach: the middle of the picture (row, column), and how far it goes from there on each side.
    """
    row, column = ({"range": [c - reach, c + reach], "constrain": "domain"} for c in centre)
    fig = _figure(
        height=520, margin={"l": 70, "r": 20, "t": 60, "b": 60}, legend={"orientation": "h", "y": 1.12, "x": 0},
        xaxis={"title": f"column: {label}", **column},
        yaxis={"title": f"row: {label}", "scaleanchor": "x", **row, "range": row["range"][::-1]},
    )  # fmt: skip
    drawn = {name: (STYLES[quantity], np.asarray(points, float)) for name, (quantity, points) in curves.items()}
    closed = {name: len(points) > 2 and np.allclose(points[0], points[-1]) for name, (_, points) in drawn.items()}
    for name, (style, points) in drawn.items():
        numbers = "+text" if len(fig.data) == 0 else ""
        fig.add_scatter(
            x=points[:, 1], y=points[:, 0], name=name, mode="lines" if closed[name] else f"lines+markers{numbers}", showlegend=True,
            text=[str(k) for k in range(len(points))] if numbers else None, textposition="bottom right",
            line={"color": style.color, "dash": style.dash, "width": 2},
            marker={"symbol": style.symbol, "size": 9, "line": {"color": style.color, "width": 2}},
        )  # fmt: skip

    def trip(name, points):
        place = [f"row {_say(row)}, column {_say(column)}" for row, column in points]
        if closed[name]:
            return f"{name} around row {_say(points[:, 0].mean())}, column {_say(points[:, 1].mean())}"
        return f"{name} from {place[0]} to {place[-1]}" if len(place) > 1 else f"{name} at {place[0]}"

    alt = f"Paths in the plane, {label}: " + "; ".join(trip(name, points) for name, (_, points) in drawn.items())
    rows = [
        [name, step, *map(float, point)]
        for name, (_, points) in drawn.items()
        for step, point in enumerate([] if closed[name] else points)
    ]
    return Figure(fig, caption, alt + ".", ("path", "point", "row", "column"), rows)


def circle(
    angles: np.ndarray,
    p: np.ndarray,
    *,
    own: float,
    partner: float,
    kappas: np.ndarray,
    evidence: Mapping[str, Sequence[float]],
    mark: float,
    caption: str,
) -> Figure:
    """Left, candidates on the unit circle, as large as their probability; right, curves of evidence against κ.

    Args:
        angles, p: of each candidate z', its place in radians and its probability given one z.
        own, partner: the angles of that z and of its true z'.
        mark: the κ of the left panel.
    """
    angles, p, turn = np.asarray(angles, float), np.asarray(p, float), np.linspace(0, 2 * np.pi, 91)
    fig = _figure(**_panes(("", ""), 0.16))
    fig.update_layout(width=900, height=420, margin={"r": 120})
    fig.add_scatter(
        x=np.cos(turn).tolist(),
        y=np.sin(turn).tolist(),
        mode="lines",
        line={"color": GREY, "width": 1},
        showlegend=False,
    )
    fig.add_scatter(
        x=np.cos(angles).tolist(), y=np.sin(angles).tolist(), mode="markers", showlegend=False,
        marker={"color": BLUE, "opacity": 0.5, "size": (2 + 22 * np.sqrt(p / p.max())).tolist()},
    )  # fmt: skip
    for name, angle, radius, color, symbol in (
        ("z", own, 0.72, BLACK, "star"),
        ("z′", partner, 1.22, VERMILLION, "diamond-open"),
    ):
        fig.add_scatter(
            x=[radius * np.cos(angle)], y=[radius * np.sin(angle)], mode="markers+text", text=[name], showlegend=False,
            textposition="middle right", textfont={"color": color}, marker={"color": color, "symbol": symbol, "size": 11},
        )  # fmt: skip
    for k, (name, values) in enumerate(evidence.items()):
        look = {"color": (PURPLE, GREY, BLACK)[k % 3], "dash": ("solid", "dash", "dot")[k % 3], "width": 2.5}
        fig.add_scatter(
            x=list(map(float, kappas)),
            y=list(values),
            mode="lines",
            line=look,
            xaxis="x2",
            yaxis="y2",
            name=name,
            showlegend=False,
        )
        fig.add_annotation(
            x=kappas[-1], y=values[-1], text=name, xref="x2", yref="y2", xanchor="left", xshift=6, showarrow=False,
            font={"color": look["color"]},
        )  # fmt: skip
    fig.add_vline(mark, line={"color": STYLES["log N"].color, "dash": "dot"}, row=None, col=None, xref="x2")
    ring = {"range": [-1.5, 1.5], "dtick": 1}
    fig.layout.xaxis.update(title="cos θ", **ring)
    fig.layout.yaxis.update(title="sin θ", scaleanchor="x", **ring)
    fig.layout.xaxis2.title, fig.layout.yaxis2.title = "concentration κ", "held-out InfoNCE (nats per pair)"
    best = "; ".join(
        f"{n}, highest {_say(np.max(v))} at κ = {kappas[int(np.argmax(v))]:g}" for n, v in evidence.items()
    )
    alt = (
        f"Left, {len(angles)} candidates on a circle, {np.sum(p > p.max() / 2)} of them at least half as probable as the "
        f"likeliest. Right, held-out InfoNCE against κ: {best}."
    )
    rows = [[float(k), *(float(v[i]) for v in evidence.values())] for i, k in enumerate(kappas)]
    return Figure(fig, caption, alt, ["κ", *evidence], rows)


def clusters(
    counts: ArrayLike,
    x: ArrayLike,
    curves: ArrayLike,
    *,
    chosen: int,
    shown: int,
    ceiling: float,
    x_label: str,
    y_label: str,
    caption: str,
) -> Figure:
    """Classes against categories, and beside it the evidence of several runs: one so far in black, the others in grey.

    Args:
        counts: (classes, categories), drawn as the share of each row.
        curves: (runs, len(x)); of the run `chosen` the first `shown` values are drawn.
    """
    counts, x, curves = (np.asarray(a, float) for a in (counts, x, curves))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    fig = _figure(**_panes(("share of a class in each category", "all runs, one of them so far"), 0.16))
    fig.update_layout(width=900, height=400)
    fig.add_heatmap(
        z=shares, zmin=0, zmax=1, colorscale=[[0, "#FFFFFF"], [1, BLUE]], showscale=False,
        texttemplate="%{z:.1f}", hovertemplate="class %{y}, category %{x}: %{z:.3f}<extra></extra>",
    )  # fmt: skip
    fig.layout.xaxis.update(title="category", dtick=1)
    fig.layout.yaxis.update(title="class", dtick=1, autorange="reversed")
    style = STYLES["log evidence − C"]
    for curve in curves:
        fig.add_scatter(x=x, y=curve, mode="lines", line={"color": "#BBBBBB", "width": 1}, xaxis="x2", yaxis="y2")
    fig.add_scatter(
        x=x[:shown], y=curves[chosen][:shown], mode="lines+markers", line={"color": style.color, "width": 2.5},
        marker={"symbol": style.symbol, "line": {"color": style.color, "width": 2}}, xaxis="x2", yaxis="y2",
    )  # fmt: skip
    fig.add_shape(
        type="line", x0=x[0], x1=x[-1], y0=ceiling, y1=ceiling, xref="x2", yref="y2", line={"color": GREY, "dash": "dash"},
    )  # fmt: skip
    low = min(0.0, curves.min())
    fig.update_layout(showlegend=False)
    fig.layout.xaxis2.update(title=x_label)
    fig.layout.yaxis2.update(title=y_label, range=[low - 0.05, 1.05 * max(ceiling, curves.max())])
    split = ", ".join(f"{k} {_say(row.max())} in {row.argmax()}" for k, row in enumerate(shares))
    first, last, ends = curves[chosen][0], curves[chosen][shown - 1], curves[:, -1]
    alt = (
        f"Left, the largest share of each class and its category: {split}. Right, {y_label} against {x_label}: the chosen "
        f"run from {_say(first)} to {_say(last)} at {x[shown - 1]:g}; at the end all {len(curves)} runs lie between "
        f"{_say(ends.min())} and {_say(ends.max())}, the ceiling at {_say(ceiling)}."
    )
    columns = ["class", *(f"category {k}" for k in range(counts.shape[1]))]
    return Figure(fig, caption, alt, columns, [[k, *map(int, row)] for k, row in enumerate(counts)])


def training(history: Mapping[str, Sequence[float]], latents, labels, *, steps: int, shown: int = 200) -> Figure:
    """A training so far: InfoNCE and its held-out value, the probe's accuracy, and latents in their principal plane.

    Args:
        history: "step", "InfoNCE" (None where no batch came before), "held-out InfoNCE" and "probe", one entry an evaluation.
        latents: (n, d); the first `shown` are drawn, each as the number of its class in `labels`.
        steps: of the whole training, the width of the figure.
    """
    from sklearn.decomposition import PCA  # takes half a second, and only this figure needs it

    fig = _figure(right=20, **_panes(("", "", ""), 0.09))
    fig.update_layout(width=1000, height=360, showlegend=True, legend={"orientation": "h", "y": 1.15, "x": 0})
    looks = {"InfoNCE": STYLES["InfoNCE"], "held-out InfoNCE": STYLES["log evidence − C"], "probe": STYLES["MI"]}
    for name, style in looks.items():
        fig.add_scatter(
            x=history["step"], y=history[name], name=name, mode="lines+markers",
            line={"color": style.color, "dash": style.dash}, marker={"symbol": style.symbol, "size": 6},
            xaxis="x2" if name == "probe" else "x", yaxis="y2" if name == "probe" else "y",
        )  # fmt: skip
    plane, classes = PCA(2).fit_transform(np.asarray(latents, float))[:shown], np.asarray(labels)[:shown]
    palette = np.array([BLUE, VERMILLION, GREEN, BLACK, ORANGE, PURPLE, GREY])
    fig.add_scatter(
        x=plane[:, 0], y=plane[:, 1], text=classes.astype(str), mode="text", showlegend=False, xaxis="x3", yaxis="y3",
        textfont={"color": palette[classes % len(palette)].tolist(), "size": 11}, hoverinfo="text",
    )  # fmt: skip
    for axis, title, span in (
        ("xaxis", "step", [0, steps]),
        ("xaxis2", "step", [0, steps]),
        ("yaxis2", "probe accuracy", [0, 1]),
    ):
        fig.layout[axis].update(title=title, range=span)
    fig.layout.yaxis.title = "nats per pair"
    reach = 1.1 * np.abs(plane).max()
    for axis, title in (("xaxis3", "first principal component of z"), ("yaxis3", "second")):
        fig.layout[axis].update(title=title, range=[-reach, reach])
    said = {name: "unknown" if values[-1] is None else _say(values[-1]) for name, values in history.items()}
    alt = (
        f"Three panels after step {history['step'][-1]} of {steps}: InfoNCE {said['InfoNCE']} nats, held-out InfoNCE "
        f"{said['held-out InfoNCE']} nats, probe accuracy {said['probe']}; {len(plane)} latents in two dimensions."
    )
    caption = (
        "Left: InfoNCE of the batches and of held-out pairs. Middle: a linear probe. Right: held-out latents, by class."
    )
    return Figure(fig, caption, alt, list(history), list(zip(*history.values())))
