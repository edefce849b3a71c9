"""The shape of the package: light to import, documented, and layered."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rpm_tutorial

ROOT = Path(rpm_tutorial.__file__).parent
ORDER = (
    "_checks", "_log_space", "objectives", "priors", "finite", "shared", "derivation", "gaussian", "chain", "critics",
    "_tiles", "distributed", "evidence", "estimators", "checking", "_images", "datasets", "encoders", "checkpoints",
    "training", "probes", "runtime", "figures", "widgets", "_page", "dashboard", "explorations", "exercises", "classroom",
    "_runs", "_saving", "cli",
)  # fmt: skip


def module_of(path: Path) -> str:
    """The name in ORDER of a file: its own, or its package's."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """The modules of the package that a file imports, at any depth of its code."""
    found, depth = set(), len(path.relative_to(ROOT).parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == depth:  # from the package itself
            found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rpm_tutorial"):
            found |= set(node.module.split(".")[1:2]) or {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("rpm_tutorial.")}
    return found - {"__version__"}


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
    public = {name for name in ORDER if not name.startswith("_")}
    assert public <= set(rpm_tutorial.__all__)


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
