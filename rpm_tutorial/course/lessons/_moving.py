"""What the widgets of lessons 10 and 11 share: latent paths in the plane of positions, and a prior's expectation there."""

import torch
from torch import Tensor

from ...critics import RandomWalk
from ...evidence import dataset_evidence
from ..figures import Figure, paths

SEQUENCES = 20  # that a slider offers


def in_the_plane(z: Tensor, position: Tensor, frames: int) -> Tensor:
    """z after the affine map to two dimensions that is closest to `position` in the mean square; both (n, frames, 2).

    A prior whose weights sum to one stays what it is under that map. Raises `ValueError` for other shapes, and for fewer
    sequences than the slider offers.
    """
    for name, side in (("z", z), ("position", position)):
        if side.shape[1:] != (frames, 2) or len(side) < SEQUENCES:
            raise ValueError(
                f"{name} has shape {tuple(side.shape)}; expected (n, {frames}, 2) with n at least {SEQUENCES}"
            )
    inputs = torch.cat([z, torch.ones_like(z[..., :1])], -1).flatten(0, 1)
    return (inputs @ torch.linalg.lstsq(inputs, position.flatten(0, 1)).solution).view(position.shape)


def worth(expected: Tensor, reached: Tensor, deviation: float) -> float:
    """InfoNCE in nats a sequence of a Gaussian step of `deviation` from `expected` to `reached`, both (n, 2)."""
    critic = RandomWalk(deviation, learnable=False).to(expected)
    return dataset_evidence(expected, reached, critic).infonce.item()


def expectation(path: Tensor, position: Tensor, frame: int, centre: Tensor, deviation: float, caption: str) -> Figure:
    """One sequence's latent and true path, where a prior expects `frame`, and a circle of two standard deviations."""
    angle = torch.linspace(0, 2 * torch.pi, 41)
    circle = torch.stack([angle.sin(), angle.cos()], 1)
    return paths(
        {
            "latent path": ("Q", path),
            "true path": ("data", position),
            f"expected frame {frame}": ("P", centre[None]),
            "two standard deviations": ("KL", centre + 2 * deviation * circle),
        },
        label="position (sides of the box)",
        centre=((position.amax(0) + position.amin(0)) / 2).tolist(),
        reach=0.35,
        caption=caption,
    )
