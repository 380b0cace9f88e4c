"""Checks of the store: is it there, what may this host do in it, do clocks agree, does it hold what nobody owns."""

from __future__ import annotations

import msgspec

from myoverlay.plan.findings import Finding, bad, count, few, ok, unknown, warn

#: Seconds by which clocks may differ; generations and times in logs are compared between hosts.
SKEW, FAR = 2.0, 30.0
_CLOCK = "`timedatectl set-ntp true`"


class StoreSeen(msgspec.Struct, frozen=True):
    """`address` is empty for the embedded store. `took`: seconds of one consistent read; `error`: why there is none."""

    address: str = ""
    took: float = 0.0
    error: str = ""


def judge_store(read: StoreSeen) -> Finding:
    if read.error:
        where = f"`curl -sf {read.address}/v1/status/leader`" if read.address else "the journal's directory"
        return bad(
            read.error,
            "traffic goes on; new containers start from the few addresses that this host has in reserve, and what"
            " changes elsewhere is not learned",
            f"see to it that Consul runs, has a leader and is reached from this host: {where} must answer",
        )
    if not read.address:
        return ok("the embedded store, for this one host")
    slow = f"{read.address} answers in {read.took * 1000:.0f} ms"
    if read.took > 1.0:
        return warn(slow, "each `docker run` waits for several answers", "look at the load of Consul's servers")
    return ok(slow)


class Right(msgspec.Struct, frozen=True):
    """One rule that the token must have. `rule`: in Consul's words; `error`: what was denied, if it was."""

    rule: str
    error: str = ""


class Rights(msgspec.Struct, frozen=True):
    """`asked`: every right and what came of it; `error`: why it could not be asked."""

    asked: tuple[Right, ...] = ()
    error: str = ""
    embedded: bool = False


def judge_rights(read: Rights) -> Finding:
    if read.embedded:
        return ok("the embedded store has no ACLs")
    if read.error:
        return unknown(read.error)
    lacking = [right for right in read.asked if right.error]
    if not lacking:
        return ok(f"all {len(read.asked)} rights that the plugin needs")
    rules = " ".join(dict.fromkeys(right.rule for right in lacking))
    return bad(
        f"the token may not: {few([right.error for right in lacking], 3)}",
        "whatever needs it fails, each time, with `permission denied`",
        f"give the token a policy with these rules: `{rules}`",
    )


class Clock(msgspec.Struct, frozen=True):
    """Seconds by which another clock is ahead of this host's at least (negative: behind); 0 where it may be equal."""

    who: str
    ahead: float


class Clocks(msgspec.Struct, frozen=True):
    """`silent`: hosts that did not say; `error`: why nobody could be asked."""

    clocks: tuple[Clock, ...] = ()
    silent: tuple[str, ...] = ()
    error: str = ""


def judge_clocks(read: Clocks) -> Finding:
    if read.error:
        return unknown(read.error)
    wrong = sorted((one for one in read.clocks if abs(one.ahead) > SKEW), key=lambda one: -abs(one.ahead))
    if not wrong:
        asked = f"{count(len(read.clocks), 'clock')} within {SKEW:g} s"
        return ok(asked + (f" ({few(sorted(read.silent))} did not say)" if read.silent else ""))
    said = few([f"{one.who} is {abs(one.ahead):.1f} s {'ahead' if one.ahead > 0 else 'behind'}" for one in wrong])
    found = bad if abs(wrong[0].ahead) > FAR else warn
    return found(
        said,
        "of two hosts that claim an address the later one wins, by their clocks; tokens and certificates may seem to be"
        " over",
        f"set the clocks of both by NTP: {_CLOCK}",
    )


class Gone(msgspec.Struct, frozen=True):
    """A host that the store says something of and that is not there. `fate`: what the heartbeat says, if it asks."""

    name: str
    fate: str = ""


class Estates(msgspec.Struct, frozen=True):
    """`gone`: hosts that are not there. `strays`: addresses leased to this host that nothing here asks for. `loose`:
    addresses of living hosts that are leased for containers which they do not list, each with the host's name.
    """

    gone: tuple[Gone, ...] = ()
    strays: tuple[str, ...] = ()
    loose: tuple[str, ...] = ()
    error: str = ""


def judge_estates(read: Estates) -> Finding:
    if read.error:
        return unknown(read.error)
    # A host that is cut off still has its containers, and one that is pending is being asked.
    dead = [one for one in read.gone if one.fate in ("", "dead")]
    if dead:
        return bad(
            f"the store has keys of {count(len(dead), 'host')} that {'is' if len(dead) == 1 else 'are'} not there:"
            f" {few([one.name for one in dead])}",
            "their addresses stay taken: for MYOVERLAY_LEASE_GRACE where a living host shares their overlays, else"
            " until a person frees them",
            "if they will not come back: " + ", ".join(f"`myoverlay host forget {one.name}`" for one in dead[:8]),
        )
    if read.strays:
        return bad(
            f"{count(len(read.strays), 'address', 'addresses')} are leased to this host, and nothing here asks for"
            f" them: {few(sorted(read.strays))}",
            "nobody can have them; they are freed at the next comparison, within 5 min",
            "free them now: `myoverlay gc`",
        )
    if read.loose:
        return warn(
            f"leased for containers that their hosts do not list: {few(sorted(read.loose))}",
            "nobody can have these addresses until their hosts free them, within 5 min while their plugins run",
            "on those hosts: `myoverlay gc`",
        )
    away = [one.name for one in read.gone]
    return ok("nothing without an owner" + (f"; cut off: {few(away)}" if away else ""))


class Identity(msgspec.Struct, frozen=True):
    """`barred`: why this host may not take part. `announced`: the others were told that it is there."""

    barred: str = ""
    announced: bool = True


def judge_identity(read: Identity) -> Finding:
    if read.barred:
        return bad(
            read.barred,
            "this host takes no part: its containers are not told to the others",
            "do what the sentence says, then start the plugin again",
        )
    if not read.announced:
        return unknown("this host is not announced in the store yet", "look at the store first")
    return ok("no other host has this one's id or VTEP")
