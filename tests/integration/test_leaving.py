"""A node that is asked to leave, with calls in flight."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import pytest
from easyremote import CallOptions, Client
from easyremote.settings import Settings
from system import system
from workers import tail

pytestmark = pytest.mark.broker

ITEMS = 6
EACH = 60
"""Calls of either kind, over two nodes: coroutines that all run at once, and functions that wait in line."""


def test_a_node_asked_to_leave_finishes_hands_over_and_deregisters(settings: Settings, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with system(settings) as running, tail(settings, "nodes") as followed:
        running.launch("leaves", "inference")
        running.launch("stays", "inference")
        running.await_up("leaves", "stays")
        with Client(settings, direct=True) as client:
            futures = []
            for number in range(EACH):
                options = CallOptions(timeout_s=60, strategy="round_robin")
                for function, busy_ms in (("mark_and_wait", 1_000), ("mark", 150)):
                    call = f"{function}-{number}"
                    futures.append(client.submit(function, str(journal), call, busy_ms, options=options))
            running.await_view(lambda view: view["leaves"].in_flight >= EACH // 2)
            leaving = running.processes["leaves"]
            running.stop("leaves")  # fails if it takes more than 10 s
            assert leaving.returncode in (0, -signal.SIGTERM)
            replies = [future.reply(60) for future in futures]
        followed.wait_for(lambda messages: any(one.key() == b"leaves" and one.value() is None for one in messages))
        told = [one.value() for one in followed.messages if one.key() == b"leaves"]
        assert told[-1] is None
    assert all(reply.status == "ok" for reply in replies), Counter(reply.status for reply in replies)
    ran = Counter(line.split()[0] for line in journal.read_text().splitlines())
    assert ran == Counter(f"{function}-{number}" for function in ("mark_and_wait", "mark") for number in range(EACH))
    by_node = Counter(reply.node_id for reply in replies)
    assert by_node["leaves"] > 0  # what it had begun
    assert by_node["stays"] > EACH  # its own half, and what was handed over


def test_a_node_asked_to_leave_in_the_middle_of_a_stream_that_does_not_move_ends_in_time_and_another_goes_on(
    settings: Settings, tmp_path: Path
) -> None:
    diary, gate = tmp_path / "diary", tmp_path / "gate"
    with system(settings, "streamed") as running:
        running.launch("leaves", "inference")
        running.await_up("leaves")
        with Client(settings, direct=True) as client:
            options = CallOptions(timeout_s=60)
            with client.stream("halting", str(diary), str(gate), ITEMS, options=options) as items:
                first = [next(items) for _ in range(ITEMS // 2)]  # now it waits for good
                running.launch("stays", "inference")
                gate.touch()
                running.stop("leaves")  # fails if it takes more than 10 s
                assert [*first, *items] == list(range(ITEMS))
    assert diary.read_text().split() == ["leaves", "stays"]
