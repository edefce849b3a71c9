"""A training, stopped and continued from a file: bit for bit that of one never stopped."""

import pytest
import torch
from torch import nn
from trainings import digit_pairs, everything, model, trainer, values

import rpm_tutorial as rpm
from rpm_tutorial import datasets


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
    with pytest.raises(ValueError, match="not of this training: 'encoder_prime'"):
        whole.load(tmp_path / "alone")


def test_a_checkpoint_of_one_encoder_holds_it_once():
    assert {*trainer().state_dict()} == {"encoder", "critic", "optimiser", "pairs", "step", "seconds", "learning_rate"}


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
    "other images": (other_images, ValueError, "not of this training.*500 images"),
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


def test_pairs_that_cannot_be_continued_are_named():
    batches = iter([next(digit_pairs())])
    found = rpm.Trainer(*model(), batches, 1)
    with pytest.raises(ValueError, match="pairs is a list_iterator.*expected one with a state_dict"):
        found.load_state_dict(found.state_dict())
