"""One module a lesson or neighbour: its exercises, and the widget that it shows; each loads on first use."""

from pathlib import Path

import lazy_loader

LESSONS = tuple(f"lesson_{number:02}" for number in range(12))
NEIGHBOURS = tuple(sorted(path.stem for path in Path(__file__).parent.glob("neighbour_[0-9][0-9].py")))

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=[*LESSONS, *NEIGHBOURS])
