"""InfoNCE is variational inference in a recognition-parameterised model: a course that runs.

Names load on first use, so that importing the package costs nothing; `__init__.pyi` lists them.
"""

import importlib
import warnings

import lazy_loader

__version__ = "0.1.0"

_RENAMED = {  # for one release
    "shared": "shared_latent",
    "checking": "critic_checks",
    "runtime": "course.environment",
    "classroom": "course.handouts",
    "exercises": "course.lessons",
}
_lazy_getattr, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str):
    if name in _RENAMED:
        new = _RENAMED[name]
        warnings.warn(f"rpm_tutorial.{name} is now rpm_tutorial.{new}", DeprecationWarning, stacklevel=2)
        return importlib.import_module(f".{new}", __name__)
    return _lazy_getattr(name)
