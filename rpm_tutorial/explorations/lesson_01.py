"""Lesson 1: a finite world, its likelihood, and what the model makes of the data."""

from dataclasses import dataclass

from .. import priors
from .._log_space import expectation, log
from ..figures import Figure, tables
from ..finite import FiniteRPM
from ..widgets import slider


@dataclass(frozen=True)
class WorldState:
    sharpness: float = slider(2.0, 0, 8, 0.5, "sharpness of the encoder")
    coupling: float = slider(2.0, 0, 6, 0.5, "coupling of x and x′")


def likelihood(state: WorldState) -> Figure:
    """Lesson 1: P(x|z) of a ring world, and the P(x,x′) of the model under the optimal prior, beside the data's."""
    world = FiniteRPM.ring(state.coupling, state.sharpness)
    model = world.log_p(priors.optimal(world.q_joint)).exp()
    distance = expectation(log(world.p_true) - log(model), world.p_true)
    return tables(
        {
            "P(x|z)": world.log_p_x_given_z.exp(),
            "P_true(x′|x)": world.p_true / world.p_x[:, None],
            "P(x′|x)": model / model.sum(1, keepdim=True),
        },
        x_label=("x", "x′", "x′"),
        y_label=("z", "x", "x"),
        caption=(
            f"Left: the likelihood that the encoder implies. Middle and right: x′ given x in the data and in the model, "
            f"which differ by KL = {distance:.3f} nats. A sharper encoder narrows P(x|z) and brings the two closer."
        ),
    )
