"""An input that kills the process that it runs in kills two of them, three if very many ran with it, and no more."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from pathlib import Path

import pytest
from easyremote import CallOptions, Client
from easyremote.inference.client import CallFuture
from easyremote.settings import Settings
from easyremote.topics.records import Reply
from history import History, executions, judge
from system import System, system

pytestmark = [pytest.mark.broker, pytest.mark.faults, pytest.mark.timeout(200)]

POISON = "poison"
BEFORE = [f"before-{number}" for number in range(20)]
AFTER = [f"after-{number}" for number in range(20)]
CALLS = [*BEFORE, POISON, *AFTER]
CROWD = [*(f"innocent-{number}" for number in range(32)), POISON, *(f"innocent-{number}" for number in range(32, 64))]
DIES_S = 60


def _await_death(running: System, node_id: str) -> None:
    running.expect_end(node_id)
    assert running.processes[node_id].wait(DIES_S) == -signal.SIGKILL


@contextmanager
def _running(settings: Settings, *names: str, home: str | None = None) -> Iterator[tuple[System, Client]]:
    """Run a router and some nodes, whose data is in the folder `home`."""
    where = {} if home is None else {"EASYREMOTE_DATA_DIR": home}
    with system(settings) as running:
        running.launch("router", "router")
        for name in names:
            running.launch(name, "inference", **where)
        running.await_up("router", *names)
        with Client(settings) as client:
            yield running, client


def _submit_crowd(client: Client, history: History, journal: Path) -> dict[str, CallFuture]:
    return {call: _submit(client, history, journal, call, "mark_with_others", len(CROWD)) for call in CROWD}


def _submit(
    client: Client, history: History, journal: Path, call: str, function: str = "mark_and_die", *rest: int
) -> CallFuture:
    history.invoke(call)
    future = client.submit(function, str(journal), call, POISON, *rest, options=CallOptions(id=call, timeout_s=120))
    history.watch(call, future)
    return future


def _require_all_but_the_poison(
    settings: Settings, history: History, journal: Path, replies: dict[str, Reply], calls: list[str] = CALLS
) -> None:
    error = replies[POISON].error
    assert (getattr(error, "type", ""), getattr(error, "retriable", None)) == ("CrashSuspect", False)
    verdict = judge(settings, history, journal=journal)
    verdict.require(all_ok=False)
    assert verdict.ok == set(calls) - {POISON}
    assert verdict.dead_lettered == {POISON}


def test_an_input_that_kills_its_process_twice_is_dead_lettered_unrun_and_the_others_are_answered(
    settings: Settings, tmp_path: Path
) -> None:
    history, journal = History(), tmp_path / "journal"
    with _running(settings, "only") as (running, client):
        futures = {call: _submit(client, history, journal, call) for call in CALLS}
        _await_death(running, "only")
        running.launch("only", "inference")
        _await_death(running, "only")
        running.start("only", "inference")
        replies = {call: future.reply(60) for call, future in futures.items()}
        _require_all_but_the_poison(settings, history, journal, replies)
    assert executions(journal)[POISON] == 2


def test_an_input_that_kills_two_nodes_is_not_run_by_either_when_they_are_back(
    settings: Settings, tmp_path: Path
) -> None:
    history, journal = History(), tmp_path / "journal"
    with _running(settings, "one", "two") as (running, client):
        futures = {call: _submit(client, history, journal, call) for call in BEFORE}
        assert not wait(futures.values(), 60).not_done
        # Alone under way, so that nothing else can be to blame for both deaths.
        futures[POISON] = _submit(client, history, journal, POISON)
        _await_death(running, "one")
        _await_death(running, "two")
        futures |= {call: _submit(client, history, journal, call) for call in AFTER}
        running.launch("one", "inference")
        running.launch("two", "inference")
        running.await_up("one", "two")
        replies = {call: future.reply(60) for call, future in futures.items()}
        _require_all_but_the_poison(settings, history, journal, replies)
    assert executions(journal)[POISON] == 2


def test_of_64_calls_that_ran_with_the_one_that_kills_none_is_dead_lettered_but_that_one(
    settings: Settings, tmp_path: Path
) -> None:
    history, journal = History(), tmp_path / "journal"
    with _running(settings, "only") as (running, client):
        futures = _submit_crowd(client, history, journal)
        _await_death(running, "only")
        (tmp_path / "again").touch()
        running.launch("only", "inference")
        _await_death(running, "only")
        running.start("only", "inference")
        replies = {call: future.reply(60) for call, future in futures.items()}
        _require_all_but_the_poison(settings, history, journal, replies, CROWD)
    assert executions(journal)[POISON] == 2


def test_innocent_calls_that_two_nodes_died_with_are_answered(settings: Settings, tmp_path: Path) -> None:
    history, journal = History(), tmp_path / "journal"
    homes = {name: str(tmp_path / name) for name in ("one", "two")}  # on two machines: neither tells the other's death
    with _running(settings, "one", home=homes["one"]) as (running, client):
        futures = _submit_crowd(client, history, journal)
        _await_death(running, "one")
        running.launch("two", "inference", EASYREMOTE_DATA_DIR=homes["two"])
        _await_death(running, "two")
        (tmp_path / "again").touch()
        for _ in range(200):
            for name, home in homes.items():
                if running.processes[name].poll() is not None:
                    running.launch(name, "inference", EASYREMOTE_DATA_DIR=home)
            if not wait(futures.values(), 0.5).not_done:
                break
        replies = {call: future.reply(0) for call, future in futures.items()}
        _require_all_but_the_poison(settings, history, journal, replies, CROWD)
    executed = executions(journal)
    assert all(executed[call] >= 2 for call in CROWD)
    assert executed[POISON] <= 5
