"""Try lessons as Binder would run them: `python tools/on_binder.py [NN ...]`; Linux, and the right to make a control group.

The start script, a JupyterLab server and a lesson's kernel share one processor and 1 GiB of memory, what Binder promises; the
kernel's system ends what asks for more. What it cannot emulate: Binder's image, which is built with conda.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import build_notebooks
import lesson_browser

ROOT = Path(__file__).resolve().parents[1]
MEMORY = 2**30
GROUPS = Path("/sys/fs/cgroup")
if (GROUPS / "cgroup.controllers").exists():  # version 2: a group is one folder; version 1 has a tree for memory alone
    TREE, LIMIT, EVENTS = GROUPS, "memory.max", "memory.events"
else:
    TREE, LIMIT, EVENTS = GROUPS / "memory", "memory.limit_in_bytes", "memory.oom_control"
RUN = """
import sys, nbformat
from nbclient import NotebookClient
options = {"timeout": 600, "startup_timeout": 600, "extra_arguments": ["--IPKernelApp.log_level=40"]}
NotebookClient(nbformat.read(sys.argv[1], as_version=4), kernel_name="python3", **options).execute()
"""


class Impossible(RuntimeError):
    """This system has no control groups, or not for us."""


@contextlib.contextmanager
def limited() -> Iterator[tuple[Path, Path]]:
    """A control group with Binder's memory: the file that takes process ids, and the one that counts those ended."""
    group = TREE / f"rpm-tutorial-{os.getpid()}"
    try:
        group.mkdir()
        (group / LIMIT).write_text(str(MEMORY))
    except OSError as error:
        raise Impossible(
            f"no control group for memory can be made: {error}. Its administrator can, on Linux"
        ) from error
    try:
        yield group / "cgroup.procs", group / EVENTS
    finally:
        group.rmdir()


def ended_for_memory(events: Path) -> int:
    return next(int(line.split()[1]) for line in events.read_text().splitlines() if line.startswith("oom_kill "))


def run(lesson: Path) -> str:
    """Run one lesson; what went wrong, or nothing."""
    with limited() as (members, events):
        inside = f'echo $$ > "{members}" && exec taskset --cpu-list 0 bash binder/start "$0" "$@"'
        command = ["bash", "-c", inside, sys.executable, __file__, "--inside", lesson.resolve()]
        result = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"CPU_LIMIT": "1.0"}
        )
        killed = ended_for_memory(events)
    if killed:
        return f"{killed} processes were ended for asking for more than {MEMORY >> 20} MiB"
    return result.stderr[-1000:] if result.returncode else ""


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--inside"]:
        with lesson_browser.serve():
            lesson = Path(arguments[1])
            sys.exit(subprocess.run([sys.executable, "-c", RUN, lesson], cwd=lesson.parent).returncode)
    lessons = sorted(build_notebooks.NOTEBOOKS.glob("*.ipynb"))
    lessons = [path for path in lessons if path.name.startswith(tuple(arguments) or "")]
    failed = 0
    for lesson in lessons:
        problem = run(lesson)
        failed += bool(problem)
        print(f"{lesson.stem:34}{problem or 'ran'}", flush=True)
    sys.exit(1 if failed or not lessons else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
