"""Fixtures that several test files share."""

import pytest
from needs import need_chromium


@pytest.fixture(scope="session")
def chromium_path() -> str:
    return need_chromium()
