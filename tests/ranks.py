"""What each of the two processes of tests/test_distributed.py does, and two threads of the same tests.

`torchrun ranks.py FOLDER`: the numbers and gradients of two processes are those of one, or an error.
"""

import os
import sys
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed.nn  # before any group: its functions keep the one they find, and with it the connection
from residuals import agree
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import rpm_tutorial as rpm
from rpm_tutorial import dataset_evidence, datasets, distributed

N, DIM, STEPS = 101, 3, 4
SHARES = {  # the rows of each rank
    "60 and 41 rows": (torch.arange(60), torch.arange(60, N)),
    "every second row": (torch.arange(0, N, 2), torch.arange(1, N, 2)),
}
WAYS = (  # a critic and the options of its evidence
    (lambda: rpm.RandomWalk(0.7), {}),
    (lambda: rpm.LaplaceWalk(0.7), {"block": 16}),
)


def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    z, step = torch.randn(2, N, DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return z, z + 0.3 * step


def model(seed: int = 0, *, norm: bool = False) -> tuple[nn.Module, nn.Module]:
    """The same at each call: threads share the global generator. No gradient is 0 by symmetry: AdamW would divide rounding."""
    encoder = nn.Sequential(nn.Linear(DIM, 6), nn.BatchNorm1d(6) if norm else nn.Tanh(), nn.Linear(6, 2)).double()
    draw = torch.Generator().manual_seed(seed)
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, generator=draw)
    return encoder, rpm.Bilinear(2).double()


def trainer(group, *, of: int | None = None, seed: int | None = None, batch_size: int = 8, **options) -> rpm.Trainer:
    """Of the pairs of one rank, this one's if not said otherwise."""
    rank = group.rank() if of is None else of
    z, z_prime = (side[rank:60:2] for side in pairs())
    drawn = datasets.tensor_pairs(z, z_prime, batch_size, seed=rank if seed is None else seed)
    return rpm.Trainer(*model(norm=True), drawn, **{"steps": STEPS, "group": group} | options)


def tensors(modules) -> list[torch.Tensor]:
    return [t for module in modules for t in (*module.parameters(), *module.buffers())]


def gradients(modules) -> list[torch.Tensor]:
    return [p.grad for module in modules for p in module.parameters()]


def leaves(sides, rows=slice(None)) -> list[torch.Tensor]:
    return [side[rows].clone().requires_grad_() for side in sides]


def same(what: str, found, expected, tolerance: float = 1e-12) -> None:
    for one, other in zip(found, expected, strict=True):
        agree(f"two ranks = one: {what}", one, other, tolerance=tolerance)


# Two against one: by threads, and by processes


def gathered_rows(group, folder) -> None:
    z, _ = pairs()
    weights = torch.randn(2, N, DIM, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for rows in SHARES.values():
        (local,) = leaves([z], rows[group.rank()])
        everywhere, first, n = distributed.gather(local, group)
        assert torch.equal(everywhere, z[torch.cat(rows)]) and (first, n) == ([0, len(rows[0])][group.rank()], N)
        (found,) = torch.autograd.grad((everywhere * weights[group.rank()]).sum(), local)
        same("gradient of gathered rows", [found], [weights.sum(0)[first : first + len(local)]])
    for mine in (z[:, : 2 + group.rank()], z.to((torch.float64, torch.float32)[group.rank()])):
        with pytest.raises(ValueError, match="hold different latents"):
            distributed.gather(mine, group)


def means(group, folder) -> None:
    p = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    mean = distributed.mean_over_ranks(p.square() * (group.rank() + 1), group)
    (slope,) = torch.autograd.grad(mean, p)
    dist.all_reduce(slope, group=group)
    same("mean_over_ranks and the mean of its gradients", [mean, slope / 2], [3 * p.square(), 3 * 2 * p])
    # Of five parameters, the first has a gradient on rank 0 alone, the second on rank 1 alone, the third on none.
    network = nn.ParameterList([torch.zeros(3) for _ in range(5)])
    network[group.rank()].grad = torch.full((3,), group.rank() + 1.0)
    network[3].grad = torch.full((3,), group.rank() + 2.0)
    if group.rank() == 0:
        network[4].grad = torch.tensor([0.0, 4, 0]).to_sparse()
    distributed.average_gradients([network], group)
    expected = [torch.full((3,), 0.5), torch.ones(3), None, torch.full((3,), 2.5), torch.tensor([0.0, 2, 0])]
    for parameter, mean in zip(network, expected, strict=True):
        assert parameter.grad is None if mean is None else torch.equal(parameter.grad, mean)


def starts(group, folder) -> None:
    modules = [nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)) for _ in range(2)]
    for t in tensors(modules):
        t.detach().fill_(group.rank() + 5)
    distributed.broadcast_parameters(modules, group)
    assert all((t == 5).all() for t in tensors(modules)), "they are rank 0's"
    own = group.rank() == 1
    kinds = (
        nn.Linear(3, 4, bias=not own),
        nn.Linear(3, 4 + own),
        nn.Linear(3, 4).to((torch.float32, torch.float64)[own]),
    )
    for other in kinds:
        for call in (distributed.average_gradients, distributed.broadcast_parameters):
            with pytest.raises(ValueError, match="hold other parameters .process 0: 2 tensors"):
                call([other], group)
    for name, value in {"steps": STEPS + own, "learning_rate": 0.1 + own, "weight_decay": 0.1 * own}.items():
        with pytest.raises(ValueError, match=rf"the processes differ in {name} \(process 0: "):
            trainer(group, **{name: value})


def evidence(group, folder) -> None:
    further = torch.randn(9, DIM, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sides: list[dict] = [{"normalise": side} for side in ("rows", "columns", "both", "views")]
    for own in (*sides, {"candidates": further}, {"labels": nearest}, {"labels": nearest, "normalise": "views"}):
        for make, options in WAYS:
            critic = make().double()
            of = partial(evidence_by, critic=critic, **own, **options)
            two_agree_with_one(of, critic, pairs(), group)
    for name, value in {"candidates": further + group.rank(), "labels": (None, range(N))[group.rank()]}.items():
        with pytest.raises(ValueError, match=f"differ in {name}"):
            dataset_evidence(*pairs(), critic, **{name: value}, group=group)


def nearest(z: torch.Tensor) -> list[str]:
    """Words as labels of rows, several rows each."""
    return [f"near {place}" for place in z[:, 0].round().int().tolist()]


def evidence_by(z, z_prime, labels=None, **options) -> rpm.Evidence:
    return dataset_evidence(z, z_prime, labels=labels and labels(z), **options)


def two_agree_with_one(of, critic: nn.Module, sides, group) -> None:
    everything = leaves(sides)
    one, each = of(*everything), of(*everything, reduction="none").value
    # Gradients are about 1/100 in size, and so is what they may be off.
    of_z, of_z_prime, *of_critic = torch.autograd.grad(one.value, [*everything, *critic.parameters()])
    of_sum = torch.autograd.grad(each.sum(), everything)
    for rows in SHARES.values():
        mine = rows[group.rank()]
        local = leaves(sides, mine)
        two = of(*local, group=group)
        assert two.n == one.n
        same("evidence", two[:2], one[:2])
        critic.zero_grad()
        two.value.backward()  # a row is on one process alone, so the mean of its gradient over both is half of it
        halves = [side.grad / 2 for side in local]
        same("gradients of latents", halves, [of_z[mine], of_z_prime[mine]], 1e-13)
        distributed.average_gradients([critic], group)
        same("gradients of the critic", gradients([critic]), of_critic)
        local = leaves(sides, mine)
        found = of(*local, group=group, reduction="none").value
        same("each row", [found], [each[mine]])
        found.sum().backward()
        same("gradients of rows", [t.grad for t in local], [t[mine] for t in of_sum], 1e-11)


def training(group, folder) -> None:
    sides = torch.stack(pairs()).split(20, 1)  # five batches of 20 pairs and one of a single pair
    mine = slice(0, 13) if group.rank() == 0 else slice(13, None)
    for objective in (rpm.infonce, rpm.donsker_varadhan):
        options = {"steps": STEPS, "objective": objective, "learning_rate": 0.02}
        one, two = model(), model(group.rank())
        expected = list(rpm.train(*one, [sides[step].unbind() for step in range(STEPS)], **options))
        batches = [[side[mine] for side in sides[step]] for step in range(STEPS)]
        found = list(rpm.train(*two, batches, group=group, **options))
        assert [(row.step, row.n) for row in found] == [(row.step, row.n) for row in expected]
        same("values in training", [row.value for row in found], [row.value for row in expected])
        same("parameters after training", tensors(two), tensors(one))
        assert all((p - q).abs().max() > 1e-3 for p, q in zip(tensors(two), tensors(model())))
        both = distributed.everyones(tensors(two), group, torch.device("cpu"))
        assert all(map(torch.equal, *both)), "bit for bit those of the other"


def batches(group, folder) -> None:
    z = pairs()[0][:20]
    mixed = rpm.Trainer(*model(), datasets.tensor_pairs(z, z, 20, seed=group.rank()), STEPS, group=group)
    for twins in (trainer(group, of=0), mixed):  # in the same order and another
        with pytest.raises(ValueError, match="step 1: processes 0 and 1 draw the same batch"):
            twins.advance()
    assert [row.n for row in trainer(group, seed=0)] == [16] * STEPS


def places(group, folder) -> None:
    """Rank 0 writes what all of them load; continued from it, each is where it was in its own pairs."""
    whole, first, second = (trainer(group) for _ in range(3))
    values = [row.value for row in whole]
    for _ in range(STEPS // 2):
        first.advance()
    first.save(folder / "run.pt")
    second.load(folder / "run.pt")
    assert [row.value for row in second] == values[STEPS // 2 :]
    assert all(map(torch.equal, tensors([whole.encoder]), tensors([second.encoder]))), "batch norm saw its own rows"
    assert [file.name for file in folder.iterdir()] == ["run.pt"]
    state, alone = rpm.load_checkpoint(folder / "run.pt"), trainer(None, of=0)
    with pytest.raises(ValueError, match="saved by 2 processes, each with its own place in the data, and here are 1"):
        alone.load_state_dict(state)
    with pytest.raises(ValueError, match="saved by 1 processes.*--nproc-per-node 1"):
        second.load_state_dict(alone.state_dict())
    last = trainer(group, batch_size=8 - group.rank())  # refused on one of them alone
    with pytest.raises(ValueError, match="batch_size 8, here it is 7"):
        last.load_state_dict(state)
    assert last.step == 0


def calls(group, folder) -> None:
    one = trainer(group)
    with pytest.raises(ValueError, match="process 0: a state; process 1: a .*every process"):
        (one.state_dict if group.rank() == 0 else one.advance)()


SCENES = (gathered_rows, means, starts, evidence, training, batches, places, calls)


# Two processes against one


class Value(nn.Module):
    """A model whose output is the evidence, so that one `DistributedDataParallel` holds encoder and critic."""

    def __init__(self, group=None):
        super().__init__()
        (self.encoder, self.critic), self.group = model(), group

    def forward(self, x, x_prime):
        z, z_prime = self.encoder(torch.cat([x, x_prime])).chunk(2)
        return dataset_evidence(z, z_prime, self.critic, group=self.group).infonce


def data_parallel(group, folder) -> None:
    """Neither twice nor half of the gradients, whether DDP or `average_gradients` takes the mean."""
    sides, one = pairs(), Value()
    one(*sides).backward()
    for around in ("the encoder", "both", "none"):
        two = Value(group)
        parts = [two.encoder, two.critic]
        if around == "the encoder":
            two.encoder = DistributedDataParallel(two.encoder)
        whole = DistributedDataParallel(two) if around == "both" else two
        whole(*(side[SHARES["60 and 41 rows"][group.rank()]] for side in sides)).backward()
        by_hand = {"the encoder": parts[1:], "both": [], "none": parts}[around]
        distributed.average_gradients(by_hand, group)
        same(f"gradients, DDP around {around}", gradients(parts), gradients([one.encoder, one.critic]))


def group_without_rank_0(group, folder) -> None:
    z, alone = pairs()[0], dist.new_group([1])
    if group.rank() == 1:  # rank 0 of the group is rank 1 of all
        distributed.broadcast_parameters(model(), alone)
        assert torch.equal(distributed.gather(z, alone)[0], z)


def left_alone(group, folder) -> None:
    """The last scene: rank 1 dies, which rank 0 is told as soon as it asks."""
    if group.rank() == 0:
        words = "(?s)process 0 of 2 got no answer from another process; expected every.*raise the timeout"
        with pytest.raises(RuntimeError, match=words):
            dataset_evidence(*pairs(), rpm.RandomWalk().double(), group=group)
    else:
        os._exit(0)  # as one that is killed: it says no goodbye


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    with distributed.process_group(
        timeout=1200
    ) as whole:  # longer than the test waits: rank 0 is told, and not by time
        for scene in (*SCENES, data_parallel, group_without_rank_0, left_alone):
            scene(whole, Path(sys.argv[1]))
