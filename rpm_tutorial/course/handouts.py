"""The lessons as a class needs them: without outputs for students, with solutions for teachers, for nbgrader.

Nothing here imports torch, but for running a solution once before it is handed out.
"""

import ast
import contextlib
import copy
import io
import json
import re
import textwrap
from importlib.util import resolve_name
from pathlib import Path
from typing import NamedTuple

_PACKAGE = Path(__file__).parents[1]


def notebooks() -> list[Path]:
    """The course's notebooks, lessons first: those that the wheel brought along, or those of the checkout."""
    folders = "", "neighbours", "study"  # and no .ipynb_checkpoints
    return [path for folder in folders for path in sorted((_folder() / folder).glob("*.ipynb"))]


def place(path: Path, folder: Path, assignment: bool = False) -> Path:
    """Where a copy of a notebook goes in `folder`, which is made: where links from one to another stay right.

    nbgrader wants each assignment in a folder of its own, below source.
    """
    copy_of = folder / "source" / path.stem / path.name if assignment else folder / path.relative_to(_folder())
    copy_of.parent.mkdir(parents=True, exist_ok=True)
    return copy_of


def _folder() -> Path:
    installed = _PACKAGE / "notebooks"
    return installed if installed.is_dir() else _PACKAGE.parent / "notebooks"


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def write(notebook: dict, path: Path) -> None:
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def source_of(cell: dict) -> str:
    return "".join(cell["source"])  # a list of lines, or one text


def has_exercises(notebook: dict) -> bool:
    return any(map(_is_exercise, notebook["cells"]))


def _is_exercise(cell: dict) -> bool:
    return "exercise" in cell["metadata"].get("tags", [])


def student(notebook: dict) -> dict:
    """A copy without outputs: it shows what its reader runs. Questions keep their folded answers; exercises are blank."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    return notebook


def teacher(notebook: dict) -> dict:
    """A copy with a solution in each exercise's cell, which is run: its output is what the check says.

    Raises `ValueError` if an exercise's cell is not of the usual form, or its check doesn't call the solution right.
    """
    notebook = copy.deepcopy(notebook)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    imports = [line for cell in code for line in re.findall(r"(?m)^(?:import|from) .+", source_of(cell))]
    for cell in code:
        if _is_exercise(cell):
            solved = _solved(source_of(cell), imports)
            cell["source"] = solved.splitlines(keepends=True)
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": [_run(solved, imports)]}]
    return notebook


def nbgrader(notebook: dict) -> dict:
    """The student's copy as nbgrader's source of an assignment: after each exercise a locked cell that gives a point for it.

    The exercise's own cell stays an ordinary one, which nbgrader neither empties nor overwrites.
    """
    notebook = student(notebook)
    cells, notebook["cells"] = notebook["cells"], []
    for cell in cells:
        notebook["cells"].append(cell)
        for lesson, name, answer in _checks(source_of(cell)) if _is_exercise(cell) else ():
            verdict = f"rpm.lessons.{lesson}.{name}.verdict({answer})"
            grades = {"grade": True, "points": 1, "locked": True, "solution": False, "task": False}
            point = {
                "cell_type": "code", "id": f"{cell['id']}-{name}"[:64], "outputs": [], "execution_count": None,
                "metadata": {"nbgrader": {"grade_id": f"{lesson}-{name}", "schema_version": 3, **grades}},
                "source": [f"assert (verdict := {verdict}).right, verdict.message"],
            }  # fmt: skip
            notebook["cells"].append(point)
    return notebook


class Solution(NamedTuple):
    """The syntax tree of an exercise's solution, and the statements at the top of its file, by the names that they bind."""

    tree: ast.Lambda | ast.FunctionDef
    defined: dict[str, ast.stmt]


def solution(lesson: str, name: str) -> Solution:
    """The solution of exercise `name` of `lesson_NN` or `neighbour_NN`; `ValueError` if there is none."""
    path = _PACKAGE / "course" / "lessons" / f"{lesson}.py"
    statements = ast.parse(path.read_text(encoding="utf-8")).body if path.exists() else []
    defined = {bound: statement for statement in statements for bound in _names(statement)}
    call = getattr(defined.get(name), "value", None)
    tree = {keyword.arg: keyword.value for keyword in getattr(call, "keywords", ())}.get("solution")
    tree = defined.get(tree.id) if isinstance(tree, ast.Name) else tree
    if not isinstance(tree, ast.Lambda | ast.FunctionDef):
        raise ValueError(f"{path.name} defines no exercise {name!r} whose solution is a function or a lambda")
    return Solution(tree, defined)


def _names(statement: ast.stmt) -> list[str]:
    """What a statement at the top of a file binds."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name for alias in statement.names]
    if isinstance(statement, ast.FunctionDef):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else ()
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _needed(tree: ast.AST, defined: dict[str, ast.stmt]) -> list[str]:
    """Imports, helpers and constants of the exercise's file that a solution uses, in an order that runs."""
    needed: list[str] = []
    for name in (node.id for node in ast.walk(tree) if isinstance(node, ast.Name)):
        statement = defined.get(name)
        if isinstance(statement, ast.Import | ast.ImportFrom):
            needed.insert(0, _import_of(name, statement))
        elif statement is not None and statement is not tree:
            needed += [*_needed(statement, defined), ast.unparse(statement)]
    return sorted(dict.fromkeys(needed), key=lambda text: not text.startswith(("import ", "from ")))


def _import_of(name: str, statement: ast.Import | ast.ImportFrom) -> str:
    """The import of one name, as code outside the package writes it."""
    alias = ast.unparse(next(alias for alias in statement.names if name in (alias.name, alias.asname)))
    if isinstance(statement, ast.Import):
        return f"import {alias}"
    module = resolve_name("." * statement.level + (statement.module or ""), "rpm_tutorial.course.lessons")
    return f"from {module} import {alias}"


def _checks(source: str) -> list[tuple[str, str, str]]:
    """(lesson, exercise, answer) of each `rpm.lessons.lesson_NN.NAME.check(answer)` in a cell; a neighbour's likewise."""
    return re.findall(r"\b((?:lesson|neighbour)_\d+)\.(\w+)\.check\((\w+)\)", source)


def _solved(source: str, imports: list[str]) -> str:
    """An exercise's cell with its blanks filled."""
    lines, before = source.splitlines(), list[str]()
    checks = {answer: (lesson, name) for lesson, name, answer in _checks(source)}
    for statement in reversed(ast.parse(source).body):  # from the end: the line numbers of what is left stay right
        answer = next(iter(_names(statement)), None)
        if answer not in checks:
            continue
        tree, defined = solution(*checks.pop(answer))
        before = [text for text in _needed(tree, defined) if text not in imports] + before
        blank, filled = [statement], [f"{answer} = {ast.unparse(tree.body)}"]  # type: ignore[arg-type]  # a lambda's
        if isinstance(statement, ast.FunctionDef):
            expected, own = (", ".join(a.arg for a in function.args.args) for function in (tree, statement))
            if own != expected:
                raise ValueError(
                    f"{answer} takes ({own}); its exercise's solution takes ({expected}): use the same names"
                )
            blank = _blank(statement)
            body = [ast.Return(tree.body)] if isinstance(tree, ast.Lambda) else tree.body
            filled = textwrap.indent("\n".join(map(ast.unparse, body)), "    ").splitlines()
        lines[blank[0].lineno - 1 : blank[-1].end_lineno] = filled
    if checks or re.search(r"(?m)(return|=) \.\.\.$", "\n".join(lines)):
        raise ValueError(f"this exercise's cell has a blank that no check names:\n{source}")
    return "\n".join([*dict.fromkeys(before), *([""] if before else []), *lines])


def _blank(function: ast.FunctionDef) -> list[ast.stmt]:
    """What a solution replaces: `return ...`, or all of a function that has a bug to find, but for its docstring."""
    if ast.unparse(function.body[-1]) == "return ...":
        return function.body[-1:]
    return function.body[ast.get_docstring(function) is not None :]


def _run(code: str, imports: list[str]) -> str:
    """What a solved cell prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec("\n".join([*imports, code]), {})
    if not printed.getvalue().startswith("✓"):
        raise ValueError(f"the solution does not pass its own check: {printed.getvalue()}\n{code}")
    return printed.getvalue()
