"""The derivation that lesson 2 runs, (E3) to (E5): its lines agree, and each assumption carries one."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings, strategies as st
from residuals import agree
from worlds import models

from rpm_tutorial import FiniteRPM, priors
from rpm_tutorial.derivation import ASSUMPTIONS, EQUATIONS, derive

BREAKS = dict(zip(ASSUMPTIONS, EQUATIONS))  # each assumption, in their order, the line of the same place


@given(models())
def test_all_lines_of_the_derivation_agree(model):
    bound = model.world.elbo(model.log_prior)
    found = derive(model.world, model.log_prior)
    assert [line.name for line in found] == list(EQUATIONS)
    for line in found:
        agree("(E3)-(E5) every line of the derivation = L", line.value, bound.value, *bound)
        agree("(E3)-(E5) every line of the derivation = the one before", line.residual, 0.0, *bound)


@pytest.mark.parametrize("broken", list(BREAKS)[1:])
@settings(max_examples=10)
@given(sizes=st.tuples(*[st.integers(2, 5)] * 4), seed=st.integers(0, 10_000))
def test_a_broken_assumption_makes_exactly_its_own_line_differ(broken, sizes, seed):
    world = FiniteRPM.random(*sizes, seed=seed)
    log_f = torch.randn(world.q_joint.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = derive(world, priors.infonce(log_f, world.q_joint), broken)
    assert [line.name for line in found if line.residual.abs() > 1e-11] == [BREAKS[broken]]
    for before, line in pairwise(found):
        agree("(E3)-(E5) residual = value - value before", line.residual, line.value - before.value)
