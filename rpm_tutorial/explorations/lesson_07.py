"""Lesson 7: a scrambled code under two priors."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..figures import Figure, clouds
from ..widgets import choice, slider


@dataclass(frozen=True)
class UnfoldingState:
    hundreds: int = slider(4, 0, 4, 1, "training steps, in hundreds")
    prior: str = choice(["random walk", "universal"], "prior")


def unfolding(paths: Mapping[str, Mapping[int, tuple]], color: Tensor, points: int = 500):
    """Lesson 7: the render function for two trainings from one scrambled start.

    Args:
        paths: prior -> step (0, 100, ... 400) -> (latents (n, 2), nats, R², MCC).
        color: the true position of each, shape (n,).
    """

    def render(state: UnfoldingState) -> Figure:
        z, nats, r_squared, _ = paths[state.prior][100 * state.hundreds]
        start = paths[state.prior][0][0]
        return clouds(
            {"the start": (start[:points], color[:points]), state.prior: (z[:points], color[:points])},
            x_label="z₁",
            y_label="z₂",
            color_label="true position",
            caption=(
                f"After {100 * state.hundreds} steps under the {state.prior} prior: held-out evidence {nats:.2f} nats above C, "
                f"R² of the true position {r_squared:.2f}."
            ),
        )

    return render
