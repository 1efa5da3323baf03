"""What was under way outlives the process that had it in hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from easyremote.inference.begun import BegunJournal, left_behind

DIES = """
import os, pathlib, sys
from easyremote.inference.begun import BegunJournal
journal = BegunJournal(pathlib.Path(sys.argv[1]))
slots = {call: journal.begin(call) for call in ("ended", "under way", "long" * 100)}
journal.end(slots["ended"])
os.kill(os.getpid(), 9)
"""


def test_what_a_killed_process_had_begun_and_not_ended_is_found(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", DIES, tmp_path], check=False, env=os.environ)
    (marks,) = left_behind(tmp_path).values()
    assert b"under way" in marks
    assert b"ended" not in marks
    assert sorted(map(len, marks)) == [9, 64]


def test_the_journal_of_a_process_that_lives_is_left_alone(tmp_path: Path) -> None:
    journal = BegunJournal(tmp_path)
    journal.begin("under way")
    assert left_behind(tmp_path) == {}
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_more_calls_than_slots_are_not_noted_and_slots_come_back(tmp_path: Path) -> None:
    journal = BegunJournal(tmp_path)
    slots = [journal.begin("a") for _ in range(5_000)]
    assert None in slots
    journal.end(next(slot for slot in slots if slot is not None))
    assert journal.begin("b") is not None
    journal.close()
