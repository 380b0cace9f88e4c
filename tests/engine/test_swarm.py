"""Docker's own overlay beside ours, on the same hosts and the same UDP port."""

from __future__ import annotations

from tests.attack.board import Board, board
from tests.engine.conftest import BOTH, Cluster, Nets, eventually, ping, refused

__all__ = ["board"]


def test_swarm_keeps_working_beside_ours(cluster: Cluster, nets: Nets, board: Board) -> None:
    """A Swarm overlay and one of ours carry pings side by side; a VNI of Swarm's is refused naming the holder."""
    h1, h2 = cluster.engines
    h1.docker("swarm", "init", "--advertise-addr", h1.address, "--default-addr-pool", "10.20.0.0/16")
    try:
        token = h1.docker("swarm", "join-token", "-q", "worker")
        h2.docker("swarm", "join", "--advertise-addr", h2.address, "--token", token, f"{h1.address}:2377")
        nets.create(
            h1, "theirs", "-d", "overlay", "--attachable", "-o", "com.docker.network.driver.overlay.vxlanid_list=5000"
        )
        nets._containers.append((h1, "t1"))
        nets.run(h1, "t1", "--network", "theirs")
        their = nets.run(h2, "t2", "--network", "theirs")
        eventually("Swarm's overlay", lambda: len(ping(h1, "t1", their, count=1)) == 1, 30)
        before = len(ping(h1, "t1", their))  # no overlay of ours is there yet: nothing is guarded
        for host in cluster.engines:
            nets.create(host, "ours", *BOTH, "--subnet", "10.5.20.0/24")
        nets.run(h1, "o1", "--network", "ours")
        our = nets.run(h2, "o2", "--network", "ours")
        assert len(ping(h1, "o1", our)) == 3
        assert len(ping(h1, "t1", their)) == 3
        vni = ("-o", "vni=5000", "-o", "overlay=same")
        sentence = refused(h1, "network", "create", *BOTH, "--subnet", "10.5.21.0/24", *vni, "same")
        assert "VNI 5000 on UDP port 4789 is taken on this host by" in sentence
        after = len(ping(h1, "t1", their))
        board.write("none: Swarm's overlay on the same hosts, pings of 3", f"{before} answered", f"{after} answered")
        assert (before, after) == (3, 3)
    finally:
        nets.clear()
        for host in (h2, h1):
            host.docker("swarm", "leave", "--force", check=False)
