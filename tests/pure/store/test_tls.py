"""TLS to Consul: each thing that may be wrong has its sentence, and replaced files are taken up without a restart."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from myoverlay.errors import Unavailable
from myoverlay.settings import load
from myoverlay.store import Put
from myoverlay.store.consul import ConsulStore
from myoverlay.wiring import open_store
from tests.pki import CLIENT, Authority, Pair, server
from tests.pure.store.fake_consul import FakeConsul
from tests.store_contract import done

NAME = "server.dc1.consul"


class Papers(NamedTuple):
    """Good and bad certificates, made once."""

    ca: Authority
    other: Authority
    here: Pair
    named: Pair
    late: Pair
    foreign: Pair
    client: Pair
    late_client: Pair
    foreign_client: Pair


@pytest.fixture(scope="session")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    ca = Authority(tmp_path_factory.mktemp("pki"))
    other = Authority(tmp_path_factory.mktemp("other"), "other")
    here = server("IP:127.0.0.1", "DNS:localhost")
    return Papers(
        ca, other, ca.sign("here", here), ca.sign("named", server(f"DNS:{NAME}")), ca.sign("late", here, days=-1),
        other.sign("foreign", here), ca.sign("client", CLIENT), ca.sign("late-client", CLIENT, days=-1),
        other.sign("foreign-client", CLIENT),
    )  # fmt: skip


def serving(papers: Papers, pair: Pair) -> ssl.SSLContext:
    """A server that shows the pair and wants a client certificate of our authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    context.load_verify_locations(papers.ca.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


Serve = Callable[[Pair], FakeConsul]


@pytest.fixture
def serve(papers: Papers) -> Iterator[Serve]:
    fakes: list[FakeConsul] = []

    def start(pair: Pair) -> FakeConsul:
        fakes.append(FakeConsul(tls=serving(papers, pair)).start())
        return fakes[-1]

    yield start
    for fake in fakes:
        fake.close()
        assert fake.crashes == []


class Case(NamedTuple):
    """What the server shows, what the client trusts, names and shows, and the sentence (None: it works)."""

    shows: str
    ca: str
    name: str | None
    client: str | None
    sentence: str | None


CASES = {
    "all is well": Case("here", "ca", None, "client", None),
    "the name is given": Case("named", "ca", NAME, "client", None),
    "wrong authority": Case("foreign", "ca", None, "client", r"not signed by the authority in .*ca\.pem: set CONSUL"),
    "wrong name": Case("named", "ca", None, "client", r"not for 127\.0\.0\.1: set CONSUL_TLS_SERVER_NAME"),
    "wrong given name": Case("here", "ca", "x.consul", "client", r"not for x\.consul: set CONSUL_TLS_SERVER_NAME"),
    "expired": Case("late", "ca", None, "client", "its certificate has expired, or this host's clock is wrong"),
    "no client certificate": Case("here", "ca", None, None, "wants a client certificate, and none is given: set C"),
    "foreign client": Case("here", "ca", None, "foreign_client", r"refuses the client certificate .*foreign"),
    "expired client": Case("here", "ca", None, "late_client", r"refuses the client certificate .*late"),
}  # fmt: skip


def client_of(papers: Papers, address: str, case: Case) -> ConsulStore:
    pair: Pair | None = getattr(papers, case.client) if case.client else None
    return ConsulStore(
        address,
        token="of-this-host",
        ca=getattr(papers, case.ca).ca,
        cert=pair.cert if pair else None,
        key=pair.key if pair else None,
        server_name=case.name,
    )


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_each_fault_has_its_sentence(papers: Papers, serve: Serve, case: Case) -> None:
    """What is wrong, and the setting that mends it; nothing, and no token, is sent to a server that is not the one."""
    fake = serve(getattr(papers, case.shows))
    store = client_of(papers, fake.address, case)
    for _ in range(3):
        if case.sentence is None:
            store.get("a")
            continue
        with pytest.raises(Unavailable, match=case.sentence) as caught:
            store.get("a")
        assert "of-this-host" not in str(caught.value)
        assert "\n" not in str(caught.value)
        assert fake.seen == []
    store.close()


def test_a_port_that_speaks_no_tls() -> None:
    """The commonest mistake of all: https at the port of http."""
    fake = FakeConsul().start()
    store = ConsulStore(f"https://127.0.0.1:{fake.port}", token="of-this-host")
    with pytest.raises(Unavailable, match="it speaks no TLS there: is https:// meant"):
        store.get("a")
    assert fake.seen == []
    store.close()
    fake.close()


def test_replaced_files_are_taken_up(papers: Papers, serve: Serve, tmp_path: Path) -> None:
    """An expired client certificate is replaced and the store works; so is the authority, together with the server's.

    What is half replaced (a certificate without its key) disturbs nobody.
    """
    mine = Pair(tmp_path / "host.pem", tmp_path / "host.key")
    ca = tmp_path / "ca.pem"
    papers.late_client.copy_to(mine)
    ca.write_bytes(papers.ca.ca.read_bytes())
    fake = serve(papers.here)
    store = ConsulStore(fake.address, ca=ca, cert=mine.cert, key=mine.key)
    with pytest.raises(Unavailable, match="refuses the client certificate"):
        store.get("a")
    papers.client.copy_to(mine)
    done(store, Put("a", b"1"))
    before = set(fake.connections)
    mine.key.write_bytes(papers.foreign_client.key.read_bytes())
    for _ in range(3):
        assert store.get("a") is not None
    assert fake.connections == before, "half replaced files were taken up"
    papers.client.copy_to(mine)
    assert store.get("a") is not None
    assert fake.connections - before, "an old connection was used on"
    fake.tls = serving(papers, papers.foreign)
    papers.ca.sign("again", CLIENT).copy_to(mine)
    with pytest.raises(Unavailable, match="not signed by the authority"):
        store.get("a")
    ca.write_bytes(papers.other.ca.read_bytes())
    assert store.get("a") is not None
    store.close()


def test_the_setting_reaches_the_store(papers: Papers, serve: Serve) -> None:
    """CONSUL_TLS_SERVER_NAME and the files, as Consul's own tools take them from the environment."""
    fake = serve(papers.named)
    environ = {
        "CONSUL_HTTP_ADDR": fake.address,
        "CONSUL_CACERT": str(papers.ca.ca),
        "CONSUL_CLIENT_CERT": str(papers.client.cert),
        "CONSUL_CLIENT_KEY": str(papers.client.key),
    }
    nameless = open_store(load(environ))
    with pytest.raises(Unavailable, match="CONSUL_TLS_SERVER_NAME"):
        nameless.get("a")
    nameless.close()
    store = open_store(load(environ | {"CONSUL_TLS_SERVER_NAME": NAME}))
    assert store.get("a") is None
    store.close()
