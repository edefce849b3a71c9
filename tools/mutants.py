"""Plants small mistakes in the library and counts those that the fast tests catch: `make test-mutants`, or

    .venv/bin/python tools/mutants.py objectives priors     these modules only (all of MODULES by default); prints what survived
    .venv/bin/python tools/mutants.py --write               also puts the table into docs/versions.md
    .venv/bin/python tools/mutants.py --sample 0            every mistake, instead of SAMPLE a module
    .venv/bin/python tools/mutants.py --tests tests/test_probes.py -- probes      against the fast tests of these files alone

The mistakes are what mutmut's operators make of one expression or assignment in a function: another operator, number or
branch, an argument left out, None for a value. Strings, annotations and what stands in a `raise` remain: they are for people. Of a
module's mistakes those with the smallest hashes are tried, so that a change elsewhere leaves the sample as it was.

Everything is imported and collected once; a fork then runs all fast tests and notes which of them reach which lines. For
each mistake another fork gives the changed function its new code, and runs the tests that reach the statement, until one fails.
"""

import argparse
import gc
import hashlib
import os
import pickle
import resource
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import FunctionType, ModuleType
from typing import NamedTuple

import coverage
import libcst as cst
import pytest
import tables
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators, operator_string

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "rpm_tutorial"
MODULES = (
    "_checks", "_log_space", "objectives", "priors", "finite", "shared_latent", "gaussian", "derivation", "chain",
    "critics", "estimators", "_tiles", "evidence", "labelled_evidence", "critic_checks",
    "datasets", "checkpoints", "training", "distributed", "probes", "course.handouts", "course.dashboard",
)  # fmt: skip
SAMPLE = 40
LONGEST = 20  # seconds of tests for one mistake: past it, those that remain are left out
OPTIONS = ("-q", "-s", "-p", "no:cacheprovider", "-m", "not slow and not notebook and not browser and not nightly")
NO_PLACE = 3  # a fork's exit status if the live module has no such function


class Mistake(NamedTuple):
    module: str
    function: str
    lines: range  # those of the statement that was changed
    change: str
    tree: cst.Module
    old: cst.CSTNode
    new: cst.CSTNode

    def source(self) -> str:
        """The whole module with it."""
        return self.tree.deep_replace(self.old, self.new).code


class Planter(cst.CSTVisitor):
    """Collects the mistakes of one module."""

    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, module: str, wrapper: MetadataWrapper):
        super().__init__()
        self.module, self.tree, self.mistakes = module, wrapper.module, []
        self.names, self.statements = [], []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, (cst.Annotation, cst.Decorator, cst.Raise)):
            return False
        if isinstance(node, (cst.FunctionDef, cst.ClassDef)):
            self.names.append(node)
        if isinstance(node, (cst.BaseCompoundStatement, cst.SimpleStatementLine)):
            self.statements.append(node)
        if any(isinstance(outer, cst.FunctionDef) for outer in self.names):
            for kind, operator in mutation_operators:
                if isinstance(node, kind) and operator is not operator_string:
                    self.mistakes += [self.mistake(node, changed) for changed in operator(node)]
        return True

    def on_leave(self, node: cst.CSTNode) -> None:
        for stack in (self.names, self.statements):
            if stack and stack[-1] is node:
                stack.pop()

    def mistake(self, node: cst.CSTNode, changed: cst.CSTNode) -> Mistake:
        statement = self.statements[-1]
        old, new = (self.tree.code_for_node(n).strip() for n in (statement, statement.deep_replace(node, changed)))
        place = self.get_metadata(PositionProvider, statement)
        last = place.end.line
        if isinstance(statement, cst.BaseCompoundStatement) and not isinstance(statement, cst.FunctionDef):
            last = self.get_metadata(PositionProvider, statement.body).start.line
        name = ".".join(outer.name.value for outer in self.names)
        return Mistake(
            self.module, name, range(place.start.line, last + 1), difference(old, new), self.tree, node, changed
        )


def difference(old: str, new: str) -> str:
    """The first and last lines that differ, as `- old` and `+ new`."""
    old, new = old.splitlines(), new.splitlines()
    while old and new and old[0] == new[0]:
        old, new = old[1:], new[1:]
    while old and new and old[-1] == new[-1]:
        old, new = old[:-1], new[:-1]
    return " ".join(["-", *map(str.strip, old), " +", *map(str.strip, new)])


def path_of(module: str) -> Path:
    return PACKAGE.joinpath(*module.split(".")).with_suffix(".py")


def mistakes_of(module: str, sample: int) -> list[Mistake]:
    wrapper = MetadataWrapper(
        cst.parse_module((PACKAGE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    )
    planter = Planter(module, wrapper)
    wrapper.visit(planter)
    hashed = {hashlib.sha256(f"{m.function} {m.change}".encode()).digest(): m for m in planter.mistakes}
    return [hashed[key] for key in sorted(hashed)][: sample or None]


def ordered(functions) -> dict[str, list[FunctionType]]:
    """By qualified name; those that share one in the order of their lines."""
    found = defaultdict(list)
    for function in sorted(functions, key=lambda f: f.__code__.co_firstlineno):
        found[function.__code__.co_qualname].append(function)
    return found


def functions_in(file: Path | str, *generation: int) -> dict[str, list[FunctionType]]:
    return ordered(
        f for f in gc.get_objects(*generation) if type(f) is FunctionType and f.__code__.co_filename == str(file)
    )


def plant(mistake: Mistake, live: dict[str, list[FunctionType]]) -> None:
    """Run the changed source as a module of its own, and give the live functions the code and defaults of its functions."""
    gc.disable()  # what is new then stays in the youngest generation, where it is soon found
    module = sys.modules[f"rpm_tutorial.{mistake.module}"]
    copy = ModuleType(module.__name__)
    copy.__dict__.update({name: getattr(module, name) for name in ("__package__", "__file__", "__spec__")})
    exec(compile(mistake.source(), "<mistake>", "exec"), copy.__dict__)
    fresh = functions_in("<mistake>", 0)
    gc.enable()
    if any(len(live[name]) != len(functions) and "<locals>" not in name for name, functions in fresh.items()):
        os._exit(NO_PLACE)
    for name, functions in fresh.items():
        for old, new in zip(live[name], functions):
            old.__code__, old.__defaults__, old.__kwdefaults__ = new.__code__, new.__defaults__, new.__kwdefaults__


def in_a_fork(work, seconds: float) -> int:
    """The exit status of `work`, negative if a signal ended it: after so long on the processor, or six times that by the clock."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 1))
        signal.alarm(int(6 * seconds))
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1), os.dup2(null, 2)
        try:
            os._exit(work())
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what a test had started and an end by a signal left
    return os.waitstatus_to_exitcode(status)


def run(session: pytest.Session, items: list, context=lambda name: None) -> dict[str, float]:
    """Run the tests, to the first that fails; seconds of the processor of each that passed."""
    seconds = {}
    for item, following in zip(items, [*items[1:], None]):
        started = time.process_time()
        context(item.nodeid)
        item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
        seconds[item.nodeid] = time.process_time() - started
        if session.testsfailed:
            break
    return seconds


class Tries:
    """A pytest plugin that tries mistakes instead of running the tests once."""

    def __init__(self, modules: list[str], sample: int):
        self.modules, self.sample, self.rows = modules, sample, []

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        for module in self.modules:
            import_module(f"rpm_tutorial.{module}")
        live = {module: functions_in(PACKAGE / f"{module.replace('.', '/')}.py") for module in self.modules}
        gc.collect(), gc.freeze()
        reached, seconds = self.reached(session)
        by_name = {item.nodeid: item for item in session.items}
        for module in self.modules:
            started, outcomes = time.perf_counter(), defaultdict(list)
            lines = reached.get(str(PACKAGE / f"{module.replace('.', '/')}.py"), {})
            for mistake in mistakes_of(module, self.sample):
                names = {name for line in mistake.lines for name in lines.get(line, ()) if name in seconds}
                items = [by_name[name] for name in self.chosen(names, module, seconds)]
                outcomes[self.outcome(session, mistake, live[module], items, seconds)].append((mistake, len(names)))
            made = sum(len(outcomes[kind]) for kind in ("killed", "survived", "not reached"))
            taken = time.perf_counter() - started
            self.rows.append((module, made, *(len(outcomes[kind]) for kind in ("killed", "survived", "not reached"))))
            print(f"{module}: {len(outcomes['killed'])} of {made} killed, {taken:.0f} s")
            for kind in ("survived", "not reached", "no place"):
                for mistake, count in sorted(outcomes[kind], key=lambda pair: pair[0].lines.start):
                    print(
                        f"  {kind} ({count}) {module}:{mistake.lines.start} {mistake.function}: {mistake.change}",
                        flush=True,
                    )
        return True

    def reached(self, session: pytest.Session) -> tuple[dict, dict]:
        """Which tests reach each line of each file, and the seconds of each test."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "found"

            def work() -> int:
                cover = coverage.Coverage(
                    data_file=None, include=[f"{PACKAGE}/*.py", f"{PACKAGE}/*/*.py"], config_file=False
                )
                cover.start()
                seconds = run(session, session.items, cover.switch_context)
                cover.stop()
                data = cover.get_data()
                path.write_bytes(
                    pickle.dumps(({f: data.contexts_by_lineno(f) for f in data.measured_files()}, seconds))
                )
                return int(session.testsfailed > 0)

            if in_a_fork(work, 1_800):
                failed = [*pickle.loads(path.read_bytes())[1]][-1] if path.exists() else "?"
                raise pytest.UsageError(f"the fast tests fail without any mistake, at {failed}: mend that first")
            return pickle.loads(path.read_bytes())

    @staticmethod
    def chosen(names: set[str], module: str, seconds: dict[str, float]) -> list[str]:
        """File by file, the module's own first, then the quickest, to LONGEST seconds in all."""
        files = defaultdict(list)
        for name in seconds:  # in the order in which they ran
            if name in names:
                files[name.split("::")[0]].append(name)

        def rank(file: str) -> tuple[bool, float]:
            return not Path(file).stem.startswith(f"test_{module.split('.')[-1].strip('_')}"), sum(
                seconds[name] for name in files[file]
            )

        chosen, total = [], 0.0
        for name in (name for file in sorted(files, key=rank) for name in files[file]):
            total += seconds[name]
            if total < LONGEST or not chosen:
                chosen.append(name)
        return chosen

    @staticmethod
    def outcome(session, mistake: Mistake, live: dict, items: list, seconds: dict[str, float]) -> str:
        if not items:
            return "not reached"

        def work() -> int:
            plant(mistake, live)
            run(session, items)
            return int(session.testsfailed > 0)

        status = in_a_fork(work, 10 + 5 * sum(seconds[item.nodeid] for item in items))
        return {0: "survived", NO_PLACE: "no place"}.get(status, "killed")


def table(rows: list[tuple]) -> Iterator[str]:
    head = ("module", "made", "killed", "survived", "reached by no test")
    yield from (f"| {' | '.join(map(str, row))} |" for row in (head, ["---"] * len(head), *rows))
    yield f"| all | {' | '.join(str(sum(column)) for column in list(zip(*rows))[1:])} |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("modules", nargs="*", choices=[*MODULES, []], default=[])
    parser.add_argument("--sample", type=int, default=SAMPLE)
    parser.add_argument("--tests", nargs="+", default=["tests"])
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    os.environ |= {"HYPOTHESIS_PROFILE": "first failure", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    tries = Tries(given.modules or list(MODULES), given.sample)
    with tempfile.TemporaryDirectory() as folder:
        status = pytest.main([*OPTIONS, f"--basetemp={folder}/tests", *given.tests], plugins=[tries])
    lines = list(table(tries.rows))
    print(*lines, sep="\n")
    if given.write and tries.rows:
        tables.replace("mutants", "\n".join(lines) + "\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
