"""Sizes: who has to scroll, or to read twice, finds a place to cut."""

from __future__ import annotations

import ast

import pytest

from tests.pure.house.source import ROOT, functions, modules

FUNCTION, MODULE = 60, 450
#: Modules that have grown beyond the limit, with the length they may not pass until they are cut.
OVERDUE = {
    "values": 510,
}  # fmt: skip


def too_long(text: str) -> list[str]:
    return [name for name, lines in functions(text) if lines > FUNCTION]


@pytest.mark.parametrize("module", modules())
def test_functions_fit_on_a_screen(module: str) -> None:
    """No function has more than 60 lines."""
    assert too_long(modules()[module]) == []


@pytest.mark.parametrize("module", modules())
def test_modules_are_read_in_one_sitting(module: str) -> None:
    """No module has more than 450 lines; those that are overdue for a cut do not grow further."""
    assert len(modules()[module].splitlines()) <= OVERDUE.get(module, MODULE)


def test_what_was_cut_is_no_longer_overdue() -> None:
    """An exception ends with its cause."""
    assert [module for module in OVERDUE if len(modules()[module].splitlines()) <= MODULE] == []


def test_a_long_function_is_seen() -> None:
    """61 lines are one too many, inside a class and with a decorator too."""
    body = "        x = 1\n" * 59
    assert too_long(f"class A:\n    @p\n    def f(self):\n{body}") == []
    assert too_long(f"class A:\n    @p\n    def f(self):\n{body}        y = 2\n") == ["f"]


TESTS = sorted(path for path in (ROOT / "tests").rglob("test_*.py"))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_says_what_it_proves(path: object) -> None:
    """Each test has a docstring: one sentence that can be true or false."""
    tree = ast.parse(path.read_text())  # type: ignore[attr-defined]
    silent = [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert silent == []
