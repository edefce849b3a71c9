"""How `rpm.report` fits its critics: a temperature or a scale by search, a matrix by gradients, on pairs that are not scored."""

import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from .._checks import seeded
from .._log_space import float64
from ..critics import Bilinear, LaplaceWalk, LinearCritic, LinearForm, RandomWalk, VonMisesFisher
from ..objectives import infonce

C = TypeVar("C", bound=nn.Module)
STEPS, BATCH = 100, 1024  # of the bilinear critic's fit
STRIP = 2_000_000  # entries of a table that stand in memory at once
TRIED = 1024  # pairs by which a temperature or a scale is chosen, among all candidates
AT_END = "*"  # marks a parameter that the search left at an end of its range
WORK = 8_000_000_000  # |z - z'| entries that a choice (a tenth of it) or a score of the Laplace walk may take


def _sphere(z: Tensor, z_prime: Tensor, seed: int) -> tuple[nn.Module, str]:
    apart = (1 - torch.cosine_similarity(z, z_prime)).mean().clamp(min=1e-7)
    critic, mark = _best(VonMisesFisher, z, z_prime, around=apart.item() / math.sqrt(z.shape[1]))
    return critic, f"temperature {critic.temperature.item():.3g}{mark}"


def _gaussian(z: Tensor, z_prime: Tensor, seed: int) -> tuple[nn.Module, str]:
    critic, mark = _best(RandomWalk, z, z_prime, around=(z - z_prime).square().mean().sqrt().item())
    return critic, f"scale {critic.scale.item():.3g}{mark}"


def _laplace(z: Tensor, z_prime: Tensor, seed: int) -> tuple[nn.Module, str]:
    critic, mark = _best(LaplaceWalk, z, z_prime, around=(z - z_prime).abs().mean().item())
    return critic, f"scale {critic.scale.item():.3g}{mark}"


class _AboutMeans(LinearCritic):
    """A bilinear critic of both sides less their means, so that it doesn't matter where 0 is."""

    mean: Tensor
    mean_prime: Tensor

    def __init__(self, dim: int, mean: Tensor, mean_prime: Tensor):
        super().__init__()
        self.bilinear = Bilinear(dim)
        self.register_buffer("mean", mean)
        self.register_buffer("mean_prime", mean_prime)

    def linear_form(self, z: Tensor, z_prime: Tensor) -> LinearForm:
        """The scores as inner products."""
        return self.bilinear.linear_form(z - self.mean, z_prime - self.mean_prime)


def _bilinear(z: Tensor, z_prime: Tensor, seed: int) -> tuple[nn.Module, str]:
    """W from the sides' covariances, then by gradients; a tenth of these pairs, of which W is not made, chooses its scale
    and the best of all steps."""
    dim, n = z.shape[1], len(z) - len(z) // 10
    linear, means = _whitened_covariance(z[:n], z_prime[:n]), (z[:n].mean(0), z_prime[:n].mean(0))

    def start(scale: float, learnable: bool = True) -> _AboutMeans:
        critic = _AboutMeans(dim, *means).to(z)
        critic.bilinear.W.copy_(scale * linear)
        return critic

    rows = torch.arange(n, len(z), device=z.device)[:TRIED]
    critic, _ = _best(start, z, z_prime, around=1.0, rows=rows)
    W, best = critic.bilinear.W, -math.inf
    kept = W.clone()
    rate, draw = W.square().mean().sqrt().item() / 10, seeded(seed)
    optimiser = torch.optim.Adam(critic.parameters(), rate)
    for step in range(STEPS + 1):
        if step % 10 == 0:
            value = log_p_and_rank(critic, z, z_prime, rows)[0].mean().item()
            if value > best:
                best, kept = value, W.clone()
        batch = torch.randperm(n, generator=draw)[:BATCH].to(z.device)
        with torch.enable_grad():
            optimiser.zero_grad()
            (-infonce(critic(z[batch], z_prime[batch])).value).backward()
        optimiser.param_groups[0]["lr"] = rate * (1 - step / (STEPS + 1))
        optimiser.step()
    W.copy_(kept)
    return critic, f"{dim} x {dim} matrix"


def _whitened_covariance(z: Tensor, z_prime: Tensor) -> Tensor:
    """C^-1 C_zz' C'^-1 of the two sides: of Gaussian latents, the bilinear part of the density ratio, up to a number."""
    z, z_prime = (side - side.mean(0) for side in (z, z_prime))
    within = [float64(side.T @ side / len(side)) for side in (z, z_prime)]
    ridged = [of + 1e-3 * of.trace() / len(of) * torch.eye(len(of)).to(of) for of in within]
    half = torch.linalg.solve(ridged[0], float64(z.T @ z_prime / len(z)))
    return torch.linalg.solve(ridged[1], half.T).T


FITS: dict[str, Callable[[Tensor, Tensor, int], tuple[nn.Module, str]]] = {
    "cosine": _sphere,
    "Gaussian walk": _gaussian,
    "Laplace walk": _laplace,
    "bilinear": _bilinear,
}


def _best(
    critic_of: Callable[..., C], z: Tensor, z_prime: Tensor, around: float, rows: Tensor | None = None
) -> tuple[C, str]:
    """The critic whose one parameter gives these rows the most evidence, within a factor of 100 of `around`; a mark if that
    is one of the two ends."""

    def made(log_parameter: float) -> C:
        return critic_of(math.exp(log_parameter), learnable=False).to(z)

    chosen = some_rows(made(math.log(around)), z, TRIED, WORK // 10) if rows is None else rows

    def loss(log_parameter: float) -> float:
        return -log_p_and_rank(made(log_parameter), z, z_prime, chosen)[0].mean().item()

    low, high = math.log(around) - math.log(100), math.log(around) + math.log(100)
    best = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 0.01}).x
    return made(best), AT_END if min(best - low, high - best) < 0.05 else ""


def log_p_and_rank(critic: nn.Module, z: Tensor, z_prime: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Of some rows: log P(x'|x) among all candidates, and the rank of the own one, a tie counting half."""
    log_p, ranks = z.new_empty(2, len(rows))  # not a list: its parts would split the strips' memory
    parts = (of.split(_height(z_prime)) for of in (rows, log_p, ranks))
    for some, its_log_p, its_rank, log_f in zip(*parts, _strips(critic, z[rows], z_prime)):
        own = log_f.gather(1, some[:, None])
        its_log_p.copy_(own.squeeze(1) - log_f.logsumexp(1))
        its_rank.copy_(((log_f > own).sum(1) + (log_f >= own).sum(1) + 1) / 2)
    return log_p, ranks


def _height(z_prime: Tensor) -> int:
    return max(1, STRIP // len(z_prime))


def _strips(critic: nn.Module, z: Tensor, z_prime: Tensor) -> Iterator[Tensor]:
    """The table of scores, some rows at a time; of z' a linear critic's features are made once."""
    if not isinstance(critic, LinearCritic):
        yield from (critic(some, z_prime) for some in z.split(_height(z_prime)))
        return
    q, k, row_bias, column_bias = critic.linear_form(z, z_prime)
    biases = [None] * len(z) if row_bias is None else row_bias.split(_height(z_prime))
    for some, bias in zip(q.split(_height(z_prime)), biases):
        yield LinearForm(some, k, bias, column_bias).table().to(z)


def some_rows(critic: nn.Module, z: Tensor, most: int, work: int) -> Tensor:
    """At most so many rows, the same for each critic but the Laplace walk, which has no faster way than entry by entry."""
    if isinstance(critic, LaplaceWalk):
        most = min(most, max(64, work // z.numel()))
    return torch.randperm(len(z), generator=seeded(0))[:most].to(z.device)
