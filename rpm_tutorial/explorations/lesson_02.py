"""Lesson 2: the derivation of the bound, line by line."""

from dataclasses import dataclass

from torch import Tensor

from ..derivation import ASSUMPTIONS, derive
from ..figures import Figure, dots
from ..finite import FiniteRPM
from ..widgets import choice, slider


@dataclass(frozen=True)
class ProofState:
    broken: str = choice(
        {("nothing broken" if k == "nothing" else f"{k}: {v}"): k for k, v in ASSUMPTIONS.items()}, "break it"
    )
    line: int = slider(7, 1, 7, 1, "lines shown")


def proof(world: FiniteRPM, log_prior: Tensor):
    """Lesson 2: the render function for this world and prior: the derivation up to a line, and which line fails when broken."""

    def render(state: ProofState) -> Figure:
        shown = derive(world, log_prior, state.broken)[: state.line]
        failed = {line.name: f"off by {line.residual:+.3f}" for line in shown if line.residual.abs() > 1e-11}
        fate = f"the line «{next(iter(failed))}» fails" if failed else "every line so far agrees with the one before"
        assumption = ASSUMPTIONS[state.broken]
        return dots(
            {line.name: line.value.item() for line in shown},
            mark=failed,
            x_label="value of the line (nats per pair)",
            caption=f"{assumption[0].upper()}{assumption[1:]}: {fate}. Last line shown: {shown[-1].equation}.",
        )

    return render
