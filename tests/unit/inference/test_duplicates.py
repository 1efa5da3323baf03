"""Which calls are run, which wait and which are answered from before, with what all nodes know played by the test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from easyremote.inference.duplicates import Duplicates
from easyremote.inference.jobs import Job
from easyremote.inference.results import Answer
from easyremote.topics.records import RecordRef, encode
from easyremote.topics.wire import Origin, parse_call

PLACE = RecordRef("replies", 3, 17)


@dataclass
class _Answers:
    known: dict[bytes, Answer] = field(default_factory=dict)
    asked: list[Callable[[], None]] = field(default_factory=list)

    def place_of(self, key: bytes) -> RecordRef | None:
        return PLACE if key in self.known else None

    def recall(self, _place: RecordRef, key: bytes, told: Callable[[Answer | None], None]) -> None:
        self.asked.append(lambda: told(self.known.get(key)))


class _Node:
    def __init__(self) -> None:
        self.answers = _Answers()
        self.ran: list[Job] = []
        self.repeated: list[tuple[Job, bytes]] = []
        self.duplicates = Duplicates(
            cast(Any, self.answers), self.ran.append, lambda job, answer: self.repeated.append((job, answer.value))
        )


def _job(call_id: str, sent_ms: int = 1, **fields: Any) -> Job:
    origin = Origin("inference.general", 0, 0, sent_ms)
    call = parse_call(encode({"function": "f", "id": call_id} | fields), None, origin)
    return Job(call, 0, 0, 0, 0.0)


def test_a_call_that_comes_again_while_it_runs_waits_for_the_first() -> None:
    node = _Node()
    first, second = _job("a"), _job("a", sent_ms=2)
    node.duplicates.admit(first)
    node.duplicates.admit(second)
    assert node.ran == [first]
    node.duplicates.answered(first, b"one")
    assert node.repeated == [(second, b"one")]


def test_a_call_that_this_node_has_answered_is_answered_with_the_same() -> None:
    node = _Node()
    first, second = _job("a"), _job("a", sent_ms=2)
    node.duplicates.admit(first)
    node.duplicates.answered(first, b"one")
    node.duplicates.admit(second)
    assert (node.ran, node.repeated) == ([first], [(second, b"one")])


def test_a_call_that_another_node_has_answered_is_answered_with_the_same_and_so_are_those_that_wait_for_it() -> None:
    node = _Node()
    node.answers.known[_job("a").key] = Answer(b"theirs", b"1.000")
    jobs = [_job("a", sent_ms=2), _job("a", sent_ms=3)]
    for job in jobs:
        node.duplicates.admit(job)
    node.answers.asked.pop()()
    assert not node.answers.asked
    assert (node.ran, node.repeated) == ([], [(job, b"theirs") for job in jobs])


def test_a_call_whose_answer_is_not_there_any_more_is_run() -> None:
    node = _Node()
    node.answers.known[_job("a").key] = Answer(b"theirs", b"1.000")
    job = _job("a", sent_ms=2)
    node.duplicates.admit(job)
    del node.answers.known[job.key]
    node.answers.asked.pop()()
    assert node.ran == [job]


def test_a_call_that_is_read_twice_was_sent_once_and_one_that_was_sent_twice_was_not() -> None:
    call = _job("a", sent_ms=5).call
    assert Answer.to(call, b"").is_to(_job("a", sent_ms=5).call)
    assert not Answer.to(call, b"").is_to(_job("a", sent_ms=6).call)


@pytest.mark.parametrize("other", [{"function": "g"}, {"args": [2]}, {"reply_to": "mine"}])
def test_who_asks_something_else_under_an_answered_id_or_elsewhere_has_a_call_of_its_own(other: dict[str, Any]) -> None:
    node = _Node()
    theirs, mine = _job("a"), _job("a", sent_ms=2, **other)
    node.duplicates.admit(theirs)
    node.duplicates.admit(mine)  # while the first is under way
    node.duplicates.answered(theirs, b"secret")
    node.duplicates.answered(mine, b"mine")
    again = _job("a", sent_ms=3, **other)
    node.duplicates.admit(again)
    assert node.ran == [theirs, mine]
    assert node.repeated == [(again, b"mine")]
    assert set(node.duplicates.first("a")) == set()


def test_a_late_duplicate_is_answered_with_the_first_result() -> None:
    node = _Node()
    first, late = _job("a"), _job("a", sent_ms=2, deadline_ms=3)
    node.duplicates.admit(first)
    node.duplicates.answered(first, b"one")
    node.duplicates.admit(late)
    assert late.call.is_late(4)
    assert node.repeated == [(late, b"one")]
