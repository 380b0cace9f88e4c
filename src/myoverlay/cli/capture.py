"""`myoverlay capture NETWORK`: packets of an overlay, inside it or outside, shown by tcpdump or written to a file."""

from __future__ import annotations

import contextlib
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, NamedTuple

import click

from myoverlay.cli.words import Places, complete_network, need_root
from myoverlay.errors import Late, MyoverlayError, Refused, Unknown

if TYPE_CHECKING:
    from myoverlay.cli.within import Stop
    from myoverlay.kernel.capture import Step
    from myoverlay.kernel.netns import Namespace
    from myoverlay.values import Address

#: Where tcpdump lies where PATH does not lead.
_SBIN = "/usr/sbin:/sbin:/usr/local/sbin"
#: Seconds that tcpdump is given to end by itself, once it was asked to.
_END = 3.0


class Spot(NamedTuple):
    """Where is listened: the namespace, the device, and of all that passes there what is meant."""

    ns: Namespace
    device: str
    words: str
    expression: str = ""
    steps: list[Step] | None = None
    #: VXLAN on another port than its own is told to tcpdump.
    odd_port: bool = False


@click.command("capture", short_help="Packets of a network: inside the overlay, or outside on the underlay.")
@click.argument("network", metavar="NETWORK", shell_complete=complete_network)
@click.option("--inner", metavar="vxlan|bridge|CONTAINER", help="Inside: what goes to other hosts, all, or one container's. [default: vxlan]")  # fmt: skip # noqa: E501
@click.option("--outer", is_flag=True, help="Outside: the overlay's VXLAN packets on the underlay.")
@click.option("-w", "--write", metavar="FILE", help="Write a pcap file; `-`: to standard output. Needs no tcpdump.")
@click.option("-c", "--count", metavar="N", type=click.IntRange(min=1), help="End after N packets.")
@click.option(
    "--timeout", metavar="S", type=click.FloatRange(min=0, min_open=True), help="End after S seconds; with -c: fail."
)
@click.pass_context
def capture_command(
    ctx: click.Context,
    network: str,
    inner: str | None,
    outer: bool,
    write: str | None,
    count: int | None,
    timeout: float | None,
) -> None:
    """Show the packets of NETWORK, a Docker network of the plugin or an overlay's name, or write them to a file.

    Inside the overlay packets are as containers send them; outside they are in VXLAN, and only those of this overlay
    (its UDP port and VNI) are shown. Ctrl-C ends. On the screen it is tcpdump that shows them (package tcpdump).

    \b
    Examples:
      myoverlay capture web
      myoverlay capture web --inner db -c 10
      myoverlay capture web --outer -w web.pcap --timeout 30
    """
    from myoverlay.cli.within import until_told
    from myoverlay.cli.within_network import open_overlay

    if inner is not None and outer:
        raise click.UsageError("--inner and --outer are two places: name one")
    need_root()
    with contextlib.ExitStack() as stack:
        overlay, ns = open_overlay(network, Places.of(ctx))
        stack.enter_context(ns)
        spot = outside(ns, overlay, stack) if outer else inside(ns, overlay, inner or "vxlan")
        stop = stack.enter_context(until_told())
        if write is not None:
            record(spot, write, stop, count, timeout)
        else:
            show(spot, stop, count, timeout)


def inside(ns: Namespace, overlay: str, place: str) -> Spot:
    """A device of the overlay namespace. Raises Unknown where there is no such container."""
    from myoverlay.cli.within_network import port_of
    from myoverlay.plan import shape

    devices = {"vxlan": shape.VXLAN, "bridge": shape.BRIDGE}
    device = devices.get(place) or port_of(place, overlay)
    return Spot(ns, device, f"{device} in the namespace of {overlay}")


def outside(ns: Namespace, overlay: str, stack: contextlib.ExitStack) -> Spot:
    """The underlay's device that has the VTEP, and the packets of this overlay there. Raises Unknown."""
    from myoverlay.cli.within import tunnel
    from myoverlay.kernel import netns, observe, underlay
    from myoverlay.kernel.capture import outer_filter
    from myoverlay.kernel.rtnetlink import Wire
    from myoverlay.plan import shape
    from myoverlay.values import VXLAN_PORT, Address

    with contextlib.closing(Wire(ns)) as wire:
        data = tunnel(observe.links(wire), shape.VXLAN, f"the namespace of {overlay}").data
    vni, port = int(data["IFLA_VXLAN_ID"]), int(data["IFLA_VXLAN_PORT"])
    local = data.get("IFLA_VXLAN_LOCAL") or data.get("IFLA_VXLAN_LOCAL6")
    if not local:
        raise Unknown(
            f"{shape.VXLAN} of {overlay} has no address of its own: which device its packets take is not known"
        )
    home = stack.enter_context(netns.current())
    with contextlib.closing(Wire(home)) as wire:
        bearer = next((place.index for place in underlay.places(wire) if place.address == local), 0)
        names = {link.index: name for name, link in observe.links(wire).items()}
    if bearer not in names:
        raise Unknown(f"no device here has {local}, the VTEP of {overlay}: is this the host's own network namespace?")
    words = f"{names[bearer]}, UDP port {port}, VNI {vni}"
    return Spot(home, names[bearer], words, _expression(port, vni, Address(local)), outer_filter(port, vni), port != VXLAN_PORT)  # fmt: skip # noqa: E501


def _expression(port: int, vni: int, vtep: Address) -> str:
    """The same for tcpdump: what is behind IPv6 it finds only by place."""
    place = "udp[12:4]" if vtep.version == 4 else "ip6[52:4]"
    return f"udp dst port {port} and {place} & 0xffffff00 = {vni << 8:#x}"


def show(spot: Spot, stop: Stop, count: int | None, timeout: float | None) -> None:
    """Have tcpdump print until it has enough, the time is over, or somebody ends it. Raises Refused or Late."""
    import os

    program = shutil.which("tcpdump", path=f"{os.environ.get('PATH', '')}:{_SBIN}")
    if program is None:
        raise Refused(
            "there is no tcpdump here (package tcpdump): install it, or write a file with -w, which needs none"
        )
    words = [program, "-n", "-l", "-i", spot.device, *(("-c", str(count)) if count else ())]
    words += [*(("-T", "vxlan") if spot.odd_port else ()), *((spot.expression,) if spot.expression else ())]
    process = spot.ns.call(lambda: subprocess.Popen(words, stdin=subprocess.DEVNULL))
    over = False
    try:
        over = not _ended(process, stop, timeout)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)  # it prints what it has counted
            try:
                process.wait(_END)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    if over and count is not None:
        raise Late(f"{count} packet{'' if count == 1 else 's'} did not come within {timeout:g} s")
    if process.returncode != 0 and not over and not stop.wanted:
        raise MyoverlayError(f"tcpdump ended with exit code {process.returncode}")


def _ended(process: subprocess.Popen[bytes], stop: Stop, timeout: float | None) -> bool:
    """Wait until the process has ended or the wish to end came; False where the time was over before."""
    import os

    with open(os.pidfd_open(process.pid), "rb", buffering=0) as end, selectors.DefaultSelector() as selector:
        selector.register(end, selectors.EVENT_READ)
        selector.register(stop, selectors.EVENT_READ)
        return bool(selector.select(timeout))


def record(spot: Spot, path: str, stop: Stop, count: int | None, timeout: float | None) -> None:
    """Write packets as they come, until there are enough, the time is over, or somebody ends it. Raises Late."""
    from myoverlay.kernel.capture import Capture, Pcap

    with _opened(path) as file, Capture(spot.ns, spot.device, spot.steps) as capture:
        pcap = Pcap(file)
        pcap.flush()
        click.echo(f"listening to {spot.words}; Ctrl-C ends", err=True)
        until = time.monotonic() + timeout if timeout is not None else None
        with selectors.DefaultSelector() as selector:
            selector.register(stop, selectors.EVENT_READ)
            selector.register(capture, selectors.EVENT_READ)
            while not stop.wanted and pcap.count != count:
                left = until - time.monotonic() if until is not None else None
                if left is not None and left <= 0:
                    break
                selector.select(left)
                for packet in capture.read():
                    pcap.write(packet)
                    if pcap.count == count:
                        break
                pcap.flush()
        lost = capture.count()[1]
    where = "standard output" if path == "-" else path
    said = f"; {lost} more came faster than they could be written, and are lost" if lost else ""
    click.echo(f"{pcap.count} packets written to {where}{said}", err=True)
    if count is not None and pcap.count < count and not stop.wanted:
        raise Late(f"{pcap.count} of {count} packets came within {timeout:g} s")


@contextlib.contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    if path == "-":
        yield sys.stdout.buffer
        return
    try:
        file = open(path, "wb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error.strerror}") from None
    with file:
        yield file
