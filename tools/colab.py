"""Run the course as Colab would, in clean environments with its kind of preinstalled packages, and print one table.

    python tools/colab.py                   every kind of KINDS, all lessons: half an hour, and gigabytes where torch has CUDA
    python tools/colab.py tested            the kinds whose names start so
        --lessons 00 04                     only the lessons whose names start so
        --write                             put the kinds that ran into docs/versions.md

The first cell of the first lesson installs the course from a wheel of this checkout, in the repository's place; the same
kernel goes on, without a restart. A kind fails if that cell changes any package that was there, takes too long, or if
a lesson stops with an error. What no test here can emulate: Colab's page and its widget manager (a module `google.colab`
that does nothing stands for them), its GPU, its own build of torch, and the hundreds of packages that it has besides.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import budgets
import launch_links
import nbformat
import tables
from packaging.utils import canonicalize_name

HELD = {"ipython": "7.34.0", "ipykernel": "6.17.1", "ipywidgets": "7.7.1", "numpy": "2.0.2", "scikit-learn": "1.6.1"}
KINDS = {  # "" is what pip chooses
    "tested torch": HELD | {"torch": "2.13.0", "plotly": "5.24.1"},
    "older torch": HELD | {"torch": "2.5.1", "plotly": "5.24.1"},
    "newer torch, plotly 6": HELD | {"torch": "2.14.1", "plotly": "6.5.0", "numpy": "", "scikit-learn": ""},
}
BESIDES = ("scipy", "tqdm", "pooch", "nbclient", "nbformat")
SHOWN = ("torch", "numpy", "scikit-learn", "plotly", "ipywidgets", "ipython", "ipykernel")
HEADER = ("kind", "lessons", "the cell's seconds", "the cell adds", *SHOWN, "seconds")
SECONDS = 20  # of the processor: what the cell may take
TELL = "\nimport os\nprint(sum(os.times()[:4]))"  # the kernel's seconds, and those of the pip that it ran
RUN = """
import sys, nbformat
from nbclient import NotebookClient
for path in sys.argv[1:]:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, startup_timeout=600, kernel_name="python3").execute()
    nbformat.write(notebook, path)
"""


class Ran(NamedTuple):
    seconds: float  # of the processor: the first cell's, where it installed the course
    added: list[str]
    changed: dict[str, tuple[str, str | None]]
    versions: dict[str, str]


def environment(packages: dict[str, str], folder: Path) -> Path:
    """A clean environment with these packages, and a stand-in for `google.colab`."""
    python = folder / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    wanted = [f"{name}=={version}" if version else name for name, version in packages.items()]
    install = [python, "-m", "pip", "install", "-q", "--no-compile", *wanted, *BESIDES]
    subprocess.run(install, check=True)
    google = next((folder / "venv" / "lib").glob("python*/site-packages")) / "google" / "colab"
    google.mkdir(parents=True)
    (google / "__init__.py").touch()
    (google / "output.py").write_text("def enable_custom_widget_manager():\n    pass\n")
    return python


def installed(python: Path) -> dict[str, str]:
    run = subprocess.run([python, "-m", "pip", "list", "--format=json"], capture_output=True, check=True)
    return {canonicalize_name(item["name"]): item["version"] for item in json.loads(run.stdout)}


def wheel(folder: Path) -> Path:
    build = [sys.executable, *"-m pip wheel -q --no-deps --no-build-isolation -w".split(), folder, launch_links.ROOT]
    subprocess.run(build, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def copies(lessons: list[Path], cell: str, folder: Path) -> list[Path]:
    """The lessons as a published repository has them, with this first cell."""
    found = []
    for lesson in lessons:
        notebook = nbformat.read(lesson, as_version=4)
        notebook.cells.insert(1, nbformat.v4.new_code_cell(cell + TELL))
        nbformat.write(notebook, folder / lesson.name)
        found.append(folder / lesson.name)
    return found


def seconds(notebook: Path) -> float:
    """What the first cell of code has told."""
    told = next(c for c in nbformat.read(notebook, as_version=4).cells if c.cell_type == "code").outputs[-1].text
    return float(told.splitlines()[-1])


def run(packages: dict[str, str], lessons: list[Path], folder: Path) -> Ran:
    """Run the lessons in one clean environment; raises what the first lesson that fails says."""
    python = environment(packages, folder)
    before = installed(python)
    cell = launch_links.INSTALL.format(repository="owner/name")
    cell = cell.replace("git+https://github.com/owner/name@published", wheel(folder).as_uri())
    paths = copies(lessons, cell, folder)
    done = subprocess.run([python, "-c", RUN, *paths], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    after = installed(python)
    changed = {name: (version, after.get(name)) for name, version in before.items() if after.get(name) != version}
    return Ran(seconds(paths[0]), sorted(set(after) - set(before)), changed, after)


def line(kind: str, lessons: list[Path]) -> dict[str, str]:
    start, found = time.perf_counter(), {"kind": kind}
    with tempfile.TemporaryDirectory(prefix="rpm-colab-") as folder:
        ran = run(KINDS[kind], lessons, Path(folder))
    if wrong := [*budgets.exceeded("the first cell", ran.seconds, SECONDS), *ran.changed.items()]:
        sys.exit(f"{kind}: {wrong}")
    found |= {
        "lessons": str(len(lessons)),
        "the cell's seconds": f"{ran.seconds:.1f}",
        "the cell adds": ", ".join(ran.added),
    }
    return found | {name: ran.versions[name] for name in SHOWN} | {"seconds": f"{time.perf_counter() - start:.0f}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", help=f"only those whose names start so, of: {'; '.join(KINDS)}")
    parser.add_argument("--lessons", nargs="+", default=[""], metavar="00", help="only those whose names start so")
    parser.add_argument("--write", action="store_true", help="put the kinds into docs/versions.md")
    options = parser.parse_args()
    kinds = [kind for kind in KINDS if not options.kinds or kind.startswith(tuple(options.kinds))]
    every = sorted(launch_links.ROOT.glob("notebooks/[0-9]*.ipynb"))
    lessons = [path for path in every if path.name.startswith(tuple(options.lessons))]
    if not kinds or not lessons:
        parser.error(f"no kind or no lesson is named so; there are: {', '.join(KINDS)}")
    lines = []
    for kind in kinds:
        print(f"{kind} ...", flush=True)
        lines.append(line(kind, lessons))
        if options.write:
            tables.write("colab", HEADER, KINDS, lines)
    print(tables.table(lines, HEADER), end="")


if __name__ == "__main__":
    main()
