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
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn


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
        yield dist.group.WORLD
    finally:
        dist.destroy_process_group()


def gather(local: Tensor, group: "dist.ProcessGroup | None") -> tuple[Tensor, int, int]:
    """The rows of all processes in the order of their ranks, the place of this one's first row, and their number.

    Processes may hold different numbers of rows. The gradient of each row is summed over the processes that used it.
    Without a group, the rows of this process. Raises `ValueError` where their columns or dtypes differ.
    """
    if group is None:
        return local, 0, len(local)
    size, rank = group.size(), group.rank()
    kinds = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
    held = torch.zeros(size, 3, dtype=torch.int64, device=local.device)
    held[rank] = torch.tensor([len(local), local.shape[1], kinds.index(local.dtype)])
    with _told_which_process_is_lost(group):
        dist.all_reduce(held, group=group)
    lengths, widths, dtypes = held.T.tolist()
    if len({*widths}) > 1 or len({*dtypes}) > 1:
        said = "; ".join(f"process {r}: (n, {w}) {kinds[k]}" for r, (w, k) in enumerate(zip(widths, dtypes)))
        raise ValueError(f"the processes hold different latents ({said}); expected the same columns and dtype on each")
    first = sum(lengths[:rank])
    return _Gather.apply(local, lengths, first, group), first, sum(lengths)


def mean_over_ranks(share: Tensor, group: "dist.ProcessGroup | None") -> Tensor:
    """The sum of each process's share of a mean, on every process; the mean of its gradients over them is exact."""
    if group is None:
        return share
    total = share.detach().clone()
    with _told_which_process_is_lost(group):
        dist.all_reduce(total, group=group)
    mine = share * group.size()
    return total + (mine - mine.detach())


def average_gradients(modules: Iterable[nn.Module], group: "dist.ProcessGroup") -> None:
    """Replace the gradients of the modules' parameters by their means over the processes."""
    with _told_which_process_is_lost(group):
        for parameter in (p for module in modules for p in module.parameters() if p.grad is not None):
            dist.all_reduce(parameter.grad, group=group)
            parameter.grad /= group.size()


def broadcast_parameters(modules: Iterable[nn.Module], group: "dist.ProcessGroup") -> None:
    """Give every process the parameters and buffers of rank 0."""
    with torch.no_grad(), _told_which_process_is_lost(group):
        for module in modules:
            for tensor in (*module.parameters(), *module.buffers()):
                dist.broadcast(tensor, dist.get_global_rank(group, 0), group=group)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, local, lengths, first, group):
        ctx.rows, ctx.group = slice(first, first + len(local)), group
        longest = max(lengths)
        padded = torch.cat([local, local.new_zeros(longest - len(local), *local.shape[1:])])
        everywhere = [torch.empty_like(padded) for _ in lengths]
        with _told_which_process_is_lost(group):
            dist.all_gather(everywhere, padded, group=group)
        return torch.cat([rows[:length] for rows, length in zip(everywhere, lengths, strict=True)])

    @staticmethod
    def backward(ctx, grad):
        total = grad.contiguous().clone()
        with _told_which_process_is_lost(ctx.group):
            dist.all_reduce(total, group=ctx.group)
        return total[ctx.rows], None, None, None


@contextmanager
def _told_which_process_is_lost(group: "dist.ProcessGroup"):
    try:
        yield
    except RuntimeError as error:
        raise RuntimeError(
            f"process {group.rank()} of {group.size()} waited for another in vain; expected every process to make the same "
            "calls. One of them has failed (its own message is above) or is slower than the time-out of process_group: "
            "mend it, or raise the time-out, and start again from the last checkpoint"
        ) from error
