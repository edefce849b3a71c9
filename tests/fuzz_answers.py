"""What a right answer is, for tests that try anything: by other lines of code, or what must hold of it in any case."""

import copy
import itertools
import math

import numpy as np
import torch
from fuzz import (
    is_close,
    longs,
    size_of,
)
from torch import Tensor, nn

# Right answers, by other lines of code: numpy's long double, sums written out.


def _weights(log_f: np.ndarray, q_joint) -> np.ndarray:
    return np.eye(len(log_f), dtype=np.longdouble) / len(log_f) if q_joint is None else longs(q_joint)[0]


def _mean(table: np.ndarray, weights: np.ndarray) -> np.longdouble:
    return (table[weights > 0] * weights[weights > 0]).sum()


def _log(p: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(p)


def _log_sum(table: np.ndarray, axis=None) -> np.ndarray:
    largest = np.maximum(table.max(axis, keepdims=True), np.finfo(np.longdouble).min / 4)
    return _log(np.exp(table - largest).sum(axis)) + np.squeeze(largest, axis)


def _log_Z(log_f: np.ndarray, q: np.ndarray) -> np.ndarray:
    """0 for a z without mass."""
    masked = np.where(q.sum(1)[:, None] > 0, log_f, 0)
    return _log_sum(masked + _log(q.sum(0)), 1)


def _log_Z_of_all(log_f: np.ndarray, q: np.ndarray) -> np.longdouble:
    with np.errstate(invalid="ignore"):
        return _log_sum(_log_Z(log_f, q) + _log(q.sum(1)))


NORMALISERS = {
    "infonce": lambda log_f, q: _mean(_log_Z(log_f, q), q.sum(1)),
    "symmetric_infonce": lambda log_f, q: (
        _mean(_log_Z(log_f, q), q.sum(1)) / 2 + _mean(_log_Z(log_f.T, q.T), q.sum(0)) / 2
    ),
    "donsker_varadhan": _log_Z_of_all,
    "nwj": lambda log_f, q: np.exp(np.minimum(_log_Z_of_all(log_f, q) - 1, 11_000)),  # within long double
    "barber_agakov": lambda log_f, q: _mean(_log(q.sum(0)), q.sum(0)),
}


def objective(name: str):
    def right(found, arguments):
        table = arguments.get("log_f", arguments.get("log_p"))
        (log_f,) = longs(table)
        q = _weights(log_f, arguments["q_joint"])
        score, log_normaliser = _mean(log_f, q), NORMALISERS[name](log_f, q)
        scale = (
            size_of(log_f)
            if name != "nwj"
            else max(size_of(log_f) * float(min(log_normaliser, 1e4000)), size_of(log_f))
        )
        _both_terms(found, score, log_normaliser, scale, table.dtype)

    return right


def _both_terms(found, score, log_normaliser, scale: float, dtype: torch.dtype) -> None:
    most = 0.9 * torch.finfo(dtype).max
    for part, expected in zip(found, (score - log_normaliser, score, log_normaliser)):
        assert part.dtype == dtype and not part.isnan()
        if part is found[0] and max(abs(score), abs(log_normaliser)) > most:
            continue  # their difference may be rounded to -inf
        is_close(part, expected, scale, dtype)


def _row_means(log_f: np.ndarray, independent: np.ndarray) -> np.ndarray:
    """log E f over the independent cells of each row; 0 for a z without mass."""
    mass = independent.sum(1, keepdims=True)
    shares = np.where(mass > 0, independent / np.where(mass > 0, mass, 1), 1)
    return _log_sum(np.where(mass > 0, log_f, -_log(np.longdouble(log_f.shape[1]))) + _log(shares), 1)


def _of_all(log_f: np.ndarray, independent: np.ndarray) -> np.longdouble:
    return _log_sum(log_f + _log(independent))


def _anchor(log_f: np.ndarray, q: np.ndarray, independent: np.ndarray, arguments: dict) -> tuple:
    """The sum over all choices of candidates from a table, or over the cyclic neighbours of each row of a batch."""
    nu, k, (n, m) = np.longdouble(float(arguments["nu"])), arguments["k"], log_f.shape
    rows, log_nu = np.arange(n), np.full((n, 1), _log(nu))
    with_partner = without = np.longdouble(0)
    if arguments["q_joint"] is None:
        k = (n - (nu > 0)) if k is None else k
        for start, chosen in ((0, True), (1, False)):
            columns = (rows[:, None] + np.arange(start, start + k)) % n
            mean = _log_sum(np.hstack([log_nu, log_f[rows[:, None], columns]]), 1).mean()
            with_partner, without = (mean, without) if chosen else (with_partner, mean)
    else:
        for columns in itertools.product(range(m), repeat=int(k)):
            sums = _log_sum(np.hstack([log_nu, log_f[:, columns]]), 1)
            chance = math.prod(q.sum(0)[list(columns[1:])])
            with_partner = with_partner + _mean(sums, q[:, columns[0]] * chance)
            without = without + _mean(sums, independent[:, columns[0]] * chance)
    log_normaliser = k / (k + nu) * with_partner + (nu / (k + nu) * without if nu > 0 else 0) - np.log(k + nu)
    return k / (k + nu) * _mean(log_f, q), log_normaliser


def _logistic(log_f: np.ndarray, q: np.ndarray, independent: np.ndarray, arguments: dict) -> tuple:
    log_mean = np.maximum(log_f, 0) + np.log1p(np.exp(-np.abs(log_f))) - np.log(np.longdouble(2))
    return _mean(log_f, q) / 2, _mean(log_mean, q) / 2 + _mean(log_mean, independent) / 2


def _clipped(log_f: np.ndarray, q: np.ndarray, independent: np.ndarray, arguments: dict) -> tuple:
    clip = float(arguments.get("clip", 5.0))
    clip = clip if math.isinf(clip) else min(clip, torch.finfo(arguments["log_f"].dtype).max)
    return _mean(log_f, q), _of_all(np.clip(log_f, -clip, clip), independent)


def _exp(x: np.longdouble) -> np.longdouble:
    return np.exp(np.minimum(x, 11_000))  # within long double


ESTIMATES = {
    "jensen_shannon": _logistic,
    "density_ratio_fitting": lambda log_f, q, independent, _: (
        _mean(_exp(log_f), q),
        _mean(_exp(2 * log_f), independent) / 2 + np.longdouble(0.5),
    ),
    "plug_in": lambda log_f, q, *_: (_mean(log_f, q), np.longdouble(0)),
    "smile": _clipped,
    "anchor": _anchor,
    "unpaired infonce": lambda log_f, q, independent, _: (
        _mean(log_f, q),
        _mean(_row_means(log_f, independent), independent.sum(1)),
    ),
    "unpaired donsker_varadhan": lambda log_f, q, independent, _: (_mean(log_f, q), _of_all(log_f, independent)),
    "unpaired nwj": lambda log_f, q, independent, _: (_mean(log_f, q), _exp(_of_all(log_f, independent) - 1)),
    "read by nwj": lambda log_f, q, independent, _: (1 + _mean(log_f, q), _exp(_of_all(log_f, independent))),
}


def estimate(name: str = ""):
    """The estimate of this name, or of the one that is among the arguments; and a gradient without NaN."""

    def right(found, arguments):
        table, q_joint = arguments["log_f"], arguments["q_joint"]
        (log_f,), n = longs(table), len(table)
        q = _weights(log_f, q_joint)
        independent = np.outer(q.sum(1), q.sum(0))
        if q_joint is None and n > 1:
            independent = (1 - np.eye(n, dtype=np.longdouble)) / (n * (n - 1))
        key = name or arguments["name"]
        score, log_normaliser = ESTIMATES[key](log_f, q, independent, arguments)
        scale = max(size_of(log_f), math.log(max(1.0, arguments.get("nu", 1))))
        if key in ("unpaired nwj", "read by nwj", "density_ratio_fitting"):  # an error of log_f counts e^log_f times
            scale *= max(1.0, *(float(min(abs(part), 1e300)) for part in (score, log_normaliser)))
        _both_terms(found, score, log_normaliser, scale, table.dtype)
        if table.requires_grad and found.value.isfinite():
            assert not torch.autograd.grad(found.value, table)[0].isnan().any(), "NaN in the gradient"

    return right


def surrogate(found, arguments):
    """A finite number, whose gradient is none of NaN."""
    sides = arguments["z"], arguments["z_prime"]
    assert found.shape == () and found.dtype == sides[0].dtype and found.isfinite()
    if moving := [side for side in sides if side.requires_grad]:
        assert not any(slope.isnan().any() for slope in torch.autograd.grad(found, moving))


def prior(name: str):
    def right(found, arguments):
        table = arguments.get("log_f", arguments.get("log_p", arguments["q_joint"]))
        (log_f,) = longs(table)
        q = _weights(log_f, arguments["q_joint"])
        log_q = _log(q.sum(1))[:, None] + _log(q.sum(0))
        expected = {
            "optimal": lambda: _log(q),
            "infonce": lambda: log_q + log_f - _log_Z(log_f, q)[:, None],
            "donsker_varadhan": lambda: log_q + log_f - _log_Z_of_all(log_f, q),
            "nwj": lambda: log_q + log_f - 1,
            "barber_agakov": lambda: _log(q.sum(1))[:, None] + log_f,
        }[name]()
        assert found.dtype == table.dtype
        is_close(found, expected, size_of(log_f, log_q), table.dtype)

    return right


def information(found, arguments):
    (q,) = longs(arguments["q_joint"])
    is_close(
        found, _mean(_log(q), q) - _mean(_log(q.sum(1)), q.sum(1)) - _mean(_log(q.sum(0)), q.sum(0)), 10, found.dtype
    )


def of_world(found, arguments):
    """As in float64, where the course works; elsewhere a number, or -inf where a probability is 0."""
    for part in found if isinstance(found, tuple) else (found,):
        assert not part.isnan().any() and not part.isposinf().any()


def divergence(found, arguments):
    """Infinite where the posterior excludes what the recognition models allow."""
    assert not found.isnan() and found > -1e-3


def _steps(z: Tensor, z_prime: Tensor) -> np.ndarray:
    z, z_prime = longs(z, z_prime)
    return z[:, None] - z_prime


SCORES = {
    "RandomWalk": lambda c, z, zp: -np.square(_steps(z, zp)).sum(2) / 2 / longs(c.scale)[0] ** 2,
    "LaplaceWalk": lambda c, z, zp: -np.abs(_steps(z, zp)).sum(2) / longs(c.scale)[0],
    "Bilinear": lambda c, z, zp: longs(z)[0] @ longs(c.W)[0] @ longs(zp)[0].T,
}


def _reach(z: Tensor, z_prime: Tensor, critic: nn.Module) -> float:
    """How large the terms are whose sum a score is: rounding is relative to them."""
    z, z_prime = longs(z, z_prime)
    scale = float(longs(getattr(critic, "scale", getattr(critic, "temperature", torch.ones(()))))[0])
    return max(1.0, z.shape[1] * 4 * (np.abs(z).max() + np.abs(z_prime).max() + 1) ** 2 / min(scale, 1) ** 2)


def critic_table(found, arguments):
    z, z_prime, critic = (arguments[name] for name in ("z", "z_prime", "critic"))
    assert found.shape == (len(z), len(z_prime)) and found.dtype == z.dtype
    name = type(critic).__name__
    if name in SCORES:
        is_close(found, SCORES[name](critic, z, z_prime), _reach(z, z_prime, critic), z.dtype)
    elif name == "VonMisesFisher":
        a, b = longs(z, z_prime)
        lengths = np.sqrt(np.square(a).sum(1))[:, None] * np.sqrt(np.square(b).sum(1))
        long_enough = (lengths > 0) & (np.abs(a).max(1)[:, None] > 1e-4) & (np.abs(b).max(1) > 1e-4)
        expected = np.where(long_enough, a @ b.T / np.where(lengths > 0, lengths, 1), 0) / longs(critic.temperature)[0]
        kept = torch.from_numpy(long_enough)
        is_close(found.masked_fill(~kept, 0), expected, 1 / float(critic.temperature.detach()), z.dtype)
        assert (found.abs() <= 1.1 / critic.temperature).all()
    else:
        finite_or_impossible(found, arguments)


def finite_or_impossible(found, arguments):
    """A number, or -inf: f = 0."""
    assert found.shape == (len(arguments["z"]), len(arguments["z_prime"])) and found.dtype == arguments["z"].dtype
    assert not found.isnan().any() and not found.isposinf().any()


def encoded(found, arguments):
    assert found.dtype == arguments["x"].dtype and str(found) == str(arguments["x"].detach())


def evidence(found, arguments):
    z, z_prime, critic, n = *(arguments[k] for k in ("z", "z_prime", "critic")), len(arguments["z"])
    assert found.n == n and not any(part.isnan().any() or part.isposinf().any() for part in found[:2])
    assert found.infonce.shape == ((n,) if arguments["reduction"] == "none" else ())
    with torch.no_grad():
        (table,) = longs(copy.deepcopy(critic).double()(z.detach().double(), z_prime.detach().double()))
    rows, columns = (np.diagonal(t) - _log_sum(t, 1) for t in (table, table.T))
    log_p = {"rows": rows, "columns": columns, "both": (rows + columns) / 2}[arguments["normalise"]]
    log_p = log_p if arguments["reduction"] == "none" else log_p.mean()
    dtype = torch.promote_types(z.dtype, torch.float32)
    is_close(found.infonce, log_p + math.log(n), _reach(z, z_prime, critic), dtype)
    is_close(found.log_evidence, log_p - math.log(n), _reach(z, z_prime, critic), dtype)


def split_by_label(found, arguments):
    z, z_prime, critic, labels = (arguments[k] for k in ("z", "z_prime", "critic", "labels"))
    with torch.no_grad():
        (table,) = longs(copy.deepcopy(critic).double()(z.detach().double(), z_prime.detach().double()))
    same = (labels[:, None] == labels).numpy()
    within = np.diagonal(table) - _log_sum(np.where(same, table, -np.inf), 1) + np.log(same.sum(1))
    whole = np.diagonal(table) - _log_sum(table, 1) + math.log(len(z))
    dtype, reach = torch.promote_types(z.dtype, torch.float32), _reach(z, z_prime, critic)
    for part, expected in zip(found, (whole - within, within, whole), strict=True):
        is_close(part, expected.mean(), reach, dtype)


def sampled(found, arguments):
    assert all(math.isfinite(part) for part in found) and found.standard_error >= 0 and found.n == len(arguments["z"])


def same_shape(found, arguments):
    for part in found if isinstance(found, tuple) else (found,):
        first = next(v for v in arguments.values() if isinstance(v, Tensor))
        assert part.shape == first.shape and part.dtype == first.dtype and part.isfinite().all()


def matched(found, arguments):
    assert len({*found.tolist()}) == len(found) == len(arguments["counts"])


def gaussian_pairs(found, arguments):
    for side in found:
        assert side.shape == (arguments["n"], arguments["dim"]) and side.isfinite().all()


def frames(found, arguments):
    assert all(len(part) == arguments["n"] and part.isfinite().all() for part in found)
    assert found.x.shape[-1] == arguments["size"] and 0 <= found.x.min() and found.x.max() <= 1


def module(attribute: str | None = None):
    def right(found, arguments):
        assert isinstance(found, nn.Module) and all(p.isfinite().all() for p in found.parameters())
        if attribute:
            assert math.isclose(getattr(found, attribute).item(), arguments[attribute], rel_tol=1e-3)

    return right
