"""A record that was not acknowledged is looked for, and sent again only where it does not stand."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError
from easyremote.topics.certain import CertainProducer
from easyremote.topics.producer import is_refused
from tailed import Written

HEADERS = [("easyremote_source", b"requests/0/7")]
TIMED_OUT = KafkaError(KafkaError._MSG_TIMED_OUT)
WAIT_S = 20


class _Record:
    def topic(self) -> str:
        return "replies"

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_000


class _Broker:
    """Stands for the producer: what becomes of each sending is written down before."""

    def __init__(self, *outcomes: KafkaError | None) -> None:
        self.outcomes = list(outcomes)
        self.sent = 0

    def send(self, _topic: str, _value: bytes, *, on_delivery: Callable[..., None], **_: Any) -> None:
        self.sent += 1
        on_delivery(self.outcomes.pop(0), _Record())


class _Case:
    def __init__(self, broker: _Broker, written: Written, *, is_sure: bool = True, wanted: bool = True) -> None:
        self.is_sure, self.wanted = is_sure, wanted
        self.told: list[KafkaError | None] = []
        self.asked_anew = 0
        self._ended = threading.Event()
        self.producer = CertainProducer(
            cast(Any, broker), cast(Any, written), lambda: self.is_sure, self._ask_anew, quiet_s=0.05
        )

    def send(self) -> list[KafkaError | None]:
        """Send a record; return what was told of it."""
        self.producer.send(
            "replies", b"x", key="c", headers=HEADERS, on_delivery=self._take, wanted=lambda: self.wanted
        )
        assert self._ended.wait(WAIT_S)
        self.producer.close()
        return self.told

    def _ask_anew(self) -> None:
        self.asked_anew += 1

    def _take(self, error: KafkaError | None, _message: Any) -> None:
        self.told.append(error)
        self._ended.set()


def test_what_stands_there_is_not_sent_again() -> None:
    broker, written = _Broker(TIMED_OUT), Written()
    written.put("replies", b"requests/0/7")
    assert _Case(broker, written).send() == [None]
    assert broker.sent == 1


def test_what_does_not_stand_there_is_sent_until_it_does() -> None:
    broker = _Broker(TIMED_OUT, TIMED_OUT, None)
    case = _Case(broker, Written())
    assert case.send() == [None]
    # The group is asked when the doubt begins, and once more before anything is sent.
    assert (broker.sent, case.asked_anew) == (3, 4)


def test_what_a_busy_broker_writes_after_the_first_look_is_not_sent_again() -> None:
    broker, written = _Broker(TIMED_OUT, None), Written(at_once=False)
    case = _Case(broker, written)
    sending = threading.Thread(target=case.send)
    sending.start()
    while not written.asked:
        sending.join(0.01)
    written.answer()
    written.put("replies", b"requests/0/7")
    while not case.told and sending.is_alive():
        written.answer()
        sending.join(0.01)
    sending.join(WAIT_S)
    assert (broker.sent, case.told) == (1, [None])


def test_what_is_not_this_members_any_more_is_left_to_the_next_owner() -> None:
    broker, written = _Broker(TIMED_OUT), Written()
    assert _Case(broker, written, wanted=False).send() == [TIMED_OUT]
    assert (broker.sent, written.asked) == (1, [])


def test_what_was_sent_to_a_topic_that_is_not_there_is_refused() -> None:
    broker, written = _Broker(TIMED_OUT), Written()
    written.missing.add("replies")
    (error,) = _Case(broker, written).send()
    assert error is not None
    assert is_refused(error)


def test_while_the_membership_is_in_doubt_nothing_is_sent_and_then_it_is() -> None:
    broker, written = _Broker(TIMED_OUT, None), Written(at_once=False)
    case = _Case(broker, written, is_sure=False)
    sending = threading.Thread(target=case.send)
    sending.start()
    sending.join(0.3)
    assert (broker.sent, written.asked) == (1, [])
    case.is_sure = True
    while not case.told and sending.is_alive():
        written.answer()
        sending.join(0.01)
    sending.join(WAIT_S)
    assert (broker.sent, case.told) == (2, [None])


@pytest.mark.parametrize("error", [KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), None])
def test_what_the_broker_says_is_told_as_it_is(error: KafkaError | None) -> None:
    broker, written = _Broker(error), Written()
    assert _Case(broker, written).send() == [error]
    assert (broker.sent, written.asked) == (1, [])
