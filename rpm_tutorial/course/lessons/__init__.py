"""One module a lesson or neighbour: its exercises, and the widget that it shows; and the study's rows. Each loads on first use."""

from pathlib import Path

import lazy_loader

LESSONS, NEIGHBOURS = (
    tuple(sorted(path.stem for path in Path(__file__).parent.glob(f"{kind}_[0-9][0-9].py")))
    for kind in ("lesson", "neighbour")
)

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=[*LESSONS, *NEIGHBOURS, "study"])
