"""Each block of docs/recipes.md runs as it stands, after the page's first block; those for torchrun in two processes of it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from budgets import HANG

PAGE = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text(encoding="utf-8")
FIRST, *BLOCKS = re.findall(r"(?s)```python\n(.*?)```", PAGE)
RECIPES = dict(zip(re.findall(r"(?m)^## (.+)$", PAGE), BLOCKS, strict=True))
BY_TORCHRUN = ("Several processes", "DistributedDataParallel")
OF_OTHERS = {"PyTorch Lightning": "lightning", "Accelerate": "accelerate"}  # of the nightly group alone
MARKS = dict.fromkeys(OF_OTHERS, pytest.mark.nightly) | {"torch.compile": pytest.mark.slow}


def run(code: str) -> dict:
    """The names that it leaves."""
    names = {"__name__": "__main__"}
    torch.manual_seed(0)
    exec(FIRST + code, names)
    return names


@pytest.mark.filterwarnings("default")  # of what is not ours
@pytest.mark.parametrize(
    "title", [pytest.param(title, marks=MARKS.get(title, ())) for title in RECIPES if title not in BY_TORCHRUN]
)
def test_a_recipe_runs(title):
    pytest.importorskip(OF_OTHERS.get(title, "torch"))
    run(RECIPES[title])


def test_a_plain_loop_learns():
    first, last = (run(RECIPES["Plain PyTorch"].replace("range(20)", f"range({n})"))["loss"].item() for n in (1, 20))
    assert last < first - 0.2


@pytest.mark.parametrize(
    "title",
    [pytest.param(BY_TORCHRUN[0], marks=pytest.mark.nightly), pytest.param(BY_TORCHRUN[1], marks=pytest.mark.slow)],
)
def test_a_recipe_of_several_processes_trains_on_the_pairs_of_all(title, tmp_path):
    (tmp_path / "train.py").write_text(FIRST + RECIPES[title], encoding="utf-8")
    command = "-m torch.distributed.run --standalone --local-addr 127.0.0.1 --nproc-per-node 2 train.py".split()
    local = {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    ran = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, env=os.environ | local, capture_output=True, text=True, timeout=HANG
    )
    assert ran.returncode == 0, ran.stderr
    losses = re.findall(r"(\S+) on process", ran.stdout)
    assert len(losses) == (0 if title == BY_TORCHRUN[0] else 2) and len(set(losses)) <= 1, "one loss for all"
