"""Critics: the geometry of a prior as an `nn.Module` that scores every z against every z' (E18).

Each maps z of shape (n, d) and z' of shape (m, d) to log_f of shape (n, m); an entry depends on its own z and z' alone.
What a constructor names is a learnable parameter (`learnable=False` fixes it); what must be positive is kept as its logarithm.
All raise `ValueError` for NaN and infinities in the latents or the scores, mixed dtypes, and unequal numbers of columns.

A critic of your own is any `nn.Module` whose `forward(z, z_prime)` returns that table. If its scores are inner products, make it a
`LinearCritic` and write `linear_form` instead of `forward`: `dataset_evidence` then takes a faster way.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._checks import any_entry, check_alike, check_latents, check_number, check_positive, check_scores, shape_of
from ._log_space import at_least_float32, float64, full_precision, saveable

Scale: TypeAlias = float | Sequence[float] | Tensor  # one number, or one for each dimension
LOST = 0.01  # nats that a score may lose to rounding before it is computed in float64


class LinearForm(NamedTuple):
    """A table of scores as inner products: log_f_ij = q_i . k_j + row_bias_i + column_bias_j.

    q has shape (n, k), k (m, k), row_bias (n) and column_bias (m); a bias of None is 0. A walk's may be in float64, where
    float32 would lose digits, and then on the processor if the device (MPS) has no float64.
    """

    q: Tensor
    k: Tensor
    row_bias: Tensor | None = None
    column_bias: Tensor | None = None

    def table(self) -> Tensor:
        """log_f, shape (n, m)."""
        with full_precision(self.q.device):
            log_f = self.q @ self.k.T
        log_f = log_f if self.row_bias is None else log_f + self.row_bias[:, None]
        log_f = log_f if self.column_bias is None else log_f + self.column_bias
        check_scores(log_f)
        return log_f


class LinearCritic(nn.Module):
    """A critic whose scores are inner products: write `linear_form`; `forward` is its table.

    A subclass that overrides `forward` all the same is scored by its `forward`, as any other critic.

    Example, log f = z . z' with learnable weights for the dimensions:

        >>> class Weighted(LinearCritic):
        ...     def __init__(self, dim):
        ...         super().__init__()
        ...         self.weight = nn.Parameter(torch.ones(dim))
        ...     def linear_form(self, z, z_prime):
        ...         return LinearForm(z * self.weight, z_prime)
    """

    def linear_form(self, z: Tensor, z_prime: Tensor) -> LinearForm:
        """The scores as inner products."""
        raise NotImplementedError(
            f"{type(self).__name__} is a LinearCritic without a linear_form; expected that method"
        )

    def forward(self, z: Tensor, z_prime: Tensor) -> Tensor:
        """log_f of shape (n, m), from z of shape (n, d) and z' of shape (m, d)."""
        return self.linear_form(z, z_prime).table().to(z)


class _Walk(nn.Module):
    """z' is z after a random step."""

    def __init__(self, scale: Scale = 1.0, *, learnable: bool = True):
        super().__init__()
        self.log_scale = _log_parameter("scale", scale, learnable)

    @property
    def scale(self) -> Tensor:
        """The size of a step along each axis, 0-dimensional, or of shape (dim,) if each has its own."""
        return self.log_scale.exp()

    def extra_repr(self) -> str:
        scale = f"dim={len(self.log_scale)}" if self.log_scale.dim() else f"scale={self.scale.item():.4g}"
        return f"{scale}, learnable={self.log_scale.requires_grad}"


class RandomWalk(_Walk, LinearCritic):
    """log f = -|z - z'|^2 / (2 scale^2): z' is z after a Gaussian step of standard deviation `scale`. Source: (E18).

    `scale` may be one for each dimension, as AnInfoNCE learns them (arXiv 2407.00143).

    The square is multiplied out, which loses digits where latents spread over many scales. Beyond some 200 of them float32
    would be off by 0.01 nats, so the products are taken in float64, which is as good up to five million. In torch.compile
    and vmap, which cannot look at the spread, they always are.
    """

    def linear_form(self, z: Tensor, z_prime: Tensor) -> LinearForm:
        z, z_prime = _latents(z, z_prime, *self.log_scale.shape)
        return _gaussian(z, z_prime, lambda z: z, lambda step: step / self.scale.to(step))


class LaplaceWalk(_Walk):
    """log f = -|z - z'|_1 / scale: z' is z after a step along the axes, of mean size `scale`, mostly small. Source: (E18)."""

    def forward(self, z: Tensor, z_prime: Tensor) -> Tensor:
        """log_f of shape (n, m), from z of shape (n, d) and z' of shape (m, d)."""
        z, z_prime = _latents(z, z_prime, *self.log_scale.shape)
        a, b = at_least_float32(z), at_least_float32(z_prime)  # a processor has no cdist in half precision
        if self.log_scale.dim():  # about their centre: far from 0, the quotients would lose a near pair's digits
            centre = b.detach().mean(0)
            log_f = -torch.cdist((a - centre) / self.scale, (b - centre) / self.scale, p=1)
        else:
            log_f = -torch.cdist(a, b, p=1) / self.scale
        log_f = log_f.to(z.dtype)
        check_scores(log_f)
        return log_f


class VonMisesFisher(LinearCritic):
    """log f = cos(z, z') / temperature, on the sphere: the critic of SimCLR and CLIP. Source: (E18), kappa = 1/temperature.

    CLIP's clamp, 1 / temperature at most 100, is no part of it, but of the steps: see the example of `Trainer`.
    """

    def __init__(self, temperature: float = 0.1, *, learnable: bool = True):
        super().__init__()
        self.log_temperature = _log_parameter("temperature", check_number("temperature", temperature), learnable)

    @property
    def temperature(self) -> Tensor:
        """1 / kappa, 0-dimensional."""
        return self.log_temperature.exp()

    def extra_repr(self) -> str:
        return f"temperature={self.temperature.item():.4g}, learnable={self.log_temperature.requires_grad}"

    def linear_form(self, z: Tensor, z_prime: Tensor) -> LinearForm:
        z, z_prime = _latents(z, z_prime)
        return LinearForm(_direction(z) / self.temperature, _direction(z_prime))


class LinearDynamics(LinearCritic):
    """log f = -1/2 (z' - Az)^T Lambda (z' - Az): z' follows from z by a linear map and a Gaussian step. Source: (E18).

    A starts at the identity unless it is given, and the step with standard deviation `scale`, one or one for each dimension.
    Lambda = R^T R with R upper triangular and a positive diagonal, so it is positive definite.
    """

    def __init__(self, dim: int, *, A: Tensor | None = None, scale: Scale = 1.0):
        super().__init__()
        start = torch.eye(dim) if A is None else torch.as_tensor(A, dtype=torch.get_default_dtype()).clone()
        log_scale = _log_parameter("scale", scale, False)
        if start.shape != (dim, dim) or log_scale.shape not in ((), (dim,)):
            found = f"A has shape {shape_of(start)} and scale {shape_of(log_scale)}"
            raise ValueError(f"{found}; expected ({dim}, {dim}), and one number or {dim}")
        self.A = nn.Parameter(start)
        self.log_diagonal = nn.Parameter(-log_scale.expand(dim).clone())
        self.off_diagonal = nn.Parameter(torch.zeros(dim, dim))

    @property
    def precision_root(self) -> Tensor:
        """R, shape (dim, dim)."""
        return self.off_diagonal.triu(1) + self.log_diagonal.exp().diag()

    def extra_repr(self) -> str:
        return f"dim={self.A.shape[1]}"

    def linear_form(self, z: Tensor, z_prime: Tensor) -> LinearForm:
        z, z_prime = _latents(z, z_prime, len(self.A))
        R = self.precision_root
        return _gaussian(z, z_prime, lambda z: z @ self.A.T.to(z), lambda step: step @ R.T.to(step))


class Bilinear(LinearCritic):
    """log f = z^T W z': the critic of CPC. W, shape (dim, dim_prime or dim), starts at the identity. Source: (E18)."""

    def __init__(self, dim: int, dim_prime: int | None = None):
        super().__init__()
        self.W = nn.Parameter(torch.eye(dim, dim_prime or dim))

    def extra_repr(self) -> str:
        return widths(*self.W.shape)

    def linear_form(self, z: Tensor, z_prime: Tensor) -> LinearForm:
        z, z_prime = _latents(z, z_prime, *self.W.shape)
        return _inner_product(z @ self.W, z_prime)


class Universal(LinearCritic):
    """log f = a(z) . b(z'): a separable critic, each side with a network of its own. Source: (E18).

    With enough width and features it comes close to any log f, so to the optimal prior and the MI. It stays an inner
    product, unlike a network of the pair (z, z'), and so `dataset_evidence` is fast. `dim_prime`: the width of z'.
    """

    def __init__(self, dim: int, dim_prime: int | None = None, *, width: int = 128, features: int = 32):
        super().__init__()
        self.widths = dim, dim_prime or dim
        self.a, self.b = (
            nn.Sequential(
                nn.Linear(side, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, features)
            )
            for side in self.widths
        )

    def extra_repr(self) -> str:
        return widths(*self.widths)

    def linear_form(self, z: Tensor, z_prime: Tensor) -> LinearForm:
        z, z_prime = _latents(z, z_prime, *self.widths)
        return _inner_product(self.a(z), self.b(z_prime))


class WithBias(nn.Module):
    """log f + a learnable constant, 0 at first: for objectives that see the level of log f, which the critics here cannot set.

    Those are NWJ (E10) and in `estimators` JS, SigLIP, SMILE, PC, DRF and the anchor; InfoNCE and DV are blind to it. At its
    best, NWJ is DV. Example: `rpm.WithBias(rpm.RandomWalk(0.3))`.
    """

    def __init__(self, critic: nn.Module):
        super().__init__()
        check_is_module(critic)
        self.critic, self.bias = critic, nn.Parameter(torch.zeros(()))

    def forward(self, z: Tensor, z_prime: Tensor) -> Tensor:
        """log_f of shape (n, m), from z of shape (n, d) and z' of shape (m, d)."""
        log_f = self.critic(z, z_prime)
        return log_f + self.bias.to(log_f.dtype)


# What every critic has to be


def check_is_module(critic) -> None:
    """Raise `TypeError` for a plain function: the tensors that it captures would get no gradient."""
    if not isinstance(critic, nn.Module):
        raise TypeError(
            f"the critic is a {type(critic).__name__}; expected an nn.Module, whose parameters can be found: "
            "put the function into a module's forward"
        )


def scores(critic: Callable[[Tensor, Tensor], Tensor], z: Tensor, z_prime: Tensor) -> Tensor:
    """The critic's table, of shape (n, m)."""
    log_f = critic(z, z_prime)
    if not isinstance(log_f, Tensor):
        raise TypeError(
            f"the critic returned a {type(log_f).__name__}; expected one torch.Tensor of shape ({len(z)}, {len(z_prime)}): "
            "return the table of scores alone"
        )
    if log_f.shape != (len(z), len(z_prime)):
        raise ValueError(
            f"the critic returned shape {shape_of(log_f)} for z {shape_of(z)} and z_prime {shape_of(z_prime)}; "
            f"expected ({len(z)}, {len(z_prime)}), one score per pair: rows z, columns z_prime"
        )
    return log_f


def in_training_mode(critic: nn.Module) -> str | None:
    """The first part of the critic that scores otherwise in training mode, and is in it: what it is, in words."""
    for name, module in critic.named_modules():
        if module.training and isinstance(module, (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)):
            return f"{name or 'module'} is a {type(module).__name__} in training mode"
    return None


def change_between_calls(critic: Callable[[Tensor, Tensor], Tensor], z: Tensor, z_prime: Tensor) -> str | None:
    """What two calls on the same latents show of a critic that is not fixed, in words."""
    tables, drew = [], []
    with torch.no_grad():
        for _ in range(2):
            before = _global_states(z.device)
            tables.append(scores(critic, z, z_prime).clone())
            drew.append(any(not torch.equal(*states) for states in zip(before, _global_states(z.device))))
    off = distance(*tables)
    if any_entry(lambda t: t > table_rounding(tables[0]), off, scanned=False):
        return f"two calls differ by up to {off.max().item():.2g}"
    return "each call draws from torch's global generator" if all(drew) else None  # another thread may have drawn once


def distance(table: Tensor, other: Tensor) -> Tensor:
    """|table - other|: 0 for equal infinities and where both are NaN, infinite where one is."""
    same = (table == other) | (table.isnan() & other.isnan())
    return (table - other).abs().masked_fill(same, 0).nan_to_num(torch.inf)


def table_rounding(table: Tensor) -> Tensor:
    """A thousand times the rounding of scores of this size, far below what any other pair would change; 0-dimensional."""
    size = table.detach().masked_fill(~table.isfinite(), 0).abs().max()
    return 1e3 * torch.finfo(table.dtype).eps * size.clamp(min=1)


def _global_states(device: torch.device) -> list[Tensor]:
    """The states of torch's global generators that a critic on this device may draw from."""
    if device.type == "cuda":
        return [torch.get_rng_state(), torch.cuda.get_rng_state(device)]
    of_device = getattr(getattr(torch, device.type, None), "get_rng_state", None)
    return [torch.get_rng_state(), *([of_device()] if of_device else [])]


# Forms of the critics above. Both are centred, which changes no score: far from 0 the products would be large and cancel,
# and their digits would be lost.


def _gaussian(
    z: Tensor, z_prime: Tensor, move: Callable[[Tensor], Tensor], whiten: Callable[[Tensor], Tensor]
) -> LinearForm:
    """-|whiten(move(z_i) - z'_j)|^2 / 2, by multiplying the square out, at least in float32; both maps are linear.

    A near pair is the small difference of large squares. Where they may be off by LOST nats, float64 takes over.
    """
    z, z_prime = at_least_float32(z), at_least_float32(z_prime)
    with full_precision(z.device):
        centre = z_prime.detach().mean(0)
        q, k = whiten(move(z) - centre), whiten(z_prime - centre)
        row_bias, column_bias = q.square().sum(1) / -2, k.square().sum(1) / -2
    form = LinearForm(q, k, row_bias, column_bias)
    if z.dtype == torch.float64:
        return form
    reach = -2 * (row_bias.detach().amin() + column_bias.detach().amin())  # if infinite, it is refused later
    bad = LOST / torch.finfo(z.dtype).eps
    if any_entry(lambda t: (t > bad) & t.isfinite(), reach, scanned=False, unseen=True):
        return _gaussian(float64(z), float64(z_prime), move, whiten)
    return form


def _inner_product(q: Tensor, k: Tensor) -> LinearForm:
    a, b = q.detach().mean(0), k.detach().mean(0)
    q, k = q - a, k - b
    return LinearForm(q, k, row_bias=q @ b + a @ b, column_bias=k @ a)


def _direction(side: Tensor) -> Tensor:
    """Each row divided by its length; a row of zeros stays one."""
    return F.normalize(at_least_float32(side), dim=1).to(side.dtype)


def _log_parameter(name: str, value: Scale, learnable: bool) -> nn.Parameter:
    values = torch.as_tensor(value, dtype=torch.float64, device="cpu")
    if values.dim() > 1:
        raise ValueError(f"{name} has shape {shape_of(values)}; expected one number, or one for each dimension")
    for each in values.view(-1).tolist():
        check_positive(name, each)
    return nn.Parameter(torch.tensor(values.log().tolist()), requires_grad=learnable)  # on torch's default device


def widths(dim: int, dim_prime: int) -> str:
    return f"dim={dim}" if dim == dim_prime else f"dim={dim}, dim_prime={dim_prime}"


def _latents(z: Tensor, z_prime: Tensor, dim: int | None = None, dim_prime: int | None = None) -> tuple[Tensor, Tensor]:
    """Both, checked, and as autograd can save them; of `dim` columns, if the critic was made for so many."""
    check_latents("z", z)
    check_latents("z_prime", z_prime)
    check_alike("z", z, "z_prime", z_prime)
    columns = dim or z.shape[1], dim_prime or dim or z.shape[1]
    if (z.shape[1], z_prime.shape[1]) != columns:
        expected = (
            f"{columns[0]} and {columns[1]} columns, as the critic was made" if dim else "the same number of columns"
        )
        raise ValueError(f"z has shape {shape_of(z)} and z_prime {shape_of(z_prime)}; expected {expected}")
    return saveable(z), saveable(z_prime)
