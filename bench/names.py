"""What the contestants are called, in the results and for people."""

from __future__ import annotations

OURS = "myoverlay"
#: The same network once more: the noise.
AGAIN = "myoverlay again"
#: With the guard alone: containers may speak under any address (`MYOVERLAY_SPOOF=*`).
UNBOUND = "myoverlay unbound"
#: Without guard and binding: `MYOVERLAY_GUARD=off`.
UNGUARDED = "myoverlay unguarded"
DOCKER = "Docker's overlay"
HAND = "hand-made"
TUTORIAL = "tutorial"
BRIDGE = "bridge"
NONE = "none"
UNDERLAY = "underlay"
#: Eight containers at once.
PARALLEL = "myoverlay, 8 at once"
