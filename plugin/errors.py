"""What goes wrong in a build, said in one sentence."""

from __future__ import annotations


class BuildError(Exception):
    """The plugin cannot be built; the message says what was tried, on which object, and why it failed."""
