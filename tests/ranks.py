"""What each of the two processes of tests/test_distributed.py does, and two threads of the same tests.

`torchrun ranks.py agree`: the numbers and gradients of two processes are those of one, or an error.
`ranks.py lose MEETING SCENE=PORT...`: in each scene one of the two is lost; what each met is left in the store at MEETING.
"""

import gc
import json
import os
import sys
import time
import warnings
from datetime import timedelta
from functools import partial

import pytest
import ranks_own
import torch
import torch.distributed as dist
import torch.distributed.nn  # before any group: its functions keep the one they find, and with it the connection
from residuals import agree
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import rpm_tutorial as rpm
from rpm_tutorial import dataset_evidence, distributed

N, DIM = 101, 3
SHARES = {  # the rows of each rank
    "60 and 41 rows": (torch.arange(60), torch.arange(60, N)),
    "every second row": (torch.arange(0, N, 2), torch.arange(1, N, 2)),
}
WAYS = {  # a critic and the options of its evidence
    "RandomWalk": (lambda: rpm.RandomWalk(0.7), {}),
    "LaplaceWalk by tiles": (lambda: rpm.LaplaceWalk(0.7), {"block": 16}),
    "Universal": (lambda: rpm.Universal(DIM, width=8, features=4), {}),
}
STEPS = 4


def pairs(dtype=torch.float64):
    z, step = torch.randn(2, N, DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return z.to(dtype), (z + 0.3 * step).to(dtype)


def model(seed: int = 0) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(seed)
    encoder = nn.Sequential(nn.Linear(DIM, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    return encoder, rpm.Bilinear(2).double()  # no gradient is 0 by symmetry: AdamW would divide rounding by rounding


def tensors(modules) -> list[torch.Tensor]:
    return [t for module in modules for t in (*module.parameters(), *module.buffers())]


def gradients(modules) -> list[torch.Tensor]:
    return [p.grad for module in modules for p in module.parameters()]


def leaves(sides, rows=slice(None)) -> list[torch.Tensor]:
    return [side[rows].clone().requires_grad_() for side in sides]


def same(what: str, found, expected, tolerance: float = 1e-12) -> None:
    for one, other in zip(found, expected, strict=True):
        agree(f"two ranks = one: {what}", one, other, tolerance=tolerance)


# Two against one


def gathered_rows(group) -> None:
    z, _ = pairs()
    for rows in SHARES.values():
        (local,) = leaves([z], rows[group.rank()])
        everywhere, first, n = distributed.gather(local, group)
        assert torch.equal(everywhere, z[torch.cat(rows)]) and (first, n) == ([0, len(rows[0])][group.rank()], N)
        weights = torch.randn(2, N, DIM, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        (found,) = torch.autograd.grad((everywhere * weights[group.rank()]).sum(), local)
        same("gradient of gathered rows", [found], [weights.sum(0)[first : first + len(local)]])
    for mine in (z[:, : 2 + group.rank()], z.to((torch.float64, torch.float32)[group.rank()])):
        with pytest.raises(ValueError, match="hold different latents"):
            distributed.gather(mine, group)


def means(group) -> None:
    p = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    mean = distributed.mean_over_ranks(p.square() * (group.rank() + 1), group)
    (slope,) = torch.autograd.grad(mean, p)
    dist.all_reduce(slope, group=group)
    same("mean_over_ranks and the mean of its gradients", [mean, slope / 2], [3 * p.square(), 3 * 2 * p])
    modules = [nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)) for _ in range(2)]
    for t in tensors(modules):
        t.detach().fill_(group.rank() + 5)
        t.grad = torch.full_like(t, group.rank() + 2) if t.requires_grad else None
    distributed.average_gradients(modules, group)
    assert all((g == 2.5).all() for g in gradients(modules))
    distributed.broadcast_parameters(modules, group)
    assert all((t == 5).all() for t in tensors(modules)), "they are rank 0's"


def evidence(group, ways=tuple(WAYS), dtype=torch.float64) -> None:
    precise = dtype == torch.float64
    for way in ways:
        further = torch.randn(9, DIM, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
        sides: list[dict] = [{"normalise": side} for side in ("rows", "columns", "both", "views")]
        for own in (*sides, {"candidates": further}, {"labels": nearest}, {"labels": nearest, "normalise": "views"}):
            torch.manual_seed(0)
            make, options = WAYS[way]
            critic = make().to(dtype)
            of = partial(evidence_by, critic=critic, **own, **options)
            two_agree_with_one(of, critic, pairs(dtype), group, f"{way}, {dtype}", 1e-12 if precise else 1e-6)
        for other in (further + group.rank(), (None, further)[group.rank()]):
            with pytest.raises(ValueError, match="differ in candidates"):
                dataset_evidence(*pairs(dtype), critic, candidates=other, group=group)
        with pytest.raises(ValueError, match="differ in labels"):
            dataset_evidence(*pairs(dtype), critic, labels=(None, range(N))[group.rank()], group=group)


def nearest(z: torch.Tensor) -> list[str]:
    """Words as labels of rows, several rows each."""
    return [f"near {place}" for place in z[:, 0].round().int().tolist()]


def evidence_by(z, z_prime, labels=None, **options) -> rpm.Evidence:
    return dataset_evidence(z, z_prime, labels=labels and labels(z), **options)


def two_agree_with_one(of, critic: nn.Module, sides, group, name: str, tolerance: float) -> None:
    everything = leaves(sides)
    one = of(*everything)
    each = of(*everything, reduction="none").value
    # Gradients are about 1/100 in size, and so is what they may be off.
    of_z, of_z_prime, *of_critic = torch.autograd.grad(one.value, [*everything, *critic.parameters()])
    of_sum = torch.autograd.grad(each.sum(), everything)
    for rows in SHARES.values():
        mine = rows[group.rank()]
        local = leaves(sides, mine)
        two = of(*local, group=group)
        assert two.n == one.n
        same(f"evidence, {name}", two[:2], one[:2], tolerance)
        critic.zero_grad()
        two.value.backward()  # a row is on one process alone, so the mean of its gradient over both is half of it
        halves = [side.grad / 2 for side in local]
        same(f"gradients of latents, {name}", halves, [of_z[mine], of_z_prime[mine]], tolerance / 10)
        distributed.average_gradients([critic], group)
        same(f"gradients of the critic, {name}", gradients([critic]), of_critic, tolerance)
        local = leaves(sides, mine)
        found = of(*local, group=group, reduction="none").value
        same(f"each row, {name}", [found], [each[mine]], tolerance)
        found.sum().backward()
        same(f"gradients of rows, {name}", [t.grad for t in local], [t[mine] for t in of_sum], 10 * tolerance)


def training(group) -> None:
    sides = torch.stack(pairs()).split(20, 1)  # five batches of 20 pairs and one of a single pair
    for objective in (rpm.infonce, rpm.donsker_varadhan):
        mine = slice(0, 13) if group.rank() == 0 else slice(13, None)
        batches = [[side[mine] for side in sides[step % 5]] for step in range(STEPS)]
        options = {"objective": objective, "learning_rate": 0.02}
        one, two = ranks_own.seeded_model(0), ranks_own.seeded_model(group.rank())
        expected = list(rpm.train(*one, [sides[step % 5].unbind() for step in range(STEPS)], STEPS, **options))
        found = list(rpm.train(*two, batches, STEPS, group=group, **options))
        assert [(row.step, row.n) for row in found] == [(row.step, row.n) for row in expected]
        same("values in training", [row.value for row in found], [row.value for row in expected])
        same("parameters after training", tensors(two), tensors(one))
        assert all((p - q).abs().max() > 1e-3 for p, q in zip(tensors(two), tensors(ranks_own.seeded_model(0))))
        flat = torch.cat([t.detach().flatten() for t in tensors(two)])
        both = [torch.empty_like(flat) for _ in range(2)]
        dist.all_gather(both, flat, group=group)
        assert torch.equal(*both), "bit for bit those of the other"


SCENES = {scene.__name__: scene for scene in (gathered_rows, means, evidence, training)} | ranks_own.SCENES


# Two processes against one


class Value(nn.Module):
    """A model whose output is the evidence, so that one `DistributedDataParallel` holds encoder and critic."""

    def __init__(self, encoder: nn.Module, critic: nn.Module, group=None):
        super().__init__()
        self.encoder, self.critic, self.group = encoder, critic, group

    def forward(self, x, x_prime):
        z, z_prime = self.encoder(torch.cat([x, x_prime])).chunk(2)
        return dataset_evidence(z, z_prime, self.critic, group=self.group).infonce


def data_parallel(group) -> None:
    """Neither twice nor half of the gradients, whether DDP or `average_gradients` takes the mean."""
    sides, one = pairs(), Value(*model())
    one(*sides).backward()
    for rows in SHARES.values():
        for around in ("the encoder", "both", "none"):
            two = Value(*model(), group)
            parts = [two.encoder, two.critic]
            if around == "the encoder":
                two.encoder = DistributedDataParallel(two.encoder)
            whole = DistributedDataParallel(two) if around == "both" else two
            whole(*(side[rows[group.rank()]] for side in sides)).backward()
            by_hand = {"the encoder": parts[1:], "both": [], "none": parts}[around]
            distributed.average_gradients(by_hand, group)
            same(f"gradients, DDP around {around}", gradients(parts), gradients([one.encoder, one.critic]))


def group_without_rank_0(group) -> None:
    z, alone = pairs()[0], dist.new_group([1])
    if group.rank() == 1:  # rank 0 of the group is rank 1 of all
        distributed.broadcast_parameters(model(), alone)
        assert torch.equal(distributed.gather(z, alone)[0], z)


def agree_on_processes() -> None:
    with distributed.process_group(timeout=LONG) as group:
        for scene in (*SCENES.values(), partial(evidence, dtype=torch.float32), data_parallel, group_without_rank_0):
            scene(group)


# One process is lost

DEATH = 17  # an exit status
SHORT, LONG = 20, 600  # seconds: a time-out that is reached, since the other process sleeps, and one that is not


def value(group, side=None):
    z, z_prime = leaves(pairs())
    return dataset_evidence(z if side is None else side, z_prime, rpm.LaplaceWalk(0.7).double(), group=group).infonce


def value_and_gradient(group) -> None:
    value(group).backward()


def value_of_nan(group) -> None:
    value(group, pairs()[0].index_fill(0, torch.tensor(3), torch.nan))


def value_too_late(group) -> None:
    meeting.wait(["sleeps, 0"])
    value(group)


def die(group) -> None:
    os._exit(DEATH)


LOSSES = {  # what rank 0 does, what rank 1 does, and the time-out
    "leaves before the gradient": (value_and_gradient, value, LONG),
    "has NaN among its rows": (value, value_of_nan, LONG),
    "sleeps": (value, value_too_late, SHORT),
    "dies": (value, die, LONG),
}


def lose(meeting_port: str, *scenes: str) -> None:
    """The stores belong to the process that started both ranks: none of them goes away with one of these."""
    global meeting
    rank = int(os.environ["RANK"])
    meeting = dist.TCPStore("127.0.0.1", int(meeting_port), timeout=timedelta(seconds=LONG))
    for scene, port in (given.rsplit("=", 1) for given in scenes):
        os.environ["MASTER_PORT"] = port
        *actions, timeout = LOSSES[scene]
        meeting.set(f"{scene}, {rank}, here", "")  # one late on a busy machine would miss the other's short time-out
        meeting.wait([f"{scene}, {1 - rank}, here"])
        outcome = played(actions[rank], timeout)
        gc.collect()  # what still refers to the group keeps the connection open
        meeting.set(f"{scene}, {rank}", json.dumps(outcome))


def played(action, timeout: float) -> dict:
    """What a process met; the group is known here alone, so that it can go at the end."""
    outcome, start = {"error": None, "message": ""}, time.perf_counter()
    try:
        with distributed.process_group(timeout) as group:
            start = time.perf_counter()
            action(group)
    except Exception as error:
        outcome = {"error": type(error).__name__, "message": str(error)}
    return outcome | {"seconds": time.perf_counter() - start, "left": not dist.is_initialized()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    {"agree": agree_on_processes, "lose": lose}[sys.argv[1]](*sys.argv[2:])
