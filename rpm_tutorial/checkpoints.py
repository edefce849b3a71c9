"""Checkpoints: files that survive a killed process and a full disk, and that nothing but numbers and text comes out of."""

import contextlib
import io
import os
import re
import secrets
import time
import zipfile
from pathlib import Path

import torch

ABANDONED = 600.0  # seconds after which a part of a checkpoint that no one writes any more is removed


def save_checkpoint(state: dict, path: str | os.PathLike) -> None:
    """Write tensors, numbers and text; a file of that name is replaced at once or not at all, and then lies on the disk.

    It is written beside its place, under a name that ends in .partial and is its own, so that two processes that save at
    once don't mix. Raises `OSError` where it can't be written; what was written is then removed.
    """
    path, whole = Path(path), io.BytesIO()
    torch.save(state, whole)  # in memory first: torch gives no reason for a write that fails
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with open(partial, "xb") as file:
            file.write(whole.getbuffer())
            file.flush()
            os.fsync(file.fileno())  # without it, the name could reach the disk before the bytes
        os.replace(partial, path)
        _sync_folder(path.parent)
    except OSError as error:
        kept = "the file of that name is as it was" if os.path.isfile(path) else "nothing was written"
        raise OSError(
            f"{path} can't be written: {error.strerror or error}; {kept}. Remedy: a folder of yours with room, or make room"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    _remove_abandoned(path)


def load_checkpoint(path: str | os.PathLike, device: torch.device) -> dict:
    """Read what `save_checkpoint` wrote. No code in the file is run, and every byte is compared with its checksum.

    Raises `FileNotFoundError`, and `ValueError` for a file that is damaged or holds something else.
    """
    content = io.BytesIO(Path(path).read_bytes())
    try:
        with zipfile.ZipFile(content) as records:
            damaged = records.testzip()  # torch.load doesn't look at the checksums
        if damaged is not None:
            raise ValueError(f"the bytes of {damaged} have changed since they were saved.")
        content.seek(0)
        return torch.load(content, map_location=device, weights_only=True)
    except Exception as error:  # whatever comes of reading bytes that no pickler wrote
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{os.fspath(path)} is no checkpoint, or a damaged one: {why} Expected a file that this library saved: train "
            "again, or load another one"
        ) from error


def _sync_folder(folder: Path) -> None:
    """Let the new name reach the disk too; where a system can't do that for folders, it is as safe as it can be."""
    if os.name == "posix":
        with contextlib.suppress(OSError):
            number = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(number)
            finally:
                os.close(number)


def _remove_abandoned(path: Path) -> None:
    """Remove what processes that were killed while they saved to `path` left behind: parts that no one writes any more."""
    for other in path.parent.iterdir():
        if re.fullmatch(rf"{re.escape(path.name)}\.[0-9a-f]{{8}}\.partial", other.name):
            with contextlib.suppress(OSError):
                if other.stat().st_mtime < time.time() - ABANDONED:
                    other.unlink()
