"""Exercises that check themselves: one module per lesson, each exercise with prompt, check, hints, solution, misconceptions.

A check runs the reader's function on random cases and compares with the solution: an answer that is right but written
differently passes, and one that equals a known wrong idea is told which idea that is.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

LESSONS = (*(f"lesson_{number:02}" for number in range(12)), *(f"neighbour_{number:02}" for number in (2, 3, 5, 7)))
SEEDS = range(3)
DOUBLE, SINGLE = 1e-9, 1e-5  # far above the rounding of float64 and float32, far below another idea's result


class Verdict(NamedTuple):
    """right is None while the exercise is unanswered."""

    right: bool | None
    message: str


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    `solution` takes the arguments that `case(seed)` makes; `misconceptions` maps a wrong function to what to tell its author.
    """

    prompt: str
    case: Callable[[int], tuple]
    solution: Callable
    hints: tuple[str, ...]
    misconceptions: Mapping[Callable, str] = field(default_factory=dict)

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
        results = []
        for seed in SEEDS:
            try:
                results.append(function(*self.case(seed)))
            except Exception as error:  # whatever the reader's code raises is theirs to read
                return Verdict(False, f"✗ Your function raised {type(error).__name__}: {error}")
        if any(result is None or result is ... for result in results):
            return Verdict(
                None, "○ Not answered yet. Replace the ... above and run the cell again; .hint() gives a nudge."
            )
        tolerance = SINGLE if any(getattr(result, "dtype", None) == torch.float32 for result in results) else DOUBLE
        try:
            results = [torch.as_tensor(result, dtype=torch.float64) for result in results]
        except (TypeError, ValueError, RuntimeError):
            return Verdict(False, f"✗ The answer is a {type(results[0]).__name__}; expected a number or a tensor.")
        expected = self._results(self.solution)
        for result, wanted in zip(results, expected):
            if result.shape != wanted.shape:
                return Verdict(False, f"✗ Your result has shape {tuple(result.shape)}; expected {tuple(wanted.shape)}.")
        if _same(results, expected, tolerance):
            return Verdict(True, f"✓ Right, on {len(SEEDS)} random cases." if self.case(0) else "✓ Right.")
        for wrong, message in self.misconceptions.items():
            if _same(results, self._results(wrong), tolerance):
                return Verdict(False, f"✗ Not yet: {message}")
        off = max((result - wanted).abs().max().item() for result, wanted in zip(results, expected))
        return Verdict(False, f"✗ Not yet: the right shape, but off by up to {off:.3g}. {self.hints[0]}")

    def _results(self, function: Callable) -> list[torch.Tensor]:
        """On fresh cases each time: an answer may have overwritten its own."""
        return [torch.as_tensor(function(*self.case(seed)), dtype=torch.float64) for seed in SEEDS]


def _same(results, expected, tolerance: float) -> bool:
    return all(
        r.shape == e.shape and torch.allclose(r, e, rtol=tolerance, atol=tolerance) for r, e in zip(results, expected)
    )


def __getattr__(name: str):
    if name in LESSONS:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"there are no exercises {name!r}; expected one of {', '.join(LESSONS)}")
