"""What each of two processes has of its own: pairs, a place in them, gradients, settings. Played by processes and by threads."""

import pytest
import torch
from torch import nn

from rpm_tutorial import Bilinear, Trainer, datasets, distributed

STEPS = 6


def seeded_model(seed: int = 0, *, norm: bool = False) -> tuple[nn.Module, nn.Module]:
    """The same at each call. (Threads share the global generator.)"""
    encoder = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4) if norm else nn.Tanh(), nn.Linear(4, 2)).double()
    draw = torch.Generator().manual_seed(seed)
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, generator=draw)
    return encoder, Bilinear(2).double()


def own_pairs(rank: int, *, seed: int | None = None, batch_size: int = 8) -> datasets.TensorPairs:
    z, step = torch.randn(2, 60, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mine = slice(rank, None, 2)
    return datasets.tensor_pairs(z[mine], (z + 0.3 * step)[mine], batch_size, seed=rank if seed is None else seed)


def trainer(group, *, pairs=None, **options) -> Trainer:
    options = {"steps": STEPS, "group": group} | options
    return Trainer(*seeded_model(norm=True), own_pairs(group.rank()) if pairs is None else pairs, **options)


def gradients_that_some_lack(group) -> None:
    """Of five parameters, the first has a gradient on rank 0 alone, the second on rank 1 alone, the third on none."""
    network = nn.ParameterList([torch.zeros(3) for _ in range(5)])
    network[group.rank()].grad = torch.full((3,), group.rank() + 1.0)
    network[3].grad = torch.full((3,), group.rank() + 2.0)
    if group.rank() == 0:
        network[4].grad = torch.tensor([0.0, 4, 0]).to_sparse()
    distributed.average_gradients([network], group)
    expected = [torch.full((3,), 0.5), torch.ones(3), None, torch.full((3,), 2.5), torch.tensor([0.0, 2, 0])]
    for parameter, mean in zip(network, expected, strict=True):
        assert parameter.grad is None if mean is None else torch.equal(parameter.grad, mean)


def other_parameters_and_settings(group) -> None:
    own = group.rank() == 1
    for other in (
        nn.Linear(3, 4, bias=not own),
        nn.Linear(3, 4 + own),
        nn.Linear(3, 4, dtype=(torch.float32, torch.float64)[own]),
    ):
        for call in (distributed.average_gradients, distributed.broadcast_parameters):
            with pytest.raises(ValueError, match="hold other parameters .process 0: 2 tensors"):
                call([other], group)
    for name, value in {"steps": STEPS + own, "learning_rate": 0.1 + own, "weight_decay": 0.1 * own}.items():
        with pytest.raises(ValueError, match=rf"the processes differ in {name} \(process 0: "):
            trainer(group, **{name: value})


def batches(group) -> None:
    z = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for twins in (own_pairs(0), datasets.tensor_pairs(z, z, 20, seed=group.rank())):  # in the same order and another
        with pytest.raises(ValueError, match="step 1: processes 0 and 1 draw the same batch"):
            trainer(group, pairs=twins).advance()
    assert [row.n for row in trainer(group, pairs=own_pairs(group.rank(), seed=0))] == [16] * STEPS


def places(group) -> None:
    """Continued from a state, each is where it was in its own pairs."""
    whole, first, second = (trainer(group) for _ in range(3))
    rows = [row.value for row in whole]
    for _ in range(STEPS // 2):
        first.advance()
    state = first.state_dict()
    second.load_state_dict(state)
    assert [row.value for row in second] == rows[STEPS // 2 :]
    alone = trainer(None, pairs=own_pairs(0))
    with pytest.raises(ValueError, match="saved by 2 processes, each with its own place in the data, and here are 1"):
        alone.load_state_dict(state)
    with pytest.raises(ValueError, match="saved by 1 processes.*--nproc-per-node 1"):
        second.load_state_dict(alone.state_dict())
    last = trainer(group, pairs=own_pairs(group.rank(), batch_size=8 - group.rank()))  # refused on one of them alone
    with pytest.raises(ValueError, match="batch_size 8, here it is 7"):
        last.load_state_dict(state)
    assert last.step == 0


def calls(group) -> None:
    one = trainer(group)
    with pytest.raises(ValueError, match="process 0: a state; process 1: a .*every process"):
        (one.state_dict if group.rank() == 0 else one.advance)()


SCENES = {
    scene.__name__: scene for scene in (gradients_that_some_lack, other_parameters_and_settings, batches, places, calls)
}
