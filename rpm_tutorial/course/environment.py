"""The machine: device, versions, memory, and the self-check that `rpm-tutorial doctor` prints."""

import importlib.util
import inspect
import os
import platform
from importlib.metadata import version

import torch

from .. import finite, objectives, priors


def pick_device(name: str | None = None) -> torch.device:
    """The named device, or CUDA where there is one, or the CPU. Raises `ValueError` for one that this machine lacks."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            f'device {name!r} was asked for, but this PyTorch ({torch.__version__}) sees no GPU; use "cpu"'
        )
    try:
        torch.empty(1, device=name).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f'device {name!r} is none that this PyTorch can use here; expected "cpu" or "cuda"') from error
    return torch.device(name)


def in_colab() -> bool:
    return importlib.util.find_spec("google") is not None and importlib.util.find_spec("google.colab") is not None


def setup() -> torch.device:
    """The first call of each notebook: one thread, widgets in Colab, and the device, which it returns.

    The networks of this course are so small that threads mostly wait for each other: on a machine with two busy cores two
    threads took up to twenty times as long as one. Set OMP_NUM_THREADS to decide for yourself.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    if in_colab():
        from google.colab import output

        output.enable_custom_widget_manager()
    return pick_device()


def show_source(*objects) -> None:
    """Show the source of functions or classes, highlighted: nothing in this course is hidden."""
    from IPython.display import Code, display

    for item in objects:
        display(Code(inspect.getsource(item).rstrip(), language="python"))


def identity_residual() -> float:
    """|(L - C) - InfoNCE| on a random world, by (E3) and by (E7): zero but for rounding."""
    world = finite.FiniteRPM.random()
    log_f = torch.linspace(-2, 2, world.q_joint.numel(), dtype=torch.float64).view_as(world.q_joint).sin()
    bound = world.elbo(priors.infonce(log_f, world.q_joint)).value - world.constant
    return (bound - objectives.infonce(log_f, world.q_joint).value).abs().item()


def self_check() -> str:
    """Five lines: versions, device, threads, memory, and the residual of the course's identity on this machine."""
    device = pick_device()
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
    residual = identity_residual()
    others = ", ".join(f"{p} {version(p)}" for p in ("numpy", "plotly", "ipywidgets"))
    return "\n".join(
        (
            f"versions  Python {platform.python_version()}, torch {torch.__version__}, {others}",
            f"device    {device} ({name})",
            f"threads   {torch.get_num_threads()} of {os.cpu_count()} processors",
            f"memory    {_memory()}",
            f"identity  |(L - C) - InfoNCE| = {residual:.1e} nats: {'right' if residual < 1e-12 else 'WRONG, please report this'}",
        )
    )


def _memory() -> str:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return "not known on this system"
    page = os.sysconf("SC_PAGE_SIZE")
    free = (
        f", {os.sysconf('SC_AVPHYS_PAGES') * page / 2**30:.1f} GiB free"
        if "SC_AVPHYS_PAGES" in os.sysconf_names
        else ""
    )
    return f"{os.sysconf('SC_PHYS_PAGES') * page / 2**30:.1f} GiB{free}; a lesson needs less than 1 GiB"
