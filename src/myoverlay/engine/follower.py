"""Docker's events as names: container's name, aliases, Compose service, for every endpoint on our networks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from myoverlay.engine.client import Engine
from myoverlay.errors import Unavailable
from myoverlay.host.called import Called
from myoverlay.host.loop import Loop
from myoverlay.tally import Tally

log = logging.getLogger(__name__)

#: Events are followed so long before all containers are listed again, seconds: what was missed is found then.
FOLLOW = 60.0


class Follower(Loop):
    """Owns the thread `docker`. Docker may be slow or away: names come later then, and nothing else does."""

    def __init__(self, engine: Engine, called: Called, tally: Tally, wall: Callable[[], float] = time.time) -> None:
        super().__init__("docker", tally)
        self._engine, self._called, self._wall = engine, called, wall
        self._known: dict[str, str] = {}
        self._trouble = "it was not asked yet"

    def state(self) -> dict[str, Any]:
        """For a person: is Docker heard?"""
        return {"socket": self._engine.path, "followed": not self._trouble, "trouble": self._trouble}

    def wake(self) -> None:
        self._engine.hang_up()

    def stop(self, timeout: float) -> None:
        super().stop(timeout)
        self._engine.close()

    def round(self) -> None:
        """List all, then follow what happens for a while. Raises Unavailable."""
        try:
            since = self._wall()
            self._list()
            self._trouble = ""
            for event in self._engine.events(since, self._wall() + FOLLOW):
                if self.stopping.is_set():
                    return
                self._hear(event.container, event.network)
        except Unavailable as error:
            if self.stopping.is_set():
                return
            self.tally.add("docker_events", "lost")
            self._trouble = str(error)
            raise

    def _list(self) -> None:
        listed = self._engine.containers(self._called.networks())
        for container, summary in listed.items():
            if self._known.get(container) != summary and self._learn(container):
                self._known[container] = summary
        self._known = {container: self._known[container] for container in listed if container in self._known}
        self.tally.add("docker_events", "listed")

    def _hear(self, container: str, network: str) -> None:
        """What happens on other networks is passed over; a start or another name may be on one of ours."""
        if not network or network in self._called.networks():
            self._learn(container)

    def _learn(self, container: str) -> bool:
        """Say what a container is called on our networks; False where it has no endpoint on any yet."""
        ours = self._called.networks()
        places = [place for place in self._engine.places(container) if place.network in ours]
        for place in places:
            if self._called.say(place.network, place.endpoint, place.names):
                self.tally.add("docker_events", "changed")
                log.info("endpoint %s is called %s", place.endpoint[:12], ", ".join(place.names))
        return bool(places)
