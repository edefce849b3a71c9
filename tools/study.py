"""What does the evidence choose? Trains encoders and writes a row of measurements for each: `make study`, or

    .venv/bin/python tools/study.py                  all that is not there yet (hours on two cores, minutes on a GPU)
    .venv/bin/python tools/study.py --only clothes   the trainings of one kind (also: weak, sprites, steps, ...)
    .venv/bin/python tools/study.py --small          a rehearsal of every kind, of few steps and pairs, into build/study.csv

A row is written as soon as its training is done, so that Ctrl-C loses one training at most. Everything is measured on 10 000
pairs that no training saw: 2 000 choose by how much log f is to be multiplied, the other 8 000 are scored, exactly.
"""

import csv
import itertools
import math
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import click
import others
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import rpm_tutorial as rpm
from rpm_tutorial.course.report import _effective_dim
from rpm_tutorial.training import _rise_and_fall

ROOT = Path(__file__).parent.parent
ROWS = ROOT / "rpm_tutorial" / "course" / "lessons" / "study.csv"
STEPS, BATCH, RATE = 400, 256, 2e-3
PAIRS, TUNE = 10_000, 2000
SEEDS, DIMS, FEW_DIMS = (0, 1, 2), (2, 4, 8, 16, 32, 64), (2, 8, 32)
MARKS = (50, 100, 200, 400, 800, 1600, 3200)  # at which a long training is measured
LABELLED, LABEL_SETS = 1000, 5
COUNTS, SUBSETS = (64, 256, 1024), 5  # of pairs: what a choice by so few would have been

CRITICS: dict[str, Callable[[int], nn.Module]] = {
    "sphere": lambda dim: rpm.VonMisesFisher(0.1),
    "sphere 0.05": lambda dim: rpm.VonMisesFisher(0.05, learnable=False),
    "sphere 0.2": lambda dim: rpm.VonMisesFisher(0.2, learnable=False),
    "sphere 1": lambda dim: rpm.VonMisesFisher(1.0, learnable=False),
    "Gaussian walk": lambda dim: rpm.RandomWalk(1.0),
    "Laplace walk": lambda dim: rpm.LaplaceWalk(1.0),
    "bilinear": rpm.Bilinear,
    "separable": rpm.Universal,
}
OBJECTIVES = {
    "InfoNCE": rpm.infonce,
    "reverse": lambda log_f: rpm.infonce(log_f.T),
    "symmetric": rpm.symmetric_infonce,
    "DV": rpm.donsker_varadhan,
}
LOSSES = {
    "NT-Xent": others.lightly_module("ntx_ent_loss").NTXentLoss(0.2),
    "VICReg": others.lightly_module("vicreg_loss").VICRegLoss(),
}
REFEREES = (*LOSSES, "labels", "untrained", "pixels")
REFEREES_BY = ("sphere", "Gaussian walk")  # the critics that score them, at their own best beta

# Sprites: five factors, and how many values each has. The two images of a pair share four; the angle is drawn twice.
FACTORS = {"shape": 3, "size": 3, "column": 6, "row": 6, "angle": 6}
SHARED = ("shape", "size", "column", "row")


class Run(NamedTuple):
    """One training. `kind` groups those that are compared with each other."""

    kind: str
    critic: str = "sphere"
    dim: int = 16
    seed: int = 0
    objective: str = "InfoNCE"  # or what else the encoder was made by, see REFEREES
    steps: int = STEPS


class Pairs(NamedTuple):
    """What a kind trains and measures on."""

    batches: Callable[[int], Iterator[tuple[Tensor, Tensor]]]  # of a seed
    x: Tensor  # (n, 1, 28, 28), pairs that no training sees
    x_prime: Tensor
    labels: dict[str, Tensor]  # (n,) each: what the two images of a pair share
    probed: Tensor  # (n, 1, 28, 28), images of those labels


def runs() -> list[Run]:
    """Seed by seed, so that a study which is stopped early has something of every kind."""
    every = []
    for seed in SEEDS:
        every += [Run("clothes", critic, dim, seed) for critic, dim in itertools.product(CRITICS, DIMS)]
        every += [Run("sprites", critic, dim, seed) for critic, dim in itertools.product(CRITICS, FEW_DIMS)]
        every += [Run("weak", critic, 32, seed) for critic in CRITICS]
        every += [Run("normaliser", objective=objective, seed=seed) for objective in OBJECTIVES]
        every += [Run("referee", c, seed=seed, objective=o) for c, o in itertools.product(REFEREES_BY, REFEREES)]
        every += [Run("steps", seed=seed, steps=MARKS[-1])]
    return every


def rehearsal() -> list[Run]:
    """One training of each critic, kind, objective and referee."""
    chosen = [Run("clothes", critic, 4) for critic in CRITICS]
    chosen += [Run("sprites"), Run("weak"), Run("steps")]
    chosen += [Run("normaliser", objective=objective) for objective in OBJECTIVES]
    chosen += [Run("referee", objective=objective) for objective in REFEREES]
    return [run._replace(steps=4) for run in chosen]


def pairs_of(kind: str, n: int, device: torch.device) -> Pairs:
    if kind == "sprites":
        x, x_prime, factors = sprite_pairs(n, torch.Generator().manual_seed(1))
        labels = {name: factors[:, k] for k, name in enumerate(FACTORS) if name in SHARED}
        return Pairs(endless_sprites, x.to(device), x_prime.to(device), labels, x)
    images = rpm.datasets.fashion_mnist("train").x.to(device)
    test = rpm.datasets.fashion_mnist("test")
    strength = 0.3 if kind == "weak" else 1.0
    draw = torch.Generator(device).manual_seed(1)
    views = rpm.datasets.two_views(test.x[:n].to(device), strength=strength, generator=draw)

    def batches(seed: int):
        return rpm.datasets.view_pairs(images, BATCH, strength=strength, seed=seed)

    return Pairs(batches, *views, {"class": test.labels[:n]}, test.x[:n])


def endless_sprites(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(1000 + seed)
    while True:
        yield sprite_pairs(BATCH, draw)[:2]


def sprite_pairs(n: int, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """x, x' of shape (n, 1, 28, 28), and the factors of x', shape (n, 5)."""
    of_x, of_x_prime = (
        torch.stack([torch.randint(k, (n,), generator=draw) for k in FACTORS.values()], 1) for _ in range(2)
    )
    for k, name in enumerate(FACTORS):
        if name in SHARED:
            of_x_prime[:, k] = of_x[:, k]
    x, x_prime = (
        (sprite(of) + 0.1 * torch.randn(n, 1, 28, 28, generator=draw)).clamp(0, 1) for of in (of_x, of_x_prime)
    )
    return x, x_prime, of_x_prime


def sprite(factors: Tensor) -> Tensor:
    """Oblongs, triangles and ellipses with soft edges, shape (n, 1, 28, 28)."""
    shape, size, column, row, angle = factors.float().T[:, :, None, None]
    pixel = torch.arange(28.0)
    across, down = pixel - (7 + 2.8 * column), pixel[:, None] - (7 + 2.8 * row)
    turn = angle * math.pi / FACTORS["angle"]
    u, v = turn.cos() * across + turn.sin() * down, turn.cos() * down - turn.sin() * across
    oblong = torch.maximum(u.abs(), 1.6 * v.abs())
    triangle = 1.4 * torch.maximum(v, 0.87 * u.abs() - 0.5 * v)
    ellipse = (u.square() + (2.2 * v).square()).sqrt()
    distance = torch.where(shape == 0, oblong, torch.where(shape == 1, triangle, ellipse))
    return (3 + 1.2 * size - distance).sigmoid()[:, None]


def trained(run: Run, pairs: Pairs, device: torch.device) -> Iterator[tuple[int, nn.Module, nn.Module]]:
    """(step, encoder, critic), each time that the run is to be measured."""
    torch.manual_seed(run.seed)
    encoder, critic = rpm.encoders.conv(run.dim).to(device), CRITICS[run.critic](run.dim).to(device)
    if run.objective in OBJECTIVES:
        objective, batches = OBJECTIVES[run.objective], pairs.batches(run.seed)
        marks = MARKS if run.kind == "steps" else ()
        for row in rpm.train(encoder, critic, batches, run.steps, learning_rate=RATE, objective=objective):
            if row.step == run.steps or row.step in marks:
                yield row.step, encoder, critic
        return
    if run.objective == "pixels":
        encoder = nn.Sequential(nn.Flatten(), nn.Identity())
    elif run.objective != "untrained":
        referee(encoder, run, pairs, device)
    yield run.steps, encoder, critic


def referee(encoder: nn.Module, run: Run, pairs: Pairs, device: torch.device) -> None:
    """Train by a loss that is no model of pairs, with the optimiser, learning rate and schedule of `rpm.train`."""
    head = nn.Linear(run.dim, 10).to(device)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rise_and_fall(step, run.steps))
    batches, draw = pairs.batches(run.seed), torch.Generator(device).manual_seed(run.seed)
    images = rpm.datasets.fashion_mnist("train")
    for _ in range(run.steps):
        if run.objective == "labels":
            rows = torch.randint(len(images.x), (BATCH,), device=device, generator=draw).cpu()
            x, _ = rpm.datasets.two_views(images.x[rows].to(device), generator=draw)
            loss = F.cross_entropy(head(encoder(x)), images.labels[rows].to(device))
        else:
            x, x_prime = (side.to(device) for side in next(batches))
            loss = LOSSES[run.objective](encoder(x), encoder(x_prime))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


class Tempered(nn.Module):
    """The critic's scores times beta: of a cosine another temperature, of a walk another scale."""

    def __init__(self, critic: nn.Module, beta: float):
        super().__init__()
        self.critic, self.beta = critic, beta

    def forward(self, z: Tensor, z_prime: Tensor) -> Tensor:
        return self.beta * self.critic(z, z_prime)


@torch.no_grad()
def measured(encoder: nn.Module, critic: nn.Module, pairs: Pairs) -> dict[str, float]:
    """A row's numbers: evidence in nats per pair, accuracies of logistic regressions, and their spreads."""
    z, z_prime = rpm.encode(encoder, pairs.x), rpm.encode(encoder, pairs.x_prime)
    n = len(z) * TUNE // PAIRS
    beta = best_beta(critic(z[: n // 2], z_prime[:n]))
    tempered, pair = Tempered(critic, beta), (z[n:], z_prime[n:])
    each = rpm.dataset_evidence(*pair, tempered, reduction="none").infonce
    found = {"beta": beta, "infonce": rpm.dataset_evidence(*pair, critic).infonce.item(), "tuned": each.mean().item()}
    found["error of tuned"] = (each.std() / math.sqrt(len(each))).item()
    for name, labels in pairs.labels.items():
        found[f"nats of {name}"] = rpm.label_evidence(*pair, tempered, labels[n:]).label.item()
    for count, k in itertools.product(COUNTS, range(SUBSETS)):
        some = slice(n + k * count, n + (k + 1) * count)
        if n + SUBSETS * count <= len(z):
            found[f"of {count} pairs, {k}"] = rpm.dataset_evidence(z[some], z_prime[some], tempered).infonce.item()
    found["effective dim"] = _effective_dim(z)
    return found | probed(encoder, pairs)


def best_beta(log_f: Tensor) -> float:
    """By which number these scores, a square of pairs and more candidates, have the most InfoNCE."""

    def loss(log_beta: float) -> float:
        scores = math.exp(log_beta) * log_f
        return (scores.logsumexp(1) - scores.diagonal()).mean().item()

    return math.exp(minimize_scalar(loss, bounds=(-9, 9), method="bounded", options={"xatol": 0.01}).x)


def probed(encoder: nn.Sequential, pairs: Pairs) -> dict[str, float]:
    """Of z, and of the features before the last layer: the mean over sets of labelled images, and the deviation."""
    found, device = {}, pairs.x.device
    for of, network in {"z": encoder, "features": encoder[:-1]}.items():
        latents = rpm.encode(network, pairs.probed.to(device)).cpu()
        for name, labels in pairs.labels.items():
            scores = torch.tensor([probe(latents, labels, k) for k in range(LABEL_SETS)])
            found |= {f"{name} from {of}": scores.mean().item(), f"deviation of {name} from {of}": scores.std().item()}
    return found


def probe(latents: Tensor, labels: Tensor, k: int) -> float:
    order = torch.randperm(len(latents), generator=torch.Generator().manual_seed(k))
    n = min(LABELLED, len(order) // 2)
    some, rest = order[:n], order[n : n + 4000]
    return rpm.probes.linear_probe(latents[some], labels[some], latents[rest], labels[rest])


MEASURED = [
    "beta", "infonce", "tuned", "error of tuned", "effective dim",
    *(f"{what} {name}" for what in ("nats of",) for name in ("class", *SHARED)),
    *(f"{spread}{name} from {of}" for name in ("class", *SHARED) for of in ("z", "features") for spread in ("", "deviation of ")),
    *(f"of {count} pairs, {k}" for count in COUNTS for k in range(SUBSETS)),
]  # fmt: skip


def done(path: Path) -> set[tuple[str, ...]]:
    """The runs that a file has."""
    if not path.exists():
        return set()
    with open(path, newline="", encoding="utf-8") as file:
        return {tuple(row[name] for name in Run._fields) for row in csv.DictReader(file)}


def of_machine(device: torch.device) -> str:
    cuda = device.type == "cuda"
    return f"{torch.cuda.get_device_name() if cuda else platform.machine()}, torch {torch.__version__}"


@click.command(help=__doc__.replace("\n\n", "\n\n\b\n", 1))
@click.option("--only", default="", help="Trainings of this kind.")
@click.option("--small", is_flag=True, help="The rehearsal.")
@click.option("--rows", type=click.Path(path_type=Path), help="The file of rows, another than the course's.")
def main(only: str, small: bool, rows: Path | None) -> None:
    path = rows or (ROOT / "build" / "study.csv" if small else ROWS)
    path.parent.mkdir(parents=True, exist_ok=True)
    device, there = rpm.setup(), done(path)
    wanted = [run for run in (rehearsal() if small else runs()) if run.kind.startswith(only)]
    if not wanted:
        kinds = ", ".join(dict.fromkeys(run.kind for run in runs()))
        raise click.UsageError(f"no kind of training starts with {only!r}; there are {kinds}.")
    missing = [run for run in wanted if tuple(map(str, run)) not in there]
    pairs: dict[str, Pairs] = {}
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*Run._fields, "step", "seconds", *MEASURED, "machine"], lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        for run in tqdm(missing, "trainings", initial=len(wanted) - len(missing), total=len(wanted)):
            start, kind = time.perf_counter(), run.kind if run.kind in ("weak", "sprites") else "clothes"
            if kind not in pairs:
                pairs[kind] = pairs_of(kind, 500 if small else PAIRS, device)
            found = []
            for step, encoder, critic in trained(run, pairs[kind], device):
                numbers = {name: f"{value:.4g}" for name, value in measured(encoder, critic, pairs[kind]).items()}
                of_run = {"step": step, "seconds": f"{time.perf_counter() - start:.0f}", "machine": of_machine(device)}
                found.append(run._asdict() | numbers | of_run)
            writer.writerows(found)
            file.flush()
    print(f"{len(wanted)} trainings are in {path}")


if __name__ == "__main__":
    main()
