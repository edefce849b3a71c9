"""Checks of arguments that every module shares: an error says what was found, what was expected, and what to do."""

import numbers
from collections.abc import Callable
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_scan = ContextVar("scan", default=True)


def shape_of(tensor: Tensor) -> str:
    return f"({', '.join(map(str, tensor.shape))})"


@contextmanager
def values_unchecked():
    """Within it, shapes and dtypes are still checked, values no longer: each scan of them makes a GPU wait."""
    token = _scan.set(False)
    try:
        yield
    finally:
        _scan.reset(token)


def any_entry(bad: Callable[[Tensor], Tensor], tensor: Tensor, *, scanned: bool = True, unseen: bool = False) -> bool:
    """Whether some entry is bad; `unseen` where nobody looks (`values_unchecked` if scanned) or can (meta, compile, vmap)."""
    if torch.compiler.is_compiling() or tensor.is_meta or (scanned and not _scan.get()):
        return unseen
    try:
        return bool(bad(tensor.detach()).any())
    except RuntimeError as error:
        if "vmap" in str(error):
            return unseen
        raise


def check_kind(name: str, tensor, dims: int) -> None:
    """Raise unless `tensor` is a floating-point tensor of `dims` dimensions with at least one entry."""
    if not isinstance(tensor, Tensor):
        raise TypeError(
            f"{name} is a {type(tensor).__name__}; expected a torch.Tensor: wrap it in torch.as_tensor(...)"
        )
    if tensor.dim() != dims:
        raise ValueError(f"{name} has shape {shape_of(tensor)}; expected {dims} dimensions")
    if tensor.dtype not in FLOATS:
        raise ValueError(f"{name} has dtype {tensor.dtype}; expected a floating type: call {name}.float()")
    if tensor.numel() == 0:
        raise ValueError(f"{name} has shape {shape_of(tensor)}: it is empty; expected at least one row and one column")


def check_tensor(name: str, tensor, dims: int) -> None:
    """As `check_kind`, and without NaN."""
    check_kind(name, tensor, dims)
    if any_entry(torch.isnan, tensor):
        count = int(torch.isnan(tensor.detach()).sum())
        raise ValueError(
            f"{name} contains NaN ({count} of {tensor.numel()} entries); expected numbers. "
            "Likely causes: a diverged encoder (lower the learning rate), 0/0, or log of a negative number"
        )


def check_latents(name: str, latents) -> None:
    """Raise unless `latents` is a table of finite numbers, (n, d). One look where all is well: each makes a GPU wait."""
    check_kind(name, latents, dims=2)
    if any_entry(lambda t: ~t.isfinite(), latents):
        check_tensor(name, latents, dims=2)
        raise ValueError(
            f"{name} contains inf; expected finite latents. Likely cause: a diverged encoder (lower the learning rate)"
        )


def check_alike(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """Raise unless both tensors live on one device and have one dtype."""
    if tensor.device != other.device:
        raise ValueError(
            f"{name} is on {tensor.device} and {other_name} on {other.device}; "
            f"expected one device: call {other_name}.to({name}.device)"
        )
    if tensor.dtype != other.dtype:
        raise ValueError(
            f"{name} has dtype {tensor.dtype} and {other_name} {other.dtype}; "
            f"expected one dtype: call {other_name}.to({name}.dtype)"
        )


def check_log_table(name: str, log_table: Tensor) -> None:
    """Raise unless `log_table` is a table of logarithms: -inf is legal (the logarithm of 0), +inf and NaN are not."""
    check_kind(name, log_table, dims=2)
    if any_entry(lambda t: ~(t.amax(1) < torch.inf), log_table):  # a row's largest is NaN where one of them is
        check_tensor(name, log_table, dims=2)
        raise ValueError(f"{name} contains +inf; expected finite logarithms or -inf (where the quantity is 0)")


def check_distribution(name: str, table: Tensor, over: str = "entries") -> None:
    """Raise unless `table` is non-negative and sums to one: over all entries, or over each row (over="rows")."""
    check_tensor(name, table, dims=2)
    if any_entry(lambda t: t < 0, table):
        raise ValueError(
            f"{name} has a negative entry ({table.min().item():.3g}); expected probabilities. "
            "Did you pass logarithms? Call .exp() on them"
        )
    sums = table.detach().sum(1) if over == "rows" else table.detach().sum().view(1)
    if any_entry(lambda t: ~((t - 1).abs() <= rounding(table)), sums):
        what, remedy = ("a row that sums", "(1, keepdim=True)") if over == "rows" else ("entries that sum", "()")
        worst = sums[(sums - 1).abs().argmax()].item()
        raise ValueError(f"{name} has {what} to {worst:.10g}; expected 1: divide by .sum{remedy}")


def rounding(table: Tensor) -> float:
    """How far from one a sum of probabilities may lie: half of the dtype's digits may be lost (typed, or added up)."""
    return torch.finfo(table.dtype).eps ** 0.5


def check_number(name: str, value: float) -> float:
    """`value` as an int or a float, if it is one real number and finite: a tensor without dimensions, or NumPy's, is too."""
    if isinstance(value, Tensor) and value.dim() == 0 and not value.is_complex():
        value = value.item()
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is a {type(value).__name__}; expected a number")
    if not -float("inf") < value < float("inf"):
        raise ValueError(f"{name} is {value}; expected a finite number")
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def check_count(name: str, value: int, *, least: int = 1) -> int:
    """`value` as an int, if it is a whole number from `least` on."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}, a {type(value).__name__}; expected a whole number: an int")
    if value < least:
        raise ValueError(f"{name} is {value}; expected {'a positive number' if least == 1 else f'at least {least}'}")
    return int(value)


def seeded(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(check_count("seed", seed, least=0))


def check_generator(generator: torch.Generator, device: torch.device) -> None:
    """Raise unless it is one (with None, torch would take the global generator), on the device on which it is to draw."""
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator is a {type(generator).__name__}; expected a torch.Generator: torch.Generator().manual_seed(0)"
        )
    if generator.device.type != device.type:
        raise ValueError(
            f"generator is on {generator.device}; expected one on {device}: torch.Generator('{device}').manual_seed(0)"
        )


def check_scores(log_f: Tensor) -> None:
    """Raise for NaN and +inf among the scores that a critic has made of finite latents."""
    if any_entry(lambda t: ~(t.amax(1) < torch.inf), log_f):
        count = int((~(log_f.detach() < torch.inf)).sum())
        raise ValueError(
            f"{count} of {log_f.numel()} scores of z and z_prime are NaN or beyond {log_f.dtype}; expected latents whose "
            "squares are finite, and a critic without NaN. Divide the latents by their spread, or raise the critic's scale"
        )


def check_range(what: str, tensor: Tensor, remedy: str = "") -> None:
    if any_entry(lambda t: ~t.isfinite(), tensor):
        raise ValueError(f"{what} is beyond {tensor.dtype}; expected less extreme numbers{remedy}")


def one_of(name: str, value: str, options: tuple[str, ...]) -> None:
    """Raise unless the option is one of these."""
    if value not in options:
        *others, last = (f'"{option}"' for option in options)
        raise ValueError(f"{name} is {value!r}; expected {', '.join(others)} or {last}")


def check_positive(name: str, value: float) -> float:
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} is {value}; expected a positive finite number")
    return float(value)


def check_rows(name: str, x) -> None:
    """Raise unless `x` is a tensor, one row for each observation."""
    if not isinstance(x, Tensor) or x.dim() == 0:
        found = f"has shape {shape_of(x)}" if isinstance(x, Tensor) else f"is a {type(x).__name__}"
        raise TypeError(
            f"{name} {found}; expected a torch.Tensor of shape (n, ...), one row for each observation: "
            "torch.as_tensor(...) for an array"
        )


def check_data(name: str, x: Tensor) -> None:
    """Raise for what is no tensor, and for NaN and inf in data, which no encoder is to blame for."""
    check_rows(name, x)
    bad = ~x.detach().isfinite()
    if bad.any():
        raise ValueError(
            f"{name} contains NaN or inf in {int(bad.sum())} of {x.numel()} entries; expected numbers: leave those rows out "
            "(of both sides), or fill them in"
        )
