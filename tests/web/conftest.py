"""Three hosts with their plugins and a real Consul; Debian's Chromium on the first one, before its page."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from lab import HostSpec, Lab, browser, leftovers, places
from lab.plugin_process import PluginProcess
from tests.engine.conftest import BOTH, IMAGE, eventually

NAME = "web"
PORT = 9556
HOME = f"http://127.0.0.1:{PORT}/"
#: Where pictures of the page are kept.
PICTURES = places.HOME / "web"
#: What the third host calls itself: whoever takes a stranger's text for markup shows it by this.
HOSTILE = "<img src=x onerror=document.title='owned'>"

pytestmark = pytest.mark.timeout(600)
expect.set_options(timeout=15_000)


class Town:
    """Hosts h1 (oldest engine), h2 and h3 (newest) on the overlay `web`; h1 serves the page."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.h1, self.h2, self.h3 = (lab.hosts[name] for name in ("h1", "h2", "h3"))
        settings = {"CONSUL_HTTP_ADDR": lab.consul.url, "MYOVERLAY_DOCKER_SOCKET": "/run/docker.sock"}
        more = {"h1": {"MYOVERLAY_WEB": f"127.0.0.1:{PORT}"}, "h3": {"MYOVERLAY_HOST_NAME": HOSTILE}}
        self.plugins = {
            host.name: PluginProcess(host, settings | more.get(host.name, {})) for host in (self.h1, self.h2, self.h3)
        }

    @property
    def engines(self) -> tuple[Any, Any, Any]:
        return self.h1, self.h2, self.h3

    def prepare(self) -> None:
        for host in self.engines:
            self.plugins[host.name].start()
        eventually("all are there", lambda: len(self.lab.consul.keys("myoverlay/alive/")) == 3, 20)
        for host in self.engines:
            host.docker("network", "create", *BOTH, "--subnet", "10.5.0.0/24", "-o", "overlay=web", "web")
        for host, name in ((self.h1, "ann"), (self.h2, "bob"), (self.h3, "cid")):
            self.run(host, name)

    def run(self, host: Any, name: str) -> None:
        host.docker("run", "-d", "--name", name, "--network", "web", IMAGE)

    def address(self, host: Any, name: str) -> str:
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return str(host.docker("inspect", "-f", form, name)).strip()

    def inside(self, host: Any, *words: str) -> str:
        """A command in the overlay's namespace of a host."""
        return str(host.run(["nsenter", "--net=/run/docker/plugins/myoverlay/netns/web", *words]))

    def said(self, host: Any, *words: str) -> str:
        """What `myoverlay …` says there."""
        environment = {"PYTHONPATH": str(places.REPOSITORY / "src")}
        return str(host.run([sys.executable, "-m", "myoverlay", *words], env=environment))

    def clear(self) -> None:
        for host in self.engines:
            ids = host.docker("ps", "-aq").split()
            if ids:
                host.docker("rm", "-f", *ids)
            host.docker("network", "rm", "web")

    def dump(self) -> str:
        words = [f"=== {name} plugin\n{plugin.words()[-6000:]}" for name, plugin in self.plugins.items()]
        return "\n".join([*(host.dump() for host in self.engines), *words])


@pytest.fixture(scope="session")
def town() -> Iterator[Town]:
    before = leftovers.snapshot()
    PICTURES.mkdir(parents=True, exist_ok=True)
    with Lab(NAME, hosts=[HostSpec("h1", "old"), HostSpec("h2", "new"), HostSpec("h3", "new")], consul=True) as lab:
        town = Town(lab)
        town.prepare()
        yield town
        town.clear()
        for plugin in town.plugins.values():
            plugin.stop()
            assert "Traceback" not in plugin.words()
    assert leftovers.compare(before, leftovers.snapshot(), [NAME]) == []


@pytest.fixture(scope="session")
def chromium(town: Town) -> Iterator[Browser]:
    """The browser, as a process of h1's network. It ends before the laboratory does."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        program = browser.launcher(town.h1, Path(folder))
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


class Seen:
    """A page in the browser, and what went wrong in it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.troubles: list[str] = []
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("console", lambda message: self.troubles.append(message.text) if message.type == "error" else None)
        page.on("dialog", lambda dialog: self.troubles.append(f"a dialog: {dialog.message}"))
        page.on("request", lambda request: self._asked(request.url))

    def _asked(self, url: str) -> None:
        if not url.startswith(HOME) and not url.startswith("http://127.0.0.1:"):
            self.troubles.append(f"it asked {url}")

    def open(self, view: str, home: str = HOME) -> Page:
        self.page.goto(f"{home}#{view}")
        expect(self.page.locator("#live")).to_have_text("Live")
        return self.page

    def picture(self, name: str) -> None:
        self.page.screenshot(path=PICTURES / f"{name}.png", full_page=True)


@pytest.fixture
def seen(chromium: Browser) -> Iterator[Seen]:
    """A wide page in light; no error, no dialog and no request to elsewhere may come of it."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    seen = Seen(context.new_page())
    yield seen
    context.close()
    assert seen.troubles == []
