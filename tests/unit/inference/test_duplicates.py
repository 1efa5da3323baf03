"""Which calls are run, which wait and which are answered from before, with what all nodes know played by the test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from easyremote.inference.duplicates import Duplicates
from easyremote.inference.jobs import Job
from easyremote.inference.results import Answer
from easyremote.topics.records import RecordRef
from easyremote.topics.wire import Origin, parse_call

PLACE = RecordRef("replies", 3, 17)


@dataclass
class _Answers:
    known: dict[str, Answer] = field(default_factory=dict)
    asked: list[Callable[[], None]] = field(default_factory=list)

    def place_of(self, call_id: str) -> RecordRef | None:
        return PLACE if call_id in self.known else None

    def recall(self, _place: RecordRef, call_id: str, told: Callable[[Answer | None], None]) -> None:
        self.asked.append(lambda: told(self.known.get(call_id)))


class _Node:
    def __init__(self) -> None:
        self.answers = _Answers()
        self.ran: list[Job] = []
        self.repeated: list[tuple[Job, bytes]] = []
        self.duplicates = Duplicates(
            cast(Any, self.answers), self.ran.append, lambda job, answer: self.repeated.append((job, answer.value))
        )


def _job(call_id: str, sent_ms: int = 1) -> Job:
    origin = Origin("inference.general", 0, 0, sent_ms)
    call = parse_call(b'{"function": "f", "id": "%s"}' % call_id.encode(), None, origin)
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
    node.answers.known["a"] = Answer(b"theirs", b"1.000", "replies", 3)
    jobs = [_job("a", sent_ms=2), _job("a", sent_ms=3)]
    for job in jobs:
        node.duplicates.admit(job)
    node.answers.asked.pop()()
    assert not node.answers.asked
    assert (node.ran, node.repeated) == ([], [(job, b"theirs") for job in jobs])


def test_a_call_whose_answer_is_not_there_any_more_is_run() -> None:
    node = _Node()
    node.answers.known["a"] = Answer(b"theirs", b"1.000", "replies", 3)
    job = _job("a", sent_ms=2)
    node.duplicates.admit(job)
    del node.answers.known["a"]
    node.answers.asked.pop()()
    assert node.ran == [job]


def test_a_call_that_is_read_twice_was_sent_once_and_one_that_was_sent_twice_was_not() -> None:
    call = _job("a", sent_ms=5).call
    assert Answer.to(call, b"").is_to(_job("a", sent_ms=5).call)
    assert not Answer.to(call, b"").is_to(_job("a", sent_ms=6).call)
    assert not Answer(b"", b"5.000", "somewhere else", None).is_to(call)
