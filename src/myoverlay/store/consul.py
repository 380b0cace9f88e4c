"""The shared store: Consul's key-value store, transactions and sessions, through py-consul.

py-consul 1.8 makes URLs and headers and knows the session calls. Around it stand, for reasons that were measured: a
transport of our own (`wire`), because its own has no deadlines and cannot be interrupted; our own transactions, because
its `txn.put` sends no token; our own session creation, because its cannot say `NodeChecks`; our own reading of lists,
because msgspec decodes 10,000 keys in 4 ms and it takes 23.
https://developer.hashicorp.com/consul/api-docs/kv, …/txn, …/session and …/features/blocking
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from myoverlay.errors import Denied, Unavailable
from myoverlay.store import (
    MAX_OPS,
    Check,
    Committed,
    Conflict,
    Delete,
    Entry,
    Keys,
    Listing,
    Lock,
    Op,
    Put,
    Reset,
    Unchanged,
    Unlock,
)
from myoverlay.store.pyconsul import Consul, ConsulException, HTTPClient, NotFound
from myoverlay.store.rules import check_key, check_ops, check_prefix, check_ttl
from myoverlay.store.tls import Files, Tls
from myoverlay.store.token import Token
from myoverlay.store.waits import CONSISTENT, Params, Waits
from myoverlay.store.wire import Answer, Closed, Meanwhile, Pool, parse_place

#: Consul's words for a transaction that the token does not allow: it says so as a conflict (409), by this text alone.
_DENIED = "Permission denied"


class _Pair(msgspec.Struct, rename="pascal"):
    key: str
    value: bytes | None = None
    flags: int = 0
    modify_index: int = 0
    session: str | None = None


class _Result(msgspec.Struct):
    pair: _Pair = msgspec.field(name="KV")


class _Failure(msgspec.Struct, rename="pascal"):
    op_index: int
    what: str = ""


class _Outcome(msgspec.Struct, rename="pascal"):
    results: list[_Result] | None = None
    errors: list[_Failure] | None = None


class _Done(msgspec.Struct, rename="pascal"):
    results: list[msgspec.Raw] | None = None
    errors: list[_Failure] | None = None


class _Session(msgspec.Struct):
    id: str = msgspec.field(name="ID")


_pairs = msgspec.json.Decoder(list[_Pair]).decode
_names = msgspec.json.Decoder(list[str]).decode
_outcome = msgspec.json.Decoder(_Outcome).decode
_done = msgspec.json.Decoder(_Done).decode
_session = msgspec.json.Decoder(_Session).decode

T = TypeVar("T")


class ConsulStore:
    """`Store` on one Consul address.

    `token` is sent as a header with each call; `token_file` is read instead. `ca`, `cert` and `key` are PEM files for
    https, `server_name` what its certificate is for. All files are read again when they change; nothing is taken from
    the environment. Raises `errors.Refused` where the address has no known form or a TLS file cannot be used.

    Waits take a connection each while they block. Consul allows 200 per client address, and counts that of a process
    that died until the wait's own end (1.8.7, measured): minutes are too long for a wait.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        token_file: Path | None = None,
        ca: Path | None = None,
        cert: Path | None = None,
        key: Path | None = None,
        server_name: str | None = None,
    ) -> None:
        place = parse_place(address)
        self._token = Token(token, token_file)
        self._pool = Pool(place, Tls(Files(ca, cert, key), server_name) if place.scheme == "https" else None)
        self._closed = threading.Event()
        self._waits = Waits(self._keys, self._get_absent, self._closed)

    @property
    def address(self) -> str:
        """Where it asks, as a URL without secrets."""
        return str(self._pool.place)

    @property
    def bytes_received(self) -> int:
        """Bytes of all answers' bodies so far: what watching costs."""
        return self._pool.bytes_received

    def get(self, key: str, *, timeout: float = 3.0, sure: bool = False) -> Entry | None:
        """See `Store.get`."""
        return self._get(check_key(key), timeout, CONSISTENT if sure else ())[0]

    def get_many(self, keys: Sequence[str], *, timeout: float = 3.0) -> dict[str, Entry]:
        """See `Store.get_many`: a transaction of reads for every 64 keys, and another where some do not exist."""
        ends = time.monotonic() + timeout
        wanted = list(dict.fromkeys(check_key(key) for key in keys))
        found: dict[str, Entry] = {}
        for start in range(0, len(wanted), MAX_OPS):
            found.update(self._get_chunk(wanted[start : start + MAX_OPS], ends))
        return found

    def list(self, prefix: str, *, timeout: float = 3.0) -> Listing:
        """See `Store.list`."""
        return self._waits.remember("list", prefix, self._list(check_prefix(prefix), timeout))

    def keys(self, prefix: str, *, timeout: float = 3.0) -> Keys:
        """See `Store.keys`."""
        return self._waits.remember("keys", prefix, self._keys(check_prefix(prefix), timeout))

    def wait(self, prefix: str, index: int, *, timeout: float) -> Listing | Unchanged | Reset:
        """See `Store.wait`. Every wake-up, and the end of the time, costs all that is below the prefix."""
        return self._waits.wait("list", self._list, check_prefix(prefix), index, timeout, values=True)

    def wait_keys(self, prefix: str, index: int, *, timeout: float, values: bool = False) -> Keys | Unchanged | Reset:
        """See `Store.wait_keys`. Consul wakes it for changed values too: without `values` that is not passed on."""
        return self._waits.wait("keys", self._keys, check_prefix(prefix), index, timeout, values=values)

    def commit(self, ops: Sequence[Op], *, timeout: float = 3.0) -> Committed | Conflict:
        """See `Store.commit`. Unavailable leaves open whether it was done."""
        check_ops(ops)
        if not ops:
            return Committed({})
        lines = [(position, line) for position, op in enumerate(ops) for line in _lines(op)]
        outcome = self._txn([line for _, line in lines], timeout, f"writing {_summary(ops)}")
        if outcome.errors:
            self._raise_if_denied(outcome.errors, [ops[position].key for position, _ in lines])
            failed = {lines[error.op_index][0] for error in outcome.errors if 0 <= error.op_index < len(lines)}
            return Conflict(tuple(sorted(failed)), outcome.errors[0].what)
        told = {result.pair.key: result.pair.modify_index for result in outcome.results or ()}
        try:
            return Committed({op.key: told[op.key] for op in ops if isinstance(op, Put | Lock | Unlock)})
        except KeyError as error:
            raise Unavailable(f"Consul at {self.address} does not say that it wrote {error.args[0]}") from None

    def open_session(self, name: str, ttl: float, *, timeout: float = 3.0) -> str:
        """See `Store.open_session`. It hangs on no health check, and leaves its keys free at once when it ends."""
        # Without the empty lists it hangs on the agent's serfHealth: one killed agent ends every session it served.
        wish = {"Name": name, "TTL": f"{int(check_ttl(ttl) * 1000)}ms", "Behavior": "delete", "LockDelay": "0s"}
        body = msgspec.json.encode({**wish, "NodeChecks": [], "Checks": []})
        with self._client(f"opening the session {name}", timeout) as client:
            return _session(client.put("/v1/session/create", body).body).id

    def renew_session(self, session: str, *, timeout: float = 3.0) -> bool:
        """See `Store.renew_session`."""
        with self._client(f"renewing the session {session}", timeout) as client:
            try:
                client.session.renew(session)
            except NotFound:
                return False
            return True

    def close_session(self, session: str, *, timeout: float = 3.0) -> None:
        """See `Store.close_session`."""
        with self._client(f"closing the session {session}", timeout) as client:
            if not client.session.destroy(session):
                raise Unavailable(f"Consul at {self.address} did not close the session {session}")

    def look(self, path: str, what: str, params: Params = (), *, timeout: float = 3.0, whole: bool = True) -> bytes:
        """What Consul says at `path`, which is no key's. `whole`: what is left out by ACLs is a failure."""
        with self._client(what, timeout) as client:
            return client.look(path, params, whole).body

    def clock(self, *, timeout: float = 3.0) -> float:
        """What time it is there, in Unix seconds, whole ones."""
        with self._client("asking what time it is", timeout) as client:
            told = client.look("/v1/status/leader", (), False).headers.get("Date")
            if told is None:
                raise ValueError("no Date")
            return parsedate_to_datetime(told).timestamp()

    def transact(self, lines: Sequence[dict[str, Any]], what: str, *, timeout: float = 3.0) -> dict[int, str]:
        """Do all of a transaction's operations, in Consul's own words, or none: then what it says of which."""
        with self._client(what, timeout) as client:
            answer = client.put("/v1/txn", msgspec.json.encode(lines), also=409)
            done = _done(answer.body)
            if (done.results is None) if answer.code == 200 else not done.errors:
                raise ValueError("neither results nor errors")
            return {error.op_index: error.what for error in done.errors or ()}

    def close(self) -> None:
        """See `Store.close`. Calls under way end at once; one that is still connecting ends within three seconds."""
        self._closed.set()
        self._pool.close()

    # How Consul is asked

    @contextlib.contextmanager
    def _client(self, attempt: str, timeout: float, meanwhile: Meanwhile | None = None) -> Iterator[_Client]:
        """A client for one attempt. Whatever goes wrong becomes Unavailable with the address and the attempt."""
        where = f"Consul at {self.address}"
        try:
            yield _Client(self._pool, self._token.read(), time.monotonic() + timeout, meanwhile)
        except Closed:
            raise Unavailable(f"the connection to {where} was closed: {attempt}") from None
        except _Denied:
            raise Denied(f"{where} says permission denied: {attempt}") from None
        except TimeoutError as error:
            raise Unavailable(f"{where} did not answer within {max(timeout, 0):.3g} s: {attempt}") from error
        except (OSError, http.client.HTTPException) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise Unavailable(f"{where} cannot be asked: {attempt}: {reason}") from error
        except _Answered as error:
            raise Unavailable(f"{where} answered {error}: {attempt}") from None
        except (ConsulException, msgspec.MsgspecError, ValueError, RecursionError):
            # Without the body, which py-consul puts into its text: what is no Consul may send back what it was sent.
            raise Unavailable(f"{where} sent an answer that cannot be read: {attempt}") from None

    def _get(self, key: str, timeout: float, params: Params = ()) -> tuple[Entry | None, int]:
        with self._client(f"reading {key}", timeout) as client:
            answer = client.read(key, params)
            pairs = _pairs(answer.body) if answer.code == 200 else []
            return next((_entry(pair) for pair in pairs), None), _index(answer)

    def _get_chunk(self, keys: Sequence[str], ends: float) -> dict[str, Entry]:
        # A `get` of an absent key fails the transaction and names its position; `get-tree`, which does not, would
        # bring 111 addresses along with arp/10.0.0.1.
        left = keys
        while left:
            lines = [_line("get", key) for key in left]
            outcome = self._txn(lines, ends - time.monotonic(), f"reading {left[0]} and {len(left) - 1} more keys")
            if not outcome.errors:
                return self._complete(left, [_entry(result.pair) for result in outcome.results or ()])
            self._raise_if_denied(outcome.errors, left)
            absent = {error.op_index for error in outcome.errors}
            still = [key for position, key in enumerate(left) if position not in absent]
            if len(still) == len(left):
                raise Unavailable(f"Consul at {self.address} does not say which of {len(left)} keys it could not read")
            left = still
        return {}

    def _complete(self, keys: Sequence[str], entries: Sequence[Entry]) -> dict[str, Entry]:
        # What a token may not read is left out of the results without a word.
        found = {entry.key: entry for entry in entries}
        for key in keys:
            if key not in found:
                raise Denied(f"Consul at {self.address} says permission denied: reading {key}")
        return found

    def _txn(self, lines: Sequence[dict[str, Any]], timeout: float, attempt: str) -> _Outcome:
        body = msgspec.json.encode([{"KV": line} for line in lines])
        with self._client(attempt, timeout) as client:
            answer = client.put("/v1/txn", body, also=409)
            outcome = _outcome(answer.body)
            if (outcome.results is None) if answer.code == 200 else not outcome.errors:
                raise ValueError("neither results nor errors")
            return outcome

    def _raise_if_denied(self, errors: Sequence[_Failure], keys: Sequence[str]) -> None:
        for error in errors:
            if error.what == _DENIED:
                key = keys[error.op_index] if 0 <= error.op_index < len(keys) else "a key"
                raise Denied(f"Consul at {self.address} says permission denied: {key}")

    def _list(self, prefix: str, timeout: float, params: Params = (), meanwhile: Meanwhile | None = None) -> Listing:
        pairs, index = self._below(prefix, timeout, [("recurse", "1"), *params], _pairs, meanwhile)
        return Listing(tuple(map(_entry, pairs)), index)

    def _keys(self, prefix: str, timeout: float, params: Params = (), meanwhile: Meanwhile | None = None) -> Keys:
        names, index = self._below(prefix, timeout, [("keys", "1"), *params], _names, meanwhile)
        return Keys(tuple(names), index)

    def _below(
        self,
        prefix: str,
        timeout: float,
        params: Params,
        decode: Callable[[bytes], Sequence[T]],
        meanwhile: Meanwhile | None,
    ) -> tuple[Sequence[T], int]:
        ends = time.monotonic() + timeout
        with self._client(f"reading below {prefix}", timeout, meanwhile) as client:
            answer = client.read(prefix, params)
            if answer.code == 200:
                return decode(answer.body), _index(answer)
            index = _index(answer)
        # What a token may not list looks like nothing (404 with an index, measured); a key below it is answered 403.
        self._get_absent(prefix, ends - time.monotonic())
        return (), index

    def _get_absent(self, prefix: str, timeout: float, params: Params = ()) -> int:
        """The index of the whole store, which Consul gives with a key that does not exist."""
        return self._get(f"{prefix}{uuid.uuid4().hex}", timeout, params)[1]


class _Client(Consul):  # type: ignore[misc]
    """py-consul for one attempt: its token and its deadline. It is a view of the pool and takes 10 µs to make."""

    def __init__(self, pool: Pool, token: str | None, deadline: float, meanwhile: Meanwhile | None) -> None:
        self._port = _Port(pool, deadline, meanwhile)
        super().__init__(host=pool.place.host, port=pool.place.port, scheme=pool.place.scheme, verify=True)
        self.token = token  # not as an argument: there CONSUL_HTTP_TOKEN of the environment would win

    def http_connect(self, *_: object, **__: object) -> _Port:
        return self._port

    def read(self, key: str, params: Params = ()) -> Answer:
        """GET below /v1/kv: 200, or 404 from one that is Consul, which then tells its index."""
        answer: Answer = self.http.get(_as_it_is, f"/v1/kv/{key}", params=params, headers=self.prepare_headers())
        if answer.headers.get("X-Consul-Results-Filtered-By-ACLs") == "true":  # from 1.11 on
            raise _Denied
        return self._expect(answer, 404 if "X-Consul-Index" in answer.headers else 200)

    def look(self, path: str, params: Params, whole: bool) -> Answer:
        """GET of anything else: 200."""
        answer: Answer = self.http.get(_as_it_is, path, params=params, headers=self.prepare_headers())
        if whole and answer.headers.get("X-Consul-Results-Filtered-By-ACLs") == "true":
            raise _Denied
        return self._expect(answer, 200)

    def put(self, path: str, body: bytes, also: int = 200) -> Answer:
        """PUT that is answered 200, or the one other code that is expected."""
        return self._expect(self.http.put(_as_it_is, path, data=body, headers=self.prepare_headers()), also)

    def _expect(self, answer: Answer, also: int) -> Answer:
        if answer.code not in (200, also):
            raise _Answered(answer, self.token)
        return answer


class _Port(HTTPClient):  # type: ignore[misc]
    """py-consul's port for transports, over our pool."""

    def __init__(self, pool: Pool, deadline: float, meanwhile: Meanwhile | None) -> None:
        super().__init__(pool.place.host, pool.place.port, pool.place.scheme)
        self.base_uri = ""  # `uri` then makes what stands in the request line
        self._pool = pool
        self._deadline = deadline
        self._meanwhile = meanwhile

    def get(self, callback: Callable[[Answer], T], path: str, params: Any = None, headers: Any = None) -> T:
        return callback(self._ask("GET", self.uri(path, params), headers, b""))

    def put(
        self, callback: Callable[[Answer], T], path: str, params: Any = None, data: Any = b"", headers: Any = None
    ) -> T:
        return callback(self._ask("PUT", self.uri(path, params), headers, data or b""))

    def delete(self, *_: object, **__: object) -> None:
        raise NotImplementedError("keys are deleted in transactions")

    def post(self, *_: object, **__: object) -> None:
        raise NotImplementedError("nothing is posted")

    def close(self) -> None:
        """Nothing to do: the pool is the store's."""

    def _ask(self, method: str, target: str, headers: dict[str, str] | None, body: bytes) -> Answer:
        answer = self._pool.ask(method, target, headers or {}, body, self._deadline, self._meanwhile)
        if answer.code == 403:
            raise _Denied
        if answer.code not in (200, 404, 409):
            raise _Answered(answer, (headers or {}).get("X-Consul-Token"))
        return answer


class _Denied(Exception):
    """403: the token does not allow it, or is none."""


class _Answered(Exception):
    """Consul answered, but not to the question. The text has its words, without the token should they hold it."""

    def __init__(self, answer: Answer, hide: str | None) -> None:
        words = answer.body.decode("utf-8", "replace")
        words = " ".join((words.replace(hide, "(token)") if hide else words).split())[:200]
        super().__init__(f"HTTP {answer.code} ({words or http.client.responses.get(answer.code, 'without a word')})")


def _as_it_is(answer: Answer) -> Answer:
    return answer


def _index(answer: Answer) -> int:
    """Consul's index, at least 1: a wait for 0 would be answered at once, for ever."""
    return max(1, int(answer.headers.get("X-Consul-Index", "")))


def _entry(pair: _Pair) -> Entry:
    return Entry(pair.key, pair.value or b"", pair.flags, pair.modify_index, pair.session or None)


def _summary(ops: Sequence[Op]) -> str:
    return ops[0].key if len(ops) == 1 else f"{ops[0].key} and {len(ops) - 1} more"


def _line(verb: str, key: str, value: bytes | None = None, **more: Any) -> dict[str, Any]:
    text = {} if value is None else {"Value": base64.b64encode(value).decode()}
    return {"Verb": verb, "Key": key, **text, **more}


def _lines(op: Op) -> list[dict[str, Any]]:
    """An operation as one or two of a transaction's."""
    match op:
        case Put(index=None):
            return [_line("set", op.key, op.value, Flags=op.flags)]
        case Put():
            return [_line("cas", op.key, op.value, Flags=op.flags, Index=op.index)]
        case Delete():
            # `delete-cas` of an absent key succeeds.
            return [_line("check-index", op.key, Index=op.index), _line("delete-cas", op.key, Index=op.index)]
        case Check(index=0):
            return [_line("check-not-exists", op.key)]
        case Check():
            return [_line("check-index", op.key, Index=op.index)]
        case Lock():
            return [_line("lock", op.key, op.value, Session=op.session)]
        case Unlock():
            return [_line("unlock", op.key, op.value, Session=op.session)]
