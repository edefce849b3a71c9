"""The objectives: each a function of a table of scores `log_f` and the aggregate joint `q_joint`, in nats per pair.

Nothing else enters, because the recognition densities cancel (E4). So one function serves three worlds:

| world          | log_f (rows z, columns z')   | q_joint            | infonce(log_f, q_joint).value is          |
|----------------|------------------------------|--------------------|-------------------------------------------|
| finite, exact  | the scores of all (z, z')    | the table Q(z,z')  | I_inf = L - C, exactly (E7)               |
| a data set     | the scores of N encoded pairs| None: 1/N a pair   | (1/N) sum log P(x_i,x'_i) + 2 log N (E14) |
| a mini-batch   | the scores of B encoded pairs| None: 1/B a pair   | an estimate of I_inf, at most log B (E15) |

All are maximised. They share their arguments: `log_f` has shape (n, m), `-inf` where f = 0; `q_joint` has the same
shape, dtype and device, is non-negative and sums to one; `None` means that row i and column i are a pair (n = m).
A column without mass is no candidate, as a z' that nothing reaches; a queue's are, and a table that hides one is refused.
Half precision, as autocast gives, is computed in float32 and rounded once.
All raise `ValueError` for NaN, +inf, a wrong shape, mixed dtypes or devices, weights that are no distribution, and
for a z that Q reaches while Z(z) = 0.
"""

import math
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from ._checks import any_entry, check_alike, check_distribution, check_log_table, rounding, shape_of
from ._log_space import accumulation_dtype, at_least_float32, expectation, log


class Objective(NamedTuple):
    """An objective and its two terms, 0-dimensional tensors in nats per pair: value = score - log_normaliser.

    The value is a mean of differences, pair by pair, which keeps digits that those of the means would lose: so the three
    add up to the rounding of the terms.
    """

    value: Tensor
    score: Tensor
    log_normaliser: Tensor


def infonce(log_f: Tensor, q_joint: Tensor | None = None) -> Objective:
    """InfoNCE: the ELBO, up to C, under the prior P(z) = Q(z), P(z'|z) = Q(z') f(z,z') / Z(z). Source: (E7)."""
    pairs = Pairs.of(log_f, q_joint)
    log_Z = pairs.log_mean_f(over="z'")
    return pairs.objective(log_Z)


def symmetric_infonce(log_f: Tensor, q_joint: Tensor | None = None) -> Objective:
    """The symmetric (CLIP) objective: the mean of InfoNCE normalised over z' and over z. Source: (E12)."""
    pairs = Pairs.of(log_f, q_joint)
    return pairs.objective(pairs.log_mean_f(over="z'"), pairs.log_mean_f(over="z"))


def donsker_varadhan(log_f: Tensor, q_joint: Tensor | None = None) -> Objective:
    """Donsker-Varadhan (MINE): the ELBO, up to C, under the jointly normalised prior Q(z)Q(z') f / Z. Source: (E9)."""
    pairs = Pairs.of(log_f, q_joint)
    return pairs.objective(pairs.log_mean_f(over="both"))


def nwj(log_f: Tensor, q_joint: Tensor | None = None) -> Objective:
    """NWJ: the ELBO, up to C, under the unnormalised prior Q(z)Q(z') f / e and the generalised KL. Source: (E10).

    In the place of log Z stands its tangent at Z = e, which lies above it: `log_normaliser` = Z / e. So it sees the level of
    log f, and a critic without an additive constant cannot serve it: `rpm.WithBias(critic)` can, and is DV at its best.
    """
    pairs = Pairs.of(log_f, q_joint)
    log_Z = sum(pairs.log_mean_f(over="both"))
    return pairs.objective([(log_Z - 1).exp()])


def barber_agakov(log_p: Tensor, q_joint: Tensor | None = None) -> Objective:
    """Barber-Agakov: the ELBO, up to C, under P(z) = Q(z) and a conditional prior of your own. Source: (E11).

    `log_p` holds log P(z'|z), each row a normalised distribution over z'; `ValueError` if one is not.
    Here `log_normaliser` = E log Q(z'), minus the entropy of z'.
    """
    pairs = Pairs.of(log_p, q_joint, name="log_p")
    sums = pairs.scores.detach().exp().sum(1)
    if any_entry(lambda t: ~((t - 1).abs() <= rounding(log_p)), sums):
        worst = (sums - 1).abs().argmax()
        raise ValueError(
            f"row {worst} of exp(log_p) sums to {sums[worst].item():.10g}; expected 1, "
            "a distribution over z' for each z: call log_p.log_softmax(1)"
        )
    return pairs.objective([pairs.log_marginal(1)])


def mutual_information(q_joint: Tensor) -> Tensor:
    """The mutual information I_Q(z;z') of the table Q(z,z'), in nats; it is L - C under the optimal prior. Source: (E6).

    `q_joint` has shape (n, m), is non-negative and sums to one; `ValueError` otherwise.
    """
    check_distribution("q_joint", q_joint)
    q = at_least_float32(q_joint)
    dependency = log(q) - log(q.sum(1, keepdim=True)) - log(q.sum(0))
    return expectation(dependency, q).to(q_joint.dtype)


def rounded(value: Tensor, score: Tensor, log_normaliser: Tensor, dtype: torch.dtype) -> Objective:
    """An objective whose parts are rounded to the dtype at the end."""
    return Objective(*(part.to(dtype) for part in (value, score, log_normaliser)))


class Pairs(NamedTuple):
    """Scores (n, m), at least float32, beside the distribution of their pairs; None: row i and column i are one, 1/n each.

    A normaliser is given as terms that broadcast to (n, m) and add up to log Z: its largest score first, and the rest apart,
    since their sum would lose the rest's digits.
    """

    scores: Tensor
    q_joint: Tensor | None
    dtype: torch.dtype  # of log_f

    @classmethod
    def of(cls, log_f: Tensor, q_joint: Tensor | None, *, name: str = "log_f") -> "Pairs":
        """After the checks that all objectives share."""
        check_log_table(name, log_f)
        n, m = log_f.shape
        if q_joint is None:
            if n != m:
                raise ValueError(
                    f"{name} has shape ({n}, {m}); expected (n, n) with one row per z and one column per z', pairs on the "
                    f"diagonal. For a distribution over another shape pass q_joint. {_queue(name)}"
                )
            return cls(at_least_float32(log_f), None, log_f.dtype)
        check_distribution("q_joint", q_joint)
        if q_joint.shape != log_f.shape:
            raise ValueError(
                f"q_joint has shape {shape_of(q_joint)} and {name} {shape_of(log_f)}; expected the same, rows z, columns z'"
            )
        check_alike(name, log_f, "q_joint", q_joint)
        if m > n > 1 and any_entry(_is_a_pairing, q_joint):
            raise ValueError(
                f"q_joint pairs each of the {n} rows with a column of its own and gives the other {m - n} no mass, so they "
                f"would be no candidates. {_queue(name)}; to leave them out, let kept = q_joint.sum(0) > 0 and give "
                f"{name}[:, kept] and q_joint[:, kept]"
            )
        return cls(at_least_float32(log_f), at_least_float32(q_joint), log_f.dtype)

    @property
    def weights(self) -> Tensor:
        """Q(z,z') of the `cells`."""
        if self.q_joint is not None:
            return self.q_joint
        n, device = len(self.scores), self.scores.device
        return torch.full(
            (n,), 1 / n, dtype=accumulation_dtype(device), device=device
        )  # which add up to 1 to float32's last digit

    def cells(self, values: Tensor) -> Tensor:
        """Of values that broadcast to (n, m), all, or of a batch those of its pairs, shape (n,)."""
        return values if self.q_joint is not None else values.expand_as(self.scores).diagonal()

    def log_marginal(self, dim: int) -> Tensor:
        """log Q(z), shape (n, 1), for dim 0; log Q(z'), shape (1, m), for dim 1."""
        if self.q_joint is None:
            return self.scores.new_full((1, 1), -math.log(len(self.scores)))
        return log(self.q_joint.sum(1 - dim, keepdim=True))

    def log_mean_f(self, *, over: str) -> list[Tensor]:
        """log E_Q(z') f for each z, over "z'"; log E_Q(z) f for each z', over "z"; or log E_Q(z)Q(z') f, over "both"."""
        if over == "both":
            largest, rest = self.log_mean_f(over="z'")
            log_q = self.log_marginal(0)
            most = largest.masked_fill(log_q.isneginf(), -torch.inf).amax(0, keepdim=True)
            return [most, (largest - most + rest + log_q).logsumexp(0, keepdim=True)]
        dim, side = (1, "row") if over == "z'" else (0, "column")
        scores, log_q = self.scores, self.log_marginal(dim)
        if self.q_joint is not None:
            scores = scores.masked_fill(log_q.isneginf(), -torch.inf)
            scores = scores.masked_fill(self.log_marginal(1 - dim).isneginf(), 0)  # of no mass: it counts nowhere
        largest = scores.detach().amax(dim, keepdim=True)
        if any_entry(torch.isneginf, largest):
            raise ValueError(
                f"{side} {int(largest.isneginf().flatten().nonzero()[0])} of log_f is -inf wherever its candidates have mass, "
                "so its normaliser is 0; expected f > 0 somewhere. Likely cause: a mask that hides all candidates of a "
                f"{side}"
            )
        scores = scores - largest
        if self.q_joint is None:
            return [largest, scores.exp().sum(dim, keepdim=True).log() + log_q]
        return [largest, (scores + log_q).logsumexp(dim, keepdim=True)]

    def objective(self, *normalisers: list[Tensor]) -> Objective:
        """E_Q(z,z') [log f - log Z] and its two terms; of several normalisers, the mean."""
        log_f = self.cells(self.scores)
        parts = [[self.cells(part) / len(normalisers) for part in log_Z] for log_Z in normalisers]
        differences = sum(reduce(torch.sub, log_Z, log_f / len(normalisers)) for log_Z in parts)
        together = torch.broadcast_tensors(differences, log_f, sum(map(sum, parts)))
        return rounded(*expectation(torch.stack(together), self.weights), self.dtype)


def _is_a_pairing(q_joint: Tensor) -> Tensor:
    """Whether each row has 1/n in one cell, in a column that no other row has."""
    rows = len(q_joint) * q_joint.amax(1)
    return (rows - 1).abs().amax() + (q_joint.amax(0).sum() - 1).abs() <= rounding(q_joint)


def _queue(name: str) -> str:
    return (
        "For a queue of negatives (MoCo), all of whose m columns are candidates, take math.log(m) - "
        f"F.cross_entropy({name}, torch.arange(n, device={name}.device))"
    )
