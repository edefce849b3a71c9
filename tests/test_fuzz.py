"""Whatever it is given, a public function answers rightly or says what is wrong: never NaN, never an error from its depths."""

import re
import traceback
from collections import Counter
from pathlib import Path

import pytest
import torch
from fuzz import Call, inventory
from fuzz_calls import FUZZED
from hypothesis import HealthCheck, Phase, given, settings
from residuals import MEASURED
from torch import Tensor

import rpm_tutorial as rpm

PACKAGE = str(Path(rpm.__file__).parent)
TRIED: Counter = Counter()

RESULT = "holds what a function returned, and computes nothing from arguments"
INSIDE = "shared by modules of the package, after their checks; not named in rpm.__all__"
PROCESSES = "talks to other processes: tests/test_distributed.py"
DRAWS = "draws numbers that were computed, and checked, elsewhere: tests/test_figures.py"
STATES = "every state that its sliders allow is rendered: tests/test_lesson_widgets.py"
FILES = "reads or writes files: tests/test_checkpoints.py and test_datasets.py"
NO_ARRAYS = "takes no arrays and no numbers of the caller's"
PAGE = "needs a page or an event loop: tests/test_dashboard.py"
EXEMPT = {
    **dict.fromkeys(
        (
            "objectives.Objective",
            "finite.ELBO",
            "critics.LinearForm",
            "evidence.Evidence",
            "evidence.SampledEvidence",
            "labelled_evidence.LabelEvidence",
            "critic_checks.Check",
            "critic_checks.CriticReport",
            "training.LogRow",
            "datasets.Images",
            "datasets.MovingBalls",
            "datasets.MovingSequences",
            "derivation.Line",
            "exercise.Verdict",
            "handouts.Solution",
        ),
        RESULT,
    ),
    **dict.fromkeys(
        (
            "objectives.Pairs",
            "objectives.Pairs.of",
            "objectives.Pairs.cells",
            "objectives.Pairs.log_marginal",
            "objectives.Pairs.log_mean_f",
            "objectives.Pairs.objective",
            "objectives.rounded",
            "critics.WithBias",
            "finite.log_likelihood",
            "checkpoints.reason",
            "checkpoints.copied",
            "checkpoints.remember",
            "checkpoints.sole_writer",
        ),
        INSIDE,
    ),
    **dict.fromkeys(
        (
            "checkpoints.save_checkpoint",
            "checkpoints.load_checkpoint",
            "training.Trainer.load_state_dict",
            "training.Trainer.save",
            "training.Trainer.load",
            "datasets.ViewPairs.load_state_dict",
            "datasets.fashion_mnist",
            "datasets.fashion_mnist_or_digits",
        ),
        FILES,
    ),
    **dict.fromkeys(
        ("datasets.digits", "datasets.fashion_mnist_folder", "widgets.choice", "widgets.explore"), NO_ARRAYS
    ),
    **dict.fromkeys(
        ("exercise.Exercise", "exercise.Exercise.check", "exercise.Exercise.hint", "exercise.Exercise.verdict"),
        "takes a reader's answer of any kind, and says what is wrong with it: tests/test_exercises.py",
    ),
    **{
        f"{name}.": reason
        for name, reason in {
            "chain": "takes tables that have to fit each other: tests/test_chain.py",
            "environment": NO_ARRAYS,
            "cli": "click parses its arguments: tests/test_cli.py",
            "handouts": FILES,
            "distributed": PROCESSES,
            "figures": DRAWS,
            "lessons": STATES,
            "dashboard": PAGE,
            "widgets": PAGE,
        }.items()
    },
}


def is_exempt(name: str) -> bool:
    return name in EXEMPT or f"{name.split('.')[0]}." in EXEMPT


def test_every_public_function_is_fuzzed_or_exempt_for_a_reason():
    lacking = [name for name in inventory() if name not in FUZZED and not is_exempt(name)]
    assert lacking == [], "without a strategy in FUZZED (tests/fuzz_calls.py) and without a reason in EXEMPT (here)"


def test_no_strategy_is_left_over_from_a_function_that_is_gone():
    assert {*FUZZED} <= {*inventory()} and {name for name in EXEMPT if name[-1] != "."} <= {*inventory()}


def survives(call: Call) -> str:
    """Make the call; what came of it: "right" or "refused"."""
    before = {name: v.detach().clone() for name, v in call.arguments.items() if isinstance(v, Tensor)}
    state = torch.get_rng_state()
    try:
        found = call.function(**call.arguments)
    except (ValueError, TypeError) as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        assert where.filename.startswith(PACKAGE), (
            f"{type(error).__name__} from {where.filename}:{where.lineno}: {error}"
        )
        said = str(error).replace("learning rate", "learning_rate").replace("factors[", "factors_").replace("]", " ")
        named = [name for name in call.arguments if re.search(rf"\b{name}\b", said)]
        assert named, f"names none of {', '.join(call.arguments)}: {error}"
        outcome = "refused"
    else:
        call.right(found, call.arguments)
        outcome = "right"
    assert torch.equal(state, torch.get_rng_state()), "the global random state was touched"
    for name, tensor in before.items():
        now = call.arguments[name].detach()
        assert now.dtype == tensor.dtype and str(now) == str(tensor), f"{name} was changed"
    return outcome


def fuzz(name: str, examples: int) -> None:
    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(FUZZED[name])
    def run(call: Call) -> None:
        TRIED[survives(call)] += 1

    run()


@pytest.mark.parametrize("name", FUZZED)
def test_a_few_calls_of_each_are_answered_rightly_or_refused(name):
    fuzz(name, 6)


@pytest.mark.slow
@pytest.mark.parametrize("name", FUZZED)
def test_many_calls_of_each_are_answered_rightly_or_refused(name):
    fuzz(name, 120)


def test_both_outcomes_occur_and_are_counted():
    MEASURED.append(
        f"fuzz: {TRIED.total()} calls of {len(FUZZED)} functions, {TRIED['right']} right, {TRIED['refused']} refused"
    )
