"""Every promise names a test that exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
GUARANTEES = TESTS.parent / "docs" / "guarantees.md"
SECURITY = TESTS.parent / "SECURITY.md"
_NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def _promises(page: Path) -> dict[str, list[tuple[str, str]]]:
    """Return the tests of each promise, as (path, name): of rows whose last column is `held by`."""
    promises = {}
    is_held = False
    for line in page.read_text().splitlines():
        cells = line.strip("| ").split(" | ")
        if line.startswith("| ") and cells[-1] == "held by":
            is_held = True
        elif not line.startswith("|"):
            is_held = False
        elif is_held and line.startswith("| "):
            assert not _NAMED.sub("", cells[-1]).strip(", "), f"not path::test: {cells[-1]}"
            promises[cells[0]] = _NAMED.findall(cells[-1])
    return promises


@cache
def _tests_of(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text())
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


@pytest.mark.parametrize(("page", "least"), [(GUARANTEES, 150), (SECURITY, 19)], ids=lambda one: str(one)[-13:])
def test_every_promise_names_a_test(page: Path, least: int) -> None:
    promises = _promises(page)
    assert len(promises) >= least
    assert [promise for promise, tests in promises.items() if not tests] == []


@pytest.mark.parametrize("page", [GUARANTEES, SECURITY], ids=lambda page: page.name)
def test_every_test_that_a_promise_names_exists(page: Path) -> None:
    named = {test for tests in _promises(page).values() for test in tests}
    missing = {
        f"{path}::{name}" for path, name in named if not (TESTS / path).exists() or name not in _tests_of(TESTS / path)
    }
    assert missing == set()
