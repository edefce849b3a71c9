"""A training, stopped and continued from a file: bit for bit that of one never stopped."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from trainings import digit_pairs, everything, model, trainer, values

import rpm_tutorial as rpm
from rpm_tutorial import datasets, encoders


def test_a_trainer_gives_the_rows_of_train():
    found = trainer(steps=5)
    assert [(row.step, row.value) for row in found] == list(enumerate(values(5), 1))
    assert found.step == 5 and found.batch_size == 128 and list(found) == []


@pytest.mark.parametrize("stop_at", [1, 4, 9])
def test_a_trainer_continued_from_a_file_by_new_modules_gives_the_same_numbers_bit_for_bit(stop_at, tmp_path):
    whole, part, fresh = trainer(), trainer(), trainer(seed=1)
    expected = [row.value for row in whole]
    for _ in range(stop_at):
        part.advance()
    part.learning_rate = 2e-3
    part.save(tmp_path / "kept")
    fresh.load(tmp_path / "kept")
    assert fresh.step == stop_at and fresh.seconds == part.seconds
    assert [row.value for row in fresh] == expected[stop_at:] and everything(fresh) == everything(whole)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_two_encoders_continue_from_a_file_bit_for_bit(tmp_path):
    x = torch.randn(300, 10, generator=torch.Generator().manual_seed(0))

    def two(seed: int) -> rpm.Trainer:
        torch.manual_seed(seed)
        networks = nn.Linear(10, 4), rpm.VonMisesFisher(0.2)
        pairs = datasets.tensor_pairs(x, x[:, :8].exp(), 64, seed=seed)
        return rpm.Trainer(*networks, pairs, 8, encoder_prime=nn.Linear(8, 4))

    whole, part, fresh = two(0), two(0), two(1)
    expected = [row.value for row in whole]
    for _ in range(3):
        part.advance()
    part.save(tmp_path / "kept")
    fresh.load(tmp_path / "kept")
    assert [row.value for row in fresh] == expected[3:] and everything(fresh) == everything(whole)
    alone = rpm.Trainer(fresh.encoder, fresh.critic, datasets.tensor_pairs(x, x.exp(), 64), 8)
    with pytest.raises(ValueError, match="not of this training.*Expected the same encoder"):
        alone.load(tmp_path / "kept")
    alone.advance(), alone.save(tmp_path / "alone")
    with pytest.raises(ValueError, match="not of this training: 'encoder_prime'.*Remedy: make the trainer as that one"):
        whole.load(tmp_path / "alone")


def test_a_checkpoint_of_one_encoder_holds_it_once():
    numbers = {"step", "seconds", "learning_rate", "kind"}
    assert {*trainer().state_dict()} == {"encoder", "critic", "optimiser", "pairs", *numbers}


def test_settings_count_from_the_next_step_and_are_kept(tmp_path):
    found, plain = trainer(), trainer()
    found.advance(), plain.advance()
    found.learning_rate, found.pairs.strength = 0.05, 0.25
    found.save(tmp_path / "kept")
    fresh = trainer(seed=1)
    fresh.load(tmp_path / "kept")
    assert (fresh.learning_rate, fresh.pairs.strength) == (0.05, 0.25)
    rows = [each.advance().value for each in (found, fresh, plain)]
    assert rows[0] == rows[1] != rows[2]
    assert found.advance().value == fresh.advance().value


def test_a_learning_rate_of_zero_stands_still():
    found = trainer()
    found.learning_rate = 0.0
    before = [p.clone() for p in found.encoder.parameters()]
    found.advance()
    assert all(torch.equal(p, q) for p, q in zip(before, found.encoder.parameters(), strict=True))


def other_shapes(path):
    other = trainer(width=32)
    other.advance()
    other.save(path)


def other_images(path):
    torch.manual_seed(0)
    pairs = datasets.view_pairs(datasets.digits().x[:500], 128)
    other = rpm.Trainer(*model(), pairs, 10)
    other.advance()
    other.save(path)


SPOILT = {
    "missing": (lambda path: path.unlink(), FileNotFoundError, "kept"),
    "empty": (lambda path: path.write_bytes(b""), ValueError, "no checkpoint, or a damaged one.*Expected"),
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:900]), ValueError, "damaged one.*Expected"),
    "no checkpoint": (lambda path: path.write_text("hello"), ValueError, "no checkpoint.*Expected"),
    "code": (lambda path: torch.save(trainer, path), ValueError, "no checkpoint"),
    "other shapes": (other_shapes, ValueError, "(?s)not of this training.*Expected the same encoder"),
    "other images": (other_images, ValueError, "not of this training.*of other images"),
    "a list": (lambda path: torch.save([1], path), ValueError, "not of this training"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_file_that_cannot_be_continued_is_refused_and_changes_nothing(kind, tmp_path):
    path, found = tmp_path / "kept", trainer()
    found.advance(), found.save(path), found.advance()
    before = everything(found)
    spoil, error, message = SPOILT[kind]
    spoil(path)
    with pytest.raises(error, match=message):
        found.load(path)
    assert everything(found) == before


class Iterator:
    """Pairs as torchdata's StatefulDataLoader has them: a loaded state is where the next iteration begins."""

    def __init__(self):
        self.state = digit_pairs().state_dict()

    def __iter__(self):
        self.batches = digit_pairs()
        self.batches.load_state_dict(self.state)
        return self.batches

    def state_dict(self):
        return self.batches.state_dict()

    def load_state_dict(self, state):
        self.state = state


class Generator(Iterator):
    """The same, where the iteration begins with its first batch only."""

    def __iter__(self):
        yield from super().__iter__()

    def state_dict(self):
        return self.batches.state_dict() if hasattr(self, "batches") else self.state


@pytest.mark.parametrize("kind", [Iterator, Generator])
def test_pairs_whose_state_counts_from_the_next_iteration_continue_bit_for_bit(kind, tmp_path):
    whole, part, fresh = (rpm.Trainer(*model(), kind(), 8) for _ in range(3))
    expected = [row.value for row in whole]
    for _ in range(3):
        part.advance()
    part.save(tmp_path / "kept")
    fresh.load(tmp_path / "kept")
    assert [row.value for row in fresh] == expected[3:]
    part.advance(), part.load(tmp_path / "kept")
    assert [row.value for row in part] == expected[3:], "and in the same trainer"


def test_pairs_that_cannot_be_continued_are_named(tmp_path):
    """Their training continues with the batches that come next, whatever they are, and says so; all else is kept."""

    def endless(seed: int):
        yield from digit_pairs(seed)

    part, fresh = rpm.Trainer(*model(), endless(0), 8), rpm.Trainer(*model(1), endless(3), 8)
    [part.advance() for _ in range(3)]
    part.save(tmp_path / "kept")
    with pytest.warns(
        UserWarning, match="pairs is a generator, which has no state_dict: .*not with the numbers of one"
    ):
        fresh.load(tmp_path / "kept")
    assert everything(part) == everything(fresh) and fresh.step == 3
    assert [row.step for row in fresh] == [4, 5, 6, 7, 8]
    with pytest.raises(ValueError, match="not of this training: 'pairs'"):
        trainer(steps=8).load(tmp_path / "kept")
    trainer(steps=8).save(tmp_path / "of view_pairs")
    with pytest.raises(ValueError, match="not of this training: 'generator' object has no attribute 'load_state_dict'"):
        part.load(tmp_path / "of view_pairs")


def test_a_data_loader_begins_again_at_its_end():
    x = datasets.digits().x[:300]
    loader = DataLoader(TensorDataset(x, x.flip(3)), batch_size=128, shuffle=True, drop_last=True)
    assert len(loader) == 2 and len([*rpm.train(*model(), loader, 5)]) == 5
    with pytest.raises(ValueError, match="pairs ended after 0 batches"):
        list(rpm.train(*model(), DataLoader(TensorDataset(x, x), batch_size=500, drop_last=True), 5))


# The best so far


def test_a_state_is_that_of_its_moment_and_can_be_gone_back_to_more_than_once():
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8))
    found = rpm.Trainer(encoder, rpm.VonMisesFisher(0.2), digit_pairs(), 10)
    found.advance(), found.advance()
    best, as_saved, rest = found.state_dict(), everything(found), None
    for _ in range(2):
        found.learning_rate = 1e-3
        [found.advance() for _ in range(4)]
        assert everything(found) != as_saved
        found.load_state_dict(best)
        assert everything(found) == as_saved and (rest is None or rest == [row.value for row in found])
        rest = rest or [row.value for row in found]
        found.load_state_dict(best)


# Another training


def digits_but(change):
    x = datasets.digits().x.clone()
    x[5, 0, 3, 3] += change
    return x


OTHERS = {
    "another batch size": ({"batch_size": 64}, {}, "of batch_size 128, here it is 64"),
    "other images, as many": ({"x": digits_but(-1e-6)}, {}, "of other images"),
    "the same in another order": ({"x": datasets.digits().x.flip(0)}, {}, "of other images"),
    "other views": ({"flip": True}, {}, "of flip False, here it is True"),
    "fewer steps": ({}, {"steps": 5}, "steps: 10 in the state, 5 here"),
    "more steps": ({}, {"steps": 20}, "steps: 10 in the state, 20 here"),
    "another objective": (
        {},
        {"objective": rpm.symmetric_infonce},
        "objective: infonce in the state, symmetric_infonce",
    ),
    "another critic": ({}, {"critic": rpm.LaplaceWalk}, "critic: RandomWalk in the state, LaplaceWalk here"),
    "another encoder": ({}, {"layer": nn.Tanh}, "encoder: ReLU in the state, Tanh here"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_training_is_not_continued_as_another_one(kind):
    def make(pairs=None, *, steps=10, critic=rpm.RandomWalk, layer=nn.ReLU, **options):
        torch.manual_seed(0)
        views = {"x": datasets.digits().x, "batch_size": 128, "flip": False} | (pairs or {})
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), layer())
        return rpm.Trainer(encoder, critic(), datasets.view_pairs(**views), steps, **options)

    pairs, options, message = OTHERS[kind]
    one, other = make(), make(pairs, **options)
    one.advance(), other.advance()
    before = everything(other)
    with pytest.raises(ValueError, match=f"not of this training: .*{message}.*Expected the same.*Remedy"):
        other.load_state_dict(one.state_dict())
    assert everything(other) == before


def test_x_prime_of_other_pairs_is_noticed():
    x = datasets.digits().x
    one, other = (datasets.tensor_pairs(x, prime) for prime in (x, x.flip(0)))
    assert one.fingerprint != other.fingerprint == datasets.tensor_pairs(x, x.flip(0)).fingerprint
    with pytest.raises(ValueError, match="of other pairs"):
        other.load_state_dict(one.state_dict())


# Numbers and tensors of other kinds


KINDS = {
    "np.float32": np.float32(0.5),
    "np.float64": np.float64(0.5),
    "np.int64": np.int64(1),
    "Fraction": Fraction(1, 2),
    "a tensor": torch.tensor(0.5),
    "bool": True,
}


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_any_kind_are_saved(kind, tmp_path):
    value, count = KINDS[kind], np.int64(10)
    pairs = datasets.view_pairs(
        datasets.digits().x, np.int64(128), strength=value, flip=np.bool_(True), seed=np.int64(3)
    )
    encoder = encoders.mlp(np.int64(64), np.int64(4))
    found = rpm.Trainer(encoder, rpm.VonMisesFisher(value), pairs, count, learning_rate=value, weight_decay=value)
    found.advance()
    found.save(tmp_path / "kept")
    found.learning_rate = pairs.strength = value
    found.save(tmp_path / "kept")
    found.load(tmp_path / "kept")
    assert found.learning_rate == pairs.strength == float(value) and type(found.learning_rate) in (int, float)


@pytest.mark.parametrize("value", [-1.0, float("nan"), "fast"])
def test_a_learning_rate_that_is_none_is_refused_when_it_is_set(value):
    found = trainer()
    with pytest.raises((ValueError, TypeError), match="learning_rate is"):
        found.learning_rate = value
    assert found.learning_rate == 2e-3


BUFFERS = {
    "sparse": lambda: torch.eye(4).to_sparse(),
    "sparse rows": lambda: torch.eye(4).to_sparse_csr(),
    "expanded": lambda: torch.ones(4, 1).expand(4, 4),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("kind", BUFFERS)
def test_buffers_of_any_layout_are_saved_and_continued(kind, tmp_path):
    def make():
        found = trainer()
        found.encoder.register_buffer("kept", BUFFERS[kind]())
        return found

    part, fresh, whole = make(), make(), make()
    expected = [row.value for row in whole]
    part.advance(), part.save(tmp_path / "kept"), fresh.load(tmp_path / "kept")
    assert [row.value for row in fresh] == expected[1:] and fresh.encoder.kept.layout == part.encoder.kept.layout
