"""Lesson 4: retrieval under the model."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..critics import VonMisesFisher
from ..evidence import dataset_evidence
from ..figures import Figure, images
from ..widgets import slider


@dataclass(frozen=True)
class RetrievalState:
    temperature: float = slider(0.1, 0.02, 0.4, 0.02, "temperature")
    image: int = slider(0, 0, 19, 1, "image")


def retrieval(z: Tensor, z_prime: Tensor, x: Tensor, x_prime: Tensor):
    """Lesson 4: the render function for these encoded pairs: the most probable x′ given one x, and the evidence beside it.

    Raises `ValueError` for fewer than the 20 pairs that its slider offers.
    """
    if len(z) < 20:
        raise ValueError(f"z has {len(z)} rows; expected at least 20 encoded pairs")

    def render(state: RetrievalState) -> Figure:
        critic = VonMisesFisher(state.temperature).to(z)
        with torch.no_grad():
            p = critic(z[[state.image]], z_prime).softmax(1)[0].cpu()
            evidence = dataset_evidence(z, z_prime, critic)
        best = p.topk(8).indices.tolist()
        own = int((p > p[state.image]).sum()) + 1
        return images(
            {"x": x[[state.image]], "x′": x_prime[[*best, state.image]]},
            below={"x′": [*(f"{p[j]:.3f}" for j in best), f"✓ {p[state.image]:.3f}"]},
            caption=(
                f"The eight most probable x′ given image {state.image}, with P(x′|x); behind them ✓, its own other view, ranked "
                f"{own} of {evidence.n} with P = {p[state.image]:.3f}. Log evidence at this temperature: "
                f"{evidence.log_evidence:.3f} nats per pair."
            ),
        )

    return render
