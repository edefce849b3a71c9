"""Critics: the geometry of a prior as an `nn.Module` that scores every z against every z' (E18).

Each maps z of shape (n, d) and z' of shape (m, d) to log_f of shape (n, m), pair by pair: an entry depends on its own
z and z' alone. What is named in a constructor is a learnable parameter (`learnable=False` fixes it), and what must be
positive is kept as its logarithm. Any `nn.Module` of the same signature is a critic: there is no base class.

A critic that is an inner product of something of z with something of z' may say so in a method `linear_form`, and
`dataset_evidence` becomes faster; a subclass that changes `forward` has to change it too, or it is not used.

All raise `ValueError` for NaN, for shapes that do not match, and for mixed dtypes or devices.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._checks import (
    any_entry,
    check_alike,
    check_count,
    check_latents,
    check_lengths,
    check_positive,
    check_scores,
    shape_of,
)
from ._log_space import at_least_float32, float64, full_precision, saveable

Map = Callable[[Tensor], Tensor]
LOST = 0.01  # nats that a score may lose to rounding, before it is computed in float64


class LinearForm(NamedTuple):
    """A table of scores as inner products: log_f_ij = q_i . k_j + row_bias_i + column_bias_j.

    q has shape (n, k), k (m, k), row_bias (n) and column_bias (m); a bias of None is 0. That of a walk is wider than the
    latents where their dtype would lose digits; if their device, MPS, has no float64, it is then on the processor.
    """

    q: Tensor
    k: Tensor
    row_bias: Tensor | None = None
    column_bias: Tensor | None = None

    def table(self) -> Tensor:
        """log_f, shape (n, m)."""
        with full_precision(self.q.device):
            log_f = self.q @ self.k.T
        if self.row_bias is not None:
            log_f = log_f + self.row_bias[:, None]
        log_f = log_f if self.column_bias is None else log_f + self.column_bias
        check_scores(log_f)
        return log_f


class RandomWalk(nn.Module):
    """log f = -|z - z'|^2 / (2 scale^2): z' is z after a Gaussian step. Source: (E18).

    The square is multiplied out, which loses digits where latents spread over many scales: beyond some 200 of them
    float32 would be off by 0.01 nats, and the products are taken in float64, which is as good up to five million. So they
    are in torch.compile and vmap, where nobody can look at the spread.
    """

    def __init__(self, scale: float = 1.0, *, learnable: bool = True):
        super().__init__()
        self.log_scale = _log_parameter("scale", scale, learnable)

    @property
    def scale(self) -> Tensor:
        """The standard deviation of a step along each axis, 0-dimensional."""
        return self.log_scale.exp()

    def extra_repr(self) -> str:
        return _described("scale", self.log_scale)

    def linear_form(self, z: Tensor, z_prime: Tensor) -> LinearForm:
        """The scores as inner products."""
        z, z_prime = _checked(z, z_prime)
        return _gaussian(z, z_prime, lambda z: z, lambda step: step / self.scale.to(step))

    def forward(self, z: Tensor, z_prime: Tensor) -> Tensor:
        """log_f of shape (n, m), from z of shape (n, d) and z' of shape (m, d)."""
        return self.linear_form(z, z_prime).table().to(z)


class LaplaceWalk(nn.Module):
    """log f = -|z - z'|_1 / scale: z' is z after a step along the axes, most often a small one. Source: (E18)."""

    def __init__(self, scale: float = 1.0, *, learnable: bool = True):
        super().__init__()
        self.log_scale = _log_parameter("scale", scale, learnable)

    @property
    def scale(self) -> Tensor:
        """The mean size of a step along each axis, 0-dimensional."""
        return self.log_scale.exp()

    def extra_repr(self) -> str:
        return _described("scale", self.log_scale)

    def forward(self, z: Tensor, z_prime: Tensor) -> Tensor:
        """log_f of shape (n, m), from z of shape (n, d) and z' of shape (m, d)."""
        z, z_prime = _checked(z, z_prime)
        # A processor has no cdist in half precision.
        log_f = (-torch.cdist(at_least_float32(z), at_least_float32(z_prime), p=1) / self.scale).to(z.dtype)
        check_scores(log_f)
        return log_f


class VonMisesFisher(nn.Module):
    """log f = cos(z, z') / temperature, on the sphere: the critic of SimCLR and CLIP. Source: (E18), kappa = 1/temperature."""

    def __init__(self, temperature: float = 0.1, *, learnable: bool = True):
        super().__init__()
        self.log_temperature = _log_parameter("temperature", temperature, learnable)

    @property
    def temperature(self) -> Tensor:
        """1 / kappa, 0-dimensional."""
        return self.log_temperature.exp()

    def extra_repr(self) -> str:
        return _described("temperature", self.log_temperature)

    def linear_form(self, z: Tensor, z_prime: Tensor) -> LinearForm:
        """The scores as inner products."""
        z, z_prime = _checked(z, z_prime)
        return LinearForm(_direction("z", z) / self.temperature, _direction("z_prime", z_prime))

    def forward(self, z: Tensor, z_prime: Tensor) -> Tensor:
        """log_f of shape (n, m), from z of shape (n, d) and z' of shape (m, d)."""
        return self.linear_form(z, z_prime).table()


class LinearDynamics(nn.Module):
    """log f = -1/2 (z' - Az)^T Lambda (z' - Az): z' follows from z by a linear map and a Gaussian step. Source: (E18).

    A starts at the identity. Lambda = R^T R with R upper triangular and a positive diagonal, so it is positive definite.
    """

    def __init__(self, dim: int):
        super().__init__()
        check_count("dim", dim)
        self.A = nn.Parameter(torch.eye(dim))
        self.log_diagonal = nn.Parameter(torch.zeros(dim))
        self.off_diagonal = nn.Parameter(torch.zeros(dim, dim))

    @property
    def precision_root(self) -> Tensor:
        """R, shape (dim, dim)."""
        return self.off_diagonal.triu(1) + self.log_diagonal.exp().diag()

    def extra_repr(self) -> str:
        return f"dim={self.A.shape[1]}"

    def linear_form(self, z: Tensor, z_prime: Tensor) -> LinearForm:
        """The scores as inner products."""
        z, z_prime = _checked(z, z_prime, self.A)

        def move(z):
            return z @ self.A.T.to(z)

        return _gaussian(z, z_prime, move, lambda step: step @ self.precision_root.T.to(step))

    def forward(self, z: Tensor, z_prime: Tensor) -> Tensor:
        """log_f of shape (n, m), from z of shape (n, d) and z' of shape (m, d)."""
        return self.linear_form(z, z_prime).table().to(z)


class Bilinear(nn.Module):
    """log f = z^T W z': the critic of CPC. W starts at the identity. Source: (E18)."""

    def __init__(self, dim: int):
        super().__init__()
        check_count("dim", dim)
        self.W = nn.Parameter(torch.eye(dim))

    def extra_repr(self) -> str:
        return f"dim={self.W.shape[0]}"

    def linear_form(self, z: Tensor, z_prime: Tensor) -> LinearForm:
        """The scores as inner products."""
        z, z_prime = _checked(z, z_prime, self.W)
        return _inner_product(z @ self.W, z_prime)

    def forward(self, z: Tensor, z_prime: Tensor) -> Tensor:
        """log_f of shape (n, m), from z of shape (n, d) and z' of shape (m, d)."""
        return self.linear_form(z, z_prime).table()


class Universal(nn.Module):
    """log f = a(z) . b(z'), two networks: with enough width any log f, so the optimal prior and the MI. Source: (E18)."""

    def __init__(self, dim: int, *, width: int = 128, features: int = 32):
        super().__init__()
        for name, value in (("dim", dim), ("width", width), ("features", features)):
            check_count(name, value)
        self.a, self.b = (
            nn.Sequential(
                nn.Linear(dim, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, features)
            )
            for _ in range(2)
        )

    def extra_repr(self) -> str:
        return f"dim={self.a[0].in_features}"

    def linear_form(self, z: Tensor, z_prime: Tensor) -> LinearForm:
        """The scores as inner products."""
        z, z_prime = _checked(z, z_prime, self.a[0].weight)
        return _inner_product(self.a(z), self.b(z_prime))

    def forward(self, z: Tensor, z_prime: Tensor) -> Tensor:
        """log_f of shape (n, m), from z of shape (n, d) and z' of shape (m, d)."""
        return self.linear_form(z, z_prime).table()


class WithBias(nn.Module):
    """log f + a learnable constant, 0 at first: for objectives that see the level of log f, which the critics here cannot set.

    Those are NWJ (E10) and in `estimators` JS, SMILE, PC, DRF and the anchor; InfoNCE and DV are blind to it. At its best, NWJ
    is DV. Example: `rpm.WithBias(rpm.RandomWalk(0.3))`.
    """

    def __init__(self, critic: nn.Module):
        super().__init__()
        if not isinstance(critic, nn.Module):
            raise TypeError(f"critic is a {type(critic).__name__}; expected an nn.Module, such as rpm.RandomWalk()")
        self.critic, self.bias = critic, nn.Parameter(torch.zeros(()))

    def forward(self, z: Tensor, z_prime: Tensor) -> Tensor:
        """log_f of shape (n, m), from z of shape (n, d) and z' of shape (m, d)."""
        log_f = self.critic(z, z_prime)
        return log_f + self.bias.to(log_f.dtype)


def _direction(name: str, side: Tensor) -> Tensor:
    """Each row divided by its length; a row shorter than 1e-12, or than half precision can tell from 0, goes to 0 with it."""
    check_lengths(name, side)
    return F.normalize(side, dim=1, eps=max(1e-12, torch.finfo(side.dtype).tiny))


# Both forms are centred, which changes no score: far from 0, the products would be large and cancel, and the digits
# with them.
def _gaussian(z: Tensor, z_prime: Tensor, move: Map, whiten: Map) -> LinearForm:
    """-|whiten(move(z_i) - z'_j)|^2 / 2, by multiplying the square out, at least in float32; both maps are linear.

    A near pair is the small difference of large squares. Where they may be off by LOST nats, float64 takes over.
    """
    z, z_prime = at_least_float32(z), at_least_float32(z_prime)
    with full_precision(z.device):
        centre = z_prime.detach().mean(0)
        q, k = whiten(move(z) - centre), whiten(z_prime - centre)
        form = LinearForm(q, k, q.square().sum(1) / -2, k.square().sum(1) / -2)
    if z.dtype == torch.float64:
        return form
    reach = -2 * (form.row_bias.detach().amin() + form.column_bias.detach().amin())  # infinite: it is refused as it is
    bad = LOST / torch.finfo(z.dtype).eps
    if any_entry(lambda t: (t > bad) & t.isfinite(), reach, scanned=False, unseen=True):
        return _gaussian(float64(z), float64(z_prime), move, whiten)
    return form


def _inner_product(q: Tensor, k: Tensor) -> LinearForm:
    a, b = q.detach().mean(0), k.detach().mean(0)
    q, k = q - a, k - b
    return LinearForm(q, k, row_bias=q @ b + a @ b, column_bias=k @ a)


def _log_parameter(name: str, value: float, learnable: bool) -> nn.Parameter:
    check_positive(name, value)
    if not 1e-37 < value < 1e37:
        raise ValueError(f"{name} is {value}; expected a number from 1e-37 to 1e37, which float32 can hold")
    return nn.Parameter(torch.tensor(math.log(value)), requires_grad=learnable)


def _described(name: str, log_value: Tensor) -> str:
    value = "?" if log_value.is_meta else f"{log_value.exp().item():.4g}"
    return f"{name}={value}, learnable={log_value.requires_grad}"


def _checked(z: Tensor, z_prime: Tensor, matrix: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Both as autograd can save them; `matrix` is a parameter that z is multiplied with, if the critic has one."""
    for name, side in (("z", z), ("z_prime", z_prime)):
        check_latents(name, side)
    check_alike("z", z, "z_prime", z_prime)
    if z.shape[1] != z_prime.shape[1]:
        raise ValueError(
            f"z has shape {shape_of(z)} and z_prime {shape_of(z_prime)}; expected the same number of columns"
        )
    if matrix is not None:
        check_alike("z", z, "critic", matrix)
    if matrix is not None and z.shape[1] != matrix.shape[1]:
        raise ValueError(
            f"z has shape {shape_of(z)}; this critic was made for {matrix.shape[1]} dimensions, expected (n, {matrix.shape[1]})"
        )
    return saveable(z), saveable(z_prime)
