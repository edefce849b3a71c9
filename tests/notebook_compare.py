"""When do a notebook's new outputs agree with its stored ones? Where both show what every processor must agree on.

Of every cell that is: the kinds of its outputs and their order; in a text, what stands around the numbers, up to the
number of blanks (a table's padding moves with its numbers); in a plotly figure its structure, its texts, and of each
array the shape and the gaps. A network's training makes of one last bit what it likes, so its digits are no
specification: what a cell claims of them is an assertion in the cell.

In a cell tagged `reproducible` (an identity, a finite world) the numbers have to agree as well, one by one:

- whole numbers are equal;
- other numbers differ by at most one unit in the last printed digit,
- or are both below 1e-9 in absolute value: residuals are rounding noise, which differs between processors;
- in a figure they agree to 1e-6 relative plus 1e-9 absolute; its typed arrays are decoded first.

A widget's figures at all its settings, which take longer than the rest of a notebook, are made by a build, and again where
notebooks run on other arithmetic (tools/processors.py): then its controls have to agree, and of the figure at each setting
all but the numbers, which are cut. tests/test_widgets.py compares them with the figures that every run makes.

Pictures and HTML aren't compared, nor is a widget's random id: what they show is in the text and the figure beside them. A
widget without a figure, as a progress bar, leaves no output at all. A warning on stderr is text like any other.
"""

import base64
import re
from collections.abc import Iterator, Set
from decimal import Decimal
from itertools import product, zip_longest

import numpy as np
from build_notebooks import WIDGET, is_only_live

from rpm_tutorial.course._twins import GRID, figure_at, unpacked

REPRODUCIBLE = "reproducible"
NOT_COMPARED = {WIDGET, "image/jpeg", "image/png", "image/svg+xml", "text/html"}
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
ROUNDING_NOISE = Decimal("1e-9")
FIGURE_RTOL, FIGURE_ATOL = 1e-6, 1e-9


def is_reproducible(cell) -> bool:
    return REPRODUCIBLE in cell.metadata.get("tags", [])


def numbers_agree(old: str, new: str) -> bool:
    """Whether two printed numbers agree, by the rule above."""
    a, b = Decimal(old), Decimal(new)
    if old.lstrip("+-").isdigit() and new.lstrip("+-").isdigit():
        return a == b
    last_digit = Decimal(1).scaleb(min(a.as_tuple().exponent, b.as_tuple().exponent))
    return abs(a - b) <= last_digit or max(abs(a), abs(b)) < ROUNDING_NOISE


def text_difference(old: str, new: str, numbers: bool = True) -> str | None:
    """The first difference of two texts, or None when they agree."""
    if old == new:
        return None
    if _around_numbers(old) != _around_numbers(new):
        return _first_differing_line(old, new)
    for a, b in zip(NUMBER.findall(old), NUMBER.findall(new), strict=True):
        if numbers and not numbers_agree(a, b):
            return f"number {b}, stored {a}\n{_first_differing_line(old, new)}"
    return None


def _around_numbers(text: str) -> list[list[list[str]]]:
    """The words of each line of each piece of text between two numbers; numpy prints a whole number as `2.`."""
    return [[line.split() for line in part.removeprefix(".").split("\n")] for part in NUMBER.split(text)]


def _first_differing_line(old: str, new: str) -> str:
    for a, b in zip_longest(old.splitlines(), new.splitlines(), fillvalue="(no line)"):
        if a != b:
            return f"stored: {a}\n   now: {b}"
    return f"stored: {old!r}\n   now: {new!r}"


def _as_array(value) -> np.ndarray | None:
    """The numbers in a JSON value, if it is nothing but numbers: a typed array, a list or a single number."""
    if isinstance(value, dict) and "bdata" in value:
        little_endian = np.dtype(value["dtype"]).newbyteorder("<")
        flat = np.frombuffer(base64.b64decode(value["bdata"]), little_endian)
        shape = [int(side) for side in str(value.get("shape", flat.size)).split(",")]
        return flat.reshape(shape).astype(float)
    if isinstance(value, str):
        return None
    try:
        array = np.asarray(value)
        return None if array.dtype == bool else array.astype(float)  # null, a gap in a line, becomes nan
    except (TypeError, ValueError):  # a list that holds texts, or a ragged one
        return None


def _array_difference(old: np.ndarray, new: np.ndarray, numbers: bool) -> str | None:
    if old.shape != new.shape:
        return f"shape {new.shape}, stored {old.shape}"
    same = np.isclose(new, old, rtol=FIGURE_RTOL, atol=FIGURE_ATOL, equal_nan=True)
    differs = ~same if numbers else np.isfinite(new) != np.isfinite(old)
    where = [list(map(int, place)) for place in np.argwhere(differs)]
    return f"{len(where)} of {old.size} numbers differ, the first at {where[0]}" if where else None


def _leaves(value, path: str = "figure") -> Iterator[tuple[str, object]]:
    """The texts, switches and arrays of a figure (any JSON), each with the path to it."""
    array = _as_array(value)
    if array is None and isinstance(value, dict):
        for key in sorted(value.keys() - {"uid"}):  # a FigureWidget's traces have random ones
            yield from _leaves(value[key], f"{path}.{key}")
    elif array is None and isinstance(value, list):
        for place, item in enumerate(value):
            yield from _leaves(item, f"{path}[{place}]")
    else:
        yield path, value if array is None else array


def figure_difference(old, new, numbers: bool = True) -> str | None:
    """The first difference of two figures, with the path to it, or None when they agree."""
    for (place, a), (other, b) in zip_longest(_leaves(old), _leaves(new), fillvalue=("nothing", None)):
        if place != other or type(a) is not type(b):
            return f"{other}, stored {place}: {b!r:.80}, stored {a!r:.80}"
        if isinstance(a, np.ndarray):
            found = _array_difference(a, b, numbers)
        else:
            found = text_difference(a, b, numbers) if isinstance(a, str) else None if a == b else f"{b}, stored {a}"
        if found:
            return f"{place}: {found}"
    return None


def grid_difference(old: str, new: str) -> str | None:
    """The first difference of a widget's packed figures, but for their numbers, or None when they agree."""
    stored, now = unpacked(old), unpacked(new)
    if found := figure_difference(stored["controls"], now["controls"]):
        return f"controls: {found}"
    values = [control["values"] for control in stored["controls"]]
    for setting in product(*(range(len(each)) for each in values)):
        if found := figure_difference(figure_at(stored, setting), figure_at(now, setting), numbers=False):
            return f"at {', '.join(each[k] for each, k in zip(values, setting))}: {found}"
    return None


def comparable(outputs: list[dict], left_out: Set[str]) -> Iterator[tuple[str, object]]:
    """What outputs say, as (kind, value) in their order; a stream's kind is its name, else its MIME type."""
    for output in outputs:
        if output["output_type"] == "stream":
            yield output["name"], output["text"]
        elif output["output_type"] == "error":
            yield "error", f"{output['ename']}: {output['evalue']}"
        elif not is_only_live(output["data"]):
            kinds = sorted(output["data"].keys() - left_out)
            yield from ((kind, output["data"][kind]) for kind in kinds)


def outputs_difference(old: list[dict], new: list[dict], numbers: bool = True) -> str | None:
    """The first difference of two cells' outputs, numbers included or not, or None. Streams must have been merged."""
    has_grid = any(GRID in output.get("data", ()) for output in new)
    said = (comparable(outputs, NOT_COMPARED if has_grid else NOT_COMPARED | {GRID}) for outputs in (old, new))
    for (kind, stored), (kind_now, now) in zip_longest(*said, fillvalue=("nothing", None)):
        if kind != kind_now:
            return f"an output of kind {kind_now}, stored {kind}\nstored: {stored}\n   now: {now}"
        if kind == GRID:
            found = grid_difference(stored, now)
        else:
            compare = text_difference if isinstance(stored, str) else figure_difference
            found = compare(stored, now, numbers)
        if found:
            return f"{kind}: {found}"
    return None
