"""Every row: its name, what happens, on which kind of ground, what it may cost, and who does it. In their order."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.engine.chaos import rows_hosts, rows_plugin, rows_store
from tests.engine.chaos.counting import Bound
from tests.engine.chaos.ground import GRACE, LEASE_GRACE
from tests.engine.chaos.scene import Scene


class Row(NamedTuple):
    """One row of the table."""

    name: str
    title: str
    kind: str
    bound: Bound
    do: Callable[[Scene], None]


NOTHING = Bound()
#: New containers reach others at their first ping as well: wherever the store answers.
REACHED = Bound(unanswered=0)
ROWS = (
    Row("control", "control row: an nft rule drops the VXLAN packets for 100 ms", "process",
        Bound(lost=200, lost_least=60, contacts=1), rows_plugin.control),
    Row("fdb-row", "one FDB row taken out", "process", Bound(lost=10, unanswered=0), rows_plugin.fdb_row),
    Row("kill", "plugin kill -9 and restart, on two hosts", "process", NOTHING, rows_plugin.kill),
    Row("half-rows", "half of the FDB and neighbour rows deleted by hand, and wrong ones put in", "process",
        REACHED, rows_plugin.half_rows),
    Row("live-restore", "dockerd restarted with live-restore, plugin a process", "process",
        REACHED, rows_plugin.live_restore),
    Row("stopped", f"Consul stopped {rows_store.STOPPED} s", "process", NOTHING, rows_store.stopped),
    Row("emptied", "Consul restarted with an empty store", "process", NOTHING, rows_store.emptied),
    Row("rolled-back", "Consul restored from an old snapshot", "process", NOTHING, rows_store.rolled_back),
    Row("cut-off", f"one host cut off from Consul for {sum(rows_store.CUT)} s (agent killed, then a firewall, then its"
        " token revoked)", "process", NOTHING, rows_store.cut_off),
    Row("unplugged", f"a host unplugged {rows_hosts.UNPLUGGED} s and plugged in again", "process",
        REACHED, rows_hosts.unplugged),
    Row("underlay", "underlay address changed, and back", "process", REACHED, rows_hosts.underlay),
    Row("reboot", "host reboot with `--restart always`, Consul out of reach meanwhile", "process",
        REACHED, rows_hosts.reboot),
    Row("power", f"a host unplugged (power), grace {GRACE} s, lease grace {LEASE_GRACE} s", "process",
        REACHED, rows_hosts.power),
    Row("forget", "a host unplugged (power) and forgotten by `myoverlay host forget`", "process",
        REACHED, rows_hosts.forget),
    Row("disable", f"`docker plugin disable -f`, {rows_plugin.DISABLED} s, `enable`, on two hosts", "managed",
        NOTHING, rows_plugin.disable),
    Row("upgrade", "`docker plugin upgrade` to another version and back, on two hosts", "managed",
        NOTHING, rows_plugin.upgrade),
    Row("reinstall", "`docker plugin rm` and `install`, on two hosts", "managed", NOTHING, rows_plugin.reinstall),
    Row("managed-kill", "plugin kill -9, managed: the engine starts it again", "managed",
        NOTHING, rows_plugin.managed_kill),
    Row("managed-restart", "dockerd restarted with live-restore, plugin managed", "managed",
        NOTHING, rows_plugin.live_restore),
    Row("managed-reboot", "host reboot with `--restart always`, plugin managed", "managed", NOTHING, rows_hosts.reboot),
)  # fmt: skip


def chosen(names: str) -> list[Row]:
    """The rows of these names (commas between), all where there is none. Raises ValueError naming an unknown one."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = {row.name for row in ROWS}
    for name in wanted:
        if name not in known:
            raise ValueError(f"there is no row {name!r}: {', '.join(row.name for row in ROWS)}")
    return [row for row in ROWS if not wanted or row.name in wanted]
