"""One training loop: an iterator of log rows, which notebooks, progress bars, widgets and tests all consume."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .objectives import Objective, infonce


class LogRow(NamedTuple):
    """One step: its number from 1, the objective (nats per pair) on its batch of n pairs, and the seconds since the start."""

    step: int
    value: float
    n: int
    seconds: float


def train(
    encoder: nn.Module,
    critic: nn.Module,
    pairs: Iterable[tuple[Tensor, Tensor]],
    steps: int,
    *,
    objective: Callable[[Tensor], Objective] = infonce,
    learning_rate: float = 2e-3,
    weight_decay: float = 1e-4,
) -> Iterator[LogRow]:
    """Train encoder and critic to maximise the objective, AdamW with one warm-up and decay; yield a `LogRow` a step.

    The encoder is shared by x and x'. Each batch is moved to the device of the encoder's parameters.

    Args:
        pairs: batches (x, x'), for example `datasets.view_pairs(...)`; as many as `steps`, or endless.
    Raises:
        ValueError: `steps` is not positive, `pairs` ends early, the two sides of a batch differ in length, or the scores
            have become NaN (the message says at which step).

    Example:
        >>> for row in tqdm(train(encoder, critic, view_pairs(images.x), steps=300), total=300): ...
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; expected a positive number")
    parameters = [*encoder.parameters(), *critic.parameters()]
    device = parameters[0].device
    optimiser = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rise_and_fall(step, steps))
    encoder.train(), critic.train()
    pairs, start = iter(pairs), time.perf_counter()
    for step in range(1, steps + 1):
        batch = next(pairs, None)
        if batch is None:
            raise ValueError(f"pairs ended after {step - 1} batches; expected {steps}, or an endless iterator")
        x, x_prime = (side.to(device) for side in batch)
        if len(x) != len(x_prime):
            raise ValueError(
                f"step {step}: x has {len(x)} rows and x_prime {len(x_prime)}; expected one row each per pair"
            )
        z, z_prime = encoder(torch.cat([x, x_prime])).chunk(2)  # one call, so that batch norm sees both views alike
        try:
            value = objective(critic(z, z_prime)).value
        except ValueError as error:
            raise ValueError(f"step {step}: {error}") from error
        optimiser.zero_grad()
        (-value).backward()
        optimiser.step()
        schedule.step()
        yield LogRow(step, value.item(), len(x), time.perf_counter() - start)


def _rise_and_fall(step: int, steps: int) -> float:
    """The learning rate's factor: linear from 0 to 1 over the first tenth of the steps, then half a cosine to 0."""
    warm_up = math.ceil(steps / 10)
    if step < warm_up:
        return (step + 1) / warm_up
    return (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up))) / 2


@torch.no_grad()
def encode(encoder: nn.Module, x: Tensor, *, batch_size: int = 1000) -> Tensor:
    """z of all x, shape (n, d), in evaluation mode, batch by batch on the encoder's device; its modes are restored after."""
    modes = {module: module.training for module in encoder.modules()}
    device = next(encoder.parameters(), x).device
    encoder.eval()
    try:
        return torch.cat([encoder(batch.to(device)) for batch in x.split(batch_size)])
    finally:
        for module, mode in modes.items():  # one by one: a part that the caller froze stays frozen
            module.training = mode
