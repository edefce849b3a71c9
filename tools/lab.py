"""Open JupyterLab on the first lesson: `python tools/lab.py [PORT]`. Loopback only, with a token."""

import os
import socket
import sys
import webbrowser

FIRST_LESSON = "notebooks/00_start_here.ipynb"


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def can_open_a_browser() -> bool:
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


def command(port: str) -> list[str]:
    """JupyterLab's command line; without a port it takes the first free one from 8888."""
    arguments = ["--ip=127.0.0.1", "--log-level=WARN", f"--LabApp.default_url=/lab/tree/{FIRST_LESSON}"]
    if port:
        arguments += [f"--port={port}", "--ServerApp.port_retries=0"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # as in a container
        arguments.append("--allow-root")
    if not can_open_a_browser():
        arguments.append("--no-browser")
    return [sys.executable, "-m", "jupyterlab", *arguments]


def main(port: str = "") -> None:
    if port and not (port.isdigit() and 0 < int(port) < 65536):
        sys.exit(f"PORT={port} is no port: choose a number from 1024 to 65535.")
    if port and not port_is_free(int(port)):
        sys.exit(f"Port {port} is taken: choose another, for example  make lab PORT={int(port) + 1}")
    print("JupyterLab is starting; its address follows. Stop it with Ctrl-C.", flush=True)
    os.execv(sys.executable, command(port))  # so that Ctrl-C and signals reach JupyterLab itself


if __name__ == "__main__":
    main(*sys.argv[1:])
