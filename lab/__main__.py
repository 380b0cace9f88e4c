"""`python3 -m lab`: fetch, preflight, up, down, status, docker, exec, dump."""

from __future__ import annotations

import argparse
import signal
import sys
import time

from lab import fetch, preflight
from lab.engine import EngineHost
from lab.errors import LabError
from lab.lab import HostSpec, Lab, attach, names
from lab.network import Underlay


def main(arguments: list[str]) -> int:
    """Do one command; what goes wrong is one sentence on standard error."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite end is tidied up after as Ctrl-C is
    parsed = _parser().parse_args(arguments)
    try:
        status: int = parsed.do(parsed)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted", file=sys.stderr)
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m lab", description="Real Docker engines side by side.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, do: object, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(do=do)
        if name not in ("fetch", "preflight", "status"):
            made.add_argument("--name", default="lab", help="which laboratory (default: lab)")
        return made

    command("fetch", _fetch, "bring engines, store, registry and images below .lab/")
    command("preflight", _preflight, "say what this machine lacks")
    up = command("up", _up, "start a laboratory and leave it running")
    up.add_argument("--hosts", default="h1=old,h2=new", help="such as h1=old,h2=new,h3=none")
    up.add_argument("--no-consul", action="store_true")
    up.add_argument("--registry", action="store_true")
    up.add_argument("--live-restore", action="store_true")
    up.add_argument("--mtu", type=int, default=1500, help="of the underlay")
    up.add_argument("--subnet", default=Underlay.subnet, help="of the underlay")
    down = command("down", _down, "end a laboratory and remove all traces")
    down.add_argument("--all", action="store_true", help="every laboratory that no living process works with")
    command("status", _status, "what is up")
    docker = command("docker", _docker, "docker on a host: lab docker h1 -- ps")
    run = command("exec", _exec, "a command of this machine on a host: lab exec h1 -- ip link")
    for each in (docker, run):
        each.add_argument("host")
        each.add_argument("words", nargs="+", metavar="-- WORD")
    command("dump", _dump, "all that helps to understand a failure")
    return parser


def _fetch(_: argparse.Namespace) -> int:
    preflight.demand_to_fetch()
    for name, version in fetch.fetch().items():
        print(f"{name:28} {version}")
    return 0


def _preflight(_: argparse.Namespace) -> int:
    missing = preflight.complaints()
    print("\n".join(missing) or "This machine can run the laboratory.")
    return 1 if missing else 0


def _up(parsed: argparse.Namespace) -> int:
    fetch.fetch(report=False)
    specs = []
    for word in parsed.hosts.split(","):
        name, _, engine = word.partition("=")
        specs.append(HostSpec(name, None if engine == "none" else engine or "new", live_restore=parsed.live_restore))
    began = time.monotonic()
    up = Lab(
        parsed.name,
        specs,
        consul=not parsed.no_consul,
        registry=parsed.registry,
        underlay=Underlay(parsed.subnet, parsed.mtu),
    )
    up.up()
    print(f"laboratory {parsed.name} is up after {time.monotonic() - began:.1f} s")
    return _show(up)


def _show(shown: Lab) -> int:
    for host in shown.hosts.values():
        engine = f"engine {host.engine_version}" if host.age and host.engine_running() else "no engine running"
        print(f"  {host.name:10} {host.address:16} pid {host.pid:<8} {engine}" if host.alive else f"  {host.name}: off")
    for service in shown._services():
        print(f"  {service.host.name:10} {service.url}  {'running' if service.running else 'stopped'}")
    return 0


def _down(parsed: argparse.Namespace) -> int:
    if not parsed.all:
        left = attach(parsed.name).down()
    else:
        left = []
        for each in map(attach, names()):
            if each.in_use():
                left.append(f"{each.name}: process {each.creator.pid} works with it; `down --name {each.name}` insists")
            else:
                left += each.down()
    for line in left:
        print(f"could not remove {line}", file=sys.stderr)
    return 1 if left else 0


def _status(_: argparse.Namespace) -> int:
    found = names()
    for name in found:
        print(f"laboratory {name}")
        _show(attach(name))
    if not found:
        print("no laboratory is up")
    return 0


def _docker(parsed: argparse.Namespace) -> int:
    done = _host(parsed).docker_complete(*parsed.words, timeout=600)
    return _say(done.stdout, done.stderr, done.returncode)


def _exec(parsed: argparse.Namespace) -> int:
    process = _host(parsed).popen(parsed.words, stdin=None, stdout=None, stderr=None)
    try:
        status: int = process.wait()
    finally:
        process.kill()
    return status


def _say(out: str, errors: str, status: int) -> int:
    sys.stdout.write(out)
    sys.stderr.write(errors)
    return status


def _host(parsed: argparse.Namespace) -> EngineHost:
    found = attach(parsed.name)
    if parsed.host not in found.hosts:
        raise LabError(f"laboratory {parsed.name} has no host {parsed.host}: it has {', '.join(found.hosts) or 'none'}")
    return found.hosts[parsed.host]


def _dump(parsed: argparse.Namespace) -> int:
    print(attach(parsed.name).dump())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
