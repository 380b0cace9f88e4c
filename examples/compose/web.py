"""A web service that counts its visits in a Redis: `GET /` answers with the count, as JSON. Standard library only."""

from __future__ import annotations

import json
import os
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: Where the database is: its name or address, and its port.
DB = os.environ.get("DB_HOST", "db"), int(os.environ.get("DB_PORT", "6379"))
PATIENCE = 2.0


def count() -> int:
    """One more visit; Redis' own protocol. Raises OSError."""
    with socket.create_connection(DB, PATIENCE) as database:
        database.sendall(b"*2\r\n$4\r\nINCR\r\n$6\r\nvisits\r\n")
        answer = database.makefile("rb").readline()
    if not answer.startswith(b":"):
        raise OSError(f"the database says {answer!r}")
    return int(answer[1:])


class Page(BaseHTTPRequestHandler):
    """The one page."""

    def do_GET(self) -> None:
        try:
            status, said = 200, {"visits": count(), "served_by": socket.gethostname(), "database": DB[0]}
        except OSError as error:
            status, said = 503, {"error": f"the database {DB[0]} cannot be asked: {error}"}
        body = json.dumps(said).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("", 8080), Page).serve_forever()
