"""What a class is given: nothing that answers an exercise for students, all of it for teachers, points."""

import ast
import inspect
import re
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

from rpm_tutorial import handouts, lessons
from rpm_tutorial.course.cli import main
from rpm_tutorial.course.exercise import Exercise
from rpm_tutorial.course.lessons import LESSONS, NEIGHBOURS

NOTEBOOKS = handouts.notebooks()
EXERCISES = {
    (lesson, name): exercise
    for lesson in LESSONS + NEIGHBOURS
    for name, exercise in vars(getattr(lessons, lesson)).items()
    if isinstance(exercise, Exercise)
}


def exported(kind: str, folder: Path) -> Path:
    main(["export", f"--{kind}", str(folder)], standalone_mode=False)
    return folder


def is_exercise(cell: dict) -> bool:
    return "exercise" in cell["metadata"].get("tags", [])


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


def statements(function: ast.Lambda | ast.FunctionDef) -> list[str]:
    return [ast.unparse(s) for s in ([function.body] if isinstance(function, ast.Lambda) else function.body)]


def with_bug(exercise: Exercise) -> list[str]:
    """The statements of the function in which the reader is to find a bug."""
    return statements(ast.parse(inspect.getsource(exercise.with_bug)).body[0]) if exercise.with_bug else []


def answers(module: str, name: str) -> list[str]:
    """The texts that would give an exercise away: its solution, each statement of it, and its last hint."""
    exercise, tree = EXERCISES[module, name], handouts.solution(module, name).tree
    parts = [text for text in statements(tree) if text not in with_bug(exercise)]  # a repair keeps most statements
    return [squeezed(text) for text in (ast.unparse(tree), *parts, exercise.hints[-1])]


def beginning(module: str) -> str:
    """How the notebook of a module of exercises begins: 07, N10."""
    return module[-2:] if module in LESSONS else f"N{module[-2:]}"


def asked(notebook: dict) -> str:
    """The cells of a notebook's exercises, and the text before each."""
    cells = [pair for pair in pairwise(notebook["cells"]) if is_exercise(pair[1])]
    return squeezed("\n".join(handouts.source_of(cell) for pair in cells for cell in pair))


@pytest.fixture(scope="module")
def handout(tmp_path_factory) -> Path:
    return exported("student", tmp_path_factory.mktemp("class") / "handout")


def test_a_students_notebook_is_where_it_was_has_every_cell_and_no_output(handout: Path):
    folder = NOTEBOOKS[0].parent
    places = {path.relative_to(folder) for path in NOTEBOOKS}
    assert {p.relative_to(handout) for p in handout.rglob("*.*")} == places
    assert {p.relative_to(folder) for p in folder.rglob("*.ipynb")} == places
    for path in NOTEBOOKS:
        given, ours = nbformat.read(handouts.place(path, handout), as_version=4), nbformat.read(path, as_version=4)
        nbformat.validate(given)
        for cell, our in zip(given.cells, ours.cells, strict=True):
            assert (cell.id, cell.cell_type, cell.source) == (our.id, our.cell_type, our.source)
            assert not cell.get("outputs") and not cell.get("execution_count")


def test_no_solution_and_no_last_hint_is_in_the_handout(handout: Path):
    """A text of under 25 characters, such as log(n), gives nothing away in the lesson's prose."""
    notebooks = {path.name: handouts.read(path) for path in handout.rglob("*.ipynb")}
    texts = {name: squeezed("\n".join(map(handouts.source_of, book["cells"]))) for name, book in notebooks.items()}
    for module, name in EXERCISES:
        for text in answers(module, name):
            assert [book for book, said in texts.items() if len(text) >= 25 and text in said] == [], (module, name)
            own = [asked(book) for path, book in notebooks.items() if path.startswith(beginning(module))]
            assert len(own) == 1 and text not in own[0], (module, name)
    solved = handouts.teacher(next(book for name, book in notebooks.items() if name.startswith("06")))
    assert any(text in asked(solved) for text in answers("lesson_06", "bias")), "the search would find a solution"


def test_a_lesson_shows_the_function_with_a_bug_that_its_exercise_knows():
    shown = {}
    for cell in (cell for path in NOTEBOOKS for cell in handouts.read(path)["cells"]):
        if "bug" in cell["metadata"].get("tags", []):
            source = handouts.source_of(cell)
            function = next(node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
            module, name = re.search(rf"(lesson_\d+)\.(\w+)\.check\({function.name}\)", source).groups()
            shown[module, name] = [text.replace("rpm.", "") for text in statements(function)]
    assert shown == {key: with_bug(exercise) for key, exercise in EXERCISES.items() if exercise.with_bug}


def test_a_teachers_notebook_has_each_exercise_solved_and_checked(tmp_path: Path):
    exported("teacher", tmp_path)
    for path in NOTEBOOKS:
        given, ours = handouts.read(handouts.place(path, tmp_path)), handouts.read(path)
        nbformat.validate(nbformat.from_dict(given))
        for cell, blank in zip(given["cells"], ours["cells"], strict=True):
            if is_exercise(cell):
                solved, check = handouts.source_of(cell), handouts.source_of(blank).splitlines()[-1]
                assert cell["outputs"][0]["text"][0].startswith("✓ Right")
                assert solved.endswith(check) and not re.search(r"(?m)(return|=) \.\.\.$", solved)
            else:
                assert cell == blank


def test_an_assignment_for_nbgrader_gives_a_locked_point_for_each_exercise(tmp_path: Path):
    exported("nbgrader", tmp_path)
    given = {path.name for path in NOTEBOOKS if path.parent.name != "study"}  # which has no exercises
    assert {path.name for path in tmp_path.rglob("*.ipynb")} == given
    for path in (path for path in NOTEBOOKS if path.name in given):
        notebook = handouts.read(tmp_path / "source" / path.stem / path.name)
        nbformat.validate(nbformat.from_dict(notebook))
        points = [cell["metadata"]["nbgrader"] for cell in notebook["cells"] if "nbgrader" in cell["metadata"]]
        ours = [f"{module}-{name}" for module, name in EXERCISES if path.name.startswith(beginning(module))]
        assert sorted(point["grade_id"] for point in points) == sorted(ours)
        assert all(point["locked"] and point["points"] == 1 and point["schema_version"] == 3 for point in points)
        others = [cell for cell in notebook["cells"] if "nbgrader" not in cell["metadata"]]
        assert others == handouts.student(handouts.read(path))["cells"]


def lesson_with(code: str) -> dict:
    imports = {"cell_type": "code", "metadata": {}, "source": ["import rpm_tutorial as rpm\n", "import torch"]}
    exercise = {"cell_type": "code", "id": "one", "metadata": {"tags": ["exercise"]}, "source": code}
    return {"cells": [imports, exercise]}


BLANK = "def f(n):\n    return ...\n"
CEILING = f"{BLANK}rpm.lessons.lesson_00.ceiling.check(f)"


def test_a_point_is_given_for_a_solution_and_not_for_a_blank():
    def run(notebook: dict) -> None:
        exec("\n".join(map(handouts.source_of, notebook["cells"])), {})

    run(handouts.nbgrader(handouts.teacher(lesson_with(CEILING))))
    with pytest.raises(AssertionError, match="Not answered yet"):
        run(handouts.nbgrader(lesson_with(CEILING)))


def test_two_exercises_in_one_cell_are_both_solved_and_a_function_with_a_bug_is_replaced_as_a_whole():
    code = "x = 0\npairs_needed = ...\nrpm.lessons.lesson_05.pairs_needed.check(pairs_needed)\n\n"
    code += 'def top(n):\n    """Of n."""\n    n = n + 1\n    return math.log(n)\n\n\nrpm.lessons.lesson_00.ceiling.check(top)'
    cell = handouts.teacher(lesson_with(code))["cells"][1]
    source = handouts.source_of(cell)
    assert "pairs_needed = math.ceil(math.exp(5))" in source and source.startswith("import math\n")
    assert 'def top(n):\n    """Of n."""\n    return math.log(n)\n' in source
    assert cell["outputs"][0]["text"][0].count("✓ Right") == 2


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (BLANK, "a blank that no check names"),
        (f"{BLANK}rpm.lessons.lesson_00.nothing.check(f)", "defines no exercise 'nothing'"),
        (f"{BLANK}rpm.lessons.lesson_00.log_evidence.check(f)", r"f takes \(n\); .*solution takes \(infonce, n\)"),
    ],
)
def test_an_exercise_that_cannot_be_solved_is_named(code: str, message: str):
    with pytest.raises(ValueError, match=message):
        handouts.teacher(lesson_with(code))


def test_a_solution_that_is_not_right_is_not_handed_out(monkeypatch):
    wrong = handouts.Solution(ast.parse("lambda n: n", mode="eval").body, {})
    monkeypatch.setattr(handouts, "solution", lambda module, name: wrong)
    with pytest.raises(ValueError, match="(?s)does not pass its own check: ✗ Not yet.*return n"):
        handouts.teacher(lesson_with(CEILING))
