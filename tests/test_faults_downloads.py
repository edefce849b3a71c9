"""Downloads that go wrong, by a server of this machine: a wrong checksum, half a file, silence, no file; and their cure."""

import gc
import gzip
import hashlib
import re
import socket
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

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


class Handler(SimpleHTTPRequestHandler):
    def copyfile(self, source, outputfile):
        outputfile.write(source.read()[: -1000 if self.server.trouble == "half a file" else None])


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server that `fashion_mnist` takes for that of the data set's authors; no other place has the files."""
    folder = tmp_path / "server"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder)) as server:
        server.trouble, server.folder = None, folder
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        monkeypatch.delenv("RPM_DATA", raising=False)
        monkeypatch.setenv("NO_PROXY", "*")
        monkeypatch.setattr(datasets, "DEBIAN_FOLDER", tmp_path / "no Debian package")
        checksums = {name: f"md5:{hashlib.md5(content).hexdigest()}" for name, content in RIGHT.items()}
        place = {
            "path": tmp_path / "cache",
            "base_url": f"http://127.0.0.1:{server.server_port}/",
            "registry": checksums,
        }
        for name, value in place.items():
            monkeypatch.setattr(datasets.DOWNLOADS, name, value)
        yield server
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
@pytest.mark.parametrize("cached", [False, True], ids=["nothing cached", "half a file cached"])
def test_a_download_that_fails_is_named_and_made_good_by_the_next(trouble, cached, server, monkeypatch):
    server.trouble, cache = trouble, datasets.DOWNLOADS.path
    if cached:
        cache.mkdir()
        (cache / IMAGES).write_bytes(RIGHT[IMAGES][:1000])
    for name, content in () if trouble == "not found" else RIGHT.items():
        (server.folder / name).write_bytes(b"another" if trouble == "another file" else content)
    with monkeypatch.context() as patched, socket.create_server(("127.0.0.1", 0)) as silent:
        if trouble == "silence":
            patched.setattr(datasets, "TIMEOUT", 0.3)
            patched.setattr(datasets.DOWNLOADS, "base_url", f"http://127.0.0.1:{silent.getsockname()[1]}/")
        assert re.search(TROUBLES[trouble], refused())
    server.trouble = None
    for name, content in RIGHT.items():
        (server.folder / name).write_bytes(content)
    monkeypatch.setattr(datasets, "TIMEOUT", HANG)
    assert datasets.fashion_mnist("test").labels.unique().tolist() == [3]
    (server.folder / IMAGES).unlink()
    datasets.fashion_mnist("test")  # what was downloaded once is not downloaded again
    assert {path.name for path in cache.iterdir()} == {IMAGES, LABELS}


def test_a_folder_that_cannot_be_written_is_named_with_the_remedies(server, monkeypatch, tmp_path):
    (tmp_path / "a file").touch()
    monkeypatch.setattr(datasets.DOWNLOADS, "path", tmp_path / "a file" / "cache")
    assert "cache" in refused()
