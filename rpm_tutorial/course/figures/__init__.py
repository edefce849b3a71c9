"""Arrays in, a captioned figure out: `charts` has the palette and what the whole course draws, `latents` what is learned.

`diagrams` has the drawings that explain rather than plot.
"""

from .charts import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    STYLES,
    VERMILLION,
    Figure,
    Style,
    bundle,
    dots,
    images,
    lines,
    plotly_json,
    tables,
)  # fmt: skip
from .diagrams import Diagram, course_map, graphical_model, hidden_states, reweighting, seven_lines, three_names
from .latents import clouds, paths, training
