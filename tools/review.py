"""What can be said offline about the packages of requirements-tested.txt: `.venv/bin/python tools/review.py`.

    python tools/review.py            does pip find the set consistent, and each of its releases still offered?
    python tools/review.py --write    also list the licences, as the installed packages state them, in docs/versions.md

Known advisories need a network: `pip-audit -r requirements-tested.txt --no-deps` compares the set with them.
"""

import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata

import matrix

BLOCK = re.compile(r"(?s)(<!-- licences -->\n).*?(<!-- end licences -->)")
KINDS = {  # what a package says -> what it is
    "MIT": r"\bMIT(-0)?\b",
    "BSD": r"\bBSD\b|\b0BSD\b|New BSD",
    "Apache 2.0": r"Apache",
    "MPL 2.0": r"\bMPL\b|Mozilla Public",
    "PSF": r"\bPSF\b|Python Software Foundation",
    "ISC": r"\bISC\b",
    "public domain": r"Unlicense|Public Domain|\bCC0\b",
    "LGPL": r"\bLGPL|Lesser General Public",
    "GPL": r"(?<!L)\bGPL|(?<!Lesser )General Public License",
}


def stated(package: PackageMetadata) -> str:
    """What a package says of its licence: the expression, else the classifiers, else the first line of its text."""
    classifiers = [c.split(" :: ")[-1] for c in package.get_all("Classifier", []) if c.startswith("License :: ")]
    named = [c for c in classifiers if c != "OSI Approved"]
    return package.get("License-Expression") or ", ".join(named) or (package.get("License") or "").split("\n")[0]


def kinds(said: str) -> str:
    return ", ".join(name for name, pattern in KINDS.items() if re.search(pattern, said)) or "not stated"


def licences() -> dict[str, list[str]]:
    """The packages of the tested set that are installed here, by the kind of their licence."""
    found = defaultdict(list)
    for name in matrix.tested():
        try:
            found[kinds(stated(metadata(name)))].append(name)
        except PackageNotFoundError:
            found["not installed here"].append(name)
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


def listed() -> str:
    rows = [f"| {kind} | {len(names)} | {', '.join(names)} |" for kind, names in licences().items()]
    return "\n".join(["| licence | packages | which |", "|---|---|---|", *rows]) + "\n"


def pip(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pip", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def withdrawn() -> list[str]:
    """What pip says of releases in the set that were withdrawn ("yanked"), or are no longer offered."""
    with tempfile.NamedTemporaryFile() as report:
        options = ("--dry-run", "--ignore-installed", "--no-deps", "--report", report.name)
        run = pip("install", "-q", *options, "-r", matrix.ROOT / "requirements-tested.txt")
    lines = [line for line in run.stderr.splitlines() if "yanked" in line.lower() or line.startswith("ERROR")]
    return lines or ([] if run.returncode == 0 else [run.stderr])


def main(write: bool) -> None:
    check = pip("check")
    print("pip check:", check.stdout.strip())
    problems = withdrawn()
    print(f"{len(matrix.tested())} releases:", "\n".join(problems) or "all offered, none withdrawn")
    for kind, names in licences().items():
        print(f"{kind:<16}{len(names):>4}  {', '.join(names)}")
    if write:
        page = matrix.PAGE.read_text(encoding="utf-8")
        matrix.PAGE.write_text(BLOCK.sub(lambda m: f"{m[1]}{listed()}{m[2]}", page), encoding="utf-8")
    sys.exit(bool(check.returncode or problems))


if __name__ == "__main__":
    main("--write" in sys.argv[1:])
