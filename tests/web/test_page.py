"""The page of a running laboratory, as a person with a browser sees it: `make test-web`."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.engine.conftest import eventually
from tests.web.conftest import HOME, HOSTILE, Seen, Town

#: Seconds within which a change is seen.
LIVE = 2.0

pytestmark = pytest.mark.timeout(300)


def rows(page: Page, table: str) -> Any:
    return page.locator(f"#{table} tbody tr")


def test_the_overview_says_what_status_says(town: Town, seen: Seen) -> None:
    """This host, its overlay, and both other hosts with their states; a stranger's name is a text."""
    page = seen.open("overview")
    expect(page.locator("#host-name")).to_have_text("on h1")
    expect(rows(page, "overlays")).to_have_count(1)
    expect(rows(page, "overlays").first).to_contain_text("10.5.0.0/24")
    expect(rows(page, "peers")).to_have_count(2)
    for name in ("h2", HOSTILE):
        row = rows(page, "peers").filter(has_text=name)
        expect(row).to_have_count(1)
        expect(row).to_contain_text("alive")
    assert page.locator("img").count() == 0, "a stranger's name became an element"
    assert page.title() == "h1 – myoverlay"
    seen.picture("overview-light")


def test_search_finds_by_name_address_and_host(town: Town, seen: Seen) -> None:
    """What is typed is looked for in all columns; what is nowhere leaves an empty table, and Escape brings all back."""
    page = seen.open("endpoints")
    expect(rows(page, "endpoints")).to_have_count(3)
    search = page.locator("#search")
    for text, name in (("bob", "bob"), (town.address(town.h3, "cid"), "cid"), ("H1", "ann"), ("onerror", "cid")):
        search.fill(text)
        expect(rows(page, "endpoints")).to_have_count(1)
        expect(rows(page, "endpoints").first).to_contain_text(name)
        expect(page.locator("#endpoints-count")).to_have_text("1 of 3 endpoints")
    seen.picture("search")
    search.fill("nobody")
    expect(rows(page, "endpoints")).to_have_count(0)
    search.press("Escape")
    expect(rows(page, "endpoints")).to_have_count(3)


def test_a_change_is_seen_within_two_seconds(town: Town, seen: Seen) -> None:
    """A container that starts on another host, and one that ends there, with the page left alone: five times each."""
    page = seen.open("endpoints")
    row = rows(page, "endpoints").filter(has_text="dan")
    came, went = [], []
    for _ in range(5):
        town.run(town.h2, "dan")
        begun = time.monotonic()
        expect(row).to_have_count(1, timeout=10_000)
        came.append(time.monotonic() - begun)
        if len(came) == 1:
            seen.picture("live")
        town.h2.docker("rm", "-f", "dan")
        begun = time.monotonic()
        expect(row).to_have_count(0, timeout=10_000)
        went.append(time.monotonic() - begun)
    print(f"\na container is on the page {max(came):.2f} s after it started, gone {max(went):.2f} s after it ended")
    assert max(came) <= LIVE
    assert max(went) <= LIVE


def cell(page: Page, of: str, to: str) -> Any:
    return page.locator("#matrix tbody tr").filter(has=page.locator("th", has_text=of)).locator(f'td[data-to="{to}"]')


def test_the_matrix_is_what_each_host_sees(town: Town, seen: Seen) -> None:
    """All nine cells, told by the three hosts: alive, with a latency; versions and full sizes beside them."""
    page = seen.open("hosts")
    expect(page.locator("#matrix-count")).to_have_text("3 of 3 hosts; all told what they see.")
    for of in ("h1", "h2", HOSTILE):
        for to in ("h1", "h2"):
            if of != to:
                expect(cell(page, of, to)).to_have_text(re.compile(r"^[\d.]+ ms$"), timeout=40_000)
                expect(cell(page, of, to)).to_have_attribute("aria-label", re.compile(r": alive, [\d.]+ ms, 0 % lost"))
    sized = rows(page, "matrix").filter(has_text="1450 B")
    expect(sized).to_have_count(3)
    expect(cell(page, "h1", "h2")).to_have_attribute("aria-label", re.compile("1450 bytes come back"), timeout=60_000)
    seen.picture("matrix-light")
    assert len(town.lab.consul.keys("myoverlay/outlooks/")) == 2


def test_a_host_that_is_cut_off_is_seen_by_all(town: Town, seen: Seen) -> None:
    """Its plugin is killed: both others say so in the matrix, itself it tells nothing more; then it is back."""
    page = seen.open("hosts")
    expect(cell(page, "h2", "h1")).to_have_text(re.compile("ms"), timeout=40_000)
    town.plugins["h2"].stop(9)
    expect(cell(page, "h1", "h2")).to_contain_text("cut off", timeout=40_000)
    expect(cell(page, HOSTILE, "h2")).to_contain_text("cut off", timeout=20_000)
    seen.picture("matrix-cut-off")
    town.plugins["h2"].start()
    expect(cell(page, "h1", "h2")).to_have_text(re.compile(r"^[\d.]+ ms$"), timeout=30_000)
    expect(cell(page, HOSTILE, "h2")).to_have_text(re.compile(r"^[\d.]+ ms$"), timeout=30_000)


def choose(page: Page, town: Town) -> None:
    page.locator("#choose-from").select_option(town.address(town.h1, "ann"))
    page.locator("#choose-to").select_option(town.address(town.h2, "bob"))


def test_the_drawing_shows_hosts_containers_tables_and_the_way(town: Town, seen: Seen) -> None:
    """Each host with its container; the way of a chosen pair with every station as it should be; a host's tables."""
    page = seen.open("drawing")
    for name, container in (("h1", "ann"), ("h2", "bob"), (HOSTILE, "cid")):
        box = page.locator(f'#picture [data-name="{name}"]')
        expect(box).to_have_count(1)
        expect(box).to_contain_text(container)
    choose(page, town)
    expect(page.locator("#verdict")).to_have_text("Every station is as it should be.")
    stops = page.locator("#way-picture circle")
    assert [stop.get_attribute("data-kind") for stop in stops.all()] == [
        "container", "veth", "bridge", "neighbour", "fdb", "vtep", "underlay",
        "vtep", "fdb", "neighbour", "bridge", "veth", "container",
    ]  # fmt: skip
    expect(page.locator("#picture path.link")).to_have_count(1)
    page.locator('#picture [data-name="h2"]').press("Enter")
    expect(page.locator("#tables h3")).to_have_text("Tables of h2")
    expect(page.locator("#tables tbody").first).to_contain_text(town.address(town.h1, "ann"))
    listed = town.inside(town.h2, "ip", "neigh", "show", "dev", "vxlan1")
    assert page.locator("#tables table").first.locator("tbody tr").count() == len(listed.splitlines())
    seen.picture("drawing-light")


def test_a_row_that_is_missing_is_shown_and_where(town: Town, seen: Seen) -> None:
    """While somebody deletes it faster than it is repaired: on this host, then on the other; and all is well again."""
    page = seen.open("drawing")
    choose(page, town)
    verdict = page.locator("#verdict")
    expect(verdict).to_have_text("Every station is as it should be.")
    bob, ann = town.address(town.h2, "bob"), town.address(town.h1, "ann")
    for host, name, gone in ((town.h1, "h1", bob), (town.h2, "h2", ann)):
        command = f"while :; do ip neigh del {gone} dev vxlan1 2>/dev/null; sleep 0.05; done"
        deleting = host.popen(["nsenter", "--net=/run/docker/plugins/myoverlay/netns/web", "sh", "-c", command])
        try:
            expect(verdict).to_contain_text(f"neighbour row on {name}: no row for {gone}", timeout=20_000)
            seen.picture(f"drawing-fault-{name}")
        finally:
            deleting.kill()
            deleting.wait(5)
        expect(verdict).to_have_text("Every station is as it should be.", timeout=20_000)


def test_the_chosen_pair_is_traced(town: Town, seen: Seen) -> None:
    """By the button, by keyboard: every hop as `myoverlay trace` has it; faults that the tables do not show (a
    container's route here, a firewall there) are named with their remedy; another pair takes the words away."""
    page = seen.open("drawing")
    button, verdict = page.locator("#trace-pair"), page.locator("#trace-verdict")
    expect(button).to_be_disabled()
    choose(page, town)
    expect(button).to_be_enabled()
    page.locator("#swap").focus()
    page.keyboard.press("Tab")
    expect(button).to_be_focused()
    page.keyboard.press("Enter")
    expect(verdict).to_have_text("The path is whole.")
    expect(rows(page, "hops")).to_have_count(29)
    seen.picture("trace-whole")
    inside = ["nsenter", f"--net=/proc/{town.h1.container_pid('ann', of_machine=False)}/ns/net", "ip", "route"]
    town.h1.run([*inside, "del", "10.5.0.0/24"])
    try:
        button.click()
        expect(verdict).to_contain_text("The first wrong hop: container route on h1: there is")
        expect(page.locator("#verdict")).to_contain_text("container on h1: container route: ")
        remedy = page.locator("#trace-remedy").inner_text().partition("What repairs it: ")[2].partition(";")[0]
        seen.picture("trace-fault-here")
        town.h1.run(remedy.split())
    finally:
        town.h1.run([*inside, "replace", "10.5.0.0/24", "dev", "eth0", "src", town.address(town.h1, "ann")])
    rule = "add table inet stop; add chain inet stop c { type filter hook input priority 0; }; "
    town.h2.run(["nft", f"{rule} add rule inet stop c udp dport 4789 drop"])
    try:
        button.click()
        expect(verdict).to_contain_text("The first wrong hop: host firewall on h2: there is")
        expect(page.locator("#hops tr.first")).to_contain_text("host firewall")
        expect(page.locator("#hops tr.first")).to_be_in_viewport()
        # The drawing names it too, though the tables are as they should be.
        expect(page.locator("#verdict")).to_contain_text("VTEP on h2: host firewall: table inet stop")
        expect(page.locator("#picture path.link.wrong")).to_have_count(1)
        assert page.locator('#way-picture circle[data-state="wrong"]').get_attribute("data-kind") == "vtep"
        seen.picture("trace-fault-there")
    finally:
        town.h2.run(["nft", "delete", "table", "inet", "stop"])
    page.locator("#swap").click()
    expect(page.locator("#trace")).to_be_hidden()
    expect(page.locator("#verdict")).to_have_text("Every station is as it should be.")
    button.click()
    expect(verdict).to_have_text("The path is whole.", timeout=20_000)


def test_two_visitors_trace_one_after_the_other(town: Town, chromium: Browser) -> None:
    """Each gets his own pair's path in the end; one without the page's button gets none."""
    ends = [town.address(town.h1, "ann"), town.address(town.h2, "bob"), town.address(town.h3, "cid")]
    with chromium.new_context() as context:
        pages = [Seen(context.new_page()) for _ in range(2)]
        for number, one in enumerate(pages):
            one.open(f"drawing?overlay=web&from={ends[number]}&to={ends[number + 1]}")
            expect(one.page.locator("#trace-pair")).to_be_enabled()
        for one in pages:
            one.page.locator("#trace-pair").click()
        for number, one in enumerate(pages):
            expect(one.page.locator("#trace-verdict")).to_have_text("The path is whole.", timeout=30_000)
            expect(rows(one.page, "hops").first).to_contain_text(("h1", "h2")[number])
            assert one.troubles == []


def test_containers_are_chosen_by_a_click(town: Town, seen: Seen) -> None:
    """First from where, then to where; a third click on a chosen one takes it back. The address says what is chosen."""
    page = seen.open("drawing")
    page.locator(f'[data-address="{town.address(town.h3, "cid")}"]').click()
    page.locator(f'[data-address="{town.address(town.h1, "ann")}"]').click()
    expect(page.locator("#choose-from")).to_have_value(town.address(town.h3, "cid"))
    expect(page.locator("#verdict")).to_have_text("Every station is as it should be.")
    assert f"to={town.address(town.h1, 'ann')}" in page.url
    page.reload()
    expect(page.locator("#verdict")).to_have_text("Every station is as it should be.")
    page.locator(f'[data-address="{town.address(town.h1, "ann")}"]').click()
    expect(page.locator("#verdict")).to_have_count(0)


def test_all_is_reached_by_keyboard(town: Town, seen: Seen) -> None:
    """Tab goes past the head, through the views, into the search; `/` goes there at once; Enter opens a view."""
    page = seen.open("overview")

    def focused() -> str:
        return str(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))

    reached = []
    for _ in range(6):
        page.keyboard.press("Tab")
        reached.append(focused())
    assert reached == ["Skip to the content", "Overview", "Hosts", "Endpoints", "Drawing", "search"]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#view-drawing")).to_be_visible()
    page.locator("#choose-overlay").focus()
    for _ in range(4):
        page.keyboard.press("Tab")
    expect(page.locator("#picture .host").first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#tables h3")).to_have_text("Tables of h1")
    expect(page.locator("#picture .host").first).to_be_focused()
    page.keyboard.press("/")
    assert focused() == "search"
    page.keyboard.type("bob")
    expect(page.locator("#picture .endpoint.found")).to_have_count(1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(town: Town, chromium: Browser, scheme: str) -> None:
    """390 points wide, in light and dark: nothing but tables in their own frames is wider than the screen."""
    context = chromium.new_context(
        viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True, is_mobile=True,
        device_scale_factor=2,
    )  # fmt: skip
    seen = Seen(context.new_page())
    ground = {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 23, 28)"}[scheme]
    for view in ("overview", "hosts", "endpoints", "drawing"):
        page = seen.open(view)
        if view == "drawing":
            choose(page, town)
            expect(page.locator("#verdict")).to_have_text("Every station is as it should be.")
            page.locator("#trace-pair").tap()
            expect(page.locator("#trace-verdict")).to_have_text("The path is whole.")
        expect(page.locator(f"#view-{view}")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, view
        assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == ground
        seen.picture(f"phone-{scheme}-{view}")
    context.close()
    assert seen.troubles == []


def test_a_plugin_that_is_away_is_said(town: Town, seen: Seen) -> None:
    """The page says since when nothing is told, keeps what it has, and goes on by itself when the plugin is back."""
    page = seen.open("endpoints")
    expect(rows(page, "endpoints")).to_have_count(3)
    town.plugins["h1"].stop()
    expect(page.locator("#live")).to_contain_text("No answer since")
    assert rows(page, "endpoints").count() == 3
    town.plugins["h1"].start()
    expect(page.locator("#live")).to_have_text("Live")
    seen.troubles = [one for one in seen.troubles if "ERR_CONNECTION" not in one and "ERR_EMPTY" not in one]


def test_another_s_page_cannot_read_it(town: Town, chromium: Browser) -> None:
    """A page of another origin gets no byte of it, not even when a name is bound to this address."""
    context = chromium.new_context()
    page = context.new_page()
    page.goto("about:blank")
    read = page.evaluate(f"fetch('{HOME}data/host').then(a => a.text()).catch(e => 'refused')")
    assert read == "refused"
    page.goto("http://localhost:9556/")
    assert page.title().endswith("myoverlay")
    context.close()


def test_when_nobody_looks_any_more_the_store_is_clean(town: Town, seen: Seen) -> None:
    """A closed page's question and all answers to it are gone after a while."""
    page = seen.open("hosts")
    eventually("hosts are asked", lambda: town.lab.consul.keys("myoverlay/incarnation/looks/"), 10)
    page.goto("about:blank")
    below = ("myoverlay/outlooks/", "myoverlay/incarnation/looks/")
    eventually("they are gone", lambda: not [key for one in below for key in town.lab.consul.keys(one)], 40)
