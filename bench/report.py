"""results.md and results.svg from what was measured."""

import math
from pathlib import Path

import plotly.graph_objects as go
from contenders import CONTENDERS
from plotly.subplots import make_subplots

from rpm_tutorial.course.figures import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILLION

MODES = ("forward", "both")
COLOURS = (BLACK, BLUE, GREEN, PURPLE)  # ours solid and dark, the others dashed
OTHERS = (VERMILLION, ORANGE, GREY, BLUE, GREEN, PURPLE, BLACK)


def write(found: dict, folder: Path) -> None:
    rows = {(row["contender"], row["n"]): row for row in found["rows"]}
    sizes = sorted({n for _, n in rows})
    (folder / "results.md").write_text(page(found["machine"], rows, sizes), encoding="utf-8")
    plot(rows, sizes).write_image(folder / "results.svg", width=1000, height=430)


def limit(rows: dict, n: int, mode: str) -> float:
    """Seconds for N^2 entries at the rates of the same run: T = N^2 (products + exponential)."""
    rate = rows["limits", n]
    products = ("scores",) if mode == "forward" else ("scores", "d_q", "d_k")
    return n**2 * (sum(rate[p] for p in products) + rate["exp"]) * 1e-9


def page(machine: dict, rows: dict, sizes: list[int]) -> str:
    lines = [
        "# The evidence of a data set, measured",
        "",
        "Made by `make bench`. The task: the contrastive loss of N pairs of unit vectors, d = {dim}, temperature .1, float32, one "
        "thread. Seconds are medians over rounds in which the contenders take turns, each in a fresh process (once only what takes "
        "over 40 s); MiB is the peak "
        "above the inputs; errors are against float64, of I_N and (where the N x N matrix fits in float64) of the "
        "gradients' length.".format(**machine),
        "",
        "Machine: {processor} ({vectors}), {memory}; Python {python}, torch {torch}; {others}; {date}.".format(
            **machine
        ),
        "",
        "![Time and memory against N for each contender](results.svg)",
        "",
        "**The limit** is what the arithmetic costs on this machine, from rates measured in the same run on tiles that stay in "
        "the cache: one matrix product and one exponential per entry for the value, two more products for the gradients. "
        "A way that makes the table twice can't come nearer than about 1.4 with gradients.",
        "",
    ]
    for n in sizes:
        lines += table(rows, n)
    return "\n".join([*lines, *growth(rows, sizes), *notes()]) + "\n"


def table(rows: dict, n: int) -> list[str]:
    lines = [
        f"## N = {n}",
        "",
        "| | value, s | of the limit | MiB | with gradients, s | of the limit | MiB | error of value | of gradient |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
        f"| *the limit* | {limit(rows, n, 'forward'):.3g} | 1 | | {limit(rows, n, 'both'):.3g} | 1 | | | |",
    ]
    for key, who in CONTENDERS.items():
        row = rows.get((key, n))
        if row is None:
            continue
        name = f"**{who.name}**" if who.ours else who.name
        if "missing" in row:
            lines.append(f"| {name} | {row['missing']} | | | | | | | |")
            continue
        cells = []
        for mode in MODES:
            part = row[mode]
            of_limit = part["s"] / limit(rows, n, mode) / who.directions
            cells += [f"{part['s']:.3g}", f"{of_limit:.2f}", f"{part['mib']:.0f}"]
        errors = [f"{row['errors'][e]:.0e}" if e in row["errors"] else "" for e in ("value", "gradient")]
        lines.append(f"| {name} | {' | '.join([*cells, *errors])} |")
    return [*lines, ""]


def growth(rows: dict, sizes: list[int]) -> list[str]:
    """The exponent between the smallest N that fills the caches and the largest."""
    lines = [
        "## Growth",
        "",
        "Time as N to the power of, between the first and the last N from 8 000 at which it ran:",
        "",
    ]
    lines += ["| | value | with gradients | between |", "|---|--:|--:|---|"]
    for key, who in CONTENDERS.items():
        ran = [n for n in sizes if n >= 8000 and "forward" in rows.get((key, n), {})]
        if len(ran) > 1:
            first, last = ran[0], ran[-1]
            exponents = [
                math.log(rows[key, last][m]["s"] / rows[key, first][m]["s"]) / math.log(last / first) for m in MODES
            ]
            lines.append(f"| {who.name} | {exponents[0]:.2f} | {exponents[1]:.2f} | {first} and {last} |")
    return [*lines, ""]


def notes() -> list[str]:
    lines = ["## Who is who", ""]
    for who in CONTENDERS.values():
        tables = {1: "one N x N table", 2: "two directions", 4: "both views against both: four N x N tables"}
        lines.append(f"- {who.name}: {tables[who.directions]}{f'; {who.note}' if who.note else ''}.")
    return [*lines, "", "The ratio to the limit counts the tables that the contender has to make."]


def plot(rows: dict, sizes: list[int]) -> go.Figure:
    figure = make_subplots(1, 2, subplot_titles=("time, value and gradients (s)", "peak memory (MiB)"))
    colours = {True: iter(COLOURS), False: iter(OTHERS)}
    for symbol, (key, who) in enumerate(CONTENDERS.items()):
        ran = [n for n in sizes if "both" in rows.get((key, n), {})]
        line = {"width": 2, "color": next(colours[who.ours]), "dash": "solid" if who.ours else "dot"}
        for column, field in enumerate(("s", "mib"), 1):
            figure.add_scatter(
                x=ran,
                y=[max(rows[key, n]["both"][field], 1e-9 if field == "s" else 1) for n in ran],
                name=who.name,
                showlegend=column == 1,
                mode="lines+markers",
                marker={"symbol": symbol, "size": 9},
                line=line,
                row=1,
                col=column,
            )
    limits = [limit(rows, n, "both") for n in sizes]
    dashed = {"dash": "dash", "color": GREY}
    figure.add_scatter(x=sizes, y=limits, name="the machine's limit", mode="lines", line=dashed, row=1, col=1)
    figure.update_xaxes(type="log", title="N (pairs)", tickvals=sizes)
    figure.update_yaxes(type="log")
    figure.update_layout(template="plotly_white", margin={"t": 40, "b": 50, "l": 60, "r": 10})
    return figure
