"""DNS questions from wherever it is run, and a server to forward to. Programs of the machine, run in namespaces.

`python asking.py ask SERVER NAME COUNT [TYPE]` asks one after another and prints JSON: milliseconds, and what came.
`python asking.py flood SERVER NAME SECONDS RATE` asks so many a second and prints how many were answered.
`python asking.py serve LOG ADDRESS…` answers *.example.com, and notes each name asked, with the server's address.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from collections import Counter
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rrset

KNOWN = "192.0.2.7"


def ask(server: str, name: str, count: int, kind: str = "A") -> dict[str, Any]:
    took, said = [], Counter[str]()
    addresses: set[str] = set()
    authoritative = False
    for _ in range(count):
        query = dns.message.make_query(name, kind)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(10)
            began = time.perf_counter()
            try:
                sock.connect((server, 53))
                sock.send(query.to_wire())
                raw = sock.recv(65535)
            except (TimeoutError, ConnectionRefusedError) as error:
                said[type(error).__name__] += 1
                took.append((time.perf_counter() - began) * 1000)
                continue
            took.append((time.perf_counter() - began) * 1000)
        answer = dns.message.from_wire(raw)
        said[dns.rcode.to_text(answer.rcode())] += 1
        addresses |= {str(one) for rrset in answer.answer for one in rrset}
        authoritative = bool(answer.flags & dns.flags.AA)
    return {"ms": took, "said": dict(said), "addresses": sorted(addresses), "authoritative": authoritative}


def flood(server: str, name: str, seconds: float, rate: float) -> dict[str, Any]:
    sent = got = 0
    raw = dns.message.make_query(name, "A").to_wire()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((server, 53))
        sock.setblocking(False)
        began = time.monotonic()
        while (now := time.monotonic()) - began < seconds + 1:
            while now - began < seconds and sent < (now - began) * rate:
                sock.send(raw)
                sent += 1
            try:
                while sock.recv(4096):
                    got += 1
            except BlockingIOError:
                time.sleep(0.002)
    return {"sent": sent, "answered": got}


def serve(log: str, addresses: list[str]) -> None:
    selector = selectors.DefaultSelector()
    for address in addresses:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((address, 53))
        selector.register(sock, selectors.EVENT_READ, address)
    with open(log, "a", buffering=1) as notes:
        while True:
            for key, _ in selector.select():
                raw, asker = key.fileobj.recvfrom(4096)  # type: ignore[union-attr]
                try:
                    query = dns.message.from_wire(raw)
                except dns.exception.DNSException:
                    continue
                name = query.question[0].name
                notes.write(f"{key.data} {name.to_text(omit_final_dot=True).lower()}\n")
                reply = dns.message.make_response(query)
                if name.to_text().lower().endswith(".example.com."):
                    reply.answer.append(dns.rrset.from_text(name, 60, "IN", "A", KNOWN))
                else:
                    reply.set_rcode(dns.rcode.NXDOMAIN)
                key.fileobj.sendto(reply.to_wire(), asker)  # type: ignore[union-attr]


if __name__ == "__main__":
    word, *rest = sys.argv[1:]
    if word == "ask":
        print(json.dumps(ask(rest[0], rest[1], int(rest[2]), *rest[3:])))
    elif word == "flood":
        print(json.dumps(flood(rest[0], rest[1], float(rest[2]), float(rest[3]))))
    else:
        serve(rest[0], rest[1:])
