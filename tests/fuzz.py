"""Arguments, good and bad, for every public function of the library that takes arrays or numbers, as hypothesis strategies.

A call is drawn right first: its shapes fit, its dtypes agree, its values may be extreme. In half of the calls one argument
is then replaced by junk. `fuzz_calls.FUZZED` says how each function is called, `fuzz_answers` what a right answer is.
"""

import inspect
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

import rpm_tutorial as rpm

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
OTHERS = (torch.int64, torch.uint8, torch.bool, torch.complex64, torch.float8_e5m2)
SHAPES = ((), (0,), (1,), (3,), (0, 0), (0, 2), (2, 0), (1, 1), (2, 3), (5, 4), (1, 2, 3), (2, 1, 3, 3), (0, 1, 3, 3))
NOT_TENSORS = (None, [[0.5, 0.5]], np.full((2, 2), 0.25), "0.5", 1.0, {})
NOT_NUMBERS = (None, "1", [1.0], {}, 1j, np.ones(2), torch.ones(2))
NUMBERS = (math.nan, math.inf, -math.inf, -1, 0, -0.0, 2.5, 1e300, -1e300, 1e-300, 5e-324, 3.5e38, 0.3, 1, True, 3)
SIZES = (-3, -1, 0, 1, 2, 2.0, 2.5, math.nan, math.inf, True)
VALUES = ("normal", "zero", "equal", "far", "huge", "tiny", "mixed", "one huge", "+inf", "-inf", "NaN")


class Call(NamedTuple):
    """`function(**arguments)`, and what raises `AssertionError` unless the answer is right."""

    function: Callable
    arguments: dict[str, object]
    right: Callable[[object, dict], None]


class Case(NamedTuple):
    """What one call's arguments have in common."""

    draw: Callable
    n: int
    m: int
    d: int
    dtype: torch.dtype
    rng: np.random.Generator

    def pick(self, *options):
        return self.draw(st.sampled_from(options))


def values(kind: str, shape: tuple[int, ...], dtype: torch.dtype, rng: np.random.Generator) -> Tensor:
    info = torch.finfo(dtype)
    normal = torch.from_numpy(np.asarray(rng.normal(size=shape)))
    sign = normal.sign()
    table = {
        "normal": normal,
        "zero": normal * 0,
        "equal": normal * 0 + 0.7,
        "far": 1e4 * normal if dtype != torch.float16 else 100 * normal,
        "huge": sign * info.max,
        "tiny": sign * info.smallest_normal / 8,
        "mixed": sign * _all_sizes(normal.numel(), info).view(shape),
    }.get(kind, normal).to(dtype)  # fmt: skip
    special = {"one huge": info.max, "+inf": math.inf, "-inf": -math.inf, "NaN": math.nan}.get(kind)
    if special is not None and table.numel():
        table.view(-1)[int(rng.integers(table.numel()))] = special
    return table


def _all_sizes(n: int, info: torch.finfo) -> Tensor:
    return torch.logspace(math.log10(info.tiny), math.log10(info.max) - 0.1, max(1, n), dtype=torch.float64)[:n]


def laid_out(table: Tensor, layout: str) -> Tensor:
    """The same numbers, otherwise in memory, or as part of a graph."""
    if layout == "transposed" and table.dim() == 2:
        return table.T.contiguous().T
    if layout == "strided" and table.dim():
        return torch.stack([table, table], -1)[..., 0]
    return table.requires_grad_() if layout == "requires_grad" and table.is_floating_point() else table


def junk_tensor(case: Case, like: Tensor) -> object:
    """Something in the place of a tensor: of another kind, shape, dtype or with other values."""
    kind = case.pick("shape", "dtype", "values", "values", "no tensor")
    if kind == "no tensor":
        return case.pick(*NOT_TENSORS)
    if kind == "values":
        return values(
            case.pick(*VALUES), tuple(like.shape), like.dtype if like.dtype in FLOATS else case.dtype, case.rng
        )
    if kind == "shape":
        shape = case.pick(*SHAPES)
        return values("normal", shape, case.dtype, case.rng) if like.dtype in FLOATS else like.new_zeros(shape)
    return like.detach().nan_to_num(0.0).clamp(-100, 100).to(case.pick(*FLOATS, *OTHERS))


class Number(float):
    """A float that junk may take the place of."""


class Size(int):
    """An int that junk may take the place of."""


def fuzzed(function: Callable, right: Callable, **arguments: Callable[[Case], object]) -> st.SearchStrategy[Call]:
    @st.composite
    def calls(draw) -> Call:
        sizes = (draw(st.integers(1, 5)) for _ in range(3))
        dtype, rng = draw(st.sampled_from(FLOATS)), np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        case = Case(draw, *sizes, dtype, rng)
        found = {name: make(case) for name, make in arguments.items()}
        spoilable = [name for name, v in found.items() if isinstance(v, Tensor | Number | Size)]
        if spoilable and draw(st.booleans()):
            name = draw(st.sampled_from(spoilable))
            if isinstance(found[name], Tensor):
                found[name] = junk_tensor(case, found[name])
            else:
                options = SIZES if isinstance(found[name], Size) else NUMBERS
                found[name] = draw(st.sampled_from(options + NOT_NUMBERS))
        plain = {k: float(v) if type(v) is Number else int(v) if type(v) is Size else v for k, v in found.items()}
        return Call(function, plain, right)

    return calls()


# Arguments


def latents(rows: str = "n", columns: str = "d"):
    def make(case: Case) -> Tensor:
        shape = (getattr(case, rows), getattr(case, columns))
        return laid_out(values(case.pick(*VALUES[:7]), shape, case.dtype, case.rng), _layout(case))

    return make


def scores(case: Case) -> Tensor:
    kind = case.pick("normal", "zero", "equal", "far", "huge", "mixed", "one huge", "-inf")
    return laid_out(values(kind, (case.n, case.m), case.dtype, case.rng), _layout(case))


def square_scores(case: Case) -> Tensor:
    return scores(case._replace(m=case.n))


def conditional(case: Case) -> Tensor:
    table = torch.from_numpy(case.rng.normal(size=(case.n, case.m))).log_softmax(1)
    return (
        table.to(case.dtype)
        if case.dtype != torch.bfloat16
        else table.to(case.dtype).float().log_softmax(1).to(case.dtype)
    )


def more(make):
    """With rows enough for a probe, or for an estimate from samples."""
    return lambda case: make(case._replace(n=case.n + 8, m=case.m + 8))


def distribution(*sides: str, rows: bool = False):
    """Probabilities, zeros among them."""

    def make(case: Case) -> Tensor:
        table = case.rng.gamma(case.pick(0.05, 1.0), size=[getattr(case, side) for side in sides])
        if case.pick(True, False):
            table[case.rng.random(table.shape) < 0.3] = 0
        flat = table.reshape(len(table), -1) if rows else table.reshape(1, -1)
        flat[flat.sum(1) == 0, 0] = 1
        table = (flat / flat.sum(1, keepdims=True)).reshape(table.shape)
        return laid_out(torch.from_numpy(table).to(case.dtype), _layout(case))

    return make


def optional(make):
    return lambda case: make(case) if case.pick(True, False) else None


def number(*options: float):
    return lambda case: Number(case.pick(*options))


def size(*options: int):
    return lambda case: Size(case.pick(*options))


def one_of(*options):
    return lambda case: case.pick(*options)


def generator(case: Case) -> torch.Generator:
    return torch.Generator().manual_seed(int(case.rng.integers(1000)))


def images(case: Case) -> Tensor:
    shape = (case.n, case.pick(1, 2), case.pick(1, 3, 8), case.pick(1, 3, 8))
    kind = case.pick("uniform", "zero", "one")
    table = {"uniform": case.rng.random(shape), "zero": np.zeros(shape), "one": np.ones(shape)}[kind]
    return laid_out(torch.from_numpy(table).to(case.dtype), _layout(case))


def labels(side: str = "n"):
    return lambda case: torch.from_numpy(case.rng.integers(0, 3, getattr(case, side)))


def _layout(case: Case) -> str:
    return case.pick("plain", "transposed", "strided", "requires_grad")


# Right answers


def tolerance(dtype: torch.dtype) -> float:
    return 100 * torch.finfo(dtype).eps


def is_close(found: Tensor, expected, scale: float, dtype: torch.dtype) -> None:
    """Within rounding of `scale`; where the exact number lies beyond the dtype, infinity is right."""
    found, expected = found.detach().double().numpy(), np.asarray(expected, np.longdouble)
    assert found.shape == expected.shape, f"shape {found.shape}, expected {expected.shape}"
    assert not np.isnan(found).any(), "NaN"
    most = torch.finfo(dtype).max
    with np.errstate(all="ignore"):
        same = (found == expected) | (np.abs(found - expected) <= tolerance(dtype) * scale)
        beyond = np.isinf(found) & (np.abs(expected) >= 0.9 * most) & (np.sign(found) == np.sign(expected))
        # f = 0 for each of these: a sum whose terms lie beyond the dtype may be -inf
        beyond |= np.isneginf(found) & (expected < -1e4) & (scale >= 0.01 * most)
    assert (same | beyond).all(), f"{found}, expected {expected} (scale {float(scale):.3g})"


def longs(*tensors) -> list[np.ndarray]:
    return [np.asarray(t.detach().double().numpy(), np.longdouble) for t in tensors]


def size_of(*tables) -> float:
    finite = [np.abs(t[np.isfinite(t)]).max() for t in tables if np.isfinite(t).any()]
    return max(1.0, *finite) if finite else 1.0


def plain(*shape_of) -> Callable:
    """An answer in the dtype of the first tensor, finite or -inf nowhere."""

    def right(found, arguments):
        for tensor in found if isinstance(found, tuple | list) else [found]:
            assert isinstance(tensor, Tensor) and tensor.isfinite().all(), found

    return right


def is_number(low: float = -math.inf, high: float = math.inf) -> Callable:
    def right(found, arguments):
        assert isinstance(found, float) and math.isfinite(found) and low <= found <= high, found

    return right


def public(module) -> Iterator[str]:
    """The names of a module's own functions and classes, and of the public methods of the classes that take arguments."""
    for name, item in vars(module).items():
        if name.startswith("_") or not getattr(item, "__module__", "").startswith(module.__name__):
            continue
        if inspect.isfunction(item):
            yield name
        elif inspect.isclass(item):
            yield name
            for method, made in vars(item).items():
                made = getattr(made, "__func__", made)
                if (
                    not method.startswith("_")
                    and inspect.isfunction(made)
                    and len(inspect.signature(made).parameters) > 1
                ):
                    yield f"{name}.{method}"


def inventory() -> list[str]:
    """Every public function, class and method of the package: what `rpm.__all__` leads to."""
    modules = [getattr(rpm, name) for name in rpm.__all__ if inspect.ismodule(getattr(rpm, name))]
    return [
        f"{module.__name__.removeprefix('rpm_tutorial.').removeprefix('course.')}.{name}"
        for module in modules
        for name in public(module)
    ]
