"""Every exercise of every lesson and neighbour: right answers pass, each misconception and slip is named."""

import math

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
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
each_exercise = pytest.mark.parametrize("name", ALL)


def as_tensor(answer) -> torch.Tensor:
    return torch.as_tensor(answer, dtype=torch.float64)


def to_float32(argument):
    return argument.float() if isinstance(argument, torch.Tensor) and argument.is_floating_point() else argument


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
    "lesson_05.log_p": lambda s: [float(row[i] - row.exp().sum().log() - math.log(len(s))) for i, row in enumerate(s)],
    "lesson_05.pairs_needed": lambda: 149,
    "lesson_06.bias": lambda chi_squared, n: -0.5 / (n / chi_squared),
    "lesson_06.batch_size": lambda mi, error: math.exp(2 * mi) / 2 / error - 0.5 / error,
    "lesson_10.chain": lambda q, s1, s2: (
        (q.sum(2) * s1).sum()
        + (q * s2).sum()
        - q.sum((1, 2)) @ (s1.exp() @ q.sum((0, 2))).log()
        - (q.sum(2) * (s2.exp() @ q.sum((0, 1))).log()).sum()
    ),
    "lesson_10.forgotten": lambda q: (
        q * (q * q.sum((0, 2))[:, None] / q.sum(2, keepdim=True) / q.sum(0, keepdim=True)).log()
    ).sum(),
    "lesson_10.acceleration": lambda z_0, z_1, z_2: z_2 + 2 * (z_2 - z_1) - (z_1 - z_0),
    "lesson_11.noise": lambda sigma, k: math.sqrt(sum((sigma * j) ** 2 for j in range(1, k + 1))),
    "lesson_11.two_steps": lambda A_0, A_1: torch.linalg.matrix_power(
        torch.cat([torch.eye(4).double()[2:], torch.cat([A_0, A_1], 1)]), 2
    )[2:],
    "lesson_11.two_horizons": lambda q, s_1, s_2: sum(
        (p * (s - (s.exp() @ p.sum(0)).log()[:, None])).sum()
        for p, s in ((q.sum(2), s_1), (q.sum(0), s_1), (q.sum(1), s_2))
    ),
    "lesson_12.doubt": lambda a, k: sum((1 - a * a) * a ** (2 * j) for j in range(k)),
    "lesson_12.update": lambda p, v: p * v / (p + v - p * v),
    "lesson_06.normaliser": lambda own, others, n: math.log((math.exp(own) + (n - 1) * others.exp().mean().item()) / n),
    "lesson_07.divergence": lambda rho, scale: -gaussian.infonce_random_walk(rho, scale) - 0.5 * math.log(1 - rho**2),
    "lesson_07.best_scale": lambda rho: ((u := (math.sqrt(9 - 8 * rho) - 1) / 2) / (1 - u)) ** 0.5,
    "lesson_07.lost_by_merging": lambda q: q[:2].sum() * objectives.mutual_information(q[:2] / q[:2].sum()),
    "lesson_08.laplace_scores": lambda z, z_prime, b: (z[:, None] - z_prime).abs().sum(2) / -b,
    "lesson_08.log_likelihood_ratio": lambda a, b, n: (a - 2 * math.log(n)) * n - (b - 2 * math.log(n)) * n,
    "lesson_08.posterior": lambda infonce, n: (weight := (n * (infonce - infonce.max())).exp()) / weight.sum(),
    "lesson_09.top_one": lambda log_f: sum(row.argmax().item() == i for i, row in enumerate(log_f)) / len(log_f),
    "lesson_09.typical_probability": lambda infonce, n: math.exp(infonce - math.log(n)),
    "lesson_09.infonce_at": lambda z, z_prime, t: (
        (z @ z_prime.T / t).log_softmax(1).diagonal().mean() + math.log(len(z))
    ),
    "lesson_02.elbo_above_c": lambda q, log_p: (
        (q * log_p).sum() - torch.xlogy(q.sum(1), q.sum(1)).sum() - torch.xlogy(q.sum(0), q.sum(0)).sum()
    ),
    "lesson_04.level": lambda s, q: 1 - ((s.exp() * q.sum(1)[:, None]).sum(0) @ q.sum(0)).log(),
    "lesson_04.clip": lambda s: (objectives.infonce(s).value + objectives.infonce(s.T).value) / 2,
    "lesson_05.by_tiles": lambda s: [math.log(sum(math.exp(x - max(r)) for x in r)) + max(r) for r in s.tolist()],
    "lesson_06.of_a_batch": lambda s: objectives.infonce(s).value,
    "lesson_07.binned": lambda *sides: sklearn.metrics.mutual_info_score(
        *(np.digitize(side, np.quantile(side, [0.25, 0.5, 0.75])) for side in sides)
    ),
    "lesson_09.probe": lambda z, labels, z_test, labels_test: (
        sum((z_test @ torch.linalg.pinv(z) @ torch.eye(3).double()[labels]).argmax(1) == labels_test) / len(z_test)
    ),
    "lesson_13.posterior": lambda p, f, g, a, b: (p.log() + f.log() + g.log() - a.log() - b.log()).softmax(1),
    "lesson_13.m_step": lambda p, q: torch.einsum("xy,xyz->xz", p / p.sum(1, keepdim=True), q),
    "lesson_14.knows_nothing": lambda beta, k: beta / k + math.log(k / (math.exp(beta) + k - 1)),
    "lesson_14.found_all": lambda beta, k: math.log(k) - math.log(1 + (k - 1) * math.exp(-beta)),
    "lesson_15.smoothed_infonce": lambda s, e: (
        math.log(len(s)) - torch.nn.functional.cross_entropy(s, torch.arange(len(s)), label_smoothing=e)
    ),
    "lesson_15.own_column": lambda s: torch.stack([row[i].exp() / row.exp().sum() for i, row in enumerate(s)]),
    "lesson_16.periodic": lambda a, b, k: k * (torch.outer(a.cos(), b.cos()) + torch.outer(a.sin(), b.sin())),
    "lesson_16.drifting_walk": lambda z, z_prime, drift, scale: -torch.cdist(z / scale, (z_prime - drift) / scale, p=1),
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
    "neighbour_02.outlyingness": lambda z, r: ((d := z - r.mean(0)) * torch.linalg.solve(torch.cov(r.T), d.T).T).sum(1),
    "neighbour_03.score": lambda target, others: scipy.stats.norm(others.mean(1), others.std(1)).cdf(target).sum(0),
    "neighbour_05.bits_of_logs": lambda y, p: (
        -np.log2(scipy.stats.lognorm((y / p).log().square().mean().sqrt(), scale=p).pdf(y)).mean()
    ),
    "neighbour_07.success": lambda members, others: (
        0.5 + scipy.stats.ks_2samp(members, others, alternative="less", method="asymp").statistic / 2
    ),
}


@each_exercise
def test_it_is_whole(name):
    exercise = ALL[name]
    assert exercise.prompt.startswith("Return ") and len(exercise.hints) >= 2
    assert exercise.misconceptions and len(set(exercise.misconceptions.values())) == len(exercise.misconceptions)


@each_exercise
def test_a_right_answer_passes_however_it_is_written(name):
    exercise, other = ALL[name], OTHERWISE[name]
    answers = [exercise.solution, other, lambda *case: exercise.solution(*map(to_float32, case))]
    for to_type in (to_float32, lambda a: a.float().double(), lambda a: a.float().tolist(), lambda a: np.float32(a)):
        answers.append(lambda *case, to_type=to_type: to_type(as_tensor(other(*case)).detach()))
    for answer in answers:
        verdict = exercise.verdict(answer)
        assert verdict.right is True and verdict.message.startswith("✓ Right")


@each_exercise
def test_each_misconception_is_told_which_one_it_is(name):
    for wrong, message in ALL[name].misconceptions.items():
        assert ALL[name].verdict(wrong) == (False, f"✗ Not yet: {message}")


# A slip on the last step, and a word of what its author is told.
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
    "a whole number": lambda answer: answer.ceil(),
    "to a whole number": lambda answer: answer.floor(),
}


def told_of(name, change) -> str:
    """The message on the right answer after a change."""
    return ALL[name].verdict(lambda *case: change(as_tensor(ALL[name].solution(*case)))).message


@each_exercise
def test_a_slip_in_units_sign_or_rounding_is_named(name):
    right = [as_tensor(ALL[name].solution(*ALL[name].case(seed))) for seed in range(3)]
    for word, change in SLIPS.items():
        changed = [change(answer) for answer in right]
        if all(map(torch.equal, changed, right)) or not all(answer.isfinite().all() for answer in changed):
            continue
        message = told_of(name, change)
        assert word in message or message[11:] in ALL[name].misconceptions.values(), (word, message)


@each_exercise
def test_anything_else_is_told_what_is_wrong_with_it(name):
    for dtype in (torch.float32, torch.float64):
        near = told_of(name, lambda answer, dtype=dtype: (answer * (1 + 1e-3) + 1e-3).to(dtype))
        assert "off by up to" in near and ALL[name].hints[0] in near
    for number, word in ((torch.nan, "holds NaN"), (torch.inf, "holds an infinity")):
        assert word in told_of(name, lambda answer, number=number: torch.full_like(answer, number))
    assert "shape (2, 3, 4); expected (" in told_of(name, lambda answer: torch.zeros(2, 3, 4))


OTHER_SLIPS = [
    ("lesson_00.ceiling", ..., "○ Not answered yet"),
    ("lesson_00.ceiling", print, "A function gives its result by return; print only shows it."),
    ("lesson_00.ceiling", lambda n: "five", "✗ The answer is a str; expected a number or a tensor"),
    ("lesson_00.ceiling", math.log(100), "check(f), not check(f(x))"),
    ("lesson_00.ceiling", lambda n: [math.log(n)], "dimensions of size 1"),
    ("lesson_00.ceiling", lambda n: {}[n], "✗ Your function raised KeyError: "),
    ("lesson_02.gap", lambda q, p: q * (q / p).log(), "their sum is asked for"),
    ("lesson_02.gap", lambda q, p: (q * (q / p).log()).mean(), "the answer over 12, a size of the first case"),
    ("lesson_04.clip", lambda s: (s.log_softmax(1) + s.log_softmax(0)).diagonal() / 2 + math.log(len(s)), "their mean"),
    ("lesson_06.of_a_batch", lambda s: len(s) * objectives.infonce(s).value, "6 times the answer"),
    # Tried at the size of the lesson, and beyond float64.
    ("lesson_08.posterior", lambda evidence, n: (w := (n * evidence).exp()) / w.sum(), "overflows"),
    ("lesson_05.by_tiles", lambda s: s.exp().sum(1).log(), "an infinity"),
]


@pytest.mark.parametrize("name, answer, word", OTHER_SLIPS, ids=[word for *_, word in OTHER_SLIPS])
def test_a_slip_is_named(name, answer, word):
    verdict = ALL[name].verdict(answer)
    assert not verdict.right and word in verdict.message


@pytest.mark.parametrize("answer", [149, torch.tensor(149)])
def test_a_number_is_an_answer_where_there_are_no_arguments(answer):
    assert lessons.lesson_05.pairs_needed.verdict(answer) == (True, "✓ Right.")


def test_six_lessons_show_a_function_with_a_bug_whose_message_names_the_symptom():
    with_bug = {name.split(".")[0]: exercise for name, exercise in ALL.items() if exercise.with_bug}
    assert len(with_bug) == 6 and all(exercise.with_bug in exercise.misconceptions for exercise in with_bug.values())


def test_an_answer_may_overwrite_its_arguments():
    def overwriting(recognition, p_x):
        answer = (recognition.T * p_x) / (recognition.T @ torch.diag(p_x)).sum(1, keepdim=True)
        recognition.zero_()
        return answer

    assert lessons.lesson_01.likelihood.verdict(overwriting).right is True


def test_check_prints_the_verdict_and_hint_a_hint(capsys):
    ceiling = lessons.lesson_00.ceiling
    ceiling.check(math.log)
    ceiling.hint()
    ceiling.hint(3)
    assert capsys.readouterr().out.splitlines() == [
        "✓ Right, on 3 random cases.",
        f"Hint 1 of 3: {ceiling.hints[0]}",
        f"Hint 3 of 3: {ceiling.hints[2]}",
    ]
    for step in (0, 4):
        with pytest.raises(ValueError, match=f"step is {step}; this exercise has hints 1 to 3"):
            ceiling.hint(step)
