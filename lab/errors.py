"""What goes wrong in the laboratory, said in one sentence."""

from __future__ import annotations


class LabError(Exception):
    """The laboratory cannot do what was asked; the message says what, on which object, and why."""


class CommandFailed(LabError):
    """A command on a host ended with another status than 0; its words are in the message."""

    def __init__(self, where: str, argv: list[str], status: int, stdout: str, stderr: str) -> None:
        words = stderr.strip() or stdout.strip() or "(it said nothing)"
        super().__init__(f"{where}: `{' '.join(argv)}` ended with {status}: {words}")
        self.status = status
        self.stdout = stdout
        self.stderr = stderr


class TookTooLong(LabError):
    """A condition did not come true, or a command did not end, before its deadline."""
