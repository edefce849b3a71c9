"""Pairs to learn from: your own, two views of an image (digits, Fashion-MNIST), and moving balls, whose truth is known.

Nothing here touches the global random state: randomness comes from a `generator`, on the device of the data, or a `seed`.
"""

import functools
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pooch
import torch
from torch import Tensor
from torch.nn import functional as F

from ._checks import check_data, check_generator, check_range, check_tensor, one_of, seeded, shape_of, values_unchecked
from ._images import REMEDIES, read_idx, render, view

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
# The authors' address has no HTTPS: the checksums are what tells their files from others.
DOWNLOADS = pooch.create(
    path=pooch.os_cache("rpm_tutorial"),
    base_url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    registry={
        "train-images-idx3-ubyte.gz": "sha256:3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1-ubyte.gz": "sha256:a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3-ubyte.gz": "sha256:346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1-ubyte.gz": "sha256:67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    },
)
TIMEOUT = 20.0  # seconds without a byte after which a download is given up


class Images(NamedTuple):
    """Images x, shape (N, 1, H, W), float32 in [0, 1], and their labels, shape (N,), int64."""

    x: Tensor
    labels: Tensor


def digits(split: str | None = None) -> Images:
    """scikit-learn's 1 797 handwritten digits, 8 x 8 pixels: the first 1 297 ("train"), the last 500 ("test"), or all (None).

    They are part of the installation; there is no download.
    """
    from sklearn.datasets import load_digits  # as long as torch to import

    rows, data = {"train": slice(1297), "test": slice(1297, None), None: slice(None)}[split], load_digits()
    x, labels = torch.from_numpy(data.images).float()[:, None] / 16, torch.from_numpy(data.target).long()
    return Images(x[rows], labels[rows])


def fashion_mnist(split: str = "train", *, folder: str | Path | None = None) -> Images:
    """Fashion-MNIST (Xiao et al., arXiv 1708.07747), 28 x 28 pixels: 60 000 images ("train") or 10 000 ("test").

    Looked for in `folder` (or the environment variable RPM_DATA), then where the Debian package
    `dataset-fashion-mnist` puts it, then downloaded once with a progress bar and checked.

    Raises:
        ValueError: `split` is neither "train" nor "test".
        FileNotFoundError: a file is missing and cannot be downloaded; the message names it and three remedies.
        OSError: a file is truncated or holds other data; likewise.
    """
    one_of("split", split, ("train", "test"))
    prefix, count = ("train", 60_000) if split == "train" else ("t10k", 10_000)
    x = read_idx(_locate(f"{prefix}-images-idx3-ubyte.gz", folder), (count, 28, 28))
    labels = read_idx(_locate(f"{prefix}-labels-idx1-ubyte.gz", folder), (count,))
    return Images(x[:, None].float().div_(255), labels.long())


def fashion_mnist_folder() -> Path | None:
    """Where `fashion_mnist` finds all its files without a download: RPM_DATA, or the Debian package, or the cache; or None."""
    folders = [_named(None)] if _named(None) else [DEBIAN_FOLDER, Path(DOWNLOADS.path)]
    return next((folder for folder in folders if all((folder / name).exists() for name in DOWNLOADS.registry)), None)


def fashion_mnist_or_digits(split: str = "train") -> Images:
    """Fashion-MNIST where it can be had, else those digits enlarged to 28 x 28, with a line that says so and why."""
    try:
        return fashion_mnist(split)
    except OSError as error:
        small = digits(split)
        print(f"Fashion-MNIST could not be had, so this is {len(small.x)} digits instead. {error}")
        return Images(F.interpolate(small.x, 28, mode="bilinear"), small.labels)


def two_views(x: Tensor, *, strength: float = 1.0, flip: bool = True, generator: torch.Generator):
    """Two independent views of each image, the pair (x, x'), each of the shape of x.

    A view crops and shifts (one affine map an image), flips left to right with probability 1/2 if `flip`, changes the
    brightness and adds noise: operations on the whole batch, on its device.

    Args:
        x: shape (n, channels, H, W), in [0, 1].
        strength: 0 leaves the image as it is (but for the flip); 1 crops up to a quarter, shifts up to 10 %, changes the
            brightness by up to 30 % and adds noise of standard deviation 0.05.
        flip: off for images with a handedness, such as digits.
        generator: on the device of x.
    Raises:
        ValueError: x has no four dimensions, leaves [0, 1] or contains NaN, or `strength` lies outside [0, 2].
    """
    with values_unchecked():  # one look at the range tells
        check_tensor("x", x, dims=4)
    low, high = x.min().item(), x.max().item()
    slack = 16 * torch.finfo(x.dtype).eps  # what rounding in a resize adds; the views end in [0, 1]
    if not -slack <= low <= high <= 1 + slack:
        check_data("x", x)
        raise ValueError(f"x lies in [{low:.3g}, {high:.3g}]; expected [0, 1]: divide bytes by 255")
    _check_strength(strength)
    check_generator(generator, x.device)  # with None, torch would draw from its global one
    wide = x.to(torch.promote_types(x.dtype, torch.float32))  # a processor has no affine map in half precision
    one, other = (view(wide, strength, flip, generator).to(x.dtype) for _ in range(2))
    return one, other


def _check_strength(strength: float) -> None:
    if not 0 <= strength <= 2:
        raise ValueError(f"strength is {strength}; expected a number from 0 (no change) to 2")


class TensorPairs(Iterator):
    """An endless iterator over the rows of one tensor or more, which can be stopped and continued; made by `tensor_pairs`."""

    _same: tuple[str, ...] = ("batch_size", "fingerprint")  # where a training is continued

    def __init__(self, sides: tuple[Tensor, ...], batch_size: int, seed: int):
        n, self.device = len(sides[0]), sides[0].device
        if not 1 <= batch_size <= n:
            raise ValueError(f"batch_size is {batch_size}; expected a number from 1 to the {n} rows of x")
        self.sides, self.batch_size, self.generator = sides, int(batch_size), seeded(seed, self.device)
        self.order, self.start = torch.empty(0, dtype=torch.int64, device=self.device), 0

    def __next__(self) -> tuple[Tensor, Tensor]:
        before = self._place()
        try:
            if self.start + self.batch_size > len(self.order):
                self.order = torch.randperm(len(self.sides[0]), generator=self.generator, device=self.device)
                self.start = 0
            chosen = self.order[self.start : self.start + self.batch_size]
            self.start += self.batch_size
            return self._pairs(chosen)
        except BaseException:  # Ctrl-C, say: the same batch comes next
            self._go_to(before)
            raise

    def _pairs(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        x, x_prime = self.sides
        return x[chosen], x_prime[chosen]

    @functools.cached_property
    def fingerprint(self) -> int:
        """Of shapes and bytes of the data, as they were when a state was first asked for."""
        found = 0
        for side in self.sides:
            found = zlib.crc32(f"{side.dtype} {shape_of(side)}".encode(), found)
            found = zlib.crc32(side.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data, found)
        return found

    def _place(self) -> dict:
        return {"generator": self.generator.get_state(), "order": self.order, "start": self.start}

    def _go_to(self, place: dict) -> None:
        self.generator.set_state(place["generator"].cpu())
        self.order, self.start = place["order"].to(self.device), place["start"]

    def state_dict(self) -> dict:
        """Where the iterator is: loaded into another one over the same rows, it gives the same batches from there."""
        return self._place() | {name: getattr(self, name) for name in self._same}

    def load_state_dict(self, state: dict) -> None:
        """Continue where `state` was taken; `ValueError` if it comes from other data, or other settings than `strength`."""
        for name in self._same:
            if state[name] != (here := getattr(self, name)):
                other = "other data" if name == "fingerprint" else f"{name} {state[name]}, here it is {here}"
                raise ValueError(f"the saved place is of {other}; expected the same: it would be another training")
        self._go_to(state)


def tensor_pairs(x: Tensor, x_prime: Tensor, batch_size: int = 256, *, seed: int = 0) -> TensorPairs:
    """An endless iterator of mini-batches of your own pairs: row i of x, shape (n, ...), belongs to row i of x'.

    Without replacement within an epoch; the pairs left over at its end are skipped. The sides may differ in all but n
    and device. Raises `ValueError` if they differ in n, hold NaN or inf, or there are fewer pairs than one batch.

    Example, of a training that is stopped and continued:
        >>> trainer = Trainer(encoder, critic, tensor_pairs(x, x_prime), steps=1000)
        >>> for row in trainer:
        ...     if row.step % 100 == 0: trainer.save("mine.pt")
        >>> trainer = Trainer(encoder, critic, tensor_pairs(x, x_prime), steps=1000)  # later, in another process
        >>> trainer.load("mine.pt")
        >>> rows = list(trainer)  # those of a training that was never stopped
    """
    if len(x) != len(x_prime):
        raise ValueError(f"x has {len(x)} rows and x_prime {len(x_prime)}; expected one row each per pair")
    check_data("x", x)  # here, and not hours later at the step that draws the row
    check_data("x_prime", x_prime)
    return TensorPairs((x, x_prime), batch_size, seed)


class ViewPairs(TensorPairs):
    """The same over two views of each image; made by `view_pairs`. A `strength` that is set counts from the next batch on."""

    _same = (*TensorPairs._same, "flip")

    def __init__(self, x: Tensor, batch_size: int, strength: float, flip: bool, seed: int):
        super().__init__((x,), batch_size, seed)
        self.strength, self.flip = strength, bool(flip)

    @property
    def strength(self) -> float:
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        _check_strength(value)
        self._strength = float(value)

    def _pairs(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        return two_views(self.sides[0][chosen], strength=self.strength, flip=self.flip, generator=self.generator)

    def state_dict(self) -> dict:
        return {**super().state_dict(), "strength": self.strength}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self.strength = state["strength"]


def view_pairs(
    x: Tensor, batch_size: int = 256, *, strength: float = 1.0, flip: bool = True, seed: int = 0
) -> ViewPairs:
    """An endless iterator of mini-batches (x, x') of `two_views`, each of shape (batch_size, channels, H, W), as
    `tensor_pairs` gives them. Raises `ValueError` if there are fewer images than one batch."""
    return ViewPairs(x, batch_size, strength, flip, seed)


class MovingBalls(NamedTuple):
    """Two frames, shape (n, balls, size, size), and the true positions in them, shape (n, 2 balls), in [0, 1]."""

    x: Tensor
    x_prime: Tensor
    position: Tensor
    position_prime: Tensor


def moving_balls(
    n: int,
    *,
    balls: int = 1,
    step: str = "gaussian",
    scale: float = 0.15,
    size: int = 16,
    generator: torch.Generator,
) -> MovingBalls:
    """n pairs of frames of balls that each take one random step and bounce off the walls; one channel a ball.

    Positions are uniform in both frames, so the information between frames is known by quadrature.

    Args:
        step: "gaussian" or "laplace", both of standard deviation `scale` (the box has side 1).
    Raises:
        ValueError: another `step`, a `scale` that is not positive, or a `size` below 5.
    """
    _check_frames(size, scale, generator)
    one_of("step", step, ("gaussian", "laplace"))
    position = torch.rand(n, 2 * balls, generator=generator)
    if step == "gaussian":
        noise = torch.randn(position.shape, generator=generator)
    else:
        u = torch.rand(position.shape, generator=generator).clamp(min=1e-7) - 0.5  # at -1/2 the logarithm diverges
        noise = -u.sign() * torch.log1p(-2 * u.abs()) / 2**0.5
    folded = (position + scale * noise) % 2
    position_prime = torch.minimum(folded, 2 - folded)
    return MovingBalls(render(position, size), render(position_prime, size), position, position_prime)


class MovingSequences(NamedTuple):
    """Frames of one ball, shape (n, frames, size, size), and its true position in each, shape (n, frames, 2)."""

    x: Tensor
    position: Tensor


def constant_velocity(
    n: int, *, frames: int = 3, scale: float = 0.01, size: int = 16, generator: torch.Generator
) -> MovingSequences:
    """n sequences of frames of one ball that keeps its velocity, but for a small random push before each frame.

    In each of two dimensions p_0 is uniform on [.3, .7], p_1 - p_0 on [-.05, .05], and p_{t+1} = 2 p_t - p_{t-1} + scale e
    with e standard normal: all independent, so the information between frames is known by quadrature. There are no
    walls: the frame shows [0, 1] and a margin, which few balls leave within seven frames.

    Raises:
        ValueError: fewer than three `frames`, a `scale` that is not positive, or a `size` below 5.
    """
    _check_frames(size, scale, generator)
    if frames < 3:
        raise ValueError(f"frames is {frames}; expected at least 3: the first two show the velocity")
    start = 0.3 + 0.4 * torch.rand(n, 1, 2, generator=generator)
    velocity = 0.1 * torch.rand(n, 1, 2, generator=generator) - 0.05
    pushes = scale * torch.randn(n, frames - 2, 2, generator=generator)
    velocities = torch.cat([velocity, pushes], 1).cumsum(1)
    position = torch.cat([start, velocities], 1).cumsum(1)
    return MovingSequences(render(position, size), position)


def twist(z: Tensor, k: float) -> Tensor:
    """Turn each row of z, shape (..., 2), about the origin by the angle k |z|: undone by -k, and volume preserving."""
    if z.shape[-1] != 2:
        raise ValueError(f"z has shape {shape_of(z)}; expected (..., 2), points in a plane")
    angle = k * z.norm(dim=-1)
    check_range("k times the length of a row of z", angle)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos * z[..., 0] - sin * z[..., 1], sin * z[..., 0] + cos * z[..., 1]], -1)


def _check_frames(size: int, scale: float, generator: torch.Generator) -> None:
    if not 0 < scale < float("inf"):
        raise ValueError(f"scale is {scale}; expected a positive finite number")
    if size < 5:
        raise ValueError(f"size is {size}; expected at least 5: a ball is 4.5 pixels wide")
    check_generator(generator, torch.device("cpu"))


def _named(folder: str | Path | None) -> Path | None:
    """The folder that the caller or the environment names."""
    folder = folder or os.environ.get("RPM_DATA")
    return Path(folder).expanduser() if folder else None


def _locate(name: str, folder: str | Path | None) -> Path:
    if folder := _named(folder):
        if not (folder / name).exists():
            raise FileNotFoundError(f"{folder / name} does not exist; expected the Fashion-MNIST file. {REMEDIES}")
        return folder / name
    if (DEBIAN_FOLDER / name).exists():
        return DEBIAN_FOLDER / name
    try:
        downloader = pooch.HTTPDownloader(progressbar=True, timeout=TIMEOUT)
        return Path(DOWNLOADS.fetch(name, downloader=downloader))
    except (OSError, ValueError) as error:  # no network, or a wrong checksum
        raise FileNotFoundError(
            f"{name} is not in {DEBIAN_FOLDER} and its download failed ({type(error).__name__}: {error}); "
            f"expected the Fashion-MNIST file. {REMEDIES}"
        ) from error
