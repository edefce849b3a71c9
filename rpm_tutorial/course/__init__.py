"""The course on top of the library: lessons, widgets, figures, handouts and the command line. Nothing below imports it."""

from importlib.util import find_spec

import lazy_loader

if missing := [name for name in ("anywidget", "click", "IPython", "ipywidgets", "plotly") if not find_spec(name)]:
    raise ModuleNotFoundError(f'the course needs {", ".join(missing)}. Remedy: pip install "rpm-tutorial[course]"')

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
