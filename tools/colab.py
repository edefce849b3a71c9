"""Try the course as Colab would run it: `python tools/colab.py FOLDER [NN]`; minutes, and the network for pip.

Makes an environment in FOLDER with packages as old as Colab's (its IPython, ipykernel, ipywidgets and plotly), runs the cell
that installs the course, from a wheel of this checkout in the repository's place, and then the lessons (or those whose
name starts with NN). It fails if the cell changes any package that was there. What it cannot emulate: Colab's page, its
widget manager, its GPU, and its own build of torch.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import doors

PRESENT = (
    "torch==2.13.0",  # unpinned it would bring gigabytes of CUDA
    "numpy==2.0.2",
    "scipy",
    "scikit-learn==1.6.1",
    "plotly==5.24.1",
    "ipython==7.34.0",
    "ipywidgets==7.7.1",
    "ipykernel==6.17.1",
    "tqdm",
    "pooch",
)
RUN = """
import sys, nbformat
from nbclient import NotebookClient
for path in sys.argv[1:]:
    NotebookClient(nbformat.read(path, as_version=4), timeout=300, kernel_name="python3").execute()
    print("ran", path, flush=True)
"""


def packages(python: Path) -> dict[str, str]:
    run = subprocess.run([python, "-m", "pip", "list", "--format=json"], capture_output=True, check=True)
    return {item["name"].lower(): item["version"] for item in json.loads(run.stdout)}


def main(folder: Path, only: str = "") -> None:
    python = (folder / "venv" / "bin" / "python").absolute()
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PRESENT, "nbclient", "nbformat"], check=True)
    subprocess.run([python, "-m", "pip", "uninstall", "-q", "-y", "rpm-tutorial"], check=True)
    build = [python, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder / "wheel", doors.ROOT]
    subprocess.run(build, check=True)
    wheel = max((folder / "wheel").glob("*.whl"), key=lambda path: path.stat().st_mtime)
    cell = doors.install_cell({"repository": "owner/name", "branch": "main"})
    cell = cell.replace("git+https://github.com/owner/name@main", wheel.absolute().as_uri())
    before, start = packages(python), time.perf_counter()
    subprocess.run([python, "-c", cell], check=True, cwd=folder)
    print(f"the cell took {time.perf_counter() - start:.0f} s")
    after = packages(python)
    print("it added", ", ".join(sorted(set(after) - set(before))))
    changed = {name: (version, after.get(name)) for name, version in before.items() if after.get(name) != version}
    if changed:
        sys.exit(f"it changed what was there: {changed}")
    lessons = sorted(doors.ROOT.glob(f"notebooks/{only or '[0-9]'}*.ipynb"))
    subprocess.run([python, "-c", RUN, *lessons], check=True, cwd=folder)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__.splitlines()[0])
    main(Path(sys.argv[1]), *sys.argv[2:])
