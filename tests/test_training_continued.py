"""A training, stopped and continued from a state or a file: bit for bit that of one never stopped, or refused."""

import numpy as np
import pytest
import torch
from torch import nn
from trainings import digit_pairs, everything, model, trainer

import rpm_tutorial as rpm
from rpm_tutorial import datasets


def of_two_encoders(seed: int) -> rpm.Trainer:
    """And an optimiser of one's own."""

    def optimiser(parameters, lr, weight_decay):
        groups = [{"params": parameters[:1], "lr": 3 * lr, "momentum": 0.9}, {"params": parameters[1:]}]
        return torch.optim.SGD(groups, lr, weight_decay=weight_decay)

    torch.manual_seed(seed)
    networks = {"encoder": nn.Linear(10, 4), "encoder_prime": nn.Linear(8, 4), "critic": rpm.VonMisesFisher(0.2)}
    x = torch.randn(300, 10, generator=torch.Generator().manual_seed(0))
    pairs = datasets.tensor_pairs(x, x[:, :8].exp(), 64, seed=seed)
    return rpm.Trainer(**networks, pairs=pairs, steps=8, optimiser=optimiser)


def of_buffers(seed: int) -> rpm.Trainer:
    found = trainer(seed, steps=8)
    found.encoder.append(nn.BatchNorm1d(8))
    found.encoder.register_buffer("rows", torch.eye(4).to_sparse_csr())
    return found


class Loader:
    """Pairs as torchdata's StatefulDataLoader has them: a loaded state is where the next iteration begins, at its first batch."""

    def __init__(self, seed: int):
        self.batches, self.state = None, digit_pairs(seed).state_dict()

    def __iter__(self):
        self.batches = digit_pairs()
        self.batches.load_state_dict(self.state)
        yield from self.batches

    def state_dict(self):
        return self.state if self.batches is None else self.batches.state_dict()

    def load_state_dict(self, state):
        self.state = state


TRAININGS = {
    "two encoders": of_two_encoders,
    "buffers": of_buffers,
    "a stateful loader": lambda seed: rpm.Trainer(*model(seed), Loader(seed), 8),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("kind", TRAININGS)
def test_a_training_continued_from_a_file_gives_the_same_numbers_bit_for_bit(kind, tmp_path):
    whole, part, fresh = (TRAININGS[kind](seed) for seed in (0, 0, 1))
    expected = [row.value for row in whole]
    for _ in range(3):
        part.advance()
    part.save(tmp_path / "kept")
    fresh.load(tmp_path / "kept")
    assert fresh.step == 3 and fresh.seconds == part.seconds
    assert [row.value for row in fresh] == expected[3:] and everything(fresh) == everything(whole)
    part.load(tmp_path / "kept")
    assert [row.value for row in part] == expected[3:], "and in the same trainer"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_state_is_that_of_its_moment_and_can_be_gone_back_to_more_than_once():
    found = trainer(steps=5)
    found.advance()
    best, as_saved, rests = found.state_dict(), everything(found), []
    for _ in range(2):
        rests.append([row.value for row in found])
        found.learning_rate = 1.0
        found.load_state_dict(best)
        assert everything(found) == as_saved
    assert rests[0] == rests[1]


def test_settings_of_any_kind_of_number_count_from_the_next_step_and_are_kept(tmp_path):
    half, x = np.float32(0.5), datasets.digits().x

    def make() -> rpm.Trainer:
        pairs = datasets.view_pairs(x, np.int64(128), strength=half, flip=np.bool_(True), seed=np.int64(3))
        return rpm.Trainer(*model(), pairs, np.int64(10), learning_rate=half, weight_decay=half)

    found, plain, fresh = make(), make(), make()
    found.learning_rate, found.pairs.strength = np.float32(0.25), np.float32(0.25)
    found.save(tmp_path / "kept"), fresh.load(tmp_path / "kept")
    assert fresh.learning_rate == fresh.pairs.strength == 0.25
    rows = [each.advance().value for each in (found, fresh, plain)]
    assert rows[0] == rows[1] != rows[2]


def test_pairs_without_a_state_continue_with_a_warning(tmp_path):
    part, fresh = (rpm.Trainer(*model(seed), (pair for pair in digit_pairs(seed)), 8) for seed in (0, 3))
    part.advance(), part.save(tmp_path / "kept")
    with pytest.warns(
        UserWarning, match="pairs is a generator, which has no state_dict: .*not with the numbers of one"
    ):
        fresh.load(tmp_path / "kept")
    assert everything(part) == everything(fresh) and [row.step for row in fresh] == list(range(2, 9))
    with pytest.raises(ValueError, match="not of this training: 'pairs'"):
        trainer(steps=8).load_state_dict(part.state_dict())
    with pytest.raises(ValueError, match="a generator has no load_state_dict"):
        part.load_state_dict(trainer(steps=8).state_dict())


# Refused


def another(pairs=None, *, steps=10, critic=rpm.RandomWalk, layer=nn.ReLU, width=8, **options) -> rpm.Trainer:
    torch.manual_seed(0)
    views = {"x": datasets.digits().x, "batch_size": 128, "flip": False} | (pairs or {})
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, width), layer())
    return rpm.Trainer(encoder, critic(), datasets.view_pairs(**views), steps, **options)


OTHERS = {
    "of batch_size 128, here it is 64": {"pairs": {"batch_size": 64}},
    "of other data": {"pairs": {"x": datasets.digits().x.flip(0)}},
    "of flip False, here it is True": {"pairs": {"flip": True}},
    "steps: 10 in the state, 5 here": {"steps": 5},
    "objective: infonce in the state, nwj here": {"objective": rpm.nwj},
    "optimiser: AdamW in the state, SGD here": {"optimiser": torch.optim.SGD},
    "critic: RandomWalk in the state, LaplaceWalk here": {"critic": rpm.LaplaceWalk},
    "encoder: Sequential .*ReLU in the state, .*Tanh here": {"layer": nn.Tanh},
    "(?s:.*)size mismatch": {"width": 7},
    "encoder_prime: None in the state, Flatten here": {"encoder_prime": nn.Flatten()},
}


@pytest.mark.parametrize("message", OTHERS)
def test_a_training_is_not_continued_as_another_one(message):
    one, other = another(), another(**OTHERS[message])
    one.advance()
    before = everything(other)
    with pytest.raises(ValueError, match=f"not of this training: .*{message}(?s:.*)Expected the same.*Remedy"):
        other.load_state_dict(one.state_dict())
    assert everything(other) == before
