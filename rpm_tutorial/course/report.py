"""What embeddings are worth in nats, and under which prior: `rpm.report` of the pairs that a model of yours made."""

import hashlib
import math
import mmap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from scipy.stats import entropy
from torch import Tensor, nn
from tqdm.auto import tqdm

from .._checks import check_latents, seeded
from .._log_space import at_least_float32, float64
from ..critics import LaplaceWalk
from ..evidence import dataset_evidence, label_names
from ..labelled_evidence import label_evidence
from ._fits import AT_END, FITS, WORK, log_p_and_rank, some_rows
from .environment import pick_device

LEAST = 128  # pairs: half to fit the critic, half to score
ROWS = 4096  # pairs whose rank is looked up among all candidates: to .8 % or better


@dataclass(frozen=True)
class CriticScore:
    """What the held-out pairs are worth under one critic, in nats per pair.

    `setting` is what was fitted. `standard_error` is that of both numbers over pairs. `top_1` is the share of pairs whose own
    x' scores highest of all n, `median_rank` its place (1 is best). `rows` are the pairs scored, all n if not said otherwise.
    """

    critic: str
    setting: str
    infonce: float
    log_evidence: float
    standard_error: float
    top_1: float
    median_rank: float
    rows: int


@dataclass(frozen=True)
class Report:
    """The held-out evidence of pairs of embeddings under several priors; print it, or take `.scores`, `.to_dict()`, `.plot()`.

    Of N pairs, `fitted` chose each critic's parameters and `n` others were scored. `label` and `instance` are the two parts
    of InfoNCE (E24) under the critic `split`, the best of those that scored all n, if labels were given; `label_entropy` is
    the most that `label` can be.
    """

    n: int
    fitted: int
    dim: int
    effective_dim: float
    scores: tuple[CriticScore, ...]
    label: float | None = None
    instance: float | None = None
    label_entropy: float | None = None
    split: str | None = None
    notes: tuple[str, ...] = ()
    critics: dict[str, nn.Module] = field(default_factory=dict, repr=False, compare=False)

    @property
    def best(self) -> CriticScore:
        """The critic with the most evidence."""
        return max(self.scores, key=lambda score: score.infonce)

    @property
    def ceiling(self) -> float:
        """log n, the most that InfoNCE can be."""
        return math.log(self.n)

    def to_dict(self) -> dict:
        """All numbers, as JSON takes them."""
        parts = {name: value for name, value in vars(self).items() if name not in ("scores", "critics")}
        scores = [asdict(score) for score in self.scores]
        return parts | {"ceiling": self.ceiling, "best": self.best.critic, "scores": scores}

    def plot(self):
        """InfoNCE under each critic, with its standard error, below the ceiling log n: a figure of `rpm.figures`."""
        from . import figures

        values = {f"{score.critic} ({score.setting})": score.infonce for score in self.scores}
        return figures.dots(
            values | {"log N": self.ceiling},
            x_label="InfoNCE in nats per pair",
            caption=(
                f"What {self.n} held-out pairs are worth under each prior. 0 is chance, log N the most that {self.n} pairs "
                f"can show; the standard error of a dot is {max(score.standard_error for score in self.scores):.3f} nats or less."
            ),
            digits=3,
        )

    def __str__(self) -> str:
        best, lines = self.best, []
        lines.append(f"pairs          N = {self.n} scored; {self.fitted} others fitted the critics")
        lines.append(f"embeddings     {self.dim} dimensions, of which {self.effective_dim:.1f} are used")
        lines.append(f"chance         InfoNCE 0; log evidence {-2 * self.ceiling:.3f} = -2 log N; top-1 1 in {self.n}")
        lines.append(
            f"ceiling        InfoNCE {self.ceiling:.3f} = log N; {best.critic} is {self.ceiling - best.infonce:.3f} below"
        )
        lines.append("")
        lines.append("critic            fitted                 InfoNCE  log evidence  std. error    top-1  median rank")
        for s in sorted(self.scores, key=lambda s: -s.infonce):
            lines.append(
                f"{s.critic:<17} {s.setting:<20} {s.infonce:9.3f} {s.log_evidence:13.3f} {s.standard_error:11.3f} "
                f"{s.top_1:8.2%} {s.median_rank:12g}" + ("" if s.rows == self.n else f"  ({s.rows} pairs)")
            )
        lines.append("All in nats per pair; the evidence is InfoNCE - 2 log N.")
        if self.label is not None:
            lines += [
                "",
                f"label nats     {self.label:.3f} of at most {self.label_entropy:.3f}: what tells labels apart",
                f"instance nats  {self.instance:.3f}: what tells pairs of one label apart ({self.split})",
            ]
        lines += ["", *(f"note: {note}" for note in self.notes)]
        return "\n".join(lines)


@torch.no_grad()
def report(
    z: Tensor | np.ndarray,
    z_prime: Tensor | np.ndarray,
    labels: Tensor | Sequence | None = None,
    *,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> Report:
    """The held-out evidence of N pairs of embeddings, row by row, under four priors. Source: (E14), (E18), (E24).

    A random half of the pairs fits each critic (temperature, scale, or matrix), the other half is scored: exactly, but for
    the Laplace walk of many pairs, whose normalisers are exact and whose mean is over some of them.

    Args:
        z, z_prime: shape (N, d), as an encoder gave them for x and x'; arrays (also memory-mapped) or tensors. Half
            precision is computed in float32.
        labels: one a pair; then the evidence is split into its part of the label and the rest.
        seed: of the split and of the bilinear critic's batches.
        device: where to compute; by default CUDA where there is one.
    Raises:
        ValueError: fewer than 128 pairs, NaN or inf, sides of different shapes, embeddings that are all alike, an unknown device.

    Example:
        >>> found = rpm.report(np.load("image.npy"), np.load("text.npy"))
        >>> print(found)
        >>> found.best.infonce, found.best.setting
    """
    z, z_prime, names = _checked(z, z_prime, labels)
    chosen = pick_device(None if device is None else str(device))
    fit_half, held_out = torch.randperm(len(z), generator=seeded(seed)).tensor_split(2)
    used = min(map(_effective_dim, _half(z, z_prime, held_out, chosen)))  # checked before the work, read again after it
    fit = _half(z, z_prime, fit_half, chosen)
    seen = [set(_digests(side)) for side in fit]
    fits = {name: FITS[name](*fit, seed) for name in tqdm(FITS, "critics", delay=2, leave=False)}
    del fit  # one half at a time is in memory
    pairs = _half(z, z_prime, held_out, chosen)
    scores, log_p = [], {}
    for name, (critic, setting) in tqdm(fits.items(), "evidence of each", delay=2, leave=False):
        score, log_p[name] = _scored(name, setting, critic, *pairs)
        scores.append(score)
    modules = {name: critic for name, (critic, _) in fits.items()}
    parts = {} if names is None else _label_parts(*pairs, names[held_out.numpy()], scores, modules)
    notes = _notes(*pairs, scores, log_p, used, seen)
    return Report(len(held_out), len(fit_half), z.shape[1], used, tuple(scores), **parts, notes=notes, critics=modules)


def _scored(name: str, setting: str, critic: nn.Module, z: Tensor, z_prime: Tensor) -> tuple[CriticScore, Tensor]:
    """Its score, and log P(x'|x) of each pair, NaN where it was not computed."""
    n, rows = len(z), some_rows(critic, z, ROWS, WORK)
    of_rows, rank = log_p_and_rank(critic, z, z_prime, rows)
    if isinstance(critic, LaplaceWalk):
        log_p = torch.full((n,), torch.nan, dtype=torch.float64).index_copy(0, rows.cpu(), float64(of_rows).cpu())
    else:
        log_p = float64(dataset_evidence(z, z_prime, critic, reduction="none").log_evidence).cpu() + math.log(n)
    some = log_p[~log_p.isnan()]
    mean, error = some.mean().item(), some.std().item() / math.sqrt(len(some))
    top_1, median = (rank <= 1).double().mean().item(), rank.median().item()
    return CriticScore(name, setting, mean + math.log(n), mean - math.log(n), error, top_1, median, len(some)), log_p


def _label_parts(
    z: Tensor, z_prime: Tensor, labels: np.ndarray, scores: list[CriticScore], critics: dict[str, nn.Module]
) -> dict:
    """The two parts of the best evidence that is exact, so of all pairs."""
    best = max((score for score in scores if score.rows == len(z)), key=lambda score: score.infonce)
    found = label_evidence(z, z_prime, critics[best.critic], labels.tolist())
    most = float(entropy(np.unique(labels, return_counts=True)[1]))
    return {"label": found.label.item(), "instance": found.instance.item(), "split": best.critic, "label_entropy": most}


# What would make a reader trust the numbers too much


def _notes(
    z: Tensor, z_prime: Tensor, scores: list[CriticScore], log_p: dict[str, Tensor], used: float, seen: list
) -> tuple[str, ...]:
    n, first = len(z), max(scores, key=lambda score: score.infonce)
    notes = ["an encoder that was trained on these pairs knows them: the numbers then speak of memory, too"]
    digests, numbers = {"z": _digests(z), "z_prime": _digests(z_prime)}, {}
    for name, of in digests.items():
        _, which, counts = np.unique(of, return_inverse=True, return_counts=True)
        numbers[name] = counts[which]  # of the rows that equal this one, itself too
    repeated = _counted({name: int((number > 1).sum()) for name, number in numbers.items()}, n)
    if repeated:
        lost = max(np.log(number).mean() for number in numbers.values())
        notes.append(
            f"{repeated} stand more than once: equal ones can't be told apart, so InfoNCE stays at least {lost:.3f} nats "
            "below log N. Where whole pairs are repeated, leave them out"
        )
    known = _counted({name: sum(d in fitted for d in of) for (name, of), fitted in zip(digests.items(), seen)}, n)
    if known:
        notes.append(f"{known} stand in the half that fitted the critics, too: they were not held out")
    lengths = {"z": z.norm(dim=1), "z_prime": z_prime.norm(dim=1)}
    spread = {name: (length.std() / length.mean()).item() for name, length in lengths.items()}
    uneven = {name: f"{part:.0%}" for name, part in spread.items() if part > 0.01}
    if uneven:
        notes.append(
            f"the rows of {' and '.join(uneven)} vary in length by {' and '.join(uneven.values())}: the cosine doesn't see it, "
            "the others do. If your loss divides each row by its length, do the same here: the others may gain much"
        )
    if used < 2 and z.shape[1] > 2:
        notes.append(f"the embeddings use {used:.1f} of {z.shape[1]} dimensions: they have nearly collapsed")
    if math.log(n) - first.infonce < 0.5:
        notes.append(
            f"InfoNCE is within {math.log(n) - first.infonce:.2f} nats of log N = {math.log(n):.2f}: too few pairs for their nats. "
            "More pairs would show more"
        )
    if any(score.setting.endswith(AT_END) for score in scores):
        notes.append(
            f"{AT_END} stands at the end of the range that was searched: at the upper end, the critic knows next to nothing of "
            "these pairs; at the lower, a sharper one would be worth more"
        )
    level = [name for name in log_p if name != first.critic and not _ahead(log_p[first.critic] - log_p[name])]
    if level:
        notes.append(
            f"{', '.join(level)}: less than two standard errors below {first.critic}. These pairs don't choose between them"
        )
    return tuple(notes)


def _counted(rows: dict[str, int], n: int) -> str:
    """How many rows of which side; nothing if there are none."""
    return " and ".join(f"{count} of {n} rows of {name}" for name, count in rows.items() if count)


def _ahead(lead: Tensor) -> bool:
    """Whether the mean over pairs is more than two of its standard errors above 0."""
    lead = lead[~lead.isnan()]
    return bool(lead.mean() > 2 * lead.std() / math.sqrt(len(lead)))


def _digests(side: Tensor) -> list[bytes]:
    """A short name of each row, the same for equal rows."""
    rows = side.cpu().contiguous().view(torch.uint8).numpy()
    return [hashlib.blake2b(row, digest_size=16).digest() for row in rows]


def _effective_dim(z: Tensor) -> float:
    """(sum of the variances)^2 / sum of their squares, along the principal axes."""
    centred = z - z.mean(0)
    covariance = float64(centred.T @ centred / len(z))
    covariance = covariance / covariance.trace()
    return (1 / covariance.square().sum()).item()


def _half(z, z_prime, rows: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Copies of these rows of both sides, in one dtype of at least float32; of a memory-mapped file no others are read."""
    found = []
    for name, side in (("z", z), ("z_prime", z_prime)):
        chosen = side[rows.to(side.device)] if isinstance(side, Tensor) else _native(side[rows.numpy()])
        _forget_pages(side)
        found.append(at_least_float32(chosen).to(device))
        check_latents(name, found[-1])
        if torch.equal(found[-1], found[-1][:1].expand_as(found[-1])):
            raise ValueError(
                f"the rows of {name} are all alike; expected embeddings that differ. Has the encoder collapsed?"
            )
    if torch.equal(*found):
        raise ValueError("z and z_prime are the same; expected the encodings of x and of x', two views of one thing")
    dtype = torch.promote_types(found[0].dtype, found[1].dtype)
    return found[0].to(dtype), found[1].to(dtype)


def _forget_pages(side) -> None:
    """Of a memory-mapped file, let go what was read: it would count as memory of ours until the system needs it."""
    while not isinstance(side, mmap.mmap | None):
        side = getattr(side, "base", None)
    if side is not None and hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
        side.madvise(mmap.MADV_DONTNEED)


def _native(array: np.ndarray) -> Tensor:
    if array.dtype.kind not in "fiub":
        raise ValueError(f"the embeddings are of dtype {array.dtype}; expected numbers")
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))


def _checked(z, z_prime, labels):
    """z, z' and the labels, as arrays or tensors of fitting shapes; what they hold is looked at later, half by half."""
    z, z_prime = (side if isinstance(side, Tensor) else np.asarray(side) for side in (z, z_prime))
    if z.ndim != 2 or z.shape != z_prime.shape:
        raise ValueError(
            f"z has shape {tuple(z.shape)} and z_prime {tuple(z_prime.shape)}; expected the same, (N, d), row i of both a pair. "
            "Two widths: take the outputs of the projections, which the loss compares"
        )
    if len(z) < LEAST:
        raise ValueError(f"there are {len(z)} pairs; expected at least {LEAST}: half fit the critics, half are scored")
    return z, z_prime, None if labels is None else label_names(labels, len(z))
