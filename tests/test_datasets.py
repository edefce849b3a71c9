"""The data: where it comes from, what an error says, and what a view and a step are."""

import gzip
import math

import pytest
import torch
from residuals import agree
from scipy import stats

from rpm_tutorial import datasets
from rpm_tutorial.datasets import constant_velocity, moving_balls, tensor_pairs, two_views, view_pairs

IMAGES, LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_distributed(columns: torch.Tensor, *law) -> None:
    for column in columns.T:
        assert stats.kstest(column.numpy(), *law).pvalue > 1e-4


def assert_independent(columns: torch.Tensor) -> None:
    assert torch.corrcoef(columns.T).fill_diagonal_(0).abs().max() < 5 / len(columns) ** 0.5


# Images


def idx(*shape: int, value: int) -> bytes:
    header = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
    return header + bytes([value]) * math.prod(shape)


@pytest.fixture
def place(tmp_path):
    """Writes a complete test split whose images and labels all hold one value, and returns its folder."""

    def write(name: str, value: int):
        folder = tmp_path / name
        folder.mkdir()
        (folder / IMAGES).write_bytes(gzip.compress(idx(10_000, 28, 28, value=10 * value), 1))
        (folder / LABELS).write_bytes(gzip.compress(idx(10_000, value=value), 1))
        return folder

    return write


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No test reads this machine's files by accident, or the network at all."""

    def fetch(name, **_options):
        raise OSError("no network in tests")

    monkeypatch.delenv("RPM_DATA", raising=False)
    monkeypatch.setattr(datasets, "DEBIAN_FOLDER", tmp_path / "no Debian package")
    monkeypatch.setattr(datasets.DOWNLOADS, "fetch", fetch)


def test_digits_are_1797_images_of_8_by_8_in_the_unit_interval():
    x, labels = datasets.digits()
    assert x.shape == (1797, 1, 8, 8) and x.dtype == torch.float32 and (x.min(), x.max()) == (0, 1)
    assert labels.shape == (1797,) and labels.dtype == torch.int64 and labels.unique().tolist() == list(range(10))
    train, test = datasets.digits("train"), datasets.digits("test")
    assert len(train.x) == 1297 and torch.equal(torch.cat([train.x, test.x]), x)
    assert torch.equal(torch.cat([train.labels, test.labels]), labels)


def test_fashion_mnist_is_looked_for_in_the_documented_order(place, monkeypatch):
    """The named folder, then RPM_DATA, then the Debian package, then a download; each holds its own number."""
    downloaded = place("downloaded", 4)
    monkeypatch.setattr(datasets.DOWNLOADS, "fetch", lambda name, downloader: str(downloaded / name))
    found = [datasets.fashion_mnist("test")]
    monkeypatch.setattr(datasets, "DEBIAN_FOLDER", place("debian", 3))
    found.append(datasets.fashion_mnist("test"))
    monkeypatch.setenv("HOME", str(place("environment", 2).parent))
    monkeypatch.setenv("RPM_DATA", "~/environment")
    found.append(datasets.fashion_mnist("test"))
    found.append(datasets.fashion_mnist("test", folder=place("named", 1)))
    assert [int(labels[7]) for _, labels in found] == [4, 3, 2, 1]
    assert [round(float(x[7].mean()) * 255) for x, _ in found] == [40, 30, 20, 10]


def test_the_folder_of_fashion_mnist_is_one_that_holds_all_four_files(tmp_path, monkeypatch):
    monkeypatch.setenv("RPM_DATA", str(tmp_path))
    for name in datasets.DOWNLOADS.registry:
        assert datasets.fashion_mnist_folder() is None
        (tmp_path / name).touch()
    assert datasets.fashion_mnist_folder() == tmp_path
    monkeypatch.delenv("RPM_DATA")
    monkeypatch.setattr(datasets.DOWNLOADS, "path", tmp_path)
    assert datasets.fashion_mnist_folder() == tmp_path


DAMAGE = {
    "truncated": lambda good: good[: len(good) // 2],
    "no deflate stream": lambda good: good[:10] + b"\x07" + good[11:],
    "a web page": lambda good: b"<html>Not found</html>",
    "another data set": lambda good: gzip.compress(idx(10_000, 32, 32, value=0), 1),
    "not all images": lambda good: gzip.compress(idx(10_000, 28, 28, value=0)[:-1], 1),
}


@pytest.mark.parametrize("damage", [*DAMAGE, "missing"])
def test_a_damaged_or_missing_file_is_named_with_what_was_expected_and_three_remedies(damage, place):
    path = place("named", 1) / IMAGES
    path.unlink() if damage == "missing" else path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(FileNotFoundError if damage == "missing" else OSError) as error:
        datasets.fashion_mnist("test", folder=path.parent)
    assert all(words in str(error.value) for words in (str(path), "expected", "(1)", "(2)", "(3)"))


def test_without_fashion_mnist_a_lesson_gets_enlarged_digits_none_of_them_in_both_splits(capsys):
    train, test = (datasets.fashion_mnist_or_digits(split) for split in ("train", "test"))
    assert (len(train.x), len(test.x)) == (1297, 500) and test.x.shape[1:] == (1, 28, 28)
    assert "so this is 500 digits instead. t10k-images" in capsys.readouterr().out


# Views


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_images_that_rounding_has_moved_beyond_the_unit_interval_are_images(dtype):
    """As a resize leaves them, with weights whose sum is not quite 1."""
    eps = torch.finfo(dtype).eps
    x = torch.ones(3, 1, 4, 4, dtype=dtype) * (1 + 2 * eps)
    x[0] = -2 * eps
    for view in two_views(x, strength=2, generator=seeded()):
        assert view.shape == x.shape and view.dtype == dtype and 0 <= view.min() and view.max() <= 1
    for factor in (1 + 100 * eps, 255):
        with pytest.raises(ValueError, match=r"expected \[0, 1\]"):
            two_views(x * factor, generator=seeded())


DRAWS = {
    "views": lambda generator: two_views(torch.full((5, 1, 8, 8), 0.5), generator=generator),
    "gaussian steps": lambda generator: moving_balls(5, generator=generator),
    "laplace steps": lambda generator: moving_balls(5, step="laplace", generator=generator),
    "constant velocity": lambda generator: constant_velocity(5, generator=generator),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_randomness_comes_from_the_generator_alone_and_differs_from_row_to_row_and_side_to_side(draw):
    before, sides = torch.get_rng_state(), draw(seeded())
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    assert all(map(torch.equal, sides, draw(seeded())))
    assert len(sides[0].unique(dim=0)) == 5 and not torch.equal(*sides[:2])


def test_strength_zero_is_the_identity_and_a_flip_mirrors_left_and_right():
    x = torch.rand(2000, 1, 6, 9, generator=seeded(1))  # not square, which would hide a transposition
    for view in two_views(x, strength=0, flip=False, generator=seeded()):
        torch.testing.assert_close(view, x, rtol=0, atol=1e-5)
    for view in two_views(x, strength=0, generator=seeded()):
        kept, mirrored = ((view - image).abs().amax((1, 2, 3)) < 1e-5 for image in (x, x.flip(3)))
        assert (kept ^ mirrored).all() and abs(mirrored.double().mean() - 0.5) < 4 * 0.5 / len(x) ** 0.5


@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_a_view_is_brighter_or_darker_by_up_to_30_percent_and_noisy(strength):
    for view in two_views(torch.full((2000, 1, 16, 16), 0.5), strength=strength, generator=seeded()):
        inside = view[:, 0, 4:12, 4:12].flatten(1)  # whatever the shift and the crop
        assert_distributed((inside.mean(1, keepdim=True) / 0.5 - 1) / strength, "uniform", (-0.3, 0.6))
        assert inside.std(1).mean() == pytest.approx(0.05 * strength, rel=0.02)


def test_a_view_shifts_along_both_axes_by_up_to_a_tenth_and_crops_up_to_a_quarter():
    """A blurred dot off the centre: the affine map moves it by its shift, and outwards by its crop."""
    side, off = 40, 0.3  # in units of half the side
    grid = (torch.arange(side) + 0.5) / side * 2 - 1
    dot = torch.exp(-((grid[:, None] - off) ** 2 + (grid + off) ** 2) / 0.02)
    view = two_views(dot.expand(800, 1, side, side), strength=1, flip=False, generator=seeded())[0]
    mass = (view - 0.15).clamp(min=0)  # the noise stays below
    for axis, place in ((2, off), (3, -off)):
        centre = (mass.sum(5 - axis) @ grid)[:, 0] / mass.sum((1, 2, 3))
        # The dot lands at (place - shift) / crop, with a shift in [-0.2, 0.2] and a crop in [0.75, 1].
        nearest, farthest = sorted((centre * place / abs(place)).quantile(torch.tensor([0.0, 1.0])).tolist())
        assert nearest == pytest.approx(abs(place) - 0.2, abs=0.04) and farthest == pytest.approx(0.5 / 0.75, abs=0.06)


# Pairs

PAIRS = {
    "views": lambda x, seed: view_pairs(x, 4, strength=0, flip=False, seed=seed),
    "noisy views": lambda x, seed: view_pairs(x, 4, seed=seed),
    "tensors": lambda x, seed: tensor_pairs(x, x[:, 0, 0].double(), 4, seed=seed),
}
ROWS = (torch.arange(11) / 11)[:, None, None, None].expand(11, 1, 3, 3)


@pytest.mark.parametrize("kind", ["views", "tensors"])
def test_an_epoch_visits_each_row_at_most_once_keeps_its_pair_and_comes_in_another_order_next(kind):
    batches, seen = PAIRS[kind](ROWS, 3), []
    for _, (x, x_prime) in zip(range(4), batches):
        assert x.shape == (4, 1, 3, 3)
        torch.testing.assert_close(x.flatten(1)[:, 4].double(), x_prime.flatten(1)[:, 1].double())
        seen.append((x[:, 0, 1, 1] * 11).round().int())
    epochs = [torch.cat(seen[:2]).tolist(), torch.cat(seen[2:]).tolist()]
    assert all(len(set(epoch)) == 8 for epoch in epochs) and epochs[0] != epochs[1]


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("drawn", [0, 1, 2])  # two batches are an epoch
def test_pairs_continue_where_a_state_was_taken_whatever_was_drawn_since(drawn, kind):
    first, other = PAIRS[kind](ROWS, 1), PAIRS[kind](ROWS, 2)
    for _ in range(drawn):
        next(first)
    state = first.state_dict()
    expected = [next(first) for _ in range(5)]
    assert not torch.equal(next(other)[0], next(PAIRS[kind](ROWS, 1))[0]), "the seed counts"
    other.load_state_dict(state)
    assert all(map(torch.equal, sum(expected, ()), sum((next(other) for _ in expected), ())))


# Moving balls


def test_positions_are_uniform_in_both_frames_and_inside_the_box():
    found = moving_balls(20_000, balls=2, step="laplace", scale=0.3, size=6, generator=seeded())
    for position in (found.position, found.position_prime):
        assert position.shape == (20_000, 4) and 0 <= position.min() and position.max() <= 1
        assert_distributed(position, "uniform")
        assert_independent(position)


@pytest.mark.parametrize("step, law", [("gaussian", ("norm",)), ("laplace", ("laplace", (0, 0.5**0.5)))])
def test_a_step_has_the_given_standard_deviation_and_its_own_tails(step, law):
    found = moving_balls(100_000, step=step, scale=0.03, size=5, generator=seeded())
    inside = ((found.position - 0.5).abs() < 0.1).all(1)  # too far from a wall to bounce
    assert_distributed((found.position_prime - found.position)[inside] / 0.03, *law)


def test_a_frame_shows_each_ball_at_its_position_to_a_fraction_of_a_pixel():
    balls = moving_balls(300, balls=2, size=20, generator=seeded())
    path = constant_velocity(300, frames=3, size=20, generator=seeded())
    for frame, position in ((balls.x, balls.position), (balls.x_prime, balls.position_prime), (path.x, path.position)):
        assert frame.shape[2:] == (20, 20) and 0 <= frame.min() and frame.max() <= 1
        mass, pixel = frame.sum((2, 3)), torch.arange(20) + 0.5
        centre = torch.stack([frame.sum(3) @ pixel, frame.sum(2) @ pixel], 2) / mass[..., None]
        assert ((centre - 2.25) / (20 - 4.5) - position.view_as(centre)).abs().max() < 0.05


def test_a_ball_keeps_its_velocity_but_for_pushes_of_the_given_size():
    n, scale = 5000, 0.02
    p = constant_velocity(n, frames=5, scale=scale, size=5, generator=seeded()).position
    start, velocity, pushes = p[:, 0], p[:, 1] - p[:, 0], ((p[:, 2:] - 2 * p[:, 1:-1] + p[:, :-2]) / scale).flatten(1)
    assert p.shape == (n, 5, 2)
    assert_distributed(start, "uniform", (0.3, 0.4))
    assert_distributed(velocity, "uniform", (-0.05, 0.1))
    assert_distributed(pushes, "norm")
    assert_independent(torch.cat([start, velocity, pushes], 1))


@pytest.mark.parametrize("k", [-1.0, 2.0])
def test_the_twist_is_a_turn_that_grows_with_distance_is_undone_and_keeps_volume(k):
    z = torch.randn(50, 2, generator=seeded(), dtype=torch.float64)
    as_complex = torch.view_as_complex(z) * torch.exp(1j * k * z.norm(dim=1))
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: datasets.twist(row, k)))(z)
    agree("the twist: e^{ik|z|} z", datasets.twist(z, k), torch.view_as_real(as_complex))
    agree("the twist: undone", datasets.twist(datasets.twist(z, k), -k), z)
    agree("the twist: volume", jacobian.det(), torch.ones(50, dtype=torch.float64), tolerance=1e-12)
