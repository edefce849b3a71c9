"""Lesson 6: a twist that the information cannot see."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from .. import gaussian, objectives
from ..datasets import twist
from ..figures import Figure, clouds
from ..probes import r_squared
from ..widgets import slider


@dataclass(frozen=True)
class TwistState:
    strength: float = slider(1.0, 0, 2, 0.25, "strength k of the twist")


def twisted(state: TwistState) -> Figure:
    """Lesson 6: Gaussian latents twisted by the angle k |z|, coloured by what they were; MI, walk evidence, linear probe."""
    points, before, evidence, read = _twisted(state.strength)
    return clouds(
        {"z": (before, before[:, 0]), f"twisted, k = {state.strength:g}": (points, before[:, 0])},
        x_label="z₁",
        y_label="z₂",
        color_label="z₁ before",
        caption=(
            f"At k = {state.strength:g} the mutual information is {gaussian.mutual_information(0.9, 2):.2f} nats, as at any k. The "
            f"evidence under the walk prior is {evidence:.2f} nats, and a linear probe reads the coordinates with R² {read:.2f}."
        ),
    )


@cache
def _twisted(strength: float) -> tuple[np.ndarray, np.ndarray, float, float]:
    """400 twisted points, the same before, I_N of the best of some walks over 800 pairs, and R² of a linear probe."""
    sides = gaussian.sample(800, 0.9, 2, generator=torch.Generator().manual_seed(0))
    z, z_prime = (twist(side, strength) for side in sides)
    squares = torch.cdist(z, z_prime).square()
    evidence = max(objectives.infonce(-squares / (2 * s**2)).value.item() for s in (0.4, 0.5, 0.7, 1.0, 1.5, 2.0))
    read = r_squared(z[:400], sides[0][:400], z[400:], sides[0][400:])
    return z[:400].numpy(), sides[0][:400].numpy(), evidence, read
