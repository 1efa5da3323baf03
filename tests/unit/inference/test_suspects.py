"""Which calls run, wait and are refused after deaths that are told, on any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest
from easyremote.inference import suspects as module
from easyremote.inference.jobs import Job
from easyremote.inference.suspects import Suspects
from easyremote.settings import Settings
from easyremote.topics.records import Death
from easyremote.topics.wire import Origin, parse_call

CROWD = [f"call {number}" for number in range(200)]


class _Node:
    def __init__(self, run: Callable[[Job], None] | None = None) -> None:
        self.ran: list[str] = []
        self.refused: list[tuple[str, int]] = []
        self.suspects = Suspects(
            Settings(),
            cast(Any, None),
            run or (lambda job: self.ran.append(job.call.id)),
            lambda job, deaths: self.refused.append((job.call.id, deaths)),
        )

    def tell(self, death: str, *call_ids: str) -> None:
        for one in call_ids:
            self.suspects._learn(one, Death(death, "node", len(call_ids)), 0)


def _job(call_id: str) -> Job:
    origin = Origin("inference.general", 0, 0, 0)
    return Job(parse_call(b'{"function": "f", "id": "%s"}' % call_id.encode(), None, origin), 0, 0, 0, 0.0)


def test_a_deaths_suspects_run_in_a_hundred_turns_and_others_as_they_come() -> None:
    node = _Node()
    node.tell("first", *CROWD)
    jobs = [_job(one) for one in CROWD]
    for job in jobs:
        node.suspects.admit(job)
    node.suspects.admit(_job("new"))
    assert node.ran == [*CROWD[:2], "new"]
    node.suspects.ended(jobs[1])
    assert node.ran[3:] == CROWD[2:3]


def test_after_two_deaths_a_call_runs_alone_or_is_refused_if_nothing_else_explains_them() -> None:
    node = _Node()
    node.tell("first", "one", "other", "bad")
    node.tell("second", "one", "other")
    node.tell("third", "bad")
    jobs = {name: _job(name) for name in ("one", "other", "bad")}
    for job in jobs.values():
        node.suspects.admit(job)
    assert (node.ran, node.refused) == (["one"], [("bad", 2)])
    assert jobs["other"].alone
    node.suspects.ended(jobs["one"])
    assert node.ran == ["one", "other"]


def test_the_next_suspect_does_not_wait_for_a_slow_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [0.0]
    monkeypatch.setattr(module, "monotonic_s", lambda: now_s[0])
    node = _Node()
    node.tell("first", "slow", "next")
    for name in ("slow", "next"):
        node.suspects.admit(_job(name))
    node.suspects.look()
    assert node.ran == ["slow"]
    now_s[0] = 11.0
    node.suspects.look()
    assert node.ran == ["slow", "next"]


def test_one_that_is_withdrawn_while_it_waits_keeps_nobody_waiting() -> None:
    node = _Node()
    node.tell("first", "a", "b", "c")
    jobs = [_job(one) for one in "abc"]
    for job in jobs:
        node.suspects.admit(job)
    jobs[1].ended = True
    node.suspects.ended(jobs[0])
    assert node.ran == ["a", "c"]


@pytest.mark.parametrize("threads", [0, 4])
def test_thousands_that_end_as_soon_as_they_are_started_all_run_once(threads: int) -> None:
    crowd = [f"call {number}" for number in range(2_000)]
    ran: list[str] = []
    all_ran = threading.Event()
    with ThreadPoolExecutor(max(threads, 1)) as pool:

        def run(job: Job) -> None:
            ran.append(job.call.id)
            job.ended = True
            if len(ran) == len(crowd):
                all_ran.set()
            elif threads:
                pool.submit(node.suspects.ended, job)
            else:
                node.suspects.ended(job)

        held = _job("held")
        node = _Node(lambda job: None if job is held else run(job))
        node.tell("first", *crowd)
        node.tell("before", "held", "a", "b")
        node.suspects.admit(held)
        for one in crowd:
            node.suspects.admit(_job(one))
        assert not ran
        held.ended = True
        node.suspects.ended(held)
        assert all_ran.wait(20)
    assert ran == crowd
