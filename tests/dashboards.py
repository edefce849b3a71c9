"""A small training dashboard for tests, and what they ask of it."""

import asyncio
import functools
import re

import torch
from budgets import HANG

import rpm_tutorial as rpm
from rpm_tutorial import dashboard, datasets, encoders
from rpm_tutorial.course.dashboard import TrainingDashboard

STEPS = 12
digits = functools.cache(datasets.digits)


def make(checkpoint=None, *, width: int = 16, steps: int = STEPS, every: int = 4, seed: int = 0, **options):
    torch.manual_seed(seed)
    images = digits()
    x, x_prime = datasets.two_views(images.x[:60], flip=False, generator=torch.Generator().manual_seed(1))
    trainer = rpm.Trainer(
        encoders.mlp(64, 4, width=width),
        rpm.VonMisesFisher(0.2),
        datasets.view_pairs(images.x[60:], 32, flip=False, seed=seed),
        steps,
    )
    return TrainingDashboard(trainer, x, x_prime, images.labels[:60], checkpoint=checkpoint, every=every, **options)


def parameters(board) -> torch.Tensor:
    trainer = board.trainer
    return torch.cat([p.detach().flatten() for p in (*trainer.encoder.parameters(), *trainer.critic.parameters())])


def enabled(board) -> set[str]:
    return {name for name, button in board.buttons.items() if not button.disabled}


def said(board) -> str:
    return re.sub("<[^>]*>", "", board.message.value)


def same(one, other) -> bool:
    return one.history == other.history and torch.equal(parameters(one), parameters(other))


def tensors(found, name: str = "") -> dict[str, object]:
    """Every number of a nested state by its path, but for the seconds it took."""
    items = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list | tuple) else None
    if items is None:
        return {} if name.endswith("seconds") else {name: found}
    return {k: v for key, value in items for k, v in tensors(value, f"{name}.{key}").items()}


def equal(one, other) -> bool:
    one, other = tensors(one), tensors(other)
    assert one.keys() == other.keys()
    return all(torch.equal(v, other[k]) if isinstance(v, torch.Tensor) else v == other[k] for k, v in one.items())


async def trains(board) -> None:
    """Until a step that it makes in the background."""
    begin = board.trainer.step
    async with asyncio.timeout(HANG):
        while board.trainer.step == begin:
            await asyncio.sleep(0)


def in_a_loop(test):
    """A coroutine as a test, after which no task is left once every dashboard pauses."""

    async def checked(*args, **kwargs):
        await test(*args, **kwargs)
        for board in list(TrainingDashboard._all):
            board.pause()
        await asyncio.sleep(2 * dashboard.REST)  # in which a paused task ends
        assert asyncio.all_tasks() == {asyncio.current_task()}

    return functools.wraps(test)(lambda *args, **kwargs: asyncio.run(checked(*args, **kwargs)))
