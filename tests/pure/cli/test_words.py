"""The program's words: help, completion, exit codes, and what each refusal says. No kernel is touched."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from myoverlay.cli.main import LATE, cli
from myoverlay.cli.words import Places
from tests.pure.house.source import PACKAGE, imports, modules

#: Milliseconds that `--help` may take.
HELP = 150
#: So many times that by the clock: a processor that is shared with a load of eight.
BUSY = 4
HEAVY = ("pyroute2", "flask", "consul", "docker", "gunicorn", "msgspec", "requests", "rich", "prometheus_client")


def run(*words: str, **more: str) -> Result:
    return CliRunner().invoke(cli, words, env=more)


def commands(group: click.Group, *words: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command there is, with the words that call it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        yield (*words, name), command
        if isinstance(command, click.Group):
            yield from commands(command, *words, name)


EVERY = list(commands(cli))


def program(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), **more}
    return subprocess.run([sys.executable, "-m", "myoverlay", *words], env=environ, capture_output=True, text=True)


@pytest.mark.parametrize("words", [words for words, _ in EVERY], ids=" ".join)
def test_each_command_has_an_example(words: tuple[str, ...]) -> None:
    """`--help` of each says in a line what it does, and shows it in use with the program's name before it."""
    done = run(*words, "--help")
    assert done.exit_code == 0
    assert "Example" in done.output
    assert f"myoverlay {words[0]}" in done.output.partition("Example")[2]
    command = dict(EVERY)[words]
    assert command.get_short_help_str(200).endswith((".", ")"))


def test_what_lists_has_json() -> None:
    """Every `ls` and `show` speaks to machines too."""
    listing = [(words, command) for words, command in EVERY if words[-1] in ("ls", "show")]
    assert len(listing) >= 5
    for words, command in listing:
        assert any("--json" in option.opts for option in command.params), words


def test_help_is_quick(tmp_path: Path) -> None:
    """`myoverlay --help` answers within 150 ms, and a group's help does too, process and all, with its bytecode there.

    It is the processor's time that is measured, which the machine's other work hardly lengthens; and that nothing is
    waited for besides: the quickest takes no longer by the clock than the machine's load explains.
    """
    installed = {"PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}
    for words in (("--help",), ("overlay", "--help")):
        program(*words, **installed)
        worked: list[float] = []
        passed: list[float] = []
        while len(worked) < 7 or ((min(worked) > HELP or min(passed) > BUSY * HELP) and len(worked) < 50):
            before, begun = _children(), time.perf_counter()
            assert program(*words, **installed).returncode == 0
            passed.append((time.perf_counter() - begun) * 1000)
            worked.append(_children() - before)
        assert min(worked) <= HELP, worked
        assert min(passed) <= BUSY * HELP, passed
        print(f"{' '.join(words)}: {statistics.median(passed):.0f} ms, the processor's {statistics.median(worked):.0f}")


def _children() -> float:
    """Milliseconds of the processor that our children have had, of those that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1000


def test_help_imports_nothing_heavy() -> None:
    """Loading every command's words touches no library but click."""
    code = f"""
import sys
from myoverlay.cli.main import LATE, cli
import click
for name in cli.list_commands(click.Context(cli)):
    cli.get_command(click.Context(cli), name)
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    environ = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_late_commands_are_called_as_they_are_listed() -> None:
    """The word that finds a command is its own name."""
    for name in LATE:
        found = cli.get_command(click.Context(cli), name)
        assert found is not None
        assert found.name == name


BY_HAND = [name for name in modules() if name.startswith("cli.byhand")]


@pytest.mark.parametrize("module", BY_HAND)
def test_by_hand_needs_no_driver(module: str) -> None:
    """What works by hand imports the driver's plan and kernel, and neither its state nor Docker nor the store."""
    rooms = {name.split(".")[1] for name in imports(modules()[module]) if name.startswith("myoverlay.")}
    assert not rooms & {"host", "docker", "daemon", "store", "settings"}
    assert {"plan", "kernel"} <= rooms
    assert not {name.partition(".")[0] for name in imports(modules()[module])} & {"docker", "consul"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    """Each shell is told to ask us."""
    done = run("completion", shell)
    assert done.exit_code == 0
    assert "_MYOVERLAY_COMPLETE" in done.output


def test_completion_works() -> None:
    """A shell that asks gets words and options, as the printed script makes it ask."""

    def ask(line: str) -> list[str]:
        count = str(len(line.split()) - (not line.endswith(" ")))
        done = program(_MYOVERLAY_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=count)
        assert done.returncode == 0, done.stderr
        return [answer.partition(",")[2] for answer in done.stdout.splitlines()]

    assert {"attach", "arp"} <= set(ask("myoverlay a"))
    assert set(ask("myoverlay overlay ")) == {"create", "delete", "ls", "show"}
    assert "--no-miss" in ask("myoverlay overlay create --no")


@pytest.mark.parametrize("words", [words for words, _ in EVERY], ids=" ".join)
def test_every_command_is_completed(words: tuple[str, ...]) -> None:
    """Its name by its first letters, and below it its own words and each of its options."""
    from click.shell_completion import ShellComplete

    asked = ShellComplete(cli, {}, "myoverlay", "_MYOVERLAY_COMPLETE")
    *before, name = words
    assert name in [item.value for item in asked.get_completions(list(before), name[:2])]
    command = dict(EVERY)[words]
    options = {
        name
        for one in command.params
        for name in (*one.opts, *one.secondary_opts)
        if name[:2] == "--" and not _hidden(one)
    }
    assert {item.value for item in asked.get_completions(list(words), "--")} == {*options, "--help"}
    if isinstance(command, click.Group):
        below = {item.value for item in asked.get_completions(list(words), "")}
        assert below == set(command.list_commands(click.Context(command)))


def _hidden(one: click.Parameter) -> bool:
    return isinstance(one, click.Option) and one.hidden


def test_completion_of_names(tmp_path: Path) -> None:
    """`--overlay` completes the namespaces that have names."""
    from myoverlay.cli.words import complete_overlay

    for name in ("overlay-ns", "blue"):
        (tmp_path / name).touch()
    context = click.Context(cli, obj=Places(named=tmp_path))
    assert [item.value for item in complete_overlay(context, click.Option(["--overlay"]), "")] == ["blue", "overlay-ns"]
    assert [item.value for item in complete_overlay(context, click.Option(["--overlay"]), "b")] == ["blue"]
    empty = click.Context(cli, obj=Places(named=tmp_path / "nothing"))
    assert complete_overlay(empty, click.Option(["--overlay"]), "") == []


def test_completion_of_networks(tmp_path: Path) -> None:
    """NETWORK completes the overlays that are pinned here, and not what the plugin pins for itself."""
    from myoverlay.cli.words import complete_network

    for name in ("web", "10.5.0.0-24", "_probe"):
        (tmp_path / name).touch()
    context = click.Context(cli, obj=Places(plugin=tmp_path))
    found = [item.value for item in complete_network(context, click.Argument(["network"]), "")]
    assert found == ["10.5.0.0-24", "web"]
    assert [item.value for item in complete_network(context, click.Argument(["network"]), "w")] == ["web"]


@pytest.mark.parametrize(
    "words",
    [
        "nonsense",
        "overlay create --vni 0",
        "overlay create --vni x",
        "overlay create --port 70000",
        "overlay create --mtu 20",
        "overlay create --address 10.0.0.0.0/8",
        "overlay create --address 10.0.0.1",
        "overlay create --address 10.0.0.1/33",
        "attach c",
        "attach c 10.0.0.1/x",
        "attach c 10.0.0.1 --mac ff:ff:ff:ff:ff:ff",
        "arp add 10.0.0.300",
        "fdb add 02:42:00:00:00:01",
        "fdb add 02:42:00:00:00:01 eth0",
        "completion powershell",
        "trace web",
        "exec web --",
        "capture web --inner vxlan --outer",
        "capture web -c 0",
        "watch web --raw",
    ],
)
def test_bad_usage_is_two(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is malformed has exit code 2 and says how it is called."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = run(*words.split())
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Usage: " in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "overlay create",
        "overlay delete",
        "overlay ls",
        "overlay show",
        "attach c 192.168.0.3",
        "detach c",
        "arp add 192.168.0.3",
        "arp ls",
        "fdb del 02:42:00:00:00:01",
    ],
)
def test_who_is_not_root_is_told(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence on standard error, exit code 1, nothing tried."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = run(*words.split())
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == (
        "myoverlay: only root may work on links and network namespaces: put sudo before the command\n"
    )


def test_no_consul_was_said() -> None:
    """Without an address of Consul the sentence says how to give one."""
    done = run("record", "ls", CONSUL_HTTP_ADDR="")
    assert done.exit_code == 1
    assert "Give --consul http://HOST:8500 or set CONSUL_HTTP_ADDR" in done.stderr


def test_consul_is_away() -> None:
    """A Consul that does not answer is named, exit code 1."""
    done = run("record", "add", "192.168.0.3", "--vtep", "192.0.2.2", "--consul", "127.0.0.1:1")
    assert done.exit_code == 1
    assert done.stderr.startswith("myoverlay: Consul at http://127.0.0.1:1 cannot be asked: ")
    assert done.stderr.count("\n") == 1


def test_the_program_itself_exits_so() -> None:
    """As a process: 0 for help, 1 for a refusal, 2 for no command."""
    assert program("--version").returncode == 0
    refused = program("record", "ls", CONSUL_HTTP_ADDR="")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert program("nonsense").returncode == 2
