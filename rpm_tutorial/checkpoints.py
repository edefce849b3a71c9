"""Checkpoints: files that survive a killed process and a full disk, and that nothing but numbers and text comes out of."""

import contextlib
import copy
import io
import os
import pickle
import re
import secrets
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

READABLE = "tensors, numbers, text, lists and dicts of them"
ABANDONED = 600.0  # seconds after which a part of a checkpoint that no one writes any more is removed


def save_checkpoint(state: dict, path: str | os.PathLike) -> None:
    """Write tensors, numbers and text; a file of that name is replaced at once or not at all, and then lies on the disk.

    It is written beside its place, under a name that ends in .partial and is its own, so that two processes that save at
    once don't mix. Raises `OSError` where it can't be written, what was written is then removed; and `TypeError` for a
    state that `load_checkpoint` could not read, before a file is touched.
    """
    path, whole = Path(path), _written(state)
    if whole is None:
        raise TypeError(
            f"{_unreadable(state)}, which could not be read again; expected {READABLE}. Nothing was written. Remedy: "
            "torch.as_tensor(...), list(...) or str(...), in the state_dict or get_extra_state that it comes from"
        )
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


@contextlib.contextmanager
def sole_writer(path: str | os.PathLike) -> Iterator[None]:
    """Within it, no other process that asks so too writes `path`: the second gets a `ValueError`.

    The system locks a file beside it, and lets go when this process ends, however it ends. Where it has no locks (Windows,
    some network folders), or nothing can be written, there is none.
    """
    place = Path(path).with_name(f".{Path(path).name}.lock")
    lock = _locked(place)
    try:
        yield
    finally:
        if lock is not None:
            place.unlink(missing_ok=True)
            os.close(lock)


def _locked(place: Path) -> int | None:
    try:
        import fcntl

        while True:
            lock = os.open(place, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(lock), os.stat(place)):
                    os.ftruncate(lock, 0)
                    os.write(lock, str(os.getpid()).encode())
                    return lock
                os.close(lock)  # another's, which has ended and removed it meanwhile
            except FileNotFoundError:
                os.close(lock)
            except BlockingIOError:
                who = os.read(lock, 20).decode()
                os.close(lock)
                raise ValueError(
                    f"{place.name[1:-5]} is written to by another training, process {who}; expected one at a time. Remedy: "
                    "wait for its end, stop it, or name another file"
                ) from None
    except (ImportError, OSError):
        return None


def load_checkpoint(path: str | os.PathLike, device: torch.device | str = "cpu") -> dict:
    """Read what `save_checkpoint` wrote, its tensors onto `device`.

    No code in the file is run, and every byte is compared with its checksum. Raises `FileNotFoundError`, and `ValueError`
    for a file that is damaged or holds something else.

    Example, of a file that `rpm-tutorial train run.pt` saved:
        >>> state = load_checkpoint("run.pt")
        >>> encoder = encoders.conv(state["settings"]["dim"])  # of digits: encoders.mlp(64, dim)
        >>> encoder.load_state_dict(state["trainer"]["encoder"])
    """
    content = io.BytesIO(Path(path).read_bytes())
    try:
        with zipfile.ZipFile(content) as records:
            damaged = records.testzip()  # torch.load doesn't look at the checksums
        if damaged is not None:
            raise ValueError(f"the bytes of {damaged} have changed since they were saved")
        content.seek(0)
        return torch.load(content, map_location=device, weights_only=True, mmap=False)
    except Exception as error:  # whatever comes of reading bytes that no pickler wrote
        foreign = isinstance(error, pickle.UnpicklingError)  # torch would advise to run it
        why = f"it holds more than {READABLE}" if foreign else reason(error).splitlines()[0]
        raise ValueError(
            f"{os.fspath(path)} is no checkpoint, or a damaged one: {why}. Expected a file that this library saved: train "
            "again, or load another one"
        ) from error


def copied(state):
    """A state with tensors of its own. (deepcopy does not know each layout, and copies the whole of which one is a part.)"""
    return copy.deepcopy(state, {id(tensor): tensor.detach().clone() for tensor in _tensors(state)})


def remember(networks: nn.Module, optimiser: torch.optim.Optimizer) -> Callable[[], None]:
    """Keep all that a step of training changes, without a file; what is returned puts it back."""
    places = [place for module in networks.modules() for place in (module._parameters, module._buffers)]
    held = [(place, name, t) for place in places for name, t in place.items() if t is not None]
    held = [(*where, t, t.detach().clone()) for *where, t in held if not nn.parameter.is_lazy(t)]
    moments = {p: {name: t.clone() for name, t in of.items()} for p, of in optimiser.state.items()}
    rates = [settings["lr"] for settings in optimiser.param_groups]
    gpus = {t.device for *_, t, _ in held if t.is_cuda}
    chance, of_gpus = torch.get_rng_state(), {gpu: torch.cuda.get_rng_state(gpu) for gpu in gpus}  # dropout's

    @torch.no_grad()
    def put_back() -> None:
        for place, name, tensor, old in held:
            place[name] = tensor  # a module may have put another one there
            if tensor.layout != torch.strided or not torch.equal(tensor, old):  # an expanded one can't be written to
                tensor.copy_(old)
        optimiser.state = defaultdict(dict, moments)
        for settings, rate in zip(optimiser.param_groups, rates):
            settings["lr"] = rate
        torch.clear_autocast_cache()
        torch.set_rng_state(chance)
        for gpu, state in of_gpus.items():
            torch.cuda.set_rng_state(state, gpu)

    return put_back


def _tensors(state) -> Iterator[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, dict | list | tuple):
        for value in state.values() if isinstance(state, dict) else state:
            yield from _tensors(value)


def reason(error: Exception) -> str:
    """What an error says, within a sentence of ours: without its full stop, and without codes that a terminal obeys, which
    torch writes, and which a file from elsewhere may hold."""
    said = re.sub(r"\x1b\[[\d;]*m|[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", str(error) or type(error).__name__)
    return said.strip().rstrip(".")


def _written(state) -> io.BytesIO | None:
    """The bytes of a state in memory, torch giving no reason for a write that fails; None if they can't be read again."""
    whole = io.BytesIO()
    try:
        with _with_checksums():
            torch.save(state, whole)
        whole.seek(0)
        torch.load(whole, map_location="cpu", weights_only=True, mmap=False)  # as load_checkpoint will
    except (pickle.PickleError, AttributeError, TypeError):
        return None
    return whole


@contextlib.contextmanager
def _with_checksums() -> Iterator[None]:
    """Whatever the process has set for its own files, ours have the checksums that they are read by."""
    setting = getattr(torch.serialization, "get_crc32_options", None)  # since torch 2.6
    before = setting is None or setting()
    if not before:
        torch.serialization.set_crc32_options(True)
    try:
        yield
    finally:
        if not before:
            torch.serialization.set_crc32_options(False)


def _unreadable(state, where: str = "state") -> str:
    """Where in a nested state the first thing lies that can't be read again, and what it is."""
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list | tuple) else ()
    for key, value in items:
        if _written(value) is None:
            return _unreadable(value, f"{where}[{key!r}]")
    return f"{where} is a {type(state).__name__}"


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
