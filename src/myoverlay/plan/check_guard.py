"""The check of the guard: who may send VXLAN to this host, and whether its containers are bound to their addresses."""

from __future__ import annotations

import errno
from collections.abc import Mapping

import msgspec

from myoverlay.plan.findings import Finding, bad, count, few, ok, warn
from myoverlay.plan.guard import OFF, WARN

#: What a kernel answers that has no nf_tables, or not all of it: no such netlink, subsystem or expression.
LACKING = frozenset(
    {errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOENT, errno.ENOSYS}
)
_BARRED = frozenset({errno.EPERM, errno.EACCES})
_OPEN = "whoever can send this host a datagram gets frames into its overlays"


class Guarding(msgspec.Struct, frozen=True):
    """`mode`: the setting. `tunnels`: overlays, and the heartbeat; `vteps`: who may send, each on its own of them.

    `trouble`: why it does not guard, `code`: the kernel's reason for that. `there`: is its table as it was laid?
    `unbound`: why containers are not bound, by overlay. `repairs`: how often either was made anew since the start.
    """

    mode: str
    tunnels: int = 0
    vteps: int = 0
    trouble: str = ""
    code: int = 0
    there: bool = True
    unbound: Mapping[str, str] = {}
    repairs: int = 0


def judge_guard(read: Guarding) -> Finding:
    if read.mode == OFF:
        return warn(
            "MYOVERLAY_GUARD is off",
            f"{_OPEN}, and containers may speak under any address",
            "take `MYOVERLAY_GUARD=off` out of the plugin's settings and start it again",
        )
    if read.trouble or read.unbound:
        return _cannot(read)
    if read.tunnels and not read.there:
        return bad(
            "table inet myoverlay is gone, or is another than this host laid"
            + (f"; it was made anew {count(read.repairs, 'time')} since the start" if read.repairs else ""),
            f"somebody takes it away, and until it is made anew, within 3 s, {_OPEN}",
            "`nft monitor` names the process that does: have it delete its own tables and no others; a firewall"
            " whose file says `flush ruleset` can name its tables there instead",
        )
    anew = f"; made anew {count(read.repairs, 'time')} since the start" if read.repairs else ""
    return ok(f"{count(read.tunnels, 'tunnel')} guarded, {count(read.vteps, 'VTEP')} may send{anew}")


def _cannot(read: Guarding) -> Finding:
    overlays = sorted(read.unbound)
    saw = read.trouble or f"containers of {few(overlays)}: {read.unbound[overlays[0]]}"
    means = _OPEN if read.trouble else "containers there may speak under any address"
    if read.mode == WARN:
        return warn(saw, f"{means}; MYOVERLAY_GUARD is warn, so networks are made all the same", _remedy(read.code))
    return bad(saw, f"{means}; new networks are refused", _remedy(read.code))


def _remedy(code: int) -> str:
    if code in _BARRED:
        return (
            "give the plugin CAP_NET_ADMIN (run `myoverlay serve` as root, grant the managed plugin what it asks for)"
        )
    if code in LACKING or not code:
        return (
            "`modprobe nf_tables` (in the kernel: CONFIG_NF_TABLES, its INET and BRIDGE families, NFT_FIB), then start"
            " the plugin again; to do without it `MYOVERLAY_GUARD=warn`"
        )
    return "see what the sentence says and `dmesg`; to make networks meanwhile `MYOVERLAY_GUARD=warn`"
