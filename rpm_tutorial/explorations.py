"""What the widgets show: each a pure function from an immutable state to a `Figure`, built from the library alone."""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from . import gaussian, objectives, priors
from ._circle import circle
from ._log_space import expectation, log
from .critics import VonMisesFisher
from .derivation import ASSUMPTIONS, derive
from .evidence import dataset_evidence
from .figures import Figure, dots, images, lines, tables
from .finite import FiniteRPM
from .widgets import choice, slider

RING = FiniteRPM.ring()  # the world of lessons 2 and 3


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


@dataclass(frozen=True)
class PriorState:
    kappa: float = slider(1.5, 0, 3, 0.25, "trust κ in the density ratio")
    offset: float = slider(0.5, 0, 2, 0.25, "offset t of the critic")
    prior: str = choice(["InfoNCE", "DV", "NWJ"], "prior")


OBJECTIVE_OF = {"InfoNCE": objectives.infonce, "DV": objectives.donsker_varadhan, "NWJ": objectives.nwj}
KAPPAS = np.linspace(0, 3, 31)


def prior_choice(state: PriorState) -> Figure:
    """Lesson 3: MI, and L − C under three priors, for log f = 1 + κ log Q(z,z′)/Q(z)Q(z′) + c(z); the gap of one of them."""
    information, chosen = RING.mutual_information.item(), _value(state.prior, state.kappa, state.offset)
    return lines(
        KAPPAS,
        {name: _curve(name, state.offset) for name in OBJECTIVE_OF},
        floor=-0.3,
        ceiling=("MI", information),
        mark=state.kappa,
        gap=(chosen, information),
        x_label="trust κ in the density ratio",
        y_label="L − C (nats per pair)",
        caption=(
            f"At κ = {state.kappa:g} the {state.prior} prior gives L − C = {chosen:.4f} of MI = {information:.4f} nats: "
            f"it lies KL(Q‖P) = {information - chosen:.4f} nats from Q(z,z′): the bar."
        ),
    )


@cache
def _curve(name: str, offset: float) -> list[float]:
    return [_value(name, kappa, offset) for kappa in KAPPAS]


def _value(name: str, kappa: float, offset: float) -> float:
    log_ratio = log(RING.q_joint) - log(RING.q_z)[:, None] - log(RING.q_z_prime)
    c = offset * torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64)
    return OBJECTIVE_OF[name](1 + kappa * log_ratio + c, RING.q_joint).value.item()


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
        best = p.topk(8).indices
        own = int((p > p[state.image]).sum()) + 1
        return images(
            {"x": x[[state.image]], "x′": x_prime[best]},
            below={"x′": [f"{p[j]:.3f}{' ✓' if j == state.image else ''}" for j in best]},
            caption=(
                f"The eight most probable x′ given image {state.image}, with P(x′|x); ✓ is its own other view, ranked {own} of "
                f"{evidence.n} with P = {p[state.image]:.3f}. Log evidence at this temperature: "
                f"{evidence.log_evidence:.3f} nats per pair."
            ),
        )

    return render


@dataclass(frozen=True)
class BatchState:
    information: float = slider(2.0, 0.25, 6, 0.25, "mutual information", "nats")
    doublings: int = slider(6, 1, 10, 1, "log₂ of the batch size N")


def finite_batches(state: BatchState) -> Figure:
    """Lesson 5: I_N of the best critic on four-dimensional Gaussian pairs against N: sampled, by the law (E16), and its ceiling."""
    counts = 2 ** np.arange(1, 11)
    sampled = _sampled_infonce(state.information)
    law = state.information - math.expm1(2 * state.information) / (2 * counts)  # chi^2 = e^(2 MI) - 1
    k, n = state.doublings - 1, 2**state.doublings
    off = abs(law[k] - sampled[k])
    return lines(
        counts,
        {"InfoNCE": sampled, "law (E16)": law, "log N": np.log(counts)},
        floor=-0.5,
        ceiling=("MI", state.information),
        x_log=True,
        mark=n,
        x_label="pairs in a batch N",
        y_label="nats per pair",
        caption=(
            f"At N = {n} a batch shows {sampled[k]:.2f} of {state.information:g} nats; the ceiling log N is {math.log(n):.2f}. "
            f"The law is off by {off:.2f} nats: N is {n / math.exp(2 * state.information):.2g} times e^2MI."
        ),
    )


@cache
def _sampled_infonce(information: float, rows: int = 512, dim: int = 4) -> np.ndarray:
    """I_N for N = 2, 4, ... 1024, over rows that share their candidates; E log f = MI is exact, its normaliser sampled."""
    rho = math.sqrt(-math.expm1(-2 * information / dim))
    generator, counts = torch.Generator().manual_seed(0), 2 ** torch.arange(1, 11)
    z, z_prime = gaussian.sample(rows, rho, dim, generator=generator)
    _, strangers = gaussian.sample(1023, rho, dim, generator=generator)
    own = gaussian.log_optimal_critic(z, z_prime, rho).diagonal()[:, None]
    log_f = torch.cat([own, gaussian.log_optimal_critic(z, strangers, rho)], 1) + information
    shift = log_f.amax(1, keepdim=True)
    log_normaliser = (log_f - shift).exp().cumsum(1)[:, counts - 1].log() + shift - counts.log()
    return (information - log_normaliser.mean(0)).numpy()


@dataclass(frozen=True)
class ConcentrationState:
    kappa: int = slider(11, 1, 40, 1, "concentration κ")
    code: str = choice(["wound once", "folded"], "the code")
    pair: int = slider(0, 0, 19, 1, "pair")


def concentration(codes: dict[str, tuple[Tensor, Tensor]]):
    """Lesson 11: the render function for two encoders' pairs: P(x′|x) on the circle, and what each κ earns.

    `codes` has "wound once" and "folded", each (z, z′) of shape (N, 2) with N at least 20, of which the direction counts.
    """
    kappas = np.arange(1.0, 41.0)
    with torch.no_grad():
        evidence = {
            name: [dataset_evidence(z, z_prime, VonMisesFisher(1 / k).to(z)).infonce.item() for k in kappas]
            for name, (z, z_prime) in codes.items()
        }

    def render(state: ConcentrationState) -> Figure:
        z, z_prime = codes[state.code]
        with torch.no_grad():
            p = VonMisesFisher(1 / state.kappa).to(z)(z[[state.pair]], z_prime).softmax(1)[0]
        angle, angle_prime = (torch.atan2(side[:, 1], side[:, 0]) for side in (z, z_prime))
        value, best = evidence[state.code][state.kappa - 1], max(evidence[state.code])
        return circle(
            angle_prime.numpy(),
            p.numpy(),
            own=angle[state.pair].item(),
            partner=angle_prime[state.pair].item(),
            kappas=kappas,
            evidence=evidence,
            mark=state.kappa,
            caption=(
                f"Blue: the z′ of {len(z)} held-out frames, as large as P(x′|x) for the frame at the star; its true next "
                f"frame is the diamond, with P = {p[state.pair]:.4f}. At κ = {state.kappa:g} the code that is "
                f"{state.code} earns {value:.2f} nats; its best κ would earn {best:.2f}."
            ),
        )

    return render
