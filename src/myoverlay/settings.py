"""Every setting, in one table: README, config.json and `docker plugin set` are checked against it."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from myoverlay.egress import OWN, check_choice
from myoverlay.errors import Refused
from myoverlay.naming import check_prefix, check_shown
from myoverlay.values import VXLAN_PORT, Address, OverlayName, Subnet, check_port


class Setting(NamedTuple):
    """One row: the environment variable, how its text is read, what it is without one, what it means."""

    field: str
    env: str
    parse: Callable[[str], Any]
    default: str
    meaning: str


def _level(text: str) -> str:
    if text.lower() not in ("debug", "info", "warning", "error"):
        raise ValueError(f"{text!r} is none of debug, info, warning, error")
    return text.lower()


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise ValueError(f"{text!r} is no whole number")
    return int(text)


def _seconds(text: str) -> float:
    seconds = _count(text)
    if not 1 <= seconds <= 86400:
        raise ValueError(f"{text!r} is not within 1 to 86400 seconds")
    return float(seconds)


def _kilobytes(text: str) -> int:
    count = _count(text)
    if count > 65536:
        raise ValueError(f"{text!r} is more than 65536 kB")
    return count


def _port(text: str) -> int:
    return check_port(_count(text))


def _subnet(text: str) -> Subnet:
    subnet = Subnet(text)
    if subnet.version != 4 or subnet.prefixlen > 24:
        raise ValueError(f"{text!r} has no room for an IPv4 /24")
    return subnet


def _absolute(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError(f"{text!r} is no absolute path")
    return text


def _maybe_absolute(text: str) -> str:
    return _absolute(text) if text else ""


def _switch(text: str) -> bool:
    if text.lower() not in ("on", "off"):
        raise ValueError(f"{text!r} is neither on nor off")
    return text.lower() == "on"


def _resolver(text: str) -> Address | None:
    """Link-local, so that it is nobody's elsewhere; not near the clouds' own 169.254.169.254, which a /20 of it holds."""
    if text.lower() == "off":
        return None
    address = Address(text)
    if address not in Subnet("169.254.0.0/16") or address in Subnet("169.254.160.0/20"):
        raise ValueError(f"{text!r} is neither off nor in 169.254.0.0/16 beside 169.254.160.0/20")
    return address


def _listening(text: str) -> str:
    """`ADDRESS:PORT`, or nothing. Names are not looked up: who may scrape is not to depend on a resolver."""
    if not text:
        return ""
    host, colon, port = text.rpartition(":")
    address = Address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    if not colon or (address.version == 6) != host.startswith("[") or not 0 < _count(port) < 65536:
        raise ValueError(f"{text!r} is not ADDRESS:PORT, as 127.0.0.1:9555 or [::1]:9555")
    return text


def _private(text: str) -> str:
    """As `_listening`, on an address that is nobody's elsewhere: whoever reaches the page may read it."""
    if not _listening(text):
        return ""
    host = text.rpartition(":")[0].strip("[]")
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        raise ValueError(f"{text!r} would listen on every address: give a loopback or a private one, as 127.0.0.1:9556")
    if address.is_multicast or (address.is_global and not address.is_loopback):
        raise ValueError(f"{text!r} is neither a loopback nor a private address: the page asks nobody who he is")
    return text


def _guard(text: str) -> str:
    if text.lower() not in ("on", "warn", "off"):
        raise ValueError(f"{text!r} is none of on, warn, off")
    return text.lower()


def _interface(text: str) -> str:
    """What the kernel takes as an interface's name (dev_valid_name)."""
    if not 0 < len(text.encode()) < 16 or "/" in text or ":" in text or text in (".", "..") or not text.isprintable():
        raise ValueError(f"{text!r} is no interface's name")
    return text


def _overlays(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",")] if text else []
    return tuple(name if name == "*" else OverlayName(name) for name in names)


def _nice(text: str) -> int:
    if not text.removeprefix("-").isdecimal() or not -20 <= int(text) <= 19:
        raise ValueError(f"{text!r} is no whole number from -20 to 19")
    return int(text)


def _format(text: str) -> str:
    if text.lower() not in ("text", "json"):
        raise ValueError(f"{text!r} is neither text nor json")
    return text.lower()


def _text(text: str) -> str:
    return text


SETTINGS = (
    Setting("consul", "CONSUL_HTTP_ADDR", _text, "", "Consul, as `host:port` or a URL; empty: the embedded store (one host)"),
    Setting("token", "CONSUL_HTTP_TOKEN", _text, "", "Consul ACL token"),
    Setting("token_file", "CONSUL_HTTP_TOKEN_FILE", _text, "", "file that holds the token; read again when it changes"),
    Setting("cacert", "CONSUL_CACERT", _text, "", "CA certificate that signed Consul's, for https; this file and the next two are read again when they change"),
    Setting("client_cert", "CONSUL_CLIENT_CERT", _text, "", "client certificate for Consul"),
    Setting("client_key", "CONSUL_CLIENT_KEY", _text, "", "key of the client certificate"),
    Setting("server_name", "CONSUL_TLS_SERVER_NAME", _text, "", "name that Consul's certificate is for, such as `server.dc1.consul`; empty: the host in `CONSUL_HTTP_ADDR`"),
    Setting("vtep", "MYOVERLAY_VTEP", _text, "", "underlay address or interface; empty: where the default route goes"),
    Setting("prefix", "MYOVERLAY_PREFIX", check_prefix, "myoverlay", "where our keys lie in the store"),
    Setting("port", "MYOVERLAY_PORT", _port, str(VXLAN_PORT), "UDP port of overlays made without `-o port=`, and of the heartbeat: the same on all hosts"),
    Setting("guard", "MYOVERLAY_GUARD", _guard, "on", "VXLAN of our overlays is taken from their own hosts only; on: without nf_tables in the kernel networks are refused; warn: they are made, and that is logged; off: anyone may send"),
    Setting("spoof", "MYOVERLAY_SPOOF", _overlays, "", "overlays whose containers may speak under addresses that are not theirs (keepalived, VRRP), joined by commas; `*`: all"),
    Setting("egress", "MYOVERLAY_EGRESS", lambda text: check_choice(text.lower()), OWN, "how containers of networks made without `-o egress=` reach the outside: own or docker"),
    Setting("egress_bridge", "MYOVERLAY_EGRESS_BRIDGE", _interface, "docker0", "bridge of the host that overlays with `egress=own` lead to"),
    Setting("pools", "MYOVERLAY_POOLS", _subnet, "10.128.0.0/9", "where subnets come from when none is given, a /24 each"),
    Setting("eager", "MYOVERLAY_EAGER_LIMIT", _count, "4000", "peers of an overlay above which rows are pulled by misses"),
    Setting("grace", "MYOVERLAY_GRACE", _seconds, "60", "seconds that rows of a dead host stay"),
    Setting("lease_grace", "MYOVERLAY_LEASE_GRACE", _seconds, "600", "seconds that addresses of a dead host stay taken"),
    Setting("follow", "MYOVERLAY_FOLLOW", _switch, "off", "on: networks of `myoverlay network create` are made on this host; needs `MYOVERLAY_DOCKER_SOCKET`"),
    Setting("names", "MYOVERLAY_NAMES", _resolver, "169.254.77.53", "link-local address that names are asked at, the same on all hosts; off: names are not answered"),
    Setting("catalogue", "MYOVERLAY_CATALOGUE", _switch, "off", "on: containers' names are registered in Consul's catalogue, for `NAME.service.consul`"),
    Setting("docker_socket", "MYOVERLAY_DOCKER_SOCKET", _maybe_absolute, "", "Docker's own socket, to follow, and for aliases, service names, and names on engines before 29; empty: not asked"),
    Setting("host_name", "MYOVERLAY_HOST_NAME", check_shown, "", "what this host is called; empty: its hostname"),
    Setting("recorder", "MYOVERLAY_RECORDER", _kilobytes, "1024", "kB of memory for the flight recorder: the last calls, misses, kernel events and store changes; 0: nothing is recorded"),
    Setting("nice", "MYOVERLAY_NICE", _nice, "-10", "the plugin's share of a processor beside others, as nice(1) has it, -20 to 19, where it may (CAP_SYS_NICE); 0: as it was started"),
    Setting("log_level", "MYOVERLAY_LOG_LEVEL", _level, "info", "debug, info, warning or error"),
    Setting("log_format", "MYOVERLAY_LOG_FORMAT", _format, "text", "text, or json: an object a line, with the fields of each Docker call"),
    Setting("log_kept", "MYOVERLAY_LOG_KEPT", _kilobytes, "512", "kB of memory for the log's last lines, for `myoverlay report`; 0: none are kept"),
    Setting("metrics", "MYOVERLAY_METRICS", _listening, "", "address and port that metrics are served at for Prometheus, as `127.0.0.1:9555`; empty: on the plugin's own socket alone"),
    Setting("web", "MYOVERLAY_WEB", _private, "", "loopback or private address and port that the read-only web page is served at, as `127.0.0.1:9556`; empty: off"),
    Setting("state", "MYOVERLAY_STATE", _absolute, "/var/lib/myoverlay", "directory of the journal and the embedded store"),
    Setting("run", "MYOVERLAY_RUN", _absolute, "/run/docker/plugins/myoverlay", "directory that overlay namespaces are pinned in"),
    Setting("sockets", "MYOVERLAY_SOCKETS", _text, "/run/docker/plugins/myoverlay.sock", "plugin sockets, joined by commas"),
)  # fmt: skip


#: Settings whose values are secrets: they are shown to nobody.
SECRET = frozenset({"token"})


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings as read at start; a change takes effect at the next start."""

    consul: str
    token: str
    token_file: str
    cacert: str
    client_cert: str
    client_key: str
    server_name: str
    vtep: str
    prefix: str
    port: int
    guard: str
    spoof: tuple[str, ...]
    egress: str
    egress_bridge: str
    pools: Subnet
    eager: int
    grace: float
    lease_grace: float
    follow: bool
    names: Address | None
    catalogue: bool
    docker_socket: str
    host_name: str
    recorder: int
    nice: int
    log_level: str
    log_format: str
    log_kept: int
    metrics: str
    web: str
    state: str
    run: str
    sockets: str

    def shown(self) -> dict[str, str]:
        """Each variable with its value, for a report; of a secret only whether it is set."""
        values = {row.env: getattr(self, row.field) for row in SETTINGS}
        hidden = {row.env for row in SETTINGS if row.field in SECRET}
        return {env: ("(set)" if value else "") if env in hidden else str(value) for env, value in values.items()}

    def __repr__(self) -> str:
        return "Settings(…)"  # it holds a token


def load(environ: Mapping[str, str]) -> Settings:
    """The settings of an environment. Raises Refused naming the variable; an empty value means the default."""
    values: dict[str, Any] = {}
    for row in SETTINGS:
        text = environ.get(row.env, "").strip() or row.default
        try:
            values[row.field] = row.parse(text)
        except ValueError as error:
            raise Refused(f"{row.env}: {error}") from None
    if values["follow"] and not values["docker_socket"]:
        raise Refused("MYOVERLAY_FOLLOW=on needs MYOVERLAY_DOCKER_SOCKET, the path of Docker's socket")
    if values["catalogue"] and not values["consul"]:
        raise Refused("MYOVERLAY_CATALOGUE=on needs CONSUL_HTTP_ADDR: the embedded store has no catalogue")
    if not values["host_name"]:
        values["host_name"] = socket.gethostname()
    return Settings(**values)
