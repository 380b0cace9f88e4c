"""py-consul without `requests`: its transport is not ours (see `wire`), and what it brings along weighs 3 MB."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


def _load() -> Any:
    """It takes two names from `requests` as it is loaded and calls neither, as we give it a port of our own."""
    if "requests" in sys.modules:
        import consul.base

        return consul
    stand_in = ModuleType("requests")
    stand_in.Response = object  # type: ignore[attr-defined]
    sys.modules["requests"] = stand_in
    try:
        import consul.base
    finally:
        del sys.modules["requests"]  # Docker's SDK needs the real one
    return consul


_consul = _load()
Consul = _consul.Consul
HTTPClient = _consul.base.HTTPClient
ConsulException, NotFound = _consul.ConsulException, _consul.NotFound
