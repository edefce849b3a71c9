"""Figures of latents: as clouds, and along paths; and of a training so far."""

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
    house_figure,
    panes,
    three_digits,
)


def clouds(
    panels: Mapping[str, tuple[ArrayLike, ArrayLike]], *, x_label: str, y_label: str, color_label: str, caption: str
) -> Figure:
    """Clouds of points side by side, each point coloured by a number: name -> (points (n, 2), numbers (n,)).

    One colour scale for all, dark to light, and equal units on both axes of a panel.
    """
    drawn = {name: (np.asarray(xy, float), np.asarray(c, float)) for name, (xy, c) in panels.items()}
    fig = house_figure(right=120, **panes(tuple(drawn), 0.2 / len(drawn)))
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
    fig = house_figure(
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
        place = [f"row {three_digits(row)}, column {three_digits(column)}" for row, column in points]
        if closed[name]:
            return f"{name} around row {three_digits(points[:, 0].mean())}, column {three_digits(points[:, 1].mean())}"
        return f"{name} from {place[0]} to {place[-1]}" if len(place) > 1 else f"{name} at {place[0]}"

    alt = f"Paths in the plane, {label}: " + "; ".join(trip(name, points) for name, (_, points) in drawn.items())
    rows = [
        [name, step, *map(float, point)]
        for name, (_, points) in drawn.items()
        for step, point in enumerate([] if closed[name] else points)
    ]
    return Figure(fig, caption, alt + ".", ("path", "point", "row", "column"), rows)


def training(history: Mapping[str, Sequence[float]], latents, labels, *, steps: int, shown: int = 200) -> Figure:
    """A training so far: InfoNCE and its held-out value, the parts of that (E24), a probe, latents in their principal plane.

    Args:
        history: "step", "InfoNCE" (None where no batch came before), "held-out InfoNCE", its parts "label nats" and
            "instance nats", and "probe", one entry an evaluation.
        latents: (n, d); the first `shown` are drawn, each as the number of its class in `labels`.
        steps: of the whole training, the width of the figure.
    """
    from sklearn.decomposition import PCA  # takes half a second, and only this figure needs it

    fig = house_figure(right=20, **panes(("", "", "", ""), 0.09, rows=2))
    fig.update_layout(width=1000, height=640, showlegend=True, legend={"orientation": "h", "y": 1.1, "x": 0})
    looks = {
        "InfoNCE": ("", STYLES["InfoNCE"]),
        "held-out InfoNCE": ("", STYLES["log evidence − C"]),
        "label nats": ("2", STYLES["label"]),
        "instance nats": ("2", STYLES["instance"]),
        "probe": ("3", STYLES["MI"]),
    }
    for name, (axis, style) in looks.items():
        fig.add_scatter(
            x=history["step"], y=history[name], name=name, mode="lines+markers",
            line={"color": style.color, "dash": style.dash}, marker={"symbol": style.symbol, "size": 6},
            xaxis=f"x{axis}", yaxis=f"y{axis}",
        )  # fmt: skip
    plane, classes = PCA(2).fit_transform(np.asarray(latents, float))[:shown], np.asarray(labels)[:shown]
    palette = np.array([BLUE, VERMILLION, GREEN, BLACK, ORANGE, PURPLE, GREY])
    fig.add_scatter(
        x=plane[:, 0], y=plane[:, 1], text=classes.astype(str), mode="text", showlegend=False, xaxis="x4", yaxis="y4",
        textfont={"color": palette[classes % len(palette)].tolist(), "size": 11}, hoverinfo="text",
    )  # fmt: skip
    for axis, title in (("", "nats per pair"), ("2", "held-out nats per pair"), ("3", "probe accuracy")):
        fig.layout[f"xaxis{axis}"].update(title="step", range=[0, steps])
        fig.layout[f"yaxis{axis}"].title = title
    fig.layout.yaxis3.range = [0, 1]
    reach = 1.1 * np.abs(plane).max()
    for axis, title in (("xaxis4", "first principal component of z"), ("yaxis4", "second")):
        fig.layout[axis].update(title=title, range=[-reach, reach])
    said = {name: "unknown" if values[-1] is None else three_digits(values[-1]) for name, values in history.items()}
    alt = (
        f"Four panels after step {history['step'][-1]} of {steps}: InfoNCE {said['InfoNCE']} nats, held-out InfoNCE "
        f"{said['held-out InfoNCE']} nats, which are {said['label nats']} label nats and {said['instance nats']} instance "
        f"nats; probe accuracy {said['probe']}; {len(plane)} latents in two dimensions."
    )
    caption = (
        "Above: InfoNCE of the batches and of held-out pairs, and the two parts of the latter, which tell classes apart and "
        "the pairs of a class. Below: a linear probe, and held-out latents by class."
    )
    return Figure(fig, caption, alt, list(history), list(zip(*history.values())))
