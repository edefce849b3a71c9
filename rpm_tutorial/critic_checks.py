"""`check_critic`: what every critic of this course has to be, tried on one of yours, and what to do where it is not."""

import copy
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ._checks import seeded, shape_of
from ._log_space import full_precision
from .critics import change_between_calls, check_is_module, distance, in_training_mode, table_rounding, widths
from .evidence import dataset_evidence
from .objectives import symmetric_infonce

N, M = 12, 15  # rows and columns of the table that is tried; unequal, so that exchanged sides are seen
FAR = 1e4  # times a standard normal: latents that an early or a diverging encoder gives


class Check(NamedTuple):
    """One check: `passed` is None where it was not run, because a check that it builds on had failed."""

    name: str
    passed: bool | None
    found: str
    expected: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{ {True: '✓', False: '✗', None: '○'}[self.passed] } {self.name:<11}  {self.found}"
        if self.passed is not False:
            return line
        return f"{line}\n{'':15}expected: {self.expected}\n{'':15}remedy: {self.remedy}"


@dataclass(frozen=True, repr=False)
class CriticReport:
    """What `check_critic` found: `ok` if every check passed. It prints as a list, ✓ passed, ✗ failed, ○ not run."""

    title: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.passed for check in self.checks)

    def __repr__(self) -> str:
        return "\n".join([self.title, *map(str, self.checks)])


def check_critic(
    critic: nn.Module, dim: int, dim_prime: int | None = None, *, seed: int = 0, raise_exception: bool = False
) -> CriticReport:
    """Try a critic on random latents of `dim` dimensions: is it a score of pairs, log f(z,z'), that can be trained?

    The checks, in order; one that builds on a failed one is not run:

    - shape: (n, dim), (m, dim_prime) give (n, m), rows z and columns z', in the dtype of the latents;
    - determinism: two calls agree and draw nothing (no dropout in training mode, no sampling), and leave z and z' as they were;
    - pairing: entry (i, j) depends on z_i and z'_j alone (no softmax, batch norm or mean over the batch inside);
    - finite: no NaN and no +inf, at coincident, zero and far latents too; -inf is legal where f = 0;
    - interaction: log f is no a(z) + b(z'), under which InfoNCE cannot exceed 0;
    - gradient: finite, and reaches z, z' and every parameter that requires one;
    - evidence: `dataset_evidence` and `symmetric_infonce` of the table agree, in value and gradients.

    The critic's parameters, buffers, gradients and mode, and the global random state, are left as they were. Gradients are
    taken under `torch.no_grad` and `torch.inference_mode` too.

    Args:
        critic: from (n, dim), (m, dim_prime) to log_f of shape (n, m). Its own dtype and device are used; of a critic in half
            precision, whose rounding would hide what is looked for, a copy in float32 is tried.
        dim_prime: dimensions of z', if not those of z.
        raise_exception: raise `ValueError` with the printed report unless every check passes.
    Raises:
        TypeError: the critic is no `nn.Module`.

    Example:
        >>> check_critic(RandomWalk(), dim=3).ok
        True
    """
    check_is_module(critic)
    with torch.inference_mode(False), torch.enable_grad():
        report = _report(critic, dim, dim if dim_prime is None else dim_prime, seed)
    if raise_exception and not report.ok:
        raise ValueError(repr(report))
    return report


class _Wrong(Exception):
    """Raised by a check, with two texts: what was found, and what to do."""


def _report(critic: nn.Module, dim: int, dim_prime: int, seed: int) -> CriticReport:
    like = next((p for p in critic.parameters() if p.is_floating_point()), torch.empty(0))
    dtype = str(like.dtype)[6:]
    if like.dtype in (torch.float16, torch.bfloat16):
        critic, like, dtype = copy.deepcopy(critic).float(), like.float(), f"a float32 copy of {dtype}"
    draw = seeded(seed)
    z = torch.randn(N, dim, generator=draw).to(like)
    z_prime = torch.randn(M, dim_prime, generator=draw).to(like)
    if dim == dim_prime:
        z_prime[0] = z[0]  # a pair may coincide
    checks: dict[str, Check] = {}
    for name, (check, expected, needs) in _CHECKS.items():
        unmet = [other for other in needs if not checks[other].passed]
        if unmet:
            checks[name] = Check(name, None, f"not run: mend {' and '.join(unmet)} first")
            continue
        try:
            with _left_as_it_was(critic), full_precision(z.device):
                checks[name] = Check(name, True, check(critic, z.clone(), z_prime.clone()))
        except Exception as error:  # whatever the critic raises is for its author to read
            found = f"{type(error).__name__}: {' '.join(str(error).split())}"
            remedy = "call critic(z, z_prime) on such latents and read the trace"
            if isinstance(error, _Wrong):
                found, remedy = error.args
            if changing := in_training_mode(critic):
                remedy = f"call critic.eval(): its {changing}"
            checks[name] = Check(name, False, found, expected, remedy)
    title = f"check_critic({type(critic).__name__}, {widths(dim, dim_prime)}), {dtype}"
    return CriticReport(title, tuple(checks.values()))


def _shape(critic, z, z_prime) -> str:
    log_f = critic(z, z_prime)
    if not isinstance(log_f, Tensor):
        raise _Wrong(f"a {type(log_f).__name__}", "return one torch.Tensor of scores")
    found = f"{shape_of(log_f)} for z {shape_of(z)} and z′ {shape_of(z_prime)}"
    if log_f.shape == (M, N):
        raise _Wrong(found, "rows are z, columns z′: transpose the table")
    if log_f.shape != (N, M):
        raise _Wrong(
            found, "score every z against every z′: for example (z[:, None] - z_prime).square().sum(2), or q @ k.T"
        )
    if log_f.dtype != z.dtype:
        raise _Wrong(
            f"{log_f.dtype} from latents of {z.dtype}", "compute in the dtype of z; make constants with z.new_tensor"
        )
    return found


def _determinism(critic, z, z_prime) -> str:
    before = {"z": z.clone(), "z′": z_prime.clone()}
    change = change_between_calls(critic, z, z_prime)
    for name, after in (("z", z), ("z′", z_prime)):
        if not torch.equal(before[name], after):
            raise _Wrong(f"the call changes {name}", f"compute a new tensor: no +=, mul_ or {name}[...] = in forward")
    if change is not None:
        raise _Wrong(change, "draw nothing in forward: F.dropout(z, p, self.training) is still in evaluation mode")
    return "two calls agree"


def _pairing(critic, z, z_prime) -> str:
    with torch.no_grad():
        table = critic(z, z_prime)
        alone = torch.stack([torch.cat([critic(a[None], b[None])[0] for b in z_prime]) for a in z])
    off = distance(table, alone)
    if off.max() > table_rounding(table):
        i, j = divmod(int(off.argmax()), M)
        raise _Wrong(
            f"entry ({i}, {j}) is {table[i, j]:.4g} in the table and {alone[i, j]:.4g} for that pair alone",
            "remove what mixes rows: softmax, batch norm in training mode, or a mean over the batch",
        )
    return "each entry is that of its pair alone"


def _finite(critic, z, z_prime) -> str:
    remedy = "stay in logarithms (logsumexp, logaddexp, F.logsigmoid); normalise by F.normalize, which allows for 0"
    places = {1.0: "standard normal latents", 0.0: "z = z′ = 0", FAR: f"latents {FAR:,.0f} times as far"}
    for size, what in places.items():
        with torch.no_grad():
            log_f = critic(size * z, size * z_prime)
        for bad, name in ((log_f.isnan(), "NaN"), (log_f.isposinf(), "+inf")):
            if bad.any():
                raise _Wrong(f"{name} at {what} ({int(bad.sum())} of {bad.numel()} entries)", remedy)
        if size == 1 and log_f.isneginf().all(1).any():
            raise _Wrong(f"a row of only -inf at {what}", f"let f be positive for some z′ of each z, or {remedy}")
    return f"no NaN and no +inf, for latents from 0 to {FAR:,.0f}"


def _interaction(critic, z, z_prime) -> str:
    with torch.no_grad(), _moved(critic):
        table = critic(z, z_prime)
    table = table.clamp(min=torch.finfo(table.dtype).min / 1e3)
    both = table - table.mean(0) - table.mean(1, keepdim=True) + table.mean()  # what is left without a(z) + b(z')
    if not both.abs().max() > table_rounding(table):
        constant = (table.amax(1) - table.amin(1)).max() <= table_rounding(table)
        what = "log f does not depend on z′" if constant else "log f = a(z) + b(z′)"
        raise _Wrong(what, "let z and z′ meet: a product, a difference, or a network of both")
    return "z and z′ interact"


def _gradient(critic, z, z_prime) -> str:
    with _moved(critic):
        inputs = _inputs(critic, z, z_prime)
        log_f = critic(inputs["z"], inputs["z′"])
        weight = torch.linspace(-1, 1, N * M).sin().view(N, M).to(log_f) * log_f.detach().isfinite()
        found = torch.autograd.grad(log_f, [*inputs.values()], weight, allow_unused=True) if log_f.requires_grad else ()
    foreign = [leaf for leaf in _leaves(log_f) if all(leaf is not own for own in inputs.values())]
    if foreign:
        raise _Wrong(
            f"a trainable tensor of shape {shape_of(foreign[0])} is in use that is no parameter of the module",
            "assign it to self as an nn.Parameter or a module; keep a list of them in nn.ModuleList or nn.ParameterList",
        )
    grads = dict(zip(inputs, found or [None] * len(inputs)))
    for name, grad in grads.items():
        # A parameter may rest (R of one dimension has no off-diagonal), z and z′ may not.
        if grad is None or (name in ("z", "z′") and not grad.any()):
            raise _Wrong(
                f"{name} gets {'none' if grad is None else 'zero everywhere'}",
                "let log f depend on it smoothly (no detach, .data, .item() or rounding), or set requires_grad_(False)",
            )
        if not grad.isfinite().all():
            raise _Wrong(
                f"that of {name} is {'NaN' if grad.isnan().any() else 'infinite'}, though log f is finite",
                "look for a square root or a norm of z - z′, which may be 0, or torch.where over an undefined branch",
            )
    return f"finite, reaches {', '.join(grads)}"


def _evidence(critic, z, z_prime) -> str:
    near = z + 0.1 * z_prime[:N] if z.shape[1] == z_prime.shape[1] else z_prime[:N]
    inputs = _inputs(critic, z, near)  # near pairs: f is positive on them under most priors
    z, z_prime = inputs["z"], inputs["z′"]
    by_table = symmetric_infonce(critic(z, z_prime)).value
    by_tiles = dataset_evidence(z, z_prime, critic, normalise="both").value
    remedy = "score the same with torch.no_grad and without it: dataset_evidence calls the critic both ways"
    scale = table_rounding(critic(z, z_prime).detach())
    if distance(by_table, by_tiles) > scale:
        raise _Wrong(f"{by_tiles.item():.5g} nats, and {by_table.item():.5g} from the table", remedy)
    each = (
        torch.autograd.grad(v, [*inputs.values()], allow_unused=True, materialize_grads=True)
        for v in (by_table, by_tiles)
    )
    for name, expected, found in zip(inputs, *each):
        if (distance(expected, found) > max(scale, table_rounding(expected))).any():
            raise _Wrong(f"another gradient to {name} than from the table", remedy)
    return f"dataset_evidence agrees with the table: {by_tiles.item():.4f} nats, and its gradients"


_CHECKS: dict[str, tuple[Callable[[nn.Module, Tensor, Tensor], str], str, tuple[str, ...]]] = {
    # gives what was found, in words, or raises; what is expected; the checks that it builds on
    "shape": (_shape, f"({N}, {M}): one score for each z (row) and z′ (column), in the dtype of z", ()),
    "determinism": (_determinism, "the same table at each call, of latents that stay as they are", ("shape",)),
    "pairing": (_pairing, "log f(z_i, z′_j) to depend on z_i and z′_j alone", ("shape", "determinism")),
    "finite": (_finite, "finite scores, or -inf where f = 0", ("shape",)),
    "interaction": (
        _interaction,
        "more than a(z) + b(z′), which no pairing can tell apart",
        ("shape", "determinism", "finite"),
    ),
    "gradient": (_gradient, "a finite gradient to z, z′ and each parameter", ("shape", "finite", "interaction")),
    "evidence": (_evidence, "the InfoNCE of the table, by dataset_evidence too", ("pairing", "gradient")),
}


def _inputs(critic: nn.Module, z: Tensor, z_prime: Tensor) -> dict[str, Tensor]:
    """What a gradient has to reach, by name."""
    latents = {"z": z.clone().requires_grad_(), "z′": z_prime.clone().requires_grad_()}
    return {**latents, **{name: p for name, p in critic.named_parameters() if p.requires_grad}}


def _leaves(tensor: Tensor) -> list[Tensor]:
    """The tensors at which the tensor's graph ends and a gradient would accumulate."""
    seen, todo, found = set(), [tensor.grad_fn], []
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        todo += [parent for parent, _ in node.next_functions]
        found += [node.variable] if hasattr(node, "variable") else []
    return found


@contextmanager
def _left_as_it_was(critic: nn.Module):
    """Restore the critic's buffers and the global random state after it was called."""
    buffers = {name: buffer.clone() for name, buffer in critic.named_buffers()}
    devices = sorted({p.device.index for p in critic.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            for name, buffer in critic.named_buffers():
                buffer.data.copy_(buffers[name])


@contextmanager
def _moved(critic: nn.Module):
    """Within it, entries of parameters that are exactly 0 are a little off it: many layers start at 0 on purpose."""
    draw = torch.Generator().manual_seed(0)
    zeros = [(p, p == 0) for p in critic.parameters()]
    with torch.no_grad():
        for parameter, zero in zeros:
            noise = torch.randn(parameter.shape, generator=draw).to(parameter)
            parameter[zero] = 0.1 * noise[zero]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, zero in zeros:
                parameter[zero] = 0
