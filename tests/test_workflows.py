"""GitHub's workflows: valid, and each command in them is one that this repository has. No one can run them but GitHub."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import launch_links
import pytest
import yaml
from environments import MAKEFILE, ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def commands(workflow: dict) -> list[str]:
    """Its lines for the shell, a matrix's among them."""
    jobs = workflow["jobs"].values()
    run = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    run += [command for job in jobs for command in job.get("strategy", {}).get("matrix", {}).get("command", ())]
    return [line for line in "\n".join(run).splitlines() if line.strip()]


@pytest.mark.slow
def test_the_workflows_agree_with_githubs_schema():
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_asks_for_a_time_limit_and_runs_what_exists(path: Path):
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())
    targets = set(re.findall(r"(?m)^([\w-]+):", MAKEFILE))
    targets |= {f".venv/installed-{group}" for group in ("lab", "test", "site", "bench", "nightly")}
    for command in commands(workflow):
        words = shlex.split(command)
        if words[0] == "make":
            assert set(words[1:]) <= targets, command
        if words[0].startswith(".ci/") or (words[0] == "python" and words[1].endswith(".py")):
            assert (ROOT / words[words[0] == "python"]).exists(), command


def test_the_fast_tests_elsewhere_are_those_of_make_test_fast():
    (ours,) = re.findall(r'-m ("not slow.+?") tests', MAKEFILE)
    assert f"pytest -q -m {ours} tests" in (ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8")


def test_what_is_published_is_what_the_launch_buttons_open():
    pages = (ROOT / ".github" / "workflows" / "pages.yml").read_text(encoding="utf-8")
    assert f"git init -q -b {launch_links.PUBLISHED}" in pages
    assert all(f"/{launch_links.PUBLISHED}" in link for _, link in launch_links.SERVICES.values())
