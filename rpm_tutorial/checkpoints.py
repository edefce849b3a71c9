"""Checkpoints: files that survive a killed process and a full disk, and that hold nothing but numbers and text.

A checkpoint holds the `state_dict()` of a `Trainer`, and beside it what its writer wants to find again: `rpm-tutorial train`
adds "settings", a dashboard its "history". So each of them opens in `Trainer.load`, which tells whether it fits.
"""

import contextlib
import copy
import glob
import io
import os
import re
import secrets
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import filelock
import torch
from torch import Tensor

READABLE = "tensors, numbers, text, lists and dicts of them"
ABANDONED = 600.0  # seconds after which a part of a checkpoint belongs to a process that was killed


def save_checkpoint(state: dict, path: str | os.PathLike) -> None:
    """Write tensors, numbers and text to a file, which is replaced as a whole or not at all.

    Raises `OSError` if it can't be written, and `TypeError` for a state that `load_checkpoint` could not read.
    """
    path, content = Path(path), io.BytesIO()
    if not _can_be_read_again(state, content):
        raise TypeError(
            f"{_first_unreadable(state)}, which could not be read again; expected {READABLE}. Nothing was written. Remedy: "
            "torch.as_tensor(...), list(...) or str(...), in the state_dict or get_extra_state that it comes from"
        )
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")  # two processes may save at once
    try:
        with open(partial, "xb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())  # else the name could reach the disk before the bytes
        os.replace(partial, path)
    except OSError as error:
        kept = "the file of that name is as it was" if path.is_file() else "nothing was written"
        raise OSError(
            f"{path} can't be written: {error.strerror or error}; {kept}. Remedy: a folder of yours with room, or make room"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    for other in path.parent.glob(f"{glob.escape(path.name)}.*.partial"):
        with contextlib.suppress(OSError):
            if other.stat().st_mtime < time.time() - ABANDONED:
                other.unlink()


def load_checkpoint(path: str | os.PathLike, device: torch.device | str = "cpu") -> dict:
    """Read what `save_checkpoint` wrote, its tensors onto `device`.

    No code in the file is run, and every byte is compared with its checksum. Raises `FileNotFoundError`, and `ValueError`
    for a file that is damaged or holds something else.

    Example, of the networks alone:
        >>> state = load_checkpoint("run.pt")
        >>> encoder.load_state_dict(state["encoder"]), critic.load_state_dict(state["critic"])
    """
    content = io.BytesIO(Path(path).read_bytes())
    try:
        return _read(content, device)
    except Exception as error:  # bytes that no pickler wrote can raise anything
        raise ValueError(
            f"{os.fspath(path)} is no checkpoint, or a damaged one: {reason(error).splitlines()[0]}. Expected a file that "
            f"this library saved, of {READABLE}"
        ) from error


@contextlib.contextmanager
def sole_writer(path: str | os.PathLike) -> Iterator[None]:
    """Within it, no other process that asks for the same writes `path`: the second gets a `ValueError`.

    The system lets go of the lock when this process ends, however it ends. Where it has no locks, there is none.
    """
    lock = filelock.FileLock(Path(path).with_name(f".{Path(path).name}.lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ValueError(
            f"{path} is being written by another training; expected one at a time. Remedy: wait for its end, stop it, or "
            "name another file"
        ) from None
    except (NotImplementedError, OSError):  # no locks here, or no right to write, which saving will say
        pass
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes no open file
            Path(lock.lock_file).unlink()
        lock.release()


def copied(state):
    """A state with tensors of its own. (deepcopy knows no sparse rows, and copies the whole of which a tensor is a part.)"""
    return copy.deepcopy(state, {id(tensor): tensor.detach().clone() for tensor in _tensors(state)})


def reason(error: Exception) -> str:
    """What an error says, to go into a sentence of ours: no full stop, no codes that a terminal obeys."""
    return re.sub(r"\x1b\[[\d;]*m|[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", str(error) or type(error).__name__).strip(" \n.")


def _read(content: io.BytesIO, device: torch.device | str):
    with zipfile.ZipFile(content) as records:
        damaged = records.testzip()  # torch.load doesn't look at the checksums
    if damaged is not None:
        raise ValueError(f"the bytes of {damaged} have changed since they were saved")
    content.seek(0)
    return torch.load(content, map_location=device, weights_only=True, mmap=False)


def _can_be_read_again(state, content: io.BytesIO) -> bool:
    """Write the state to memory, and read it."""
    try:
        torch.save(state, content)
        _read(content, "cpu")
    except Exception:  # each kind of object fails in its own way
        return False
    return True


def _first_unreadable(state, where: str = "state") -> str:
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list | tuple) else ()
    for key, value in items:
        if not _can_be_read_again(value, io.BytesIO()):
            return _first_unreadable(value, f"{where}[{key!r}]")
    return f"{where} is a {type(state).__name__}"


def _tensors(state) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict | list | tuple):
        for value in state.values() if isinstance(state, dict) else state:
            yield from _tensors(value)
