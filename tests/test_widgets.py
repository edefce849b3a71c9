"""Every widget of the course, found by itself and driven as a reader does, kernel side; and the pattern."""

import base64
import dataclasses
import inspect
import json
import statistics
import time
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from budgets import exceeded
from residuals import MEASURED

from rpm_tutorial import FiniteRPM, datasets, lessons, priors
from rpm_tutorial.course.figures import Figure, dots
from rpm_tutorial.course.widgets import Explorer, Plot, choice, explore, slider, static_twin

PLOTLY = "application/vnd.plotly.v1+json"


def retrieval():
    generator = torch.Generator().manual_seed(0)
    z, step = torch.randn(2, 24, 3, generator=generator)
    x, x_prime = torch.rand(2, 24, 1, 5, 5, generator=generator)
    return lessons.lesson_04.retrieval(z, z + 0.3 * step, x, x_prime)


def proof():
    world = FiniteRPM.random(seed=2)
    log_f = torch.randn(world.q_joint.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return lessons.lesson_02.proof(world, priors.infonce(log_f, world.q_joint))


def unfolding():
    generator = torch.Generator().manual_seed(0)
    path = {100 * k: (torch.randn(9, 2, generator=generator), 1.0, 0.05 * k, 0.5) for k in range(13)}
    return lessons.lesson_07.unfolding({"random walk": path, "universal": path}, torch.arange(9.0))


def forecast():
    sequences = datasets.constant_velocity(24, frames=7, size=5, generator=torch.Generator().manual_seed(0))
    return lessons.lesson_09.forecast(3 * sequences.position + 1, sequences.position)


def restarts():
    generator = torch.Generator().manual_seed(0)
    evidence = 2.5 * torch.rand(21, 12, generator=generator).sort(0).values
    return lessons.lesson_10.restarts(evidence, torch.randint(1, 9, (21, 12, 10, 10), generator=generator))


def concentration():
    z, step = torch.randn(2, 24, 2, generator=torch.Generator().manual_seed(0))
    return lessons.lesson_11.concentration(
        {"wound once": (z, z + 0.3 * step), "folded": (z.abs(), (z + 0.3 * step).abs())}
    )


FACTORIES = {f.__name__: f for f in (retrieval, proof, unfolding, forecast, restarts, concentration)}


def renders() -> dict:
    """Every public function of a lesson's module: one argument annotated with a state, or a factory above."""
    modules = [getattr(lessons, lesson) for lesson in lessons.LESSONS]
    public = {
        name: f
        for module in modules
        for name, f in inspect.getmembers(module, inspect.isfunction)
        if f.__module__ == module.__name__ and not name.startswith("_")
    }
    return {name: FACTORIES[name]() if name in FACTORIES else f for name, f in public.items()}


RENDERS = renders()
each_render = pytest.mark.parametrize("name", RENDERS)


def drawn(figure: go.Figure | Plot) -> dict:
    """What a browser is shown, as plain lists: without the template."""
    shown = figure.children[0].outputs[0]["data"][PLOTLY] if isinstance(figure, Plot) else json.loads(figure.to_json())
    return plain({part: shown.get(part) for part in ("data", "layout")})


def plain(value):
    if isinstance(value, dict) and "bdata" in value:  # plotly's packed arrays
        array = np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"])
        shape = [int(n) for n in str(value.get("shape", len(array))).split(",")]
        return plain(array.reshape(shape).tolist())
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items() if key != "template"}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return None if value != value else value  # a gap: NaN in a packed array, null in a list


def places(control) -> list:
    """Both ends of a control and two places between."""
    values = [value for _, value in control.options]
    return [values[round(k * (len(values) - 1) / 3)] for k in range(4)]


def consistent(explorer: Explorer) -> None:
    expected = explorer.render.__wrapped__(explorer.state)
    assert drawn(explorer.plot) == drawn(expected.plotly)
    assert explorer.figure.alt == expected.alt and expected.alt in explorer.summary.value
    assert expected.caption in explorer.summary.value and "role='status'" in explorer.summary.value


@each_render
def test_a_control_changes_the_figure_and_its_summary(name):
    explorer = explore(RENDERS[name])
    consistent(explorer)
    for field, control in explorer.controls.items():
        seen = set()
        for value in places(control):
            control.value = value
            assert getattr(explorer.state, field) == value
            consistent(explorer)
            seen.add(explorer.summary.value)
        assert len(seen) > 1, f"the control {field!r} says nothing new"


@each_render
def test_reset_restores_the_first_state(name):
    explorer = explore(RENDERS[name])
    first = drawn(explorer.plot), explorer.summary.value
    for control in explorer.controls.values():
        control.value = next(value for value in places(control) if value != control.value)
    assert explorer.state != explorer.state_type() and (drawn(explorer.plot), explorer.summary.value) != first
    explorer.reset.click()
    assert explorer.state == explorer.state_type() and (drawn(explorer.plot), explorer.summary.value) == first


@pytest.mark.slow
@each_render
def test_all_settings_are_drawable(name):
    """Every value of every control, with the others at either end: no setting raises, none draws NaN."""
    render, state_type = RENDERS[name], explore(RENDERS[name]).state_type
    fields = dataclasses.fields(state_type)
    ends = [state_type(**{f.name: f.metadata["values"][end] for f in fields}) for end in (0, -1)]
    for state in ends:
        for field in fields:
            for value in field.metadata["values"]:
                assert "nan" not in render(dataclasses.replace(state, **{field.name: value})).alt.lower()


@each_render
def test_the_bundle_has_a_static_twin_beside_the_live_widget(name):
    explorer = explore(RENDERS[name])
    shown = explorer._repr_mimebundle_()
    assert {
        "application/vnd.jupyter.widget-view+json",
        PLOTLY,
        "text/plain",
    } <= set(shown)
    assert shown["text/plain"] == explorer.figure.alt
    json.dumps(shown[PLOTLY])


LOOKS = ("shapes", "annotations", "coloraxis")


@pytest.mark.slow
@each_render
def test_the_static_twin_shows_the_same_figures_as_the_widget(name):
    render, state_type = RENDERS[name], explore(RENDERS[name]).state_type
    first, default = dataclasses.fields(state_type)[0], state_type()
    twin = static_twin(render, state_type)
    (control,) = twin.plotly.layout.sliders
    assert first.metadata["label"] in control.currentvalue.prefix
    values = {str(v): v for v in first.metadata["values"]}
    labels = {v: label for label, v in first.metadata.get("options", {}).items()}
    for frame, step in zip(twin.plotly.frames, control.steps, strict=True):
        value = values[frame.name]
        assert step.method == "animate" and tuple(step.args[0]) == (frame.name,)
        assert step.label in (labels.get(value), f"{value:g}" if isinstance(value, float) else str(value))
        expected = drawn(render(dataclasses.replace(default, **{first.name: value})).plotly)
        found = drawn(go.Figure(data=frame.data, layout=frame.layout))
        assert found["data"] == expected["data"]
        assert all(found["layout"].get(part) == expected["layout"].get(part) for part in LOOKS)
    assert len(twin.plotly.frames) >= 5 and twin.plotly.frames[control.active].name == str(getattr(default, first.name))
    assert drawn(twin.plotly)["data"] == drawn(render(default).plotly)["data"] and twin.alt == render(default).alt


@each_render
def test_every_control_has_a_label_and_a_number_of_places(name):
    for field in dataclasses.fields(explore(RENDERS[name]).state_type):
        assert field.metadata["label"] and len(field.metadata["values"]) > 1
        assert field.default in field.metadata["values"]


@pytest.mark.slow
def test_an_update_takes_less_than_a_tenth_of_a_second():
    late = []
    for name, render in RENDERS.items():
        explorer, seconds = explore(render), []
        for control in explorer.controls.values():
            for value in (v for v in places(control) if v != control.value):
                start = time.process_time()
                control.value = value
                seconds.append(time.process_time() - start)
        median = statistics.median(seconds)
        MEASURED.append(f"widget {name}: median update {1e3 * median:.0f} ms, slowest {1e3 * max(seconds):.0f} ms")
        late += exceeded(f"half of the updates of {name}", median, 0.1)
    assert late == []


# The pattern


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


def test_a_state_seen_before_is_not_rendered_again():
    calls = []

    def counted(state: State) -> Figure:
        calls.append(state)
        return picture(state)

    explorer = Explorer(counted)
    for value in (1, 0.5, 1):
        explorer.controls["size"].value = value
    assert calls == [State(), State(size=1)]


def given(explorer: Explorer) -> tuple[dict, dict]:
    """The figure that a page is given when it is loaded, and the one sent to a page that hears."""
    drawing, changes = explorer.plot.children
    return plain(drawing.get_state()["outputs"][0]["data"][PLOTLY]["data"]), json.loads(changes.figure or "{}")


def test_a_page_is_given_the_figure_of_the_moment_whenever_it_comes():
    explorer, sent = Explorer(picture), []
    drawing, changes = explorer.plot.children
    drawing.observe(lambda change: sent.append(change.new), "outputs")
    for size, heard in ((1, False), (0.5, True), (0.25, True)):
        if heard and not changes.asked:  # as the first page does, once it has drawn
            changes.asked = 1.0
            changes.heard = changes.answered
        explorer.controls["size"].value = size
        now = drawn(picture(State(size=size)).plotly)["data"]
        loaded, changed = given(explorer)
        assert loaded == now and (plain(changed["data"]) == now if heard else changed == {})
    assert len(sent) == 1, "a page that hears draws nothing twice"
    changes.asked = 2.0  # another page, which has not heard yet
    explorer.controls["size"].value = 0.75
    assert len(sent) == 2


@dataclass
class Mutable:
    size: float = slider(0.5, 0, 1, 0.25, "size")


def unannotated(state):
    return picture(State())


def mutable(state: Mutable):
    return picture(State())


def of_two(state: State, other: int):
    return picture(State())


def of_a_number(state: int):
    return picture(State())


@pytest.mark.parametrize("render", [unannotated, mutable, of_two, of_a_number])
def test_a_render_without_a_state_is_refused(render):
    with pytest.raises(
        TypeError,
        match=f"{render.__name__} has the signature .*; expected one argument annotated with a frozen dataclass",
    ):
        explore(render)


@pytest.mark.parametrize("high, step, last", [(1, 0.3, 0.9), (1, 0.35, 0.7), (1, 0.1, 1.0), (2.4, 0.8, 2.4), (7, 2, 6)])
def test_a_slider_ends_at_its_last_step_and_never_beyond(high, step, last):
    values = slider(0, 0, high, step, "k").metadata["values"]
    assert values[-1] == pytest.approx(last) and values[0] == 0 and values[-1] <= high


@pytest.mark.parametrize("kind", [np.float64, np.float32, Fraction, torch.tensor])
def test_a_slider_takes_numbers_of_any_kind(kind):
    field = slider(*map(kind, (0.5, 0.0, 1.0, 0.25)), "size")
    state_type = dataclasses.make_dataclass("State", [("size", float, field)], frozen=True)

    def render(state) -> Figure:
        return dots({"size": state.size}, x_label="x", caption="Words.")

    render.__annotations__["state"] = state_type
    (control,) = Explorer(render).controls.values()
    assert control.value == 0.5 and type(control.value) is float


def test_a_default_between_two_steps_is_refused():
    with pytest.raises(ValueError, match="the default 0.3 of 'k' is no step; expected one, for example 0.25"):
        slider(0.3, 0, 1, 0.25, "k")
