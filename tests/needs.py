"""What tests need from the machine (without it a named skip with the remedy, and with CI=true an error), and ask of it."""

import importlib.metadata
import importlib.util
import os
from pathlib import Path

import chromium
import pytest

# In the environment of a process that a test starts, what pytest's filterwarnings does here: a deprecation is an error.
NO_DEPRECATIONS = {"PYTHONWARNINGS": "error::DeprecationWarning,error::FutureWarning"}


def need_chromium() -> str:
    """The path of Chromium."""
    return chromium.find() or _missing(chromium.REMEDY)


def need_sphinx() -> None:
    if not all(importlib.util.find_spec(name) for name in ("furo", "latex2mathml", "myst_nb", "sphinx")):
        _missing("Sphinx and what the site needs of it are missing: make test installs them")


def need_library(name: str) -> None:
    """Another library, whose losses are compared with ours."""
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        _missing(f"{name} is missing: make test installs it, or make test-nightly")


def need_fashion_mnist() -> Path:
    """The folder with the files of Fashion-MNIST; no test downloads them."""
    from rpm_tutorial.datasets import REMEDIES, fashion_mnist_folder  # imports torch: only when asked

    return fashion_mnist_folder() or _missing(f"Fashion-MNIST is missing. {REMEDIES}")


def _missing(message: str):
    if os.environ.get("CI") == "true":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)
