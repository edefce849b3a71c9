"""The tables of docs/versions.md and other pages: each between two comments that name it, its first column the name of a line."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "versions.md"
PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "plotly", "ipywidgets", "ipython", "jupyterlab")
VERSIONS = ("row", "passed", "skipped", "Python", *PACKAGES, "seconds")
ROWS = (
    *(f"tested set, Python {version}" for version in ("3.11", "3.12", "3.13")),
    "oldest",
    "newest",
)  # noxfile.py runs them


def tested() -> dict[str, str]:
    """The versions of requirements-tested.txt."""
    lines = (ROOT / "requirements-tested.txt").read_text(encoding="utf-8").splitlines()
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines if "==" in line)}


def table(lines: list[dict[str, str]], header: Sequence[str]) -> str:
    cells = [header, *(tuple(line.get(name, "") for name in header) for line in lines)]
    width = [max(map(len, column)) for column in zip(*cells)]
    rows = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, width)) + " |" for row in cells]
    return "\n".join([rows[0], "|" + "|".join("-" * (w + 2) for w in width) + "|", *rows[1:]]) + "\n"


def block(name: str, page: Path = PAGE) -> str:
    """The text between the two comments."""
    return re.search(f"(?s)<!-- {name} -->\n(.*?)<!-- end {name} -->", page.read_text(encoding="utf-8"))[1]


def replace(name: str, text: str, page: Path = PAGE) -> None:
    whole = page.read_text(encoding="utf-8")
    page.write_text(
        whole.replace(f"-->\n{block(name, page)}<!-- end {name} ", f"-->\n{text}<!-- end {name} "), encoding="utf-8"
    )


def read(name: str, page: Path = PAGE) -> list[dict[str, str]]:
    lines = block(name, page).splitlines()
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [{key: cell for key, cell in zip(header, row) if cell} for row in rows]


def write(name: str, header: Sequence[str], order: Iterable[str], lines: list[dict[str, str]]) -> None:
    """Put these lines into their places in the table, beside the others as they were."""
    by_name = {line[header[0]]: line for line in [*read(name), *lines]}
    replace(name, table([by_name[key] for key in order if key in by_name], header))
