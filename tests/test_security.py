"""What SECURITY.md promises: a server for this machine and its user only, and nothing that is fetched from elsewhere."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

import build_notebooks
import psutil
import pytest
from budgets import HANG, wait_until

from rpm_tutorial import cli, datasets

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(build_notebooks.NOTEBOOKS.glob("*.ipynb"))
ANNOUNCEMENTS = "@jupyterlab/apputils-extension:announcements"


# The server of `rpm-tutorial lab`


class Lab(NamedTuple):
    process: psutil.Process
    address: str
    token: str

    def ask(self, path: str, *, token: str | None = None, data: bytes | None = None) -> tuple[int, bytes]:
        """The status and body of a request with this token."""
        headers = {"Authorization": f"token {token}"} if token else {}
        try:
            request = urllib.request.Request(self.address + path, data=data, headers=headers)
            with urllib.request.urlopen(request, timeout=HANG) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def read(self, path: str, data: bytes | None = None) -> bytes:
        status, body = self.ask(path, token=self.token, data=data)
        assert status in (200, 201), body
        return body


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    own = {f"JUPYTER_{kind}_DIR": str(folder / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    log = folder / "log"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with log.open("w") as output:
        command = [sys.executable, "-m", "rpm_tutorial.course.cli", "lab", "course", "--port", str(port)]
        environment = os.environ | own | {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: "token=" in log.read_text() or process.poll() is not None)
        said = re.search(r"(http://\S+?)/lab\S*\?token=(\w+)", log.read_text())
        assert said, log.read_text()
        lab = Lab(psutil.Process(process.pid), *said.groups())
        wait_until(lambda: lab.ask("/api/status")[0] == 403)
        yield lab
    finally:
        children = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        process.wait(HANG)
        _, alive = psutil.wait_procs(children, timeout=HANG)
        for child in alive:
            child.kill()


@pytest.mark.jupyterlab
@pytest.mark.slow
@pytest.mark.parametrize("path", ["/api/status", "/api/contents", "/api/kernels", "/api/terminals", "/api/sessions"])
@pytest.mark.parametrize("token", [None, "0" * 48])
def test_without_the_servers_token_a_request_is_refused(lab: Lab, path: str, token: str | None):
    assert len(lab.token) >= 48, "192 bits, drawn anew at each start"
    assert lab.ask(path, token=token)[0] == 403
    assert lab.ask(path, token=lab.token)[0] == 200


def listening(process: psutil.Process) -> dict[tuple[str, int], str]:
    """Where a process and its children listen, and which of them; a child that ends meanwhile listens nowhere."""
    places = {}
    for one in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            name, sockets = one.name(), one.net_connections("tcp")
            places |= {tuple(socket.laddr): name for socket in sockets if socket.status == psutil.CONN_LISTEN}
    return places


@pytest.mark.jupyterlab
@pytest.mark.slow
def test_server_and_kernel_listen_on_loopback_only(lab: Lab):
    before = listening(lab.process)
    assert int(lab.address.rsplit(":", 1)[1]) in {port for _, port in before}
    lab.read("/api/kernels", data=b"{}")
    found = wait_until(lambda: len(now := listening(lab.process)) >= len(before) + 5 and now)  # its channels
    assert [place for place in found if not ip_address(place[0]).is_loopback] == []


@pytest.mark.jupyterlab
@pytest.mark.slow
def test_jupyterlab_asks_no_other_host_for_news_or_updates(lab: Lab):
    assert set(cli.NO_NEWS) <= set(lab.process.cmdline())
    assert json.loads(lab.read("/lab/api/news")) == {"news": []}
    assert json.loads(lab.read("/lab/api/update")) == {"notification": None}
    page = lab.read("/lab").decode()
    config = json.loads(re.search(r'(?s)id="jupyter-config-data"[^>]*>(.+?)</script>', page)[1])
    assert config["news"] == {"disabled": True} and ANNOUNCEMENTS in config["disabledExtensions"]
    assert re.findall(r"""(?:src|href)=["']?(?:https?:)?//[^"' >]+""", page) == []


def test_what_is_downloaded_is_compared_with_a_strong_checksum():
    assert len(datasets.DOWNLOADS.registry) == 4
    assert all(re.fullmatch("sha256:[0-9a-f]{64}", known) for known in datasets.DOWNLOADS.registry.values())


# What the stored notebooks load


FETCHED = re.compile(
    r"""(?ix)
    <(?:script|img|iframe|source|video|audio|embed|link|object)\b[^>]*?\b(?:src|href|data|srcset)\s*=\s*["']?\s*(?:https?:)?//
    | url\(\s*["']?(?:https?:)?// | @import\s+["'](?:https?:)?//
    | \b(?:import|fetch|importScripts)\s*\(\s*["'`](?:https?:)?//
    | !\[[^\]]*\]\(\s*(?:https?:)?//"""
)


def fetched(notebook: dict) -> list[str]:
    """What a notebook would have its reader's browser fetch from another host, in its text and its outputs."""
    texts = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            for data in output.get("data", {}).values():
                texts.append(json.dumps(data, ensure_ascii=False) if isinstance(data, dict) else "".join(data))
    return [found[0] for text in texts for found in FETCHED.finditer(text)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_stored_notebook_loads_nothing_from_other_hosts(path: Path):
    assert fetched(json.loads(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "text",
    [
        "<script src='https://cdn.example.org/a.js'></script>",
        '<script type="module" src="//cdn.example.org/a.js"></script>',
        '<link rel="stylesheet" href="https://fonts.example.org/css">',
        "<img alt='' src=http://example.org/a.png>",
        "<style>@font-face {src: url(https://example.org/a.woff2)}</style>",
        "<script>import('https://example.org/a.mjs')</script>",
        "![a picture](https://example.org/a.svg)",
    ],
)
def test_what_is_fetched_from_another_host_would_be_noticed(text: str):
    cell = {"cell_type": "code", "outputs": [{"data": {"text/html": [text[:9], text[9:]]}}]}
    assert len(fetched({"cells": [cell]})) == 1
    assert len(fetched({"cells": [{"cell_type": "markdown", "source": [text]}]})) == 1
    link = "<a href='https://example.org'>read</a> [more](https://example.org)"
    assert fetched({"cells": [{"cell_type": "markdown", "source": link}]}) == []
