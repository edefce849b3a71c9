"""What the site's pages say about the course, read from the notebooks and the library: no list of lessons is kept by hand."""

import csv
import dataclasses
import html
import json
import re
import tokenize
from functools import cache
from pathlib import Path

import jupytext
import launch_links
import plotly.graph_objects as go
import site_notebooks
import yaml

import rpm_tutorial
from rpm_tutorial.course import _twins
from rpm_tutorial.course.figures import Figure, diagrams

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS, DOCS, BENCHMARK = ROOT / "notebooks", ROOT / "docs", ROOT / "bench" / "results.md"
NEIGHBOURS, STUDY = NOTEBOOKS / "neighbours", NOTEBOOKS / "study"
RUN_TIMES = DOCS / "run_times.csv"


@cache
def lessons() -> dict[str, list]:
    """The cells of each lesson, by name, in order."""
    return {path.stem: jupytext.read(path, fmt="py:percent").cells for path in sorted(NOTEBOOKS.glob("*.py"))}


def prose(name: str) -> str:
    return "\n\n".join(cell.source for cell in lessons()[name] if cell.cell_type == "markdown")


@cache
def neighbours() -> dict[str, str]:
    """The prose of each neighbour's notebook, by name, in order."""
    return _prose_in(NEIGHBOURS)


@cache
def study() -> dict[str, str]:
    """The prose of the study's notebook, by name."""
    return _prose_in(STUDY)


def _prose_in(folder: Path) -> dict[str, str]:
    read = {path.stem: jupytext.read(path, fmt="py:percent").cells for path in sorted(folder.glob("*.py"))}
    return {name: "\n\n".join(c.source for c in cells if c.cell_type == "markdown") for name, cells in read.items()}


def link(name: str) -> str:
    """A lesson by its number and title."""
    title = re.match(r"# (.+)", prose(name))[1]
    return f"[{int(name[:2])} {title}](notebooks/{name}.ipynb)"


def link_to_neighbour(name: str) -> str:
    return f"[{name[:3]} {re.match('# (.+)', neighbours()[name])[1]}](notebooks/neighbours/{name}.ipynb)"


def said(text: str, label: str, end: str) -> str:
    """What follows a bold label of a notebook's first cell."""
    return " ".join(re.search(rf"\*\*{label}\*\*:?\s(.+?){end}", text, re.DOTALL)[1].split())


# The landing page


def cards() -> str:
    """Each lesson: its title, what its reader can do afterwards, and its minutes."""
    items = []
    for name in lessons():
        title = re.match(r"# (.+)", prose(name))[1]
        skill, time = said(prose(name), "Afterwards you can", r"\.\n"), said(prose(name), "Time", r"[.,;]")
        skill = re.sub(r"\]\((?=\d\d_)", "](notebooks/", skill)  # from the first page, a folder above
        items.append(
            f'<div class="card">\n\n**[{int(name[:2])} {title}](notebooks/{name}.ipynb)**\n\n{skill}.\n\n{time}\n\n</div>'
        )
    return "\n\n".join(['<div class="cards">', *items, "</div>"])


def start() -> str:
    """The ways in: the first lesson here, and where the course is published, running."""
    first = next(iter(lessons()))
    links = {"Start": f"notebooks/{first}.html"}
    install = "git clone the repository, then make lab"
    if repository := launch_links.repository():
        links |= {
            f"Run in {service}": launch_links.link(service, f"notebooks/{first}.ipynb", repository)
            for service in launch_links.SERVICES
        }
        links |= {"PDF": f"{launch_links.site(repository)}course.pdf"}
        install = f"git clone https://github.com/{repository} && cd {repository.split('/')[1]} && make lab"
    links |= {"Notebooks (zip)": "notebooks.zip"}
    row = " ".join(f'<a href="{html.escape(url)}">{name}</a>' for name, url in links.items())
    return f'<p class="launch">{row}</p>\n\nOn your machine: `{install}`'


def stored(lesson: str, beginning: str) -> dict:
    """A figure that a lesson has stored, found by how its description begins: the data of its output."""
    notebook = json.loads((NOTEBOOKS / f"{lesson}.ipynb").read_text(encoding="utf-8"))
    shown = (o["data"] for cell in notebook["cells"] for o in cell.get("outputs", ()) if "data" in o)
    found = (data for data in shown if site_notebooks.PLOTLY in data)
    return next(data for data in found if "".join(data["text/plain"]).startswith(beginning))


def three_curves() -> str:
    """The picture of lesson 0, with a slider that reads the three curves at a temperature."""
    data = stored("00_start_here", "Lines of nats per pair, C taken away")
    curves = _twins.plain(data[site_notebooks.PLOTLY]["data"])
    temperatures = curves[0]["x"]
    options = [(f"{temperature:.2g}", k) for k, temperature in enumerate(temperatures)]
    metadata = {"label": "temperature", "menu": False, "options": options, "values": range(len(options))}
    place = dataclasses.field(default=len(options) // 3, metadata=metadata)

    def render(state) -> Figure:
        drawn = {key: value for key, value in data[site_notebooks.PLOTLY].items() if key in ("data", "layout")}
        figure = go.Figure(drawn)
        figure.layout.shapes[0].update(x0=temperatures[state.place], x1=temperatures[state.place])
        read = ", ".join(f"{curve['name']} {curve['y'][state.place]:.4f}" for curve in curves)
        said = f"At temperature {options[state.place][0]}: {read} nats per pair."
        return Figure(figure, said, f"Three curves, one on another. {said}", (), ())

    state_type = dataclasses.make_dataclass("Place", [("place", int, place)], frozen=True)
    return site_notebooks.figure(data | {site_notebooks.GRID: _twins.grid(render, state_type)}, 91, 320)


def course_map() -> str:
    drawing = diagrams.course_map()
    return f"{drawing._repr_svg_()}\n\n*{drawing.caption}*"


def citation() -> str:
    """BibTeX of the course and of the paper, from CITATION.cff."""
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    (paper,) = (work for work in cff["references"] if work["type"] == "article")
    authors = " and ".join(f"{a['family-names']}, {a['given-names']}" for a in paper["authors"])
    address = f"\n  url     = {{{launch_links.site(repository)}}}," if (repository := launch_links.repository()) else ""
    return (
        f"@software{{rpm_tutorial,\n  title   = {{{cff['title']}}},\n  author  = {{{{{cff['authors'][0]['name']}}}}},"
        f"{address}\n  version = {{{cff['version']}}}\n}}\n\n@article{{infonce_is_variational_inference,\n"
        f"  title   = {{{paper['title']}}},\n  author  = {{{authors}}},\n  journal = {{{paper['journal']}}},\n"
        f"  year    = {{{paper['year']}}},\n  note    = {{{paper['identifiers'][0]['value']}}}\n}}"
    )


def description(name: str) -> str:
    """A notebook in a sentence, for a link that is shared."""
    text = neighbours().get(name) or study().get(name) or prose(name)
    return "Afterwards you can " + said(text, "Afterwards you can", r"\.\n") + "."


# Notation


def notation() -> list[dict[str, str]]:
    with (DOCS / "notation.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter=";"))


@cache
def identifiers(source: str) -> set[str]:
    """Every name in a piece of Python, comments and strings left out."""
    lines = iter(source.splitlines(keepends=True))
    return {t.string for t in tokenize.generate_tokens(lambda: next(lines, "")) if t.type == tokenize.NAME}


def code(name: str) -> str:
    return "\n".join(cell.source for cell in lessons()[name] if cell.cell_type == "code") + "\n"


def library() -> set[str]:
    """Every name in the library."""
    files = Path(rpm_tutorial.__file__).parent.rglob("*.py")
    return set().union(*(identifiers(path.read_text(encoding="utf-8")) for path in files))


def first_lesson(identifier: str) -> str | None:
    return next((name for name in lessons() if identifier in identifiers(code(name))), None)


def notation_table() -> str:
    rows = []
    for row in notation():
        first = first_lesson(row["identifier"])
        lesson = f"[{int(first[:2])}](notebooks/{first}.ipynb)" if first else "library"
        rows.append(
            (row["symbol"], f"`{row['identifier']}`", row["meaning"], row["shape"] or "–", row["unit"] or "–", lesson)
        )
    return table(("symbol", "identifier", "meaning", "shape", "unit", "lesson"), rows)


# The map of the neighbours


def neighbours_map() -> list[dict[str, str]]:
    with (DOCS / "neighbours.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter=";"))


def neighbours_table() -> str:
    rows = []
    for row in neighbours_map():
        name = next((name for name in neighbours() if name.startswith(f"{row['number']}_")), None)
        title = link_to_neighbour(name) if name else row["number"]
        paper = f"[{row['paper']}](https://arxiv.org/abs/{row['arxiv']})"
        columns = ("optimises", "prior and normaliser", "beside ours", "not reproduced")
        rows.append((f"{title} · {paper}", *(row[column] for column in columns)))
    heads = ("notebook · paper", "what it optimises", "prior · normaliser", "beside ours", "what we did not reproduce")
    return table(heads, rows)


def neighbours_contents() -> str:
    """Their part of the table of contents, each by its number and title."""
    titles = (re.match("# (.+)", text)[1] for text in neighbours().values())
    lines = [f"{name[:3]} {title} <notebooks/neighbours/{name}>" for name, title in zip(neighbours(), titles)]
    return "\n".join(["```{toctree}", ":caption: Neighbours of the paper", ":hidden:", "", "neighbours", *lines, "```"])


# The other tables


def run_times_table() -> str:
    """Minutes of reading from the lessons, seconds and memory from docs/run_times.csv, which `make run-times` writes."""
    measured = {}
    if RUN_TIMES.exists():
        with RUN_TIMES.open(encoding="utf-8", newline="") as file:
            measured = {row["lesson"]: row for row in csv.DictReader(file)}
    pages = [(name, link(name), prose(name)) for name in lessons()]
    pages += [(name, link_to_neighbour(name), text) for name, text in neighbours().items()]
    rows = []
    for name, title, text in pages:
        run = measured.get(name, {})
        rows.append((title, said(text, "Time", r"[.,;]"), *(run.get(k, "–") for k in ("seconds", "slowest", "mib"))))
    return table(("notebook", "reading", "running (s)", "slowest cell (s)", "peak memory (MiB)"), rows)


def benchmark() -> str:
    if not BENCHMARK.exists():
        return "It has not been measured for this copy of the course."
    text = re.sub(r"\A# .+\n", "", BENCHMARK.read_text(encoding="utf-8"))
    return text.replace("](results.svg)", "](../bench/results.svg)")


def modules() -> list[str]:
    """The modules of the package in the order in which they build on each other, as docs/architecture.md has it."""
    rows = re.findall(r"(?m)^\| (`.+?`) \|", (DOCS / "architecture.md").read_text(encoding="utf-8"))
    return [name for row in rows for name in re.findall(r"`([\w.]+)`", row)]


def api() -> str:
    """A section for each public module."""
    public = [name for name in modules() if name.split(".")[-1] in rpm_tutorial.__all__]
    section = "## {0}\n\n```{{eval-rst}}\n.. automodule:: rpm_tutorial.{1}\n   :members:\n```"
    return "\n\n".join(section.format(name.split(".")[-1], name) for name in public)


def table(head: tuple[str, ...], rows: list[tuple]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


@cache
def equations() -> dict[str, str]:
    """Where each numbered equation is: the page and anchor of the lesson that states it, or of the first to name it."""
    found = {}
    for pattern, anchor in ((r"\\tag\{(E\d+)\}", True), (r"\((E\d+)\)", False)):
        for name in lessons():
            for number in re.findall(pattern, prose(name)):
                found.setdefault(number, f"notebooks/{name}.html" + (f"#{number}" if anchor else ""))
    return found


def with_links(body: str, page: str) -> str:
    """The HTML of a page, each (E7) in its text a link to the equation."""

    def replace(match):
        target = equations().get(match["number"])
        return f'<a href="{"../" * page.count("/")}{target}">{match[0]}</a>' if target else match[0]

    not_text = r"<(?P<tag>script|pre|a|math|summary|option|h[1-6])\b.*?</(?P=tag)>|<[^>]+>"
    return re.sub(not_text + r"|\((?P<number>E\d+)\)", replace, body, flags=re.DOTALL)


GENERATED = {
    "start": start,
    "three curves": three_curves,
    "a slider": lambda: site_notebooks.figure(
        stored("04_one_prior_one_objective", "Lines of L − C (nats per pair) against trust"), 92, 440
    ),
    "lessons": cards,
    "course map": course_map,
    "citation": citation,
    "neighbours": neighbours_table,
    "contents of the neighbours": neighbours_contents,
    "notation": notation_table,
    "run times": run_times_table,
    "benchmark": benchmark,
    "api": api,
}


def filled(text: str) -> str:
    """A page with its generated parts in the place of `<!-- name -->`."""
    for name, make in GENERATED.items():
        marker = f"<!-- {name} -->"
        if marker in text:
            text = text.replace(marker, make())
    return text
