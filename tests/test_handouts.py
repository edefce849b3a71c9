"""What a class is given: nothing that answers an exercise for students, all of it for teachers, slides."""

import ast
import contextlib
import html
import inspect
import io
import re
from pathlib import Path

import nbformat
import pytest
from budgets import HANG

from rpm_tutorial import handouts, lessons
from rpm_tutorial.course.cli import main
from rpm_tutorial.course.exercise import Exercise
from rpm_tutorial.course.lessons import LESSONS, NEIGHBOURS

NOTEBOOKS = handouts.notebooks()
FOLDER = NOTEBOOKS[0].parent
EXERCISES = [
    (lesson, name, exercise)
    for lesson in LESSONS + NEIGHBOURS
    for name, exercise in vars(getattr(lessons, lesson)).items()
    if isinstance(exercise, Exercise)
]
each_exercise = pytest.mark.parametrize(
    ("lesson", "name", "exercise"), EXERCISES, ids=[f"{x}.{n}" for x, n, _ in EXERCISES]
)
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def export(*arguments: object) -> str:
    """What the command prints; in this process, to save the import of torch."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        main(["export", *map(str, arguments)], standalone_mode=False)
    return printed.getvalue()


@pytest.fixture(scope="module")
def handout(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("class") / "handout"
    assert export("--student", folder) == f"{len(NOTEBOOKS)} notebooks for student in {folder}\n"
    return folder


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


def statements(function: ast.Lambda | ast.FunctionDef) -> list[str]:
    return [ast.unparse(s) for s in ([function.body] if isinstance(function, ast.Lambda) else function.body)]


def planted(lesson: str, exercise: Exercise) -> list[str]:
    """The statements of the function in which the reader is to find a bug."""
    tree = ast.parse(inspect.getsource(getattr(lessons, lesson)))
    defined = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    return statements(defined[exercise.planted.__name__])


def answers(lesson: str, name: str, exercise: Exercise) -> list[str]:
    """The texts that would give an exercise away: its solution, each statement of it, and its last hint."""
    tree = handouts.solution(lesson, name).tree
    shown = planted(lesson, exercise) if exercise.planted else []  # a repaired function keeps most of the planted one
    parts = [text for text in statements(tree) if text not in shown]
    return [squeezed(text) for text in (ast.unparse(tree), *parts, exercise.hints[-1])]


def exercise_part(notebook: dict) -> str:
    """The section with the exercises: from the last heading before the first of their cells to the next heading."""
    texts = [handouts.source_of(cell) for cell in notebook["cells"]]
    first = next(k for k, c in enumerate(notebook["cells"]) if "exercise" in c["metadata"].get("tags", []))
    start = "\n".join(texts[:first]).rindex("\n## ")
    return re.split(r"(?m)^(?=## )", "\n".join(texts)[start + 1 :], maxsplit=2)[1]


def beginning(lesson: str) -> str:
    """How the notebook of a module of exercises begins: 07, N10."""
    return lesson[-2:] if lesson in LESSONS else f"N{lesson[-2:]}"


def test_the_handout_holds_every_notebook_where_it_was_and_nothing_else(handout: Path):
    files = {path.relative_to(handout) for path in handout.rglob("*") if path.is_file()}
    assert files == {path.relative_to(FOLDER) for path in NOTEBOOKS}


def test_the_course_is_lessons_and_then_neighbours():
    names = [path.name for path in NOTEBOOKS]
    assert names == sorted(names) and {name[0] for name in names} <= set("01N")
    assert len(names) == sum(1 for folder in (FOLDER, FOLDER / "neighbours") for _ in folder.glob("*.ipynb"))


@each_notebook
def test_a_notebook_is_written_as_it_was_read(path: Path, tmp_path: Path):
    handouts.write(handouts.read(path), tmp_path / path.name)
    assert (tmp_path / path.name).read_bytes() == path.read_bytes()


@each_notebook
def test_a_students_notebook_has_every_cell_and_no_output(path: Path, handout: Path):
    given, ours = (nbformat.read(p, as_version=4) for p in (handouts.place(path, handout), path))
    nbformat.validate(given)
    assert [(c.id, c.cell_type, c.source) for c in given.cells] == [(c.id, c.cell_type, c.source) for c in ours.cells]
    code = [cell for cell in given.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    to_do = [cell for cell in code if "exercise" in cell.metadata.get("tags", [])]
    assert all("..." in cell.source or "bug" in cell.metadata["tags"] for cell in to_do)


def test_each_bug_to_find_is_in_its_lesson_as_the_exercise_knows_it():
    to_find = {(lesson, name): planted(lesson, exercise) for lesson, name, exercise in EXERCISES if exercise.planted}
    found = {}
    for cell in (cell for path in NOTEBOOKS for cell in handouts.read(path)["cells"]):
        if "bug" in cell["metadata"].get("tags", []):
            tree = ast.parse(handouts.source_of(cell))
            function = next(node for node in tree.body if isinstance(node, ast.FunctionDef))
            match = re.search(r"rpm\.lessons\.(lesson_\d+)\.(\w+)\.check\((\w+)\)", handouts.source_of(cell))
            assert match[3] == function.name
            found[match[1], match[2]] = [text.replace("rpm.", "") for text in statements(function)]
    assert found == to_find and len(found) > 1


@pytest.fixture(scope="module")
def handed_out(handout: Path) -> dict[str, tuple[str, str]]:
    """Of each notebook of the handout all its text, and that around its exercises."""
    notebooks = {path.name: handouts.read(path) for path in handout.rglob("*.ipynb")}
    texts = {name: "\n".join(map(handouts.source_of, notebook["cells"])) for name, notebook in notebooks.items()}
    return {name: (squeezed(texts[name]), squeezed(exercise_part(notebook))) for name, notebook in notebooks.items()}


@each_exercise
def test_no_solution_and_no_last_hint_is_in_the_handout(lesson: str, name: str, exercise: Exercise, handed_out: dict):
    """A text of under 25 characters, such as log(n), says nothing outside the exercise: the lesson's own prose may need it."""
    for text in answers(lesson, name, exercise):
        for notebook, (everything, near) in handed_out.items():
            assert not notebook.startswith(beginning(lesson)) or text not in near
            assert len(text) < 25 or text not in everything, notebook


def test_the_search_would_find_a_solution():
    exercise = lessons.lesson_05.bias
    filled = handouts.teacher(handouts.read(next(path for path in NOTEBOOKS if path.name.startswith("05"))))
    assert any(text in squeezed(exercise_part(filled)) for text in answers("lesson_05", "bias", exercise))


@pytest.fixture(scope="module")
def solved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("class") / "teacher"
    export("--teacher", folder)
    return folder


@each_notebook
def test_a_teachers_notebook_has_each_exercise_solved_and_checked(path: Path, solved: Path):
    given, ours = (nbformat.read(p, as_version=4) for p in (handouts.place(path, solved), path))
    nbformat.validate(given)
    for cell, blank in zip(given.cells, ours.cells, strict=True):
        if "exercise" in cell.metadata.get("tags", []):
            assert (
                cell.outputs[0].text.startswith("✓ Right")
                and "return ...\n" not in cell.source
                and "= ...\n" not in cell.source
            )
            assert cell.source.splitlines()[-1] == blank.source.splitlines()[-1], "the check is untouched"
        else:
            assert cell == blank


def test_nbgrader_finds_each_assignment_in_its_folder(tmp_path: Path):
    export("--nbgrader", tmp_path / "class", "--only", "01")
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert files == [Path("class/source/01_the_model/01_the_model.ipynb")]


def points_of(notebook: dict) -> list[tuple[str, str]]:
    """(an exercise's cell, the cell that gives the point for it) of an assignment for nbgrader."""
    cells, found, exercise = notebook["cells"], [], ""
    for cell in cells:
        if cell["metadata"].get("nbgrader", {}).get("grade"):
            found.append((exercise, handouts.source_of(cell)))
        elif "exercise" in cell["metadata"].get("tags", []):
            exercise = handouts.source_of(cell)
    return found


@each_notebook
def test_an_assignment_for_nbgrader_gives_a_locked_point_for_each_exercise(path: Path):
    notebook = handouts.nbgrader(handouts.read(path))
    nbformat.validate(nbformat.from_dict(notebook))
    graded = [cell["metadata"]["nbgrader"] for cell in notebook["cells"] if "nbgrader" in cell["metadata"]]
    ours = [f"{lesson}-{name}" for lesson, name, _ in EXERCISES if path.name.startswith(beginning(lesson))]
    assert sorted(g["grade_id"] for g in graded) == sorted(ours)
    assert all(g["locked"] and g["points"] == 1 and g["schema_version"] == 3 for g in graded)
    given = [cell for cell in notebook["cells"] if "nbgrader" not in cell["metadata"]]
    assert given == handouts.student(handouts.read(path))["cells"]


@pytest.mark.parametrize("lesson", ["01", "05"])
def test_a_point_is_given_for_a_solution_and_not_for_a_blank(lesson: str):
    blank = handouts.read(next(path for path in NOTEBOOKS if path.name.startswith(lesson)))
    solved, left = (points_of(handouts.nbgrader(n)) for n in (handouts.teacher(blank), blank))
    imports = "import math\nimport torch\nimport rpm_tutorial as rpm\n"
    for exercise, point in solved:
        exec(imports + exercise + "\n" + point, {})
    for exercise, point in left:
        with pytest.raises(AssertionError, match="Not answered yet|Not yet"):
            exec(imports + exercise + "\n" + point, {})
    assert len(solved) == len(left) > 1


@pytest.mark.slow
def test_a_teachers_notebook_runs_from_top_to_bottom(solved: Path):
    from nbclient import NotebookClient

    notebook = nbformat.read(solved / "01_the_model.ipynb", as_version=4)
    arguments = ["--IPKernelApp.log_level=40"]
    options = {"timeout": HANG, "startup_timeout": HANG, "resources": {"metadata": {"path": str(solved)}}}
    NotebookClient(notebook, extra_arguments=arguments, **options).execute()
    checked = [c for c in notebook.cells if "exercise" in c.metadata.get("tags", [])]
    assert len(checked) > 1 and all("✓ Right" in cell.outputs[0].text for cell in checked)


def lesson_with(code: str) -> dict:
    imports = {
        "cell_type": "code",
        "metadata": {},
        "source": ["import rpm_tutorial as rpm\n", "import torch"],
        "outputs": [],
    }
    exercise = {"cell_type": "code", "metadata": {"tags": ["exercise"]}, "source": code, "outputs": []}
    return {"cells": [imports, exercise]}


def test_two_exercises_in_one_cell_are_both_solved():
    code = "x = 0\npairs_needed = ...\nrpm.lessons.lesson_04.pairs_needed.check(pairs_needed)\n\n"
    code += 'def top(many):\n    """Of many."""\n    return ...\nrpm.lessons.lesson_00.ceiling.check(top)'
    cell = handouts.teacher(lesson_with(code))["cells"][1]
    source = handouts.source_of(cell)
    assert "pairs_needed = math.ceil(math.exp(5))" in source and source.startswith("import math\n")
    assert 'def top(many):\n    """Of many."""\n    return math.log(many)\n' in source
    assert cell["outputs"][0]["text"][0].count("✓ Right") == 2


def test_a_function_with_a_bug_is_replaced_as_a_whole_but_for_its_docstring():
    code = 'def top(many):\n    """Of many."""\n    many = many + 1\n    return math.log(many)\n\n\n'
    cell = handouts.teacher(lesson_with(code + "rpm.lessons.lesson_00.ceiling.check(top)"))["cells"][1]
    source = handouts.source_of(cell)
    assert 'def top(many):\n    """Of many."""\n    return math.log(many)\n\n\nrpm' in source


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def f(n):\n    return ...", "a blank that no check names"),
        ("def f(n):\n    return ...\nrpm.lessons.lesson_00.nothing.check(f)", "defines no exercise 'nothing'"),
        ("def f(n):\n    return ...\nrpm.lessons.lesson_00.log_evidence.check(f)", "argument 2 is shorter"),
        ("def f(n):\n    return ...\nrpm.lessons.lesson_99.ceiling.check(f)", "lesson_99.py defines no exercise"),
    ],
)
def test_an_exercise_that_cannot_be_solved_is_named(code: str, message: str):
    with pytest.raises(ValueError, match=message):
        handouts.teacher(lesson_with(code))


def test_a_solution_that_is_not_right_is_not_handed_out(monkeypatch):
    wrong = ast.parse("lambda infonce, n: infonce", mode="eval").body
    monkeypatch.setattr(handouts, "solution", lambda lesson, name: handouts.Solution(wrong, {}))
    code = "def f(a, b):\n    return ...\nrpm.lessons.lesson_00.log_evidence.check(f)"
    with pytest.raises(ValueError, match="(?s)does not pass its own check: ✗ Not yet.*return a"):
        handouts.teacher(lesson_with(code))


def test_a_slide_describes_each_picture_by_its_text_whatever_is_in_it():
    texts = ["I < \"MI\" & 'log N'", "<script>alert(1)</script>"]
    data = [{"image/png": "iVBORw0KGgo=", "text/plain": [text]} for text in texts]
    outputs = [{"output_type": "execute_result", "data": d, "metadata": {}, "execution_count": 1} for d in data]
    cell = {"cell_type": "code", "metadata": {}, "source": "", "outputs": outputs, "execution_count": 1}
    page = handouts.slides({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, "one")
    assert re.findall(r'<img alt="([^"]*)"', page) == [html.escape(text) for text in texts]
    assert texts[1] not in page and "<title>one slides</title>" in page
    assert "[1]:" not in page, "no prompts"


@pytest.mark.slow
def test_slides_begin_at_headings_and_questions_and_show_every_figure(tmp_path: Path):
    export("--slides", tmp_path / "slides", "--only", "01")
    page = (tmp_path / "slides" / "01_the_model.slides.html").read_text(encoding="utf-8")
    notebook = handouts.read(next(path for path in NOTEBOOKS if path.name.startswith("01")))
    text = "\n".join(handouts.source_of(c) for c in notebook["cells"] if c["cell_type"] == "markdown")
    headings = re.findall(r"(?m)^#{1,2} (.+)$", text)
    columns = page.split("<section><section")[1:]
    assert len(columns) == len(headings)
    for column, heading in zip(columns, headings):
        assert re.search(r"<h[12][^>]*>" + re.escape(heading.split("$")[0][:20].split("'")[0]), column)
    figures = [o for c in notebook["cells"] for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
    assert page.count('src="data:image/png') == len(figures) > 0
    alts = re.findall(r'<img alt="([^"]*)"[^>]* src="data:image/png', page)
    assert [html.unescape(alt) for alt in alts] == ["".join(figure["data"]["text/plain"]) for figure in figures]
    assert "No description has been provided" not in page
