"""HTTP: body → struct → call → answer, with one log line and one error shape for every method."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import flask
import msgspec
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from myoverlay.docker import driver, ipam, wire
from myoverlay.docker.driver import NetworkDriver
from myoverlay.docker.ipam import IpamDriver
from myoverlay.errors import MyoverlayError
from myoverlay.networks import plain
from myoverlay.tally import Tally

log = logging.getLogger(__name__)

#: After a dockerd restart its client has no time-out of its own; every call of ours ends within this, seconds.
DEADLINE = 8.0
MAX_BODY = 1 << 20
#: Asked again and again by whoever follows: a line for each would fill the log.
QUIET = frozenset({"Control.Watch"})
CONTENT_TYPE = "application/vnd.docker.plugins.v1.2+json"

Answer = dict[str, Any]
ACTIVATED: Answer = {"Implements": ["NetworkDriver", "IpamDriver"]}
Method = tuple[type[msgspec.Struct] | None, Callable[..., Answer]]
Page = Callable[[], tuple[str, bytes]]


def methods(network: NetworkDriver, ipam: IpamDriver) -> dict[str, Method]:
    """Every method of the contract: the struct of its body, if it has one, and who answers."""
    return {
        "Plugin.Activate": (None, lambda _: ACTIVATED),
        "NetworkDriver.GetCapabilities": (None, network.get_capabilities),
        "NetworkDriver.CreateNetwork": (wire.CreateNetwork, network.create_network),
        "NetworkDriver.DeleteNetwork": (wire.OfNetwork, network.delete_network),
        "NetworkDriver.CreateEndpoint": (wire.CreateEndpoint, network.create_endpoint),
        "NetworkDriver.DeleteEndpoint": (wire.OfEndpoint, network.delete_endpoint),
        "NetworkDriver.EndpointOperInfo": (wire.OfEndpoint, network.endpoint_info),
        "NetworkDriver.Join": (wire.Join, network.join),
        "NetworkDriver.Leave": (wire.OfEndpoint, network.leave),
        "NetworkDriver.ProgramExternalConnectivity": (wire.OfEndpoint, network.nothing),
        "NetworkDriver.RevokeExternalConnectivity": (wire.OfEndpoint, network.nothing),
        "NetworkDriver.DiscoverNew": (wire.Discover, network.nothing),
        "NetworkDriver.DiscoverDelete": (wire.Discover, network.nothing),
        "NetworkDriver.GwAllocCheck": (wire.Message, network.gateway_wanted),
        "NetworkDriver.AllocateNetwork": (wire.OfNetwork, network.not_for_swarm),
        "NetworkDriver.FreeNetwork": (wire.OfNetwork, network.nothing),
        "IpamDriver.GetCapabilities": (None, ipam.get_capabilities),
        "IpamDriver.GetDefaultAddressSpaces": (None, ipam.get_spaces),
        "IpamDriver.RequestPool": (wire.RequestPool, ipam.request_pool),
        "IpamDriver.ReleasePool": (wire.ReleasePool, ipam.release_pool),
        "IpamDriver.RequestAddress": (wire.RequestAddress, ipam.request_address),
        "IpamDriver.ReleaseAddress": (wire.ReleaseAddress, ipam.release_address),
    }


def create_app(
    network: NetworkDriver,
    ipam: IpamDriver,
    tally: Tally,
    more: Mapping[str, Method] | None = None,
    on_call: Callable[[str, bytes, float, int, str], None] = lambda *_: None,
    pages: Mapping[str, Page] | None = None,
) -> flask.Flask:
    """The WSGI application that Docker talks to; `more` are methods that are not Docker's, called in the same way.

    `on_call` is told of each call that was answered: method, body, milliseconds, status, and the sentence of a refusal.
    `pages` are what is only read, by GET: the type and the text of each.
    """
    app = flask.Flask("myoverlay")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    table = {**methods(network, ipam), **(more or {})}

    @app.post("/<method>", provide_automatic_options=False)
    def call(method: str) -> flask.Response:
        if method not in table:
            return _answer(404, _error(f"{plain(method)} is not a method of this plugin"))
        kind, act = table[method]
        started = time.monotonic()
        status, body, about = _call(kind, act, started + DEADLINE)
        took = time.monotonic() - started
        _note(method, about, took, status, body)
        tally.add("docker_calls", f"{method} {'ok' if status == 200 else status}")
        tally.took("docker_call", method, took)
        on_call(method, flask.request.get_data(), took * 1000, status, "" if status == 200 else body["Err"])
        return _answer(status, body)

    for name, page in (pages or {}).items():
        app.add_url_rule(f"/{name}", f"page {name}", lambda page=page: _shown(page))

    @app.errorhandler(HTTPException)
    def refused(error: HTTPException) -> flask.Response:
        return _answer(error.code or 500, _error(f"{error.code} {error.name}: {error.description}"))

    return app


def create_refusing_app(reason: str) -> flask.Flask:
    """What a plugin serves that cannot begin: Docker registers it, and every other call is told the reason.

    One that ended instead would be started again without a pause, or be left disabled at boot, and the reason would
    stand in the engine's log alone.
    """
    app = flask.Flask("myoverlay")
    known: dict[str, Answer] = {
        "Plugin.Activate": ACTIVATED,
        "NetworkDriver.GetCapabilities": driver.CAPABILITIES,
        "IpamDriver.GetCapabilities": ipam.CAPABILITIES,
        "IpamDriver.GetDefaultAddressSpaces": ipam.SPACES,
    }

    @app.post("/<method>")
    def call(method: str) -> flask.Response:
        if method in known:
            return _answer(200, known[method])
        log.error("%s is refused: %s", method, reason)
        return _answer(503, _error(reason))

    return app


def _call(
    kind: type[msgspec.Struct] | None, act: Callable[..., Answer], deadline: float
) -> tuple[int, Answer, dict[str, str]]:
    """Status, answer, and what the call was about."""
    about: dict[str, str] = {}
    try:
        body = _body()
        if kind is None:
            return 200, act(deadline), about
        call = wire.read(kind, body)
        about = wire.about(call)
        return 200, act(call, deadline), about
    except MyoverlayError as error:
        return error.status, _error(str(error)), about
    except HTTPException:
        raise
    except Exception as error:  # the one place where a bug of ours becomes an answer: Docker shows raw HTML otherwise
        log.exception("a bug in myoverlay")
        return 500, _error(f"myoverlay failed, see its log: {type(error).__name__}: {error}"), about


def _body() -> bytes:
    """The call's body. One in chunks says no length, and is cut off at the limit. Raises RequestEntityTooLarge."""
    body = flask.request.get_data()
    if flask.request.content_length is None and len(body) >= MAX_BODY:
        raise RequestEntityTooLarge
    return body


def _note(method: str, about: dict[str, str], took: float, status: int, body: Answer) -> None:
    """One line for each call: what, about which network or endpoint, how long, how it ended. Options stay out of it."""
    outcome = f"ok {body.get('Address', '')}".rstrip() if status == 200 else f"{status} {body['Err']}"
    words = " ".join((method, *(f"{name} {text}" for name, text in about.items())))
    fields = {"method": method, **about, "ms": round(took * 1000, 1), "status": status, "outcome": outcome}
    usual = logging.DEBUG if method in QUIET else logging.INFO
    level = usual if status < 500 else logging.ERROR
    log.log(level, "%s %.1f ms %s", words, took * 1000, outcome, extra={"fields": fields})


def _shown(page: Page) -> flask.Response:
    kind, text = page()
    return flask.Response(text, 200, {"Content-Type": kind, "Connection": "close"})


def _error(sentence: str) -> Answer:
    """Network drivers' errors are read from `Err`, IPAM drivers' from `Error`."""
    return {"Err": sentence, "Error": sentence}


def _answer(status: int, body: Answer) -> flask.Response:
    """`Connection: close`: a keep-alive that closes while a POST is on its way makes Docker retry without a body."""
    raw = msgspec.json.encode(body, enc_hook=str)
    return flask.Response(raw, status, {"Content-Type": CONTENT_TYPE, "Connection": "close"})
