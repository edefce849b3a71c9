"""Whether a page shows a widget."""

import time

import anywidget
import traitlets


class Page(anywidget.AnyWidget):
    """A sign of life from the page, every two seconds: a kernel is not told when its page is closed."""

    _esm = """
    export default {
        initialize({ model }) {
            const tell = () => { model.set("told", Date.now()); model.save_changes(); };
            const timer = setInterval(tell, 2000);
            return () => clearInterval(timer);
        },
        render({ el }) { el.hidden = true; },
    };
    """
    told = traitlets.Float(0.0).tag(sync=True)

    def __init__(self) -> None:
        super().__init__()
        self.seen: float | None = None
        self.observe(self._hear, "told")

    def _hear(self, _change) -> None:
        self.seen = time.monotonic()

    def silent_for(self) -> float:
        """Seconds since the last sign; 0 where there never was a page, as in a script."""
        return 0.0 if self.seen is None else time.monotonic() - self.seen
