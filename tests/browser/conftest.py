"""What every browser test opens: a JupyterLab, and a Chromium. Once a module: Playwright keeps an event loop while it is open."""

import lesson_browser
import pytest


@pytest.fixture(scope="module")
def server(chromium_path: str):
    with lesson_browser.serve() as server:
        yield server


@pytest.fixture(scope="module")
def browser(chromium_path: str):
    with lesson_browser.launch() as browser:
        yield browser
