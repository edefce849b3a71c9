"""Lesson 5. Its widget: what the model stakes on each candidate at a temperature, and what that earns.

Its exercises: the log probability of each pair, the pairs that a large InfoNCE needs, and a bug in a sum by tiles.
"""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...critics import VonMisesFisher
from ...evidence import dataset_evidence
from ..exercise import Exercise, normal
from ..figures import BLACK, BLUE, GREY, VERMILLION, Figure, images
from ..widgets import slider


@dataclass(frozen=True)
class RetrievalState:
    temperature: float = slider(0.1, 0.02, 0.4, 0.02, "temperature")
    image: int = slider(0, 0, 19, 1, "image")


def retrieval(z: Tensor, z_prime: Tensor, x: Tensor, x_prime: Tensor):
    """Lesson 5: the render function for these encoded pairs: P of the most probable x′ given one x, and the evidence curve.

    Raises `ValueError` for fewer than the 20 pairs that its slider offers.
    """
    if len(z) < 20:
        raise ValueError(f"z has {len(z)} rows; expected at least 20 encoded pairs")

    temperatures = dataclasses.fields(RetrievalState)[0].metadata["values"]
    with torch.no_grad():
        tables = [dataset_evidence(z, z_prime, VonMisesFisher(t).to(z), reduction="none") for t in temperatures]
    log_p = torch.stack([table.log_evidence for table in tables], 1).cpu()  # of each pair, at each temperature
    curve = log_p.mean(0).tolist()

    def probabilities(image: int, temperature: float) -> Tensor:
        with torch.no_grad():
            return VonMisesFisher(temperature).to(z)(z[[image]], z_prime).softmax(1)[0].cpu()

    def render(state: RetrievalState) -> Figure:
        p, most = probabilities(state.image, state.temperature), probabilities(state.image, temperatures[0]).max()
        best, evidence = p.topk(8).indices.tolist(), curve[temperatures.index(state.temperature)]
        rank = int((p > p[state.image]).sum()) + 1
        own = log_p[state.image].tolist()
        shown = [*best, state.image]
        figure = images(
            {"x": x[[state.image]], "x′": x_prime[shown]},
            below={"x′": [*(f"{p[j]:.3f}" for j in best), f"✓ {p[state.image]:.3f}"]},
            caption=(
                f"The eight most probable x′ given image {state.image}, and behind them ✓, its own other view, ranked "
                f"{rank} of {len(z)} with P = {p[state.image]:.3f}. The temperature changes the bars, never the order. "
                f"On top, dotted: log P of this pair, highest at temperature {temperatures[own.index(max(own))]:g}. "
                f"Dashed: its mean over all pairs, the log evidence, {evidence:.3f} nats per pair at "
                f"{state.temperature:g} and at most {max(curve):.3f}."
            ),
        )
        _add_stakes(figure.plotly, p[shown].numpy(), most.item())
        _add_curves(figure.plotly, temperatures, curve, own, state.temperature, -math.log(len(z)))
        peak = temperatures[curve.index(max(curve))]
        above = (
            "Above each x′ a bar of its P; on top log P of the pair and the log evidence against the temperature, "
            f"the evidence highest at {peak:g}."
        )
        return dataclasses.replace(figure, alt=f"{figure.alt} {above}")

    return render


def _add_stakes(fig, p: np.ndarray, most: float) -> None:
    """Bars of P above the images of x′, on one scale for all temperatures of an image."""
    width = fig.data[0].z.shape[1] / len(p)
    colors = [BLUE] * (len(p) - 1) + [VERMILLION]
    where = {"xaxis": "x", "yaxis": "y2", "showlegend": False}
    fig.add_bar(x=width * (np.arange(len(p)) + 0.5), y=p, width=width / 2, marker_color=colors, **where)
    fig.layout.yaxis.domain, fig.layout.height = [0, 0.42], fig.layout.height + 330
    fig.layout.yaxis2 = {
        "domain": [0.44, 0.66],
        "title": "P(x′|x)",
        "range": [0, 1.05 * most],
        "anchor": "free",
        "position": 0,
    }


def _add_curves(fig, temperatures, curve, own, temperature: float, ceiling: float) -> None:
    """log P of one pair and of the mean of all against the temperature, in a panel above, with the chosen one marked."""
    where = {"xaxis": "x2", "yaxis": "y3", "showlegend": False}
    evidence = curve[temperatures.index(temperature)]
    fig.add_scatter(x=temperatures, y=curve, mode="lines", line={"color": BLACK, "dash": "dash"}, **where)
    fig.add_scatter(x=temperatures, y=own, mode="lines", line={"color": VERMILLION, "dash": "dot"}, **where)
    fig.add_scatter(x=[temperature], y=[evidence], mode="markers", marker={"size": 12, "color": GREY}, **where)
    lowest = min(curve) - 2 * (max(curve) - min(curve))  # axes that stand still; a pair that is far worse leaves below
    fig.layout.xaxis2 = {
        "anchor": "y3",
        "title": "temperature",
        "domain": [0, 1],
        "range": [0, 1.05 * temperatures[-1]],
    }
    fig.layout.yaxis3 = {
        "domain": [0.8, 1],
        "title": "log P<br>(nats)",
        "anchor": "x2",
        "range": [lowest, ceiling + 0.3],
    }


# Exercises


log_p = Exercise(
    prompt="Return log P(x_i,x'_i) of each pair, shape (N,), from the table log_f of shape (N, N). Source: (E14).",
    case=lambda seed: (2 * normal(seed, 7, 7),),
    solution=lambda log_f: log_f.log_softmax(1).diagonal() - math.log(len(log_f)),
    hints=(
        "First the conditional: how probable is x'_i among all N candidates, given x_i?",
        "P(x'_j|x_i) is a softmax over row i; P(x_i) = 1/N.",
        "log_f.log_softmax(1).diagonal() - log N",
    ),
    misconceptions={
        lambda log_f: log_f.log_softmax(1).diagonal(): "that is log P(x'_i|x_i); the pair also needs P(x_i) = 1/N.",
        lambda log_f: log_f.log_softmax(1).diagonal() + math.log(len(log_f)): (
            "that is the bracket of InfoNCE, log P(x'_i|x_i) above chance; P(x_i) = 1/N lowers the probability of the pair."
        ),
        lambda log_f: log_f.log_softmax(0).diagonal() - math.log(len(log_f)): (
            "you normalised over columns: that is the model with the prior normalised over z."
        ),
        lambda log_f: log_f.flatten().log_softmax(0).view_as(log_f).diagonal(): (
            "one softmax over the whole table is the jointly normalised prior (E9), not InfoNCE's."
        ),
    },
)

pairs_needed = Exercise(
    prompt="Return the smallest number of pairs N on which InfoNCE can reach 5 nats.",
    case=lambda seed: (),
    solution=lambda: math.ceil(math.exp(5)),
    hints=(
        "Which bound on InfoNCE depends on N?",
        "log N must be at least 5.",
        "N is a whole number: math.ceil(math.exp(5)).",
    ),
    misconceptions={
        lambda: math.exp(5): "N counts pairs: it is a whole number, the next one up.",
        lambda: math.floor(math.exp(5)): "one pair too few: log 148 is just below 5.",
        lambda: 32: "2^5 would be right in bits; the ceiling of 5 nats needs e^5.",
    },
)


def _far_outside(seed: int) -> tuple:
    """Rows whose f have no float64: that is what the largest score is taken out for."""
    return (3 * normal(seed, 5, 13 + seed) + torch.tensor([[-900.0], [-9.0], [0.0], [9.0], [900.0]]),)


def _by_tiles(log_f):
    largest = torch.full_like(log_f[:, 0], -torch.inf)
    total = torch.zeros_like(largest)
    for tile in log_f.split(4, dim=1):
        new = torch.maximum(largest, tile.amax(1))
        total = total * (largest - new).exp() + (tile - new[:, None]).exp().sum(1)
        largest = new
    return largest + total.log()


def _never_rescaled(log_f):
    largest = torch.full_like(log_f[:, 0], -torch.inf)
    total = torch.zeros_like(largest)
    for tile in log_f.split(4, dim=1):
        new = torch.maximum(largest, tile.amax(1))
        total = total + (tile - new[:, None]).exp().sum(1)
        largest = new
    return largest + total.log()


by_tiles = Exercise(
    prompt="Return log sum_j f_ij of each row of log_f, shape (n,), visiting four columns at a time.",
    case=_far_outside,
    solution=_by_tiles,
    hints=(
        "When is the result right? Try columns that fall, then columns that rise.",
        "What does `total` mean after a tile? It is a sum of f / e^largest: what happens to it when `largest` grows?",
        "Before the new terms are added, the old total has to be multiplied by exp(largest - new).",
    ),
    misconceptions={
        _never_rescaled: "the value depends on the order of the columns: it is too high where a later tile has a larger score.",
        lambda log_f: sum(tile.logsumexp(1) for tile in log_f.split(4, dim=1)): (
            "you added logarithms; the f are to be added."
        ),
        lambda log_f: torch.stack([tile.logsumexp(1) for tile in log_f.split(4, dim=1)]).amax(0): (
            "you kept the largest tile; the others count too."
        ),
        lambda log_f: log_f.logsumexp(1) - log_f.amax(1): "the maximum that was taken out has to be added back.",
    },
    with_bug=_never_rescaled,
)
