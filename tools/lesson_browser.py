"""Run a lesson as its reader does: in JupyterLab, in a headless Chromium. For browser tests and screenshots.

Everything is on loopback, in temporary folders: the committed notebooks are copied, without outputs, and no
setting of the user's own Jupyter is read or changed.
"""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import budgets
import build_notebooks
import chromium
import keyboard
import nbformat
from nbformat import NotebookNode
from playwright.sync_api import Browser, Page, sync_playwright

SCREENSHOTS = build_notebooks.NOTEBOOKS.parent / "screenshots"
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
STDERR = '[data-mime-type="application/vnd.jupyter.stderr"]'  # tracebacks too
FINISHED = """stderr => {
    const prompts = [...document.querySelectorAll('.jp-Notebook .jp-CodeCell .jp-InputPrompt')];
    const failed = document.querySelector(stderr);
    return !prompts.some(prompt => prompt.innerText.includes('*'))
        && (failed || prompts.every(prompt => /[0-9]/.test(prompt.innerText)));
}"""
FADED = "() => document.getAnimations().every(a => !(a instanceof CSSTransition) || a.playState === 'finished')"
DRAWN = "() => [...document.querySelectorAll('.js-plotly-plot')].every(plot => plot.querySelector('.main-svg'))"
FOUND = """stderr => [...document.querySelectorAll('.jp-Notebook .jp-CodeCell')].map(cell => ({
    prompt: cell.querySelector('.jp-InputPrompt').innerText,
    stderr: [...cell.querySelectorAll(stderr)].map(output => output.innerText),
    plots: cell.querySelectorAll('.js-plotly-plot .main-svg:first-child').length,
    broken: cell.querySelectorAll('.jupyter-widgets-error-widget').length,
}))"""


# The kernel's processor time for each cell, by its id, and its process.
WATCH = """
def _watch(shell=get_ipython()):
    import os, time
    begun, worked = {}, {}
    shell.user_ns.update(_worked=worked, _pid=os.getpid())
    shell.events.register("pre_run_cell", lambda info: begun.update({info.cell_id: time.process_time()}))
    shell.events.register("post_run_cell", lambda result: worked.update(
        {result.info.cell_id: time.process_time() - begun.get(result.info.cell_id, time.process_time())}))
_watch()
"""
WORKED = "import json; print(json.dumps([_worked, _pid]))"


@dataclass
class Server:
    """A running JupyterLab that serves copies of notebooks."""

    url: str
    token: str
    folder: Path
    settings: Path
    runtime: Path
    log: Path

    def add(self, notebook: Path) -> str:
        """Copy a notebook without its outputs, so that whatever shows comes from running it."""
        copy = nbformat.read(notebook, as_version=4)
        for cell in build_notebooks.code_cells(copy):
            cell.outputs, cell.execution_count = [], None
        nbformat.write(copy, self.folder / notebook.name)
        return self.page(notebook.name)

    def page(self, name: str) -> str:
        return f"{self.url}/lab/tree/{self.folder.name}/{name}?token={self.token}&reset"

    def ask(self, path: str, method: str = "GET"):
        """The answer of the server's REST interface."""
        request = urllib.request.Request(f"{self.url}/api/{path}?token={self.token}", method=method)
        with urllib.request.urlopen(request, timeout=budgets.HANG) as answer:
            return json.loads(answer.read() or "null")

    def set(self, plugin: str, **settings: object) -> None:
        """Write the settings of one of JupyterLab's plugins; they count from the next page on."""
        path = self.settings / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings))


@dataclass
class Run:
    """What a reader would have seen; the notebook as it was then, the processor's seconds by cell id, and the kernel's process."""

    cells: int = 0
    figures: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    notebook: NotebookNode = field(default_factory=NotebookNode)
    worked: dict[str, float] = field(default_factory=dict)
    pid: int = 0


def write(source: str, notebook: Path) -> Path:
    """A notebook of a source in cells, not executed."""
    notebook.with_suffix(".py").write_text(source, encoding="utf-8")
    build_notebooks.write(build_notebooks.read_source(notebook.with_suffix(".py")), notebook)
    return notebook


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serve() -> Iterator[Server]:
    """`rpm-tutorial lab` on a folder of its own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        home = Path(name)
        folders = {
            "JUPYTER_CONFIG_DIR": home / "config",
            "JUPYTER_DATA_DIR": home / "data",
            "JUPYTER_RUNTIME_DIR": home / "runtime",
            "JUPYTERLAB_SETTINGS_DIR": home / "settings",
            "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
            "IPYTHONDIR": home / "ipython",
        }
        port, token = free_port(), secrets.token_hex(16)
        settings, runtime, log = folders["JUPYTERLAB_SETTINGS_DIR"], folders["JUPYTER_RUNTIME_DIR"], home / "log"
        server = Server(f"http://127.0.0.1:{port}", token, home / "lessons", settings, runtime, log)
        whole_notebook = {"windowingMode": "none", "scrollPastEnd": False}  # else only what is in view exists
        server.set("notebook-extension/tracker", **whole_notebook)
        server.set("apputils-extension/notification", fetchNews="false", checkForUpdates=False)
        folders["JUPYTER_CONFIG_DIR"].mkdir()
        ours = {"ServerApp": {"open_browser": False}, "LabApp": {"expose_app_in_browser": True}}
        (folders["JUPYTER_CONFIG_DIR"] / "jupyter_server_config.json").write_text(json.dumps(ours))
        command = [sys.executable, "-m", "rpm_tutorial.course.cli", "lab", server.folder, "--port", str(port)]
        with log.open("w") as output:
            environment = os.environ | {key: str(folder) for key, folder in folders.items()} | {"JUPYTER_TOKEN": token}
            process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            wait_until_ready(server, process)
            yield server
        finally:
            stop(process)


def wait_until_ready(server: Server, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + budgets.HANG
    while process.poll() is None and time.monotonic() < deadline:
        try:
            server.ask("status")
            return
        except urllib.error.URLError:  # not listening yet
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start:\n{server.log.read_text()[-2000:]}")


def stop(process: subprocess.Popen) -> None:
    """JupyterLab ends its kernels when it is asked to stop; its process group is ended should it not."""
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def launch() -> Iterator[Browser]:
    sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium.find(), args=sandbox)
        yield browser
        browser.close()


@contextlib.contextmanager
def lesson(browser: Browser, server: Server, notebook: Path, theme: str = "light") -> Iterator[tuple[Page, Run]]:
    """Open a notebook, run all its cells and report; the page stays open for more."""
    server.set("apputils-extension/themes", theme=THEMES[theme])
    run, start = Run(), time.monotonic()
    page = browser.new_page(viewport={"width": 1200, "height": 1400})
    page.set_default_timeout(1000 * budgets.HANG)
    page.route(lambda url: not url.startswith(server.url), lambda route: route.abort())
    page.on("pageerror", lambda error: run.problems.extend(page_problem(error)))
    page.on("console", lambda message: run.problems.extend(console_problem(message, server)))
    try:
        page.goto(server.add(notebook))
        page.locator("#jp-main-statusbar").get_by_text("| Idle").first.wait_for()
        page.evaluate("window.jupyterapp.commands.execute('application:toggle-left-area')")
        keyboard.ask(page, WATCH)
        page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
        page.wait_for_function(FINISHED, arg=STDERR)
        page.wait_for_function(DRAWN)
        report(page, notebook, run)
        run.worked, run.pid = json.loads(keyboard.ask(page, WORKED))
        page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
        run.notebook = nbformat.read(server.folder / notebook.name, as_version=4)
        run.seconds = time.monotonic() - start
        yield page, run
    finally:
        page.close()
        for session in server.ask("sessions"):
            server.ask(f"sessions/{session['id']}", "DELETE")


def show_theme(page: Page, theme: str) -> None:
    """Change the theme of an open page, as its Settings menu does."""
    name = THEMES[theme]
    page.evaluate("name => window.jupyterapp.commands.execute('apputils:change-theme', { theme: name })", name)
    page.wait_for_function("name => document.body.dataset.jpThemeName === name", arg=name)
    page.wait_for_function(FADED)


def page_problem(error) -> list[str]:
    """Errors that nobody caught; that a busy page was not ready for messages within two seconds harms no widget that gets none."""
    return [] if "[anywidget] Failed to initialize model" in str(error) else [f"uncaught in the page: {error}"]


def console_problem(message, server: Server) -> list[str]:
    """Errors on the console; that the outside can't be reached is none of the lesson's."""
    outside = not message.location["url"].startswith(server.url)
    if message.type != "error" or (outside and "Failed to load resource" in message.text):
        return []
    return [f"console: {message.text} ({message.location['url']})"]


def report(page: Page, notebook: Path, run: Run) -> None:
    cells = page.evaluate(FOUND, STDERR)
    stored = build_notebooks.code_cells(nbformat.read(notebook, as_version=4))
    run.cells, run.figures = len(cells), sum(cell["plots"] for cell in cells)
    if len(cells) != len(stored):
        run.problems.append(f"{len(cells)} code cells in the page, {len(stored)} in the notebook")
    for number, (cell, source) in enumerate(zip(cells, stored, strict=False)):
        bundles = [output.get("data", {}) for output in source.outputs]
        figures = sum(build_notebooks.PLOTLY in bundle for bundle in bundles)
        run.problems += [f"Cell {number} on stderr: {text.strip()[-500:]}" for text in cell["stderr"]]
        if not any(letter.isdigit() for letter in cell["prompt"]):
            run.problems.append(f"Cell {number} did not run: {cell['prompt']}")
        if cell["plots"] < figures:
            run.problems.append(f"Cell {number} shows {cell['plots']} figures of {figures}")
        if cell["broken"]:
            run.problems.append(f"Cell {number} shows a broken widget")
