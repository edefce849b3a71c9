"""What a class is given: nothing that answers an exercise for students, all of it for teachers, points."""

import ast
import inspect
import re
from pathlib import Path

import nbformat
import pytest

from rpm_tutorial import handouts, lessons
from rpm_tutorial.course.cli import main
from rpm_tutorial.course.exercise import Exercise
from rpm_tutorial.course.lessons import LESSONS, NEIGHBOURS

NOTEBOOKS = handouts.notebooks()
FOLDER = NOTEBOOKS[0].parent
EXERCISES = {
    (lesson, name): exercise
    for lesson in LESSONS + NEIGHBOURS
    for name, exercise in vars(getattr(lessons, lesson)).items()
    if isinstance(exercise, Exercise)
}


def export(*arguments: object) -> None:
    main(["export", *map(str, arguments)], standalone_mode=False)


def lesson(number: str) -> dict:
    return handouts.read(next(path for path in NOTEBOOKS if path.name.startswith(number)))


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


def exercise_part(notebook: dict) -> str:
    """The section with the exercises: from the last heading before the first of their cells to the next heading; or ""."""
    texts = [handouts.source_of(cell) for cell in notebook["cells"]]
    first = next((k for k, cell in enumerate(notebook["cells"]) if is_exercise(cell)), None)
    if first is None:
        return ""
    start = "\n".join(texts[:first]).rindex("\n## ")
    return re.split(r"(?m)^(?=## )", "\n".join(texts)[start + 1 :], maxsplit=2)[1]


def beginning(module: str) -> str:
    """How the notebook of a module of exercises begins: 07, N10."""
    return module[-2:] if module in LESSONS else f"N{module[-2:]}"


@pytest.fixture(scope="module")
def handout(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("class") / "handout"
    export("--student", folder)
    return folder


def test_a_students_notebook_is_where_it_was_has_every_cell_and_no_output(handout: Path):
    assert {p.relative_to(handout) for p in handout.rglob("*.*")} == {p.relative_to(FOLDER) for p in NOTEBOOKS}
    assert len(NOTEBOOKS) == len([*FOLDER.rglob("*.ipynb")])
    for path in NOTEBOOKS:
        given, ours = nbformat.read(handouts.place(path, handout), as_version=4), nbformat.read(path, as_version=4)
        nbformat.validate(given)
        for cell, our in zip(given.cells, ours.cells, strict=True):
            assert (cell.id, cell.cell_type, cell.source) == (our.id, our.cell_type, our.source)
            assert not cell.get("outputs") and not cell.get("execution_count")


def test_no_solution_and_no_last_hint_is_in_the_handout(handout: Path):
    """A text of under 25 characters, such as log(n), gives nothing away in the lesson's prose."""
    texts = {}
    for path in handout.rglob("*.ipynb"):
        notebook = handouts.read(path)
        everything = "\n".join(map(handouts.source_of, notebook["cells"]))
        texts[path.name] = squeezed(everything), squeezed(exercise_part(notebook))
    for module, name in EXERCISES:
        for text in answers(module, name):
            for notebook, (everything, near) in texts.items():
                assert not notebook.startswith(beginning(module)) or text not in near, (module, name)
                assert len(text) < 25 or text not in everything, (module, name, notebook)
    filled = squeezed(exercise_part(handouts.teacher(lesson("06"))))
    assert any(text in filled for text in answers("lesson_06", "bias")), "the search would find a solution"


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
    export("--teacher", tmp_path / "teacher")
    for path in NOTEBOOKS:
        given, ours = handouts.read(handouts.place(path, tmp_path / "teacher")), handouts.read(path)
        nbformat.validate(nbformat.from_dict(given))
        for cell, blank in zip(given["cells"], ours["cells"], strict=True):
            if is_exercise(cell):
                solved, check = handouts.source_of(cell), handouts.source_of(blank).splitlines()[-1]
                assert cell["outputs"][0]["text"][0].startswith("✓ Right")
                assert solved.endswith(check) and not re.search(r"(?m)(return|=) \.\.\.$", solved)
            else:
                assert cell == blank


def test_an_assignment_for_nbgrader_gives_a_locked_point_for_each_exercise(tmp_path: Path):
    export("--nbgrader", tmp_path / "class")
    given = [path for path in NOTEBOOKS if path.parent.name != "study"]  # which has no exercises
    assert len(given) == len([*(tmp_path / "class").rglob("*.ipynb")])
    for path in given:
        notebook = handouts.read(tmp_path / "class" / "source" / path.stem / path.name)
        nbformat.validate(nbformat.from_dict(notebook))
        points = [cell["metadata"]["nbgrader"] for cell in notebook["cells"] if "nbgrader" in cell["metadata"]]
        ours = {f"{module}-{name}" for module, name in EXERCISES if path.name.startswith(beginning(module))}
        assert len(points) == len(ours) and {point["grade_id"] for point in points} == ours
        assert all(point["locked"] and point["points"] == 1 and point["schema_version"] == 3 for point in points)
        others = [cell for cell in notebook["cells"] if "nbgrader" not in cell["metadata"]]
        assert others == handouts.student(handouts.read(path))["cells"]


def test_a_point_is_given_for_a_solution_and_not_for_a_blank():
    def run(notebook: dict) -> None:
        exercise, point = notebook["cells"][1:]
        code = "\n".join(map(handouts.source_of, (IMPORTS, exercise, point)))
        exec(code, {})

    blank = lesson_with("def top(n):\n    return ...\nrpm.lessons.lesson_00.ceiling.check(top)")
    run(handouts.nbgrader(handouts.teacher(blank)))
    with pytest.raises(AssertionError, match="Not answered yet"):
        run(handouts.nbgrader(blank))


IMPORTS = {"cell_type": "code", "metadata": {}, "source": ["import rpm_tutorial as rpm\n", "import torch"]}


def lesson_with(code: str) -> dict:
    exercise = {"cell_type": "code", "id": "one", "metadata": {"tags": ["exercise"]}, "source": code}
    return {"cells": [IMPORTS, exercise]}


def test_two_exercises_in_one_cell_are_both_solved_and_a_function_with_a_bug_is_replaced_as_a_whole():
    code = "x = 0\npairs_needed = ...\nrpm.lessons.lesson_05.pairs_needed.check(pairs_needed)\n\n"
    code += 'def top(n):\n    """Of n."""\n    n = n + 1\n    return math.log(n)\n\n\nrpm.lessons.lesson_00.ceiling.check(top)'
    cell = handouts.teacher(lesson_with(code))["cells"][1]
    source = handouts.source_of(cell)
    assert "pairs_needed = math.ceil(math.exp(5))" in source and source.startswith("import math\n")
    assert 'def top(n):\n    """Of n."""\n    return math.log(n)\n' in source
    assert cell["outputs"][0]["text"][0].count("✓ Right") == 2


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("", "a blank that no check names"),
        ("rpm.lessons.lesson_00.nothing.check(f)", "defines no exercise 'nothing'"),
        ("rpm.lessons.lesson_00.log_evidence.check(f)", r"f takes \(n\); .*solution takes \(infonce, n\)"),
    ],
)
def test_an_exercise_that_cannot_be_solved_is_named(end: str, message: str):
    with pytest.raises(ValueError, match=message):
        handouts.teacher(lesson_with(f"def f(n):\n    return ...\n{end}"))


def test_a_solution_that_is_not_right_is_not_handed_out(monkeypatch):
    wrong = handouts.Solution(ast.parse("lambda n: n", mode="eval").body, {})
    monkeypatch.setattr(handouts, "solution", lambda module, name: wrong)
    code = "def f(n):\n    return ...\nrpm.lessons.lesson_00.ceiling.check(f)"
    with pytest.raises(ValueError, match="(?s)does not pass its own check: ✗ Not yet.*return n"):
        handouts.teacher(lesson_with(code))
