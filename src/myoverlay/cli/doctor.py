"""`myoverlay doctor`: everything that is known to go wrong, looked at."""

from __future__ import annotations

import os
import textwrap
from typing import Any

import click

from myoverlay.cli.ask import ask
from myoverlay.cli.words import json_option, print_json, print_table, say
from myoverlay.errors import MyoverlayError, Unavailable

#: Seconds for an examination by the plugin, which gives every reading up after 6.5 s.
PATIENCE = 10.0
_WIDTH = 120
_NOT_RUNNING = "nothing is repaired while the plugin does not run"


@click.command("doctor")
@click.option("--fix", is_flag=True, help="Do what is safe about what was found, and say what was done.")
@json_option
@click.pass_context
def doctor_command(ctx: click.Context, fix: bool, as_json: bool) -> None:
    """Look for everything that is known to go wrong: what was seen, what it means, what to do.

    It ends within 10 s, whatever is away, and within 20 s where the plugin hangs. Where no plugin answers, what a
    command can see by itself is looked at. --fix only has the plugin do now what it does by itself sooner or later:
    collect what nobody asks for, and put its own links and sysctls right.

    \b
    Exit codes: 0 nothing is bad (`warn` and `unknown` may stand), 1 something is.
    Examples:
      myoverlay doctor
      myoverlay doctor --fix
      myoverlay doctor --json
    """
    findings, runs = _examine()
    did: list[str] = []
    if fix:
        wrong = [one["check"] for one in findings if one["fixes"] and one["level"] in ("bad", "warn")]
        if not runs:
            did = [_NOT_RUNNING]
        elif wrong:
            did = ask("Control.DoctorFix", timeout=PATIENCE, checks=wrong)["did"]
            findings, runs = _examine()
    bad = sum(one["level"] == "bad" for one in findings)
    if as_json:
        print_json({"findings": findings, "bad": bad, "did": did})
    else:
        _show(findings, did if did or not fix else ["there was nothing that may be done by itself"])
    if bad:
        ctx.exit(1)


def _examine() -> tuple[list[dict[str, Any]], bool]:
    """The findings, and whether they are the plugin's own."""
    from myoverlay.plan.check_plugin import Running

    try:
        return ask("Control.Doctor", timeout=PATIENCE)["findings"], True
    except Unavailable as error:
        running = Running(False, why=str(error))
    except MyoverlayError as error:
        if "another `myoverlay doctor`" in str(error):
            raise
        running = Running(True, refuses=str(error))
    from myoverlay.diagnosis import alone
    from myoverlay.operate.doctor import shown

    return shown(alone(os.environ, running)), False


def _show(findings: list[dict[str, Any]], did: list[str]) -> None:
    """What was done, a line for each check, then what is to be done about those that are not ok."""
    for sentence in did:
        say(f"did: {sentence}")
    rows = [
        (one["check"], one["level"].upper() if one["level"] == "bad" else one["level"], one["saw"]) for one in findings
    ]
    print_table(("CHECK", "STATE", "SAW"), rows)
    for one in findings:
        if one["level"] == "ok" or not (one["means"] or one["remedy"]):
            continue
        say(f"\n{one['check']}: {one['saw']}")
        for head, text in (("means:", one["means"]), ("do:", one["remedy"])):
            if text:
                say(_paragraph(head, text))


def _paragraph(head: str, text: str) -> str:
    """Wrapped, but never inside of a command: it is to be copied."""
    words = [part.replace(" ", "\N{NO-BREAK SPACE}") if at % 2 else part for at, part in enumerate(text.split("`"))]
    wrapped = textwrap.wrap(
        "`".join(words), _WIDTH, initial_indent=f"  {head:<7}", subsequent_indent=" " * 9,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return "\n".join(wrapped).replace("\N{NO-BREAK SPACE}", " ")
