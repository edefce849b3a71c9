"""The figure of a prior on the circle: which z' it expects for one z, and what each concentration earns."""

from collections.abc import Mapping, Sequence

import numpy as np

from .figures import BLACK, BLUE, GREY, PURPLE, STYLES, VERMILLION, Figure, _figure, _panes, _say


def circle(
    angles: Sequence[float],
    p: Sequence[float],
    *,
    own: float,
    partner: float,
    kappas: Sequence[float],
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
    fig.add_scatter(x=np.cos(turn), y=np.sin(turn), mode="lines", line={"color": GREY, "width": 1}, showlegend=False)
    fig.add_scatter(
        x=np.cos(angles), y=np.sin(angles), mode="markers", showlegend=False,
        marker={"color": BLUE, "opacity": 0.5, "size": 2 + 22 * np.sqrt(p / p.max())},
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
            x=kappas, y=values, mode="lines", line=look, xaxis="x2", yaxis="y2", name=name, showlegend=False
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
