"""Make the executed notebooks from their only source: notebooks/NN_name.py -> notebooks/NN_name.ipynb.

    python tools/build_notebooks.py            build every notebook: the lessons, then the neighbours and the study
    python tools/build_notebooks.py 02         build those whose name starts with 02; N10 is a neighbour
    python tools/build_notebooks.py --check    run nothing; say which .ipynb is not in step with its .py

The same source gives the same bytes: cell ids are hashes of what the cell says, nothing stores a time or a
widget's random id, and a cell tagged `nbval-ignore-output` (it prints versions or times) keeps its old
outputs while its source stays the same. Each plotly figure gets a picture beside it, for GitHub and print.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from base64 import b64encode
from collections import Counter
from pathlib import Path

import chromium
import jupytext
import kaleido
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from rpm_tutorial.course._stored import PLOTLY, STORED

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
NEIGHBOURS, STUDY = NOTEBOOKS / "neighbours", NOTEBOOKS / "study"
WIDGET = "application/vnd.jupyter.widget-view+json"
IGNORED = "nbval-ignore-output"
LARGE = 2**20  # bytes of a stored notebook
PICTURE_SIZE = {"width": 700, "height": 450}  # unless the figure's layout says
KERNEL_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", STORED: "1"}


def read_source(path: Path) -> NotebookNode:
    """The unexecuted notebook: cells, tags and reproducible ids."""
    notebook = jupytext.read(path, fmt="py:percent")
    notebook.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    seen = Counter()
    for cell in notebook.cells:
        digest = hashlib.sha1("\n".join([path.stem, cell.cell_type, cell.source]).encode()).hexdigest()[:8]
        cell.id = f"{digest}-{seen[digest]}" if seen[digest] else digest
        cell.metadata = NotebookNode(tags=cell.metadata.tags) if cell.metadata.get("tags") else NotebookNode()
        seen[digest] += 1
    return notebook


def execute(notebook: NotebookNode, folder: Path) -> None:
    client = NotebookClient(
        notebook,
        timeout=1800,
        startup_timeout=600,
        record_timing=False,
        store_widget_state=False,
        extra_arguments=["--IPKernelApp.log_level=40"],  # its start-up advice is not for the author
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env={**os.environ, **KERNEL_ENVIRONMENT})
    notebook.metadata.language_info = NotebookNode(name="python")


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def merge_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """How a print reaches us in pieces is a matter of timing: join neighbours of the same stream."""
    merged = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


def is_only_live(data: dict) -> bool:
    """Whether a MIME bundle is a widget without a static twin, as a progress bar: nothing of it lasts."""
    return WIDGET in data and data.keys() <= {WIDGET, "text/plain"}


def lasting(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """What remains of a cell's outputs: without progress bars, and what they had parted joined again."""
    return merge_streams([output for output in outputs if not is_only_live(output.get("data", {}))])


def normalise(notebook: NotebookNode, old: NotebookNode) -> None:
    """Take out what differs between two runs of the same source."""
    old_outputs = {cell.id: cell.outputs for cell in code_cells(old)}
    for cell in code_cells(notebook):
        if IGNORED in cell.metadata.get("tags", []) and cell.id in old_outputs:
            cell.outputs = old_outputs[cell.id]
        cell.outputs = lasting(cell.outputs)
        for output in cell.outputs:
            output.get("data", {}).pop(WIDGET, None)
            if output.output_type == "execute_result":
                output.execution_count = cell.execution_count


def figures(notebook: NotebookNode) -> list[NotebookNode]:
    """The MIME bundles that hold a plotly figure."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return [output.data for output in outputs if PLOTLY in output.get("data", {})]


def start_chromium() -> None:
    """One for the whole build, and none if every figure has its picture already."""
    if not os.environ.get("BROWSER_PATH"):
        os.environ["BROWSER_PATH"] = chromium.find() or sys.exit(chromium.REMEDY)
    offline = kaleido.PageGenerator(mathjax=False)
    kaleido.start_sync_server(page_generator=offline, silence_warnings=True)


def picture(figure: NotebookNode) -> str:
    start_chromium()
    size = {side: figure.layout.get(side, pixels) for side, pixels in PICTURE_SIZE.items()}
    png = kaleido.calc_fig_sync(figure, opts={"format": "png", "scale": 1, **size})
    return b64encode(png).decode() + "\n"


def add_pictures(notebook: NotebookNode, old: NotebookNode) -> None:
    """A figure that hasn't changed keeps its picture: quicker, and the same on every machine's fonts."""
    known = {json.dumps(data[PLOTLY]): data["image/png"] for data in figures(old) if "image/png" in data}
    for data in figures(notebook):
        key = json.dumps(data[PLOTLY])
        if key not in known:
            known[key] = picture(data[PLOTLY])
        data["image/png"] = known[key]


def write(notebook: NotebookNode, path: Path) -> None:
    """All or nothing: an interrupted build leaves the old notebook as it was."""
    text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def complaints(notebook: NotebookNode, path: Path) -> list[str]:
    """What deserves a look, though it isn't an error."""
    found = [
        f"cell {number} writes to stderr: {output.text.strip().splitlines()[-1]}"
        for number, cell in enumerate(notebook.cells, 1)
        for output in cell.get("outputs", [])
        if output.get("name") == "stderr"
    ]
    if path.stat().st_size > LARGE:
        found.append(f"{path.stat().st_size / 2**20:.1f} MiB stored; aim below {LARGE / 2**20:.0f}")
    return found


def build(source: Path) -> Path:
    """Execute one source beside itself; an exception in a cell passes through, and writes nothing."""
    target = source.with_suffix(".ipynb")
    old = nbformat.read(target, as_version=4) if target.exists() else nbformat.v4.new_notebook()
    notebook = read_source(source)
    execute(notebook, source.parent)
    normalise(notebook, old)
    add_pictures(notebook, old)
    nbformat.validate(notebook)
    write(notebook, target)
    return target


def differences(source: Path) -> list[str]:
    """How the .ipynb beside a source differs from it, one line for each cell."""
    target = source.with_suffix(".ipynb")
    if not target.exists():
        return [f"{target.name} is missing"]

    def identity(cell):
        return cell.cell_type, cell.source, cell.metadata.get("tags", []), cell.get("id")

    expected, found = read_source(source).cells, nbformat.read(target, as_version=4).cells
    lines = [
        f"{target.name} cell {number} is not the source's: {wanted.source.strip().splitlines()[0]!r}"
        for number, (wanted, cell) in enumerate(zip(expected, found, strict=False), 1)
        if identity(wanted) != identity(cell)
    ]
    if len(expected) != len(found):
        lines.append(f"{target.name} has {len(found)} cells, its source {len(expected)}")
    return lines


def check(folder: Path) -> list[str]:
    """Everything that is out of step in a folder, either way round."""
    orphans = [path for path in sorted(folder.glob("*.ipynb")) if not path.with_suffix(".py").exists()]
    lines = [line for source in sorted(folder.glob("*.py")) for line in differences(source)]
    return lines + [f"{path.name} has no source {path.stem}.py" for path in orphans]


def build_all(sources: list[Path]) -> None:
    for source in sources:
        start = time.perf_counter()
        try:
            target = build(source)
        except CellExecutionError as error:  # its text holds the cell's source and the traceback
            sys.exit(f"{source.name} failed, its notebook is left as it was.\n{error}")
        print(f"{target.name:42} {time.perf_counter() - start:5.1f} s", flush=True)
        for line in complaints(nbformat.read(target, as_version=4), target):
            print(f"  {line}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="?", default="", help="build those whose name starts with this, as 02")
    parser.add_argument("--check", action="store_true", help="run nothing, compare sources and notebooks")
    parser.add_argument("--folder", type=Path, help="only this folder  [default: all]")
    arguments = parser.parse_args()
    folders = [arguments.folder] if arguments.folder else [NOTEBOOKS, NEIGHBOURS, STUDY]
    if arguments.check:
        lines = [line for folder in folders for line in check(folder)]
        sys.exit("\n".join(["Out of step (remedy: make build):", *lines]) if lines else 0)
    sources = [source for folder in folders for source in sorted(folder.glob(f"{arguments.only}*.py"))]
    if not sources:
        sys.exit(f"No source {' or '.join(f'{folder / arguments.only}*.py' for folder in folders)}")
    build_all(sources)


if __name__ == "__main__":
    main()
