"""Exercise of neighbour 6, adversarial intrinsic motivation: the objective of a critic that is learned from transitions."""

import torch

from ..exercise import Exercise


def _visits(seed: int) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    f = 2 * torch.randn(7, generator=generator, dtype=torch.float64)
    visited, goal = torch.randint(7, (5 + seed,), generator=generator), 6
    return f, visited, goal, torch.randint(7, (9, 2), generator=generator), 0.5 + seed


def _excess(f, transitions):
    return ((f[transitions[:, 1]] - f[transitions[:, 0]]).abs() - 1).clamp(min=0)


def _value(f, visited, goal, penalty):
    return f[goal] - f[visited].mean() - penalty


objective = Exercise(
    prompt=(
        "Return f(goal) - E f(visited) - weight * E max(|f(s') - f(s)| - 1, 0)^2, from f of shape (S,), the indices visited (n,) "
        "and goal, the pairs of indices (s, s') in transitions (m, 2), and weight."
    ),
    case=_visits,
    solution=lambda f, visited, goal, transitions, weight: _value(
        f, visited, goal, weight * _excess(f, transitions).square().mean()
    ),
    hints=(
        "Three terms: a number, a mean over visited states, a mean over transitions. f[indices] looks them up.",
        "A transition changes f by f[transitions[:, 1]] - f[transitions[:, 0]]; below 1 in size that costs nothing: clamp(min=0).",
        "f[goal] - f[visited].mean() - weight * ((f[transitions[:, 1]] - f[transitions[:, 0]]).abs() - 1)"
        ".clamp(min=0).square().mean()",
    ),
    misconceptions={
        lambda f, visited, goal, transitions, weight: _value(
            f, visited, goal, weight * _excess(f, transitions).mean()
        ): "the square is missing: a small excess should cost little, and a large one much.",
        lambda f, visited, goal, transitions, weight: _value(
            f, visited, goal, weight * _excess(f, transitions).square().sum()
        ): "the penalty is a mean over transitions, not a sum: it must not grow with their number.",
        lambda f, visited, goal, transitions, weight: (
            -_value(f, visited, goal, -weight * _excess(f, transitions).square().mean())
        ): "goal and visited states are the wrong way round: f has to be high at the goal.",
        lambda f, visited, goal, transitions, weight: _value(
            f, visited, goal, -weight * _excess(f, transitions).square().mean()
        ): "this objective is maximised, so a penalty is subtracted.",
        lambda f, visited, goal, transitions, weight: _value(
            f, visited, goal, weight * ((f[transitions[:, 1]] - f[transitions[:, 0]]).abs() - 1).square().mean()
        ): "a change of less than 1 is allowed and costs nothing; you pull every change towards 1.",
        lambda f, visited, goal, transitions, weight: _value(
            f,
            visited,
            goal,
            weight * (f[transitions[:, 1]] - f[transitions[:, 0]] - 1).clamp(min=0).square().mean(),
        ): "a fall of more than 1 breaks the bound as well: take the absolute value.",
    },
)
