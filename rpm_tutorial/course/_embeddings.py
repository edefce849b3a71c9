"""Files of embeddings: two arrays whose rows are pairs, and perhaps labels, from the formats that people save."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import checkpoints

FORMATS = ".npy, .npz, .safetensors or .pt"


def read(paths: tuple[Path, ...], keys: tuple[str, str] | None) -> tuple[Any, Any, Any]:
    """z, z' and the labels or None: two files of one array each, or one file that holds both under `keys`.

    Without keys the arrays are those called z and z_prime, or the only two of two dimensions; labels are what is called so.
    No code in a file is run. Raises `ValueError` with what the file holds if it isn't clear which arrays are meant.
    """
    if len(paths) == 2:
        if keys:
            raise ValueError(
                "--keys names two arrays of one file; expected one file, or two of one array each without it"
            )
        return *(_only(path) for path in paths), None
    held = arrays(paths[0])
    tables = [name for name, array in held.items() if getattr(array, "ndim", 0) == 2]
    chosen = keys or (("z", "z_prime") if {"z", "z_prime"} <= set(held) else tuple(tables))
    if len(chosen) != 2 or not set(chosen) <= set(held):
        raise ValueError(
            f"{paths[0]} holds {_listed(held)}; expected two arrays of shape (N, d), a row each per pair. Remedy: say which "
            "with --keys FIRST SECOND, or give two files"
        )
    return held[chosen[0]], held[chosen[1]], held.get("labels")


def labels(path: Path):
    """One label a pair: an array of a file as above, or the lines of a text file."""
    if path.suffix == ".txt":
        return np.array(path.read_text(encoding="utf-8").splitlines())
    return _only(path, "labels")


def arrays(path: Path) -> Mapping[str, Any]:
    """What the file holds, by name; an array on disk is mapped into memory where its format lets it."""
    try:
        match path.suffix:
            case ".npy":
                return {"array": np.load(path, mmap_mode="r", allow_pickle=False)}
            case ".npz":
                with np.load(path, allow_pickle=False) as held:
                    return dict(held)
            case ".safetensors":
                from safetensors.torch import load_file

                return load_file(path)
            case ".pt" | ".pth":
                state: Any = checkpoints.load_checkpoint(path)
                state = dict(enumerate(state)) if isinstance(state, list | tuple) else state
                return state if isinstance(state, dict) else {"array": state}
    except ModuleNotFoundError as error:
        raise ValueError(f"{path} needs a reader of its format. Remedy: python -m pip install {error.name}") from error
    except Exception as error:  # bytes that no writer of that format wrote can raise anything
        why = checkpoints.reason(error).splitlines()[0]
        raise ValueError(f"{path} is no {path.suffix} file of arrays, or a damaged one: {why}") from error
    raise ValueError(f"{path} has an unknown ending; expected {FORMATS}")


def _only(path: Path, name: str = "z"):
    """The file's only array, or the one with this name."""
    held = arrays(path)
    if len(held) == 1:
        return next(iter(held.values()))
    if name not in held:
        raise ValueError(f"{path} holds {_listed(held)}; expected one array")
    return held[name]


def _listed(held: Mapping) -> str:
    shapes = {name: tuple(getattr(array, "shape", ())) or type(array).__name__ for name, array in held.items()}
    return ", ".join(f"{name!r} {shape}" for name, shape in shapes.items())
