"""One measurement in a process of its own: `python bench/worker.py CONTENDER N [REFERENCE]` prints a line of JSON.

The process is fresh, so that its peak memory is the contender's; one thread, so that it doesn't depend on the others.
"""

import json
import math
import resource
import sys
import time
from pathlib import Path

import torch
from contenders import CONTENDERS, TEMPERATURE, InnerProducts
from torch.nn import functional as F

import rpm_tutorial as rpm

DIM = 64
TILE = (512, 1024)
LIMIT = 16 * 2**30  # bytes


def pairs(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors whose partners lie at a cosine of about .9, shape (n, DIM) each."""
    z, step = torch.randn(2, n, DIM, generator=torch.Generator().manual_seed(0))
    return F.normalize(z, dim=1), F.normalize(z + 0.5 * step, dim=1)


def memory(field: str) -> float:
    """MiB of this process: VmRSS now, VmHWM at its peak since the last reset."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(field))


def measured(call) -> tuple[float, float, object]:
    """Seconds, MiB above what was there, and what the call returns."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
    before, start = memory("VmRSS"), time.perf_counter()
    result = call()
    return time.perf_counter() - start, memory("VmHWM") - before, result


def limits() -> dict:
    """Nanoseconds for each of the N^2 entries: the three products (scores, two gradients) and the exponential."""
    (rows, columns), p = TILE, torch.rand(TILE)
    q, k = torch.randn(rows, DIM), torch.randn(columns, DIM)
    out, out_q, out_k = torch.empty(TILE), torch.empty_like(q), torch.empty_like(k)
    work = {
        "scores": lambda: torch.mm(q, k.T, out=out),
        "d_q": lambda: torch.mm(p, k, out=out_q),
        "d_k": lambda: torch.mm(p.T, q, out=out_k),
        "exp": lambda: torch.exp(p, out=out),
    }
    found = {}
    for name, call in work.items():
        times = []
        for _ in range(60):
            start = time.perf_counter()
            for _ in range(5):
                call()
            times.append((time.perf_counter() - start) / 5)
        found[name] = sorted(times[10:])[len(times[10:]) // 2] / (rows * columns) * 1e9
    return found


def reference(n: int, path: str) -> dict:
    """I_N and the gradients of -I_N in float64, saved for the others."""
    q, k = (t.double().requires_grad_() for t in pairs(n))
    if n <= 8000:  # by the full matrix, which shares nothing with what is measured
        loss = F.cross_entropy(q @ k.T / TEMPERATURE, torch.arange(n))
        loss.backward()
        torch.save((math.log(n) - loss.item(), q.grad, k.grad), path)
    else:  # its value, by float64 tiles, which the tests hold against the full matrix
        with torch.no_grad():
            torch.save((rpm.dataset_evidence(q, k, InnerProducts()).infonce.item(), None, None), path)
    return {}


def contender(key: str, n: int, path: str) -> dict:
    who = CONTENDERS[key]
    loss, (q, k) = who.make(), pairs(n)
    warm = [t[:300].clone().requires_grad_() for t in (q, k)]
    loss(*warm).backward()  # what is loaded, compiled or allocated once
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    with torch.no_grad():
        forward_s, forward_mib, _ = measured(lambda: loss(q, k).item())
    q.requires_grad_(), k.requires_grad_()

    def both():
        value = loss(q, k)
        value.backward()
        return value.item()

    both_s, both_mib, value = measured(both)
    errors = {}
    if who.same_value:
        infonce = -value if who.ours else math.log(n) - value
        exact, d_q, d_k = torch.load(path, weights_only=True)
        errors["value"] = abs(infonce - exact) / exact
        if d_q is not None:
            errors["gradient"] = max(
                ((found.grad.double() - true).norm() / true.norm()).item() for found, true in ((q, d_q), (k, d_k))
            )
    return {
        "forward": {"s": forward_s, "mib": forward_mib},
        "both": {"s": both_s, "mib": both_mib},
        "errors": errors,
    }


def main(key: str, n: int, path: str) -> None:
    torch.set_num_threads(1)
    try:
        found = limits() if key == "limits" else reference(n, path) if key == "reference" else contender(key, n, path)
    except (RuntimeError, MemoryError) as error:
        if "memory" not in str(error).lower():
            raise
        found = {"missing": "needs more than 16 GiB"}
    except ImportError as error:
        found = {"missing": f"not installed ({error.name})"}
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
