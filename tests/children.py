"""`rpm-tutorial` in a process of its own, which a test may kill: forked from one that has imported everything, so that it
starts at once. Its file system may be told to stand still at a place in its third save."""

import builtins
import multiprocessing
import os
import sys
import time
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

import torch._dynamo
from budgets import HANG

from rpm_tutorial import checkpoints, cli, datasets, encoders

PLACES = ("half written", "not on the disk yet", "not renamed yet", "renamed")
STANDS_STILL = "standing still"
__all__ = ["PLACES", "STANDS_STILL", "command", "said"]
_imported = (datasets, encoders, torch._dynamo)  # the last by an optimiser when it is first made: seconds


def command(folder: Path, *arguments: object, stand_still: str | None = None) -> multiprocessing.Process:
    """Start it in `folder`; what it says is in the files out and problems beside the folder."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):  # or it would not find what to import
        forkserver.ensure_running()
    process = context.Process(target=_run, args=(folder, [*map(str, arguments)], stand_still))
    process.start()
    return process


def said(folder: Path, what: str = "out") -> str:
    path = folder.with_name(f"{folder.name} {what}")
    return path.read_text() if path.exists() else ""


def _run(folder: Path, arguments: list[str], place: str | None) -> None:
    os.chdir(folder)
    for name, what in (("stdout", "out"), ("stderr", "problems")):
        setattr(sys, name, open(folder.with_name(f"{folder.name} {what}"), "w", buffering=1))
    if place is not None:
        _slow_down(place)
    cli.main(arguments, prog_name="rpm-tutorial")


def _slow_down(place: str) -> None:
    saves, fsync, replace = [], os.fsync, os.replace

    def stand_still(at: str) -> None:
        if at == place and len(saves) == 3:
            print(STANDS_STILL)
            time.sleep(HANG)

    class Slow:
        def __init__(self, *arguments):
            self.file = builtins.open(*arguments)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, content) -> None:
            saves.append(len(content))
            self.file.write(content[: len(content) // 2])
            self.file.flush()
            stand_still("half written")
            self.file.write(content[len(content) // 2 :])

    checkpoints.open = Slow
    os.fsync = lambda number: (stand_still("not on the disk yet"), fsync(number))
    os.replace = lambda *paths: (stand_still("not renamed yet"), replace(*paths), stand_still("renamed"))
