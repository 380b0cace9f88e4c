"""`myoverlay trace A B`: which path two containers have to each other, and the first hop of it that is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from myoverlay.errors import Late, Refused, Unavailable, Unknown
from myoverlay.host.local import LocalOverlay
from myoverlay.host.overlays import Overlays
from myoverlay.host.paths import PATIENCE, PathAsker
from myoverlay.host.peers import PeerWatch
from myoverlay.networks import fresh_id
from myoverlay.operate.control import Answer, Method
from myoverlay.operate.survey import Surveyor
from myoverlay.path import End, PathAnswer, PathQuestion, State
from myoverlay.plan import path as plan
from myoverlay.plan.path import Step
from myoverlay.values import HostId, OverlayName

#: An endpoint's id, or the start of one that is long enough not to be a name by chance.
_ID = re.compile(r"[0-9a-f]{6,64}")
#: So many are named where one word means several.
_NAMED = 4


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """Two containers, each by name, address or (of this host) endpoint id; the overlay where they share several."""

    a: str
    b: str
    overlay: str = ""


class _Meant(NamedTuple):
    overlay: OverlayName
    end: End
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.names[0] if self.names else 'a container'} ({self.end.address} on {self.overlay})"


class Trace:
    """Looks at this host's half, asks for the other's, and puts both together. From any thread."""

    def __init__(
        self, me: HostId, name: str, overlays: Overlays, peers: PeerWatch, sight: Surveyor, asker: PathAsker
    ) -> None:
        self._me = me
        self._name = name
        self._overlays = overlays
        self._peers = peers
        self._sight = sight
        self._asker = asker

    def methods(self) -> dict[str, Method]:
        return {"Control.Trace": (Ask, self.trace)}

    def trace(self, call: Ask, deadline: float) -> Answer:
        """Every hop with what was seen there, and the place of the first that is wrong."""
        source, target = self._pair(call)
        question = PathQuestion(
            id=fresh_id(), asker=self._me, overlay=source.overlay, source=source.end, target=target.end
        )
        answers, trouble = self._answers(question, deadline)
        near, far = answers.get(source.end.host), answers.get(target.end.host)
        if near is None:  # the source is an outsider's: only what arrives can be seen
            steps = [Step(far.name, hop) for hop in far.hops] if far is not None else []
        else:
            steps = plan.whole(near, far if target.end.host != source.end.host else None)
        first = plan.first_wrong(steps)
        silent = [self._called(host) for host in question.hosts() - trouble.answered]
        outside = [str(one) for one in (source, target) if one.end.host is None]
        return {
            "overlay": source.overlay,
            "source": self._shown(source),
            "target": self._shown(target),
            "steps": [_step(step) for step in steps],
            "first": first,
            "silent": sorted(silent),
            "trouble": trouble.sentence,
            "outsiders": outside,
            "whole": first is None and not silent,
        }

    def _answers(self, question: PathQuestion, deadline: float) -> tuple[dict[HostId | None, PathAnswer], _Trouble]:
        """The halves by host; of a host that gave none, that."""
        found: dict[HostId | None, PathAnswer] = {}
        others, sentence = question.hosts() - {self._me}, ""
        if self._me in question.hosts():
            found[self._me] = self._sight.look(question)
        if others:
            try:
                for host, answer in self._asker.ask(question, others, deadline).items():
                    found[host] = answer
            except (Unavailable, Late) as error:
                sentence = str(error)
        answered = frozenset(host for host in found if host is not None)
        for host in others - found.keys():
            saw = f"it could not be asked: {sentence}" if sentence else f"it did not answer within {PATIENCE:g} s"
            found[host] = plan.silent(host, self._called(host), saw)
        return found, _Trouble(answered, sentence)

    # -- who is meant ----------------------------------------------------------------------------------------------

    def _pair(self, call: Ask) -> tuple[_Meant, _Meant]:
        """The two ends, on one overlay. Raises Unknown or Refused, naming what there is."""
        found = {word: list(self._meant(word, call.overlay)) for word in (call.a, call.b)}
        for word, meant in found.items():
            if not meant:
                raise Unknown(self._nobody(word, call.overlay))
        pairs = [(a, b) for a in found[call.a] for b in found[call.b] if a.overlay == b.overlay]
        if not pairs:
            where = " and ".join(f"{word} on {', '.join(sorted({m.overlay for m in found[word]}))}" for word in found)
            raise Refused(f"{call.a} and {call.b} share no overlay: {where}")
        if len(pairs) > 1:
            shown = "; ".join(f"{a} and {b}" for a, b in pairs[:_NAMED])
            raise Refused(
                f"{call.a} and {call.b} may mean {len(pairs)} pairs, as {shown}: give addresses, or --overlay"
            )
        source, target = pairs[0]
        if source.end.address == target.end.address:
            raise Refused(f"{call.a} and {call.b} are the same container: a path has two ends")
        if source.end.host is None and target.end.host is None:
            raise Refused(f"{call.a} and {call.b} are outsiders, on whose hosts nobody can be asked")
        return source, target

    def _meant(self, word: str, overlay: str) -> Iterator[_Meant]:
        for local in self._overlays.all():
            if overlay in ("", local.network.overlay):
                yield from self._here(local, word)
                yield from self._there(local, word)

    def _here(self, local: LocalOverlay, word: str) -> Iterator[_Meant]:
        for one in local.endpoints():
            by_id = bool(_ID.fullmatch(word)) and one.endpoint.startswith(word)
            if word == one.address or word in one.names or by_id:
                end = End(address=one.address, mac=one.mac, vtep=local.network.vtep, host=self._me)
                yield _Meant(local.network.overlay, end, one.names)

    def _there(self, local: LocalOverlay, word: str) -> Iterator[_Meant]:
        mine = {one.address for one in local.endpoints()}
        named = {
            record.address: record.names
            for host, held in (local.view.lists or {}).items()
            for record in held.value.records
            if (peer := local.view.peers.get(record.address)) is not None and peer.host == host
        }
        for address, peer in local.view.peers.items():
            names = named.get(address, ())
            if address not in mine and (word == address or word in names):
                end = End(address=peer.address, mac=peer.mac, vtep=peer.vtep, host=peer.host)
                yield _Meant(local.network.overlay, end, names)

    def _nobody(self, word: str, overlay: str) -> str:
        overlays = sorted(local.network.overlay for local in self._overlays.all())
        if overlay and overlay not in overlays:
            return f"this host is on no overlay {overlay}: it is on {', '.join(overlays) or 'none'}"
        for name, gateway in ((one.network.overlay, one.network.definition.gateway) for one in self._overlays.all()):
            if word == gateway:
                return f"{word} is the gateway of {name}, which each host answers itself: name a container"
        where = overlay or ", ".join(overlays) or "any overlay: this host has none"
        return (
            f"{word} is no container's name or address on {where}; `myoverlay names` lists who is known (before Engine"
            " 29 names need MYOVERLAY_DOCKER_SOCKET; an address always does)"
        )

    def _called(self, host: HostId) -> str:
        return self._name if host == self._me else self._peers.known.names.get(host, host.short)

    def _shown(self, one: _Meant) -> dict[str, Any]:
        end = one.end
        host = self._called(end.host) if end.host is not None else ""
        return {
            "address": end.address, "mac": end.mac, "vtep": end.vtep, "host": host, "names": list(one.names)
        }  # fmt: skip


class _Trouble(NamedTuple):
    """Who answered, and why others could not be asked."""

    answered: frozenset[HostId]
    sentence: str


def _step(step: Step) -> dict[str, Any]:
    hop = step.hop
    return {
        "host": step.where,
        "hop": hop.name,
        "state": hop.state.value,
        "saw": hop.saw,
        "wanted": hop.wanted,
        "remedy": hop.remedy,
        "heals": hop.heals and hop.state is State.WRONG,
    }
