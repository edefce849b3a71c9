"""Downloads that go wrong, by a server of this machine: a wrong checksum, half a file, silence, no network; and their cure."""

import gc
import gzip
import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from budgets import HANG
from test_datasets import IMAGES, LABELS, idx

from rpm_tutorial import datasets

# requests leaves the socket of a failed download to the garbage collector, which complains: here, and in no later test.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
RIGHT = {IMAGES: gzip.compress(idx(10_000, 28, 28, value=3), 1), LABELS: gzip.compress(idx(10_000, value=3), 1)}
TROUBLES = {
    "another file": "does not match the known hash",
    "half a file": "IncompleteRead|does not match",
    "not found": "404",
    "silence": "timed out",
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        content, trouble = RIGHT[self.path.lstrip("/")], self.server.trouble
        self.server.asked.append(self.path)
        if trouble == "silence":
            self.server.end.wait(HANG)
        elif trouble == "not found":
            self.send_error(404)
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            half = len(content) // 2
            self.wfile.write({"half a file": content[:half], "another file": bytes(2 * half)}.get(trouble, content))

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server that `fashion_mnist` takes for that of the data set's authors; no other place has the files."""
    checksums = {name: f"md5:{hashlib.md5(content).hexdigest()}" for name, content in RIGHT.items()}
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.trouble, server.asked, server.end, server.cache = None, [], threading.Event(), tmp_path / "cache"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        monkeypatch.delenv("RPM_DATA", raising=False)
        monkeypatch.setenv("NO_PROXY", "*")
        monkeypatch.setattr(datasets, "DEBIAN_FOLDER", tmp_path / "no Debian package")
        address = f"http://127.0.0.1:{server.server_port}/"
        for name, value in {"path": server.cache, "base_url": address, "registry": checksums}.items():
            monkeypatch.setattr(datasets.DOWNLOADS, name, value)
        yield server
        server.end.set()
        server.shutdown()


@pytest.fixture(scope="module", autouse=True)
def no_socket_left():
    yield
    gc.collect()


def refused() -> str:
    """What the user is told."""
    with pytest.raises(FileNotFoundError) as error:
        datasets.fashion_mnist("test")
    message = str(error.value)
    assert IMAGES in message and "its download failed" in message
    assert all(remedy in message for remedy in ("(1) name a folder", "(2) on Debian", "(3) with a network"))
    return message


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_download_that_fails_is_named_keeps_no_file_and_is_made_good_by_the_next(trouble, server, monkeypatch):
    monkeypatch.setattr(datasets, "TIMEOUT", 0.3 if trouble == "silence" else HANG)
    server.trouble = trouble
    assert re.search(TROUBLES[trouble], refused())
    assert len(server.asked) == 1 and list(server.cache.glob("*")) == []
    monkeypatch.setattr(datasets, "TIMEOUT", HANG)
    server.trouble = None
    for _ in range(2):  # what was downloaded once is not downloaded again
        assert datasets.fashion_mnist("test").labels.unique().tolist() == [3]
    assert len(server.asked) == 3


def test_a_file_damaged_in_the_cache_is_downloaded_again_and_not_used_without_a_network(server):
    server.cache.mkdir()
    for name, content in RIGHT.items():
        (server.cache / name).write_bytes(content[: len(content) // 2])
    server.trouble = "not found"
    assert "404" in refused()
    server.trouble = None
    assert datasets.fashion_mnist("test").labels.unique().tolist() == [3]


def test_a_folder_that_cannot_be_written_is_named_with_the_remedies(server, monkeypatch, tmp_path):
    (tmp_path / "a file").touch()
    monkeypatch.setattr(datasets.DOWNLOADS, "path", tmp_path / "a file" / "cache")
    assert "cache" in refused()
