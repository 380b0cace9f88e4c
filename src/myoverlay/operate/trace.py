"""`myoverlay trace A B`: which path two containers have to each other, and the first hop of it that is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from myoverlay.errors import Late, Refused, Unavailable, Unknown
from myoverlay.host.overlays import Overlays
from myoverlay.host.paths import PATIENCE, PathAsker
from myoverlay.host.peers import PeerWatch
from myoverlay.networks import fresh_id, plain
from myoverlay.operate.control import Answer, Method
from myoverlay.operate.seek import Meant, Seeker
from myoverlay.operate.survey import Surveyor
from myoverlay.path import PathAnswer, PathQuestion, State
from myoverlay.plan import path as plan
from myoverlay.plan.path import Step
from myoverlay.values import HostId

#: So many are named where one word means several.
_NAMED = 4


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """Two containers of any hosts, each by name, address or endpoint id; the overlay where they share several."""

    a: str
    b: str
    overlay: str = ""


class Trace:
    """Looks at this host's half, asks for the other's, and puts both together. From any thread."""

    def __init__(
        self,
        me: HostId,
        name: str,
        overlays: Overlays,
        peers: PeerWatch,
        sight: Surveyor,
        asker: PathAsker[PathQuestion, PathAnswer],
        seeker: Seeker,
    ) -> None:
        self._me = me
        self._name = name
        self._overlays = overlays
        self._peers = peers
        self._sight = sight
        self._asker = asker
        self._seeker = seeker

    def methods(self) -> dict[str, Method]:
        return {"Control.Trace": (Ask, self.trace)}

    def trace(self, call: Ask, deadline: float) -> Answer:
        """Every hop with what was seen there, and the place of the first that is wrong."""
        source, target = self._pair(call, deadline)
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

    def _pair(self, call: Ask, deadline: float) -> tuple[Meant, Meant]:
        """The two ends, on one overlay. Raises Unknown or Refused, naming what there is.

        Where what this host knows gives no pair all others are asked, which know containers of other overlays too.
        """
        words, trouble = tuple(dict.fromkeys((call.a, call.b))), ""
        found = {word: self._seeker.known(word, call.overlay) for word in words}
        if not _pairs(call, found):
            try:
                elsewhere = self._seeker.ask(words, call.overlay, deadline)
            except (Unavailable, Late) as error:
                elsewhere, trouble = {}, f"; the other hosts could not be asked: {error}"
            for word, more in elsewhere.items():
                held = {(one.overlay, one.end.address) for one in found[word]}
                found[word] += [one for one in more if (one.overlay, one.end.address) not in held]
        for word, meant in found.items():
            if not meant:
                raise Unknown(self._nobody(word, call.overlay) + trouble)
        pairs = _pairs(call, found)
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

    def _nobody(self, word: str, overlay: str) -> str:
        overlays = sorted(local.network.overlay for local in self._overlays.all())
        if overlay and overlay not in overlays:
            mine = f"this one is on {', '.join(overlays) or 'none'}"
            return (
                f"{plain(word)} is no container's name, address or endpoint id on {plain(overlay)} of any host: {mine}"
            )
        for name, gateway in ((one.network.overlay, one.network.definition.gateway) for one in self._overlays.all()):
            if word == gateway:
                return f"{word} is the gateway of {name}, which each host answers itself: name a container"
        where = overlay or ", ".join(overlays) or "any overlay: this host has none"
        return (
            f"{plain(word)} is no container's name, address or endpoint id on {where}, nor on a host that answered;"
            " `myoverlay names` lists who is known (before Engine 29 names need MYOVERLAY_DOCKER_SOCKET; an address"
            " always does)"
        )

    def _called(self, host: HostId) -> str:
        return self._name if host == self._me else self._peers.known.names.get(host, host.short)

    def _shown(self, one: Meant) -> dict[str, Any]:
        end = one.end
        host = self._called(end.host) if end.host is not None else ""
        return {
            "address": end.address, "mac": end.mac, "vtep": end.vtep, "host": host, "names": list(one.names)
        }  # fmt: skip


def _pairs(call: Ask, found: Mapping[str, Sequence[Meant]]) -> list[tuple[Meant, Meant]]:
    """Every two that the words may mean together."""
    return [(a, b) for a in found[call.a] for b in found[call.b] if a.overlay == b.overlay]


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
