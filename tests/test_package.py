"""The shape of the package: light to import, layered, documented, and what an editor shows of it."""

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import jedi
import pytest
import site_pages
import yaml
from packaging.requirements import Requirement

import rpm_tutorial

ROOT = Path(rpm_tutorial.__file__).parent
CHECKOUT = Path(__file__).parents[1]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ORDER = site_pages.modules()
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")
HOOKS = {
    hook["id"]: hook for hook in yaml.safe_load((CHECKOUT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
}
IMPORTED_AS = {"scikit-learn": "sklearn", "lazy-loader": "lazy_loader", "ipython": "IPython"}
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


def room(parts: tuple[str, ...]) -> str:
    """The name in ORDER of a module: its own, or its package's."""
    parts = tuple(part for part in parts if part != "__init__")
    return ".".join(parts[: 2 if parts[0] == "course" else 1])


def module_of(path: Path) -> str:
    return room(path.relative_to(ROOT).with_suffix("").parts)


def imported(path: Path) -> set[str]:
    """The full names of all that a file imports, at any depth of its code."""
    found, package = set(), (ROOT.name, *path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            name = ".".join(base + ([node.module] if node.module else []))
            found |= {f"{name}.{a.name}" for a in node.names} if name in (ROOT.name, f"{ROOT.name}.course") else {name}
    return found


def other_packages(files: list[Path]) -> set[str]:
    names = {name.split(".")[0] for path in files for name in imported(path)}
    return names - set(sys.stdlib_module_names) - {ROOT.name, "google"}


def asked(lines: list[str]) -> set[str]:
    names = [Requirement(line).name for line in lines]
    return {IMPORTED_AS.get(name, name) for name in names}


def test_importing_the_package_imports_no_torch():
    heavy = "{'torch', 'numpy', 'plotly', 'sklearn'}"
    code = f"import sys, rpm_tutorial; dir(rpm_tutorial); print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_each_floor_requires_what_it_imports_and_nothing_else():
    lower = [path for path in FILES if not module_of(path).startswith("course")]
    core, course = asked(PROJECT["dependencies"]), asked(PROJECT["optional-dependencies"]["course"])
    assert other_packages([ROOT / "__init__.py", *lower]) == core
    others = {"latex2mathml", "markdown_it", "mdit_py_plugins", "pygments", "safetensors", "traitlets"}
    assert course <= other_packages(FILES) <= core | course | others, "the extra lab's, or a file format's"


@each_file
def test_a_module_is_short_says_what_it_is_and_imports_only_from_those_above_it(path: Path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400 and ast.get_docstring(ast.parse(text))
    own = ORDER.index(module_of(path))
    inside = {room(tuple(name.split(".")[1:])) for name in imported(path) if name.startswith(f"{ROOT.name}.")}
    below = {name for name in inside - {"__version__", module_of(path)} if ORDER.index(name) >= own}
    assert below == set()


def test_the_page_of_the_architecture_names_every_module_once():
    assert sorted(ORDER) == sorted({module_of(path) for path in FILES})


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md"])
def test_the_code_on_a_page_runs(page: str):
    code = re.search(r"(?s)```python\n(.*?)```", (CHECKOUT / page).read_text(encoding="utf-8"))[1]
    exec(compile(code, page, "exec"), {})


@pytest.mark.parametrize("name", rpm_tutorial.__all__)
def test_every_public_name_resolves_and_is_documented(name: str):
    assert (getattr(rpm_tutorial, name).__doc__ or "").strip() and name in dir(rpm_tutorial)


# What an editor shows


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory) -> None:
    """Not the one that other processes write to at the same time."""
    jedi.settings.cache_directory = str(tmp_path_factory.mktemp("jedi"))


def test_an_editor_completes_every_public_name():
    for place, names in (("rpm", rpm_tutorial.__all__), ("rpm.objectives", ["infonce", "donsker_varadhan"])):
        found = jedi.Script(f"import rpm_tutorial as rpm\n{place}.").complete()
        assert set(names) <= {completion.name for completion in found}


@pytest.mark.parametrize(
    "call, parameters",
    {
        "infonce": ["log_f", "q_joint"],
        "barber_agakov": ["log_p", "q_joint"],
        "symmetric_infonce": ["log_f", "q_joint"],
        "VonMisesFisher": ["temperature"],
        "dataset_evidence": ["z", "z_prime", "critic"],
        "encode": ["encoder"],
        "check_critic": ["critic"],
        "save_checkpoint": ["state", "path"],
        "Trainer": ["encoder", "critic", "pairs", "steps"],
        "TrainingDashboard": ["trainer"],
    }.items(),
)
def test_an_editor_shows_the_parameters_of_a_call(call: str, parameters: list[str]):
    (signature,) = jedi.Script(f"import rpm_tutorial as rpm\nrpm.{call}(").get_signatures()
    assert [found.name for found in signature.params][: len(parameters)] == parameters


# What a commit has to pass


@pytest.mark.parametrize("hook", HOOKS)
def test_what_a_commit_has_to_pass_is_passed(hook: str):
    command = shlex.split(HOOKS[hook]["entry"])
    assert command[0] == ".venv/bin/python"
    run = subprocess.run([sys.executable, *command[1:]], cwd=CHECKOUT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
