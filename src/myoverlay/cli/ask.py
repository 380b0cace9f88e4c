"""Asking the plugin that runs on this host, over its own sockets. Standard library only."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from myoverlay.errors import MyoverlayError, Unavailable

#: The daemon ends every call of its own within 8 s; this is for one that hangs, seconds.
TIMEOUT = 12.0
_INSIDE = (
    "runc --root /run/docker/runtime-runc/plugins.moby exec $(docker plugin inspect -f '{{.Id}}' NAME)"
    " /usr/bin/python3.11 -IB -m myoverlay …"
)


def ask(method: str, timeout: float = TIMEOUT, **body: Any) -> dict[str, Any]:
    """One request to the daemon, as `Control.Gc`; its answer.

    The sockets of MYOVERLAY_SOCKETS are tried in order. Raises MyoverlayError with the daemon's sentence where it
    refused, Unavailable where nobody answers.
    """
    import http.client  # 40 ms, which `--help` does not need

    from myoverlay.settings import load

    paths = [path.strip() for path in load(os.environ).sockets.split(",")]
    failures = []
    for path in paths:
        connection = http.client.HTTPConnection("localhost", timeout=timeout)
        try:
            connection.sock = _dialled(path, timeout)
        except OSError as error:
            failures.append(f"{path} ({error.strerror or error})")
            continue
        try:
            connection.request("POST", f"/{method}", json.dumps(body), {"Content-Type": "application/json"})
            with connection.getresponse() as answer:
                return _read(answer.status, answer.read(), path)
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the plugin on {path} did not answer within {timeout:g} s: {error}") from error
        finally:
            connection.close()
    raise Unavailable(
        f"no plugin answers on {', '.join(failures)}: is it running (`docker plugin ls`, or `myoverlay serve`), are you"
        f" root, and does MYOVERLAY_SOCKETS name its socket? Inside a managed plugin the command runs by `{_INSIDE}`"
    )


def _dialled(path: str, timeout: float) -> socket.socket:
    dialled = socket.socket(socket.AF_UNIX)
    dialled.settimeout(timeout)
    try:
        dialled.connect(path)
    except BaseException:
        dialled.close()
        raise
    return dialled


def _read(status: int, raw: bytes, path: str) -> dict[str, Any]:
    try:
        said = json.loads(raw)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise Unavailable(f"{path} answered {status} with something else than an object of JSON: is it our plugin?")
    if status != 200:
        raise MyoverlayError(str(said.get("Err") or f"the plugin answered {status}"))
    return said
