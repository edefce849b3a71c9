"""What SECURITY.md promises: a server for this machine and its user only, and nothing that is fetched from elsewhere."""

import contextlib
import json
import os
import re
import subprocess
import urllib.error
import urllib.request
from ipaddress import ip_address

import build_notebooks
import environments
import psutil
import pytest
from budgets import HANG, wait_until

from rpm_tutorial import datasets

# The server of `make lab`, in an environment of its own


@pytest.fixture
def lab(tmp_path):
    """The process, once it has said its address, and its log."""
    checkout, log = environments.checkout_for("lab", tmp_path / "a folder with space"), tmp_path / "log"
    own = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    with log.open("w") as output:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
        process = psutil.Popen(["make", "lab"], cwd=checkout, env=os.environ | own, **pipes)
    try:
        wait_until(lambda: "token=" in log.read_text() or process.poll() is not None)
        yield process, log
    finally:
        family = [*process.children(recursive=True), process]
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.terminate()
        for one in psutil.wait_procs(family, timeout=HANG)[1]:
            one.kill()


def listening(process: psutil.Process) -> set[tuple[str, int]]:
    """Where a process and its children listen; a child that ends meanwhile listens nowhere."""
    places = set()
    for one in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            sockets = one.net_connections("tcp")
            places |= {tuple(socket.laddr) for socket in sockets if socket.status == psutil.CONN_LISTEN}
    return places


@pytest.mark.jupyterlab
@pytest.mark.slow
def test_make_lab_is_for_this_machine_and_who_has_its_token_and_asks_no_other_host_for_news(lab):
    process, log = lab
    said = log.read_text()
    address, opened, own = re.search(r"(http://\S+?)(/lab\S*)\?token=(\w+)", said).groups()
    assert "Installing" not in said and "identity" in said
    assert opened == "/lab/tree/my-course/00_start_here.ipynb" and len(own) >= 48, "192 bits"

    def ask(path: str, token: str | None = own, data: bytes | None = None) -> tuple[int, str]:
        headers = {"Authorization": f"token {token}"} if token else {}
        try:
            request = urllib.request.Request(address + path, data=data, headers=headers)
            with urllib.request.urlopen(request, timeout=HANG) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, ""

    def answers() -> bool:
        with contextlib.suppress(urllib.error.URLError):
            return ask("/api/status")[0] == 200

    wait_until(answers)
    for name in ("status", "contents", "kernels", "terminals", "sessions"):
        assert [ask(f"/api/{name}", token)[0] for token in (None, "0" * 48, own)] == [403, 403, 200], name

    before = listening(process)
    assert int(address.rsplit(":", 1)[1]) in {port for _, port in before}
    assert ask("/api/kernels", data=b"{}")[0] == 201
    found = wait_until(lambda: len(now := listening(process)) >= len(before) + 5 and now)  # its channels
    assert [place for place in found if not ip_address(place[0]).is_loopback] == []

    assert json.loads(ask("/lab/api/news")[1]) == {"news": []}
    assert json.loads(ask("/lab/api/update")[1]) == {"notification": None}
    page = ask("/lab")[1]
    config = json.loads(re.search(r'(?s)id="jupyter-config-data"[^>]*>(.+?)</script>', page)[1])
    assert config["news"] == {"disabled": True}
    assert "@jupyterlab/apputils-extension:announcements" in config["disabledExtensions"]
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
    for output in (output for cell in notebook["cells"] for output in cell.get("outputs", [])):
        for data in output.get("data", {}).values():
            texts.append(json.dumps(data, ensure_ascii=False) if isinstance(data, dict) else "".join(data))
    return [found[0] for text in texts for found in FETCHED.finditer(text)]


def test_the_stored_notebooks_load_nothing_from_other_hosts():
    notebooks = sorted(build_notebooks.NOTEBOOKS.glob("*.ipynb"))
    found = {path.name: fetched(json.loads(path.read_text())) for path in notebooks}
    assert len(found) > 16 and not any(found.values()), found


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
