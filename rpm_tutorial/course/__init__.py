"""The course on top of the library: lessons, widgets, figures, handouts and the command line. Nothing below imports it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
