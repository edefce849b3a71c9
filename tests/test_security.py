"""What SECURITY.md promises: a server for this machine and its user only, and nothing that is fetched from elsewhere."""

import contextlib
import json
import os
import re
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from ipaddress import ip_address
from typing import NamedTuple

import build_notebooks
import environments
import psutil
import pytest
from budgets import HANG, wait_until

from rpm_tutorial import datasets

NOTEBOOKS = sorted(build_notebooks.NOTEBOOKS.glob("*.ipynb"))
ANNOUNCEMENTS = "@jupyterlab/apputils-extension:announcements"


# The server of `make lab`, in an environment of its own


class Lab(NamedTuple):
    process: psutil.Process
    address: str
    opened: str
    token: str
    said: str

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
    checkout = environments.checkout_for("lab", folder / "a folder with space")
    own = {f"JUPYTER_{kind}_DIR": str(folder / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "log"
    with log.open("w") as output:
        process = psutil.Popen(
            ["make", "lab", f"PORT={port}"], cwd=checkout, env=os.environ | own, stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        wait_until(lambda: "token=" in log.read_text() or process.poll() is not None)
        said = re.search(r"(http://\S+?)(/lab\S*)\?token=(\w+)", log.read_text())
        assert said, log.read_text()
        lab = Lab(process, *said.groups(), log.read_text())
        wait_until(lambda: lab.ask("/api/status")[0] == 403)
        yield lab
    finally:
        family = [*process.children(recursive=True), process]
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.terminate()
        _, alive = psutil.wait_procs(family, timeout=HANG)
        for one in alive:
            one.kill()


@pytest.mark.jupyterlab
@pytest.mark.slow
def test_make_lab_opens_the_first_lesson_and_refuses_a_request_without_its_token(lab: Lab):
    assert "Installing" not in lab.said and "identity" in lab.said
    assert lab.opened == "/lab/tree/my-course/00_start_here.ipynb" and len(lab.token) >= 48, "192 bits"
    for name in ("status", "contents", "kernels", "terminals", "sessions"):
        statuses = [lab.ask(f"/api/{name}", token=token)[0] for token in (None, "0" * 48, lab.token)]
        assert statuses == [403, 403, 200], name


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


def test_the_stored_notebooks_load_nothing_from_other_hosts():
    assert {path.name: fetched(json.loads(path.read_text())) for path in NOTEBOOKS} == {p.name: [] for p in NOTEBOOKS}


@pytest.mark.parametrize(
    "text",
    [
        '<script type="module" src="//cdn.example.org/a.js"></script>',
        "<style>@font-face {src: url(https://example.org/a.woff2)}</style>",
        "<script>import('https://example.org/a.mjs')</script>",
        "![a picture](https://example.org/a.svg)",
    ],
)
def test_what_is_fetched_from_another_host_would_be_noticed(text: str):
    cell = {"cell_type": "code", "outputs": [{"data": {"text/html": [text[:9], text[9:]]}}]}
    link = {"cell_type": "markdown", "source": "<a href='https://example.org'>read</a> [more](https://example.org)"}
    assert len(fetched({"cells": [cell, link, {"cell_type": "markdown", "source": [text]}]})) == 2
