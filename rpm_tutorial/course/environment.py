"""The machine: device, versions, memory, and the self-check that `rpm-tutorial doctor` prints."""

import importlib.util
import inspect
import os
import platform
from importlib.metadata import version

import torch
from threadpoolctl import threadpool_limits

from .. import finite, objectives, priors


def pick_device(name: str | None = None) -> torch.device:
    """The named device, or CUDA where there is one, or the CPU. Raises `ValueError` for one that this machine lacks."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=name).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        problem = f"this PyTorch ({torch.__version__}) cannot use it or sees no GPU"
        raise ValueError(f'device {name!r} was asked for, but {problem}; use "cpu"') from error
    return torch.device(name)


def in_colab() -> bool:
    return importlib.util.find_spec("google") is not None and importlib.util.find_spec("google.colab") is not None


def setup() -> torch.device:
    """The first call of each notebook: one thread, widgets in Colab, and the device, which it returns.

    The networks of this course are so small that threads mostly wait for each other: two took up to twenty times as long as
    one on two busy cores, and a probe, whose threads are those of numpy's and scipy's OpenBLAS, up to sixty times as long. Set
    OMP_NUM_THREADS to decide for yourself.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
        threads = int(os.environ.setdefault("OPENBLAS_NUM_THREADS", "1"))  # of what comes later, as scipy's copy
        threadpool_limits(threads, user_api="blas")  # of what is loaded
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
    verdict = "right" if residual < 1e-12 else "WRONG, please report this"
    others = ", ".join(f"{p} {version(p)}" for p in ("numpy", "plotly", "ipywidgets"))
    return (
        f"versions  Python {platform.python_version()}, torch {torch.__version__}, {others}\n"
        f"device    {device} ({name})\n"
        f"threads   {torch.get_num_threads()} of {os.cpu_count()} processors\n"
        f"memory    {_memory()}\n"
        f"identity  |(L - C) - InfoNCE| = {residual:.1e} nats: {verdict}"
    )


def _memory() -> str:
    known = getattr(os, "sysconf_names", ())  # not on every system
    pages = [os.sysconf(name) for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES") if name in known]
    if not pages:
        return "not known on this system"
    sizes = [f"{count * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB" for count in pages]
    return f"{', '.join(sizes)}{' free' * (len(sizes) == 2)}; a lesson needs less than 1 GiB"
