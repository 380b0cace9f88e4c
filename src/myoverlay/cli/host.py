"""`myoverlay host …`: this host and the others."""

from __future__ import annotations

import os

import click

from myoverlay.cli.ask import ask
from myoverlay.cli.words import json_option, print_json, print_table, say


@click.group("host")
def host() -> None:
    """This host and the others.

    \b
    Example:
      myoverlay host ls
    """


@host.command("ls")
@json_option
def ls(as_json: bool) -> None:
    """The hosts that share an overlay with this one.

    STATE is alive; pending (its session is gone, the heartbeat has not decided); cut off (from the store: its kernel
    answers, so rows, names and addresses stay); or dead.

    \b
    Examples:
      myoverlay host ls
      myoverlay host ls --json
    """
    answer = ask("Control.Hosts")
    if as_json:
        print_json(answer)
        return
    me = answer["me"]
    rows = [(me["name"], me["id"][:12], "", "this host", "", ", ".join(me["overlays"]))]
    for one in answer["hosts"]:
        rtt = f"{one['rtt'] * 1000:.1f} ms" if one["rtt"] is not None else ""
        state = f"{one['state']} for {one['since']:.0f} s"
        rows.append((one["name"], one["id"][:12], one["vtep"] or "", state, rtt, ", ".join(one["overlays"])))
    print_table(("NAME", "ID", "VTEP", "STATE", "LATENCY", "OVERLAYS"), rows)


@host.command("forget")
@click.argument("name")
@click.option("--force", is_flag=True, help="Also a host whose kernel still answers.")
@json_option
def forget(name: str, force: bool, as_json: bool) -> None:
    """Free at once what a host that will not come back has in the store. NAME may be its id, or the start of it.

    Without this its addresses become free after MYOVERLAY_LEASE_GRACE.

    \b
    Example:
      myoverlay host forget node-7
    """
    answer = ask("Control.Forget", host=name, force=force)
    if as_json:
        print_json(answer)
        return
    overlays = ", ".join(answer["overlays"]) or "no overlay"
    say(f"host {answer['name']} is forgotten: it was on {overlays}; its addresses are free")
    if answer.get("kept"):
        say(f"its keys below {answer['kept']} stay, this host's token may not delete them: who may should, in Consul")


@host.command("leave")
@click.option("--force", is_flag=True, help="Also while containers of this host are on overlays.")
@json_option
def leave(force: bool, as_json: bool) -> None:
    """Give up all that this host has in the store, and take no more part until its plugin is started again.

    For a host that goes, or before the plugin is removed for good: nothing of it is left in the store, and on the host
    only what containers use.

    \b
    Example:
      myoverlay host leave
    """
    answer = ask("Control.Leave", force=force)
    if as_json:
        print_json(answer)
        return
    say(f"this host has left: it was on {', '.join(answer['overlays']) or 'no overlay'}")
    if answer["kept"]:
        say(
            f"containers still use the namespaces of {', '.join(answer['kept'])}: each goes with `docker network rm`"
            " while the plugin is enabled, else with the next reboot"
        )


@host.command("policy")
@click.option("--id", "host_id", metavar="ID", default="", help="Of another host: its id, 32 hex digits.")
@click.option("--records", metavar="PLACE", multiple=True, help="Where an overlay has its records, for -o records=.")
@click.option("--agent", metavar="NODE", default="", help="Node name of the Consul agent that only this host asks.")
def policy(host_id: str, records: tuple[str, ...], agent: str) -> None:
    """Print the Consul policy that a host's token needs: its own keys, and what all hosts share.

    The plugin need not reach Consul for that: start it, make the token, write it into CONSUL_HTTP_TOKEN_FILE (mode
    0600), and it goes on by itself.

    \b
    Examples:
      myoverlay host policy > node-7.hcl
      consul acl policy create -name myoverlay-node-7 -rules @node-7.hcl
      consul acl token create -policy-name myoverlay-node-7
    """
    from myoverlay.errors import Refused
    from myoverlay.settings import load
    from myoverlay.store.policy import text
    from myoverlay.values import HostId

    settings = load(os.environ)
    try:
        who = HostId(host_id or ask("Control.Hosts")["me"]["id"])
        click.echo(text(settings.prefix, who, records, agent, settings.catalogue), nl=False)
    except ValueError as error:
        raise Refused(str(error)) from None


@host.command("new-id")
def new_id() -> None:
    """Give this machine another host id: it was cloned from one that runs. The plugin must not be running.

    \b
    Example:
      myoverlay host new-id
    """
    from myoverlay.daemon import parts_of
    from myoverlay.settings import load

    journal = parts_of(load(os.environ)).journal
    try:
        click.echo(journal.new_host_id())
    finally:
        journal.close()
