"""The table of `myoverlay doctor`: every check, which reading it judges, what it is about, what is to be done."""

from __future__ import annotations

from myoverlay.plan import (
    check_egress,
    check_guard,
    check_hosts,
    check_kernel,
    check_plugin,
    check_store,
    check_underlay,
)
from myoverlay.plan.findings import Check

CHECKS = (
    Check("plugin", "plugin", check_plugin.judge_running, "the plugin runs and answers", "start it"),
    Check("sockets", "sockets", check_plugin.judge_sockets, "every socket of `MYOVERLAY_SOCKETS` is answered by this plugin (the managed one has two names), and one name is used for all networks", "start the plugin again; remove a dead socket"),
    Check("settings", "settings", check_plugin.judge_settings, "no `MYOVERLAY_*` word is misspelt or refused", "put it right"),
    Check("token-file", "token-file", check_plugin.judge_token_file, "Consul's token can be read, by nobody but root", "`chmod 600`"),
    Check("journal", "journal", check_plugin.judge_disk, "the journal's disk has room and can be written", "make room"),
    Check("pins", "pins", check_plugin.judge_mount, "namespaces that the managed plugin pins reach the host (`/run` is shared)", "`mount --make-rshared /run`", proof="reading"),
    Check("engine", "engine", check_plugin.judge_engine, "Docker's version has no known fault", "upgrade Docker", proof="reading"),
    Check("names", "names", check_plugin.judge_names, "the resolver runs, is not asked by itself, and is not the only server", "name another server"),
    Check("store", "store", check_store.judge_store, "Consul has a leader and is reached", "start Consul, open the way to it"),
    Check("store-rights", "store-rights", check_store.judge_rights, "the token has each right that the plugin needs, by asking for it", "the rules to add"),
    Check("store-clock", "store-clock", check_store.judge_clocks, "this host's clock and Consul's agree", "NTP", proof="reading"),
    Check("peer-clocks", "hosts", check_hosts.judge_peer_clocks, "the other hosts' clocks and this one's agree", "NTP", proof="reading"),
    Check("host-id", "host-id", check_store.judge_identity, "no other host has this one's id or VTEP", "`myoverlay host new-id`, `MYOVERLAY_VTEP`"),
    Check("stale-keys", "stale-keys", check_store.judge_estates, "the store holds nothing of hosts that are gone, and no lease without its container", "`myoverlay host forget`, `myoverlay gc`", fixes=True),
    Check("vtep", "vtep", check_underlay.judge_vtep, "this host has the underlay addresses that it told the others", "give the address back"),
    Check("peer-port", "peers", check_underlay.judge_port, "every other host's kernel answers through VXLAN's UDP port", "let the port pass"),
    Check("peer-mtu", "peers", check_underlay.judge_size, "packets of the overlays' full size come back from every other host, not broken into pieces", "a larger MTU below, or `-o mtu=`"),
    Check("offload", "offload", check_underlay.judge_offload, "datagrams arrive whole with checksums made by the device, and by the kernel", "`ethtool -K … tx-checksum-ip-generic off`", proof="reading"),
    Check("vni", "vni", check_underlay.judge_vnis, "each overlay has its VXLAN device, and nobody else its VNI and port", "remove the holder, which is named", fixes=True),
    Check("peer-vni", "hosts", check_hosts.judge_carrying, "every other host has room for this one's overlays: nobody there has their VNI and port", "remove the holder there, which is named"),
    Check("subnets", "subnets", check_underlay.judge_subnets, "overlays' subnets overlap no route, no network of Docker's and no address that is needed", "another subnet, or without the route"),
    Check("firewall", "firewall", check_underlay.judge_firewall, "no rule drops VXLAN's UDP port, none lies in overlays' namespaces, and what Docker forwards gets through", "the rule to delete"),
    Check("guard", "guard", check_guard.judge_guard, "VXLAN is taken from live hosts alone, and containers are bound to their addresses", "`modprobe nf_tables`; whoever takes the table away"),
    Check("egress", "egress", check_egress.judge_egress, "overlays with `egress=own` lead to the outside", "Docker's bridge, or another in `MYOVERLAY_EGRESS_BRIDGE`"),
    Check("bridge-netfilter", "bridge-netfilter", check_kernel.judge_filters, "bridges of overlays hand nothing to the firewall", "`sysctl -w net.bridge.bridge-nf-call-iptables=0` there", fixes=True),
    Check("neighbours", "neighbours", check_kernel.judge_neighbours, "the kernel's neighbour table has room (`gc_thresh1` to `3`)", "larger thresholds", proof="reading"),
    Check("kernel", "kernel", check_kernel.judge_kernel, "Linux is new enough for what is asked of it", "a newer kernel", proof="reading"),
    Check("leftovers", "leftovers", check_kernel.judge_leftovers, "no namespace, cable, pin or lease waits that nobody asks for", "`myoverlay gc`, with `--yes` where they are many", fixes=True),
)  # fmt: skip
