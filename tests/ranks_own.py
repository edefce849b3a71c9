"""What each of two processes has of its own: pairs, a place in them, gradients, settings. Played by processes and by threads."""

import torch
from torch import nn

from rpm_tutorial import Bilinear, Trainer, datasets, distributed

STEPS = 6


def model() -> tuple[nn.Module, nn.Module]:
    """The same at each call. (Threads share the global generator.)"""
    encoder = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()
    draw = torch.Generator().manual_seed(0)
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, generator=draw)
    return encoder, Bilinear(2).double()


def own_pairs(rank: int, *, seed: int | None = None, batch_size: int = 8) -> datasets.TensorPairs:
    z, step = torch.randn(2, 60, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mine = slice(rank, None, 2)
    return datasets.tensor_pairs(z[mine], (z + 0.3 * step)[mine], batch_size, seed=rank if seed is None else seed)


def trainer(group, *, pairs=None, networks=None, **options) -> Trainer:
    options = {"steps": STEPS, "group": group} | options
    pairs = own_pairs(group.rank()) if pairs is None else pairs
    return Trainer(*(model() if networks is None else networks), pairs, **options)


def refusal(call, *arguments, **options) -> str:
    try:
        return f"nothing was raised, but there is {call(*arguments, **options)}"
    except ValueError as error:
        return str(error)


def gradients(residual, group) -> None:
    """Of five parameters, the first has a gradient on rank 0 alone, the second on rank 1 alone, the third on none."""
    network = nn.ParameterList([torch.zeros(3) for _ in range(5)])
    for place, value in {0: 1.0, 1: 2.0}.items():
        if place == group.rank():
            network[place].grad = torch.full((3,), value)
    network[3].grad = torch.full((3,), group.rank() + 2.0)
    if group.rank() == 0:
        network[4].grad = torch.tensor([0.0, 4, 0]).to_sparse()
    distributed.average_gradients([network], group)
    residual("own: None in the place of a gradient stays None where it is all there is", network[2].grad is None, True)
    found = [network[k].grad for k in (0, 1, 3, 4)]
    expected = [torch.full((3,), 0.5), torch.ones(3), torch.full((3,), 2.5), torch.tensor([0.0, 2, 0])]
    residual("own: gradients that some processes lack, or hold as sparse tensors", found, expected)


def other_parameters(residual, group) -> None:
    own, (encoder, critic) = group.rank() == 1, model()
    for name, other, message in (
        ("number", nn.Linear(3, 4, bias=not own), "hold other parameters (process 0: 2 tensors; process 1: 1 tensors"),
        ("shape", nn.Linear(3, 4 + own), "hold other parameters"),
        ("dtype", nn.Linear(3, 4, dtype=(torch.float32, torch.float64)[own]), "hold other parameters"),
    ):
        for call in (distributed.average_gradients, distributed.broadcast_parameters):
            residual(f"own: another {name}, {call.__name__}", message in refusal(call, [other], group), True)
    for name, value in {"steps": STEPS + own, "learning_rate": 0.1 + own, "weight_decay": 0.1 * own}.items():
        said = refusal(trainer, group, networks=(encoder, critic), **{name: value})
        residual(f"own: another {name}", f"the processes differ in {name} (process 0: " in said, True)


def batches(residual, group) -> None:
    z = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for name, pairs in (
        ("the same batch", own_pairs(0)),
        ("the same pairs in another order", datasets.tensor_pairs(z, z, 20, seed=group.rank())),
    ):
        said = refusal(trainer(group, pairs=pairs).advance)
        residual(f"own: {name}", "step 1: processes 0 and 1 draw the same batch" in said, True)
    rows = list(trainer(group, pairs=own_pairs(group.rank(), seed=0)))
    residual("own: pairs of one's own from one seed", [row.n for row in rows], [16] * STEPS)


def places(residual, group) -> None:
    """Continued from a state, each is where it was in its own pairs."""
    whole, first = trainer(group), trainer(group)
    rows = list(whole)
    for _ in range(STEPS // 2):
        first.advance()
    state, second = first.state_dict(), trainer(group)
    second.load_state_dict(state)
    residual("own: places after a state was loaded", [r.value for r in second], [r.value for r in rows[STEPS // 2 :]])
    alone = trainer(None, pairs=own_pairs(0))
    residual(
        "own: a state of two in one",
        "saved by 2 processes, each with its own place in the data, and here are 1"
        in refusal(alone.load_state_dict, state),
        True,
    )
    said = refusal(second.load_state_dict, alone.state_dict())
    residual("own: a state of one in two", "saved by 1 processes" in said and "--nproc-per-node 1" in said, True)
    other = own_pairs(group.rank(), batch_size=8 - group.rank())  # on one of them alone
    last = trainer(group, pairs=other)
    said = refusal(last.load_state_dict, state)
    residual(
        "own: a state that one of them refuses is loaded by none",
        "batch_size 8, here it is 7" in said and last.step == 0,
        True,
    )


def calls(residual, group) -> None:
    one = trainer(group)
    said = refusal(one.state_dict if group.rank() == 0 else one.advance)
    residual(
        "own: a save on rank 0 alone", "process 0: a state; process 1: a " in said and "every process" in said, True
    )


SCENES = {scene.__name__.replace("_", " "): scene for scene in (gradients, other_parameters, batches, places, calls)}
