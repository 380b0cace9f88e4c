"""The overlay namespaces of this host: pinned by name, all in one directory."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from myoverlay.kernel import netns
from myoverlay.kernel.netns import Namespace


class Pins:
    """Namespaces by name. A pin keeps its namespace alive whoever ends, and is how a later run finds it again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        return self.folder / name

    def is_there(self, name: str) -> bool:
        """Is a namespace pinned under the name? (An empty file is what a reboot leaves of a pin.)"""
        return netns.is_pinned(self.path(name))

    def create(self, name: str) -> Namespace:
        """A new namespace under the name, or the one that is there. Raises as `netns.create` does."""
        return netns.create(self.path(name))

    def keep(self, name: str, ns: Namespace) -> bool:
        """See that it is this namespace that is pinned under the name; True where it was not. Raises as `netns.pin`."""
        if netns.holds(self.path(name), ns):
            return False
        netns.pin(self.path(name), ns)
        return True

    def delete(self, name: str) -> None:
        """Unpin; absent is success. Raises as `netns.delete` does."""
        netns.delete(self.path(name))

    def leave(self) -> None:
        """Take away the directory, and the one above, where nothing is in them any more."""
        with suppress(OSError):
            self.folder.rmdir()
            self.folder.parent.rmdir()

    def names(self) -> set[str]:
        """Whatever lies in the directory, also what a reboot left of pins."""
        return {entry.name for entry in self.folder.iterdir()} if self.folder.is_dir() else set()
