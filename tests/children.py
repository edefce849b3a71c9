"""`rpm-tutorial` in a process of its own, which a test may kill: forked from one that has imported everything, so that it
starts at once. It may be told to stand still in its third save, once that is "written" or "renamed"."""

import multiprocessing
import os
import sys
import time
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

import torch._dynamo
from budgets import HANG

from rpm_tutorial import cli, datasets, encoders

STANDS_STILL = "standing still"
_imported = (datasets, encoders, torch._dynamo)  # the last by an optimiser when it is first made: seconds


def command(folder: Path, *arguments: object, stand_still: str | None = None) -> multiprocessing.Process:
    """Start it in `folder`; what it says is in a file beside the folder."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):  # or it would not find what to import
        forkserver.ensure_running()
    folder.mkdir(exist_ok=True)
    process = context.Process(target=_run, args=(folder, [*map(str, arguments)], stand_still))
    process.start()
    return process


def said(folder: Path) -> str:
    path = folder.with_suffix(".said")
    return path.read_text() if path.exists() else ""


def _run(folder: Path, arguments: list[str], place: str | None) -> None:
    os.chdir(folder)
    sys.stdout = sys.stderr = open(folder.with_suffix(".said"), "w", buffering=1)
    saves, replace = [], os.replace

    def stand_still(at: str) -> None:
        if at == place and len(saves) == 3:
            print(STANDS_STILL)
            time.sleep(HANG)

    os.replace = lambda *paths: (saves.append(1), stand_still("written"), replace(*paths), stand_still("renamed"))
    cli.main(arguments, prog_name="rpm-tutorial")
