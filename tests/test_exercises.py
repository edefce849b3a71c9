"""Every exercise of every lesson and neighbour: its solution passes, each misconception is told apart, nothing else does."""

import math
from collections import Counter

import numpy as np
import pytest
import scipy.stats
import torch

from rpm_tutorial import gaussian, lessons, objectives
from rpm_tutorial.course.exercise import Exercise
from rpm_tutorial.course.lessons import LESSONS, NEIGHBOURS

ALL = {
    f"{lesson}.{name}": exercise
    for lesson in LESSONS + NEIGHBOURS
    for name, exercise in vars(getattr(lessons, lesson)).items()
    if isinstance(exercise, Exercise)
}
WRONG = [(name, wrong, message) for name, e in ALL.items() for wrong, message in e.misconceptions.items()]
each_exercise = pytest.mark.parametrize("name", ALL)


def as_tensor(answer) -> torch.Tensor:
    return torch.as_tensor(answer, dtype=torch.float64)


def lost_in_two_rows(q):
    """The weight of the first two rows times their Jensen-Shannon divergence."""

    def entropy(p):
        return -torch.special.xlogy(p, p).sum()

    rows, weight = q[:2], q[:2].sum(1)
    mixed = rows.sum(0) / weight.sum()
    return weight.sum() * entropy(mixed) - sum(w * entropy(row / w) for w, row in zip(weight, rows))


def information_of_quarters(z, z_prime):
    """Counted sample by sample, then H(a) + H(b) - H(a, b), of which H(a) = H(b) = log 4."""
    below = [[sum(other < one for other in side) for one in side] for side in (z, z_prime)]
    cells = [(4 * a // len(z), 4 * b // len(z)) for a, b in zip(*below)]
    return 2 * math.log(4) + sum(k / len(z) * math.log(k / len(z)) for k in Counter(cells).values())


# Right answers, written as someone else would.
OTHERWISE = {
    "lesson_00.ceiling": lambda n: -math.log(1 / n),
    "lesson_00.log_evidence": lambda infonce, n: infonce + math.log(1 / n**2),
    "lesson_01.likelihood": lambda q, p: torch.einsum("xz,x->zx", q, p) / torch.einsum("xz,x->z", q, p)[:, None],
    "lesson_01.pairs": lambda prior, a, b: torch.einsum("zw,zx,wy->xy", prior, a, b),
    "lesson_02.constant": lambda p: sum(torch.xlogy(m, m).sum() for m in (p.sum(0), p.sum(1))).item(),
    "lesson_02.gap": lambda q, p: torch.nn.functional.kl_div(p.log(), q, reduction="sum"),
    "lesson_03.infonce": lambda s, q: (q * (s - torch.log(s.exp() @ q.sum(0))[:, None])).sum().numpy(),
    "lesson_03.prior": lambda s, q: torch.softmax(s + q.sum(0).log(), 1) * q.sum(1, keepdim=True),
    "lesson_04.log_p": lambda s: [float(row[i] - row.exp().sum().log() - math.log(len(s))) for i, row in enumerate(s)],
    "lesson_04.pairs_needed": lambda: 149,
    "lesson_05.bias": lambda chi_squared, n: -0.5 / (n / chi_squared),
    "lesson_05.batch_size": lambda mi, error: math.exp(2 * mi) / 2 / error - 0.5 / error,
    "lesson_09.chain": lambda q, s1, s2: (
        (q.sum(2) * s1).sum()
        + (q * s2).sum()
        - q.sum((1, 2)) @ (s1.exp() @ q.sum((0, 2))).log()
        - (q.sum(2) * (s2.exp() @ q.sum((0, 1))).log()).sum()
    ),
    "lesson_09.forgotten": lambda q: (
        q * (q * q.sum((0, 2))[:, None] / q.sum(2, keepdim=True) / q.sum(0, keepdim=True)).log()
    ).sum(),
    "lesson_09.noise": lambda sigma, k: math.sqrt(sum((sigma * j) ** 2 for j in range(1, k + 1))),
    "lesson_05.normaliser": lambda own, others, n: math.log((math.exp(own) + (n - 1) * others.exp().mean().item()) / n),
    "lesson_06.divergence": lambda rho, scale: -gaussian.infonce_random_walk(rho, scale) - 0.5 * math.log(1 - rho**2),
    "lesson_06.best_scale": lambda rho: ((u := (math.sqrt(9 - 8 * rho) - 1) / 2) / (1 - u)) ** 0.5,
    "lesson_06.lost_by_merging": lambda q: lost_in_two_rows(q),
    "lesson_07.laplace_scores": lambda z, z_prime, b: (z[:, None] - z_prime).abs().sum(2) / -b,
    "lesson_07.log_bayes_factor": lambda a, b, n: (a - 2 * math.log(n)) * n - (b - 2 * math.log(n)) * n,
    "lesson_07.posterior": lambda infonce, n: (weight := (n * (infonce - infonce.max())).exp()) / weight.sum(),
    "lesson_08.top_one": lambda log_f: sum(row.argmax().item() == i for i, row in enumerate(log_f)) / len(log_f),
    "lesson_08.typical_probability": lambda infonce, n: math.exp(infonce - math.log(n)),
    "lesson_08.infonce_at": lambda z, z_prime, t: (
        (z @ z_prime.T / t).log_softmax(1).diagonal().mean() + math.log(len(z))
    ),
    "lesson_02.elbo_above_c": lambda q, log_p: (
        (q * log_p).sum() - torch.xlogy(q.sum(1), q.sum(1)).sum() - torch.xlogy(q.sum(0), q.sum(0)).sum()
    ),
    "lesson_03.clip": lambda s: (objectives.infonce(s).value + objectives.infonce(s.T).value) / 2,
    "lesson_04.by_tiles": lambda s: [math.log(sum(math.exp(x - max(r)) for x in r)) + max(r) for r in s.tolist()],
    "lesson_05.of_a_batch": lambda s: objectives.infonce(s).value,
    "lesson_06.binned": lambda z, z_prime: information_of_quarters(z.tolist(), z_prime.tolist()),
    "lesson_08.probe": lambda z, labels, z_test, labels_test: (
        sum((z_test @ torch.linalg.pinv(z) @ torch.eye(3).double()[labels]).argmax(1) == labels_test) / len(z_test)
    ),
    "lesson_10.posterior": lambda p, f, g, a, b: (p.log() + f.log() + g.log() - a.log() - b.log()).softmax(1),
    "lesson_10.m_step": lambda p, q: torch.einsum("xy,xyz->xz", p / p.sum(1, keepdim=True), q),
    "lesson_10.found_all": lambda beta, k: math.log(k) - math.log(1 + (k - 1) * math.exp(-beta)),
    "lesson_11.periodic": lambda a, b, k: k * (torch.outer(a.cos(), b.cos()) + torch.outer(a.sin(), b.sin())),
    "lesson_11.drifting_walk": lambda z, z_prime, drift, scale: -torch.cdist(z / scale, (z_prime - drift) / scale, p=1),
    "neighbour_06.objective": lambda f, visited, goal, transitions, weight: (
        (f[goal] - f[visited]).mean()
        - weight * torch.relu(f[transitions].diff(dim=1).abs() - 1).pow(2).sum() / len(transitions)
    ),
    "neighbour_09.bound": lambda logits, codes: (
        math.log(logits.shape[1]) - torch.nn.functional.cross_entropy(logits, codes)
    ),
    "neighbour_10.chosen": lambda shared, left, right, needed: min(
        (s.item(), k) for k, s in enumerate(shared) if left[k] > needed - 1e-8 and right[k] > needed - 1e-8
    )[1],
    "neighbour_01.pinned": lambda s, q: (s.exp() / torch.einsum("ij,kj->ik", s.exp(), q).sum(1, keepdim=True)).log(),
    "neighbour_04.energy_based": lambda T, q, p: (
        p * (((pi := q * T.exp()) / pi.sum(1, keepdim=True)) / p.sum(0, keepdim=True)).log()
    ).sum(),
    "neighbour_08.log_ratio": lambda p, n_pairs, n_independent: p.logit() + math.log(n_independent) - math.log(n_pairs),
    "neighbour_11.entropy_slope": lambda score, motion: -torch.einsum("nd,nd->", score, motion) / len(score),
    "neighbour_02.outlyingness": lambda z, reference: (
        torch.linalg.solve_triangular(
            torch.linalg.cholesky(torch.cov(reference.T)), (z - reference.mean(0)).T, upper=False
        ).square()
    ).sum(0),
    "neighbour_03.score": lambda target, others: sum(
        torch.distributions.Normal(round_of_others.mean(0), round_of_others.var(0).sqrt()).cdf(round_of_target)
        for round_of_target, round_of_others in zip(target, others)
    ),
    "neighbour_05.bits_of_logs": lambda y, prediction: (
        -torch.distributions.LogNormal(prediction.log(), (y / prediction).log().square().mean().sqrt())
        .log_prob(y)
        .mean()
        / math.log(2)
    ),
    "neighbour_07.success": lambda members, others: (
        0.5 + scipy.stats.ks_2samp(members, others, alternative="less", method="asymp").statistic / 2
    ),
}


def test_every_exercise_has_a_right_answer_written_differently():
    assert set(OTHERWISE) == set(ALL)


@each_exercise
def test_the_solution_passes_and_so_does_the_same_answer_written_differently(name):
    for answer in (ALL[name].solution, OTHERWISE[name]):
        verdict = ALL[name].verdict(answer)
        assert verdict.right is True and verdict.message.startswith("✓ Right")


def test_a_number_is_an_answer_where_there_is_nothing_to_compute_from():
    assert lessons.lesson_04.pairs_needed.verdict(149).right is True
    assert lessons.lesson_04.pairs_needed.verdict(torch.tensor(149)).right is True


ROUNDED = {
    "a tensor": lambda answer: answer.float(),
    "back in float64": lambda answer: answer.float().double(),
    "of Python": lambda answer: answer.float().tolist(),
    "of NumPy": lambda answer: np.float32(answer.detach().numpy()),
}


@each_exercise
@pytest.mark.parametrize("kind", ROUNDED)
def test_a_right_answer_in_float32_passes_whatever_its_type(name, kind):
    """torch.tensor(n).log().item() is one."""
    assert ALL[name].verdict(lambda *case: ROUNDED[kind](as_tensor(OTHERWISE[name](*case)))).right is True


@each_exercise
def test_so_does_one_from_arithmetic_in_float32(name):
    def single(*case):
        case = [a.float() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in case]
        return ALL[name].solution(*case)

    assert ALL[name].verdict(single).right is True


@each_exercise
@pytest.mark.parametrize("blank", [..., lambda *_: ...], ids=["...", "returns ..."])
def test_an_unanswered_exercise_says_so_and_is_neither_right_nor_wrong(name, blank):
    verdict = ALL[name].verdict(blank)
    assert verdict.right is None and "Not answered yet" in verdict.message and "hint" in verdict.message


@each_exercise
@pytest.mark.parametrize("answer", [None, print], ids=["None", "print"])
def test_a_function_that_prints_instead_of_returning_is_told_so(name, answer):
    verdict = ALL[name].verdict(answer)
    assert verdict.right is False and "None" in verdict.message and "print only shows it" in verdict.message


# What happens to a right answer on its last step, and a word of what its author is told.
SLIPS = {
    "minus": lambda answer: -answer,
    "in bits": lambda answer: answer / math.log(2),
    "base 10": lambda answer: answer / math.log(10),
    "exponential": lambda answer: answer.exp(),
    "one over": lambda answer: 1 / answer,
    "one minus": lambda answer: 1 - answer,
    "one too much": lambda answer: answer + 1,
    "one too little": lambda answer: answer - 1,
    "twice": lambda answer: 2 * answer,
    "half": lambda answer: answer / 2,
    "percent": lambda answer: 100 * answer,
    "transpose": lambda answer: answer.T if answer.ndim == 2 else answer,
    "up to a whole number": lambda answer: answer.ceil(),
    "down to a whole number": lambda answer: answer.floor(),
}


def told_of(name, change) -> str:
    """The message on the right answer after a change."""
    return ALL[name].verdict(lambda *case: change(as_tensor(ALL[name].solution(*case)))).message


@each_exercise
def test_a_right_answer_but_for_units_sign_or_rounding_is_told_for_what(name):
    right = [as_tensor(ALL[name].solution(*ALL[name].case(seed))) for seed in range(3)]
    for word, change in SLIPS.items():
        changed = [change(answer) for answer in right]
        if all(map(torch.equal, changed, right)) or not all(answer.isfinite().all() for answer in changed):
            continue
        message = told_of(name, change)
        assert word in message or message[11:] in ALL[name].misconceptions.values(), (word, message)


def test_a_value_for_each_pair_is_told_that_one_is_asked_for():
    each = lessons.lesson_03.clip.verdict(
        lambda s: (s.log_softmax(1) + s.log_softmax(0)).diagonal() / 2 + math.log(len(s))
    )
    assert each.message == "✗ Not yet: your values are right one by one; their mean is asked for."
    assert "size 1" in lessons.lesson_00.ceiling.verdict(lambda n: [math.log(n)]).message
    assert "their sum is asked for" in lessons.lesson_02.gap.verdict(lambda q, p: q * (q / p).log()).message


def test_a_number_is_no_answer_where_a_function_is_asked_for():
    verdict = lessons.lesson_00.ceiling.verdict(math.log(100))
    assert verdict.right is False and "check(f), not check(f(x))" in verdict.message


def test_a_sum_over_pairs_where_their_mean_is_asked_is_told_and_the_reverse():
    of_a_batch = lessons.lesson_05.of_a_batch
    message = of_a_batch.verdict(lambda s: (s.diagonal() - s.logsumexp(1) + math.log(len(s))).sum()).message
    assert "6 times the answer" in message and "a mean asked for, not a sum" in message
    message = lessons.lesson_02.gap.verdict(lambda q, p: (q * (q / p).log()).mean()).message
    assert "the answer over 12" in message and "a sum asked for, not a mean" in message


@each_exercise
def test_an_answer_of_nan_or_infinity_is_called_so(name):
    for number, word in ((torch.nan, "NaN"), (torch.inf, "an infinity")):
        message = told_of(name, lambda answer, number=number: torch.full_like(answer, number))
        assert f"your result holds {word}" in message and "overflows" in message


def test_a_posterior_is_tried_at_the_size_of_the_lesson():
    naive = lessons.lesson_07.posterior.verdict(lambda evidence, n: (w := (n * evidence).exp()) / w.sum())
    assert naive.right is False and "overflows" in naive.message


def test_a_sum_of_exponentials_is_tried_beyond_float64():
    message = lessons.lesson_04.by_tiles.verdict(lambda s: s.exp().sum(1).log()).message
    assert "an infinity" in message and "overflows" in message


@pytest.mark.parametrize("name, wrong, message", WRONG, ids=[f"{n}-{k}" for k, (n, _, _) in enumerate(WRONG)])
def test_each_misconception_is_told_which_one_it_is(name, wrong, message):
    verdict = ALL[name].verdict(wrong)
    assert verdict.right is False and verdict.message == f"✗ Not yet: {message}"


def test_six_lessons_have_a_bug_to_find_each_of_which_is_told_by_its_symptom():
    planted = [name for name, exercise in ALL.items() if exercise.planted]
    assert len(planted) == len({name.split(".")[0] for name in planted}) == 6
    for exercise in map(ALL.get, planted):
        assert exercise.verdict(exercise.planted).message == f"✗ Not yet: {exercise.misconceptions[exercise.planted]}"


@each_exercise
def test_an_exercise_knows_several_wrong_ideas_each_with_a_message_of_its_own(name):
    exercise = ALL[name]
    assert exercise.misconceptions and len(set(exercise.misconceptions.values())) == len(exercise.misconceptions)
    assert exercise.prompt.startswith("Return ") and len(exercise.hints) >= 2


@each_exercise
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_near_miss_is_wrong_and_told_by_how_much(name, dtype):
    exercise = ALL[name]
    verdict = exercise.verdict(lambda *case: (as_tensor(exercise.solution(*case)) * (1 + 1e-3) + 1e-3).to(dtype))
    assert verdict.right is False and "off by up to" in verdict.message and exercise.hints[0] in verdict.message


@each_exercise
def test_a_wrong_shape_or_type_is_told_with_what_was_expected(name):
    exercise = ALL[name]
    shape = exercise.verdict(lambda *case: torch.zeros(2, 3, 4))
    assert shape.right is False and "shape (2, 3, 4); expected (" in shape.message
    kind = exercise.verdict(lambda *case: "five")
    assert kind.right is False and "str" in kind.message and "expected a number or a tensor" in kind.message


@each_exercise
def test_a_function_that_raises_is_reported_not_propagated(name):
    def broken(*_case):
        raise KeyError("mine")

    verdict = ALL[name].verdict(broken)
    assert verdict.right is False and "KeyError" in verdict.message and "mine" in verdict.message


@each_exercise
def test_an_answer_may_overwrite_its_arguments(name):
    exercise = ALL[name]

    def tidy(*case):
        answer = as_tensor(exercise.solution(*case)).clone()
        for argument in case:
            if isinstance(argument, torch.Tensor):
                argument.zero_()
        return answer

    assert exercise.verdict(tidy).right is True


@each_exercise
def test_hints_come_in_order_and_one_that_is_not_there_is_refused(name, capsys):
    exercise = ALL[name]
    for step, hint in enumerate(exercise.hints, start=1):
        exercise.hint(step)
        assert capsys.readouterr().out == f"Hint {step} of {len(exercise.hints)}: {hint}\n"
    exercise.hint()
    assert exercise.hints[0] in capsys.readouterr().out
    for step in (0, len(exercise.hints) + 1):
        with pytest.raises(ValueError, match=f"step is {step}; this exercise has hints 1 to {len(exercise.hints)}"):
            exercise.hint(step)


def test_check_prints_the_verdict(capsys):
    lessons.lesson_00.ceiling.check(...)
    lessons.lesson_00.ceiling.check(math.log)
    lessons.lesson_03.infonce.check(lambda s, q: objectives.nwj(s, q).value)
    lines = capsys.readouterr().out.splitlines()
    assert [line[0] for line in lines] == ["○", "✓", "✗"]
