"""A fresh checkout with a fresh environment, which holds what a Make target's group requires and nothing else.

It is what pip would install, but linked from the environment that runs the tests: a second instead of minutes and gigabytes.
"""

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path

from environment import GROUP
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
# Each target with the stamp that it waits for, which is named as a dependency group.
TARGETS = dict(re.findall(r"(?m)^([a-z-]+): \.venv/installed-([a-z]+) ", MAKEFILE))
OWN = shutil.ignore_patterns(".venv", ".nox", ".git", "build", "my-course", "screenshots", ".*_cache", "__pycache__")


def checkout_for(target: str, folder: Path) -> Path:
    """A copy of the checkout in `folder`, in the state in which `make target` has nothing left to install."""
    shutil.copytree(ROOT, folder, ignore=OWN)
    python = getattr(sys, "_base_executable", sys.executable)
    subprocess.run([python, "-m", "venv", "--without-pip", "--symlinks", folder / ".venv"], check=True)
    (site,) = folder.glob(".venv/lib/python*/site-packages")
    for one in required(["rpm-tutorial[lab]", *grouped(TARGETS[target])]):
        if one.name != "rpm-tutorial":
            _link(one, site)
    (site / "rpm_tutorial.pth").write_text(f"{folder.resolve()}\n")  # as pip install -e
    (folder / ".venv" / "folder").write_text(f"{folder.resolve()}\n")
    (folder / ".venv" / f"installed-{TARGETS[target]}").touch()
    return folder


def make(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "PYTHONPATH", "PYTEST"))}
    return subprocess.run(["make", *arguments], cwd=folder, env=kept | environment, capture_output=True, text=True)


def grouped(name: str) -> list[str]:
    """The requirements of a dependency group, as tools/environment.py hands them to pip."""
    command = [sys.executable, "-c", GROUP, name]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


def required(asked: list[str]) -> list[Distribution]:
    """The distributions that these requirements bring, and those that they require in turn."""
    found, waiting = {}, [Requirement(item) for item in asked]
    while waiting:
        item = waiting.pop()
        key = canonicalize_name(item.name), frozenset(item.extras)
        if key not in found:
            found[key] = distribution(item.name)
            for line in found[key].requires or ():
                needed = Requirement(line)
                if not needed.marker or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *item.extras)):
                    waiting.append(needed)
    return list({name: one for (name, _), one in found.items()}.values())


def _link(one: Distribution, site: Path) -> None:
    """Packages and modules whole; what lies beside them, as Jupyter's extensions, file by file; no scripts, which name a Python."""
    for file in {Path(f.parts[0]) if f.parts[0] != ".." else Path(f) for f in one.files or ()}:
        there, here = Path(one.locate_file(file)), Path(os.path.normpath(site / file))
        if "bin" not in file.parts and file.name != "__pycache__" and there.exists() and not here.exists():
            here.parent.mkdir(parents=True, exist_ok=True)
            here.symlink_to(there.resolve())
