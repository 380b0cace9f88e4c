"""Faults to plant into the code, in memory: whoever writes one of them must hear of it from the model.

A fault is a line of a module and what stands there instead. The module's text is compiled with it, and functions that
differ get the new code: nobody's references change, and nothing is written to the disk.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from tests.pure.model import kernel  # noqa: F401 - the modules below are imported with it

#: The first seed of a proof: the same for everybody, so that the table can be compared.
BASE = 1


class Fault(NamedTuple):
    module: str
    line: str
    instead: str


FAULTS = {
    "a lost session withdraws": Fault("plan.fates", "    if silent:\n", "    if True:\n"),
    "rows are added, never replaced": Fault(
        "plan.rows",
        "        *map(Set, _ordered(want.neigh - seen.neigh, _NEIGH)),\n",
        "        *(Set(n) for n in want.neigh - seen.neigh if n.address not in {s.address for s in seen.neigh}),\n",
    ),
    "an index key is put without looking": Fault(
        "store.records",
        "            Put(self.arp(definition, record.address), record.mac.encode(), MARK, claim.arp),\n"
        "            Put(self.fib(definition, record.mac), vtep.encode(), MARK, claim.fib),\n",
        "            Put(self.arp(definition, record.address), record.mac.encode(), MARK),\n"
        "            Put(self.fib(definition, record.mac), vtep.encode(), MARK),\n",
    ),
    "a lease is put without looking": Fault(
        "store.pooled",
        "        ops: list[Op] = [Put(key, encode(new), index=held.index if held else 0)]\n",
        "        ops: list[Op] = [Put(key, encode(new))]\n",
    ),
    "a change wakes nobody": Fault(
        "store.records", "        turned = ring.value.turned(self.me)\n", "        turned = ring.value\n"
    ),
    "an offer is forgotten": Fault(
        "host.publish",
        "            self._asked[overlay] = ticket\n            self._due[overlay] = 0.0\n",
        "            self._asked[overlay] = ticket\n            if ticket % 4: self._due[overlay] = 0.0\n",
    ),
    "the index is not reset": Fault(
        "host.hearsay",
        "                host: Held(held.value, 0) if anew else held\n",
        "                host: held\n",
    ),
    "whoever has left may send on": Fault(
        "host.local",
        "        (guard.keep if complete else guard.admit)(self.network.overlay, self._live)\n",
        "        guard.admit(self.network.overlay, self._live)\n",
    ),
    "a container is bound after its cable": Fault(
        "host.cabling",
        "            self._binding.add(ground.bound, network.overlay, endpoint, others)\n",
        "            self._binding.gone(network.overlay)\n",
    ),
    "an address in use is given again": Fault(
        "host.leases",
        '        if mine is not None and mine.use == "endpoint" and self._is_used(network, asked):\n',
        "        if False:\n",
    ),
    "an absent list withdraws": Fault(
        "host.discover",
        "        left = (gone - self._remaining(gone) if gone else gone) | (lost & known)\n",
        "        left = gone | (lost & known)\n",
    ),
    "a changed record is passed over": Fault(
        "plan.claims",
        "        if winner == best:\n",
        "        if winner == best or (winner is not None and best is not None and winner.host == best.host):\n",
    ),
    "a withdrawn address keeps its peer": Fault(
        "plan.claims",
        "        if winner is None:\n            self._peers.drop(address)\n            return\n",
        "        if winner is None:\n            return\n",
    ),
    "what was read in a doubt is all there is": Fault("host.local", "whole=anew and not doubt)\n", "whole=True)\n"),
    "rows are compared with what we remember": Fault(
        "host.converge",
        "        return bool(_repairs(_rows_of(ground.tables), want, complete, local))\n",
        "        return bool(_repairs(ground.rows.all(), want, complete, local))\n",
    ),
    "an endpoint is local before it has joined": Fault(
        "host.local",
        "        return _records(one for one in self.endpoints() if one.joined)\n",
        "        return _records(self.endpoints())\n",
    ),
    "a release is not told later": Fault(
        "host.telling",
        '            if lease.use == "releasing" and self._is_due(lease):\n',
        "            if False:\n",
    ),
    "a promise is not written": Fault(
        "host.telling", "            self._keep_promise(lease, deadline)\n", "            pass\n"
    ),
    "an index key stays": Fault(
        "host.publish",
        "        return [entry for key, entry in sorted(known.entries.items()) if key not in keep]\n",
        "        return []\n",
    ),
    "the dead keep their addresses": Fault(
        "host.graves",
        "        for host in (self._fates.expired() & self._seen.keys()) - self._kept:\n",
        "        for host in ():\n",
    ),
    "a new session is not announced": Fault(
        "host.alive",
        "        if self._announced != mine or known is None or holder != self._session:\n",
        "        if not self.announced.is_set():\n",
    ),
    "a host that is found again stays without rows": Fault(
        "host.peers", "            self.on_found(host)\n", "            pass\n"
    ),
    "an old list counts": Fault(
        "plan.believe",
        "        return read if read.serial >= known.serial else known\n",
        "        return read\n",
    ),
    "a withdrawal is not published": Fault(
        "docker.driver",
        "                self._publisher.offer(local.network.overlay)\n        return {}\n\n    def endpoint_info",
        "        return {}\n\n    def endpoint_info",
    ),
}


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The code with the fault meanwhile; with "" as it is. Raises AssertionError where its line is not there."""
    if not name:
        yield
        return
    with plant(FAULTS[name]):
        yield


@contextmanager
def plant(fault: Fault) -> Iterator[None]:
    """The same for a fault of the caller's."""
    module = importlib.import_module(f"myoverlay.{fault.module}")
    source = inspect.getsource(module)
    assert source.count(fault.line) == 1, f"{fault.line!r} is not in {fault.module} once"
    changed = _functions(_compiled(module, source.replace(fault.line, fault.instead)))
    before = {where: function.__code__ for where, function in _functions(vars(module)).items()}
    touched = 0
    for where, function in _functions(vars(module)).items():
        if (
            changed[where].__code__.co_code != before[where].co_code
            or changed[where].__code__.co_consts != before[where].co_consts
            or changed[where].__code__.co_names != before[where].co_names
        ):
            touched += 1
        function.__code__ = changed[where].__code__
    try:
        assert touched, f"{fault.instead!r} in {fault.module} changes nothing"
        yield
    finally:
        for where, function in _functions(vars(module)).items():
            function.__code__ = before[where]


def _compiled(module: ModuleType, source: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": module.__name__, "__file__": module.__file__}
    exec(compile(source, str(module.__file__), "exec"), names)
    return names


def _functions(names: dict[str, Any]) -> dict[str, FunctionType]:
    """All functions and methods that a module itself defines, by their dotted names."""
    found = {}
    for value in list(names.values()):
        if getattr(value, "__module__", None) != names["__name__"]:
            continue
        if isinstance(value, type):
            for attribute in list(vars(value).values()):
                for function in _inside(attribute):
                    found[function.__qualname__] = function
        else:
            for function in _inside(value):
                found[function.__qualname__] = function
    return {where: function for where, function in found.items() if function.__module__ == names["__name__"]}


def _inside(value: Any) -> list[FunctionType]:
    """The plain functions in a method, a property or a decorated function."""
    parts: list[Callable[..., Any] | None] = [value]
    if isinstance(value, property):
        parts = [value.fget, value.fset]
    elif isinstance(value, staticmethod | classmethod):
        parts = [value.__func__]
    plain = [inspect.unwrap(part) for part in parts if callable(part)]
    return [part for part in plain if isinstance(part, FunctionType)]
