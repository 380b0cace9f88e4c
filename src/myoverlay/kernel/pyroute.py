"""pyroute2's IPRoute without what only weighs: its package's other 65 modules (5 MB) and `unittest` (1 MB)."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any


@contextmanager
def _standing_in(module: ModuleType) -> Iterator[None]:
    """Whoever imports that name gets this module meanwhile; afterwards the real one, unless that is loaded already."""
    if module.__name__ in sys.modules:
        yield
        return
    sys.modules[module.__name__] = module
    try:
        yield
    finally:
        del sys.modules[module.__name__]


def _package() -> ModuleType:
    """The package without its `__init__`, which loads everything; its parts are found."""
    package = ModuleType("pyroute2")
    found = importlib.util.find_spec("pyroute2")
    package.__path__ = list(found.submodule_search_locations or ()) if found is not None else []
    return package


class _Mute:
    """Does nothing, whatever it is told: one stands for the queue in pyroute2's socket that has none."""

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_args, **_more: None


def _unittest() -> ModuleType:
    """pyroute2 takes no more of it than one `mock.Mock()`."""
    unittest = ModuleType("unittest")
    unittest.mock = SimpleNamespace(Mock=_Mute)  # type: ignore[attr-defined]
    return unittest


def _load() -> tuple[Any, Any]:
    """IPRoute, and what it raises where the kernel says no."""
    with _standing_in(_package()), _standing_in(_unittest()):
        from pyroute2.iproute.linux import IPRoute
        from pyroute2.netlink.exceptions import NetlinkError
    return IPRoute, NetlinkError


IPRoute, NetlinkError = _load()
