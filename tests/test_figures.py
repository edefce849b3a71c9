# ruff: noqa: E501 (its table is read across)
"""Figures: what a reader needs beside the picture, and styles that survive a grey printer."""

from itertools import combinations, pairwise

import numpy as np
import pytest

from rpm_tutorial import figures
from rpm_tutorial.course._stored import PLOTLY
from rpm_tutorial.course.figures import STYLES, bundle

X = [1, 2, 4, 8]
WORDS = {"caption": "A <b> & c."}
HISTORY = {
    "step": [0, 20, 40],
    "InfoNCE": [None, 1.5, 2.25],
    "held-out InfoNCE": [0.1, 1.25, 2.0],
    "label nats": [0.1, 0.75, 1.25],
    "instance nats": [0.0, 0.5, 0.75],
    "probe": [0.3, 0.6, 0.875],
}
LATENTS = np.random.default_rng(0).normal(size=(30, 3)) * (0.01, 5, 1)  # most along the second axis
FIGURES = {
    "lines": figures.lines(
        X, {"MI": [0.1, 0.2, 0.3, 0.45], "mine <new>": [0, 0.1, 0.2, 0.7]}, x_label="N", y_label="nats",
        ceiling=("log N", 0.9), mark=2, x_log=True, **WORDS,
    ),
    "dots": figures.dots({"MI": 0.1, "KL": 0.25, "other": -0.3}, x_label="nats", mark={"KL": "fails"}, **WORDS),
    "tables": figures.tables({"P": np.arange(6).reshape(2, 3) / 15, "Q": np.eye(4) / 4}, x_label=("z′", "x′"), y_label="z", **WORDS),
    "images": figures.images({"x": np.ones((1, 1, 5, 5)), "x′": np.zeros((3, 1, 5, 5))}, below={"x′": ["0.5 ✓", "0.3", "0.2"]}, **WORDS),
    "clouds": figures.clouds(
        {"z": ([[0, 0], [1, 0], [0, 2], [3, 1]], [0, 1, 0, 3]), "far": ([[0, 0], [1, 5], [2, 2], [3, 4]], [1, 2, 0, 3])},
        x_label="z₁", y_label="z₂", color_label="position", **WORDS,
    ),
    "paths": figures.paths(
        {"walk": ("Q", [(0.25, 0.5), (0.5, 0.5), (0.75, 0.125)]), "goal": ("P", [(0.5, 0.25)]), "ring": ("KL", [(0, 0), (0, 1), (1, 1), (0, 0)])},
        label="sides of the box", **WORDS,
    ),
    "training": figures.training(HISTORY, LATENTS, np.arange(30) % 10, steps=100),
}  # fmt: skip
ALT = {
    "lines": ["N, from 1 to 8", "nats", "MI from 0.1 to 0.45, highest 0.45", "mine <new> from 0 to 0.7", "log N from 0.9"],
    "dots": ["nats", "MI 0.1", "KL 0.25 (fails)", "other -0.3"],
    "tables": ["probability", "P (2×3), largest 0.333 at row 1, column 2", "Q (4×4), largest 0.25 at row 0, column 0"],
    "images": ["x, 1 images", "x′, 3 images (0.5 ✓, 0.3, 0.2)"],
    "clouds": ["position", "z, 4 points, whose place explains 100%", "far, 4 points, whose place explains 42%"],
    "paths": ["walk from row 0.25, column 0.5 to row 0.75, column 0.125", "goal at row 0.5, column 0.25", "ring around row 0.25, column 0.5"],
    "training": ["step 40 of 100", "InfoNCE 2.25 nats", "held-out InfoNCE 2 nats", "1.25 label nats and 0.75 instance nats", "accuracy 0.875", "30 latents"],
}  # fmt: skip
ROWS = {
    "lines": (["N", "MI", "mine <new>", "log N"], [2.0, 0.2, 0.1, 0.9]),
    "dots": (["", "nats"], ["KL", 0.25]),
    "tables": (["table", "row", 0, 1, 2, 3], ["P", 1, 0.2, 0.2667, 0.3333]),
    "images": (["row", "image", ""], ["x′", 1, "0.3"]),
    "clouds": (["panel (first points)", "z₁", "z₂", "position"], ["z", 3.0, 1.0, 3.0]),
    "paths": (["path", "point", "row", "column"], ["walk", 2, 0.75, 0.125]),
    "training": (list(HISTORY), [20, 1.5, 1.25, 0.75, 0.5, 0.6]),
}


each_kind = pytest.mark.parametrize("kind", FIGURES)
AXES = {"x_label": "x", "y_label": "y", "caption": ""}


@each_kind
def test_alt_text_and_table_are_computed_from_the_data(kind):
    figure, (columns, row) = FIGURES[kind], ROWS[kind]
    assert [text for text in ALT[kind] if text not in figure.alt] == [] and figure.alt.endswith(".")
    assert list(figure.columns) == columns and row in [list(r) for r in figure.rows]
    assert all(len(row) <= len(columns) for row in figure.rows)


@each_kind
def test_a_figure_displays_as_a_plot_with_words_and_then_its_caption_and_table(kind, monkeypatch):
    shown, figure = [], FIGURES[kind]
    monkeypatch.setattr(figures.charts, "publish_display_data", shown.append)
    figure._ipython_display_()
    plot, legend = shown
    assert plot == bundle(figure) and set(plot) == {PLOTLY, "text/plain"}
    assert plot[PLOTLY]["config"] == {"showSendToCloud": False}, "no button that uploads it"
    assert plot["text/plain"] == figure.alt and legend["text/plain"] == figure.caption
    assert legend["text/html"].count("<tr>") == 1 + len(figure.rows) and "<summary>" in legend["text/html"]
    assert ("<em>A &lt;b&gt; &amp; c.</em>" in legend["text/html"]) == (figure.caption == WORDS["caption"])


def test_colab_gets_a_page_of_its_own(monkeypatch):
    monkeypatch.setattr(figures.charts, "in_colab", lambda: True)
    shown = bundle(FIGURES["dots"])
    assert set(shown) == {"text/html", "text/plain"} and "plotly" in shown["text/html"]
    assert '"showSendToCloud": false' in shown["text/html"]


@pytest.mark.parametrize(
    ("x", "ticks"),
    [
        (2 ** np.arange(1, 11), "10 100 1\u202f000"),
        (np.geomspace(10**-1.5, 10**0.5, 13), "0.03 0.1 0.3 1 3"),
        (np.array([0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.3, 0.5, 1.0]), "0.03 0.1 0.3 1"),
        (np.linspace(2, 9, 15), "2 3 4 5 6 7 8 9"),
        (np.geomspace(1e-7, 1, 40), "10<sup>-7</sup> 10<sup>-6</sup> 10<sup>-5</sup> 10<sup>-4</sup> 0.001 0.01 0.1 1"),
        ((20, 80, 320, 1280), "20 80 320 1\u202f280"),
        *((x, None) for x in (np.linspace(1.01, 1.05, 30), np.full(3, 3.0), 1 + 1e-9 * np.arange(4))),
    ],
)
def test_a_logarithmic_axis_has_ticks_that_a_person_would_choose_or_else_plotlys_own(x, ticks):
    axis = figures.lines(x, {"MI": x}, x_log=True, **AXES).plotly.layout.xaxis
    assert axis.type == "log" and (axis.ticktext and " ".join(axis.ticktext)) == ticks
    assert ticks is None or len(axis.tickvals) == len(axis.ticktext) and min(axis.tickvals) > 0


FIVE = {"x": [0, 1], "curves": dict.fromkeys(["a", "b", "c", "d", "MI", "ceiling"], [1, 2])}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *(
            (
                {"x": [1, 2, bad], "curves": {"MI": [1, 2, 3]}, "x_log": True},
                f"an x above 0 for each point; found {said}; leave",
            )
            for bad, said in ((0, "0.0"), (-1, "-1.0"), (np.nan, "nan"))
        ),
        (FIVE, "5 curves have no style of their own: a, b, c, d, ceiling; expected at most 4"),
    ],
)
def test_what_cannot_be_drawn_or_told_apart_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        figures.lines(**call, **AXES)


def test_a_band_is_filled_behind_the_curves_and_a_stretch_is_shaded_and_both_are_said():
    band, shade = ([0, 0, 2], [2, 4, 4]), ("dark", 1.5, 3)
    figure = figures.lines([1, 2, 4], {"truth": [1, 2, 3]}, band=band, shade=shade, **AXES)
    lower, upper, truth = figure.plotly.data
    assert (list(lower.y), list(upper.y), upper.fill, truth.name) == ([0, 0, 2], [2, 4, 4], "tonexty", "truth")
    (shape,), names = figure.plotly.layout.shapes, [note.text for note in figure.plotly.layout.annotations]
    assert (shape.x0, shape.x1, shape.layer, names) == (1.5, 3, "below", ["truth", "dark"])
    assert figure.alt.endswith("truth from 1 to 3, highest 3; a band, widest at 2 with 4; dark from 1.5 to 3.")
    assert list(figure.columns) == ["x", "truth", "lower end", "upper end"] and list(figure.rows[1]) == [2, 2, 0, 4]


def test_quantities_keep_styles_that_differ_by_more_than_colour():
    for a, b in combinations(STYLES.values(), 2):  # two names of one quantity may share their style
        assert a == b or (a.dash, a.symbol) != (b.dash, b.symbol)
    for names in (("InfoNCE", "ELBO − C", "log evidence − C"), ("label", "instance", "InfoNCE")):
        assert len({STYLES[name].color for name in names}) == 3
    drawn = {trace.name: trace.line for kind in ("lines", "training") for trace in FIGURES[kind].plotly.data}
    for name, quantity in (("MI", "MI"), ("log N", "log N"), ("label nats", "label"), ("instance nats", "instance")):
        assert (drawn[name].color, drawn[name].dash) == (STYLES[quantity].color, STYLES[quantity].dash)


def test_curves_are_labelled_at_their_ends_and_a_level_line_stands_at_0():
    layout = FIGURES["lines"].plotly.layout
    assert [note.text.strip() for note in layout.annotations] == ["MI", "mine <new>", "log N"]
    assert layout.shapes[0].x0 == 2, "the mark"
    assert layout.yaxis.zeroline and FIGURES["dots"].plotly.layout.xaxis.zeroline
    curves = {name: [0, end] for name, end in (("a", 1.0), ("b", 1.001), ("c", 0.0), ("d", 1.0))}
    notes = figures.lines(X[:2], curves, **AXES).plotly.layout.annotations
    assert min(b - a for a, b in pairwise(sorted(note.y for note in notes))) > 0.05, "none covers another"


def test_a_curve_with_gaps_is_labelled_and_described_by_what_it_has():
    curves = {"MI": [0.5, np.nan, 0.25], "NWJ": [0.25, 0.125, np.nan]}
    figure = figures.lines([0, 1, 2], curves, **AXES)
    assert np.isfinite([note.y for note in figure.plotly.layout.annotations]).all()
    assert "MI from 0.5 to 0.25, highest 0.5; NWJ from 0.25 to 0.125" in figure.alt and "nan" not in figure.alt


def test_tables_share_one_scale_and_have_row_zero_at_the_top():
    figure = FIGURES["tables"].plotly
    assert {trace.coloraxis for trace in figure.data} == {"coloraxis"}
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0, pytest.approx(1 / 3))
    assert figure.layout.yaxis.autorange == figure.layout.yaxis2.autorange == "reversed"
    np.testing.assert_allclose(figure.data[0].z, np.arange(6).reshape(2, 3) / 15)


def test_paths_lie_in_the_plane_of_an_image_and_an_outline_has_no_points():
    figure = FIGURES["paths"]
    walk, goal, ring = figure.plotly.data
    assert (list(walk.x), list(walk.y)) == ([0.5, 0.5, 0.125], [0.25, 0.5, 0.75]), "columns go right, rows go down"
    assert figure.plotly.layout.yaxis.range == (1, 0), "row zero at the top"
    assert list(walk.text) == ["0", "1", "2"] and "text" in walk.mode and goal.mode == "lines+markers"
    assert ring.mode == "lines" and "ring" not in {row[0] for row in figure.rows}


def test_the_figure_of_a_training_holds_its_history_and_its_latents_by_class_in_the_plane_of_their_largest_spread():
    drawn = {trace.name: trace for trace in FIGURES["training"].plotly.data}
    cloud = drawn.pop(None)
    for name, trace in drawn.items():
        assert (list(trace.x), list(trace.y)) == (HISTORY["step"], HISTORY[name])
    assert drawn["probe"].yaxis == "y3" and drawn["InfoNCE"].yaxis in (None, "y")
    assert list(cloud.text) == [str(k % 10) for k in range(30)] and len(set(cloud.textfont.color)) == 7
    for found, axis in ((cloud.x, 1), (cloud.y, 2)):
        assert abs(np.corrcoef(found, LATENTS[:, axis])[0, 1]) > 0.99
    begun = figures.training({name: values[:1] for name, values in HISTORY.items()}, LATENTS, np.arange(30), steps=9)
    assert "step 0 of 9" in begun.alt and "InfoNCE unknown nats" in begun.alt and "nan" not in begun.alt.lower()
