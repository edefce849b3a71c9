"""A pytest plugin: how two sides of an identity are compared.

The worst residual of each identity, and what tests have measured, are printed at the end.
"""

import math

import pytest
import torch

WORST: dict[str, float] = {}
MEASURED: list[str] = []


def agree(identity: str, found, expected, *terms, tolerance: float = 1e-11) -> None:
    """Assert that two numbers or tensors agree, relative to the largest of them and of the terms in them.

    The scale is at least 1: the tables hold probabilities, whose sums to one are themselves rounded. Equal
    infinities agree; NaN agrees with nothing.
    """
    found, expected, *terms = (torch.as_tensor(t, dtype=torch.float64).detach() for t in (found, expected, *terms))
    assert found.shape == expected.shape, f"{identity}: shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
    same = found == expected  # infinities too
    finite = [t[t.isfinite()].abs().max().item() for t in (found, expected, *terms) if t.isfinite().any()]
    scale = max(1.0, *finite) if finite else 1.0
    difference = (found - expected).abs().masked_fill(same, 0)
    residual = difference.max().item() / scale if difference.numel() else 0.0
    WORST[identity] = _worse(WORST.get(identity, 0.0), residual)
    assert residual <= tolerance, f"{identity}: {found} and {expected}, relative residual {residual:.3g}"


def at_most(identity: str, smaller, larger, *terms, tolerance: float = 1e-11) -> None:
    """Assert smaller <= larger, up to rounding as in `agree`."""
    smaller, larger = (torch.as_tensor(t, dtype=torch.float64) for t in (smaller, larger))
    agree(identity, torch.maximum(smaller, larger), larger, smaller, *terms, tolerance=tolerance)


def _worse(first: float, second: float) -> float:
    return max(first, second) if math.isfinite(first + second) else math.nan


def pytest_sessionfinish(session) -> None:
    if hasattr(session.config, "workeroutput"):  # of pytest-xdist: what a process hands to the one that prints
        session.config.workeroutput.update(worst=WORST, measured=MEASURED)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    found = getattr(node, "workeroutput", {"worst": {}, "measured": []})  # a process that died has none
    MEASURED.extend(found["measured"])
    for identity, residual in found["worst"].items():
        WORST[identity] = _worse(WORST.get(identity, 0.0), residual)


def pytest_terminal_summary(terminalreporter) -> None:
    if WORST:
        terminalreporter.section("worst relative residual of each identity")
        for identity, residual in sorted(WORST.items()):
            terminalreporter.write_line(f"{identity:<76}{residual:9.1e}")
    if MEASURED:
        terminalreporter.section("measured")
        for line in MEASURED:
            terminalreporter.write_line(line)
