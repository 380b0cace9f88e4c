"""Every figure, in the order in which they are measured."""

from __future__ import annotations

from bench.figures import docker_run, first_answer, first_ping, guard, handlers, kernel, memory, starting, traffic
from bench.figures.figure import Figure

FIGURES: tuple[Figure, ...] = (
    *traffic.FIGURES,
    *guard.FIGURES,
    *first_ping.FIGURES,
    *docker_run.FIGURES,
    *handlers.FIGURES,
    *first_answer.FIGURES,
    *starting.FIGURES,
    *kernel.FIGURES,
    *memory.FIGURES,
)


def chosen(names: str) -> list[Figure]:
    """Figures by name, commas between; all where nothing is said. Raises ValueError, which names those there are."""
    wanted = [name for name in names.split(",") if name]
    known = {figure.name: figure for figure in FIGURES}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ValueError(f"no figure {', '.join(unknown)}: there are {', '.join(known)}")
    return [known[name] for name in wanted] if wanted else list(FIGURES)
