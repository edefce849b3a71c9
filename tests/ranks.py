"""What each of the two processes of tests/test_distributed.py runs; it prints what it found as JSON.

`python -m torch.distributed.run ... ranks.py agree`: rank 0 prints, for each comparison of two processes with one, the
relative residuals that the two have found. `ranks.py lose PORT...`: each process prints a line for each scene in
which one of them is lost.
"""

import gc
import json
import os
import sys
import time
import warnings
from datetime import timedelta
from functools import partial

import ranks_own
import torch
import torch.distributed as dist
import torch.distributed.nn  # before any group: its functions keep the one they find, and with it the connection
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import rpm_tutorial as rpm
from rpm_tutorial import dataset_evidence, distributed

N, DIM = 101, 3
SHARES = {  # the rows of each rank
    "60 and 41 rows": (torch.arange(60), torch.arange(60, N)),
    "1 and 100 rows": (torch.arange(1), torch.arange(1, N)),
    "100 and 1 rows": (torch.arange(N - 1), torch.arange(N - 1, N)),
    "every second row": (torch.arange(0, N, 2), torch.arange(1, N, 2)),
}
NORMALISE = ("rows", "columns", "both")
WAYS = {  # a critic and the options of its evidence
    "RandomWalk": (lambda: rpm.RandomWalk(0.7), {}),
    "RandomWalk by tiles": (lambda: rpm.RandomWalk(0.7), {"block": 16}),
    "LaplaceWalk": (lambda: rpm.LaplaceWalk(0.7), {}),
    "LaplaceWalk by tiles": (lambda: rpm.LaplaceWalk(0.7), {"block": 16}),
    "Universal": (lambda: rpm.Universal(DIM, width=8, features=4), {}),
}
PRECISIONS = {  # of the evidence: its ways and shares
    torch.float64: (WAYS, SHARES),
    torch.float32: (("RandomWalk", "RandomWalk by tiles", "LaplaceWalk", "Universal"), ("60 and 41 rows",)),
}
OBJECTIVES = {"infonce": rpm.infonce, "donsker_varadhan": rpm.donsker_varadhan}
STEPS = 6


def pairs(dtype=torch.float64):
    z, step = torch.randn(2, N, DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return z.to(dtype), (z + 0.3 * step).to(dtype)


def model(seed: int = 0) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(seed)
    encoder = nn.Sequential(nn.Linear(DIM, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    return encoder, rpm.Bilinear(2).double()  # no gradient is 0 by symmetry: AdamW would divide rounding by rounding


def gradients(modules):
    return [p.grad for module in modules for p in module.parameters()]


def leaves(sides, rows):
    return [side[rows].clone().requires_grad_() for side in sides]


class Residuals:
    """The residuals of this process by name, relative to the largest number expected; of values, to 1 at least."""

    def __init__(self):
        self.found: dict[str, float] = {}

    def __call__(self, name: str, found, expected) -> None:
        found, expected = (t if isinstance(t, (list, tuple)) else [t] for t in (found, expected))
        assert len(found) == len(expected), f"{name}: {len(found)} tensors, expected {len(expected)}"
        found, expected = ([torch.as_tensor(t).detach().double() for t in side] for side in (found, expected))
        assert [t.shape for t in found] == [t.shape for t in expected], f"{name}: {found} and {expected}"
        found, expected = (torch.cat([t.flatten() for t in side]) for side in (found, expected))
        scale = expected.abs().max().clamp(min=1e-3 if "gradient" in name else 1)
        self.found[name] = ((found - expected).abs().max() / scale).item()


# two processes against one


def building_blocks(residual: Residuals, group) -> None:
    z, _ = pairs()
    for share, rows in SHARES.items():
        (local,) = leaves([z], rows[group.rank()])
        everywhere, first, n = distributed.gather(local, group)
        residual(f"gather: rows, {share}", everywhere, z[torch.cat(rows)])
        residual(f"gather: place, {share}", [first, n], [[0, len(rows[0])][group.rank()], N])
        weights = torch.randn(2, N, DIM, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        (found,) = torch.autograd.grad((everywhere * weights[group.rank()]).sum(), local)
        residual(f"gather: gradient, {share}", found, weights.sum(0)[first : first + len(local)])

    for name, mine in (("columns", z[:, : 2 + group.rank()]), ("dtypes", z.to((z.dtype, torch.float32)[group.rank()]))):
        try:
            distributed.gather(mine, group)
            refused = 0
        except ValueError as error:
            refused = int("hold different latents" in str(error))
        residual(f"gather: other {name} are refused", refused, 1)

    p = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    mean = distributed.mean_over_ranks(p.square() * (group.rank() + 1), group)
    residual("mean_over_ranks: value", mean, 3 * p.square())
    mean.backward()
    dist.all_reduce(p.grad)
    residual("mean_over_ranks: mean of the gradients", p.grad / 2, 3 * 2 * p)

    one, other = (nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)) for _ in range(2))
    one[0].bias.requires_grad_(False)  # and so without a gradient
    for p in (*one.parameters(), *other.parameters(), *one.buffers(), *other.buffers()):
        p.detach().fill_(group.rank() + 5)
        p.grad = torch.full_like(p, group.rank() + 2) if p.requires_grad else None
    distributed.average_gradients((one, other), group)
    averaged = [p.grad for p in (*one.parameters(), *other.parameters()) if p.grad is not None]
    assert len(averaged) == 7 and one[0].bias.grad is None
    residual("average_gradients: the mean", averaged, [torch.full_like(p, 2.5) for p in averaged])
    distributed.broadcast_parameters((one, other), group)
    tensors = [*one.parameters(), *other.parameters(), *one.buffers(), *other.buffers()]
    residual("broadcast_parameters: rank 0's", tensors, [torch.full_like(p, 5) for p in tensors])

    alone = dist.new_group([1])
    if group.rank() == 1:  # rank 0 of the group is rank 1 of all
        distributed.broadcast_parameters(model(), alone)
        residual("gather: in a group without rank 0", distributed.gather(z, alone)[0], z)
    else:
        residual("gather: in a group without rank 0", 0, 0)


def evidence(residual: Residuals, group) -> None:
    for dtype, (ways, shares) in PRECISIONS.items():
        for way in ways:
            make, options = WAYS[way]
            for normalise in NORMALISE:
                torch.manual_seed(0)
                critic = make().to(dtype)
                of = partial(dataset_evidence, critic=critic, normalise=normalise, **options)
                case = f"{dtype}, {way}, {normalise}"
                two_agree_with_one(residual, case, shares, of, critic, pairs(dtype), group)


def two_agree_with_one(residual: Residuals, name: str, shares, of, critic: nn.Module, sides, group) -> None:
    (z, z_prime), everything = leaves(sides, slice(None)), list(critic.parameters())
    one = of(z, z_prime)
    each = of(z, z_prime, reduction="none").infonce
    wanted = torch.autograd.grad(one.infonce, [z, z_prime, *everything])
    wanted_of_sum = torch.autograd.grad(each.sum(), [z, z_prime])
    for share in shares:
        case, mine = f"{name}, {share}", SHARES[share][group.rank()]
        local = leaves(sides, mine)
        two = of(*local, group=group)
        assert two.n == N
        residual(f"{case}: value", [two.infonce, two.log_evidence], [one.infonce, one.log_evidence])
        with torch.no_grad():
            residual(f"{case}: value under no_grad", of(*local, group=group).infonce, one.infonce)
        critic.zero_grad()
        two.infonce.backward()  # z's own rows are on one process alone, so the mean of their gradient is half of it
        residual(f"{case}: gradient of z", local[0].grad / 2, wanted[0][mine])
        residual(f"{case}: gradient of z'", local[1].grad / 2, wanted[1][mine])
        distributed.average_gradients([critic], group)
        residual(f"{case}: gradient of the critic", gradients([critic]), wanted[2:])
        local = leaves(sides, mine)
        found = of(*local, group=group, reduction="none").infonce
        residual(f"{case}: each row", found, each[mine])
        found.sum().backward()
        residual(f"{case}: gradient of the rows' sum", [t.grad for t in local], [t[mine] for t in wanted_of_sum])


class Value(nn.Module):
    """A model whose output is the evidence, so that one `DistributedDataParallel` holds encoder and critic."""

    def __init__(self, encoder: nn.Module, critic: nn.Module, group=None):
        super().__init__()
        self.encoder, self.critic, self.group = encoder, critic, group

    def forward(self, x, x_prime):
        z, z_prime = self.encoder(torch.cat([x, x_prime])).chunk(2)
        return dataset_evidence(z, z_prime, self.critic, group=self.group).infonce


def data_parallel(residual: Residuals, group) -> None:
    x, x_prime = pairs()
    one = Value(*model())
    value = one(x, x_prime)
    value.backward()
    expected = [gradients([one.encoder]), gradients([one.critic])]
    for share, rows in SHARES.items():
        own = [side[rows[group.rank()]] for side in (x, x_prime)]
        for what in ("around the encoder", "around both", "by hand"):
            two = Value(*model(), group)
            encoder, critic = two.encoder, two.critic
            if what == "around the encoder":
                two.encoder = DistributedDataParallel(encoder)
            elif what == "around both":
                two = DistributedDataParallel(two)
            found = two(*own)
            found.backward()
            by_hand = {"around the encoder": [critic], "around both": [], "by hand": [encoder, critic]}[what]
            distributed.average_gradients(by_hand, group)
            case = f"DistributedDataParallel {what}, {share}"
            residual(f"{case}: value", found, value)
            residual(f"{case}: gradient of the encoder", gradients([encoder]), expected[0])
            residual(f"{case}: gradient of the critic", gradients([critic]), expected[1])


def training(residual: Residuals, group) -> None:
    sides = torch.stack(pairs()).split(20, 1)  # five batches of 20 pairs and one of a single pair
    for objective in OBJECTIVES:
        for name, shares in (("equal", 10), ("unequal", 13)):
            mine = slice(0, shares) if group.rank() == 0 else slice(shares, None)
            batches = [[side[mine] for side in sides[step % 5]] for step in range(STEPS)]
            joined = [sides[step % 5].unbind() for step in range(STEPS)]
            options = {"objective": OBJECTIVES[objective], "learning_rate": 0.02}
            one, two = model(seed=0), model(seed=group.rank())
            expected = list(rpm.train(*one, joined, STEPS, **options))
            found = list(rpm.train(*two, batches, STEPS, group=group, **options))
            case = f"training by {objective}, {name} shares"
            assert [(row.step, row.n) for row in found] == [(row.step, row.n) for row in expected]
            residual(f"{case}: value at each step", [row.value for row in found], [row.value for row in expected])
            ends, ends_of_one = ([p for part in parts for p in part.parameters()] for parts in (two, one))
            residual(f"{case}: parameters at the end", ends, ends_of_one)
            residual(f"{case}: the same on both processes", *on_both_processes(ends))
            start = [p for part in model() for p in part.parameters()]
            assert all((p - q).abs().max() > 1e-3 for p, q in zip(ends, start, strict=True))

    encoder, critic = model()[0], Dropping(2).double()
    torch.manual_seed(group.rank())  # what is dropped differs
    list(rpm.train(encoder, critic, batches, 2, group=group))
    residual("training with dropout: the same on both processes", *on_both_processes(critic.parameters()))


class Dropping(rpm.Bilinear):
    def forward(self, z, z_prime):
        return super().forward(nn.functional.dropout(z), z_prime)


def on_both_processes(parameters) -> list[torch.Tensor]:
    flat = torch.cat([p.detach().flatten() for p in parameters])
    both = [torch.empty_like(flat) for _ in range(2)]
    dist.all_gather(both, flat)
    return both


def agree() -> None:
    with distributed.process_group(timeout=600) as group:
        residual, found = Residuals(), [None, None]
        for compare in (building_blocks, evidence, data_parallel, training, *ranks_own.SCENES.values()):
            compare(residual, group)
        dist.all_gather_object(found, residual.found)
        if group.rank() == 0:
            print(json.dumps({name: [ranks[name] for ranks in found] for name in residual.found}))


# one process is lost

DEATH = 17  # an exit status
SHORT, LONG = 10, 300  # seconds: a time-out that is reached, since the other process sleeps, and one that is not
SLEEPER = "sleeps until the other gives up"


def nothing(group) -> None: ...


def value(group, side=None):
    z, z_prime = (t.requires_grad_() for t in pairs())
    return dataset_evidence(z if side is None else side, z_prime, rpm.LaplaceWalk(0.7).double(), group=group).infonce


def value_and_gradient(group) -> None:
    value(group).backward()


def value_of_nan(group) -> None:
    value(group, pairs()[0].index_fill(0, torch.tensor(3), torch.nan))


def value_too_late(group) -> None:
    meeting.wait([f"{SLEEPER}, 0, gave up"])
    value(group)


def lengths(group) -> None:
    dist.all_reduce(torch.tensor([[0, 0, 0, 0], [0, N, DIM, 0]]), group=group)  # what `gather` says of its rows first


def gathered(group) -> None:
    distributed.gather(pairs()[1], group)


def averaged(group) -> None:
    encoder, _ = model()
    encoder(pairs()[0]).sum().backward()
    distributed.average_gradients([encoder], group)


def broadcast(group) -> None:
    distributed.broadcast_parameters(model(), group)


def train(group, batches: int = 2, nan: bool = False) -> None:
    sides = [[side.roll(group.rank(), 1) for side in pairs()] for _ in range(batches)]  # no batch is the other's
    if nan:
        sides[-1][0][3] = torch.nan
    list(rpm.train(*model(), sides, 2, group=group))


def die(group) -> None:
    os._exit(DEATH)


SCENES = {  # what rank 0 does, what rank 1 does, and the time-out
    "leaves before the lengths are known": (value, nothing, LONG),
    "leaves before the rows are gathered": (value, lengths, LONG),
    "leaves before the mean": (value, gathered, LONG),
    "leaves before the gradient": (value_and_gradient, value, LONG),
    "leaves before the gradients are averaged": (averaged, nothing, LONG),
    "leaves before the broadcast": (nothing, broadcast, LONG),
    "has NaN among its rows": (value, value_of_nan, LONG),
    "runs out of batches": (train, partial(train, batches=1), LONG),
    "trains on NaN": (train, partial(train, nan=True), LONG),
    SLEEPER: (value, value_too_late, SHORT),
    "dies": (value, die, LONG),
}


def lose(port: str, *ports: str) -> None:
    global meeting
    rank = int(os.environ["RANK"])
    meeting = dist.TCPStore("127.0.0.1", int(port), 2, is_master=rank == 0, timeout=timedelta(seconds=LONG))
    for (scene, (*actions, timeout)), port in zip(SCENES.items(), ports, strict=True):
        os.environ["MASTER_PORT"] = port
        outcome = {"scene": scene, "error": None, "message": "", "cause": None}
        meeting.set(f"{scene}, {rank}", "here")  # one late on a busy machine would miss the other's short time-out
        meeting.wait([f"{scene}, {1 - rank}"])
        try:
            act(actions[rank], timeout, outcome)
        except Exception as error:
            if "start" not in outcome:
                raise
            outcome |= {"error": type(error).__name__, "message": str(error), "cause": type(error.__cause__).__name__}
        outcome["seconds"] = time.perf_counter() - outcome.pop("start")
        meeting.set(f"{scene}, {rank}, gave up", "or ended")
        gc.collect()  # what still refers to the group keeps the connection open
        print(json.dumps(outcome | {"left": not dist.is_initialized()}), flush=True)


def act(action, timeout: float, outcome: dict) -> None:
    with distributed.process_group(timeout) as group:
        outcome["start"] = time.perf_counter()
        action(group)


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    {"agree": agree, "lose": lose}[sys.argv[1]](*sys.argv[2:])
