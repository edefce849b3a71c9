"""Images, read from a file, seen as a view, and drawn as balls."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

REMEDIES = (
    "Remedies: (1) name a folder that holds the four Fashion-MNIST .gz files, fashion_mnist(folder=...) or the "
    "environment variable RPM_DATA; (2) on Debian or Ubuntu, apt-get install dataset-fashion-mnist; "
    "(3) with a network, call fashion_mnist() again: it downloads 30 MB once and checks them"
)


def read_idx(path: Path, shape: tuple[int, ...]) -> Tensor:
    """Read a gzipped IDX file of bytes: two zero bytes, the type, the number of dimensions, each as four bytes, the data."""
    header = bytes([0, 0, 8, len(shape)]) + b"".join(side.to_bytes(4, "big") for side in shape)
    expected = len(header) + math.prod(shape)
    try:
        content = gzip.decompress(path.read_bytes())
    except (EOFError, OSError, zlib.error) as error:
        raise OSError(
            f"{path} is truncated or is no gzip file ({error}); expected {expected} bytes inside. {REMEDIES}"
        ) from error
    if len(content) != expected or not content.startswith(header):
        raise OSError(
            f"{path} holds {len(content)} bytes that begin {content[:4].hex()}; "
            f"expected {expected} bytes, an IDX array of shape {shape}. {REMEDIES}"
        )
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape).copy())


def view(x: Tensor, strength: float, flip: bool, generator: torch.Generator) -> Tensor:
    """One view of each image, as `datasets.two_views` says."""

    def uniform(low, high):
        return low + (high - low) * torch.rand(len(x), generator=generator, device=x.device, dtype=x.dtype)

    crop = 1 - strength * uniform(0, 0.25)
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0) if flip else 1.0
    affine = torch.zeros(len(x), 2, 3, device=x.device, dtype=x.dtype)
    affine[:, 0, 0], affine[:, 1, 1] = crop * mirror, crop
    for axis in (0, 1):
        affine[:, axis, 2] = strength * uniform(-0.2, 0.2)  # the side has length 2
    seen = F.grid_sample(x, F.affine_grid(affine, list(x.shape), align_corners=False), align_corners=False)
    brightness = 1 + strength * uniform(-0.3, 0.3)
    noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return (seen * brightness[:, None, None, None] + 0.05 * strength * noise).clamp(0, 1)


def render(position: Tensor, size: int, radius: float = 2.25) -> Tensor:
    """Anti-aliased discs: a position is visible to a fraction of a pixel."""
    centre = radius + position.view(len(position), -1, 2, 1, 1) * (size - 2 * radius)
    pixel = torch.arange(size) + 0.5
    distance = torch.hypot(pixel[None, None, :, None] - centre[:, :, 0], pixel - centre[:, :, 1])
    return torch.sigmoid(2 * (radius - distance))
