"""Results for people: lines while it runs, and README's table. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.goals import (
    ANSWERED,
    FIRST,
    GOALS,
    LOST,
    SAME,
    TRAFFIC,
    Limit,
    Ratio,
    between,
    judge,
    same,
    unit,
)
from bench.names import BRIDGE, DOCKER, HAND, NONE, OURS, PARALLEL, TUTORIAL, UNDERLAY
from bench.results import Measured, Results
from bench.spread import spread, words


def plain(name: str, measured: Measured) -> str:
    """One figure in a few lines: each contestant's medians, the ratios that goals speak of, and the noise."""
    lines = [f"{name}: {len(measured.rounds)} rounds in {measured.seconds:.0f} s, load {measured.load[1]:.1f}"]
    for contestant in measured.contestants():
        quantities = next(each.values[contestant] for each in measured.rounds if contestant in each.values)
        told = (f"{kind} {between(spread(measured.of(contestant, kind)))}" for kind in quantities)
        lines.append(f"  {contestant:22} {'; '.join(told)}")
    lines += [
        f"  {rule.over} ÷ {rule.under}: {rule.quantity} {between(spread(rule.values(measured)))}"
        for rule in (goal.rule for goal in GOALS)
        if isinstance(rule, Ratio) and rule.figure == name
    ]
    ratio = same(name)
    if ratio is not None:
        lines.append(f"  A/A {between(spread(ratio.values(measured)))}")
    return "\n".join(lines)


@dataclass(frozen=True)
class Row:
    """A line of README's first table: ratios of ours to others, and the medians that are behind them."""

    title: str
    figure: str
    quantity: str
    others: tuple[str, ...]
    more_is_better: bool
    less: str = ""


ROWS: tuple[Row, ...] = (
    *(Row(title, name, quantity, (DOCKER, HAND, BRIDGE, UNDERLAY), True) for name, quantity, title in TRAFFIC),
    Row("first ping, rows ahead", "first-ping", FIRST, (DOCKER,), False),
    Row("what a network adds to `docker run`, start and stop", "docker-run", "run ms", (DOCKER, BRIDGE), False, NONE),
    Row("the same with `--internal`", "docker-run-internal", "run ms", (DOCKER,), False, NONE),
    Row("`docker run` returned, first answer", "first-answer", ANSWERED, (DOCKER,), False),
)
_OTHERS = (DOCKER, HAND, BRIDGE, UNDERLAY)
#: Figures without anybody to compare with: title, figure, quantity, contestant.
ALONE: tuple[tuple[str, str, str, str], ...] = (
    ("first ping by a miss, record in memory", "first-ping-memory", FIRST, OURS),
    ("first ping by a miss, record only in Consul", "first-ping-store", FIRST, OURS),
    ("first ping with the tutorial's script", "first-ping-tutorial", FIRST, TUTORIAL),
    ("our handlers, all calls about one container", "handlers", "all calls ms", OURS),
    ("the same, 8 containers at once", "handlers", "all calls ms", PARALLEL),
    ("socket bound after exec", "socket", "bound s", OURS),
    ("`docker plugin enable`", "enable", "enabled s", OURS),
    ("memory after 10,000 changes, 1,000 hosts around", "memory", "PSS MB", OURS),
    ("root file system", "size", "root MB", OURS),
    ("10,000 peers into a fresh namespace", "rows", "programmed s", OURS),
    ("full comparison of 10,000 peers, the first", "rows", "reconciled s", OURS),
    ("the next, as every 3 s", "rows", "reconciled again s", OURS),
    ("20,000 unknown destinations in a second, the valid one answered", "storm", FIRST, OURS),
)


def line(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def table(results: Results) -> str:
    """README's text between its markers: ratios, figures by themselves, and the goals that are missed."""
    about = dict(results.about)
    facts = "; ".join(f"{name} {value}" for name, value in about.items() if name not in ("date", "took"))
    text = f"{about.get('date', '?')}; {facts}; {about.get('took', '?')} in all.\n\n"
    text += line(("myoverlay ÷ …", *_OTHERS, "itself (A/A)", "rounds", "medians")) + line(["---"] * 8)
    text += "".join(_ratios(results, row) for row in ROWS if row.figure in results.figures)
    text += "\n" + line(("by itself", "median (95 %)", "rounds", "goal")) + line(["---"] * 4)
    text += "".join(_alone(results, *row) for row in ALONE if row[1] in results.figures)
    verdicts = judge(results)
    missed = [verdict for verdict in verdicts if not verdict.met]
    text += f"\n{len(verdicts) - len(missed)} of {len(verdicts)} goals are met (`make bench-check`)"
    text += (
        ": all but\n\n" + "".join(f"- {one.title}: {one.goal}; {one.found}\n" for one in missed) if missed else ".\n"
    )
    again = "".join(_again(name, measured) for name, measured in results.figures.items())
    return text + (f"\nMeasured again after the run, whose rounds are kept in the results:\n\n{again}" if again else "")


def _again(name: str, measured: Measured) -> str:
    """When a figure was measured, and what it was before, by its goals; nothing where it was measured once."""
    text = ""
    for before in measured.earlier:
        verdicts = judge(Results({}, {name: before}), [goal for goal in GOALS if goal.rule.figure == name])
        found = "; ".join(f"{one.title}, {one.goal}: {one.found}" for one in verdicts) or "no goal speaks of it"
        text += f"- `{name}` at {measured.began}; at {before.began} it was: {found}\n"
    return text


def _ratios(results: Results, row: Row) -> str:
    measured = results.figures[row.figure]
    there = set(measured.contestants())
    cells = []
    for other in _OTHERS:
        if other not in row.others or other not in there:
            cells.append("")
            continue
        found = spread(Ratio(row.figure, row.quantity, "at most", 1.0, OURS, other, row.less).values(measured))
        cells.append(f"{between(found)}{_MARK[words(found, row.more_is_better)]}")
    noise = next(one for one in SAME if one.figure == row.figure)
    cells.append(between(spread(noise.values(measured))))
    medians = ", ".join(
        f"{name} {spread(measured.of(name, row.quantity)).median:.4g}"
        for name in (OURS, *row.others, row.less)
        if name in there
    )
    return line((row.title, *cells, str(len(measured.rounds)), f"{medians} {unit(row.quantity)}".rstrip()))


#: Said only where the interval excludes 1.0.
_MARK = {"better than": " better", "worse than": " **worse**", "no difference shown": ""}


def _alone(results: Results, title: str, figure: str, quantity: str, contestant: str) -> str:
    measured = results.figures[figure]
    values = measured.of(contestant, quantity)
    found = f"{between(spread(values))} {unit(quantity)}"
    kinds = {kind for each in measured.rounds for kind in each.values.get(contestant, {})}
    if LOST in kinds:
        found += f"; {sum(measured.of(contestant, LOST)):g} of {3 * len(values)} packets lost"
    wanted = (figure, quantity, contestant)
    rules = [goal.rule for goal in GOALS if isinstance(goal.rule, Limit)]
    goal = next((one for one in rules if (one.figure, one.quantity, one.contestant) == wanted), None)
    above = sum(value > goal.limit for value in values) if goal is not None else 0
    found += f"; {above} of {len(values)} above the goal" if above else ""
    return line((title, found, str(len(values)), str(goal or "")))
