"""Work the course's widgets in an open lesson as a reader without a mouse does: Tab, Home, End, arrows and Enter."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from playwright.sync_api import Locator, Page, TimeoutError

EXPLORERS, DASHBOARDS = ".rpm-explorer", ".rpm-dashboard"
CONTROLS = ".noUi-handle, select"
SETTLE_SECONDS = 120.0  # for text and figure to change: only what never changes takes that long

# What the kernel says on stderr goes to outputs only while a cell runs; what a callback raises, to the log console.
LISTEN = """() => {
    const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
    window.rpmSaid = [];
    kernel.iopubMessage.connect((_, { header, content }) => {
        if (header.msg_type === 'error') window.rpmSaid.push(content.ename + ': ' + content.evalue);
        if (header.msg_type === 'stream' && content.name === 'stderr') window.rpmSaid.push(content.text);
    });
}"""
ASK = """async code => {
    const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
    const future = kernel.requestExecute({ code, store_history: false });
    let said = '';
    future.onIOPub = ({ header, content }) => {
        if (header.msg_type === 'stream') said += content.text;
        if (header.msg_type === 'error') said += content.ename + ': ' + content.evalue;
    };
    await future.done;
    return said;
}"""
LOOK = """widget => {
    const marks = [...widget.querySelectorAll('.main-svg path, .main-svg text, .main-svg image')];
    const looks = ['d', 'transform', 'x', 'y', 'style', 'href', 'xlink:href'];
    const drawn = marks.map(mark => [mark.tagName, ...looks.map(look => mark.getAttribute(look)),
                                     mark.tagName === 'text' ? mark.textContent : '']);
    return [widget.querySelector('[role=status]').textContent, JSON.stringify(drawn)];
}"""
WHERE = """control => control.matches('select')
    ? [control.selectedIndex, control.options.length - 1, control.value, control.labels[0]?.textContent ?? '', control.value]
    : [Number(control.ariaValueNow), Number(control.ariaValueMax), control.ariaValueText, control.ariaLabel ?? '',
       control.closest('.widget-slider').querySelector('.widget-readout').textContent]"""


class Look(NamedTuple):
    """What a widget shows: its summary, and its figure as drawn."""

    text: str
    figure: str


class Place(NamedTuple):
    """Where a control is, and how far it goes; its value and name for a screen reader, and its value for the eye."""

    index: int
    last: int
    value: str
    name: str
    shown: str


@dataclass
class Drive:
    """What came of working a widget."""

    controls: int = 0
    positions: int = 0
    problems: list[str] = field(default_factory=list)


def listen(page: Page) -> None:
    """Keep what the kernel says on stderr from now on, and what any callback raises."""
    page.evaluate(LISTEN)


def heard(page: Page) -> list[str]:
    return page.evaluate("window.rpmSaid.splice(0)")


def ask(page: Page, code: str) -> str:
    """Run code in the lesson's kernel; what it prints, or its error."""
    return page.evaluate(ASK, code)


def look(widget: Locator) -> Look:
    return Look(*widget.evaluate(LOOK))


def place(control: Locator) -> Place:
    return Place(*control.evaluate(WHERE))


def settle(page: Page) -> None:
    """Until the kernel has answered what was pressed: a key pressed meanwhile is sent after the answer to the first."""
    for _ in range(2):
        ask(page, "")


def look_again(page: Page, widget: Locator, before: Look) -> Look:
    """What a widget shows once text and figure have changed and come to rest, or after a while."""
    now = look(widget)
    for _ in range(round(SETTLE_SECONDS / 0.1)):
        page.wait_for_timeout(100)
        last, now = now, look(widget)
        if now == last and now.text != before.text and now.figure != before.figure:
            break
    return now


def tab_to(page: Page, control: Locator, most: int = 4) -> bool:
    """Whether a few Tabs lead from what has the focus to this control."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if control.evaluate("control => control === document.activeElement"):
            return True
    return False


def walk(page: Page, control: Locator) -> Iterator[str]:
    """Press keys that lead to both ends and to two places between; the control has the focus."""
    forward, last = ("ArrowDown" if control.evaluate("c => c.matches('select')") else "ArrowRight"), place(control).last
    stops = sorted({round(k * last / 3) for k in range(3)})
    page.keyboard.press("Home")
    yield "Home"
    for start, end in zip(stops, stops[1:]):
        for _ in range(end - start):
            page.keyboard.press(forward)
        yield f"{end - start} x {forward}"
    page.keyboard.press("End")
    yield "End"


def drive(page: Page, widget: Locator) -> Drive:
    """Work every control of an Explorer, then its Reset, and say what didn't follow."""
    found, first = Drive(), look(widget)
    controls, reset = widget.locator(CONTROLS).all(), widget.get_by_role("button", name="Reset", exact=True)
    controls[0].scroll_into_view_if_needed()
    controls[0].focus()
    now = first
    for control in controls:
        was = place(control)
        name, found.controls = was.name, found.controls + 1
        if not name:
            found.problems.append(f"control {found.controls} has no accessible name")
        if control is not controls[0] and not tab_to(page, control):
            found.problems.append(f"Tab does not lead to {name!r}")
            control.focus()
        for keys in walk(page, control):
            before, found.positions = now, found.positions + 1
            settle(page)
            at = place(control)
            now = look_again(page, widget, before) if at.index != was.index else look(widget)
            if at.value != at.shown or (at.index != was.index) != (at.value != was.value):
                found.problems.append(
                    f"{name} after {keys} says {at.value!r}, before {was.value!r}, and shows {at.shown!r}"
                )
            for part in Look._fields:
                if (getattr(now, part) != getattr(before, part)) != (at.index != was.index):
                    verb = "stays" if at.index != was.index else "changes"
                    found.problems.append(f"{name} from {was.value!r} to {at.value!r}: the {part} {verb}")
            was = at
    if not tab_to(page, reset):
        found.problems.append("Tab does not lead to Reset")
        reset.focus()
    page.keyboard.press("Enter")
    settle(page)
    now = look_again(page, widget, now)
    found.problems += [
        f"Reset: the {part} is not the first" for part in Look._fields if getattr(now, part) != getattr(first, part)
    ]
    return found


def wait(page: Page, condition: str, argument=None, seconds: float = SETTLE_SECONDS) -> bool:
    """Whether a condition, in JavaScript, comes true in time."""
    try:
        page.wait_for_function(condition, arg=argument, timeout=1000 * seconds)
    except TimeoutError:
        return False
    return True
