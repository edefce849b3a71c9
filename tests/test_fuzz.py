"""Right calls give numbers; a call with one spoilt table says so, or gives numbers too: never NaN without a word."""

import pytest
import torch
from fuzz_calls import FUZZED
from hypothesis import HealthCheck, given, settings, strategies as st
from torch import Tensor

pytestmark = [pytest.mark.nightly, pytest.mark.filterwarnings("ignore")]
nightly = settings(
    max_examples=60, derandomize=True, deadline=None, database=None, suppress_health_check=[*HealthCheck]
)
each_function = pytest.mark.parametrize("name", FUZZED)


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


@each_function
def test_a_right_call_gives_numbers(name):
    @nightly
    @given(FUZZED[name])
    def run(call):
        assert not has_nan(call.function(**call.arguments))

    run()


@pytest.mark.parametrize("name", [name for name in FUZZED if name != "encoders.conv"])  # a network passes NaN on
def test_a_spoilt_call_is_refused_or_gives_numbers(name):
    @nightly
    @given(FUZZED[name], st.data())
    def run(call, data):
        tables = [
            key for key, value in call.arguments.items() if isinstance(value, Tensor) and value.is_floating_point()
        ]
        key, how = data.draw(st.sampled_from(tables)), data.draw(st.sampled_from([*SPOILT]))
        spoilt = SPOILT[how](call.arguments[key], data.draw(st.integers(0, 99)))
        try:
            found = call.function(**call.arguments | {key: spoilt})
        except (ValueError, TypeError, RuntimeError, AttributeError):
            return
        assert not has_nan(found), f"{key}: {how}"

    run()
