"""Every metric, in one table: name, type, labels, meaning, and what to do about it. docs/metrics.md is written from it.

Counters and durations are those of the tally, whose tables give their meaning; gauges are read from one look at the
host. Labels take their values from our own code, but for overlays and peers, of which so many are shown and no more.
"""

from __future__ import annotations

from typing import NamedTuple

from myoverlay.tally import COUNTERS, DURATIONS

PREFIX = "myoverlay_"
#: So many overlays and peers have series of their own; the first by weight, as `exposition` says. The rest is counted.
OVERLAYS, PEERS = 100, 200
#: Any label is a fault.
ANY = "*"


class Metric(NamedTuple):
    """One row. `faults` are the values of the last label that are faults; all others are their benign twins.

    For a gauge `faults` says in an expression when it is one. An empty tuple: nothing of it is a fault by itself.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str
    remedy: str
    faults: tuple[str, ...] = ()

    @property
    def exported(self) -> str:
        """The name that Prometheus sees."""
        return PREFIX + self.name + {"counter": "_total", "histogram": "_seconds", "info": "_info"}.get(self.kind, "")


def _counter(name: str, labels: tuple[str, ...], remedy: str, *faults: str) -> Metric:
    return Metric(name, "counter", labels, COUNTERS[name].replace("{", "").replace("}", ""), remedy, faults)


def _gauge(name: str, meaning: str, remedy: str, *faults: str, labels: tuple[str, ...] = ()) -> Metric:
    return Metric(name, "gauge", labels, meaning, remedy, faults)


def _duration(name: str, labels: tuple[str, ...], remedy: str) -> Metric:
    meaning = DURATIONS[name].replace("{", "").replace("}", "")
    return Metric(name, "histogram", labels, f"seconds that it took: {meaning}", remedy)


METRICS: tuple[Metric, ...] = (
    Metric("instance", "info", ("version", "host_id", "host", "run"), "this host: version, id and name; `run` is another at each start", "none is needed: join other metrics with it"),
    _gauge("start_time_seconds", "when this run began, in Unix seconds", "a host that begins again and again: see the log of its last run"),
    # What needs a person
    _gauge("concerns", "what needs a person here, as `myoverlay status` lists it", "`myoverlay status` on that host", "> 0"),
    _gauge("barred", "1 while this host may take no part: another has its id or its VTEP, or it was told to leave", "`myoverlay status` names the other host", "== 1"),
    _gauge("held", "objects that nobody asks for and that wait for a word, by kind", "`myoverlay gc` shows them, `myoverlay gc --yes` lets them go", "> 0", labels=("kind",)),
    # The store
    _gauge("store_answers", "1 where the store answered the last call, 0 where it did not", "traffic goes on without it; see to Consul, its address and the token", "== 0"),
    _gauge("store_silent_seconds", "seconds since the store answered last", "as store_answers: it grows from the beginning of the outage"),
    _gauge("store_in_doubt", "1 while the store is known to have lost something less than the grace ago", "find out who emptied, restored or replaced it; addresses come from the reserves meanwhile", "== 1"),
    _gauge("store_untold_addresses", "addresses given out or given back here that the store has not been told of yet", "some for a moment are usual; for minutes with the store answering: see the log of `settle`"),
    _gauge("store_unreadable_keys", "keys that could not be read within 15 min", "`myoverlay status` names one: repair or delete it", "> 0"),
    _gauge("has_session", "1 while this host is announced in the store under a session", "without one the others ask its kernel, and call it cut off; see the log of `alive`", "== 0"),
    _duration("store_call", ("operation", "outcome"), "slow answers: see to Consul's disk, leader and the way to it; `failed` counts in store_answers"),
    # Docker
    _duration("docker_call", ("method",), "slow Join or CreateEndpoint: see store_call first, then the machine's load"),
    _counter("docker_calls", ("method", "outcome"), "`ok` and 4xx (the caller's fault, in one sentence) are benign; 500 is the kernel or a bug: see the log; 503 and 504 are the store away or late", "500", "503", "504"),
    # Overlays
    _gauge("overlays", "overlays of this host", "none is needed"),
    _gauge("overlays_down", "overlays whose kernel side is not there", "the log says what the kernel refuses", "> 0"),
    _gauge("endpoints", "containers of this host, by overlay", "a bridge takes 1,022 of one overlay: start more elsewhere", labels=("overlay",)),
    _gauge("remote_endpoints", "containers known elsewhere, by overlay", "beyond MYOVERLAY_EAGER_LIMIT rows are pulled by misses", labels=("overlay",)),
    _gauge("watch_silence_seconds", "seconds since the store answered the overlay's watch; a question ends within 60", "beyond 150 with the store answering: see the log of `watch`, report it", "> 150", labels=("overlay",)),
    _gauge("overlays_unlisted", "overlays beyond the 100 with the most containers, which have no series of their own", "none is needed"),
    # The kernel against what is wanted
    _gauge("reconcile_age_seconds", "seconds since the kernel was compared with what is wanted; 3 and the work are usual", "beyond 60: see the log of `reconcile`, report it", "> 60"),
    _gauge("drift", "what the last comparison put right", "again and again: somebody else changes links or tables; repairs_total says which"),
    _counter("repairs", ("reason",), "one by one they are healed; a steady rate is somebody who works against us: a network manager, another driver", ANY),
    _counter("misses", ("kind",), "`late`: the row was in the plan and not in the kernel, see repairs_total; all other kinds are usual", "late"),
    _counter("overruns", (), "rows were compared instead; often: the machine is too slow for its misses", ANY),
    _counter("row_failures", ("table",), "the log names the row and what the kernel says; before Linux 6.16 keep below 4,000 MACs of one overlay", ANY),
    _counter("guard", ("reason",), "somebody tries: `unknown` a machine of the underlay (one or two as a host joins are usual), `door` and `spoofed` a container here, `local` a process here; `tcpdump -ni INTERFACE udp port 4789` shows from where"),
    _counter("announcements", ("reason",), "`failed`: the bridge was down or gone, the next comparison puts it right; others are usual", "failed"),
    _counter("braked", ("kind",), "`myoverlay gc` shows them: why does nobody ask for so much at once?", ANY),
    _counter("underlay", ("outcome",), "`lost`: give the address back, or set MYOVERLAY_VTEP; `moved` and `found` are its benign twins", "lost"),
    # Other hosts
    _gauge("peers", "hosts that share an overlay with this one, by state", "`myoverlay status` says why each is what it is", "dead", "cut off", labels=("state",)),
    _gauge("peer_rtt_seconds", "round trip to the other host's kernel through VXLAN", "compare with the underlay's own", labels=("peer",)),
    _gauge("peer_heard_seconds", "seconds since the other host's kernel answered; it is asked about every 15", "beyond 120 with the peer alive: UDP of VXLAN is not let through between these two", "> 120", labels=("peer",)),
    _gauge("peer_full_size", "1 where packets of the underlay's MTU come back from there, 0 where only small ones do", "the path's MTU is smaller: mend it, or give the overlay a smaller `-o mtu=`", "== 0", labels=("peer",)),
    _gauge("peers_unlisted", "hosts beyond 200, which have no series of their own; those in trouble are listed first", "none is needed"),
    _gauge("heartbeat_works", "1 where the other hosts can be asked, 0 where the heartbeat's device cannot be had", "`myoverlay status` has the sentence: mostly somebody else has its VNI or port", "== 0"),
    _counter("beats", ("outcome",), "`invalid`: frames that are no answers, somebody sends them; `unanswered` beside a peer that is not alive is as it should be", "invalid"),
    _counter("beat_builds", ("outcome",), "`failed`: as heartbeat_works", "failed"),
    _counter("fates", ("state",), "a state that comes and goes: the way to Consul, or the session's renewal, is bad"),
    # The store's truth
    _counter("watch_rounds", ("kind",), "`reset`: the store's index went back, see store_in_doubt; many `listing`: more changes than the rings hold", "reset"),
    _counter("published", ("outcome",), "`clash`: an address is used elsewhere, the log names the host; `disputed`: somebody wrote over what is this host's, the log names him; `failed`: the store was away; `done` and `retried` are usual", "clash", "disputed", "failed"),
    _counter("contradictions", (), "the log says what runs here and what the store says: decide which is right", ANY),
    _counter("undecided", (), "the log names the overlay: a host lies, or two were given one address; such addresses have no rows on this host", ANY),
    _counter("quarantined", (), "`myoverlay status` names the key; one after the other: find out whose token writes them", ANY),
    _counter("doubts", (), "as store_in_doubt", ANY),
    _counter("session", ("outcome",), "`lost`: the store did not hear of this host for 20 s; the others are its benign twins", "lost"),
    _counter("mirror", ("outcome",), "`failed`: MYOVERLAY_RUN cannot be written, so `docker plugin rm` would lose the state", "failed"),
    _gauge("journal_bytes", "size of the journal's file", "it is some hundred bytes a container; one that grows without them: report it"),
    # Ourselves
    _counter("loop_failures", ("thread",), "the store was away or late, as store_answers says; with it answering: see the log", ANY),
    _counter("bugs", ("thread",), "report it, with the log", ANY),
    # Names and networks
    _gauge("names_answered", "1 where the resolver answers, 0 where it should and does not; absent where it is off", "`myoverlay names` says what stands in the way", "== 0"),
    _gauge("docker_heard", "1 where Docker's events are heard, 0 where they should be and are not; absent without its socket", "`myoverlay names` says what stands in the way", "== 0"),
    _counter("names", ("outcome",), "`late`, `unreachable`, `no server`: see to the host's own resolvers; `false answers`: somebody forges them; `doubted`: the daemon had hung", "late", "unreachable", "no server", "too many", "false answers", "doubted", "unsent"),
    _counter("resolver", ("outcome",), "`frozen`, `ended`: it is started again; often: report it", "frozen", "ended"),
    _counter("docker_events", ("kind",), "`lost`: Docker was restarted or its socket is gone; the rest is usual", "lost"),
    _counter("catalogue", ("outcome",), "`refused`: the token needs `node_prefix \"myoverlay-\"` and the services to write", "refused"),
    _counter("asked", ("outcome",), "`late`: this host took longer than the 3 s that others wait; `stale` was left by one that died", "late"),
    _counter("followed", ("outcome",), "`failed`: `myoverlay network inspect NAME` says why", "failed"),
)  # fmt: skip
