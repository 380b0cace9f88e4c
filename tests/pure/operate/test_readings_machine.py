"""What any process can read of the machine."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

from myoverlay.operate import readings_machine


def test_a_stranger_who_does_not_read_the_question_is_one(tmp_path: Path) -> None:
    """Who answers and hangs up before all of it was sent is somebody, not nobody: each time, whoever is faster."""
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def answer(times: int) -> None:
            for _ in range(times):
                caller, _ = listening.accept()
                with caller:
                    caller.sendall(b"HTTP/1.0 200 OK\r\n\r\n{}")

        stranger = threading.Thread(target=answer, args=(200,), daemon=True)
        stranger.start()
        assert {readings_machine._holder(path) for _ in range(200)} == {"stranger"}
        stranger.join(5)
    assert readings_machine._holder(path) == ""
