"""What real hosts see of each other, and their tables as their kernels have them, asked for through the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from myoverlay.host.outlooks import Onlooker
from myoverlay.operate.web.picture import Of, Picture
from myoverlay.outlook import About
from myoverlay.values import OverlayName
from tests.kernel.host.hosts import Host
from tests.kernel.host.tools import until

WEB = OverlayName("10.5.0.0-24")


class Page:
    """What a page of a host's daemon would be made of, without its server."""

    def __init__(self, host: Host) -> None:
        daemon, clusterwide = host.daemon, host.daemon.clusterwide
        self.onlooker = Onlooker(
            clusterwide.outlooks,
            clusterwide.observatory.look,
            lambda: daemon.peers.known.present or frozenset(),
            daemon.tally,
        )
        self.picture = Picture(
            Of(
                me=daemon.records.me,
                name=host.name,
                lookout=cast(Any, None),  # neither the matrix nor a drawing asks it
                overlays=daemon.overlays,
                peers=daemon.peers,
                fates=daemon.fates,
                onlooker=self.onlooker,
            )
        )
        self.onlooker.start()

    def until(self, take: Callable[[], Any], right: Callable[[Any], Any]) -> Any:
        """The first picture that is right, taken as an open page takes them."""
        shown: list[Any] = []

        def check() -> bool:
            shown.append(take())
            return bool(right(shown[-1]))

        until(check, 25.0)  # a host that had just begun when it was asked answers the next question, 10 s later
        return shown[-1]


def test_each_host_tells_what_it_sees(two: tuple[Host, Host]) -> None:
    """The matrix of one is made of what both told; when nobody looks, the store has nothing of it any more."""
    here, there = two
    here.run()
    there.run()
    page = Page(here)
    try:
        whole = lambda shown: len(shown["hosts"]) == 2 and all(one["cells"] for one in shown["hosts"])  # noqa: E731
        shown = page.until(page.picture.matrix, whole)
        ids = [one["id"] for one in shown["hosts"]]
        assert shown["hosts"][0]["cells"][ids[1]][0] == "alive"
        assert shown["hosts"][1]["cells"][ids[0]][0] == "alive"
    finally:
        page.onlooker.stop(5)


def test_tables_and_the_way_are_the_kernel_s(two: tuple[Host, Host]) -> None:
    """The way between two containers is right; a row that is taken away on either host is what is wrong, by name."""
    here, there = two
    a, b = here.run(), there.run()
    until(lambda: here.knows(b) and there.knows(a))
    page = Page(here)
    pair = (str(a.address), str(b.address))

    def way() -> Any:
        return page.picture.drawing(WEB, pair=pair)["way"]

    try:
        page.until(way, lambda found: {one["state"] for one in found["stations"]} <= {"right", "unseen"}
                   and found["first_wrong"] is None and found["stations"][8]["state"] == "right")  # fmt: skip
        other = here.daemon.records.me
        tables = here.daemon.clusterwide.observatory.look([About(host=other, overlay=WEB, keys=pair)]).on(WEB)
        assert tables is not None
        assert {(row.key, row.to) for row in tables.rows} == {
            (str(b.address), str(b.mac)),
            (str(b.mac), str(there.vtep)),
        }
        assert set(tables.ports) == {a.address}
        for host, gone, place in ((here, b, 3), (there, a, 9)):
            host.daemon.reconciler.stop(5)  # nothing is to repair it meanwhile
            with host.tables() as held:
                held.unset(gone.rows[:1])
            wrong = page.until(way, lambda found: found["first_wrong"] is not None)
            assert wrong["first_wrong"] == place
            assert f"no row for {gone.address}" in wrong["stations"][place]["saw"]
            with host.tables() as held:
                held.set(gone.rows[:1])
            page.until(way, lambda found: found["first_wrong"] is None)
    finally:
        page.onlooker.stop(5)
