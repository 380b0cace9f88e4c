"""TLS to Consul: whom it trusts, what it shows, and what is wrong in one sentence where it does not come up.

The files may be replaced at any time, as short-lived certificates are: the next connection goes by the new ones, and
idle ones from before are not used any more. Files that do not serve (half of them is written) leave the former ones in
use until they do.

The numbers of what is wrong are OpenSSL's (X509_V_ERR_…), of what the other side says TLS's own alerts (RFC 8446, 6.2).
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from pathlib import Path

import msgspec

from myoverlay.errors import Refused

log = logging.getLogger(__name__)

_NOT_YET, _EXPIRED = 9, 10
_UNTRUSTED = frozenset({2, 18, 19, 20, 21, 26, 27})
_OTHER_NAME, _OTHER_ADDRESS = 62, 64
#: OpenSSL's names of the alerts that a server sends about a client's certificate, or for want of one.
_ABOUT_CLIENT = (
    "CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "UNKNOWN_CA", "CERTIFICATE_EXPIRED", "CERTIFICATE_UNKNOWN",
    "CERTIFICATE_REVOKED", "UNSUPPORTED_CERTIFICATE", "HANDSHAKE_FAILURE",
)  # fmt: skip


class Files(msgspec.Struct, frozen=True):
    """PEM files: the authority (None: the system's), and what this host shows (None: nothing)."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def __str__(self) -> str:
        return ", ".join(str(path) for path in (self.ca, self.cert, self.key) if path is not None)

    def context(self) -> ssl.SSLContext:
        """Raises OSError (ssl.SSLError is one) where a file does not serve."""
        context = ssl.create_default_context(cafile=None if self.ca is None else str(self.ca))
        if self.cert is not None:
            context.load_cert_chain(str(self.cert), None if self.key is None else str(self.key))
        return context

    def stamps(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stamp(path) for path in (self.ca, self.cert, self.key) if path is not None)


class Tls:
    """What connections of one store go by. `_lock` guards everything but the files' names."""

    def __init__(self, files: Files = Files(), name: str | None = None) -> None:  # noqa: B008 - it is frozen
        """`name`: what the server's certificate is to be for, where that is not its address. Raises Refused."""
        self._files = files
        self._name = name
        self._lock = threading.Lock()
        self._stamps = files.stamps()
        self._trouble = ""
        self._age = 0
        try:
            self._context = files.context()
        except OSError as error:
            raise Refused(f"the TLS files {files} cannot be used: {error}") from error

    @property
    def age(self) -> int:
        """How often the files were replaced."""
        self._follow()
        with self._lock:
            return self._age

    def wrap(self, sock: socket.socket, host: str) -> ssl.SSLSocket:
        """TLS over a connection to that host. Raises OSError, ssl.SSLError among them."""
        self._follow()
        with self._lock:
            context = self._context
        return context.wrap_socket(sock, server_hostname=self._name or host)

    def _follow(self) -> None:
        stamps = self._files.stamps()
        with self._lock:
            if stamps == self._stamps:
                return
        try:
            context = self._files.context()
        except OSError as error:
            self._keep(str(error))
            return
        with self._lock:
            self._context, self._stamps, self._trouble = context, stamps, ""
            self._age += 1
        log.info("the TLS files %s were replaced and are in use", self._files)

    def _keep(self, trouble: str) -> None:
        with self._lock:
            news, self._trouble = trouble != self._trouble, trouble
        if news:
            log.warning("the TLS files %s cannot be used, the former ones stay in use: %s", self._files, trouble)

    def explain(self, error: ssl.SSLError, host: str) -> str:
        """What is wrong, in one sentence, with the setting that mends it."""
        said = self._explain(error, host)
        with self._lock:
            return f"{said} (and the files on disk cannot be used: {self._trouble})" if self._trouble else said

    def _explain(self, error: ssl.SSLError, host: str) -> str:
        if isinstance(error, ssl.SSLCertVerificationError):
            return self._about_server(error, host)
        reason = error.reason or ""
        if any(reason.endswith(alert) for alert in _ABOUT_CLIENT):
            if self._files.cert is None:
                return (
                    "it wants a client certificate, and none is given: set CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY"
                    f" ({_words(reason)})"
                )
            return (
                f"it refuses the client certificate {self._files.cert}: one that has not expired, signed by the"
                f" authority that Consul trusts, is needed ({_words(reason)})"
            )
        # Its last word was lost on the way; before Python 3.11.3 that was told as a proper end (gh-95494).
        if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            shown = "another client certificate" if self._files.cert else "a client certificate (CONSUL_CLIENT_CERT)"
            return f"it hung up while TLS came up: it may want {shown}"
        if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
            return "it speaks no TLS there: is https:// meant, and is that its HTTPS port?"
        return f"TLS does not come up: {_words(reason) or ' '.join(str(error).split())[:200]}"

    def _about_server(self, error: ssl.SSLCertVerificationError, host: str) -> str:
        if error.verify_code == _EXPIRED:
            return "its certificate has expired, or this host's clock is wrong"
        if error.verify_code == _NOT_YET:
            return "its certificate is not valid yet, or this host's clock is wrong"
        if error.verify_code in _UNTRUSTED:
            trusted = f"the authority in {self._files.ca}" if self._files.ca else "any authority of this system"
            return f"its certificate is not signed by {trusted}: set CONSUL_CACERT to the one that signed it"
        if error.verify_code in (_OTHER_NAME, _OTHER_ADDRESS):
            return (
                f"its certificate is not for {self._name or host}: set CONSUL_TLS_SERVER_NAME to a name that it is for,"
                " such as server.dc1.consul"
            )
        return f"its certificate is not to be trusted: {' '.join(error.verify_message.split())[:200]}"


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def _words(reason: str) -> str:
    return reason.replace("_", " ").lower()
