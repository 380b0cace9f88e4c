"""What a host's token has to be allowed, as a policy in Consul's words, and no more than that.

Consul's ACLs know exact keys and prefixes, which is why what belongs to a host alone lies below its id. What is shared
is written by all hosts: SECURITY.md says what somebody with a host's token can do there.
https://developer.hashicorp.com/consul/docs/security/acl/acl-rules
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from myoverlay.naming import check_prefix

#: Where every host writes, and reads, below our prefix.
SHARED = (
    "overlays/", "subnets/", "pools/", "vni/", "incarnation", "witness/", "networks", "answers/", "outlooks/",
    "path-answers/", "seek-answers/",
)  # fmt: skip
#: Why, for people: in the order of SHARED.
_WHY = (
    "definitions, members, rings of changes, and the arp/ and fib/ index", "pools", "leases", "which overlay has a VNI",
    "which store this is, and questions to all hosts", "that a host is heard which is cut off", "networks of all hosts",
    "answers", "what hosts see of each other, while somebody looks", "answers about paths", "answers about names",
)  # fmt: skip


def rule(kind: str, name: str, policy: str = "write") -> str:
    return f'{kind} "{name}" {{ policy = "{policy}" }}'


def rules(
    prefix: str, host: str, records: Iterable[str] = (), agent: str = "", catalogue: bool = False
) -> Iterator[tuple[str, str]]:
    """Each rule with its reason. `host`: an id, or what stands for one in a template. `records`: other places where
    overlays' records lie. `agent`: the node of the Consul agent that the host asks, where only that host asks it.

    Raises ValueError for places that are none.
    """
    check_prefix(prefix)
    yield rule("key_prefix", f"{prefix}/", "read"), "all hosts read all"
    yield rule("key", f"{prefix}/alive/{host}"), "this host's own: that it is there"
    yield rule("key_prefix", f"{prefix}/hosts/{host}/"), "this host's own: its endpoints"
    for name, why in zip(SHARED, _WHY, strict=True):
        yield rule("key_prefix", f"{prefix}/{name}"), why
    for place in records:
        yield rule("key_prefix", f"{check_prefix(place)}/"), "records of an overlay made with -o records="
    if agent:
        yield rule("session", agent), "the session that tells that it is there, at its own agent"
    else:
        yield rule("session_prefix", ""), "the session that tells that it is there; better: of its own agent alone"
    if catalogue:
        yield rule("node_prefix", "myoverlay-"), "nodes of hosts, for MYOVERLAY_CATALOGUE"
        yield rule("service_prefix", ""), "names of containers, for MYOVERLAY_CATALOGUE"


def text(prefix: str, host: str, records: Iterable[str] = (), agent: str = "", catalogue: bool = False) -> str:
    """The policy as a file: one rule a line, each with its reason."""
    lines = list(rules(prefix, host, records, agent, catalogue))
    width = max(len(line) for line, _ in lines)
    head = f"# What myoverlay's host {host} may do in Consul: `myoverlay host policy` prints it.\n"
    return head + "".join(f"{line.ljust(width)}  # {why}\n" for line, why in lines)
