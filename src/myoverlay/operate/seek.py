"""Who is meant by a word: a container's name, its address, or the begin of its endpoint's id; here, and on any host."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from myoverlay.host.local import LocalOverlay
from myoverlay.host.overlays import Overlays
from myoverlay.host.paths import PathAsker
from myoverlay.networks import fresh_id, plain
from myoverlay.path import FOUND, LONGEST, End, Found, Seek, Sought
from myoverlay.values import Endpoint, HostId, OverlayName

#: An endpoint's id, or the begin of one that is long enough not to be a name by chance.
_ID = re.compile(r"[0-9a-f]{6,64}")
#: Seconds that hosts are waited for, each time all of them: who knows nobody does not answer.
PATIENCE = 1.2


class Meant(NamedTuple):
    """One container that a word may mean."""

    overlay: OverlayName
    end: End
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.names[0] if self.names else 'a container'} ({self.end.address} on {self.overlay})"


class Seeker:
    """Looks among what this host knows, and asks the others. From any thread."""

    def __init__(
        self,
        me: HostId,
        overlays: Overlays,
        asker: PathAsker[Seek, Sought],
        present: Callable[[], Iterable[HostId]],
    ) -> None:
        """`present`: the other hosts that are there."""
        self._me = me
        self._overlays = overlays
        self._asker = asker
        self._present = present

    def known(self, word: str, overlay: str) -> list[Meant]:
        """Whom this host knows by the word: its own containers, and those of its overlays elsewhere."""
        locals_ = [local for local in self._overlays.all() if overlay in ("", local.network.overlay)]
        return [one for local in locals_ for one in (*self._here(local, word), *_there(local, word))]

    def ask(self, words: tuple[str, ...], overlay: str, deadline: float) -> dict[str, list[Meant]]:
        """Whom the other hosts know among their own containers, by each word. Raises Unavailable or Late."""
        words = tuple(word for word in words if len(word) <= LONGEST)
        question = Seek(id=fresh_id(), asker=self._me, words=words, overlay=overlay[:LONGEST])
        found: dict[str, list[Meant]] = {word: [] for word in words}
        for host, sought in self._asker.ask(question, self._present(), deadline, PATIENCE).items():
            for one in sought.found:
                # Of somebody else's containers a host says nothing that is believed.
                if one.end.host == host and one.word in found:
                    found[one.word].append(Meant(one.overlay, one.end, tuple(map(plain, one.names))))
        return found

    def look(self, question: Seek) -> Sought | None:
        """This host's own containers that are meant; None where none is."""
        found = [
            Found(word=word, overlay=one.overlay, end=one.end, names=one.names[:FOUND])
            for word in dict.fromkeys(question.words)
            for local in self._overlays.all()
            if question.overlay in ("", local.network.overlay)
            for one in self._here(local, word)
        ]
        return Sought(host=self._me, found=tuple(found[:FOUND])) if found else None

    def _here(self, local: LocalOverlay, word: str) -> Iterator[Meant]:
        for one in local.endpoints():
            if word == one.address or word in one.names or _is_id_of(word, one):
                end = End(address=one.address, mac=one.mac, vtep=local.network.vtep, host=self._me)
                yield Meant(local.network.overlay, end, one.names)


def _is_id_of(word: str, endpoint: Endpoint) -> bool:
    return bool(_ID.fullmatch(word)) and endpoint.endpoint.startswith(word)


def _there(local: LocalOverlay, word: str) -> Iterator[Meant]:
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
            yield Meant(local.network.overlay, end, names)
