"""Arrays in, a captioned figure out: `charts` has the palette and what the whole course draws, `latents` what is learned."""

from .charts import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    STYLES,
    VERMILLION,
    Figure,
    Style,
    bundle,
    dots,
    images,
    lines,
    tables,
)  # fmt: skip
from .latents import clouds, paths, training
