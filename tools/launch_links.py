"""The ways into the course, from one table: launch links, badges, and the cell that installs the course on Colab.

    python tools/launch_links.py                       write the README's picture
    python tools/launch_links.py --publish FOLDER      a copy of HEAD for this repository's readers: badges, cells, addresses

No file of a checkout names its repository, so a fork needs no edit. Owner and name are those of GITHUB_REPOSITORY, else of
the remote `origin`, else of pyproject.toml. The workflow `pages` pushes the copy to the branch `published`, which Binder
and Colab open. The README's picture is a figure that lesson 0 has stored.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import tarfile
import tomllib
from base64 import b64decode
from functools import cache
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "notebooks" / "three_names.png"
BLOCK = re.compile(r"(?s)<!-- launch -->\n.*?<!-- end -->")
PUBLISHED = "published"  # the branch of the copy
# Service: badge, link. {path} is quoted where it is part of a query.
SERVICES = {
    "Binder": (
        "https://mybinder.org/badge_logo.svg",
        "https://mybinder.org/v2/gh/{repository}/published?urlpath=lab%2Ftree%2F{quoted}",
    ),
    "Colab": (
        "https://colab.research.google.com/assets/colab-badge.svg",
        "https://colab.research.google.com/github/{repository}/blob/published/{path}",
    ),
}
INSTALL = """\
import importlib.metadata
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("rpm_tutorial") is None:  # as on Colab, whose torch stays as it is
    course = "rpm-tutorial[course] @ git+https://github.com/{repository}@published"
    torch = f"torch=={{importlib.metadata.version('torch')}}"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", course, torch], check=True)"""


@cache
def repository() -> str:
    """owner/name on GitHub; empty where nothing says it."""
    if named := os.environ.get("GITHUB_REPOSITORY"):
        return named
    origin = subprocess.run(["git", "remote", "get-url", "origin"], cwd=ROOT, capture_output=True, text=True).stdout
    if address := re.search(r"github\.com[:/]([\w.-]+/[\w.-]+?)(\.git)?/?\s*$", origin):
        return address[1]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    named = project["tool"]["rpm-tutorial"]["repository"]
    if named and not re.fullmatch(r"[\w.-]+/[\w.-]+", named):
        raise ValueError(f"pyproject.toml's repository is {named!r}; expected owner/name, or nothing")
    return named


def link(service: str, path: str, repository: str) -> str:
    return SERVICES[service][1].format(path=path, quoted=quote(path, safe=""), repository=repository)


def links_to_source(path: str, repository: str) -> dict[str, str]:
    """Where a page's text is changed, and where a mistake in it is reported."""
    home = f"https://github.com/{repository}"
    report = f"{home}/issues/new?title={quote(Path(path).stem, safe='')}%3A%20"
    return {"Edit this page": f"{home}/edit/main/{path}", "Report a mistake": report}


def badges(repository: str, paths: list[str]) -> str:
    """A table: a row for each lesson, a column for each service."""
    lines = ["| lesson | " + " | ".join(SERVICES) + " |", "|---|" + "---|" * len(SERVICES)]
    for path in paths:
        name = Path(path).stem
        cells = [
            f"[![open {name} in {service}]({SERVICES[service][0]})]({link(service, path, repository)})"
            for service in SERVICES
        ]
        lines.append(f"| [{name}]({path}) | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def site(repository: str) -> str:
    owner, name = repository.split("/")
    return f"https://{owner.lower()}.github.io/" + ("" if name.lower() == f"{owner.lower()}.github.io" else f"{name}/")


def publish(folder: Path, repository: str) -> None:
    """A copy of HEAD in `folder`, in which everything that can be opened names this repository."""
    if not repository:
        raise SystemExit("No repository: set GITHUB_REPOSITORY=owner/name, or the remote origin")
    shutil.rmtree(folder, ignore_errors=True)
    # A workflow's token may push no workflow, and none of them is for this branch.
    archive = ["git", "archive", "--format=tar", "HEAD", "--", ".", ":!.github"]
    head = subprocess.run(archive, cwd=ROOT, capture_output=True, check=True)
    with tarfile.open(fileobj=BytesIO(head.stdout)) as files:
        files.extractall(folder, filter="data")
    install = {"cell_type": "code", "execution_count": None, "id": "install", "metadata": {}, "outputs": []}
    install["source"] = INSTALL.format(repository=repository).splitlines(keepends=True)
    for path in folder.glob("notebooks/**/*.ipynb"):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        notebook["cells"].insert(1, install)
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    lessons = [path.relative_to(folder).as_posix() for path in sorted(folder.glob("notebooks/[0-9]*.ipynb"))]
    home = f"https://github.com/{repository}"
    package = f"@ git+{home}@{PUBLISHED}"
    for name, old, new in (
        ("README.md", BLOCK, f"Read it on the course's site: <{site(repository)}>.\n\n{badges(repository, lessons)}"),
        ("README.md", re.compile(r"pip install '\.(\[\w+\])?'"), rf"pip install 'rpm-tutorial\1 {package}'"),
        ("CITATION.cff", re.compile(r"(?m)^(license: .+)$"), rf"\1\nrepository-code: {home}\nurl: {site(repository)}"),
        ("pyproject.toml", re.compile(r'(?m)^repository = ""$'), f'repository = "{repository}"'),
    ):
        text, count = old.subn(new, (folder / name).read_text(encoding="utf-8"))
        if not count:
            raise ValueError(f"{name} has no {old.pattern!r} to fill in")
        (folder / name).write_text(text, encoding="utf-8")


def picture() -> bytes:
    """The PNG of lesson 0's figure of the three curves."""
    cells = json.loads((ROOT / "notebooks" / "00_start_here.ipynb").read_text(encoding="utf-8"))["cells"]
    outputs = [
        output["data"] for cell in cells for output in cell.get("outputs", ()) if "image/png" in output.get("data", {})
    ]
    return b64decode(
        next("".join(d["image/png"]) for d in outputs if "against temperature" in "".join(d["text/plain"]))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--publish", type=Path, metavar="FOLDER")
    if folder := parser.parse_args().publish:
        publish(folder, repository())
    else:
        PICTURE.write_bytes(picture())


if __name__ == "__main__":
    main()
