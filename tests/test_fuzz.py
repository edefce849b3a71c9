"""Right calls give numbers; a call with one spoilt table says so, or gives numbers too: never NaN without a word."""

import pytest
import torch
from fuzz_calls import CALLS, drawn
from torch import Tensor

pytestmark = [pytest.mark.nightly, pytest.mark.filterwarnings("ignore")]


def has_nan(found) -> bool:
    if isinstance(found, Tensor):
        return bool(found.isnan().any())
    return isinstance(found, tuple | list) and any(map(has_nan, found))


def with_value(value: float):
    def spoil(table: Tensor, cell: int) -> Tensor:
        spoilt = table.detach().clone()
        spoilt.view(-1)[cell % spoilt.numel()] = value
        return spoilt

    return spoil


SPOILT = {
    "NaN": with_value(torch.nan),
    "+inf": with_value(torch.inf),
    "-inf": with_value(-torch.inf),
    "a dimension less": lambda table, cell: table[0],
    "a dimension more": lambda table, cell: table[None],
    "a row less": lambda table, cell: table[1:],
    "no rows": lambda table, cell: table[:0],
    "integers": lambda table, cell: table.long(),
    "another dtype": lambda table, cell: table.half(),
    "a list": lambda table, cell: table.tolist(),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_right_call_gives_numbers(name):
    for seed in range(60):
        call = drawn(name, seed)
        assert not has_nan(call.function(**call.arguments))


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("name", [name for name in CALLS if name != "encoders.conv"])  # a network passes NaN on
def test_a_spoilt_call_is_refused_or_gives_numbers(name, how):
    for seed in range(8):
        call = drawn(name, seed)
        for key, table in call.arguments.items():
            if isinstance(table, Tensor) and table.is_floating_point():
                spoilt = SPOILT[how](table, 7 * seed)
                try:
                    found = call.function(**call.arguments | {key: spoilt})
                except (ValueError, TypeError, RuntimeError, AttributeError):
                    continue
                assert not has_nan(found), f"{key}, seed {seed}"
