"""One training loop: an iterator of log rows, which notebooks, progress bars, widgets and tests all consume."""

import math
import os
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ._checks import any_entry, check_count, check_data, check_rows, shape_of, values_unchecked
from .checkpoints import copied, load_checkpoint, reason, save_checkpoint
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
from .evidence import Evidence, dataset_evidence
from .objectives import Objective, infonce


class LogRow(NamedTuple):
    """One step: its number from 1, the objective (nats per pair) on its batch of n pairs, the seconds trained so far."""

    step: int
    value: float
    n: int
    seconds: float


class Trainer:
    """Train encoder and critic to maximise the objective, by AdamW or another optimiser, with one warm-up and decay.

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
            `view_pairs` and torchdata's StatefulDataLoader have it. Without one, a training continues with whatever batches
            come next, and a warning says so.
        encoder_prime: the encoder of x', for pairs of two kinds; by default that of x, as for two views of one kind.
        steps: how many; ten epochs of a DataLoader are 10 * len(loader).
        objective: of a table of scores, in nats per pair; returns an `Objective`, as `infonce` does. A critic that keeps a
            queue of earlier z' returns its columns too, after the batch's.
        optimiser: called as optimiser(parameters, lr=learning_rate, weight_decay=weight_decay). Groups of parameters that it
            makes with another lr keep their share of the learning rate. Its hooks clip gradients, and clamp a parameter. Its
            `step()` takes no closure (so not LBFGS).
        group: a process group (`distributed.process_group()`), each of whose processes draws pairs of its own (see there).
            The batch of a step is all of theirs, so that negatives come from every process; all start from rank 0's
            parameters and stay equal. Batch norm sees its own process's rows. Every process calls `state_dict`, `save`,
            for which rank 0 writes, and `load`, which needs as many processes; and sets a `learning_rate`.
    Raises:
        ValueError: `steps` is not positive, `pairs` ends early, a batch is no two tensors with one row each per pair, or
            scores, objective or a gradient are not finite (the message says at which step). Weights, buffers and optimiser
            are then those of the step before, and can be saved. Of a group: the processes draw the same batch, or differ
            in networks, objective or settings.

    Example, of gradients clipped to a norm of one, and CLIP's clamp, with each step:
        >>> def optimiser(parameters, **settings):
        ...     def clip(*_): nn.utils.clip_grad_norm_(parameters, 1.0)
        ...     found = torch.optim.AdamW(parameters, **settings)
        ...     found.register_step_pre_hook(clip)
        ...     found.register_step_post_hook(lambda *_: critic.log_temperature.data.clamp_(min=-math.log(100)))
        ...     return found
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
        optimiser: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW,
        group: "torch.distributed.ProcessGroup | None" = None,
    ):
        self.encoder, self.critic = encoder, critic
        self.encoder_prime = encoder if encoder_prime is None else encoder_prime
        self.pairs, self.objective, self.group = pairs, objective, group
        self.steps, self.step, self.seconds, self.learning_rate = check_count("steps", steps), 0, 0.0, learning_rate
        self.batch_size = 0  # pairs in the last step
        two = {} if self.encoder_prime is encoder else {"encoder_prime": self.encoder_prime}
        self._networks = nn.ModuleDict({"encoder": encoder, **two, "critic": critic})
        parameters = [*self._networks.parameters()]  # one that two networks share counts once
        rate = self.learning_rate or 1.0
        self._optimiser = optimiser(parameters, lr=rate, weight_decay=float(weight_decay))
        self._shares = [settings["lr"] / rate for settings in self._optimiser.param_groups]
        self.device, self._batches = parameters[0].device, iter(pairs)
        self._batch: tuple[Tensor, Tensor] | None = None  # that of a step which was interrupted, and takes it again
        self._compared = False  # the batches of the processes
        if group is not None:
            rates = {"learning_rate": self.learning_rate, "weight_decay": float(weight_decay)}
            check_same(self._kind() | rates, group, self.device)
            broadcast_parameters((self._networks,), group)

    @property
    def learning_rate(self) -> float:
        """The highest of the training."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        if not 0 <= value < math.inf:
            raise ValueError(f"learning_rate is {value}; expected a number that is not negative")
        self._learning_rate = float(value)

    def __iter__(self) -> Iterator[LogRow]:
        while self.step < self.steps:
            yield self.advance()

    def advance(self) -> LogRow:
        """One step, or none: whatever is raised, Ctrl-C and want of memory included, all is then as it was before.

        A batch that is refused (`ValueError`, `TypeError`) is left out; after anything else, the next step takes it again.
        """
        start, number = time.perf_counter(), self.step + 1
        if self._batch is None:
            self._draw()
        undo = _snapshot(self._networks, self._optimiser)
        try:
            value, n = self._follow_gradient(self._sides(self._batch))
            row = LogRow(number, value.item(), n, self.seconds + time.perf_counter() - start)
            self.step, self.seconds, self.batch_size, self._batch = number, row.seconds, n, None  # no call, no Ctrl-C
        except BaseException as error:
            undo()
            if isinstance(error, ValueError | TypeError):
                self._batch = None
            if isinstance(error, ValueError):
                raise ValueError(f"step {number}: {error}") from error
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
        sides = batch if isinstance(batch, tuple | list | Tensor) else ()
        if len(sides) != 2 or not all(isinstance(side, Tensor) and side.dim() for side in sides):
            raise TypeError(
                f"pairs gave a {type(batch).__name__}; expected batches of two tensors, (x, x_prime). Remedy: "
                "torch.as_tensor(...) for arrays; for a loader of more, ((x, x_prime) for x, x_prime, label in loader)"
            )
        x, x_prime = (side.to(self.device) for side in sides)
        alike = self.encoder_prime is not self.encoder or x.shape == x_prime.shape
        if len(x) != len(x_prime) or not alike:
            raise ValueError(
                f"x has shape {shape_of(x)} and x_prime {shape_of(x_prime)}; expected one row each per pair, and one shape "
                "for one encoder. Remedy: an encoder_prime for x_prime; or, if it holds labels, two views of x: "
                "datasets.view_pairs"
            )
        return x, x_prime

    def _follow_gradient(self, sides: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
        """One step of the optimiser; the objective, and the number of its pairs. A GPU waits once: for the finite sum."""
        if self.group is not None and not self._compared:
            self._compared = check_batches_differ(sides, self.group)
        with values_unchecked():
            if self.encoder_prime is self.encoder:  # one call: batch norm sees both views alike
                latents = self.encoder(torch.cat(sides)).chunk(2)
            else:
                latents = self.encoder(sides[0]), self.encoder_prime(sides[1])
            z, z_prime = (gather(side, self.group)[0] for side in latents)
            value = self.objective(self.critic(z, z_prime)).value
        self._networks.zero_grad()  # also of parameters that this optimiser leaves alone
        (-value).backward()
        if self.group is not None:
            average_gradients((self._networks,), self.group)
        gradients = [p.grad for p in _parameters(self._optimiser) if p.grad is not None]
        if not sum((g.sum().to(value.device) for g in gradients), start=value.detach()).isfinite():
            self._refuse(sides, z, z_prime, value)
        if len(z) == 1:
            raise ValueError("the batch is one pair, without negatives; expected batches: a DataLoader's, for example")
        for settings, share in zip(self._optimiser.param_groups, self._shares, strict=True):
            settings["lr"] = share * self.learning_rate * _rise_and_fall(self.step, self.steps)
        self._optimiser.step()
        torch.clear_autocast_cache()  # within a block of autocast, it would hold the weights of before this step
        return value.detach(), len(z)

    @torch.no_grad()
    def _refuse(self, sides: tuple[Tensor, Tensor], z: Tensor, z_prime: Tensor, value: Tensor) -> None:
        """Raise for what is not finite, which shows in the data first, then in latents and scores, then in gradients."""
        for name, side in zip(("x", "x_prime"), sides):
            check_data(name, side)
        self.objective(self.critic(z, z_prime))  # now with its checks of values
        if not value.isfinite():
            raise ValueError(
                f"the objective is {value.item()} on this batch; expected a finite number. Likely causes: a "
                "positive pair whose score is -inf (f = 0), or scores too large for exp: see check_critic"
            )
        for name, parameter in self._networks.named_parameters():
            if parameter.grad is not None and not parameter.grad.isfinite().all():  # else the sum alone is too large
                raise ValueError(
                    f"the gradient of {name} is not finite; expected numbers. The weights are those of the step before, "
                    "and can be saved. Likely cause: a critic or an encoder that divides by 0, or takes the root of 0, at "
                    "some pair: see check_critic"
                )

    def state_dict(self) -> dict:
        """Everything that the next step depends on, as it is now: copies, which later steps leave alone.

        So `best = trainer.state_dict()` keeps the best so far, and `trainer.load_state_dict(best)` goes back to it.
        """
        state: dict = {name: network.state_dict() for name, network in self._networks.items()}
        state |= {"optimiser": self._optimiser.state_dict()}
        state |= {"kind": self._kind(), "step": self.step, "seconds": self.seconds, "learning_rate": self.learning_rate}
        own: dict = {} if self._batch is None else {"batch": self._batch}
        own |= {"pairs": self.pairs.state_dict()} if hasattr(self.pairs, "state_dict") else {}
        if self.group is None:
            return copied(state | own)
        own["buffers"] = dict(self._networks.named_buffers())  # batch norm's
        return copied(state | {"processes": everyones(own, self.group, self.device)})

    def _kind(self) -> dict[str, str | int]:
        """What has to be the same where a training is continued, and doesn't show in the shapes of its tensors."""
        layers = {name: " ".join(type(m).__name__ for m in part.modules()) for name, part in self._networks.items()}
        objective = getattr(self.objective, "__qualname__", type(self.objective).__name__)
        return {"steps": self.steps, "objective": objective, "optimiser": type(self._optimiser).__name__, **layers}

    def load_state_dict(self, state: dict) -> None:
        """Continue where `state` was taken; `ValueError`, and no change, if it is not of this encoder, critic, objective,
        optimiser, pairs and number of steps (from which the learning rate follows). The state itself stays as it is."""
        before, wrong = self.state_dict(), None
        try:
            self._set(own_part(state, self.group))
        except Exception as error:
            wrong = error
        if self.group is not None:
            said = everyones([wrong and reason(wrong), self.step, self.learning_rate], self.group, self.device)
            if wrong is None and said != [said[0]] * len(said):
                wrong = ValueError(f"the processes read different ones (error, step, learning rate: {said})")
        if wrong is not None:
            self._set(own_part(before, self.group))  # a module of other shapes takes those of its tensors that fit
            raise ValueError(
                f"the saved state is not of this training: {reason(wrong)}. Expected the same encoder, critic, objective, "
                "optimiser, pairs and steps. Remedy: make the trainer as that one was; or take over its weights alone: "
                'encoder.load_state_dict(state["encoder"])'
            ) from wrong
        if "pairs" not in own_part(state, self.group):
            warnings.warn(
                f"pairs is a {type(self.pairs).__name__}, which has no state_dict: the training continues with the batches "
                "that come next, and not with the numbers of one that was never stopped; see datasets.tensor_pairs",
                stacklevel=2,
            )

    def _set(self, state: dict) -> None:
        there, here = state["kind"], self._kind()
        for name in there | here:
            if there.get(name) != here.get(name):
                raise ValueError(f"{name}: {there.get(name)} in the state, {here.get(name)} here")
        for name, network in self._networks.items():
            network.load_state_dict(state[name])
        self._optimiser.load_state_dict(copied(state["optimiser"]))  # it would keep the tensors themselves
        if hasattr(self.pairs, "load_state_dict"):
            self.pairs.load_state_dict(state["pairs"])
            self._batches = iter(self.pairs)  # a state may count from the next iteration only
        elif "pairs" in state:
            raise ValueError(
                f"the place in pairs is in the state; a {type(self.pairs).__name__} has no load_state_dict"
            )
        self.step, self.seconds, self.learning_rate = (state[k] for k in ("step", "seconds", "learning_rate"))
        self._batch, self._compared = state.get("batch"), self.group is None
        for name, own in state.get("buffers", {}).items():
            self._networks.get_buffer(name).copy_(own)

    def save(self, path: str | os.PathLike) -> None:
        """Write the state; raises as `save_checkpoint` does, and leaves an old file whole."""
        state = self.state_dict()
        try:
            if self.group is None or self.group.rank() == 0:
                save_checkpoint(state, path)
        finally:
            wait_for_all(self.group, self.device)  # so that each may load it

    def load(self, path: str | os.PathLike) -> None:
        """Continue from a file that `save` wrote; errors as for `load_state_dict` and `load_checkpoint`."""
        self.load_state_dict(load_checkpoint(path, self.device))


def train(
    encoder: nn.Module, critic: nn.Module, pairs: Iterable[tuple[Tensor, Tensor]], steps: int, **options
) -> Iterator[LogRow]:
    """Train encoder and critic to maximise the objective; yield a `LogRow` a step. Arguments and errors are `Trainer`'s.

    Example:
        >>> for row in tqdm(train(encoder, critic, view_pairs(images.x), steps=300), total=300): ...
    """
    return iter(Trainer(encoder, critic, pairs, steps, **options))


@torch.no_grad()
def encode(encoder: nn.Module, x: Tensor, *, batch_size: int = 1000) -> Tensor:
    """z of all x, shape (n, d), in evaluation mode, batch by batch on the encoder's device; its modes are restored after.

    Raises `ValueError` for NaN and inf in x, unless the encoder knows how to live with them.
    """
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


@torch.no_grad()
def encoder_evidence(
    encoder: nn.Module, critic: nn.Module, x: Tensor, x_prime: Tensor, *, encoder_prime: nn.Module | None = None
) -> Evidence:
    """The log evidence of pairs (x, x'), encoded: `encode`, then `dataset_evidence`. Source: (E14)."""
    return dataset_evidence(
        encode(encoder, x), encode(encoder if encoder_prime is None else encoder_prime, x_prime), critic
    )


def _snapshot(networks: nn.Module, optimiser: torch.optim.Optimizer) -> Callable[[], None]:
    """Keep all that a step of training changes; what is returned puts it back."""
    lazy = nn.parameter.is_lazy
    parameters = [(p, p.detach().clone()) for p in _parameters(optimiser) if not lazy(p)]
    places = [(module._buffers, name, b) for module in networks.modules() for name, b in module._buffers.items()]
    buffers = [(place, name, b, b.detach().clone()) for place, name, b in places if b is not None and not lazy(b)]
    moments = {
        p: {k: t.clone() if torch.is_tensor(t) else t for k, t in of.items()} for p, of in optimiser.state.items()
    }
    settings = [{k: v for k, v in group.items() if k != "params"} for group in optimiser.param_groups]
    gpus = {p.device for p, _ in parameters if p.is_cuda}
    chance, of_gpus = torch.get_rng_state(), {gpu: torch.cuda.get_rng_state(gpu) for gpu in gpus}  # dropout's

    @torch.no_grad()
    def undo() -> None:
        for parameter, old in parameters:
            parameter.copy_(old)
        for place, name, buffer, old in buffers:
            place[name] = buffer.copy_(old)  # the module may have put another one there
        optimiser.state = defaultdict(dict, moments)
        for group, before in zip(optimiser.param_groups, settings):
            group.update(before)
        torch.clear_autocast_cache()
        torch.set_rng_state(chance)
        for gpu, state in of_gpus.items():
            torch.cuda.set_rng_state(state, gpu)

    return undo


def _parameters(optimiser: torch.optim.Optimizer) -> list[nn.Parameter]:
    """Those that are trained, without a walk through the networks' modules."""
    return [parameter for settings in optimiser.param_groups for parameter in settings["params"]]


def _rise_and_fall(step: int, steps: int) -> float:
    """The learning rate's factor: linear from 0 to 1 over the first tenth of the steps, then half a cosine to 0."""
    warm_up = math.ceil(steps / 10)
    if step < warm_up:
        return (step + 1) / warm_up
    return (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up))) / 2
