"""What the trainings of the study measured, one row each in study.csv, and its figures. `make study` writes the rows."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from IPython.display import Markdown
from scipy.stats import spearmanr

from ..figures import Figure, charts
from ..figures.charts import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION, Style, house_figure, log_ticks, panes

SPHERES = ("sphere 0.05", "sphere 0.2", "sphere 1", "sphere")
CRITICS = (*SPHERES, "Gaussian walk", "Laplace walk", "bilinear", "separable")
STYLES = {
    "sphere": Style(BLUE, "solid", "circle"),
    "sphere 0.05": Style(BLUE, "dot", "circle-open"),
    "sphere 0.2": Style(BLUE, "dash", "square-open"),
    "sphere 1": Style(BLUE, "longdash", "diamond-open"),
    "Gaussian walk": Style(VERMILLION, "solid", "square"),
    "Laplace walk": Style(VERMILLION, "dash", "triangle-up"),
    "bilinear": Style(GREEN, "solid", "diamond"),
    "separable": Style(GREEN, "dash", "cross"),
    "label nats": charts.STYLES["label"],
    "instance nats": charts.STYLES["instance"],
    "evidence − C": charts.STYLES["log evidence − C"],
    "probe of z": charts.STYLES["MI"],
    "probe of features": Style(ORANGE, "dash", "x"),
}
FALLBACK = tuple(
    Style(color, dash, symbol)
    for color, dash, symbol in (
        (PURPLE, "solid", "circle"),
        (BLUE, "dash", "square"),
        (VERMILLION, "dot", "diamond"),
        (GREEN, "dashdot", "triangle-up"),
        (ORANGE, "longdash", "x"),
        (SKY, "solid", "cross"),
        (GREY, "dash", "star"),
    )
)


@cache
def _rows() -> tuple[dict[str, Any], ...]:
    with open(Path(__file__).with_name("study.csv"), newline="", encoding="utf-8") as file:
        rows: list[dict[str, Any]] = [
            {name: _value(text) for name, text in row.items()} for row in csv.DictReader(file)
        ]
    for row in rows:
        row["instance"] = row["tuned"] - row["nats of class"] if row["nats of class"] != "" else ""  # (E24)
    return tuple(rows)


def _value(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def values(name: str, by: Sequence[str], **where: str | float | Sequence) -> dict:
    """A column of the study, of the rows that `where` describes (a value, or several): for each value of the columns `by`
    an array with one number a seed.

    Example:
        >>> values("tuned", ["critic", "dim"], kind="clothes", dim=[2, 64])
    """
    found: dict = {}
    for row in _rows():
        if all(
            row[key] in (wanted if isinstance(wanted, (list, tuple)) else [wanted]) for key, wanted in where.items()
        ):
            key = tuple(row[column] for column in by)
            found.setdefault(key if len(by) > 1 else key[0], []).append(row[name])
    return {key: np.array(numbers) for key, numbers in found.items()}


def machines() -> list[str]:
    """What the rows were computed on, and how many of them each machine made."""
    found = Counter(row["machine"] for row in _rows() if row["step"] == row["steps"])
    return [f"{count} rows made on {machine}" for machine, count in found.items()]


def rank_correlation(of: Mapping, other: Mapping, *, within: bool = False) -> np.ndarray:
    """Spearman's, over all keys, one a seed; `within`: of the keys that share their last part, and of these the mean."""
    groups = (
        [[key for key in of if key[-1] == last] for last in dict.fromkeys(key[-1] for key in of)] if within else [[*of]]
    )
    found = []
    for keys in groups:
        one, two = (np.array([table[key] for key in keys]) for table in (of, other))
        found.append([spearmanr(a, b).statistic for a, b in zip(one.T, two.T)])
    return np.mean(found, axis=0)


def over_seeds(numbers: np.ndarray, digits: int = 2) -> str:
    """The mean, and in brackets the smallest and the largest."""
    return f"{np.mean(numbers):.{digits}f} ({np.min(numbers):.{digits}f} to {np.max(numbers):.{digits}f})"


def same_choice(every: Mapping, some: Mapping, keys: Sequence) -> np.ndarray:
    """Whether both choose the same of the keys, the one with the largest number: one a seed."""
    one, two = (np.array([table[key] for key in keys]).argmax(0) for table in (every, some))
    return one == two


def better_critic(columns: Mapping[str, Mapping], by: str) -> dict[str, dict]:
    """Of columns whose keys are (critic, what), for each of the latter the critic that has more in the column `by`."""
    best: dict = {}
    for critic, what in columns[by]:
        if what not in best or columns[by][critic, what].mean() > columns[by][best[what], what].mean():
            best[what] = critic
    return {"read by": best} | {title: {w: column[c, w] for w, c in best.items()} for title, column in columns.items()}


def table(columns: Mapping[str, Mapping[str, np.ndarray | str]], of: str) -> Markdown:
    """A row for each key of these columns, which is a critic or whatever `of` says: the mean over seeds, and in brackets the
    smallest and the largest."""
    lines = [[of, *columns], ["---"] * (1 + len(columns))]
    for key in next(iter(columns.values())):
        cells = (column[key] for column in columns.values())
        lines.append([key, *(cell if isinstance(cell, str) else over_seeds(cell) for cell in cells)])
    return Markdown("\n".join("| " + " | ".join(line) + " |" for line in lines))


def verdicts(found: Sequence[tuple[str, str, bool]]) -> Markdown:
    """Of each expectation what was found, and whether it was as expected."""
    lines = [f"| {said} | {number} | {'✓' if held else '✗'} |" for said, number, held in found]
    return Markdown("\n".join(["| expected | found | held |", "| --- | --- | --- |", *lines]))


def curves(
    panels: Mapping[str, Mapping[str, Mapping[float, np.ndarray]]],
    *,
    x_label: str,
    y_label: str | Sequence[str],
    caption: str,
) -> Figure:
    """Panels side by side of lines through the means over seeds, with bars from the smallest to the largest seed.

    Each panel has for each line the seeds' numbers at each x, which is on a logarithmic axis.
    """
    y_labels = [y_label] * len(panels) if isinstance(y_label, str) else y_label
    fig = house_figure(height=420, **panes(tuple(panels), 0.32 / len(panels)))
    fig.update_layout(legend={"orientation": "h", "y": -0.26}, margin_b=120)
    rows, seen = [], dict[str, Style]()
    for k, (panel, lines) in enumerate(panels.items(), start=1):
        axis = "" if k == 1 else str(k)
        x = np.array(sorted({at for line in lines.values() for at in line}))
        fig.layout[f"xaxis{axis}"].update(type="log", title=x_label, **log_ticks(x))
        fig.layout[f"yaxis{axis}"].update(
            title=y_labels[k - 1], matches="y" if isinstance(y_label, str) and k > 1 else None
        )
        for name, line in lines.items():
            new = name not in seen
            style = seen.setdefault(name, STYLES.get(name) or FALLBACK[len(seen) % len(FALLBACK)])
            means, low, high = (np.array([f(line[at]) for at in line]) for f in (np.mean, np.min, np.max))
            fig.add_scatter(
                x=list(line), y=means, name=name, legendgroup=name, showlegend=new, xaxis=f"x{axis}", yaxis=f"y{axis}",
                error_y={"array": high - means, "arrayminus": means - low, "thickness": 1}, mode="lines+markers",
                line={"color": style.color, "dash": style.dash}, marker={"symbol": style.symbol, "size": 7},
            )  # fmt: skip
            rows += [[panel, name, float(at), *map(float, three)] for at, three in zip(line, zip(means, low, high))]
    ends = "; ".join(f"{row[1]} in {row[0]} {row[3]:.3g} at {row[2]:g}" for row in rows)
    return Figure(
        fig,
        caption,
        f"Lines against {x_label}, means over seeds: {ends}.",
        ["panel", "line", x_label, "mean", "least", "most"],
        rows,
    )


def scatter(panels: Mapping[str, tuple[Mapping, Mapping]], *, x_label: str, y_label: str, caption: str) -> Figure:
    """Panels of an encoder a mark, at the means over seeds of two columns, whose keys are (critic, dimension); bars reach from
    the smallest to the largest seed, lines join the dimensions of a critic."""
    fig = house_figure(height=430, **panes(tuple(panels), 0.32 / len(panels)))
    fig.update_layout(legend={"orientation": "h", "y": -0.2}, margin_b=120)
    rows = []
    for k, (panel, (across, up)) in enumerate(panels.items(), start=1):
        axis = "" if k == 1 else str(k)
        fig.layout[f"xaxis{axis}"].update(title=x_label)
        fig.layout[f"yaxis{axis}"].update(title=y_label)
        for critic in dict.fromkeys(critic for critic, _ in across):
            keys, style = [key for key in across if key[0] == critic], STYLES[critic]
            x, y = (np.array([table[key] for key in keys]) for table in (across, up))
            fig.add_scatter(
                x=x.mean(1), y=y.mean(1), name=critic, legendgroup=critic, showlegend=k == 1, xaxis=f"x{axis}", yaxis=f"y{axis}",
                error_x=_bars(x), error_y=_bars(y), mode="lines+markers",
                line={"color": style.color, "dash": style.dash, "width": 1},
                marker={"symbol": style.symbol, "size": 5 + 1.5 * np.log2([dim for _, dim in keys])},
                text=[f"dimension {dim:.0f}" for _, dim in keys],
            )  # fmt: skip
            rows += [
                [panel, critic, int(dim), float(a), float(b)] for (_, dim), a, b in zip(keys, x.mean(1), y.mean(1))
            ]
    said = "; ".join(
        f"{row[1]}, {row[2]} dimensions: {row[3]:.3g}, {row[4]:.3g}" for row in rows[:: max(1, len(rows) // 12)]
    )
    return Figure(
        fig,
        caption,
        f"Marks of {y_label} against {x_label}: {said}.",
        ["panel", "critic", "dimension", x_label, y_label],
        rows,
    )


def _bars(numbers: np.ndarray) -> dict:
    means = numbers.mean(1)
    return {"array": numbers.max(1) - means, "arrayminus": means - numbers.min(1), "thickness": 1}
