"""What every browser test opens: one JupyterLab, and a Chromium a module, since Playwright keeps an event loop while it is open."""

import lesson_browser
import pytest


@pytest.fixture(scope="session")
def server(chromium_path: str):
    with lesson_browser.serve() as server:
        yield server


@pytest.fixture(scope="module")
def browser(chromium_path: str):
    with lesson_browser.launch() as browser:
        yield browser
