"""Fill docs/teaching.md with what the notebooks say: minutes per section, each exercise's misconceptions, the neighbours.

Between `<!-- lesson NN -->` or `<!-- neighbours -->` and `<!-- end -->` everything is generated; the rest is written by hand.
"""

import re
from pathlib import Path

from build_notebooks import NEIGHBOURS, NOTEBOOKS, read_source

from rpm_tutorial import lessons
from rpm_tutorial.course.exercise import Exercise
from rpm_tutorial.course.lessons import LESSONS

GUIDE = NOTEBOOKS.parent / "docs" / "teaching.md"
BLOCK = re.compile(r"(?s)<!-- lesson (\d\d) -->\n.*?<!-- end -->")
NEIGHBOURS_BLOCK = re.compile(r"(?s)<!-- neighbours -->\n.*?<!-- end -->")
# Minutes before they are scaled to the lesson's own total: reading at 200 words a minute, running and looking, thinking.
PER_WORD, PER_CODE_CELL, PER_QUESTION, PER_EXERCISE = 1 / 200, 0.7, 1.5, 4


def sections(source: Path) -> dict[str, float]:
    """Heading -> unscaled minutes, in order; what stands before the first heading counts as the opening."""
    found, heading = {"Opening": 0.0}, "Opening"
    for cell in read_source(source).cells:
        if cell.cell_type == "code":
            found[heading] += PER_EXERCISE if "exercise" in cell.metadata.get("tags", []) else PER_CODE_CELL
            continue
        for part in re.split(r"(?m)^(?=## )", cell.source):
            if part.startswith("## "):
                heading = part.splitlines()[0][3:].strip()
                found[heading] = 0.0
            questions = part.count("**Predict**") + len(re.findall(r"(?m)^\*\*\d\. .*", part)) * (heading == "Quiz")
            found[heading] += len(part.split()) * PER_WORD + questions * PER_QUESTION
    return found


def stated_minutes(source: Path) -> int:
    stated = re.search(r"\*\*Time\*\*\s+(\d+) minutes", re.sub(r"\n# ?", " ", source.read_text(encoding="utf-8")))
    if not stated:
        raise ValueError(f"{source.name} states no time; expected **Time** NN minutes in its first cell")
    return int(stated[1])


def minutes(source: Path) -> dict[str, int]:
    """Heading -> whole minutes; they add up to the time that the lesson states, and no section has none."""
    total, weights = stated_minutes(source), sections(source)
    exact = {heading: total * weight / sum(weights.values()) for heading, weight in weights.items()}
    whole = {heading: max(1, int(value)) for heading, value in exact.items()}
    by_remainder = sorted(exact, key=lambda heading: whole[heading] - exact[heading])
    while sum(whole.values()) < total:
        whole[by_remainder.pop(0)] += 1
    while sum(whole.values()) > total:
        whole[max(whole, key=whole.get)] -= 1
    return whole


def block(number: str) -> str:
    """The generated part of one lesson."""
    source = next(NOTEBOOKS.glob(f"{number}_*.py"), None)
    if source is None:
        return "*This lesson is not in this version.*"
    lines = ["| minutes | section |", "|---:|---|"]
    lines += [f"| {count} | {heading} |" for heading, count in minutes(source).items()]
    for name, exercise in vars(getattr(lessons, f"lesson_{number}")).items() if f"lesson_{number}" in LESSONS else ():
        if isinstance(exercise, Exercise):
            lines += [
                "",
                f"**`{name}`**{' (a bug to find)' * bool(exercise.with_bug)} {exercise.prompt} Wrong answers that are recognised, "
                "and what they are told:",
                "",
            ]
            lines += [f"- {message}" for message in exercise.misconceptions.values()]
    return "\n".join(lines)


def neighbours() -> str:
    """A row for each neighbour: its minutes, its title, the lessons that it needs."""
    lines = ["| minutes | neighbour | after lesson |", "|---:|---|---|"]
    for source in sorted(NEIGHBOURS.glob("N*.py")):
        first = read_source(source).cells[0].source
        title, needs = re.match(r"# (.+)", first)[1], re.split(r"\*\*You need\*\*", first)[1].split("**Time**")[0]
        after = ", ".join(str(int(number)) for number in re.findall(r"\]\(\.\./(\d\d)_", needs))
        link = f"[{source.name[:3]} {title}](notebooks/neighbours/{source.stem}.ipynb)"
        lines.append(f"| {stated_minutes(source)} | {link} | {after} |")
    return "\n".join(lines)


def filled(text: str) -> str:
    """The guide with every generated part made afresh. `ValueError` if a lesson has no place in it."""
    missing = {path.name[:2] for path in NOTEBOOKS.glob("[0-9]*.py")} - set(BLOCK.findall(text))
    if missing:
        raise ValueError(
            f"{GUIDE.name} has no place for lessons {sorted(missing)}: add <!-- lesson NN --> and <!-- end -->"
        )
    text = NEIGHBOURS_BLOCK.sub(lambda _: f"<!-- neighbours -->\n{neighbours()}\n<!-- end -->", text)
    return BLOCK.sub(lambda found: f"<!-- lesson {found[1]} -->\n{block(found[1])}\n<!-- end -->", text)


if __name__ == "__main__":
    GUIDE.write_text(filled(GUIDE.read_text(encoding="utf-8")), encoding="utf-8")
