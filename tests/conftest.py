"""Fixtures that several test files share."""

import pytest
from needs import need_chromium, need_fashion_mnist


@pytest.fixture(scope="session")
def chromium_path() -> str:
    return need_chromium()


@pytest.fixture(scope="session")
def fashion_mnist_folder():
    return need_fashion_mnist()
