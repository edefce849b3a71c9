"""The site: the executed notebooks and the pages beside them, as HTML that works from disk. `make site` builds it."""

import base64
import gzip
import html
import re
import shutil
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tools")]

import launch_links  # noqa: E402
import plotly.offline  # noqa: E402
import site_pages  # noqa: E402
from docutils.nodes import SkipNode  # noqa: E402

from rpm_tutorial.course._markdown import mathml  # noqa: E402

project = "InfoNCE is variational inference"
copyright = "the authors of rpm_tutorial; text CC BY 4.0, code MIT"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
myst_enable_extensions = ["dollarmath"]
nb_execution_mode = "off"
nb_custom_formats = {".ipynb": "site_notebooks.read"}
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
add_module_names = False
autodoc_typehints = "signature"

PROMISE = "A course that runs: InfoNCE, the ELBO and the log evidence of one model are one number. See why, and use it."
html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_math_renderer = "mathml"
html_copy_source = False
html_show_search_summary = False  # it fetches pages, which browsers refuse from disk
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0072B2", "color-brand-content": "#0065A0"},
    "dark_css_variables": {"color-brand-primary": "#7CC4EC", "color-brand-content": "#7CC4EC"},
    "top_of_page_buttons": [],
}


# Pages have to lie below this folder: what is in docs/notebooks is a copy.
shutil.rmtree(HERE / "notebooks", ignore_errors=True)
shutil.copytree(site_pages.NOTEBOOKS, HERE / "notebooks", ignore=shutil.ignore_patterns("*.py", ".*"))


def visit_math(translator, node) -> None:
    translator.body.append(mathml(node.astext(), "inline"))
    raise SkipNode


def visit_math_block(translator, node) -> None:
    """An equation, its number at the right; the number is where links to (E7) lead."""
    latex, number = node.astext(), ""
    if tag := re.search(r"\\tag\{(\w+)\}", latex):
        latex, number = latex.replace(tag[0], ""), f'<a class="number" id="{tag[1]}" href="#{tag[1]}">({tag[1]})</a>'
    translator.body.append(
        f'<div class="equation"><div class="rpm-scroll">{mathml(latex, "block")}</div>{number}</div>'
    )
    raise SkipNode


def fill_page(app, docname, source) -> None:
    if not docname.startswith("notebooks/"):
        source[0] = site_pages.filled(source[0])


def as_plain_text(app, what, name, obj, options, lines) -> None:
    """The library's docstrings are plain text: what reStructuredText would take for markup is escaped."""
    for number, line in enumerate(lines):
        if line.startswith("|"):  # a table: as it is written, in a literal block
            before = lines[number - 1]
            lines[number] = ("" if before.startswith((" ", "::")) else "::\n\n") + "    " + line
        elif not line.lstrip().startswith((">>>", "...")):
            lines[number] = re.sub(r"([\\|*])|(?<=\w)_(?!\w)", lambda m: "\\" + m[0], re.sub(r"`+", "``", line))
    lines[:] = "\n".join(lines).split("\n")


def is_dull(app, what, name, obj, skip, options) -> bool | None:
    """The fields of named tuples, which the class's docstring explains."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field") else None


def finish_page(app, pagename, templatename, context, doctree) -> None:
    """Equations linked, launch buttons below a notebook's title, and plotly on the pages that draw."""
    body = site_pages.with_links(context.get("body", ""), pagename)
    if pagename.startswith("notebooks/"):
        links = {"Download the notebook": f"{Path(pagename).name}.ipynb"}
        if repository := launch_links.repository():
            links |= {
                f"Open in {service}": launch_links.link(service, f"{pagename}.ipynb", repository)
                for service in launch_links.SERVICES
            }
            links |= launch_links.links_to_source(f"{pagename}.py", repository)
        row = " ".join(f'<a href="{html.escape(url)}">{name}</a>' for name, url in links.items())
        body = body.replace("</h1>", f'</h1>\n<p class="launch">{row}</p>', 1)
    if 'class="rpm-figure"' in body:
        app.add_js_file("plotly-packed.js", loading_method="defer")
        app.add_js_file("figures.js", loading_method="defer")
    context["body"] = body
    context["metatags"] = context.get("metatags", "") + shared(pagename, context.get("title", project))
    if tree := context.get("furo_navigation_tree"):  # Sphinx leaves out the level, which a heading has to have
        context["furo_navigation_tree"] = tree.replace('role="heading"', 'role="heading" aria-level="2"')


def shared(pagename: str, title: str) -> str:
    """What a link to the page shows where it is shared."""
    text = PROMISE
    if pagename.startswith("notebooks/"):
        text = re.sub(r"[*$`]|\[(.+?)\]\(.+?\)", r"\1", site_pages.description(Path(pagename).name))
    tags = {
        "og:title": re.sub(r"<.+?>", "", title),
        "og:description": text,
        "og:type": "website",
        "og:site_name": project,
    }
    if repository := launch_links.repository():
        tags["og:image"] = f"{launch_links.site(repository)}_static/three_names.png"
    rows = [f'<meta property="{name}" content="{html.escape(value)}">' for name, value in tags.items()]
    return "\n".join([f'<meta name="description" content="{html.escape(text)}">', *rows])


def add_files(app, exception) -> None:
    """The notebooks to download, and plotly once, packed: as it is it would be the heaviest thing on a page by far."""
    if exception is None:
        for folder in ("notebooks", "notebooks/neighbours", "notebooks/study"):
            for notebook in (site_pages.ROOT / folder).glob("*.ipynb"):
                shutil.copy(notebook, Path(app.outdir) / folder)
        with zipfile.ZipFile(Path(app.outdir) / "notebooks.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for notebook in sorted(site_pages.NOTEBOOKS.rglob("*.ipynb")):
                archive.write(notebook, notebook.relative_to(site_pages.ROOT))
        shutil.copy(launch_links.PICTURE, Path(app.outdir) / "_static")
        (Path(app.outdir) / ".nojekyll").touch()  # GitHub Pages would leave out folders that begin with _
        packed = base64.b64encode(gzip.compress(plotly.offline.get_plotlyjs().encode(), mtime=0)).decode()
        (Path(app.outdir) / "_static" / "plotly-packed.js").write_text(f'window.packedPlotly = "{packed}";\n')


def setup(app) -> None:
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    app.connect("source-read", fill_page)
    app.connect("autodoc-process-docstring", as_plain_text, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", is_dull)
    app.connect("html-page-context", finish_page, priority=900)  # after the theme
    app.connect("build-finished", add_files)
