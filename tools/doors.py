"""The ways into the course, from one table: badges and picture of the README, the first cell of each notebook.

    python tools/doors.py            write the README's badges and picture
    python tools/doors.py --check    only say whether they are in step

The README's picture is a figure that lesson 0 has stored. The repository is named once, in pyproject.toml:
`[tool.rpm-tutorial] repository = "owner/name"`. While it is not, there is nothing to open on Binder or Colab, and neither
badges nor the cell are made.
"""

import json
import re
import sys
import tomllib
from base64 import b64decode
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "notebooks" / "three_names.png"
BLOCK = re.compile(r"(?s)<!-- doors -->\n.*?<!-- end -->")
UNPUBLISHED = (
    "Binder and Colab open a published copy, and this checkout names none: read, or use the two commands below."
)
# Door: badge, link. {path} is quoted where it is part of a query.
DOORS = {
    "Binder": (
        "https://mybinder.org/badge_logo.svg",
        "https://mybinder.org/v2/gh/{repository}/{branch}?urlpath=lab%2Ftree%2F{quoted}",
    ),
    "Colab": (
        "https://colab.research.google.com/assets/colab-badge.svg",
        "https://colab.research.google.com/github/{repository}/blob/{branch}/{path}",
    ),
}
INSTALL = """\
import importlib.metadata
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("rpm_tutorial") is None:  # as on Colab, whose torch stays as it is
    course = "rpm-tutorial[course] @ git+https://github.com/{repository}@{branch}"
    torch = f"torch=={{importlib.metadata.version('torch')}}"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", course, torch], check=True)"""


def table() -> dict[str, str]:
    """repository and branch, as pyproject.toml names them; an empty repository is one that isn't published."""
    named = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"].get("rpm-tutorial", {})
    if named.get("repository") and not re.fullmatch(r"[\w.-]+/[\w.-]+", named["repository"]):
        raise ValueError(f"repository is {named['repository']!r}; expected owner/name")
    return {"repository": named.get("repository", ""), "branch": named.get("branch", "main")}


def install_cell(where: dict[str, str]) -> str:
    """The code of each notebook's first cell; empty while there is nowhere to install from."""
    return INSTALL.format(**where) if where["repository"] else ""


def link(door: str, path: str, where: dict[str, str]) -> str:
    return DOORS[door][1].format(path=path, quoted=quote(path, safe=""), **where)


def badges(where: dict[str, str], paths: list[str]) -> str:
    """A table: a row for each lesson, a column for each door."""
    if not where["repository"]:
        return UNPUBLISHED
    lines = ["| lesson | " + " | ".join(DOORS) + " |", "|---|" + "---|" * len(DOORS)]
    for path in paths:
        name = Path(path).stem
        cells = [f"[![open {name} in {door}]({DOORS[door][0]})]({link(door, path, where)})" for door in DOORS]
        lines.append(f"| [{name}]({path}) | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def picture() -> bytes:
    """The PNG of lesson 0's figure of the three curves."""
    cells = json.loads((ROOT / "notebooks" / "00_start_here.ipynb").read_text(encoding="utf-8"))["cells"]
    outputs = [
        output["data"] for cell in cells for output in cell.get("outputs", ()) if "image/png" in output.get("data", {})
    ]
    return b64decode(
        next("".join(d["image/png"]) for d in outputs if "against temperature" in "".join(d["text/plain"]))
    )


def filled(readme: str, where: dict[str, str]) -> str:
    paths = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))]
    return BLOCK.sub(lambda _: f"<!-- doors -->\n{badges(where, paths)}\n<!-- end -->", readme)


def main() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    new = filled(text, table())
    if "--check" in sys.argv:
        sys.exit("README.md's badges are out of step; remedy: make build" if new != text else 0)
    readme.write_text(new, encoding="utf-8")
    PICTURE.write_bytes(picture())


if __name__ == "__main__":
    main()
