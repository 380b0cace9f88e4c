"""TLS on the real Consul of Debian 11 (1.8.7), which wants a certificate of each client: `verify_incoming`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from myoverlay.errors import Unavailable
from myoverlay.store import Put
from myoverlay.store.consul import ConsulStore
from tests.engine.store.test_consul import Agent, _free_ports
from tests.pki import CLIENT, Pair
from tests.pure.store.test_tls import CASES, Case, Papers, client_of, papers
from tests.store_contract import done

__all__ = ["papers"]

Serve = Callable[[Pair], str]


@pytest.fixture(scope="module")
def serve(papers: Papers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Consul with that certificate, at an address; one that was started for it before is used again."""
    agents: dict[Pair, Agent] = {}

    def start(pair: Pair) -> str:
        if pair not in agents:
            agents[pair] = _agent(papers, pair, tmp_path_factory.mktemp("consul"))
        return f"https://{agents[pair].address}"

    yield start
    for agent in agents.values():
        agent.kill()


def _agent(papers: Papers, pair: Pair, folder: Path) -> Agent:
    files = {"ca_file": str(papers.ca.ca), "cert_file": str(pair.cert), "key_file": str(pair.key)}
    agent = Agent(folder, verify_incoming_https=True, **files)
    https = _free_ports(1)[0]
    agent.ports["https"], agent.ports["http"] = https, -1
    agent.start()
    # Whether it is ready is asked by one who trusts just this certificate's authority, under the name it has.
    signer = papers.other if pair is papers.foreign else papers.ca
    if pair is papers.late:
        _until_it_listens(https)
    else:
        name = "server.dc1.consul" if pair is papers.named else None
        asking = ConsulStore(
            f"https://127.0.0.1:{https}", ca=signer.ca, cert=papers.client.cert, key=papers.client.key, server_name=name
        )
        agent.wait_ready(asking)
        asking.close()
    agent.ports["http"] = https  # its address, from here on
    return agent


def _until_it_listens(port: int) -> None:
    import socket

    from tests.engine.store.test_consul import until

    def listens() -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    until(listens)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_each_fault_has_its_sentence(papers: Papers, serve: Serve, case: Case) -> None:
    """Go's TLS says some things otherwise than OpenSSL's: the sentences are the same."""
    store = client_of(papers, serve(getattr(papers, case.shows)), case)
    for _ in range(3):
        if case.sentence is None:
            store.get("a")
            continue
        with pytest.raises(Unavailable, match=case.sentence):
            store.get("a")
    store.close()


def test_replaced_files_are_taken_up(papers: Papers, serve: Serve, tmp_path: Path) -> None:
    """A certificate that expired is replaced by a new one under a store that goes on."""
    mine = Pair(tmp_path / "host.pem", tmp_path / "host.key")
    papers.late_client.copy_to(mine)
    store = ConsulStore(serve(papers.here), ca=papers.ca.ca, cert=mine.cert, key=mine.key)
    with pytest.raises(Unavailable, match="refuses the client certificate"):
        store.get("a")
    papers.ca.sign("renewed", CLIENT).copy_to(mine)
    done(store, Put("tls/a", b"1"))
    assert store.get("tls/a") is not None
    store.close()
