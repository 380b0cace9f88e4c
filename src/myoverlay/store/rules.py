"""What both stores refuse before they do anything, so that nobody finds out on the other one.

Each limit is Consul's (1.8.7, measured); the SQLite store keeps them too.
"""

from __future__ import annotations

from collections.abc import Sequence

from myoverlay.store import MAX_OPS, MAX_VALUE, Delete, Op, Put

#: Bytes of a transaction's JSON: above `txn_max_req_len` (512 KiB) Consul answers 413 for the whole. A single value of
#: 393,216 bytes is over it already, by the JSON around it.
MAX_BODY = 512 * 1024
#: What an operation costs in JSON beside its key and value: names, verb, flags, index or a session's UUID, rounded up.
OP_OVERHEAD = 160
#: Flags are unsigned 64 bit in Consul and signed 64 bit in SQLite.
MAX_FLAGS = (1 << 63) - 1
#: Consul refuses sessions outside of 10 s to 24 h.
TTL_LIMITS = (10.0, 86400.0)


def check_key(key: str) -> str:
    """A key that both stores take in any call. Raises ValueError: Consul answers 301 for what it takes for a path."""
    if not key or key.startswith("/") or "//" in key or not key.isprintable():
        raise ValueError(f"{key!r} is no key: words joined by single slashes, without control characters, are")
    if any(word in (".", "..") for word in key.split("/")):
        raise ValueError(f"{key!r} is no key: no word of it may be . or ..")
    return key


def check_prefix(prefix: str) -> str:
    """A prefix that reaches nobody else's keys. Raises ValueError where it is empty or could begin no key."""
    if not prefix:
        raise ValueError("a prefix must not be empty: it would reach everybody's keys")
    return check_key(prefix)


def check_ttl(ttl: float) -> float:
    """Seconds that a session may live unrenewed. Raises ValueError outside of TTL_LIMITS."""
    low, high = TTL_LIMITS
    if not low <= ttl <= high:
        raise ValueError(f"a session's TTL is {low:g} to {high:g} s, not {ttl:g}")
    return ttl


def weight(ops: Sequence[Op]) -> int:
    """What the operations count against MAX_OPS. A Delete counts twice.

    Consul's `delete-cas` of an absent key succeeds, so that it takes a `check-index` beside it to be a conflict.
    """
    return sum(2 if isinstance(op, Delete) else 1 for op in ops)


def body_size(ops: Sequence[Op]) -> int:
    """An upper bound, in bytes, of the operations as Consul's JSON."""
    return sum(_json_size(op) for op in ops)


def check_ops(ops: Sequence[Op]) -> None:
    """Raises ValueError where Consul would refuse the whole: too many operations, too much, or a malformed one."""
    if weight(ops) > MAX_OPS:
        raise ValueError(f"a commit takes {MAX_OPS} operations (a delete counts twice), not {weight(ops)}")
    for op in ops:
        _check_op(op)
    if body_size(ops) > MAX_BODY:
        raise ValueError(f"a commit takes {MAX_BODY} bytes after base64, not {body_size(ops)}")


def _check_op(op: Op) -> None:
    check_key(op.key)
    if len(getattr(op, "value", b"")) > MAX_VALUE:
        raise ValueError(
            f"a value has at most {MAX_VALUE} bytes, not the {len(getattr(op, 'value', b''))} for {op.key}"
        )
    if isinstance(op, Put) and not 0 <= op.flags <= MAX_FLAGS:
        raise ValueError(f"flags are 0 to {MAX_FLAGS}, not {op.flags}")
    index = getattr(op, "index", None)
    if index is not None and index < (1 if isinstance(op, Delete) else 0):
        raise ValueError(f"{index} is no index that {op.key} could have")


def _json_size(op: Op) -> int:
    # A key's quotes and backslashes take two bytes; nothing else that a key may hold takes more than it has.
    name = OP_OVERHEAD + 2 * len(op.key.encode())
    if isinstance(op, Delete):
        return 2 * name
    return name + (len(getattr(op, "value", b"")) + 2) // 3 * 4
