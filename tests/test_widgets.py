"""Every widget of the course, found by itself and driven as a reader does, kernel side; and the pattern."""

import base64
import dataclasses
import functools
import gzip
import html
import inspect
import itertools
import json
import re
import statistics
import time
from dataclasses import dataclass, make_dataclass
from fractions import Fraction

import build_notebooks
import nbformat
import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from budgets import exceeded
from notebook_compare import figure_difference
from residuals import MEASURED

from rpm_tutorial import FiniteRPM, GaussianChain, datasets, lessons, priors
from rpm_tutorial.chain import Gaussian
from rpm_tutorial.course import _twins
from rpm_tutorial.course._stored import PLOTLY, STORED
from rpm_tutorial.course._twins import GRID, LARGEST, figure_at, grid, static_twin, unpacked
from rpm_tutorial.course.figures import Figure, bundle, dots, lines
from rpm_tutorial.course.widgets import Explorer, choice, explore, slider


def retrieval():
    generator = torch.Generator().manual_seed(0)
    z, step = torch.randn(2, 24, 3, generator=generator)
    x, x_prime = torch.rand(2, 24, 1, 5, 5, generator=generator)
    return lessons.lesson_05.retrieval(z, z + 0.3 * step, x, x_prime)


def proof():
    world = FiniteRPM.random(seed=2)
    log_f = torch.randn(world.q_joint.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return lessons.lesson_02.proof(world, priors.infonce(log_f, world.q_joint))


def unfolding():
    generator = torch.Generator().manual_seed(0)
    path = {100 * k: (torch.randn(9, 2, generator=generator), 1.0, 0.05 * k, 0.5) for k in range(13)}
    return lessons.lesson_08.unfolding({"random walk": path, "universal": path}, torch.arange(9.0))


def positions(frames: int):
    return datasets.constant_velocity(24, frames=frames, size=5, generator=torch.Generator().manual_seed(0)).position


def momentum():
    return lessons.lesson_10.momentum(3 * positions(3) + 1, positions(3))


def forecast():
    return lessons.lesson_11.forecast(3 * positions(7) + 1, positions(7))


def classes():
    tables = torch.rand(2, 3, 11, 6, 3, generator=torch.Generator().manual_seed(0))
    paths = [[[(0.05 * k, table) for k, table in enumerate(run)] for run in runs] for runs in tables]
    return lessons.lesson_13.classes(tables[0, 0, 0], dict(zip(("pairs", "triples"), paths)))


def hidden():
    chain = GaussianChain(torch.tensor([[0.9, 0.4], [-0.4, 0.9]]), learnable=False)
    u = chain.sample(20, 20, generator=torch.Generator().manual_seed(0))[..., :1]
    recognition = Gaussian(u, torch.full((20, 20, 1, 1), 0.01))
    return lessons.lesson_12.hidden(chain, recognition, torch.tensor([0.1, 0.5]), 0.5 + 0.1 * u[..., 0])


def restarts():
    generator = torch.Generator().manual_seed(0)
    evidence = 2.5 * torch.rand(21, 12, generator=generator).sort(0).values
    return lessons.lesson_14.restarts(evidence, torch.randint(1, 9, (21, 12, 10, 10), generator=generator))


def concentration():
    z, step = torch.randn(2, 24, 2, generator=torch.Generator().manual_seed(0))
    return lessons.lesson_16.concentration(
        {"wound once": (z, z + 0.3 * step), "folded": (z.abs(), (z + 0.3 * step).abs())}
    )


FACTORIES = {
    f.__name__: f for f in (retrieval, proof, unfolding, momentum, forecast, classes, hidden, restarts, concentration)
}


def renders() -> dict:
    """Every public function of a lesson's module that draws: one argument annotated with a state, or a factory above."""
    modules = [getattr(lessons, lesson) for lesson in lessons.LESSONS]
    public = {
        name: f
        for module in modules
        for name, f in inspect.getmembers(module, inspect.isfunction)
        if f.__module__ == module.__name__ and not name.startswith("_")
    }
    drawing = {name: f for name, f in public.items() if "Tensor" not in str(f.__annotations__.get("return"))}
    return {name: FACTORIES[name]() if name in FACTORIES else f for name, f in drawing.items()}


RENDERS = renders()
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
        assert control.description and control.options[0] != control.options[-1]
        seen = set()
        for _, value in (control.options[0], control.options[-1]):
            control.value = value
            assert getattr(explorer.state, field) == value
            seen.add(shown(explorer)[1])
        assert len(seen) == 2, f"the control {field!r} says nothing new"
    assert shown(explorer)[0] != first[0]
    explorer.reset.click()
    assert explorer.state == explorer.state_type() and shown(explorer) == first


def json_of(data) -> list[dict]:
    return json.loads(go.Figure(data).to_json())["data"]


def traces(data) -> str:
    return go.Figure(data).to_json()


@pytest.mark.slow
@each_render
def test_the_static_twin_shows_the_same_figures_as_the_widget(name):
    render, state_type = RENDERS[name], explore(RENDERS[name]).state_type
    first, default = dataclasses.fields(state_type)[0], state_type()
    twin = static_twin(render, state_type)
    (control,) = twin.plotly.layout.sliders
    assert first.metadata["label"] in control.currentvalue.prefix
    values = {str(v): v for v in first.metadata["values"]}
    for frame, step in zip(twin.plotly.frames, control.steps, strict=True):
        value = values[frame.name]
        assert step.method == "animate" and tuple(step.args[0]) == (frame.name,)
        assert step.label == (f"{value:g}" if isinstance(value, float) else str(value))
        expected = render(dataclasses.replace(default, **{first.name: value})).plotly
        assert traces([{**base, **new} for base, new in zip(*map(json_of, (twin.plotly.data, frame.data)))]) == traces(
            expected.data
        )
        for part in ("shapes", "annotations", "coloraxis"):
            assert frame.layout[part] == expected.layout[part]
    assert len(twin.plotly.frames) >= 5 and twin.plotly.frames[control.active].name == str(getattr(default, first.name))
    assert traces(twin.plotly.data) == traces(render(default).plotly.data) and twin.alt == render(default).alt


def settings(state_type, made: dict):
    """Each setting that a grid has: the places of its controls, and the state."""
    options = [dict(field.metadata["options"]) for field in dataclasses.fields(state_type)]
    for setting in itertools.product(*(range(len(control["values"])) for control in made["controls"])):
        names = [control["values"][k] for control, k in zip(made["controls"], setting)]
        yield setting, state_type(*(values[name] for values, name in zip(options, names, strict=True)))


def in_tenths(data: list[dict]) -> list[dict]:
    """The traces, each marker's size in tenths of a pixel: all that a page shows of it."""
    sizes = [trace.get("marker", {}).get("size") for trace in data]
    return [
        trace | {"marker": trace["marker"] | {"size": [round(pixels, 1) for pixels in size]}}
        if isinstance(size, list)
        else trace
        for trace, size in zip(data, sizes)
    ]


@pytest.mark.slow
@each_render
def test_without_a_kernel_a_page_shows_what_the_widget_shows_at_every_setting(name):
    render, state_type = functools.cache(RENDERS[name]), explore(RENDERS[name]).state_type
    packed = grid(render, state_type)
    made, differ = unpacked(packed), []
    labels = [field.metadata["label"] for field in dataclasses.fields(state_type)]
    assert [control["label"] for control in made["controls"]] == labels
    for setting, state in settings(state_type, made):
        live, shown = render(state), figure_at(made, setting)
        assert (shown.pop("caption"), shown.pop("alt")) == (live.caption, live.alt)
        expected = {key: value for key, value in bundle(live)[PLOTLY].items() if key != "config"}
        found = figure_difference(expected | {"data": in_tenths(expected["data"])}, shown)
        differ += [f"{state}: {found}"] if found else []
    assert differ == [] and len(packed) <= LARGEST
    start = [control["start"] for control in made["controls"]]
    assert dict(settings(state_type, made))[tuple(start)] == state_type()
    MEASURED.append(f"widget {name}: {len(list(settings(state_type, made)))} settings in {len(packed) / 1e3:.0f} kB")


@pytest.mark.parametrize("notebook", sorted(build_notebooks.NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_stored_widget_has_its_settings_beside_its_twin(notebook):
    """The same run stored both: they agree wherever the twin's slider stops."""
    for data in build_notebooks.figures(nbformat.read(notebook, as_version=4)):
        if "sliders" in data[PLOTLY]["layout"]:
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


def test_too_large_a_grid_keeps_every_second_value_of_its_longest_slider_and_its_start(monkeypatch):
    whole = unpacked(grid(picture, State))
    assert [len(control["values"]) for control in whole["controls"]] == [5, 2, 4]
    monkeypatch.setattr(_twins, "LARGEST", len(grid(picture, State)) - 1)
    made = unpacked(grid(picture, State))
    assert [control["values"] for control in made["controls"]] == [
        ["0", "0.5", "1"],
        ["plain", "fancy"],
        ["1", "2", "3", "4"],
    ]
    assert [control["start"] for control in made["controls"]] == [1, 0, 1]
    for setting, state in settings(State, made):
        assert figure_at(made, setting)["caption"] == picture(state).caption
        assert figure_at(made, setting)["data"][0]["x"] == [state.size, state.count]


@pytest.mark.parametrize(
    "state_type",
    [
        make_dataclass("Menus", [("kind", str, choice(["a", "b"], "kind"))], frozen=True),
        make_dataclass("Three", [("size", int, slider(1, 0, 2, 1, "size"))], frozen=True),
    ],
)
def test_too_large_a_grid_with_no_slider_to_thin_is_refused(state_type, monkeypatch):
    monkeypatch.setattr(_twins, "LARGEST", 10)
    with pytest.raises(ValueError, match=r"figures of \d settings take \d+ characters.*at most 10; remedy: fewer"):
        grid(lambda state: dots({"a": 1.0}, x_label="x", caption="Words."), state_type)


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


def test_a_static_twin_hides_the_traces_that_a_frame_lacks():
    counts = make_dataclass("Counts", [("count", int, slider(2, 1, 4, 1, "count"))], frozen=True)

    def render(state) -> Figure:
        return lines([0, 1], {str(k): [k, 1] for k in range(state.count)}, x_label="x", y_label="y", caption="")

    twin = static_twin(render, counts).plotly
    assert [trace.visible for trace in twin.data] == [None, None, False, False]
    for count, frame in enumerate(twin.frames, 1):
        assert [trace.visible for trace in frame.data] == [True] * count + [False] * (4 - count)
        assert [trace.name for trace in frame.data[:count]] == [str(k) for k in range(count)]


def test_what_settings_do_not_share_is_left_out_where_it_is_absent():
    def render(state: State) -> Figure:
        return lines([0, 1], {str(k): [0, k] for k in range(state.count)}, x_label="x", y_label="y", caption="")

    made = unpacked(grid(render, State))
    drawn = {state.count: [line["name"] for line in figure_at(made, k)["data"]] for k, state in settings(State, made)}
    assert drawn == {1: ["0"], 2: ["0", "1"], 3: ["0", "1", "2"], 4: ["0", "1", "2", "3"]}


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


@dataclass(frozen=True)
class State:
    size: float = slider(0.5, 0, 1, 0.25, "size", "nats")
    kind: str = choice({"plain": "p", "fancy": "f"}, "kind")
    count: int = slider(2, 1, 4, 1, "count")


def picture(state: State) -> Figure:
    return dots({"size": state.size, state.kind: float(state.count)}, x_label="x", caption="Words.")


def test_a_state_becomes_controls_with_labels_and_units():
    explorer = Explorer(picture)
    assert explorer.state == State() == State(0.5, "p", 2)
    assert [c.description for c in explorer.controls.values()] == ["size (nats)", "kind", "count"]
    assert [v for _, v in explorer.controls["size"].options] == [0, 0.25, 0.5, 0.75, 1]
    assert [v for _, v in explorer.controls["count"].options] == [1, 2, 3, 4]
    assert list(explorer.controls["kind"].options) == [("plain", "p"), ("fancy", "f")]


def test_the_bundle_has_a_static_twin_beside_the_live_widget():
    shown = Explorer(picture)._repr_mimebundle_()
    assert set(shown) == {"application/vnd.jupyter.widget-view+json", PLOTLY, "text/plain"}
    assert shown["text/plain"] == picture(State()).alt and shown[PLOTLY]["layout"]["sliders"]


def test_a_build_stores_the_figures_of_all_settings_too(monkeypatch):
    monkeypatch.setenv(STORED, "1")
    assert Explorer(picture)._repr_mimebundle_()[GRID] == grid(picture, State)
    assert build_notebooks.KERNEL_ENVIRONMENT[STORED] == "1"


def test_a_page_is_given_the_figure_of_the_moment_whenever_it_comes():
    explorer, sent = Explorer(picture), []
    drawing, changes = explorer.plot.children
    drawing.observe(lambda change: sent.append(change.new), "outputs")
    for size, heard in ((1, False), (0.5, True), (0.25, True)):
        if heard and not changes.asked:  # as the first page does, once it has drawn
            changes.asked = 1.0
            changes.heard = changes.answered
        explorer.controls["size"].value = size
        now = bundle(picture(State(size=size)))
        assert drawing.get_state()["outputs"][0]["data"] == now
        assert changes.figure == "" if not heard else json.loads(changes.figure) == now[PLOTLY]
    assert len(sent) == 1, "a page that hears draws nothing twice"
    changes.asked = 2.0  # another page, which has not heard yet
    explorer.controls["size"].value = 0.75
    assert len(sent) == 2


def test_a_figure_that_changes_is_serialised_once(monkeypatch):
    explorer, calls, to_json = Explorer(picture), [], go.Figure.to_json
    monkeypatch.setattr(go.Figure, "to_json", lambda figure: calls.append(figure) or to_json(figure))
    changes = explorer.plot.children[1]
    changes.asked = changes.answered = changes.heard = 1.0
    explorer.controls["size"].value = 1
    assert len(calls) == 1 and json.loads(changes.figure)["data"][0]["x"][0] == 1


def test_a_render_without_a_state_is_refused():
    with pytest.raises(TypeError, match="has the signature .*; expected one argument annotated with"):
        explore(lambda state: picture(State()))


@pytest.mark.parametrize("high, step, last", [(1, 0.35, 0.7), (1, 0.1, 1.0), (2.4, 0.8, 2.4)])
def test_a_slider_ends_at_its_last_step_and_never_beyond(high, step, last):
    values = slider(0, 0, high, step, "k").metadata["values"]
    assert values[-1] == pytest.approx(last) and values[0] == 0 and values[-1] <= high


@pytest.mark.parametrize("kind", [np.float32, Fraction, torch.tensor])
def test_a_slider_takes_numbers_of_any_kind(kind):
    field = slider(*map(kind, (0.5, 0.0, 1.0, 0.25)), "size")
    state_type = dataclasses.make_dataclass("State", [("size", float, field)], frozen=True)

    def render(state) -> Figure:
        return dots({"size": state.size}, x_label="x", caption="Words.")

    render.__annotations__["state"] = state_type
    (control,) = Explorer(render).controls.values()
    assert control.value == 0.5 and type(control.value) is float
