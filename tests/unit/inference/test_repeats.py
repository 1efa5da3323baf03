"""Each sending of an answered call has one reply, with what stands in the topics played by the test."""

from __future__ import annotations

from typing import Any, cast

from easyremote.inference.jobs import Job
from easyremote.inference.ledger import Ledger
from easyremote.inference.repeats import Repeats
from easyremote.inference.results import Answer
from easyremote.topics.marks import reply_mark
from easyremote.topics.wire import Origin, parse_call
from tailed import Written


class _Node:
    def __init__(self) -> None:
        self.written = Written()
        self.sent: list[tuple[Job, bytes]] = []
        self.finished: list[Job] = []
        ledger = Ledger()
        ledger.assign([0])
        self.generation, _ = ledger.take(0, [0])
        self.repeats = Repeats(
            ledger,
            cast(Any, self.written),
            send=lambda job, value: self.sent.append((job, value)),
            finish=self.finished.append,
        )

    def job(self, sent_ms: int) -> Job:
        call = parse_call(b'{"function": "f", "id": "a"}', None, Origin("inference.general", 0, 0, sent_ms))
        return Job(call, 0, self.generation, 0, 0.0)


def test_a_sending_that_was_answered_is_not_answered_again_and_another_one_once() -> None:
    node = _Node()
    first, second, second_again, third = node.job(1), node.job(2), node.job(2), node.job(3)
    node.written.put("replies", reply_mark(third.call))  # by another node, or before this one was started
    answer = Answer.to(first.call, b"one")
    for job in (first, second, second_again, third):
        node.repeats.repeat(job, answer)
    assert node.sent == [(second, b"one")]
    assert node.finished == [first, second_again, third]


def test_a_reply_that_was_not_sent_is_sent_by_who_gets_the_call_again() -> None:
    node = _Node()
    answer = Answer.to(node.job(1).call, b"one")
    dropped, again = node.job(2), node.job(2)
    node.repeats.repeat(dropped, answer)
    node.repeats.forget(dropped)
    node.repeats.repeat(again, answer)
    assert [job for job, _ in node.sent] == [dropped, again]
