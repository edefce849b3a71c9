"""`make bench`: the evidence of a data set against what others compute it with, and against the machine's own limit.

Every contender runs in a fresh process for each N and round, the contenders taking turns, and medians are compared: what
disturbs the machine disturbs all. Writes results.json, results.md and results.svg beside this file.
"""

import argparse
import datetime
import importlib.metadata
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import torch
from contenders import CONTENDERS
from report import write
from tqdm import tqdm
from worker import DIM

HERE = Path(__file__).parent
OTHERS = ("pykeops", "open_clip_torch", "lightly", "pytorch-metric-learning")
PATIENCE, ONCE = 150, 40  # seconds: what would take longer is not run but said; what takes longer is run once


def run(key: str, n: int, reference: Path) -> dict:
    command = [sys.executable, str(HERE / "worker.py"), key, str(n), str(reference)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{process.stderr[-3000:]}")
    return json.loads(process.stdout.splitlines()[-1])


def too_slow(samples: dict, key: str, n: int) -> str | None:
    """Why this contender sits out at n, from what it took at the smaller sizes (time grows with N^2)."""
    for (other, smaller), rounds in samples.items():
        if other == key != "limits" and smaller < n:
            if "missing" in rounds[0]:
                return f"{rounds[0]['missing']} at N = {smaller}"
            expected = min(map(seconds, rounds)) * (n / smaller) ** 2
            if expected > PATIENCE:
                return f"about {expected / 60:.0f} minutes, from N = {smaller}"
    return None


def measure(sizes: list[int], rounds: int, keep) -> None:
    """Measure everything at one size after the other, and hand what there is to `keep` after each."""
    samples = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, tqdm(total=len(sizes) * rounds * (1 + len(CONTENDERS))) as bar:
        for n in sizes:
            reference = Path(folder) / f"{n}.pt"
            run("reference", n, reference)
            for _ in range(rounds):
                for key in ("limits", *CONTENDERS):
                    bar.set_description(f"N = {n}, {key}")
                    before = samples[key, n]
                    if not before and (why := too_slow(samples, key, n)):
                        before.append({"missing": why})
                    elif not before or not ("missing" in before[0] or seconds(before[0]) > ONCE):
                        before.append(run(key, n, reference))
                    bar.update()
            keep(samples)


def seconds(sample: dict) -> float:
    return sum(sample[mode]["s"] for mode in ("forward", "both") if mode in sample)


def summary(samples: dict) -> list[dict]:
    """The medians over the rounds, a row for each contender and N."""
    rows = []
    for (key, n), rounds in samples.items():
        row = {"contender": key, "n": n, "rounds": len(rounds)}
        if "missing" in rounds[0]:
            row["missing"] = rounds[0]["missing"]
        elif key == "limits":
            row |= {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
        else:
            for mode in ("forward", "both"):
                row[mode] = {
                    "s": statistics.median(r[mode]["s"] for r in rounds),
                    "spread": max(r[mode]["s"] for r in rounds) / min(r[mode]["s"] for r in rounds),
                    "mib": max(r[mode]["mib"] for r in rounds),
                }
            row["errors"] = rounds[0]["errors"]
        rows.append(row)
    return rows


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def machine() -> dict:
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": f"{processor}, {os.cpu_count()} cores, one used",
        "memory": f"{math.ceil(memory)} GiB",
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "others": ", ".join(f"{name} {_version(name)}" for name in OTHERS),
        "date": datetime.date.today().isoformat(),
        "dim": DIM,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 8000, 20_000, 60_000])
    parser.add_argument("--rounds", type=int, default=3, help="by default 3")
    parser.add_argument("--output", type=Path, default=HERE)
    parser.add_argument("--report-only", action="store_true", help="write results.md again from results.json")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    data = options.output / "results.json"
    if not options.report_only:

        def keep(samples: dict) -> None:
            found = {"machine": machine(), "rows": summary(samples)}
            data.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

        measure(sorted(options.sizes), options.rounds, keep)
    write(json.loads(data.read_text(encoding="utf-8")), options.output)
    print(f"{options.output / 'results.md'}")


if __name__ == "__main__":
    main()
