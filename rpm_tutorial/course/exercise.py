"""Exercises that check themselves.

A check runs the reader's function on random cases and compares with the solution: an answer that is right but written
differently passes, one that equals a known wrong idea is told which idea that is, and a slip on the last step is named.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

SEEDS = range(3)

# Relative to the largest number of a case. Right answers in float32 are off by up to 4e-5, the nearest wrong idea by 3e-4.
TOLERANCE = 1e-4

# A slip on the last step of a right answer: how to undo it, and what to say.
SLIPS: dict[Callable, str] = {
    lambda r: -r: "that is minus the answer: check the sign.",
    lambda r: r * math.log(2): "that is the answer in bits; it is asked for in nats: natural logarithms.",
    lambda r: r * math.log(10): "those are logarithms to the base 10; take natural ones.",
    lambda r: r.log(): "that is the exponential of the answer.",
    lambda r: r.exp(): "that is the logarithm of the answer.",
    lambda r: 1 / r: "that is one over the answer: it is upside down.",
    lambda r: 1 - r: "that is one minus the answer.",
    lambda r: r - 1: "that is one too much.",
    lambda r: r + 1: "that is one too little.",
    lambda r: r / 2: "that is twice the answer.",
    lambda r: r * 2: "that is half the answer.",
    lambda r: r / 100: "that is in percent.",
    lambda r: r.T if r.ndim == 2 else r: "rows and columns are exchanged: transpose it.",
    lambda r: r.squeeze(): "right, but for dimensions of size 1: squeeze them.",
    lambda r: r.mean(): "your values are right one by one; their mean is asked for.",
    lambda r: r.sum(): "your values are right one by one; their sum is asked for.",
}


class Verdict(NamedTuple):
    """right is None while the exercise is unanswered."""

    right: bool | None
    message: str


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    `solution` takes the arguments that `case(seed)` makes; `misconceptions` maps a wrong function to what to tell its author.
    Where the reader repairs a function instead of writing one, `with_bug` is the function that the lesson shows. It is one of
    the misconceptions too, whose message names the symptom and not the repair.
    """

    prompt: str
    case: Callable[[int], tuple]
    solution: Callable
    hints: tuple[str, ...]
    misconceptions: Mapping[Callable, str] = field(default_factory=dict)
    with_bug: Callable | None = None

    def check(self, answer) -> None:
        """Print whether the answer (a function, or a number where the exercise asks for one) is right, and if not, why."""
        print(self.verdict(answer).message)

    def hint(self, step: int = 1) -> None:
        """Print a hint; they lead from a nudge (1) to the answer's shape."""
        if not 1 <= step <= len(self.hints):
            raise ValueError(f"step is {step}; this exercise has hints 1 to {len(self.hints)}")
        print(f"Hint {step} of {len(self.hints)}: {self.hints[step - 1]}")

    def verdict(self, answer) -> Verdict:
        """What `check` prints, for tests and for graders."""
        function = answer if callable(answer) else lambda *_: answer
        try:
            results = [function(*self.case(seed)) for seed in SEEDS]
        except Exception as error:  # the reader's own code may raise anything
            return Verdict(False, f"✗ Your function raised {type(error).__name__}: {error}")
        if any(result is ... for result in results):
            blank = "○ Not answered yet. Replace the ... above and run the cell again; .hint() gives a nudge."
            return Verdict(None, blank)
        if any(result is None for result in results):
            return Verdict(False, "✗ The answer is None. A function gives its result by return; print only shows it.")
        if not callable(answer) and self.case(0):
            one_case = "✗ That is the answer to one case; give check the function itself: check(f), not check(f(x))."
            return Verdict(False, one_case)
        try:
            results = [_as_float64(result) for result in results]
        except (TypeError, ValueError, RuntimeError):
            return Verdict(False, f"✗ The answer is a {type(results[0]).__name__}; expected a number or a tensor.")
        if _same(results, self._expected):
            return Verdict(True, f"✓ Right, on {len(SEEDS)} random cases." if self.case(0) else "✓ Right.")
        return Verdict(False, f"✗ Not yet: {self._why(results)}")

    @cached_property
    def _expected(self) -> list[Tensor]:
        return self._results(self.solution)

    @cached_property
    def _expected_if_wrong(self) -> list[tuple[list[Tensor], str]]:
        return [(self._results(wrong), message) for wrong, message in self.misconceptions.items()]

    def _results(self, function: Callable) -> list[Tensor]:
        return [_as_float64(function(*self.case(seed))) for seed in SEEDS]

    def _why(self, results: list[Tensor]) -> str:
        """What to tell the author of a wrong answer."""
        expected = self._expected
        for wrong, message in self._expected_if_wrong:
            if _same(results, wrong):
                return message
        for undo, message in SLIPS.items():
            if _same([undo(r) for r in results], expected):
                return message
        if any(_same(results, [to_whole(e) for e in expected]) for to_whole in (torch.ceil, torch.floor, torch.round)):
            return "that is the answer, rounded to a whole number; leave it as it is."
        for sizes in zip(*(_sizes(self.case(seed)) for seed in SEEDS)):
            if _same([r / n for r, n in zip(results, sizes)], expected):
                return f"that is {sizes[0]} times the answer, a size of the first case: is a mean asked for, not a sum?"
            if _same([r * n for r, n in zip(results, sizes)], expected):
                return f"that is the answer over {sizes[0]}, a size of the first case: is a sum asked for, not a mean?"
        for result, right in zip(results, expected):
            if result.shape != right.shape:
                single = "" if right.shape else ", a single number"
                return f"your result has shape {tuple(result.shape)}; expected {tuple(right.shape)}{single}."
        for is_special, name in ((torch.isnan, "NaN"), (torch.isinf, "an infinity")):
            if any(is_special(result).any() for result in results):
                return f"your result holds {name}: look for the log of 0 or less, 0/0, inf - inf, or an exp that overflows."
        off = max((result - right).abs().max().item() for result, right in zip(results, expected))
        return f"the right shape, but off by up to {off:.3g}. {self.hints[0]}"


def normal(seed: int, *shape: int) -> Tensor:
    """Standard normal numbers, for the cases of an exercise."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _as_float64(result) -> Tensor:
    return torch.as_tensor(result, dtype=torch.float64, device="cpu")


def _same(results: list[Tensor], expected: list[Tensor]) -> bool:
    """Up to rounding; NaN equals NaN, because a wrong idea may overflow."""
    return all(
        r.shape == e.shape
        and torch.allclose(r, e, 0, TOLERANCE * e.nan_to_num(0, 0, 0).abs().max().item(), equal_nan=True)
        for r, e in zip(results, expected)
    )


def _sizes(case: tuple) -> list[int]:
    """Numbers of things in a case, over which a mean or a sum may run."""
    tensors = [argument for argument in case if isinstance(argument, Tensor)]
    counts = [argument for argument in case if isinstance(argument, int) and argument]
    return [*counts, *(size for t in tensors for size in (*t.shape, t.numel()))]
