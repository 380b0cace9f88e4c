"""pyroute2's IPRoute without the rest of the package, which its `__init__` loads: 65 modules that weigh 5 MB."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any


def _load() -> tuple[Any, Any]:
    """IPRoute, and what it raises where the kernel says no.

    The package's own name is an empty module as long as that is loaded; whoever asks for `pyroute2` afterwards gets
    the real one, which finds its parts loaded.
    """
    found = importlib.util.find_spec("pyroute2") if "pyroute2" not in sys.modules else None
    if found is not None:
        stand_in = ModuleType("pyroute2")
        stand_in.__path__ = list(found.submodule_search_locations or ())
        sys.modules["pyroute2"] = stand_in
    try:
        from pyroute2.iproute.linux import IPRoute
        from pyroute2.netlink.exceptions import NetlinkError
    finally:
        if found is not None:
            del sys.modules["pyroute2"]
    return IPRoute, NetlinkError


IPRoute, NetlinkError = _load()
