"""Run the notebooks on other arithmetic than this processor's best, and print one table: `make test-processors`.

    python tools/processors.py                 every kind of DEFAULT, all notebooks: half an hour on two cores
    python tools/processors.py MKL ulp         these kinds of KINDS
        --only 04 N10                          only the notebooks whose names start so
        --write                                put the kinds that ran into docs/versions.md

Sums are added up in another order by each processor, and training makes of the last bit what it likes. So no cell may
depend on it: under every kind all assertions hold, and all outputs agree with the stored ones (tests/notebook_compare.py),
of widgets the figures at all settings among them.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

import tables

from rpm_tutorial.course._stored import STORED

ULP = Path(__file__).with_name("ulp")
PARTS = {
    "ATen": {"ATEN_CPU_CAPABILITY": "default"},  # torch's own loops without AVX
    "oneDNN": {"ONEDNN_MAX_CPU_ISA": "SSE41"},  # convolutions and matrix products, as on a processor of 2008
    "MKL": {"MKL_CBWR": "COMPATIBLE"},  # matrix products alike on every processor
    "OpenBLAS": {"OPENBLAS_CORETYPE": "Prescott"},  # numpy's and scipy's
}
KINDS = {
    "own": {},
    "plain": {name: value for part in PARTS.values() for name, value in part.items()},
    **PARTS,
    "threads": {
        "OMP_NUM_THREADS": "2",
        "OMP_WAIT_POLICY": "PASSIVE",
    },  # a thread that waits leaves its processor to others
    "ulp": {"PYTHONPATH": os.pathsep.join(filter(None, (str(ULP), os.environ.get("PYTHONPATH"))))},
}
NOTEBOOKS = sorted(tables.ROOT.glob("notebooks/[0-9]*.ipynb")) + sorted(tables.ROOT.glob("notebooks/*/N*.ipynb"))

DEFAULT = ("own", "plain", "threads", "ulp")


def short(name: str) -> str:
    return re.search(r"N?\d\d(?=_)", name)[0]


HEADER = ("kind", *(short(path.name) for path in NOTEBOOKS))


def line(kind: str, report: str) -> dict[str, str]:
    """From pytest's report in JUnit's form: of each notebook which cells failed, or how many show other digits than stored."""
    failed, moved = {}, {}
    for case in ET.fromstring(report).iter("testcase"):
        notebook, bad = short(case.get("classname")), case.find("failure") is not None or case.find("error") is not None
        failed.setdefault(notebook, []).extend([case.get("name").removeprefix("Cell ")] if bad else [])
        moved[notebook] = moved.get(notebook, 0) + (case.find("properties/property[@name='moved']") is not None)
    return {"kind": kind} | {n: f"✗ {', '.join(cells)}" if cells else str(moved[n]) for n, cells in failed.items()}


def run(kind: str, notebooks: list[Path], jobs: int) -> dict[str, str]:
    with tempfile.TemporaryDirectory(prefix="rpm-processors-") as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "--no-header", f"--junitxml={report}", "--processor", kind]
        command += ["-p", "no:cacheprovider", "-k", "not budget", "--nbval-cell-timeout=600"]
        command += ["-n", str(jobs), "--dist", "loadfile", *notebooks]
        done = subprocess.run(command, cwd=tables.ROOT, env=os.environ | {STORED: "1"}, capture_output=True, text=True)
        if not report.exists():
            sys.exit(f"{kind}: pytest did not start\n{done.stdout}{done.stderr}")
        if done.returncode:
            print(done.stdout, flush=True)
        return line(kind, report.read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", help=f"of: {', '.join(KINDS)}")
    parser.add_argument("--only", nargs="+", default=[""], metavar="04", help="only the notebooks whose names start so")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time [default: 2]")
    parser.add_argument("--write", action="store_true", help="put the kinds into docs/versions.md")
    options = parser.parse_args()
    notebooks = [path for path in NOTEBOOKS if path.name.startswith(tuple(options.only))]
    if not notebooks or not set(options.kinds) <= set(KINDS):
        parser.error(f"no notebook or no kind is named so; the kinds are: {', '.join(KINDS)}")
    lines = []
    for kind in options.kinds or DEFAULT:
        print(f"{kind} ...", flush=True)
        lines.append(run(kind, notebooks, options.jobs))
        if options.write:  # beside what other notebooks said before
            stored = {row["kind"]: row for row in tables.read("processors")}
            tables.write("processors", HEADER, KINDS, [stored.get(found["kind"], {}) | found for found in lines])
    print(tables.table(lines, HEADER), end="")
    if any(cell.startswith("✗") for found in lines for cell in found.values()):
        sys.exit(1)
    idle = [found["kind"] for found in lines if found["kind"] != "own" and not any(map(int, list(found.values())[1:]))]
    if idle and len(notebooks) == len(NOTEBOOKS):
        sys.exit(f"{', '.join(idle)}: no digit of any notebook moved, so this machine has no such arithmetic")


if __name__ == "__main__":
    main()
