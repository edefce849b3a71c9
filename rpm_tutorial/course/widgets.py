"""One pattern for every widget: controls -> an immutable state -> a pure `render(state) -> Figure` -> the display.

A state is a frozen dataclass whose fields are made by `slider` and `choice`; `explore(render)` finds it in the
annotation of render's argument. There is no mathematics here.
"""

import dataclasses
import functools
import html
import inspect
import json
import os

import anywidget
import ipywidgets
import traitlets

from .._checks import check_number
from ._stored import PLOTLY, STORED
from ._twins import GRID, grid, static_twin
from .figures import Figure, bundle, plotly_json


def slider(default: float, low: float, high: float, step: float, label: str, unit: str = ""):
    """A field of a state that a slider sets; `unit` is shown beside its value."""
    named = (("default", default), ("low", low), ("high", high), ("step", step))
    default, low, high, step = (check_number(name, value) for name, value in named)
    values = _steps(low, high, step)
    nearest = min(values, key=lambda value: abs(value - default))
    if abs(nearest - default) > 1e-6 * step:
        raise ValueError(f"the default {default} of {label!r} is no step; expected one, for example {nearest}")
    shown = f"{label} ({unit})" if unit else label
    metadata = {"values": values, "options": [(f"{v:g}", v) for v in values], "label": shown, "menu": False}
    return dataclasses.field(default=nearest, metadata=metadata)


def choice(options: dict[str, str] | dict[str, int] | list[str], label: str):
    """A field of a state that a menu sets: a list of values, or a dict from what is shown to the value; the first is default."""
    options = options if isinstance(options, dict) else {str(o): o for o in options}
    values = tuple(options.values())
    metadata = {"values": values, "options": list(options.items()), "label": label, "menu": True}
    return dataclasses.field(default=values[0], metadata=metadata)


class Explorer(ipywidgets.VBox):
    """The live widget: a control per field of the state, a reset, the figure, and its summary in words, updated with it.

    `.state` is the state shown, `.figure` the `Figure` that `render` made of it. Everything works from the keyboard.
    Where no kernel answers (GitHub, print), the static twin is shown instead; for the site, a build stores the figures of all
    settings beside it.
    """

    def __init__(self, render):
        self.render = functools.lru_cache(maxsize=256)(render)  # states are hashable: a value seen once is kept
        self.state_type = _state_type(render)
        self.controls = {f.name: _control(f) for f in dataclasses.fields(self.state_type)}
        self.reset = ipywidgets.Button(description="Reset", tooltip="Back to the first settings")
        self.summary = ipywidgets.HTML()
        self.figure = self.render(self.state)
        self.plot = Plot(self.figure)
        self._say()
        for control in self.controls.values():
            control.observe(self._update, "value")
        self.reset.on_click(self._reset)
        controls = ipywidgets.VBox([*self.controls.values(), self.reset, Accessibility()])
        super().__init__([controls, self.plot, self.summary])
        self.add_class("rpm-explorer")

    @property
    def state(self):
        return self.state_type(**{name: control.value for name, control in self.controls.items()})

    def _update(self, _change=None) -> None:
        self.figure = self.render(self.state)
        self.plot.show(self.figure)
        self._say()

    def _reset(self, _button) -> None:
        for field in dataclasses.fields(self.state_type):
            self.controls[field.name].value = field.default

    def _say(self) -> None:
        alt, caption = (html.escape(text, quote=False) for text in (self.figure.alt, self.figure.caption))
        self.summary.value = f"<div role='status'><p>{alt}</p><p><em>{caption}</em></p></div>"  # both are read out

    def _repr_mimebundle_(self, **kwargs):
        shown = live_and_still(self, static_twin(self.render, self.state_type))
        return shown | {GRID: grid(self.render, self.state_type)} if STORED in os.environ else shown


def live_and_still(live: ipywidgets.Widget, still: Figure) -> dict:
    """One MIME bundle of a widget, which ipywidgets 7 makes no bundle of, and of the figure to show where no kernel answers."""
    view = {"version_major": 2, "version_minor": 0, "model_id": live.model_id}
    return {"application/vnd.jupyter.widget-view+json": view, **bundle(still)}


class Plot(ipywidgets.Box):
    """A figure that the kernel changes: drawn by JupyterLab as it draws any figure, and from then on changed in its place.

    The whole figure is the state of an `Output`, so that a page whose plotly comes late, or that is loaded again, shows the
    figure of the moment. (Of plotly's FigureWidget a page that takes over two seconds misses every message.) But JupyterLab
    draws an `Output` from nothing each time, which takes longer than a slider may; so a page that has shown that it hears
    is sent the figure alone, and plotly changes what is different.
    """

    def __init__(self, figure: Figure):
        self._drawing, self._changes = _Drawing(), _Changes()
        self.show(figure)
        self._changes.observe(self._answer, "asked")
        super().__init__([self._drawing, self._changes])
        self.add_class("rpm-plot")

    def show(self, figure: Figure) -> None:
        """Put another figure in the place of the one shown."""
        self.figure = figure
        self._drawing.kept = self._changes.heard == self._changes.asked != 0
        shown = bundle(figure)
        self._drawing.outputs = ({"output_type": "display_data", "data": shown, "metadata": {}},)
        if self._drawing.kept:
            self._changes.figure = json.dumps(shown.get(PLOTLY) or plotly_json(figure))  # Colab's is a page

    def _answer(self, _change) -> None:
        """A page asks whether it hears; what it may have missed until now is sent again."""
        if self._drawing.kept:
            self._drawing.kept = False
            self._drawing.send_state("outputs")
        self._changes.answered = self._changes.asked


class _Drawing(ipywidgets.Output):
    """The figure as a page draws it first; while `kept`, a change waits for the next page."""

    kept = False

    def notify_change(self, change) -> None:
        if not (self.kept and change["name"] == "outputs"):
            super().notify_change(change)


class _Changes(anywidget.AnyWidget):
    """Later figures, for a page that has drawn one and that hears: it asks, is answered, and says that it has heard."""

    _esm = """
    export default { render({ model, el }) {
        el.hidden = true;
        const plot = () => el.closest('.rpm-plot').querySelector('.js-plotly-plot');
        const say = (name, value) => { model.set(name, value); model.save_changes(); };
        let mine = null;  // another page's question may be answered while this one listens
        const wait = setInterval(() => {
            if (!window.Plotly || !el.isConnected || !plot()) return;
            clearInterval(wait);
            mine = Date.now();
            say('asked', mine);
        }, 50);
        const hear = () => { if (model.get('answered') === mine) say('heard', mine); };
        const draw = () => {
            const { data, layout, config } = JSON.parse(model.get('figure'));
            window.Plotly.react(plot(), data, layout, config);
        };
        model.on('change:answered', hear);
        model.on('change:figure', draw);
        return () => { clearInterval(wait); model.off('change:answered', hear); model.off('change:figure', draw); };
    } };
    """
    figure = traitlets.Unicode().tag(sync=True)
    asked = traitlets.Float().tag(sync=True)
    answered = traitlets.Float().tag(sync=True)
    heard = traitlets.Float().tag(sync=True)


class Accessibility(anywidget.AnyWidget):
    """Mends what ipywidgets and JupyterLab leave undone, for the box of controls that it is in.

    Each slider gets a name and a value in words for screen readers; arrow keys and Enter stay with the control that has
    the focus: JupyterLab would take them to move between its cells.
    """

    _esm = """
    export default { render({ el }) {
        el.hidden = true;
        const say = (handle, key, text) => handle.getAttribute(key) === text || handle.setAttribute(key, text);
        const name = box => {
            for (const slider of box.querySelectorAll('.widget-slider')) {
                const [handle, label, value] = ['.noUi-handle', '.widget-label', '.widget-readout'].map(
                    part => slider.querySelector(part));
                if (handle) {
                    say(handle, 'aria-label', label.textContent);
                    say(handle, 'aria-valuetext', value.textContent);
                }
            }
        };
        const watch = new MutationObserver(() => name(el.closest('.widget-vbox')));
        const wait = setInterval(() => {
            if (!el.isConnected) return;
            clearInterval(wait);
            const box = el.closest('.widget-vbox'), widget = box.parentElement.closest('.widget-vbox') ?? box;
            widget.addEventListener('focusin', ({ target }) => { target.dataset.lmSuppressShortcuts = 'true'; });
            watch.observe(box, { subtree: true, childList: true, characterData: true, attributeFilter: ['aria-valuetext'] });
            name(box);
        }, 50);
        return () => { clearInterval(wait); watch.disconnect(); };
    } };
    """


def explore(render) -> Explorer:
    """The live widget of a pure function `render(state) -> Figure`, whose argument is annotated with its state.

    Raises `TypeError` if the annotation is missing or is no frozen dataclass of sliders and choices.
    """
    return Explorer(render)


def _state_type(render):
    parameters = list(inspect.signature(render, eval_str=True).parameters.values())
    state_type = parameters[0].annotation if len(parameters) == 1 else None
    if not (dataclasses.is_dataclass(state_type) and state_type.__dataclass_params__.frozen):
        expected = (
            "one argument annotated with a frozen dataclass, whose fields are made by slider(...) and choice(...)"
        )
        raise TypeError(f"{render.__name__} has the signature {inspect.signature(render)}; expected {expected}")
    return state_type


def _control(field: dataclasses.Field):
    kind = ipywidgets.Dropdown if field.metadata["menu"] else ipywidgets.SelectionSlider
    look = {"style": {"description_width": "16em"}, "layout": {"width": "40em", "max_width": "100%"}}
    return kind(options=field.metadata["options"], value=field.default, description=field.metadata["label"], **look)


def _steps(low: float, high: float, step: float) -> tuple:
    count = int((high - low) / step + 1e-6)  # the last step that doesn't pass the end
    whole = all(float(v).is_integer() for v in (low, high, step))
    return tuple(int(low + k * step) if whole else round(low + k * step, 10) for k in range(count + 1))
