"""An input that kills the process that it runs in kills two of them, and no more."""

from __future__ import annotations

import signal
from concurrent.futures import Future
from pathlib import Path

import pytest
from easyremote import CallOptions, Client
from easyremote.settings import Settings
from easyremote.topics.records import Reply
from history import History, executions, judge
from system import System, system

pytestmark = [pytest.mark.broker, pytest.mark.faults, pytest.mark.timeout(200)]

POISON = "poison"
CALLS = [*(f"before-{number}" for number in range(20)), POISON, *(f"after-{number}" for number in range(20))]
DIES_S = 60


def _await_death(running: System, node_id: str) -> None:
    running.expect_end(node_id)
    assert running.processes[node_id].wait(DIES_S) == -signal.SIGKILL


def _submit(client: Client, history: History, journal: Path, call: str) -> Future[Reply]:
    history.invoke(call)
    future = client.submit("mark_and_die", str(journal), call, POISON, options=CallOptions(id=call, timeout_s=120))
    history.watch(call, future)
    return future


def _require_all_but_the_poison(settings: Settings, history: History, journal: Path, replies: dict[str, Reply]) -> None:
    error = replies[POISON].error
    assert (getattr(error, "type", ""), getattr(error, "retriable", None)) == ("CrashSuspect", False)
    verdict = judge(settings, history, journal=journal)
    verdict.require(all_ok=False)
    assert verdict.ok == set(CALLS) - {POISON}
    assert verdict.dead_lettered == {POISON}


def test_an_input_that_kills_its_process_twice_is_dead_lettered_unrun_and_the_others_are_answered(
    settings: Settings, tmp_path: Path
) -> None:
    history, journal = History(), tmp_path / "journal"
    with system(settings) as running:
        running.launch("router", "router")
        running.launch("only", "inference")
        running.await_up("router", "only")
        with Client(settings) as client:
            futures = {call: _submit(client, history, journal, call) for call in CALLS}
            _await_death(running, "only")
            running.launch("only", "inference")
            _await_death(running, "only")
            running.start("only", "inference")
            replies = {call: future.result(60) for call, future in futures.items()}
            _require_all_but_the_poison(settings, history, journal, replies)
    assert executions(journal)[POISON] == 2


def test_an_input_that_kills_two_nodes_is_not_run_by_either_when_they_are_back(
    settings: Settings, tmp_path: Path
) -> None:
    history, journal = History(), tmp_path / "journal"
    with system(settings) as running:
        running.launch("router", "router")
        running.launch("one", "inference")
        running.launch("two", "inference")
        running.await_up("router", "one", "two")
        with Client(settings) as client:
            futures = {call: _submit(client, history, journal, call) for call in CALLS}
            _await_death(running, "one")
            _await_death(running, "two")
            running.launch("one", "inference")
            running.launch("two", "inference")
            running.await_up("one", "two")
            replies = {call: future.result(60) for call, future in futures.items()}
            _require_all_but_the_poison(settings, history, journal, replies)
    assert executions(journal)[POISON] == 2
