"""The pattern of every widget: controls, a state, a pure render, and what a page has without a kernel; and it in every lesson."""

import base64
import dataclasses
import functools
import gzip
import html
import json
import re
import statistics
import time
from dataclasses import dataclass, make_dataclass
from fractions import Fraction
from itertools import product

import build_notebooks
import nbformat
import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from budgets import exceeded
from notebook_compare import figure_difference
from residuals import MEASURED
from test_lesson_widgets import RENDERS

from rpm_tutorial.course import _twins
from rpm_tutorial.course._stored import PLOTLY, STORED
from rpm_tutorial.course._twins import GRID, figure_at, grid, static_twin, unpacked
from rpm_tutorial.course.figures import Figure, bundle, dots, lines
from rpm_tutorial.course.widgets import Explorer, choice, explore, slider


@dataclass(frozen=True)
class State:
    size: float = slider(0.5, 0, 1, 0.25, "size", "nats")
    kind: str = choice({"plain": "p", "fancy": "f"}, "kind")
    count: int = slider(2, 1, 4, 1, "count")


def picture(state: State) -> Figure:
    return dots({"size": state.size, state.kind: float(state.count)}, x_label="x", caption="Words.")


def curves(state: State) -> Figure:
    """As many as the state says."""
    return lines([0, 1], {str(k): [k, 1] for k in range(state.count)}, x_label="x", y_label="y", caption="")


def test_a_state_becomes_controls_with_labels_and_units():
    explorer = explore(picture)
    assert explorer.state == State() == State(0.5, "p", 2)
    assert [c.description for c in explorer.controls.values()] == ["size (nats)", "kind", "count"]
    assert [v for _, v in explorer.controls["size"].options] == [0, 0.25, 0.5, 0.75, 1]
    assert [v for _, v in explorer.controls["count"].options] == [1, 2, 3, 4]
    assert list(explorer.controls["kind"].options) == [("plain", "p"), ("fancy", "f")]


@pytest.mark.parametrize("high, step, last", [(1, 0.35, 0.7), (1, 0.1, 1.0), (2.4, 0.8, 2.4)])
def test_a_slider_ends_at_its_last_step_and_never_beyond(high, step, last):
    values = slider(0, 0, high, step, "k").metadata["values"]
    assert values[-1] == pytest.approx(last) and values[0] == 0 and values[-1] <= high


@pytest.mark.parametrize("kind", [np.float32, Fraction, torch.tensor])
def test_a_slider_takes_numbers_of_any_kind(kind):
    made = slider(*map(kind, (0.5, 0.0, 1.0, 0.25)), "size")
    assert made.metadata["values"] == (0, 0.25, 0.5, 0.75, 1) and made.default == 0.5 and type(made.default) is float


def test_the_bundle_has_a_static_twin_beside_the_live_widget_and_in_a_build_all_settings(monkeypatch):
    shown = Explorer(picture)._repr_mimebundle_()
    assert set(shown) == {"application/vnd.jupyter.widget-view+json", PLOTLY, "text/plain"}
    assert shown["text/plain"] == picture(State()).alt and shown[PLOTLY]["layout"]["sliders"]
    monkeypatch.setenv(STORED, "1")
    assert Explorer(picture)._repr_mimebundle_()[GRID] == grid(picture, State)
    assert build_notebooks.KERNEL_ENVIRONMENT[STORED] == "1"


def test_a_page_is_given_the_figure_of_the_moment_whenever_it_comes(monkeypatch):
    explorer, sent, written, to_json = Explorer(picture), [], [], go.Figure.to_json
    drawing, changes = explorer.plot.children
    drawing.observe(lambda change: sent.append(change.new), "outputs")
    for size, heard in ((1, False), (0.5, True), (0.25, True)):
        if heard and not changes.asked:  # as the first page does, once it has drawn
            changes.asked = 1.0
            changes.heard = changes.answered
        with monkeypatch.context() as patched:
            patched.setattr(go.Figure, "to_json", lambda figure: written.append(figure) or to_json(figure))
            explorer.controls["size"].value = size
        now = bundle(picture(State(size=size)))
        assert drawing.get_state()["outputs"][0]["data"] == now
        assert changes.figure == "" if not heard else json.loads(changes.figure) == now[PLOTLY]
    assert len(sent) == 1, "a page that hears draws nothing twice"
    assert len(written) == 3, "each figure is serialised once"
    changes.asked = 2.0  # another page, which has not heard yet
    explorer.controls["size"].value = 0.75
    assert len(sent) == 2


REFUSED = [
    (lambda: slider(0.3, 0, 1, 0.25, "k"), ValueError, "default 0.3 of 'k' is no step; expected one, for example 0.25"),
    (lambda: explore(lambda state: None), TypeError, "has the signature .*; expected one argument annotated with"),
] + [
    (
        lambda field=field: grid(picture, make_dataclass("Few", [("size", int, field)], frozen=True)),
        ValueError,
        r"figures of \d settings take \d+ characters.*at most 10; remedy: fewer",
    )
    for field in (choice([1, 2], "k"), slider(1, 0, 2, 1, "k"))
]


@pytest.mark.parametrize("call, error, message", REFUSED)
def test_what_makes_no_widget_is_refused(call, error, message, monkeypatch):
    monkeypatch.setattr(_twins, "LARGEST", 10)
    monkeypatch.setitem(globals(), "picture", lambda state: dots({"a": 1.0}, x_label="x", caption=""))
    with pytest.raises(error, match=message):
        call()


def test_too_large_a_grid_keeps_every_second_value_of_its_longest_slider_and_its_start(monkeypatch):
    packed = grid(picture, State)
    assert [len(control["values"]) for control in unpacked(packed)["controls"]] == [5, 2, 4]
    monkeypatch.setattr(_twins, "LARGEST", len(packed) - 1)
    made = unpacked(grid(picture, State))
    kept = [["0", "0.5", "1"], ["plain", "fancy"], ["1", "2", "3", "4"]]
    assert [control["values"] for control in made["controls"]] == kept
    assert [control["start"] for control in made["controls"]] == [1, 0, 1]
    for setting in product(*(range(len(values)) for values in kept)):
        size, kind, count = (values[k] for values, k in zip(kept, setting))
        shown = figure_at(made, setting)["data"][0]
        assert shown["x"] == [float(size), int(count)] and shown["y"] == ["size", kind[0]]
    monkeypatch.setattr(_twins, "LARGEST", len(grid(picture, State)) - 1)
    assert [control["values"] for control in unpacked(grid(picture, State))["controls"]] == [*kept[:2], ["2", "4"]]


def test_a_grid_is_json_that_a_browser_reads_and_only_markers_have_sizes_in_tenths():
    x, size = np.array([1.0, np.inf, -np.inf, np.nan]), np.array([6.26, 3.0, 3.0, 3.0])

    def render(state: State) -> Figure:
        figure = go.Figure(go.Scatter(x=x, y=x, marker_size=size), {"font_size": 12.34})
        figure.add_histogram(x=[0.5], xbins={"start": 0, "end": 1, "size": 0.125})
        return Figure(figure, "", "", (), ())

    text = gzip.decompress(base64.b64decode(grid(render, State))).decode()
    json.loads(text, parse_constant=lambda name: pytest.fail(name))
    drawn = figure_at(json.loads(text), [0, 0, 0])
    points, bars = drawn["data"]
    assert points["x"] == [1, None, None, None] and points["marker"]["size"] == [6.3, 3, 3, 3]
    assert bars["xbins"]["size"] == 0.125 and drawn["layout"]["font"]["size"] == 12.34


def test_a_setting_with_fewer_traces_shows_no_others():
    made = unpacked(grid(curves, State))
    for count in range(4):
        assert [trace["name"] for trace in figure_at(made, [0, 0, count])["data"]] == ["0", "1", "2", "3"][: count + 1]
    counts = make_dataclass("Counts", [("count", int, slider(2, 1, 4, 1, "count"))], frozen=True)
    twin = static_twin(curves, counts).plotly
    assert [trace.visible for trace in twin.data] == [None, None, False, False]
    for count, frame in enumerate(twin.frames, 1):
        shown = [{**base.to_plotly_json(), **new.to_plotly_json()} for base, new in zip(twin.data, frame.data)]
        assert [trace["name"] for trace in shown if trace.get("visible", True)] == ["0", "1", "2", "3"][:count]


# Every widget of the course

each_render = pytest.mark.parametrize("name", RENDERS)


def shown(explorer: Explorer) -> tuple[dict, str]:
    """What a page is given: the figure, and its words, which have to be those of the state."""
    expected = explorer.render(explorer.state)
    figure, words = explorer.plot.children[0].outputs[0]["data"], explorer.summary.value
    assert figure == bundle(expected) and "role='status'" in words
    assert {expected.alt, expected.caption} <= {html.unescape(text) for text in re.split(r"<[^>]*>", words)}
    return figure, words


@each_render
def test_a_control_at_its_ends_changes_figure_and_summary_and_reset_restores_them(name):
    explorer = explore(RENDERS[name])
    first = shown(explorer)
    for field, control in explorer.controls.items():
        seen = set()
        for _, value in (control.options[0], control.options[-1]):
            control.value = value
            assert getattr(explorer.state, field) == value
            seen.add(shown(explorer)[1])
        assert control.description and len(seen) == 2, f"the control {field!r} says nothing new"
    assert shown(explorer)[0] != first[0]
    explorer.reset.click()
    assert explorer.state == explorer.state_type() and shown(explorer) == first


def drawn(data) -> list[dict]:
    return json.loads(go.Figure(data).to_json())["data"]


@pytest.mark.slow
@each_render
def test_the_static_twin_shows_the_same_figures_as_the_widget(name):
    render, state_type = RENDERS[name], explore(RENDERS[name]).state_type
    first, default = dataclasses.fields(state_type)[0], state_type()
    twin = static_twin(render, state_type)
    (control,) = twin.plotly.layout.sliders
    assert first.metadata["label"] in control.currentvalue.prefix
    names = {str(value): label for label, value in first.metadata["options"]}
    values = {str(value): value for value in first.metadata["values"]}
    for frame, step in zip(twin.plotly.frames, control.steps, strict=True):
        assert step.method == "animate" and tuple(step.args[0]) == (frame.name,)
        assert step.label == (frame.name if first.metadata["menu"] else names[frame.name])
        expected = render(dataclasses.replace(default, **{first.name: values[frame.name]}))
        merged = [base | new for base, new in zip(drawn(twin.plotly.data), drawn(frame.data))]
        assert drawn(merged) == drawn(expected.plotly.data)
        assert frame.layout.title.text.replace("<br>", " ") == expected.caption
        for part in ("shapes", "annotations", "coloraxis"):
            assert frame.layout[part] == expected.plotly.layout[part]
    assert len(twin.plotly.frames) >= 5 and twin.plotly.frames[control.active].name == str(getattr(default, first.name))
    assert drawn(twin.plotly.data) == drawn(render(default).plotly.data) and twin.alt == render(default).alt


def few(state_type):
    """The state with four values or so of each control, the first setting among them."""
    fields = []
    for field in dataclasses.fields(state_type):
        values = field.metadata["values"]
        stride = -(-len(values) // 4)
        places = slice(values.index(field.default) % stride, None, stride)
        kept = {"values": values[places], "options": field.metadata["options"][places]}
        fields += [
            (field.name, field.type, dataclasses.field(default=field.default, metadata={**field.metadata, **kept}))
        ]
    return make_dataclass("Few", fields, frozen=True)


@pytest.mark.slow
@each_render
def test_without_a_kernel_a_page_shows_what_the_widget_shows(name):
    render, state_type = functools.cache(RENDERS[name]), few(explore(RENDERS[name]).state_type)
    fields, made = dataclasses.fields(state_type), unpacked(grid(render, state_type))
    controls = made["controls"]
    assert [control["label"] for control in controls] == [field.metadata["label"] for field in fields]
    options = [
        [dict(field.metadata["options"])[name] for name in control["values"]]
        for field, control in zip(fields, controls, strict=True)
    ]
    assert state_type(*(values[c["start"]] for values, c in zip(options, controls))) == state_type()
    for setting in product(*map(range, map(len, options))):
        live = render(state_type(*(values[k] for values, k in zip(options, setting))))
        expected = bundle(live)[PLOTLY] | {"caption": live.caption, "alt": live.alt}
        del expected["config"]
        expected["data"] = in_tenths(expected["data"])
        assert figure_difference(expected, figure_at(made, setting)) is None, setting


def in_tenths(traces: list[dict]) -> list[dict]:
    """The traces with their markers' sizes in tenths of a pixel: all that a page shows of them."""
    for trace in traces:
        if isinstance(sizes := trace.get("marker", {}).get("size"), list):
            trace["marker"]["size"] = [round(pixels, 1) for pixels in sizes]
    return traces


@pytest.mark.parametrize("notebook", sorted(build_notebooks.NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_stored_widget_has_its_settings_beside_its_twin(notebook):
    """The same run stored both: they agree wherever the twin's slider stops."""
    for data in build_notebooks.figures(nbformat.read(notebook, as_version=4)):
        if "sliders" not in data[PLOTLY]["layout"]:
            continue
        assert GRID in data, "remedy: make build"
        made, (twin,) = unpacked(data[GRID]), data[PLOTLY]["layout"]["sliders"]
        first, *others = made["controls"]
        names = [step["label"] for step in twin["steps"]] if first["menu"] else first["values"]
        frames = {frame["name"]: frame for frame in data[PLOTLY]["frames"]}
        both = [step for step in twin["steps"] if step["label"] in names]
        for step in both:
            shown = figure_at(made, [names.index(step["label"]), *(control["start"] for control in others)])
            frame = frames[step["args"][0][0]]
            drawn = [{**base, **new} for base, new in zip(data[PLOTLY]["data"], frame["data"], strict=True)]
            assert figure_difference(in_tenths(drawn), shown["data"]) is None
            assert frame["layout"]["title"]["text"].replace("<br>", " ") == shown["caption"]
        assert len(both) >= 4


@pytest.mark.slow
def test_every_setting_is_drawn_without_nan_and_in_less_than_a_tenth_of_a_second():
    late = []
    for name, render in RENDERS.items():
        explorer, seconds = explore(render), []
        for control in explorer.controls.values():
            for _, value in [*control.options, control.options[0]]:
                start = time.process_time()
                control.value = value
                seconds.append(time.process_time() - start)
                assert "nan" not in explorer.summary.value.lower(), explorer.state
        MEASURED.append(f"widget {name}: median update {1e3 * statistics.median(seconds):.0f} ms")
        late += exceeded(f"half of the updates of {name}", statistics.median(seconds), 0.1)
    assert late == []
