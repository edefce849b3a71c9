"""A training, stopped and continued from a state or a file: bit for bit that of one never stopped, or refused."""

import numpy as np
import pytest
import torch
from torch import nn
from trainings import digit_pairs, everything, model, trainer

import rpm_tutorial as rpm
from rpm_tutorial import datasets


def of_two_encoders(seed: int) -> rpm.Trainer:
    torch.manual_seed(seed)
    x = torch.randn(300, 10, generator=torch.Generator().manual_seed(0))
    pairs = datasets.tensor_pairs(x, x[:, :8].exp(), 64, seed=seed)
    return rpm.Trainer(nn.Linear(10, 4), rpm.VonMisesFisher(0.2), pairs, 8, encoder_prime=nn.Linear(8, 4))


def of_buffers(seed: int) -> rpm.Trainer:
    found = trainer(seed, steps=8)
    found.encoder.append(nn.BatchNorm1d(8))
    found.encoder.register_buffer("rows", torch.eye(4).to_sparse_csr())
    return found


class Loader:
    """Pairs as torchdata's StatefulDataLoader has them: a loaded state is where the next iteration begins, at its first batch."""

    def __init__(self, seed: int = 0):
        self.batches, self.state = None, digit_pairs(seed).state_dict()

    def __iter__(self):
        self.batches = digit_pairs()
        self.batches.load_state_dict(self.state)
        yield from self.batches

    def state_dict(self):
        return self.state if self.batches is None else self.batches.state_dict()

    def load_state_dict(self, state):
        self.state = state


def of_momentum(seed: int) -> rpm.Trainer:
    def optimiser(parameters, lr, weight_decay):
        groups = [{"params": parameters[:1], "lr": 3 * lr, "momentum": 0.9}, {"params": parameters[1:]}]
        return torch.optim.SGD(groups, lr, weight_decay=weight_decay)

    return rpm.Trainer(*model(seed), digit_pairs(seed), 8, optimiser=optimiser)


TRAININGS = {
    "an optimiser of one's own": of_momentum,
    "two views": lambda seed: trainer(seed, steps=8),
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


def test_settings_count_from_the_next_step_and_are_kept(tmp_path):
    found, plain, fresh = trainer(), trainer(), trainer(seed=1)
    found.advance(), plain.advance()
    found.learning_rate, found.pairs.strength = 0.05, 0.25
    found.save(tmp_path / "kept"), fresh.load(tmp_path / "kept")
    assert (fresh.learning_rate, fresh.pairs.strength) == (0.05, 0.25)
    rows = [each.advance().value for each in (found, fresh, plain)]
    assert rows[0] == rows[1] != rows[2]


def test_numbers_of_other_kinds_are_saved(tmp_path):
    half = np.float32(0.5)
    pairs = datasets.view_pairs(
        datasets.digits().x, np.int64(128), strength=half, flip=np.bool_(True), seed=np.int64(3)
    )
    found = rpm.Trainer(*model(), pairs, np.int64(10), learning_rate=half, weight_decay=half)
    found.advance(), found.save(tmp_path / "kept"), found.load(tmp_path / "kept")
    assert found.learning_rate == pairs.strength == 0.5


def test_a_state_is_that_of_its_moment_and_can_be_gone_back_to_more_than_once():
    found = of_buffers(0)
    found.advance(), found.advance()
    best, as_saved, rest = found.state_dict(), everything(found), None
    for _ in range(2):
        found.learning_rate = 1e-3
        found.advance(), found.advance()
        assert everything(found) != as_saved
        found.load_state_dict(best)
        assert everything(found) == as_saved and (rest is None or rest == [row.value for row in found])
        rest = rest or [row.value for row in found]
        found.load_state_dict(best)


def test_pairs_without_a_state_continue_with_a_warning(tmp_path):
    def endless(seed: int):
        yield from digit_pairs(seed)

    part, fresh = (rpm.Trainer(*model(seed), endless(seed), 8) for seed in (0, 3))
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
    "another batch size": ({"pairs": {"batch_size": 64}}, "of batch_size 128, here it is 64"),
    "other images, as many": ({"pairs": {"x": datasets.digits().x.flip(0)}}, "of other data"),
    "other views": ({"pairs": {"flip": True}}, "of flip False, here it is True"),
    "fewer steps": ({"steps": 5}, "steps: 10 in the state, 5 here"),
    "another objective": ({"objective": rpm.nwj}, "objective: infonce in the state, nwj here"),
    "another optimiser": ({"optimiser": torch.optim.SGD}, "optimiser: AdamW in the state, SGD here"),
    "another critic": ({"critic": rpm.LaplaceWalk}, "critic: RandomWalk in the state, LaplaceWalk here"),
    "another encoder": ({"layer": nn.Tanh}, "encoder: Sequential .*ReLU in the state, .*Tanh here"),
    "other shapes": ({"width": 7}, "(?s:.*)size mismatch"),
    "two encoders": ({"encoder_prime": nn.Flatten()}, "encoder_prime: None in the state, Flatten here"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_training_is_not_continued_as_another_one(kind):
    change, message = OTHERS[kind]
    one, other = another(), another(**change)
    one.advance()
    before = everything(other)
    with pytest.raises(ValueError, match=f"not of this training: .*{message}(?s:.*)Expected the same.*Remedy"):
        other.load_state_dict(one.state_dict())
    assert everything(other) == before
