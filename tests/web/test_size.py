"""The page of a hundred hosts with a thousand endpoints, of paper, in the real browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from myoverlay.operate.web.page import Page
from myoverlay.tally import Tally
from tests.pure.kit import until
from tests.pure.paper import Site, at
from tests.web.conftest import Seen, Town

PORT = 9557
HOME = f"http://127.0.0.1:{PORT}/"
#: Milliseconds within which what was typed is filtered, the page laid out again.
TYPED = 100.0
HOSTS, EACH = 100, 10

pytestmark = pytest.mark.timeout(300)

#: Types into the search, and says how long it took until the page was laid out anew: the best of so many times, so
#: that what else the machine does meanwhile is not measured.
_TYPE = """(texts) => {
  const search = document.getElementById("search");
  let took = [];
  for (const text of texts) {
    const begun = performance.now();
    search.value = text;
    search.dispatchEvent(new Event("input"));
    document.body.getBoundingClientRect();
    took.push(performance.now() - begun);
  }
  return took;
}"""


@pytest.fixture(scope="module")
def large(town: Town) -> Iterator[Site]:
    """A site of paper, served on the loopback of the host that the browser is on."""
    site = Site(hosts=HOSTS, each=EACH, name=lambda number: f"host-{number} <b>x</b>")
    for number in range(HOSTS):
        site.tell(number, site.tables(number, asked=(at(0, 0), at(99, 9))))
    served: Page = town.h1.inside(lambda: _begun(site))
    until(lambda: served._listener is not None)
    yield site
    served.stop(10)


def _begun(site: Site) -> Page:
    page = Page(("127.0.0.1", PORT), site.picture(), lambda *_: {"state": "waits"}, Tally())
    page.start()
    return page


def test_a_thousand_endpoints_are_filtered_at_once(large: Site, seen: Seen) -> None:
    """Each further letter of a search is done within 100 ms, and so is taking it back; the rest comes by scrolling, or
    all at once by a button."""
    page = seen.open("endpoints", HOME)
    expect(page.locator("#endpoints-count")).to_have_text("1000 of 1000 endpoints, the first 200 shown")
    rounds = [page.evaluate(_TYPE, ["a", "app-7", "app-77-", "app-77-3", ""]) for _ in range(7)]
    best = [min(each) for each in zip(*rounds, strict=True)]
    print(f"\nfiltering 1000 endpoints: {', '.join(f'{ms:.0f}' for ms in best)} ms")
    assert max(best) <= TYPED
    page.locator("#search").fill("10.5.42.7")
    expect(page.locator("#endpoints tbody tr")).to_have_count(1)
    expect(page.locator("#endpoints tbody tr")).to_contain_text("host-42 <b>x</b>")
    assert page.locator("#endpoints b").count() == 0
    page.locator("#search").fill("")
    expect(page.locator("#endpoints tbody tr")).to_have_count(200)
    page.locator("#view-endpoints .scroll").press("End")
    expect(page.locator("#endpoints-count")).to_have_text("1000 of 1000 endpoints, the first 400 shown")
    page.locator("#more").click()
    expect(page.locator("#endpoints tbody tr")).to_have_count(1000)
    expect(page.locator("#endpoints-count")).to_have_text("1000 of 1000 endpoints")
    seen.picture("thousand-endpoints")


def test_a_hundred_hosts_fit_into_the_matrix(large: Site, seen: Seen) -> None:
    """10,000 cells are painted; a search leaves the hosts that it finds, as rows and as columns."""
    page = seen.open("hosts", HOME)
    expect(page.locator("#matrix tbody td[data-to]")).to_have_count(HOSTS * HOSTS)
    seen.picture("hundred-hosts")
    page.locator("#search").fill("host-7")
    expect(page.locator("#matrix tbody tr")).to_have_count(11)
    expect(page.locator("#matrix tbody td[data-to]")).to_have_count(121)


def test_a_thousand_endpoints_are_drawn(large: Site, seen: Seen) -> None:
    """A hundred boxes; a pair that is far down is chosen and its way shown; a search marks and shows what it finds."""
    page = seen.open(f"drawing?overlay=web&from={at(0, 0)}&to={at(99, 9)}", HOME)
    expect(page.locator("#picture .host")).to_have_count(HOSTS)
    expect(page.locator("#verdict")).to_have_text("Every station is as it should be.")
    page.locator("#search").fill("app-55-9")
    expect(page.locator("#picture .endpoint.found")).to_have_count(1)
    seen.picture("thousand-drawn")
