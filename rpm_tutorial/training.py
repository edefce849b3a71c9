"""One training loop: an iterator of log rows, which notebooks, progress bars, widgets and tests all consume."""

import copy
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

from ._checks import check_count, check_number, check_rows, shape_of
from .checkpoints import load_checkpoint, reason, save_checkpoint
from .distributed import average_gradients, broadcast_parameters, gather
from .objectives import Objective, infonce


class LogRow(NamedTuple):
    """One step: its number from 1, the objective (nats per pair) on its batch of n pairs, the seconds trained so far."""

    step: int
    value: float
    n: int
    seconds: float


class Trainer:
    """Train encoder and critic to maximise the objective, by AdamW with one warm-up and decay, step by step.

    Iterating it trains to the end; `advance()` makes one step. `learning_rate` may be set between steps, and so may
    whatever the pairs and the critic let be set. `save` and `load` keep all of it, so that a training continued from a
    file gives the numbers of one that was never stopped, bit for bit on a processor. (Dropout draws from torch's global
    generator, which is the caller's and is not kept.)

    Each batch is moved to the device of the encoder's parameters. Modes are the caller's: a module in `eval()`, whole or
    part, stays so, and `encode` evaluates without changing them. Steps may run within `torch.autocast`, each in its own
    block or all in one; in bfloat16, since nothing here scales a loss for float16.

    Args:
        pairs: batches (x, x'), for example `datasets.tensor_pairs(...)`; as many as `steps`, or endless. To be
            continued from a file they need a `state_dict`, as `tensor_pairs`, `view_pairs` and torchdata's
            StatefulDataLoader have it. A state that is loaded is where the next `iter(pairs)` begins.
        encoder_prime: the encoder of x', for pairs of two kinds; by default that of x, as for two views of one kind.
        objective: of a table of scores, in nats per pair; returns an `Objective`, as `infonce` does.
        group: a process group (`distributed.process_group()`), each of whose processes draws batches of its own. The
            batch of a step is all of theirs, so that negatives come from every process; all start from rank 0's
            parameters and stay equal. Batch norm sees its own process's rows.
    Raises:
        ValueError: `steps` is not positive, there is nothing to train, `pairs` ends early, the two sides of a batch don't
            fit, or scores, objective or a gradient are not finite (the message says at which step). Weights, buffers and
            optimiser are then those of the step before, and can be saved.
        TypeError: encoder or critic is no `nn.Module`, `pairs` gives no batches of two tensors, or the encoder returns no
            tensor, the objective no `Objective`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        critic: nn.Module,
        pairs: Iterable[tuple[Tensor, Tensor]],
        steps: int,
        *,
        encoder_prime: nn.Module | None = None,
        objective: Callable[[Tensor], Objective] = infonce,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-4,
        group: "torch.distributed.ProcessGroup | None" = None,
    ):
        check_count("steps", steps)
        for name, value in (("learning_rate", learning_rate), ("weight_decay", weight_decay)):
            check_number(name, value)
            if value < 0:
                raise ValueError(f"{name} is {value}; expected a number that is not negative")
            if value > 1e15:
                raise ValueError(f"{name} is {value}; expected at most 1e15, a step that float32 can hold")
        self.encoder, self.critic = encoder, critic
        self.encoder_prime = encoder if encoder_prime is None else encoder_prime
        networks = {"encoder": encoder, "encoder_prime": self.encoder_prime, "critic": critic}
        if self.encoder_prime is encoder:
            del networks["encoder_prime"]  # a checkpoint holds it once
        for name, network in networks.items():
            if not isinstance(network, nn.Module):
                raise TypeError(
                    f"{name} is a {type(network).__name__}; expected an nn.Module: make a function the forward of one"
                )
        if isinstance(pairs, Dataset) and not isinstance(pairs, IterableDataset):
            raise TypeError(
                f"pairs is a {type(pairs).__name__}, which gives one pair at a time; expected batches: "
                "torch.utils.data.DataLoader(pairs, batch_size=256, shuffle=True, drop_last=True), or datasets.tensor_pairs"
            )
        self.pairs, self.objective, self.group = pairs, objective, group
        self.steps, self.step, self.seconds, self.learning_rate = steps, 0, 0.0, learning_rate
        self.batch_size = 0  # pairs in the last step
        self._networks = nn.ModuleDict(networks)  # a parameter in two of them counts once
        parameters = [*self._networks.parameters()]
        if not parameters:
            raise ValueError(
                "encoder and critic have no parameters; expected one at least, or there is nothing to train"
            )
        self.device, self._batches = parameters[0].device, iter(pairs)
        self._optimiser = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)
        if group is not None:
            broadcast_parameters((self._networks,), group)

    def __iter__(self) -> Iterator[LogRow]:
        while self.step < self.steps:
            yield self.advance()

    def advance(self) -> LogRow:
        """One step."""
        start, number = time.perf_counter(), self.step + 1
        batch = next(self._batches, None)
        if batch is None:
            raise ValueError(
                f"pairs ended after {self.step} batches; expected {self.steps}, or an endless iterator, such as "
                "datasets.tensor_pairs"
            )
        before = [(b, b.clone()) for b in self._networks.buffers() if not nn.parameter.is_lazy(b)]
        try:
            x, x_prime = self._sides(batch)
            if self.encoder_prime is self.encoder:  # one call: batch norm sees both views alike
                z, z_prime = self._encode("encoder", torch.cat([x, x_prime])).chunk(2)
            else:
                z, z_prime = self._encode("encoder", x), self._encode("encoder_prime", x_prime)
            z, z_prime = gather(z, self.group)[0], gather(z_prime, self.group)[0]
            value = self._value(z, z_prime)
            self._optimiser.zero_grad()
            (-value).backward()
            if self.group is not None:
                average_gradients((self._networks,), self.group)
            self._check_finite(value.detach())
        except ValueError as error:
            for buffer, old in before:  # batch norm has counted the batch
                buffer.copy_(old)
            raise ValueError(f"step {number}: {error}") from error
        for settings in self._optimiser.param_groups:
            settings["lr"] = self.learning_rate * _rise_and_fall(self.step, self.steps)
        self._optimiser.step()
        torch.clear_autocast_cache()  # within a block of autocast, it would hold the weights of before this step
        value = value.item()
        self.batch_size = len(z)
        self.step, self.seconds = number, self.seconds + time.perf_counter() - start
        return LogRow(number, value, len(z), self.seconds)

    def _sides(self, batch) -> tuple[Tensor, Tensor]:
        """x and x' of a batch, on the device of the encoder."""
        parts = batch if isinstance(batch, tuple | list | Tensor) else ()
        if len(parts) != 2 or not all(isinstance(side, Tensor) and side.dim() for side in parts):
            found = f" of {', '.join(type(side).__name__ for side in parts)}" if isinstance(batch, tuple | list) else ""
            raise TypeError(
                f"pairs gave a {type(batch).__name__}{found}; expected batches of two tensors, (x, x_prime). Remedy: "
                "torch.as_tensor(...) for arrays; for a loader of more, ((x, x_prime) for x, x_prime, label in loader)"
            )
        x, x_prime = (side.to(self.device) for side in parts)
        if len(x) != len(x_prime):
            raise ValueError(f"x has {len(x)} rows and x_prime {len(x_prime)}; expected one row each per pair")
        if self.encoder_prime is self.encoder and x.shape[1:] != x_prime.shape[1:]:
            raise ValueError(
                f"x has shape {shape_of(x)} and x_prime {shape_of(x_prime)}; expected the same, for one encoder. "
                "Remedy: an encoder_prime for x_prime; or, if it holds labels, two views of x, as datasets.view_pairs has them"
            )
        return x, x_prime

    def _encode(self, name: str, x: Tensor) -> Tensor:
        network = self._networks[name]
        try:
            z = network(x)
        except RuntimeError as error:
            dtype = next(network.parameters(), x).dtype
            if x.dtype == dtype:
                raise
            raise ValueError(
                f"{name} does not take {x.dtype}: {reason(error)}. Expected {dtype}, as its parameters have: give pairs "
                f"x.to({dtype}) (images of bytes divided by 255), or call {name}.to(x.dtype)"
            ) from error
        if not isinstance(z, Tensor):
            raise TypeError(
                f"{name} returned a {type(z).__name__}; expected the latents alone: one torch.Tensor (n, d)"
            )
        return z

    def _value(self, z: Tensor, z_prime: Tensor) -> Tensor:
        found = self.objective(self.critic(z, z_prime))
        value = getattr(found, "value", None)
        if not isinstance(value, Tensor):
            raise TypeError(
                f"the objective returned a {type(found).__name__}; expected an Objective, whose value is maximised: return "
                "that of rpm.infonce whole, or Objective(score - log_normaliser, score, log_normaliser)"
            )
        if not value.requires_grad:
            raise ValueError(
                "the objective has no gradient; expected one. Remedy: train outside torch.no_grad() and inference_mode(), "
                "and let a parameter require its gradient: requires_grad_()"
            )
        return value

    def _check_finite(self, value: Tensor) -> None:
        """Raise before a step that would spoil the weights. One sum tells, and a GPU waits once: the value is read anyway."""
        found = {name: p.grad for name, p in self._networks.named_parameters() if p.grad is not None}
        if (value + sum(gradient.sum().to(value.device) for gradient in found.values())).isfinite():
            return
        if not value.isfinite():
            raise ValueError(
                f"the objective is {value.item()} on this batch; expected a finite number. Likely causes: a "
                "positive pair whose score is -inf (f = 0), or scores too large for exp: see check_critic"
            )
        for name, gradient in found.items():
            if not gradient.isfinite().all():  # else it is the sum alone that is too large
                raise ValueError(
                    f"the gradient of {name} is not finite; expected numbers. The weights are those of the step before, "
                    "and can be saved. Likely cause: a critic or an encoder that divides by 0, or takes the root of 0, at "
                    "some pair: see check_critic"
                )

    def state_dict(self) -> dict:
        """Everything that the next step depends on: tensors and numbers."""
        parts = {**self._networks, "optimiser": self._optimiser, "pairs": self.pairs}
        kept = {name: part.state_dict() for name, part in parts.items() if hasattr(part, "state_dict")}
        return {**kept, "step": self.step, "seconds": self.seconds, "learning_rate": self.learning_rate}

    def load_state_dict(self, state: dict) -> None:
        """Continue where `state` was taken; `ValueError`, and no change, if it is not of this encoder, critic and pairs."""
        if not hasattr(self.pairs, "load_state_dict"):
            raise ValueError(
                f"pairs is a {type(self.pairs).__name__}, which can't be set to where it was; expected one with a "
                "state_dict, such as datasets.tensor_pairs"
            )
        if isinstance(state, dict) and isinstance(state.get("trainer"), dict):
            raise ValueError(
                "the saved state is that of rpm-tutorial train, or of a dashboard, and holds the trainer's in it. Expected the "
                'trainer\'s: load_state_dict(load_checkpoint(path)["trainer"])'
            )
        before = copy.deepcopy(self.state_dict())
        try:
            self._set(state)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            self._set(before)  # a module of other shapes takes those of its tensors that fit
            raise ValueError(
                f"the saved state is not of this training: {reason(error)}. Expected the same encoder, critic and pairs"
            ) from error

    def _set(self, state: dict) -> None:
        for name, part in {**self._networks, "optimiser": self._optimiser}.items():
            part.load_state_dict(state[name])
        self.pairs.load_state_dict(state["pairs"])
        self._batches = iter(self.pairs)  # a state may count from the next iteration only
        self.step, self.seconds, self.learning_rate = (state[k] for k in ("step", "seconds", "learning_rate"))

    def save(self, path: str | os.PathLike) -> None:
        """Write the state; a file of that name is replaced at once or not at all. Raises as `save_checkpoint` does."""
        save_checkpoint(self.state_dict(), path)

    def load(self, path: str | os.PathLike) -> None:
        """Continue from a file that `save` wrote; errors as for `load_state_dict`, `FileNotFoundError` if there is none."""
        self.load_state_dict(load_checkpoint(path, self.device))


def train(
    encoder: nn.Module, critic: nn.Module, pairs: Iterable[tuple[Tensor, Tensor]], steps: int, **options
) -> Iterator[LogRow]:
    """Train encoder and critic to maximise the objective; yield a `LogRow` a step. Arguments and errors are `Trainer`'s.

    Example:
        >>> for row in tqdm(train(encoder, critic, view_pairs(images.x), steps=300), total=300): ...
    """
    return iter(Trainer(encoder, critic, pairs, steps, **options))


def _rise_and_fall(step: int, steps: int) -> float:
    """The learning rate's factor: linear from 0 to 1 over the first tenth of the steps, then half a cosine to 0."""
    warm_up = math.ceil(steps / 10)
    if step < warm_up:
        return (step + 1) / warm_up
    return (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up))) / 2


@torch.no_grad()
def encode(encoder: nn.Module, x: Tensor, *, batch_size: int = 1000) -> Tensor:
    """z of all x, shape (n, d), in evaluation mode, batch by batch on the encoder's device; its modes are restored after."""
    check_count("batch_size", batch_size)
    check_rows("x", x)
    modes = {module: module.training for module in encoder.modules()}
    device = next(encoder.parameters(), x).device
    encoder.eval()
    try:
        return torch.cat([encoder(batch.to(device)) for batch in x.split(batch_size)])
    finally:
        for module, mode in modes.items():  # one by one: a part that the caller froze stays frozen
            module.training = mode
