"""Diagrams as SVG: dark ink on a white sheet of their own, so that dark themes and print show them alike.

Each has a text description, which a screen reader says in its place.
"""

import html
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from IPython.display import publish_display_data

from ...derivation import EQUATIONS
from .charts import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION


@dataclass(frozen=True)
class Diagram:
    """A drawing that displays itself, its caption below; `alt` says in words what it shows."""

    width: int
    height: int
    parts: Sequence[str]
    caption: str
    alt: str

    def _repr_svg_(self) -> str:
        size = f"width='{self.width}' height='{self.height}' viewBox='0 0 {self.width} {self.height}'"
        heads = "".join(
            f"<marker id='rpm-{color[1:]}' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='7' markerHeight='7' "
            f"orient='auto'><path d='M0 0L8 4L0 8z' fill='{color}'/></marker>"
            for color in (BLACK, BLUE)
        )
        return (
            f"<svg xmlns='http://www.w3.org/2000/svg' {size} role='img' aria-label='{html.escape(self.alt)}' "
            f"style='max-width: 100%; height: auto' font-family='sans-serif'><defs>{heads}</defs>"
            f"<rect width='100%' height='100%' rx='8' fill='white'/>{''.join(self.parts)}</svg>"
        )

    def _ipython_display_(self) -> None:
        """As an image, which a screen reader calls by its description, with the caption below."""
        drawing = f"data:image/svg+xml;base64,{b64encode(self._repr_svg_().encode()).decode()}"
        image = f'<img src="{drawing}" alt="{html.escape(self.alt)}" style="max-width: 100%">'
        below = f"<p><em>{html.escape(self.caption)}</em></p>"
        publish_display_data({"text/html": image + below, "text/plain": f"{self.alt}\n{self.caption}"})


def three_names() -> Diagram:
    """Lesson 0: a table of scores, read in three ways."""
    parts = _box(20, 18, 290, 56, ["encoder: z of x, z′ of x′", "what the network learns"], BLUE)
    parts += _box(390, 18, 290, 56, ["critic f(z, z′) with its temperature", "which z′ go with z"], VERMILLION)
    parts += _box(200, 122, 300, 40, ["a table of scores, a row for each z"])
    parts += [_path("M165 76V96H350V120"), _path("M535 76V96H350", head=False)]
    parts += [_path(f"M350 164V184H{115 + 235 * k}V206") for k in range(3)]
    parts += _box(10, 208, 210, 86, ["InfoNCE", "how well x finds its partner", "among N candidates"], PURPLE)
    parts += _box(245, 208, 210, 86, ["ELBO − C", "how probable the pair is", "under a model, at least"], SKY)
    parts += _box(480, 208, 210, 86, ["log evidence − C", "how probable the pair is", "under that model"])
    parts += [_text(232, 258, "=", 22), _text(467, 258, "≤", 22)]
    parts += [_text(232, 318, "always", 13), _text(467, 318, "equal if z and z′ are certain", 13)]
    said = "A table of scores, read in three ways. InfoNCE is always the ELBO less C. The log evidence less C "
    said += "is at least as large, and equal to both if every x has one certain z and every x′ one certain z′."
    return Diagram(700, 334, parts, said, said)


def graphical_model() -> Diagram:
    """Lesson 1: (E1), with the encoders beside it."""
    parts = [_path("M213 90H101"), _path("M447 90H559"), _path("M266 90H394", VERMILLION, head=False)]
    parts += [_path("M80 65C120 25 190 25 229 64", BLUE, True), _path("M580 65C540 25 470 25 431 64", BLUE, True)]
    for x, label, fill in ((70, "x", "#DDDDDD"), (240, "z", "white"), (420, "z′", "white"), (590, "x′", "#DDDDDD")):
        parts += [f"<circle cx='{x}' cy='90' r='26' fill='{fill}' stroke='{BLACK}' stroke-width='2'/>"]
        parts += [_text(x, 96, label, 20)]
    parts += [_text(155, 28, "encoder Q(z|x)", color=BLUE), _text(505, 28, "encoder Q(z′|x′)", color=BLUE)]
    parts += [_text(157, 112, "P(x|z)"), _text(503, 112, "P(x′|z′)"), _text(330, 80, "P(z, z′)")]
    parts += [_text(x, 138, "by Bayes' rule: no choice", 13) for x in (157, 503)] + [_text(330, 138, "your choice", 13)]
    caption = (
        "The model (E1). Grey nodes are observed. The dashed encoders are no part of it: they define its likelihoods."
    )
    alt = (
        "Two observed nodes, x and x prime, and between them two latents, z and z prime. A line joins the latents: the "
    )
    alt += (
        "prior. Arrows lead from each latent to its observation: the likelihoods. Dashed ones lead back: the encoders."
    )
    return Diagram(660, 156, parts, caption, alt)


def seven_lines() -> Diagram:
    """Lesson 2: what each line of the derivation says, and the step between two."""
    lines = [f"{name}: {line}" if name[0] == "(" else line for name, line in EQUATIONS.items()]
    steps = ["z and z′ are scored as they are drawn", "the likelihood is Bayes' rule (E2)"]
    steps += ["log Q(z|x) cancels: one encoder does both", "the data terms are a constant"]
    steps += ["x and x′ are summed out, pair by pair", "add and subtract log Q(z,z′)"]
    parts = [part for k, line in enumerate(lines) for part in _box(15, 12 + 66 * k, 610, 36, [line])]
    for k, step in enumerate(steps):
        parts += [_path(f"M320 {50 + 66 * k}V{76 + 66 * k}", BLUE), _text(335, 68 + 66 * k, step, 13, "start", BLUE)]
    caption = "Seven lines and the six steps between them, with what each step needs. All seven are one number."
    alt = "; ".join(f"then, as {step}: {line}" for step, line in zip(steps, lines[1:]))
    return Diagram(640, 458, parts, caption, f"Seven boxes, one below the other. {lines[0]}; {alt}.")


def hidden_states() -> Diagram:
    """Lesson 12: (E25), a chain of latents and their frames, one of which was not seen."""
    parts = [_text(20, 76, "states", anchor="start"), _text(20, 198, "frames", anchor="start")]
    parts += [_text(400, 26, "prior P(Z): each state moves by A, and some noise", color=VERMILLION)]
    for x, t in zip((190, 330, 470, 610), "₁₂₃₄"):
        dark, line = t == "₃", f"stroke='{BLACK}' stroke-width='2'"
        fill = f"fill='white' {line} stroke-dasharray='5 4'" if dark else f"fill='#DDDDDD' {line}"
        parts += [f"<circle cx='{x}' cy='70' r='26' fill='white' {line}/>", _text(x, 76, f"z{t}", 20)]
        parts += [f"<rect x='{x - 26}' y='166' width='52' height='52' {fill}/>", _text(x, 198, f"x{t}", 20)]
        parts += [_path(f"M{x - 8} 97V164")]
        parts += [_path(f"M{x - 114} 70H{x - 26}", VERMILLION, head=False)] * (t != "₁")
        parts += [_path(f"M{x + 10} 164C{x + 28} 144 {x + 28} 118 {x + 14} 97", BLUE, True)] * (not dark)
    parts += [_text(222, 128, "encoder", 13, "start", BLUE), _text(222, 146, "Q(u₁|x₁)", 13, "start", BLUE)]
    parts += [_text(470, 238, "dark", 13)]
    caption = (
        "The model (E25). Grey frames are observed; the third was dark, and has no factor. The dashed encoders are no part of the "
        "model: each defines the likelihood of its own frame."
    )
    alt = (
        "Four latent states in a row, joined by lines: the prior P(Z). An arrow leads from each state down to its frame. Frames "
        "one, two and four are grey, and from each a dashed arrow, the encoder, leads back to its state. Frame three is empty."
    )
    return Diagram(660, 250, parts, caption, alt)


def reweighting(q_z_prime: Sequence[float], f: Sequence[Sequence[float]]) -> Diagram:
    """Lesson 3: (E7), the prior as Q(z') reweighted, a row for each z; f is the critic's table, not its logarithm."""
    q = [float(p) for p in q_z_prime]
    weighted = [[p * float(factor) for p, factor in zip(q, row, strict=True)] for row in f]
    rows = {"Q(z′)": q} | {f"P(z′|z = {k})": [p / sum(row) for p in row] for k, row in enumerate(weighted)}
    scale, parts = 60 / max(map(max, rows.values())), []
    for base, (name, row) in enumerate(rows.items()):
        base, color = 80 + 84 * base, VERMILLION if base else GREY
        parts += [_text(130, base - 20, name, anchor="end"), _path(f"M150 {base}H560", head=False)]
        for x, p, at_first in zip(range(165, 565, 400 // len(q)), row, q):
            parts += [_bar(x, base, scale * p, f"fill='{color}'"), _text(x + 42, base - 4, f"{p:.2f}", 13, "start")]
            parts += [_bar(x, base, scale * at_first, f"fill='none' stroke='{BLACK}' stroke-dasharray='3 3'")]
    parts += [_text(183 + 400 // len(q) * j, 100 + 84 * len(f), f"z′ = {j}", 13) for j in range(len(q))]
    caption = "Each row of the prior is Q(z′), dashed, times f(z,z′), over Z(z). The critic moves mass within a row."
    alt = "; ".join(f"{name}: {', '.join(f'{p:.2f}' for p in row)}" for name, row in rows.items())
    return Diagram(600, 114 + 84 * len(f), parts, caption, f"Bars in rows, each of which sums to one. {alt}.")


def course_map() -> Diagram:
    """Lesson 0: the lessons, and what leads to what."""
    groups = {
        "Why it is true": (BLUE, ["1 the model", "2 its ELBO", "3 InfoNCE's prior", "4 other priors"]),
        "How to measure it": (PURPLE, ["5 a whole data set", "6 finite batches"]),
        "What it assumes": (VERMILLION, ["7 why not the MI", "8 a prior assumes"]),
        "Beyond pairs": (
            ORANGE,
            ["10 sequences", "11 looking ahead", "12 hidden states", "13 one shared latent", "14 bound or evidence"],
        ),
        "How to use it": (GREEN, ["9 images", "15 the losses you use", "16 your own prior"]),
    }
    parts = _box(270, 12, 240, 34, ["0 one number, three names"]) + [_path("M270 29H90V72")]
    for x, (title, (color, lessons)) in zip(range(10, 870, 172), groups.items()):
        parts += _box(x, 74, 160, 136, [title, *lessons], color)
    parts += [_path(f"M{171 + 172 * k} 142H{181 + 172 * k}") for k in range(3)] + [_path("M434 210V226H778V212")]
    alt = "; ".join(f"{title}: lessons {', '.join(lessons)}" for title, (_, lessons) in groups.items())
    caption = "Lesson 0, then five parts in a good order. Each lesson names what it needs."
    order = "Lesson 0 leads to five parts: each of the first three to the next, and the third to the last too"
    return Diagram(868, 238, parts, caption, f"{order}. {alt}.")


def _text(x: float, y: float, text: str, size: int = 15, anchor: str = "middle", color: str = BLACK) -> str:
    return f"<text x='{x}' y='{y}' fill='{color}' text-anchor='{anchor}' font-size='{size}'>{html.escape(text)}</text>"


def _box(x: float, y: float, width: float, height: float, lines: Sequence[str], color: str = BLACK) -> list[str]:
    """A frame, and lines of text in it, of which the first is its title."""
    frame, middle = f"x='{x}' y='{y}' width='{width}' height='{height}' rx='6'", y + height / 2 + 15 - 10 * len(lines)
    texts = [_text(x + width / 2, middle + 20 * k, line, 13 if k else 15) for k, line in enumerate(lines)]
    return [f"<rect {frame} fill='none' stroke='{color}' stroke-width='2'/>", *texts]


def _bar(x: float, base: float, high: float, paint: str) -> str:
    return f"<rect x='{x}' y='{base - high:.1f}' width='36' height='{high:.1f}' {paint}/>"


def _path(d: str, color: str = BLACK, dashed: bool = False, head: bool = True) -> str:
    more = " stroke-dasharray='6 5'" * dashed + f" marker-end='url(#rpm-{color[1:]})'" * head
    return f"<path d='{d}' fill='none' stroke='{color}' stroke-width='2'{more}/>"
