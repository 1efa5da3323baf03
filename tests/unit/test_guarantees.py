"""Every promise names a test that exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "guarantees.md"
_NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def _promises() -> dict[str, list[tuple[str, str]]]:
    """Return the tests of each promise, as (path, name)."""
    promises = {}
    for line in PAGE.read_text().splitlines():
        if line.startswith("| ") and not line.startswith("| promise"):
            promise, tests = line.strip("| ").split(" | ")
            assert not _NAMED.sub("", tests).strip(", "), f"not path::test: {tests}"
            promises[promise] = _NAMED.findall(tests)
    return promises


@cache
def _tests_of(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text())
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


def test_every_promise_names_a_test() -> None:
    promises = _promises()
    assert len(promises) > 50
    assert [promise for promise, tests in promises.items() if not tests] == []


def test_every_test_that_a_promise_names_exists() -> None:
    named = {test for tests in _promises().values() for test in tests}
    missing = {
        f"{path}::{name}" for path, name in named if not (TESTS / path).exists() or name not in _tests_of(TESTS / path)
    }
    assert missing == set()
