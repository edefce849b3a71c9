"""One training loop: an iterator of log rows, which notebooks, progress bars, widgets and tests all consume."""

import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ._checks import any_entry, check_count, check_data, check_number, check_rows, shape_of
from .checkpoints import copied, load_checkpoint, reason, remember, save_checkpoint
from .distributed import (
    average_gradients,
    broadcast_parameters,
    check_batches_differ,
    check_same,
    everyones,
    gather,
    own_part,
    wait_for_all,
)
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
    generator, which is the caller's and is not kept.) A step happens whole or not at all, whatever is raised in it.

    Each batch is moved to the device of the encoder's parameters. Modes are the caller's: a module in `eval()`, whole or
    part, stays so, and `encode` evaluates without changing them. Steps may run within `torch.autocast`, each in its own
    block or all in one; in bfloat16, since nothing here scales a loss for float16.

    Args:
        pairs: batches (x, x'), for example `datasets.tensor_pairs(...)`; as many as `steps`, or endless, or a DataLoader,
            which begins again at its end. To be continued bit for bit they need a `state_dict`, as `tensor_pairs`,
            `view_pairs` and torchdata's StatefulDataLoader have it. A state that is loaded is where the next `iter(pairs)`
            begins. Without one, a training continues with whatever batches come next, and a warning says so.
        encoder_prime: the encoder of x', for pairs of two kinds; by default that of x, as for two views of one kind.
        objective: of a table of scores, in nats per pair; returns an `Objective`, as `infonce` does.
        group: a process group (`distributed.process_group()`), each of whose processes draws pairs of its own (see there).
            The batch of a step is all of theirs, so that negatives come from every process; all start from rank 0's
            parameters and stay equal. Batch norm sees its own process's rows. Every process calls `state_dict`, `save`,
            for which rank 0 writes, and `load`, which needs as many processes; and sets a `learning_rate`.
    Raises:
        ValueError: `steps` is not positive, there is nothing to train, `pairs` ends early, the two sides of a batch don't
            fit, or scores, objective or a gradient are not finite (the message says at which step). Weights, buffers and
            optimiser are then those of the step before, and can be saved. Of a group: the processes draw the same batch,
            or differ in networks, objective or settings.
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
        steps, weight_decay = check_count("steps", steps), _not_negative("weight_decay", weight_decay)
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
        self._batch = None  # one that was drawn for a step that was then interrupted
        self._networks = nn.ModuleDict(networks)  # a parameter in two of them counts once
        parameters = [*self._networks.parameters()]
        if not parameters:
            raise ValueError(
                "encoder and critic have no parameters; expected one at least, or there is nothing to train"
            )
        self.device, self._batches = parameters[0].device, iter(pairs)
        self._optimiser = torch.optim.AdamW(parameters, lr=self.learning_rate, weight_decay=weight_decay)
        self._compared = group is None  # the batches of the processes
        if group is not None:
            rates = {"learning_rate": self.learning_rate, "weight_decay": weight_decay}
            check_same(self._kind() | rates, group, self.device)
            broadcast_parameters((self._networks,), group)

    @property
    def learning_rate(self) -> float:
        """The highest of the training."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._learning_rate = _not_negative("learning_rate", value)

    def __iter__(self) -> Iterator[LogRow]:
        while self.step < self.steps:
            yield self.advance()

    def advance(self) -> LogRow:
        """One step, or none: whatever is raised, Ctrl-C and want of memory included, all is then as it was before.

        A batch that is refused (`ValueError`, `TypeError`) is left out; after anything else, the next step takes it again.
        """
        start, number, sides = time.perf_counter(), self.step + 1, ()
        if self._batch is None:
            self._draw()
        put_back = remember(self._networks, self._optimiser)
        numbers = {name: vars(self)[name] for name in ("step", "seconds", "batch_size", "_batch")}
        try:
            x, x_prime = sides = self._sides(self._batch)
            self._compared = self._compared or check_batches_differ(sides, self.group)
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
            for settings in self._optimiser.param_groups:
                settings["lr"] = self.learning_rate * _rise_and_fall(self.step, self.steps)
            self._optimiser.step()
            torch.clear_autocast_cache()  # within a block of autocast, it would hold the weights of before this step
            row = LogRow(number, value.item(), len(z), self.seconds + time.perf_counter() - start)
            self.step, self.seconds, self.batch_size, self._batch = number, row.seconds, row.n, None
        except BaseException as error:
            put_back(), vars(self).update(numbers)
            if isinstance(error, ValueError | TypeError):
                self._batch = None
            if isinstance(error, ValueError):
                raise ValueError(f"step {number}: {_blame(error, sides)}") from error
            raise
        return row

    def _draw(self) -> None:
        """Take the next batch. By loops: Ctrl-C could come between a call of next and the place of what it gives."""
        for self._batch in self._batches:  # noqa: B020
            return
        if isinstance(self.pairs, DataLoader):
            self._batches = iter(self.pairs)
            for self._batch in self._batches:  # noqa: B020
                return
        raise ValueError(
            f"pairs ended after {self.step} batches; expected {self.steps}, or an endless iterator, such as "
            "datasets.tensor_pairs"
        )

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
        """Everything that the next step depends on, as it is now: copies, which later steps leave alone.

        So `best = trainer.state_dict()` keeps the best so far, and `trainer.load_state_dict(best)` goes back to it.
        """
        state = {name: part.state_dict() for name, part in {**self._networks, "optimiser": self._optimiser}.items()}
        state |= {"kind": self._kind(), "step": self.step, "seconds": self.seconds, "learning_rate": self.learning_rate}
        own = {} if self._batch is None else {"batch": self._batch}
        own |= {"pairs": self.pairs.state_dict()} if hasattr(self.pairs, "state_dict") else {}
        if self.group is None:
            return copied(state | own)
        own["buffers"] = dict(self._networks.named_buffers())  # batch norm's
        return copied(state | {"processes": everyones(own, self.group, self.device)})

    def _kind(self) -> dict:
        """What has to be the same where a training is continued, and doesn't show in the shapes of its tensors."""
        layers = {name: [type(m).__name__ for m in network.modules()] for name, network in self._networks.items()}
        objective = getattr(self.objective, "__qualname__", type(self.objective).__name__)
        return {"steps": self.steps, "objective": objective, **layers}

    def load_state_dict(self, state: dict) -> None:
        """Continue where `state` was taken; `ValueError`, and no change, if it is not of this encoder, critic, objective,
        pairs and number of steps (from which the learning rate follows). The state itself stays as it is."""
        if isinstance(state, dict) and isinstance(state.get("trainer"), dict):
            raise ValueError(
                "the saved state is that of rpm-tutorial train, or of a dashboard, and holds the trainer's in it. Expected the "
                'trainer\'s: load_state_dict(load_checkpoint(path)["trainer"])'
            )
        before, wrong = self.state_dict(), None
        try:
            state = own_part(copied(state), self.group)
            self._set(state)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            wrong = error
        if self.group is not None:
            said = everyones([wrong and reason(wrong), self.step, self.learning_rate], self.group, self.device)
            if wrong is None and said != [said[0]] * len(said):
                wrong = ValueError(f"the processes read different ones (error, step, learning rate: {said})")
        if wrong is not None:
            self._set(own_part(before, self.group))  # a module of other shapes takes those of its tensors that fit
            raise ValueError(
                f"the saved state is not of this training: {reason(wrong)}. Expected the same encoder, critic, objective, "
                "pairs and steps. Remedy: make the trainer as that one was; or take over its weights alone: "
                'encoder.load_state_dict(state["encoder"])'
            ) from wrong
        if "pairs" not in state:
            warnings.warn(
                f"pairs is a {type(self.pairs).__name__}, which has no state_dict: the training continues with the batches "
                "that come next, and not with the numbers of one that was never stopped; see datasets.tensor_pairs",
                stacklevel=2,
            )

    def _set(self, state: dict) -> None:
        for name, here in self._kind().items():
            if state["kind"][name] != here:
                raise ValueError(f"{name}: {_difference(state['kind'][name], here)}")
        for module in self._networks.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None and buffer.layout == torch.strided and 0 in buffer.stride():
                    module._buffers[name] = buffer.clone()  # an expanded one can't be written to
        for name, part in {**self._networks, "optimiser": self._optimiser}.items():
            part.load_state_dict(state[name])
        if "pairs" in state or hasattr(self.pairs, "load_state_dict"):
            self.pairs.load_state_dict(state["pairs"])
            self._batches = iter(self.pairs)  # a state may count from the next iteration only
        self.step, self.seconds, self.learning_rate = (state[k] for k in ("step", "seconds", "learning_rate"))
        self._batch, self._compared = state.get("batch"), self.group is None
        for name, own in state.get("buffers", {}).items():
            self._networks.get_buffer(name).copy_(own)

    def save(self, path: str | os.PathLike) -> None:
        """Write the state; a file of that name is replaced at once or not at all. Raises as `save_checkpoint` does."""
        state = self.state_dict()
        try:
            if self.group is None or self.group.rank() == 0:
                save_checkpoint(state, path)
        finally:
            wait_for_all(self.group, self.device)  # so that each may load it

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


def _not_negative(name: str, value: float) -> float:
    value = check_number(name, value)
    if not 0 <= value <= 1e15:  # more is no step that float32 could hold
        raise ValueError(f"{name} is {value}; expected a number that is not negative, and at most 1e15")
    return value


def _blame(error: ValueError, sides: tuple[Tensor, ...]) -> ValueError:
    """The error of a step, or what is wrong with the batch, which shows in the encoder's latents first."""
    try:
        for name, side in zip(("x", "x_prime"), sides):
            check_data(name, side)
    except ValueError as wrong:
        return wrong
    return error


def _difference(there, here) -> str:
    """Of two kinds, or two lists of layers: the first that differs."""
    if isinstance(there, list) and isinstance(here, list):
        there, here = next((a, b) for a, b in zip_longest(there, here, fillvalue="nothing") if a != b)
    return f"{there} in the state, {here} here"


def _rise_and_fall(step: int, steps: int) -> float:
    """The learning rate's factor: linear from 0 to 1 over the first tenth of the steps, then half a cosine to 0."""
    warm_up = math.ceil(steps / 10)
    if step < warm_up:
        return (step + 1) / warm_up
    return (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up))) / 2


@torch.no_grad()
def encode(encoder: nn.Module, x: Tensor, *, batch_size: int = 1000) -> Tensor:
    """z of all x, shape (n, d), in evaluation mode, batch by batch on the encoder's device; its modes are restored after.

    Raises `ValueError` for NaN and inf in x, unless the encoder knows how to live with them.
    """
    batch_size = check_count("batch_size", batch_size)
    check_rows("x", x)
    modes = {module: module.training for module in encoder.modules()}
    device = next(encoder.parameters(), x).device
    encoder.eval()
    try:
        z = torch.cat([encoder(batch.to(device)) for batch in x.split(batch_size)])
    finally:
        for module, mode in modes.items():  # one by one: a part that the caller froze stays frozen
            module.training = mode
    if any_entry(lambda t: ~t.isfinite(), z):
        check_data("x", x)
    return z
