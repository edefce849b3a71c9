"""A pytest plugin: each lesson's code cells as tests, run by nbval, and its budget as one more.

nbval starts the kernel and runs the cells; notebook_compare.py decides whether their outputs agree with the
stored ones. `pytest notebooks/02_the_elbo.ipynb` runs one lesson; `-m "not notebook"` leaves all out.

A lesson that tests/browser/test_lessons.py runs in the same session is compared and held to its budget there, and not run
a second time here; but lesson 14, whose trained networks differ most from processor to processor, runs here on other
arithmetic (tools/processors.py has the kinds; `--processor` names one for all).

The budget counts seconds of the processor on its own arithmetic, by tools/budgets.py; the table at the end has the clock's
beside them, which are a reader's on a quiet machine.
"""

import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from unittest import mock

import budgets
import chromium
import psutil
import pytest
from nbval.plugin import IPyNbCell, IPyNbFile
from needs import need_fashion_mnist
from notebook_compare import is_reproducible, outputs_difference
from processors import KINDS

SECONDS, SECONDS_OF_A_NEIGHBOUR, SECONDS_OF_A_CELL, PEAK_MIB = 90, 60, 20, 1024
ELSEWHERE = "14"


@dataclass
class Cost:
    """What running a lesson took."""

    cells: dict[str, float] = field(default_factory=dict)  # seconds by the clock
    worked: dict[str, float] = field(default_factory=dict)  # seconds of the processor
    peak_mib: float | None = None
    limit: int = SECONDS

    def overruns(self) -> list[str]:
        """What lies above the budget."""
        found = [line for cell in self.worked.items() for line in budgets.exceeded(*cell, SECONDS_OF_A_CELL)]
        found += budgets.exceeded("the notebook", sum(self.worked.values()), self.limit)
        if self.peak_mib is not None and self.peak_mib > PEAK_MIB:
            found.append(f"the notebook reached {self.peak_mib:.0f} MiB of {PEAK_MIB}")
        return found


COSTS = pytest.StashKey[dict[str, Cost]]()


class Cell(IPyNbCell):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.output_timeout = budgets.HANG

    def compare_outputs(self, test, ref, skip_compare=None) -> bool:
        found = outputs_difference(ref, test, numbers=is_reproducible(self.cell))
        if outputs_difference(ref, test):
            self.user_properties.append(("moved", "digits that are not the stored ones"))
        self.comparison_traceback = [found] if found else []
        return found is None

    def runtest(self) -> None:
        cost, start, worked = self.parent.cost, time.perf_counter(), self.parent.worked()
        try:
            super().runtest()
            cost.worked[self.name] = self.parent.worked() - worked  # not of a kernel that nbval has given up
        finally:
            cost.cells[self.name] = time.perf_counter() - start


class Budget(pytest.Item):
    """Runs last: the kernel still lives, and has reached its peak."""

    def runtest(self) -> None:
        cost = self.parent.cost
        if not cost.cells:
            pytest.skip("no cell of this lesson ran")
        cost.peak_mib = peak_mib(self.parent.kernel.km.provisioner.pid)
        assert cost.overruns() == []
        if cost.peak_mib is None:
            pytest.skip("peak memory is read from /proc, which this system lacks")

    def reportinfo(self):
        return self.path, 0, f"{self.path.name}::budget"


class Lesson(IPyNbFile):
    def setup(self) -> None:
        if "fashion_mnist" in self.path.read_text(encoding="utf-8"):
            need_fashion_mnist()
        with mock.patch.dict(os.environ, KINDS[self.kind]):  # the kernel's
            super().setup()

    def collect(self):
        limit = SECONDS_OF_A_NEIGHBOUR if self.path.parent.name == "neighbours" else SECONDS
        self.kind = self.config.option.processor or ("plain" if self.path.name.startswith(ELSEWHERE) else "own")
        name = self.path.stem if self.kind == "own" else f"{self.path.stem}, {self.kind}"
        self.cost = self.config.stash[COSTS].setdefault(name, Cost(limit=limit))
        for cell in super().collect():
            yield Cell.from_parent(self, name=cell.name, cell_num=cell.cell_num, cell=cell.cell, options=cell.options)
        if self.kind == "own":
            yield Budget.from_parent(self, name="budget")

    def worked(self) -> float:
        """Seconds of the processor that the kernel has had so far."""
        times = psutil.Process(self.kernel.km.provisioner.pid).cpu_times()
        return times.user + times.system


def peak_mib(pid: int) -> float | None:
    """The peak resident memory of a process so far.

    Not from getrusage: there a child starts with the peak of the process that started it.
    """
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return None
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) / 1024


def pytest_addoption(parser) -> None:
    parser.addoption("--processor", choices=KINDS, help="the arithmetic of all kernels")
    parser.addoption("--run-times", type=Path, help="write what each lesson took to this file")


def pytest_configure(config) -> None:
    config.stash[COSTS] = {}


def pytest_collect_file(file_path: Path, parent):
    if file_path.suffix == ".ipynb" and not parent.config.option.nbval:
        lesson = Lesson.from_parent(parent, path=file_path)
        lesson.add_marker("notebook")
        return lesson
    return None


@pytest.hookimpl(trylast=True)  # what -m and -k leave
def pytest_collection_modifyitems(config, items: list[pytest.Item]) -> None:
    if chromium.find():
        parameters = [item.callspec.params for item in items if hasattr(item, "callspec")]
        run = {chosen["opened"].stem for chosen in parameters if "opened" in chosen}
        lessons = [item for item in items if isinstance(item.parent, Lesson) and item.parent.kind == "own"]
        twice = {item for item in lessons if item.path.stem in run}
        config.hook.pytest_deselected(items=list(twice))
        items[:] = [item for item in items if item not in twice]


def pytest_sessionfinish(session) -> None:
    if hasattr(session.config, "workeroutput"):  # of pytest-xdist: what a process hands to the one that prints
        costs = session.config.stash[COSTS]
        session.config.workeroutput["costs"] = {name: asdict(cost) for name, cost in costs.items()}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    for name, cost in getattr(node, "workeroutput", {"costs": {}})["costs"].items():
        if cost["cells"]:  # each process collects all lessons, and runs some
            node.config.stash[COSTS][name] = Cost(**cost)


def pytest_terminal_summary(terminalreporter, config) -> None:
    costs = {name: cost for name, cost in config.stash[COSTS].items() if cost.cells}
    if not costs:
        return
    seconds = f"{SECONDS} s a lesson, {SECONDS_OF_A_NEIGHBOUR} s a neighbour, {SECONDS_OF_A_CELL} s a cell"
    terminalreporter.section(f"notebooks: budget {seconds}, {PEAK_MIB} MiB")
    terminalreporter.write_line(f"{'':34}{'seconds':>8}{'processor':>11}   {'slowest cell':<18}{'peak MiB':>9}")
    rows = ["lesson,seconds,slowest,mib\n"]
    for name, cost in sorted(costs.items()):
        cell, slowest = max(cost.cells.items(), key=lambda item: item[1])
        seconds, worked = sum(cost.cells.values()), sum(cost.worked.values())
        peak = "-" if cost.peak_mib is None else f"{cost.peak_mib:.0f}"
        slow = f"{cell}, {slowest:.1f} s"
        terminalreporter.write_line(f"{name:34}{seconds:8.1f}{worked:11.1f}   {slow:<18}{peak:>9}")
        rows.append(f"{name},{seconds:.0f},{slowest:.1f},{cost.peak_mib or 0:.0f}\n")
    if path := config.option.run_times:
        path.write_text("".join(rows))
