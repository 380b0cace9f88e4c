"""Settings: every row has its default, refuses bad text naming its variable, and the token stays out of sight."""

from __future__ import annotations

import socket

import msgspec
import pytest

from myoverlay.errors import Refused
from myoverlay.settings import SETTINGS, Setting, Settings, load

DEFAULTS = {
    "consul": "",
    "token": "",
    "token_file": "",
    "cacert": "",
    "client_cert": "",
    "client_key": "",
    "server_name": "",
    "vtep": "",
    "prefix": "myoverlay",
    "port": 4789,
    "guard": "on",
    "spoof": (),
    "egress": "own",
    "egress_bridge": "docker0",
    "pools": "10.128.0.0/9",
    "eager": 4000,
    "grace": 60.0,
    "lease_grace": 600.0,
    "follow": False,
    "names": "169.254.77.53",
    "catalogue": False,
    "docker_socket": "",
    "host_name": socket.gethostname(),
    "recorder": 1024,
    "nice": -10,
    "log_level": "info",
    "log_format": "text",
    "log_kept": 512,
    "metrics": "",
    "web": "",
    "state": "/var/lib/myoverlay",
    "run": "/run/docker/plugins/myoverlay",
    "sockets": "/run/docker/plugins/myoverlay.sock",
}
GOOD = {
    "prefix": ("team/net", "team/net"),
    "port": ("8472", 8472),
    "guard": ("WARN", "warn"),
    "spoof": ("web, db", ("web", "db")),
    "egress": ("Docker", "docker"),
    "egress_bridge": ("br-out", "br-out"),
    "pools": ("10.0.0.0/8", "10.0.0.0/8"),
    "eager": ("0", 0),
    "grace": ("1", 1.0),
    "lease_grace": ("86400", 86400.0),
    "follow": ("OFF", False),
    "names": ("OFF", None),
    "catalogue": ("OFF", False),
    "docker_socket": ("/run/docker.sock", "/run/docker.sock"),
    "recorder": ("0", 0),
    "nice": ("-20", -20),
    "log_level": ("DEBUG", "debug"),
    "log_format": ("JSON", "json"),
    "log_kept": ("0", 0),
    "metrics": ("[::1]:9555", "[::1]:9555"),
    "web": ("10.0.0.1:9556", "10.0.0.1:9556"),
    "state": ("/srv/state", "/srv/state"),
    "run": ("/srv/run", "/srv/run"),
}
BAD = {
    "prefix": ("/", "a//b", "../x", "a b"),
    "port": ("0", "65536", "vxlan", "-1", "４789", "9" * 5000),
    "spoof": ("We b", "a,,b", "-x"),
    "egress": ("on", "both"),
    "egress_bridge": ("a/b", "x" * 16, "eth0:1", "..", "a\x7fb"),
    "guard": ("yes", "1", "strict"),
    "pools": ("10.0.0.0", "10.0.0.1/8", "10.0.0.0/25", "fd00::/16", "many"),
    "eager": ("-1", "1.5", "all", "４"),
    "recorder": ("-1", "65537", "1M", "9" * 5000),
    "nice": ("-21", "20", "+5", "--5", "high", "9" * 5000),
    "grace": ("0", "86401", "1.5", "-1", "soon"),
    "lease_grace": ("0", "86401", "9" * 5000),
    "follow": ("yes", "1", "onn"),
    "names": ("on", "10.0.0.1", "169.254.169.254", "fe80::1", "127.0.0.53"),
    "catalogue": ("yes", "consul"),
    "host_name": ("a\x1b[2Jb", "x" * 256, "a\u202eb"),
    "docker_socket": ("docker.sock", "unix:///run/docker.sock"),
    "log_level": ("loud", "trace"),
    "log_format": ("xml", "logfmt"),
    "log_kept": ("-1", "65537", "1 MB"),
    "metrics": (
        "9555",
        ":9555",
        "localhost:9555",
        "127.0.0.1",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "::1:9555",
        "on",
        "[127.0.0.1]:9555",
        "127.0.0.1:９",
    ),
    "web": (
        "9556",
        "localhost:9556",
        "127.0.0.1",
        "127.0.0.1:0",
        "0.0.0.0:9556",
        "[::]:9556",
        "8.8.8.8:9556",
        "[2001:4860:4860::8888]:9556",
        "224.0.0.1:9556",
        "on",
    ),
    "state": ("state", "./state"),
    "run": ("run",),
}


def test_the_table_and_the_struct_are_one() -> None:
    """Every row fills a field, every field has a row, and no variable stands twice."""
    assert [row.field for row in SETTINGS] == [field.name for field in msgspec.structs.fields(Settings)]
    assert len({row.env for row in SETTINGS}) == len(SETTINGS)
    assert set(DEFAULTS) == {row.field for row in SETTINGS}


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.env)
def test_each_row_has_its_default(row: Setting) -> None:
    """Without the variable, and with an empty one, the setting is its default."""
    assert getattr(load({}), row.field) == DEFAULTS[row.field]
    assert getattr(load({row.env: " "}), row.field) == DEFAULTS[row.field]


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.env)
def test_each_row_takes_its_variable(row: Setting) -> None:
    """A good text is read, without the blanks around it, and changes no other setting."""
    text, value = GOOD.get(row.field, ("some-text", "some-text"))
    read = load({row.env: f" {text}\n"})
    assert getattr(read, row.field) == value
    others = [other.field for other in SETTINGS if other.field != row.field]
    assert [getattr(read, field) for field in others] == [DEFAULTS[field] for field in others]


@pytest.mark.parametrize(("field", "text"), [(field, text) for field, texts in BAD.items() for text in texts])
def test_bad_text_is_refused_naming_the_variable(field: str, text: str) -> None:
    """Who starts the plugin reads which variable is wrong."""
    (row,) = (row for row in SETTINGS if row.field == field)
    with pytest.raises(Refused, match=f"^{row.env}: "):
        load({row.env: text})


@pytest.mark.parametrize("text", ["127.0.0.1:9556", "[::1]:9556", "10.0.0.7:80", "[fd00::7]:9556", "100.64.0.1:9556"])
def test_the_page_is_served_at_loopback_and_private_addresses(text: str) -> None:
    """Each kind of address that is nobody's elsewhere is taken as it is written."""
    assert load({"MYOVERLAY_WEB": text}).web == text


def test_why_the_page_is_not_served_everywhere() -> None:
    """The sentence says what is wrong with the address and what is allowed."""
    with pytest.raises(Refused, match=r"would listen on every address: give a loopback or a private one"):
        load({"MYOVERLAY_WEB": "0.0.0.0:9556"})
    with pytest.raises(Refused, match=r"neither a loopback nor a private address"):
        load({"MYOVERLAY_WEB": "8.8.8.8:9556"})


def test_the_token_is_never_in_a_repr() -> None:
    """A log line or a traceback that shows the settings does not show the token."""
    settings = load({"CONSUL_HTTP_TOKEN": "s3cret"})
    assert settings.token == "s3cret"
    assert "s3cret" not in f"{settings!r} {settings} {[settings]}"


def test_what_is_shown_holds_no_secret() -> None:
    """A report has every variable with its value; of the token only that there is one."""
    shown = load({"CONSUL_HTTP_TOKEN": "s3cret", "MYOVERLAY_GRACE": "30"}).shown()
    assert list(shown) == [row.env for row in SETTINGS]
    assert shown["CONSUL_HTTP_TOKEN"] == "(set)"
    assert shown["MYOVERLAY_GRACE"] == "30.0"
    assert load({}).shown()["CONSUL_HTTP_TOKEN"] == ""


def test_who_follows_needs_docker_s_socket() -> None:
    """The sentence says what is missing; with both all is well."""
    with pytest.raises(Refused, match="MYOVERLAY_FOLLOW=on needs MYOVERLAY_DOCKER_SOCKET"):
        load({"MYOVERLAY_FOLLOW": "on"})
    both = load({"MYOVERLAY_FOLLOW": "on", "MYOVERLAY_DOCKER_SOCKET": "/run/docker.sock"})
    assert both.follow


def test_the_catalogue_is_consul_s() -> None:
    """The embedded store has none: the sentence says what is missing."""
    with pytest.raises(Refused, match="MYOVERLAY_CATALOGUE=on needs CONSUL_HTTP_ADDR"):
        load({"MYOVERLAY_CATALOGUE": "on"})
    assert load({"MYOVERLAY_CATALOGUE": "on", "CONSUL_HTTP_ADDR": "10.0.0.1:8500"}).catalogue
