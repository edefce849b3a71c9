"""Each block of docs/recipes.md runs as it stands, after the page's first block, in a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from budgets import HANG

PAGE = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text(encoding="utf-8")
FIRST, *BLOCKS = re.findall(r"(?s)```python\n(.*?)```", PAGE)
TITLES = re.findall(r"(?m)^## (.+)$", PAGE)
RECIPES = dict(zip(TITLES, BLOCKS, strict=True))
BY_TORCHRUN = ("Several processes", "DistributedDataParallel")
OF_OTHERS = {"PyTorch Lightning": "lightning", "Accelerate": "accelerate"}  # of the nightly group alone


def run(folder: Path, code: str, *before: str, **variables: str) -> str:
    """What a script of this code prints; its exit status has to be 0."""
    script = folder / "train.py"
    script.write_text(code, encoding="utf-8")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | variables
    done = subprocess.run(
        [sys.executable, *before, str(script)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("title", [title for title in TITLES if title not in {*OF_OTHERS, *BY_TORCHRUN}])
def test_a_recipe_runs(title, tmp_path):
    run(tmp_path, FIRST + RECIPES[title])


@pytest.mark.slow
def test_a_plain_loop_learns(tmp_path):
    first, last = map(
        float,
        run(
            tmp_path,
            FIRST
            + RECIPES["Plain PyTorch"].replace(
                "    loss = ", "    if step in (0, 19): print(rpm.infonce(log_f).value.item())\n    loss = "
            ),
        ).split(),
    )
    assert last > first + 0.2


@pytest.mark.slow
@pytest.mark.parametrize("title", BY_TORCHRUN)
def test_a_recipe_of_several_processes_trains_on_the_pairs_of_all(title, tmp_path):
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2")
    local = {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    losses = re.findall(r"(\S+) on process", run(tmp_path, FIRST + RECIPES[title], *torchrun, **local))
    assert len(losses) == (0 if title == "Several processes" else 2) and len(set(losses)) <= 1, "one loss for all"


@pytest.mark.nightly
@pytest.mark.parametrize("title", OF_OTHERS)
def test_a_recipe_with_anothers_loop_runs(title, tmp_path):
    pytest.importorskip(OF_OTHERS[title])
    run(tmp_path, FIRST + RECIPES[title])
