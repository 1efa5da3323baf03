"""Runs chaos beside the tests that need the cores and no broker, instead of after them: it takes minutes, and waits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHAOS: pytest.StashKey[subprocess.Popen[str]] = pytest.StashKey()
WANTED = os.environ.get("EASYREMOTE_TEST_CHAOS", "0") != "0"
SEED = int(os.environ.get("EASYREMOTE_TEST_CHAOS_SEED", "1"))
MINUTES = os.environ.get("EASYREMOTE_TEST_CHAOS_MINUTES", "3")
_HERE = Path(__file__).parent
_NEEDS_NO_BROKER = ("easyremote/", "tests/unit/", "tests/models/")
_LEAVES_S = 30


def is_chaos(item: pytest.Item) -> bool:
    """Say whether a test waits for the run."""
    return WANTED and item.path.name == "test_chaos.py" and item.path.parent.name == "faults"


def in_turn(items: list[pytest.Item]) -> None:
    """Put what needs no broker first, then chaos, which runs meanwhile, then the rest, which has the machine alone."""
    items.sort(key=lambda item: 0 if item.nodeid.startswith(_NEEDS_NO_BROKER) else 1 if is_chaos(item) else 2)


def start() -> subprocess.Popen[str]:
    """Start the run."""
    path = os.pathsep.join(filter(None, [str(_HERE), os.environ.get("PYTHONPATH", "")]))
    return subprocess.Popen(
        [sys.executable, "-m", "chaos", f"minutes={MINUTES}", f"seed={SEED}"],
        cwd=_HERE.parents[1],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(running: subprocess.Popen[str]) -> None:
    """End the run if it is still there, as when the tests were broken off."""
    if running.poll() is None:
        running.terminate()
        try:
            running.wait(_LEAVES_S)
        except subprocess.TimeoutExpired:
            running.kill()
