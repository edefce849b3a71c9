"""A data set's rows split over the processes of `torchrun`: gloo between processors, NCCL between GPUs.

Each process encodes its own rows; the latents of all are gathered, so that every row meets every candidate, and the
value is that of one process with all the rows. **Gradients follow `DistributedDataParallel`**: their mean over the
processes is the gradient that one process would have found. DDP takes that mean, `average_gradients` does so by hand.

While it runs, `torchrun` listens on all interfaces of its machine, without a password: run it behind a firewall. Its
processes talk over the address of the machine's name; `GLOO_SOCKET_IFNAME=lo` keeps gloo on the loopback interface.

Example, `torchrun --standalone --nproc-per-node 2 evidence.py`:

    >>> with distributed.process_group() as group:
    ...     mine = slice(group.rank(), None, group.size())
    ...     z, z_prime = encode(encoder, x[mine]), encode(encoder, x_prime[mine])
    ...     evidence = dataset_evidence(z, z_prime, critic, group=group)     # of all pairs, on each process

Training, from pairs of its own on each process: a pair that two of them draw would be among its own negatives.

    >>> pairs = tensor_pairs(x[mine], x_prime[mine], seed=group.rank())
    >>> trainer = Trainer(encoder, critic, pairs, steps=1000, group=group)
    >>> rows = list(trainer)
    >>> trainer.save("mine.pt")     # each process calls it, and rank 0 writes the places in the data of all
"""

import io
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

CALLS = ("an evidence", "a mean of gradients", "a start", "a comparison of batches", "a state", "the end of a save")
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@contextmanager
def process_group(timeout: float = 300.0) -> Iterator["dist.ProcessGroup"]:
    """Join the processes that `torchrun` started, and leave them at the end.

    Args:
        timeout: seconds after which a process that waits for another raises instead.
    Raises:
        RuntimeError: this process was not started by `torchrun`.
    """
    missing = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise RuntimeError(
            f"{', '.join(missing)} not set in the environment; expected a process started by torchrun: "
            "torchrun --standalone --nproc-per-node 2 your_script.py"
        )
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=timedelta(seconds=timeout))
    try:
        yield dist.group.WORLD  # type: ignore[misc]  # None only before the line above
    finally:
        dist.destroy_process_group()


def gather(local: Tensor, group: "dist.ProcessGroup | None") -> tuple[Tensor, int, int]:
    """The rows of all processes in the order of their ranks, the place of this one's first row, and their number.

    Processes may hold different numbers of rows. The gradient of each row is summed over the processes that used it.
    Without a group, the rows of this process. Raises `ValueError` where their columns or dtypes differ.
    """
    if group is None:
        return local, 0, len(local)
    kind = [len(local), local.shape[1], DTYPES.index(local.dtype)]
    lengths, widths, dtypes = zip(*_numbers_of_each("an evidence", kind, group, local.device))
    if len({*zip(widths, dtypes)}) > 1:
        held = "; ".join(f"process {r}: (n, {w}) {DTYPES[k]}" for r, (w, k) in enumerate(zip(widths, dtypes)))
        raise ValueError(f"the processes hold different latents ({held}); expected the same columns and dtype on each")
    first = sum(lengths[: group.rank()])
    return _Gather.apply(local, lengths, first, group), first, sum(lengths)


def mean_over_ranks(share: Tensor, group: "dist.ProcessGroup | None") -> Tensor:
    """The sum of each process's share of a mean, on every process; the mean of its gradients over them is exact."""
    if group is None:
        return share
    mine = share * group.size()
    return _summed(share.detach().clone(), group) + (mine - mine.detach())


def average_gradients(modules: Iterable[nn.Module], group: "dist.ProcessGroup") -> None:
    """Replace the gradients of the modules' parameters by their means over the processes.

    A gradient of `None` counts as 0, and stays `None` if it is so on all of them; a sparse one becomes dense. Raises
    `ValueError` where the processes hold other parameters.
    """
    parameters = [p for module in modules for p in module.parameters()]
    _check_alike("a mean of gradients", parameters, group)
    if not parameters:
        return
    present = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int64, device=parameters[0].device)
    for parameter, somewhere in zip(parameters, _summed(present, group).tolist()):
        if somewhere:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.to_dense()
            parameter.grad = _summed(gradient, group).div_(group.size())


def broadcast_parameters(modules: Iterable[nn.Module], group: "dist.ProcessGroup") -> None:
    """Give every process the parameters and buffers of rank 0. Raises `ValueError` where they hold others."""
    tensors = [t.detach() for module in modules for t in (*module.parameters(), *module.buffers())]
    _check_alike("a start", tensors, group)
    for tensor in tensors:
        with _told_which_process_is_lost(group):
            dist.broadcast(tensor, dist.get_global_rank(group, 0), group=group)


def check_batches_differ(sides: Sequence[Tensor], group: "dist.ProcessGroup") -> bool:
    """True, or `ValueError` on every process where two of them hold the same pairs (x, x'), in whatever order."""
    rows = torch.cat([side.detach().cpu().reshape(len(side), -1).contiguous().view(torch.uint8) for side in sides], 1)
    found = zlib.crc32(str(sorted(zlib.crc32(row) for row in rows.numpy())).encode())
    batches = [row[0] for row in _numbers_of_each("a comparison of batches", [found], group, sides[0].device)]
    twin = next((r for r, batch in enumerate(batches) if batch in batches[:r]), None)
    if twin is not None:
        raise ValueError(
            f"processes {batches.index(batches[twin])} and {twin} draw the same batch; expected pairs of its own on each: a "
            f"pair among its own negatives keeps the value below log {len(rows)}, whatever the number of processes. Take "
            "tensor_pairs(x[rank::size], x_prime[rank::size], seed=rank), with rank = group.rank(), size = group.size()"
        )
    return True


def everyones(mine, group: "dist.ProcessGroup", device: torch.device) -> list:
    """What each process holds, in the order of their ranks: tensors, numbers and text; no code that another sends is run."""
    file = io.BytesIO()
    torch.save(mine, file)
    sent = torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8).to(device)
    lengths = [row[0] for row in _numbers_of_each("a state", [len(sent)], group, device)]
    files = [io.BytesIO(part.cpu().numpy().tobytes()) for part in _rows_of_each(sent, lengths, group)]
    return [torch.load(file, "cpu", weights_only=True) for file in files]


def check_same(mine: dict, group: "dist.ProcessGroup", device: torch.device) -> None:
    """Raise `ValueError` on every process where they hold another value of a name."""
    each = everyones(mine, group, device)
    for name in mine:
        values = [held[name] for held in each]
        if any(value != values[0] for value in values):
            held = "; ".join(f"process {rank}: {str(value)[:200]}" for rank, value in enumerate(values))
            raise ValueError(f"the processes differ in {name} ({held}); expected the same on each, or they drift apart")


def own_part(state: dict, group: "dist.ProcessGroup | None") -> dict:
    """A state whose "processes" lists what is each one's own, for this one; `ValueError` for another number of them."""
    processes, size, rank = state.get("processes", [{}]), *((1, 0) if group is None else (group.size(), group.rank()))
    if len(processes) != size:
        raise ValueError(
            f"it was saved by {len(processes)} processes, each with its own place in the data, and here are {size}; expected "
            f"as many: start torchrun --nproc-per-node {len(processes)}"
        )
    return state | processes[rank]


def wait_for_all(group: "dist.ProcessGroup | None", device: torch.device) -> None:
    if group is not None:
        _numbers_of_each("the end of a save", [], group, device)


def _numbers_of_each(
    call: str, numbers: Sequence[int], group: "dist.ProcessGroup", device: torch.device
) -> list[list[int]]:
    """Up to three whole numbers of each process; `ValueError` where they are at different calls, whose tensors don't fit."""
    table = torch.zeros(group.size(), 4, dtype=torch.int64, device=device)
    table[group.rank()] = torch.tensor([CALLS.index(call), *numbers, *[0] * (3 - len(numbers))])
    rows = _summed(table, group).tolist()
    if len({row[0] for row in rows}) > 1:
        where = "; ".join(f"process {rank}: {CALLS[row[0]]}" for rank, row in enumerate(rows))
        raise ValueError(
            f"the processes make different calls ({where}); expected the same on each, in the same order: call save and "
            "state_dict on every process, and train each for as many steps"
        )
    return [row[1:] for row in rows]


def _check_alike(call: str, tensors: Sequence[Tensor], group: "dist.ProcessGroup") -> None:
    """Raise `ValueError` unless every process holds as many tensors, of the same shapes and dtypes."""
    shapes = zlib.crc32(str([(*t.shape, t.dtype) for t in tensors]).encode())
    rows = _numbers_of_each(call, [len(tensors), shapes], group, tensors[0].device if tensors else torch.device("cpu"))
    if len({tuple(row) for row in rows}) > 1:
        held = "; ".join(f"process {rank}: {row[0]} tensors" for rank, row in enumerate(rows))
        raise ValueError(
            f"the processes hold other parameters ({held}, whose shapes or dtypes differ); expected the same modules, made "
            "alike, on each, in the same order"
        )


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, local, lengths, first, group):
        ctx.rows, ctx.group = slice(first, first + len(local)), group
        return torch.cat(_rows_of_each(local, lengths, group))

    @staticmethod
    def backward(ctx, grad):
        return _summed(grad.contiguous().clone(), ctx.group)[ctx.rows], None, None, None


def _rows_of_each(local: Tensor, lengths: Sequence[int], group: "dist.ProcessGroup") -> list[Tensor]:
    padded = torch.cat([local, local.new_zeros(max(lengths) - len(local), *local.shape[1:])])
    everywhere = [torch.empty_like(padded) for _ in lengths]
    with _told_which_process_is_lost(group):
        dist.all_gather(everywhere, padded, group=group)
    return [rows[:length] for rows, length in zip(everywhere, lengths, strict=True)]


def _summed(tensor: Tensor, group: "dist.ProcessGroup") -> Tensor:
    """The tensor, in which now stands its sum over the processes."""
    with _told_which_process_is_lost(group):
        dist.all_reduce(tensor, group=group)
    return tensor


@contextmanager
def _told_which_process_is_lost(group: "dist.ProcessGroup"):
    try:
        yield
    except RuntimeError as error:
        raise RuntimeError(
            f"process {group.rank()} of {group.size()} got no answer from another process; expected every process to make "
            "the same calls. Another one has failed (see its own error) or is slower than the timeout of process_group: "
            "correct the error or raise the timeout, and start again from the last checkpoint"
        ) from error
