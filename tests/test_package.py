"""The shape of the package: light to import, documented, and layered."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rpm_tutorial

ROOT = Path(rpm_tutorial.__file__).parent
ORDER = (
    "_checks", "_log_space", "objectives", "priors", "finite", "shared_latent", "derivation", "gaussian", "chain", "critics",
    "_tiles", "distributed", "evidence", "labelled_evidence", "estimators", "critic_checks", "_images", "datasets", "encoders",
    "checkpoints", "training", "probes", "course.environment", "course.figures", "course.widgets", "course._page",
    "course.dashboard", "course.exercise", "course.lessons", "course.handouts", "course._runs", "course._saving", "course.cli",
    "course",
)  # fmt: skip


def module_of(path: Path) -> str:
    """The name in ORDER of a file: its own, or its package's."""
    return room(path.relative_to(ROOT).with_suffix("").parts)


def room(parts: tuple[str, ...]) -> str:
    parts = tuple(part for part in parts if part != "__init__")
    return ".".join(parts[: 2 if parts[0] == "course" else 1])


def imports(path: Path) -> set[str]:
    """The modules of the package that a file imports, at any depth of its code; not those that it holds itself."""
    found, package = set(), (ROOT.name, *path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        else:
            base = ".".join(package[: len(package) - node.level + 1]) + "." if node.level else ""
            names = [f"{base}{node.module or ''}".rstrip(".")]
            if names[0] in (ROOT.name, f"{ROOT.name}.course"):
                names = [f"{names[0]}.{alias.name}" for alias in node.names]
        found |= {room(tuple(name.split(".")[1:])) for name in names if name.startswith(f"{ROOT.name}.")}
    return found - {"__version__", module_of(path)}


FILES = sorted(path for path in ROOT.rglob("*.py") if path.parts[-1] != "__init__.py" or path.parent != ROOT)


def test_importing_the_package_imports_no_torch():
    heavy = "{'torch', 'numpy', 'plotly', 'sklearn'}"
    code = f"import sys, rpm_tutorial; dir(rpm_tutorial); print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("name", rpm_tutorial.__all__)
def test_every_public_name_resolves_and_is_documented(name):
    assert (getattr(rpm_tutorial, name).__doc__ or "").strip()
    assert name in dir(rpm_tutorial)


def test_every_public_module_is_in_the_package_and_in_the_order():
    assert {module_of(path) for path in FILES} == set(ORDER)
    public = {name.split(".")[-1] for name in ORDER if "_" not in (name[0], name.split(".")[-1][0])}
    assert public - {"course"} <= set(rpm_tutorial.__all__)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_only_from_those_above_it(path):
    own = ORDER.index(module_of(path))
    below = {name for name in imports(path) if name not in ORDER or ORDER.index(name) >= own}
    assert below == set()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_is_short_and_says_what_it_is(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    public = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")]
    undocumented = [n.name for n in public if not ast.get_docstring(n) and len(n.body) > 3]
    assert undocumented == []
